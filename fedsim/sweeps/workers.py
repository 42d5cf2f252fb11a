"""Performing planned runs: what is kept is not done again, what is missing is given to a pool of workers.

A pool is worker processes of this machine (`Processes`) or a cluster (`fedsim.sweeps.ray_workers`). A run is written into
``runs/<key>.unfinished``, which nobody takes for finished, because it is renamed only when the run has ended.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fedsim.errors import FedsimError, LostError
from fedsim.processes.children import Child, asked_to_end, end, ready
from fedsim.processes.cores import environment, num_cores
from fedsim.progress import Progress
from fedsim.records.run_folder import write_atomically
from fedsim.scenario.schema import Scenario
from fedsim.sweeps.code import remember_code
from fedsim.sweeps.worker import perform

_LOOK_S = 0.2  # how often a signal to end is looked for while nothing happens

Report = Mapping[str, Any]
"""How a run ended, see `fedsim.sweeps.worker`."""


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """Where runs are performed, and how many at a time.

    Attributes:
        processes: runs at a time; default as many as fit the cores of this machine, or the cluster.
        cache_dir: where trained models are kept.
        ray: address of a Ray cluster, ``local`` for one that is started and stopped; None: not on Ray.
    """

    processes: int | None = None
    cache_dir: Path | None = None
    ray: str | None = None


class Planned(Protocol):
    """What a run must say of itself to be run here."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def key(self) -> str:
        """Under which its result is kept."""

    @property
    def scenario(self) -> Scenario:
        """What is run, with absolute paths."""


class WorkerPool(Protocol):
    """Those who perform runs, each in the store's ``<key>.unfinished``."""

    def has_room(self) -> bool:
        """Whether one more run may be given."""

    def give(self, run: Planned) -> None:
        """Have a run performed."""

    def at_work(self) -> bool:
        """Whether a run was given whose report has not come."""

    def reports(self) -> Iterator[tuple[Planned, Report]]:
        """What runs have come to since the last look; waits for a moment if there is nothing.

        Raises:
            FedsimError: a run broke.
        """

    def close(self) -> None:
        """End everybody, whatever they are doing."""


PoolFactory = Callable[[Path], WorkerPool]
"""Makes the pool that writes into a store."""

P = TypeVar("P", bound=Planned)
P_contra = TypeVar("P_contra", bound=Planned, contravariant=True)


class Rules(Protocol[P_contra]):
    """What becomes of a run that has ended."""

    def is_kept(self, folder: Path) -> bool:
        """Whether a run's folder is whole, and the run need not be repeated."""

    def keep(self, run: P_contra, report: Report, store: Path) -> None:
        """Keep a run that has ended, or say why not.

        Raises:
            FedsimError: it is no result.
        """


def perform_missing(
    planned: Sequence[P],
    store: Path,
    make_pool: PoolFactory,
    rules: Rules[P],
    progress: Progress,
    name: str = "runs",
) -> None:
    """Have everything performed that is missing; runs of one key are one run.

    A signal that asks to end (SIGINT, SIGTERM, SIGHUP) ends the pool and keeps what has ended.

    Raises:
        FedsimError: a run broke (a bug, or a file that cannot be read), or is no result; the others are kept.
        KeyboardInterrupt: a signal asked to end.
    """
    runs = {run.key: run for run in planned}
    waiting = deque(run for key, run in runs.items() if not rules.is_kept(store / key))
    with asked_to_end() as asked, progress.phase(name, len(runs)) as phase:
        phase.advance(len(runs) - len(waiting), kept=len(runs) - len(waiting))
        if not waiting:
            return
        remember_code()
        with contextlib.closing(make_pool(store)) as pool:
            while waiting or pool.at_work():
                if asked.is_set():
                    raise KeyboardInterrupt
                while waiting and pool.has_room():
                    pool.give(waiting.popleft())
                for run, report in pool.reports():
                    rules.keep(runs[run.key], report, store)
                    phase.advance(1, last=run.name)


def unfinished(run: Planned, store: Path) -> Path:
    """Where a run is written until it has ended; what an earlier start has left there, or torn, is removed."""
    folder = store / f"{run.key}.unfinished"
    for torn in (folder, store / run.key):
        shutil.rmtree(torn, ignore_errors=True)
    return folder


def broken(run: Planned, why: str, log: Path) -> FedsimError:
    """The error of a run that ended with a traceback, or with its process, instead of a result."""
    return FedsimError(f"{run.name} broke: {why} (log: {log})")


class Processes:
    """A pool of processes on this machine: those that have a run, and lasting ones that wait for the next.

    Runs of timing fidelity share lasting processes, since starting one takes longer than the run; a run of real models has
    a process of its own.

    Args:
        store: where runs are written.
        at_once: runs at a time.
        cache_dir: where trained models are kept.
    """

    def __init__(self, store: Path, at_once: int, cache_dir: Path | None) -> None:
        self._store = store
        self._at_once = at_once
        self._cache_dir = cache_dir
        self._idle: defaultdict[int, list[Child]] = defaultdict(list)  # by their threads
        self._busy: dict[Child, Planned] = {}
        self._logs: dict[Child, Path] = {}

    def has_room(self) -> bool:
        """Whether fewer runs are under way than may be at a time."""
        return len(self._busy) < self._at_once

    def at_work(self) -> bool:
        """Whether any is."""
        return bool(self._busy)

    def give(self, run: Planned) -> None:
        """Give a run to a process that waits for one, or to a new one."""
        out = unfinished(run, self._store)
        scenario = write_atomically(self._store / f"{run.key}.yaml", run.scenario.to_yaml().encode())
        child = self._child_for(run)
        self._busy[child] = run
        child.ask(perform, {"scenario": scenario, "out": out, "cache_dir": self._cache_dir})

    def _child_for(self, run: Planned) -> Child:
        threads, lasts = run.scenario.compute.threads, _shares_process(run)
        if lasts and self._idle[threads]:
            return self._idle[threads].pop()
        log = self._store / (f"worker-{len(self._logs)}.log" if lasts else f"{run.key}.log")
        child = Child(log, environment(threads, num_cores() // self._at_once))
        self._logs[child] = log
        return child

    def reports(self) -> Iterator[tuple[Planned, Report]]:
        """What runs have come to since the last look; waits for a moment if there is nothing.

        Raises:
            FedsimError: a run broke.
        """
        for child in ready(self._busy, _LOOK_S):
            run = self._busy[child]
            try:
                report = child.answer()
            except LostError as lost:
                raise broken(run, str(lost), self._logs[child]) from None
            del self._busy[child]
            if _shares_process(run):
                self._idle[run.scenario.compute.threads].append(child)
            else:
                child.close()
            yield run, report

    def close(self) -> None:
        """End every process."""
        end([*self._busy, *(child for idle in self._idle.values() for child in idle)])


def _shares_process(run: Planned) -> bool:
    return run.scenario.fidelity == "timing"
