"""Running a comparison: what is finished is kept, what is missing is done, by processes or a cluster (`executors`).

Runs share nothing but the cache of trained models, and their records are those of ``fedsim run``. A finished run lies in
``runs/<key>`` (see ``comparison_file``).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError, RunFolderError, ScenarioError
from fedsim.experiment.checks import refuse_early
from fedsim.experiment.prepared import Prepared
from fedsim.progress import Progress
from fedsim.records.run_folder import MANIFEST, SUMMARY, write_atomically
from fedsim.sweeps.compare import tuning
from fedsim.sweeps.compare.file import Comparison, PlannedRun, open_comparison
from fedsim.sweeps.executors import executor
from fedsim.sweeps.workers import ExecutionConfig, Planned, Report, perform_missing

RUNS, LOCK, MARKER, FIGURES = "runs", ".comparison.lock", "comparison.yaml", "figures"
_OURS = {
    RUNS, LOCK, MARKER, FIGURES, tuning.JSON, tuning.TABLE, "comparison.json", "comparison.csv", "comparison.md",
}  # fmt: skip


def compare(
    source: Path | str,
    out: Path | None,
    *,
    where: ExecutionConfig,
    progress: Progress,
    seeds: Sequence[int] | None = None,
    tune: bool = False,
) -> Path:
    """Run a comparison (what is missing of it) and write its tables; returns its folder.

    Args:
        source: the comparison file, or a shipped one's bare name.
        out: exactly the folder; default ``runs/<name>``. It may hold finished runs of an earlier start.
        where: who performs the runs, and how many at a time.
        progress: where progress is shown.
        seeds: instead of the file's own seeds.
        tune: first run the file's grid, choose every tuned variant's value by it, and compare with those values.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong, or there is no grid to tune by; nothing
            was written.
        RunFolderError: the folder holds something else, or another comparison is running in it.
        FedsimError: a run failed; the finished ones are kept.
    """
    from fedsim.sweeps.compare.tables import write_comparison

    opened = open_comparison(source, seeds)
    comparison, grid, planned = opened.comparison, opened.grid(), opened.runs()
    if tune and not grid:
        raise ScenarioError(
            f"{opened.path}: there is no grid to tune by; give tune: {{seeds: [...], values: [...]}}"
        )
    prepare_variants(opened.path, [*planned, *grid])
    folder = out or Path("runs") / comparison.name
    store = folder / RUNS
    with contextlib.ExitStack() as pools:
        make_pool = pools.enter_context(
            executor(where, [*planned, *grid], progress)
        )  # before anything is written
        with taken(folder):
            write_atomically(folder / MARKER, opened.path.read_bytes())
            if tune:
                perform_missing(grid, store, make_pool, Finished(), progress, "tuning")
                choices = _choose(comparison, planned, grid, folder)
                planned = opened.runs({choice.variant: choice.chosen for choice in choices})
            perform_missing(planned, store, make_pool, Finished(), progress)
            pools.close()
            write_comparison(
                folder,
                comparison.name,
                comparison.seeds,
                summaries(planned, store),
                [
                    {"variant": run.variant, "seed": run.seed, "folder": f"{RUNS}/{run.key}"}
                    for run in planned
                ],
                target=comparison.target,
                tuned=settings(comparison, planned),
                scenarios={run.variant: run.scenario.resolved() for run in planned},  # of the last seed
            )
    return folder


def prepare_variants(path: Path, planned: Sequence[PlannedRun]) -> dict[str, Prepared]:
    """One seed of each variant, which stands for the others, as it was checked while nothing is written.

    Raises:
        ScenarioError: a variant can never begin.
    """
    found: dict[str, Prepared] = {}
    for run in planned:
        try:
            if run.variant not in found:
                found[run.variant] = refuse_early(run.scenario)
        except ScenarioError as error:
            raise ScenarioError(f"{path}: variant {run.variant}: {error}") from None
    return found


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
    folder: Path,
) -> list[tuning.Choice]:
    places = {run.key: f"{RUNS}/{run.key}" for run in grid}
    found = {
        key: json.loads((folder / place / SUMMARY).read_text(encoding="utf-8"))
        for key, place in places.items()
    }
    choices = tuning.choose(comparison, planned, grid, found, places)
    tuning.write_tuning(folder, comparison, choices)
    return choices


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


class Finished:
    """The rules of a comparison: only a run that has finished is a result."""

    def is_kept(self, folder: Path) -> bool:
        """Whether it is whole."""
        return is_finished(folder)

    def keep(self, run: Planned, report: Report, store: Path) -> None:
        """Keep a run that has finished.

        Raises:
            FedsimError: it has failed, or was refused (``ScenarioError``); the message says why.
        """
        if report["status"] != "finished":
            log = write_atomically(store / f"{run.key}.log", (report["reason"] + "\n").encode())
            kind = ScenarioError if report["status"] == "refused" else FedsimError
            raise kind(f"{run.name} failed: {report['reason']} (log: {log})")
        (store / f"{run.key}.unfinished").rename(store / run.key)


def is_finished(folder: Path) -> bool:
    """Whether a kept run is whole."""
    return (folder / SUMMARY).is_file() and (folder / MANIFEST).is_file()


def summaries(planned: Sequence[PlannedRun], store: Path) -> dict[str, list[dict[str, Any]]]:
    """Each variant's summaries, in the order of the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in planned:
        summary = json.loads((store / run.key / SUMMARY).read_text(encoding="utf-8"))
        found.setdefault(run.variant, []).append(summary)
    return found
