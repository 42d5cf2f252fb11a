"""``fedsim run``: one scenario, one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.options import (
    CacheOption,
    QuietOption,
    RunFiguresOption,
    ScenarioArgument,
    SeedOption,
    SetOption,
)
from fedsim.cli.shown import draw_figures, interruptible, print_run, shown
from fedsim.processes import gc_policy


def run(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    seed: SeedOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder itself; by default runs/<name>-<seed>-<n>.")
    ] = None,
    cache_dir: CacheOption = None,
    figures: RunFiguresOption = True,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario; the last line printed is the run folder."""
    with gc_policy.unsought():
        from fedsim.scenario.read import read_scenario

        settings = read_scenario(scenario, assignments or (), seed)
        from fedsim.experiment import run as experiment

    with shown(quiet) as progress, interruptible():
        finished = experiment.run(settings, out=out, cache_dir=cache_dir, progress=progress)
        if figures:
            draw_figures(finished.folder, progress)
    print_run(finished)
