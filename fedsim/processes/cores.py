"""The processor cores that this process may use, by itself or beside other runs."""

from __future__ import annotations

import os


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
