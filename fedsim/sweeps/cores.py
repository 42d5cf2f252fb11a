"""How many runs at a time, and with how many threads each: processes times threads never exceed the cores."""

from __future__ import annotations

from collections.abc import Iterable

from fedsim.processes.cores import num_cores as num_cores
from fedsim.scenario.schema import Scenario

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
BLAS = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's products have one thread in every process of fedsim, since their bits depend on the number of threads."""


def threads_of(scenarios: Iterable[Scenario]) -> int:
    """The threads of the widest of several runs: of all its processes, or of its scorers, for which it waits."""
    return max(
        scenario.compute.threads * max(scenario.compute.processes or 1, scenario.compute.scorers)
        for scenario in scenarios
    )


def fit_a_gpu(scenarios: Iterable[Scenario]) -> int | None:
    """Runs that one GPU has room for; None where no run asks for one."""
    shares = [scenario.compute.gpu_share for scenario in scenarios if scenario.compute.device != "cpu"]
    return max(1, int(1 / max(shares))) if shares else None


def at_once(asked: int | None, threads: int, cores: int) -> int:
    """Runs at a time: as many as fit the cores, fewer where fewer are asked for, and at least one.

    >>> at_once(None, threads=1, cores=4), at_once(3, threads=2, cores=4), at_once(None, threads=8, cores=4)
    (4, 2, 1)
    """
    fitting = max(1, cores // threads)
    return fitting if asked is None else max(1, min(asked, fitting))


def environment(threads: int, share: int) -> dict[str, str]:
    """What the process of a run finds in its environment.

    Args:
        threads: of the run. Libraries beside torch get as many, but for numpy's products (`BLAS`): the bits of a product of
            two matrices depend on that, so it must depend neither on the machine nor on the runs beside this one.
        share: cores that the run may use; as many of its models are trained at a time as fit them.
    """
    return {"FEDSIM_PROCESSES": str(max(1, share))} | dict.fromkeys(_THREADS, str(threads)) | BLAS
