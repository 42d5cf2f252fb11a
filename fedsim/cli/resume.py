"""``fedsim resume`` goes on with a run that was interrupted; ``fedsim verify`` repeats one that has finished."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.options import CacheOption, QuietOption, RunFiguresOption
from fedsim.cli.shown import draw_figures, interruptible, print_run, shown


def resume(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run that was interrupted or killed.")
    ],
    cache_dir: CacheOption = None,
    figures: RunFiguresOption = True,
    quiet: QuietOption = False,
) -> None:
    """Go on with a run to the very end it would have had; the last line printed is the run folder."""
    from fedsim.records.run_folder import read_manifest

    if read_manifest(folder)["status"] == "finished":
        print(f"{folder} has finished; there is nothing to resume")
        return
    from fedsim.experiment import resume as resuming

    with shown(quiet) as progress, interruptible():
        finished = resuming.resume(folder, cache_dir=cache_dir, progress=progress)
        if figures:
            draw_figures(finished.folder, progress)
    print_run(finished)


class How(enum.StrEnum):
    """How a run is verified."""

    RECOMPUTED = "recomputed"
    REPLAYED = "replayed"


def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    how: Annotated[
        How | None,
        typer.Option(
            help="By default recomputed where program and machine are the run's own, else replayed."
        ),
    ] = None,
    cache_dir: CacheOption = None,
    quiet: QuietOption = False,
) -> None:
    """Repeat a finished run and compare every record; exit code 1 if one differs. Nothing is written into the folder."""
    from fedsim.experiment import verify as verifying

    with shown(quiet) as progress, interruptible():
        verdict = verifying.verify(
            folder, how=None if how is None else how.value, cache_dir=cache_dir, progress=progress
        )
    if verdict.why is not None:
        print(f"replayed, not recomputed: {verdict.why}")
    if verdict.other is not None:
        print(f"recomputed, although {verdict.other}")
    for line in (*verdict.drift, *verdict.differences):
        print(line)
    if verdict.differences:
        print(f"{folder} does NOT repeat")
        raise typer.Exit(1)
    what = "records, summary and final policy" if verdict.how == "recomputed" else "records and summary"
    print(f"{folder} repeats: {what} are the same, {verdict.how}")
