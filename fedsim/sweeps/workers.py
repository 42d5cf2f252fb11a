"""Performing planned runs: what is kept is not done again, what is missing is given to a pool of workers.

A pool is worker processes of this machine (`Processes`) or a cluster (`fedsim.sweeps.ray_workers`). A run is written into
``runs/<key>.unfinished``, which nobody takes for finished, because it is renamed only when the run has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fedsim.errors import FedsimError
from fedsim.processes.children import asked_to_end, end_children
from fedsim.processes.cores import num_cores
from fedsim.progress import Progress
from fedsim.records.run_folder import write_atomically
from fedsim.scenario.schema import Scenario
from fedsim.sweeps.code import remember_code
from fedsim.sweeps.cores import environment

_LOOK_S = 0.2  # how often a signal to end is looked for while nothing happens
_LAST_WORDS_S = 10.0  # how long a process that closed its pipe may take to write its traceback

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


def broken(run: Planned, said: str, log: Path) -> FedsimError:
    """The error of a run that ended with a traceback instead of a result; its last line tells."""
    lines = said.strip().splitlines() or ["it said nothing"]
    return FedsimError(f"{run.name} broke: {lines[-1]} (log: {log})")


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
        self._idle: dict[int, list[_Process]] = {}  # by their threads
        self._num_lasting = 0
        self._selector = selectors.DefaultSelector()
        self._busy: dict[_Process, Planned] = {}

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
        cache_dir = None if self._cache_dir is None else str(self._cache_dir)
        process = self._process_for(run)
        self._busy[process] = run
        process.order({"scenario": str(scenario), "out": str(out), "cache_dir": cache_dir})

    def _process_for(self, run: Planned) -> _Process:
        threads = run.scenario.compute.threads
        lasting = run.scenario.fidelity == "timing"
        if lasting and self._idle.get(threads):
            return self._idle[threads].pop()
        log = f"worker-{self._num_lasting}.log" if lasting else f"{run.key}.log"
        self._num_lasting += lasting
        variables = os.environ | environment(threads, num_cores() // self._at_once)
        process = _Process(self._store / log, variables, threads, lasting=lasting)
        self._selector.register(process.stdout, selectors.EVENT_READ, process)
        return process

    def reports(self) -> Iterator[tuple[Planned, Report]]:
        """What runs have come to since the last look; waits for a moment if there is nothing.

        Raises:
            FedsimError: a run broke.
        """
        for chosen, _ in self._selector.select(_LOOK_S):
            process: _Process = chosen.data
            run = self._busy[process]
            try:
                report = process.report()
            except EOFError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.child.wait(_LAST_WORDS_S)
                raise broken(run, process.log.read_text(errors="replace"), process.log) from None
            if report is None:
                continue
            del self._busy[process]
            if process.lasting:
                self._idle.setdefault(process.threads, []).append(process)
            else:
                self._selector.unregister(process.stdout)
                process.close()
            yield run, report

    def close(self) -> None:
        """End every process."""
        everybody = [*self._busy, *(process for idle in self._idle.values() for process in idle)]
        end_children([process.child for process in everybody])
        for process in everybody:
            process.close()
        self._selector.close()


class _Process:
    """One worker process and its pipes."""

    def __init__(self, log: Path, environment: Mapping[str, str], threads: int, *, lasting: bool) -> None:
        with log.open("wb") as stderr:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "fedsim.sweeps.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                process_group=0,
            )
        assert self.child.stdin is not None and self.child.stdout is not None
        self.stdin, self.stdout = self.child.stdin, self.child.stdout
        self.log = log
        self.threads = threads
        self.lasting = lasting
        self._heard = b""

    def order(self, order: Mapping[str, Any]) -> None:
        """Send an order; if the process has died, its report will say so."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(json.dumps(order).encode() + b"\n")
            self.stdin.flush()

    def report(self) -> dict[str, Any] | None:
        """The report, if all of it has come.

        Raises:
            EOFError: the process has ended without one.
        """
        piece = os.read(self.stdout.fileno(), 1 << 16)
        if not piece:
            raise EOFError
        self._heard += piece
        if not self._heard.endswith(b"\n"):
            return None
        report, self._heard = dict(json.loads(self._heard)), b""
        return report

    def close(self) -> None:
        """Close the pipes, which ends a process that has no run, and await its end."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self.child.wait()
        self.stdout.close()
