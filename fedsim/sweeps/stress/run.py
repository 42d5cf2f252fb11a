"""``fedsim stress``: run what is missing of a sweep, in parallel, and write its tables.

Runs are kept under their key, as those of a comparison; a run that failed inside the simulated world is a result, with its
reason, and does not stop the sweep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from fedsim.errors import FederationError, FedsimError, RunFolderError, ScenarioError
from fedsim.experiment.checks import refuse_early
from fedsim.progress import Progress
from fedsim.records.run_folder import write_atomically
from fedsim.sweeps.compare.run import FIGURES, LOCK, RUNS, taken
from fedsim.sweeps.executors import executor, num_that_fit
from fedsim.sweeps.stress.endings import Ending, EveryEnding, ending
from fedsim.sweeps.stress.file import StressFile, StressRun, open_stress
from fedsim.sweeps.workers import ExecutionConfig, perform_missing

MARKER = "stress.yaml"
_OURS = {RUNS, LOCK, MARKER, FIGURES}
_LOOKS = 100  # runs that are looked at before the first begins, at most
_TRIED = 6  # runs that --check plays, at most


def stress(
    source: Path | str,
    out: Path | None,
    *,
    where: ExecutionConfig,
    progress: Progress,
    seeds: Sequence[int] | None = None,
) -> Path:
    """Run a sweep (what is missing of it) and write its tables; returns its folder.

    Args:
        source: the sweep's file, or a shipped one's bare name.
        out: exactly the folder; default ``runs/<name>``. It may hold runs of an earlier start.
        where: who performs the runs, and how many at a time.
        progress: where progress is shown.
        seeds: instead of the file's own seeds.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong (nothing was written), or every single run was
            refused.
        RunFolderError: the folder holds something else, or another sweep is running in it.
        FedsimError: a run broke (a bug, or a file that cannot be read); the others are kept.
    """
    from fedsim.sweeps.stress.pages import write_stress
    from fedsim.sweeps.stress.rows import read_row

    opened = open_stress(source, seeds)
    planned = opened.runs()
    _refuse_all(opened.path, planned)
    folder = out or Path("runs") / opened.stress.name
    with contextlib.ExitStack() as pools:
        make_pool = pools.enter_context(executor(where, planned, progress))  # before anything is written
        with taken(folder, "sweep", MARKER, _OURS):
            write_atomically(folder / MARKER, opened.path.read_bytes())
            perform_missing(planned, folder / RUNS, make_pool, EveryEnding(), progress)
            pools.close()
            endings = _endings(opened.path, planned, folder)
            with progress.phase("tables", None):
                stops = {run.key: run.scenario.stop for run in planned}
                rows = {
                    key: read_row(folder / RUNS / key, found, stops[key]) for key, found in endings.items()
                }
                write_stress(folder, opened.stress, [(run, rows[run.key]) for run in planned])
    return folder


def _refuse_all(path: Path, planned: Sequence[StressRun]) -> None:
    """Refuse a sweep of which no run can begin while nothing is written: mostly the first look finds one that can."""
    reasons: dict[str, ScenarioError] = {}
    for run in planned[:_LOOKS]:
        try:
            refuse_early(run.scenario)
        except ScenarioError as error:
            reasons[run.name] = error
        except FederationError:
            return  # of one's own making: a result
        else:
            return
    if len(reasons) == len({run.name for run in planned}):
        name, reason = next(iter(reasons.items()))
        raise ScenarioError(f"{path}: every run was refused; {name}: {reason}") from None


def _endings(path: Path, planned: Sequence[StressRun], folder: Path) -> dict[str, Ending]:
    """How every run ended, by key.

    Raises:
        ScenarioError: every single one was refused.
        RunFolderError: what says so has just been removed.
    """
    found = {run.key: ending(folder / RUNS / run.key) for run in planned}
    known = {key: one for key, one in found.items() if one is not None}
    if len(known) < len(found):
        raise RunFolderError(f"{folder}: a run was removed while the sweep was under way; start it again")
    if all(one.status == "refused" for one in known.values()):
        raise ScenarioError(
            f"{path}: every run was refused; {planned[0].name}: {known[planned[0].key].reason}"
        )
    return known


def outlook_lines(
    source: Path | str,
    out: Path | None = None,
    *,
    processes: int | None = None,
    seeds: Sequence[int] | None = None,
    budget_s: float,
) -> Iterator[str]:
    """What a sweep would take, for people: its axes, how many runs are kept, and roughly how long the rest take.

    Real time is foreseen from the runs that are kept, or (timing fidelity) from playing a few points with `estimate`.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong.
        DataFileError: a file that a scenario names cannot be read.
    """
    from fedsim.config.units import format_seconds

    opened = open_stress(source, seeds)
    planned = opened.runs()
    _refuse_all(opened.path, planned)
    folder = out or Path("runs") / opened.stress.name
    runs = {run.key: run for run in planned}
    kept = {key: found for key in runs if (found := ending(folder / RUNS / key)) is not None}
    yield f"{opened.stress.name}: {len(runs)} runs, {len(kept)} kept in {folder}, {len(runs) - len(kept)} to do"
    yield from _axis_lines(opened)
    missing = [run for key, run in runs.items() if key not in kept]
    if not missing:
        return
    at_once = num_that_fit(processes, planned)
    if kept:
        each_s = sum(found.wall_s for found in kept.values()) / len(kept)
        yield f"real time about {format_seconds(each_s * len(missing) / at_once)}, if the rest take what the kept ones took"
    yield "played with stand-ins, up to their first updates:"
    yield from _tried(missing, budget_s)


def _axis_lines(opened: StressFile) -> Iterator[str]:
    from fedsim.sweeps.stress.losses import counted
    from fedsim.sweeps.stress.pages import named_seeds

    stress = opened.stress
    if stress.random is not None:
        yield f"{counted(stress.random.runs, 'random point')} x {counted(len(stress.seeds), 'seed')}"
    for name, axis in stress.axes.items():
        shown = (
            f"{axis.low:g} to {axis.high:g}{f' {axis.unit}' if axis.unit else ''}, {axis.scale}"
            if axis.names is None
            else ", ".join(axis.names)
        )
        yield f"  {name}: {shown}"
    yield f"  {named_seeds(stress.seeds, colon=':')}"


def _tried(missing: Sequence[StressRun], budget_s: float) -> Iterator[str]:
    """Points spread over the sweep, the first and the last among them, each estimated in its share of the time."""
    from fedsim.experiment.forecast.estimate import estimate
    from fedsim.progress import format_stats

    count = min(_TRIED, len(missing))
    places = sorted({round(n * (len(missing) - 1) / max(1, count - 1)) for n in range(count)})
    for run in (missing[place] for place in places):
        try:
            found = estimate(run.scenario, budget_s=budget_s / len(places))
        except FedsimError as error:
            yield f"  {run.name}: {error}"
        else:
            stats = {"updates": found.updates, "requests": found.requests, "virtual_s": found.virtual_s}
            why_not = found.why_not_extrapolated
            yield f"  {run.name}: {f'no estimate: {why_not}' if why_not else format_stats({**stats})}"
