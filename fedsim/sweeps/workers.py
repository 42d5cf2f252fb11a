"""Running many planned runs in a few lasting processes (`fedsim.sweeps.worker`), and keeping what each came to.

A run's folder lies in the store under its key as soon as its run has ended, well or not: a run that failed inside is as
reproducible as one that finished. `ENDING` in it says how it ended; a folder without it is torn and is made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from fedsim.errors import FedsimError
from fedsim.progress import Progress
from fedsim.runfolder import write_atomically, write_json
from fedsim.scenario import Scenario
from fedsim.sweeps.sweep import asked_to_end, end_children

ENDING = "ending.json"
_LOOK_S = 0.2  # how often a signal to end is looked for while nothing happens
_LAST_WORDS_S = 10.0  # how long a process that closed its pipe may take to write its traceback


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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: ``finished``, ``failed`` inside the simulated world, or ``refused`` before it began."""

    status: Literal["finished", "failed", "refused"]
    reason: str
    wall_s: float


def ending(folder: Path) -> Ending | None:
    """How a kept run ended; None if there is none, or its folder is torn."""
    try:
        return Ending(**json.loads((folder / ENDING).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def run_in_workers(
    planned: Sequence[Planned], store: Path, *, processes: int, cache_dir: Path | None, progress: Progress
) -> dict[str, Ending]:
    """Run what is missing, ``processes`` at a time, and return every run's ending by key.

    Runs of timing fidelity share lasting processes, since starting one takes longer than the run; a run of real models has
    a process of its own. A signal that asks to end (SIGINT, SIGTERM, SIGHUP) stops the processes and keeps what has ended.

    Raises:
        FedsimError: a run broke (a bug, or a file that cannot be read); the others are kept.
        KeyboardInterrupt: a signal asked to end.
    """
    runs = {run.key: run for run in planned}
    endings = {key: found for key in runs if (found := ending(store / key)) is not None}
    waiting = [run for key, run in runs.items() if key not in endings]
    crew = _Crew(store, processes, cache_dir)
    with asked_to_end() as asked, progress.phase("runs", len(runs)) as phase:
        phase.advance(len(endings), kept=len(endings))
        try:
            while waiting or crew.busy:
                if asked.is_set():
                    raise KeyboardInterrupt
                while waiting and len(crew.busy) < processes:
                    crew.give(waiting.pop(0))
                for run, report in crew.reports():
                    endings[run.key] = _keep(run, report, store)
                    phase.advance(1, last=run.name)
        finally:
            crew.dismiss()
    return endings


class _Crew:
    """Worker processes: those that have a run, and lasting ones that wait for the next."""

    def __init__(self, store: Path, processes: int, cache_dir: Path | None) -> None:
        cores = os.cpu_count() or 1
        # Processes times threads never exceeds the cores: several runs at once train one model at a time each.
        self._environment = os.environ | {
            "FEDSIM_PROCESSES": str(max(1, cores // processes)),
            "POLARS_MAX_THREADS": str(max(1, cores // processes)),
        }
        self._store = store
        self._cache_dir = cache_dir
        self._idle: list[_Process] = []
        self._num_lasting = 0
        self._selector = selectors.DefaultSelector()
        self.busy: dict[_Process, Planned] = {}

    def give(self, run: Planned) -> None:
        """Give a run to a process that waits for one, or to a new one."""
        unfinished = self._store / f"{run.key}.unfinished"
        for torn in (unfinished, self._store / run.key):
            shutil.rmtree(torn, ignore_errors=True)
        scenario = write_atomically(self._store / f"{run.key}.yaml", run.scenario.to_yaml().encode())
        cache_dir = None if self._cache_dir is None else str(self._cache_dir)
        process = self._process_for(run)
        self.busy[process] = run
        process.order({"scenario": str(scenario), "out": str(unfinished), "cache_dir": cache_dir})

    def _process_for(self, run: Planned) -> _Process:
        lasting = run.scenario.fidelity == "timing"
        if lasting and self._idle:
            return self._idle.pop()
        log = f"worker-{self._num_lasting}.log" if lasting else f"{run.key}.log"
        self._num_lasting += lasting
        process = _Process(self._store / log, self._environment, lasting=lasting)
        self._selector.register(process.stdout, selectors.EVENT_READ, process)
        return process

    def reports(self) -> Iterator[tuple[Planned, dict[str, Any]]]:
        """What runs have come to since the last look; waits for a moment if there is nothing.

        Raises:
            FedsimError: a run broke.
        """
        for chosen, _ in self._selector.select(_LOOK_S):
            process: _Process = chosen.data
            run = self.busy[process]
            try:
                report = process.report()
            except EOFError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.child.wait(_LAST_WORDS_S)
                said = process.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
                raise FedsimError(f"{run.name} broke: {said[-1]} (log: {process.log})") from None
            if report is None:
                continue
            del self.busy[process]
            if process.lasting:
                self._idle.append(process)
            else:
                self._selector.unregister(process.stdout)
                process.close()
            yield run, report

    def dismiss(self) -> None:
        """End every process."""
        everybody = [*self.busy, *self._idle]
        end_children([process.child for process in everybody])
        for process in everybody:
            process.close()
        self._selector.close()


class _Process:
    """One worker process and its pipes."""

    def __init__(self, log: Path, environment: Mapping[str, str], *, lasting: bool) -> None:
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


def _keep(run: Planned, report: Mapping[str, Any], store: Path) -> Ending:
    unfinished = store / f"{run.key}.unfinished"
    found = Ending(report["status"], report["reason"], report["wall_s"])
    unfinished.mkdir(exist_ok=True)  # a run that is refused early has none
    write_json(unfinished / ENDING, asdict(found))
    unfinished.rename(store / run.key)
    return found
