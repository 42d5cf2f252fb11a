"""What runs ask of the cores and of a GPU, and what their processes find of it in their environment."""

from __future__ import annotations

from collections.abc import Iterable

from fedsim.processes.cores import BLAS
from fedsim.scenario.schema import Scenario

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def threads_of(scenarios: Iterable[Scenario]) -> int:
    """The threads of the widest of several runs: its own, or those of its scorers, for which it waits."""
    return max(scenario.compute.threads * max(1, scenario.compute.scorers) for scenario in scenarios)


def fit_a_gpu(scenarios: Iterable[Scenario]) -> int | None:
    """Runs that one GPU has room for; None where no run asks for one."""
    shares = [scenario.compute.gpu_share for scenario in scenarios if scenario.compute.device != "cpu"]
    return max(1, int(1 / max(shares))) if shares else None


def environment(threads: int, share: int) -> dict[str, str]:
    """What the process of a run finds in its environment.

    Args:
        threads: of the run. Libraries beside torch get as many, but for numpy's products (`BLAS`): the bits of a product of
            two matrices depend on that, so it must depend neither on the machine nor on the runs beside this one.
        share: cores that the run may use; as many of its models are trained at a time as fit them.
    """
    return {"FEDSIM_PROCESSES": str(max(1, share))} | dict.fromkeys(_THREADS, str(threads)) | BLAS
