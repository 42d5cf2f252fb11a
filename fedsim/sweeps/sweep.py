"""Running a comparison: every run a process of its own, what is finished is kept, what is missing is done.

Runs share nothing but the cache of trained models: each is ``python -m fedsim run``. A finished run lies in ``runs/<key>``
(see ``comparison_file``); an unfinished one in ``runs/<key>.unfinished``, which nobody takes for finished, because it is
renamed only when its process has ended well.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fedsim.errors import FedsimError, RunFolderError, ScenarioError
from fedsim.experiment import refuse_early
from fedsim.progress import Progress
from fedsim.runfolder import MANIFEST, SUMMARY, write_atomically
from fedsim.sweeps import tuning
from fedsim.sweeps.comparison_file import Comparison, PlannedRun, open_comparison

RUNS, LOCK, MARKER, FIGURES = "runs", ".comparison.lock", "comparison.yaml", "figures"
_OURS = {
    RUNS, LOCK, MARKER, FIGURES, tuning.JSON, tuning.TABLE, "comparison.json", "comparison.csv", "comparison.md",
}  # fmt: skip
_GRACE_S = 10.0  # how long a child that was told to end may take


def compare(
    source: Path | str,
    out: Path | None,
    *,
    processes: int | None,
    cache_dir: Path | None,
    progress: Progress,
    seeds: Sequence[int] | None = None,
    tune: bool = False,
    figures: bool = True,
) -> Path:
    """Run a comparison (what is missing of it) and write its tables; returns its folder.

    Args:
        source: the comparison file, or a shipped one's bare name.
        out: exactly the folder; default ``runs/<name>``. It may hold finished runs of an earlier start.
        processes: runs at a time; default one per core and thread of the base scenario.
        cache_dir: where trained models are kept.
        progress: where progress is shown.
        seeds: instead of the file's own seeds.
        tune: first run the file's grid, choose every tuned variant's value by it, and compare with those values.
        figures: whether to draw ``figures/``.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong, or there is no grid to tune by; nothing
            was written.
        RunFolderError: the folder holds something else, or another comparison is running in it.
        FedsimError: a run failed; the finished ones are kept.
    """
    from fedsim.sweeps.comparison import write_comparison

    opened = open_comparison(source, seeds)
    comparison, grid, planned = opened.comparison, opened.grid(), opened.runs()
    if tune and not grid:
        raise ScenarioError(
            f"{opened.path}: there is no grid to tune by; give tune: {{seeds: [...], values: [...]}}"
        )
    _refuse_early(opened.path, [*planned, *grid])
    folder = out or Path("runs") / comparison.name
    threads = max(run.scenario.compute.threads for run in planned)
    at_once = processes or max(1, (os.cpu_count() or 1) // threads)
    choices: list[tuning.Choice] = []
    with taken(folder):
        write_atomically(folder / MARKER, opened.path.read_bytes())
        if tune:
            tried = run_all(
                grid, folder, processes=at_once, cache_dir=cache_dir, progress=progress, name="tuning"
            )
            choices = _choose(comparison, planned, grid, tried, folder)
            planned = opened.runs({choice.variant: choice.chosen for choice in choices})
        folders = run_all(planned, folder, processes=at_once, cache_dir=cache_dir, progress=progress)
        runs = [
            {
                "variant": run.variant,
                "seed": run.seed,
                "folder": folders[run.key].relative_to(folder).as_posix(),
            }
            for run in planned
        ]
        write_comparison(
            folder,
            comparison.name,
            comparison.seeds,
            summaries(planned, folders),
            runs,
            target=comparison.target,
            tuned=settings(comparison, planned),
        )
        if figures:
            _draw(folder, progress)
    return folder


def _refuse_early(path: Path, planned: Sequence[PlannedRun]) -> None:
    """Refuse a variant that can never begin while nothing is written: one seed of each stands for the others."""
    seen: set[str] = set()
    for run in planned:
        if run.variant in seen:
            continue
        seen.add(run.variant)
        try:
            refuse_early(run.scenario)
        except ScenarioError as error:
            raise ScenarioError(f"{path}: variant {run.variant}: {error}") from None


def settings(comparison: Comparison, planned: Sequence[PlannedRun]) -> dict[str, dict[str, Any] | None]:
    """Each variant's tuned ``key``, the ``value`` its runs have there, and ``by`` what: ``tuning`` or ``file``."""
    found: dict[str, dict[str, Any] | None] = {}
    for variant in comparison.variants:
        run = next(run for run in planned if run.variant == variant.name)
        found[variant.name] = (
            None
            if variant.tune is None
            else {
                "key": variant.tune,
                "value": tuning.own_value(run, variant.tune),
                "by": "file" if run.value is None else "tuning",
            }
        )
    return found


def _choose(
    comparison: Comparison,
    planned: Sequence[PlannedRun],
    grid: Sequence[PlannedRun],
    folders: Mapping[str, Path],
    folder: Path,
) -> list[tuning.Choice]:
    found = {key: json.loads((place / SUMMARY).read_text(encoding="utf-8")) for key, place in folders.items()}
    places = {key: place.relative_to(folder).as_posix() for key, place in folders.items()}
    choices = tuning.choose(comparison, planned, grid, found, places)
    tuning.write_tuning(folder, comparison, choices)
    return choices


