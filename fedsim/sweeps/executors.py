"""Who performs the runs of a comparison or a sweep, and how many at a time: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fedsim.processes.cores import num_cores, runs_at_once
from fedsim.progress import Progress
from fedsim.scenario.schema import Scenario
from fedsim.sweeps.workers import ExecutionConfig, Planned, PoolFactory, Processes


@contextlib.contextmanager
def executor(where: ExecutionConfig, planned: Sequence[Planned], progress: Progress) -> Iterator[PoolFactory]:
    """What makes a pool of workers for these runs, as long as the block lasts; leave it as soon as all have ended.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    threads = threads_of(run.scenario for run in planned)
    if where.ray is None:
        at_once = num_that_fit(where.processes, planned)
        if where.processes is not None and where.processes > at_once:
            progress.note(
                f"{at_once} at a time, not {where.processes}: processes times threads ({threads}) never exceed the "
                f"{num_cores()} cores, nor shares of a GPU the GPU"
            )
        yield lambda store: Processes(store, at_once, where.cache_dir)
        return
    from fedsim.processes.ray_cluster import Cluster
    from fedsim.sweeps.ray_workers import RayPool

    num_cpus = threads * runs_at_once(where.processes, threads, num_cores())
    with contextlib.closing(Cluster(where.ray, num_cpus, progress)) as cluster:

        def make_pool(store: Path) -> RayPool:
            cluster.open()
            return RayPool(cluster, store, where)

        yield make_pool


def num_that_fit(asked: int | None, planned: Sequence[Planned]) -> int:
    """Runs at a time on this machine: as many as fit its cores and, where one is asked for, its GPU."""
    scenarios = [run.scenario for run in planned]
    at_once = runs_at_once(asked, threads_of(scenarios), num_cores())
    return min(at_once, fit_a_gpu(scenarios) or at_once)


def threads_of(scenarios: Iterable[Scenario]) -> int:
    """The threads of the widest of several runs: its own, or those of its scorers, for which it waits."""
    return max(scenario.compute.threads * max(1, scenario.compute.scorers) for scenario in scenarios)


def fit_a_gpu(scenarios: Iterable[Scenario]) -> int | None:
    """Runs that one GPU has room for; None where no run asks for one."""
    shares = [scenario.compute.gpu_share for scenario in scenarios if scenario.compute.device != "cpu"]
    return max(1, int(1 / max(shares))) if shares else None
