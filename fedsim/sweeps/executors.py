"""Who performs the runs of a comparison or a sweep: processes of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedsim.processes.cores import num_cores, runs_at_once
from fedsim.progress import Progress
from fedsim.sweeps import cores
from fedsim.sweeps.workers import ExecutionConfig, Planned, PoolFactory, Processes


@contextlib.contextmanager
def executor(where: ExecutionConfig, planned: Sequence[Planned], progress: Progress) -> Iterator[PoolFactory]:
    """What makes a pool of workers for these runs, as long as the block lasts; leave it as soon as all have ended.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    threads = cores.threads_of(run.scenario for run in planned)
    at_once = runs_at_once(where.processes, threads, num_cores())
    if where.ray is None:
        on_gpu = cores.fit_a_gpu(run.scenario for run in planned)
        at_once = at_once if on_gpu is None else min(at_once, on_gpu)
        if where.processes is not None and where.processes > at_once:
            progress.note(
                f"{at_once} at a time, not {where.processes}: processes times threads ({threads}) never exceed the "
                f"{num_cores()} cores, nor shares of a GPU the GPU"
            )
        yield lambda store: Processes(store, at_once, where.cache_dir)
        return
    from fedsim.processes.ray_cluster import Cluster
    from fedsim.sweeps.ray_workers import RayPool

    with contextlib.closing(Cluster(where.ray, at_once * threads, progress)) as cluster:

        def make_pool(store: Path) -> RayPool:
            cluster.open()
            return RayPool(cluster, store, where)

        yield make_pool
