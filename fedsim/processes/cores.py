"""The processor cores that this process may use, and how many runs fit them: processes times threads never exceed them."""

from __future__ import annotations

import os

BLAS = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's products have one thread in every process of fedsim, since their bits depend on the number of threads."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


def environment(threads: int, share: int) -> dict[str, str]:
    """What the process of a run finds in its environment.

    Args:
        threads: of the run. Libraries beside torch get as many, but for numpy's products (`BLAS`): the bits of a product of
            two matrices depend on that, so it must depend neither on the machine nor on the runs beside this one.
        share: cores that the run may use; as many of its models are trained at a time as fit them.
    """
    return {"FEDSIM_PROCESSES": str(max(1, share))} | dict.fromkeys(_THREADS, str(threads)) | BLAS


def num_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_of_a_run() -> int:
    """The cores that a run in this process may use: all, or its share where several runs go on at a time.

    Whoever performs several states the share as ``FEDSIM_PROCESSES``.
    """
    return int(os.environ.get("FEDSIM_PROCESSES") or num_cores())


def runs_at_once(asked: int | None, threads: int, cores: int) -> int:
    """Runs at a time: as many as fit the cores, fewer where fewer are asked for, and at least one.

    >>> runs_at_once(None, 1, cores=4), runs_at_once(3, 2, cores=4), runs_at_once(None, 8, cores=4)
    (4, 2, 1)
    """
    fitting = max(1, cores // threads)
    return fitting if asked is None else max(1, min(asked, fitting))