def _draw(folder: Path, progress: Progress) -> None:
    from analysis.comparison_report import write_comparison_report

    with progress.phase("figures", None):
        write_comparison_report(folder)


@contextlib.contextmanager
def taken(
    folder: Path, kind: str = "comparison", marker: str = MARKER, ours: Collection[str] = frozenset(_OURS)
) -> Iterator[None]:
    """Hold a comparison's folder, new or begun earlier, for this process alone (a lock of the operating system).

    Args:
        folder: the folder.
        kind: what it is the folder of, for messages.
        marker: the file that says so.
        ours: names that may stand in it before the marker does.

    Raises:
        RunFolderError: it holds something that is not a comparison, another comparison is running in it, or it
            cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        if folder.exists():
            _check_ours(folder, kind, marker, ours)
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(
            f"{folder}: another {kind} is running in it; wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _check_ours(folder: Path, kind: str, marker: str, ours: Collection[str]) -> None:
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; --out must be a new folder or a {kind}'s")
    if (folder / marker).is_file() and (folder / LOCK).is_file():
        return
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if strangers:
        raise RunFolderError(f"{folder} holds {strangers[0]} and is not a {kind}; choose another --out")


def run_all(
    planned: Sequence[PlannedRun],
    folder: Path,
    *,
    processes: int,
    cache_dir: Path | None,
    progress: Progress,
    name: str = "runs",
) -> dict[str, Path]:
    """Run what is missing, ``processes`` at a time, and return every run's folder by key.

    Two variants that resolve to one scenario are one run. A signal that asks to end (SIGINT, SIGTERM, SIGHUP) stops the
    children, and theirs, and keeps what is finished.

    Raises:
        FedsimError: a run failed; the message ends with what it said, and the others are kept.
        KeyboardInterrupt: a signal asked to end.
    """
    store = folder / RUNS
    runs = {run.key: run for run in planned}
    waiting = [run for run in runs.values() if not is_finished(store / run.key)]
    children: dict[subprocess.Popen[bytes], PlannedRun] = {}
    with asked_to_end() as asked, progress.phase(name, len(runs)) as phase:
        phase.advance(len(runs) - len(waiting), kept=len(runs) - len(waiting))
        try:
            while waiting or children:
                if asked.is_set():
                    raise KeyboardInterrupt
                while waiting and len(children) < processes:
                    run = waiting.pop(0)
                    children[_start(run, store, cache_dir, processes)] = run
                for child in [child for child in children if child.poll() is not None]:
                    run = children.pop(child)
                    _keep(child, run, store)
                    phase.advance(1, last=f"{run.variant}, seed {run.seed}")
                time.sleep(0.05)
        finally:
            end_children(list(children))
    return {key: store / key for key in runs}


@contextlib.contextmanager
def asked_to_end() -> Iterator[threading.Event]:
    """An event that is set by a signal to end, so that no child is left behind by an exception between two lines."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End children with everything they have started: each has a process group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
        until_s = time.monotonic() + _GRACE_S
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until_s - time.monotonic()))


def is_finished(folder: Path) -> bool:
    """Whether a kept run is whole."""
    return (folder / SUMMARY).is_file() and (folder / MANIFEST).is_file()


def summaries(planned: Sequence[PlannedRun], folders: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Each variant's summaries, in the order of the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in planned:
        summary = json.loads((folders[run.key] / SUMMARY).read_text(encoding="utf-8"))
        found.setdefault(run.variant, []).append(summary)
    return found


def _start(run: PlannedRun, store: Path, cache_dir: Path | None, processes: int) -> subprocess.Popen[bytes]:
    unfinished = store / f"{run.key}.unfinished"
    for torn in (unfinished, store / run.key):
        shutil.rmtree(torn, ignore_errors=True)
    scenario = write_atomically(store / f"{run.key}.yaml", run.scenario.to_yaml().encode())
    command = [sys.executable, "-m", "fedsim", "run", str(scenario), "--out", str(unfinished), "--no-figures"]
    if cache_dir is not None:
        command += ["--cache-dir", str(cache_dir)]
    # Processes times threads never exceeds the cores: with several runs at once, each trains one model at a time.
    cores = os.cpu_count() or 1
    environment = os.environ | {"FEDSIM_PROCESSES": str(max(1, cores // processes))}
    with (store / f"{run.key}.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, process_group=0
        )


def _keep(child: subprocess.Popen[bytes], run: PlannedRun, store: Path) -> None:
    if child.returncode != 0:
        said = (store / f"{run.key}.log").read_text(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {child.returncode}"
        raise FedsimError(
            f"variant {run.variant}, seed {run.seed} failed: {reason} (log: {store / run.key}.log)"
        )
    (store / f"{run.key}.unfinished").rename(store / run.key)
