"""``fedsim figures``: what runs, comparisons and stress sweeps left is drawn (again)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.options import QuietOption
from fedsim.cli.shown import draw_figures, interruptible, shown
from fedsim.processes import gc_policy


def figures(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of runs, of comparisons and of stress sweeps."),
    ],
    quiet: QuietOption = False,
) -> None:
    """Draw figures/ into folders that runs, comparisons and stress sweeps left (again); the pages are printed."""
    with gc_policy.unsought():
        from fedsim.figures.draw import page_of

    for folder in folders:
        page_of(folder)  # what is wrong is said before anything is drawn
    for folder in folders:
        with shown(quiet) as progress, interruptible():
            draw_figures(folder, progress)
        print(folder / "figures" / "index.html")
