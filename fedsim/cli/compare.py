"""``fedsim compare``: a scenario in several variants and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.options import (
    CacheOption,
    CheckOption,
    ProcessesOption,
    QuietOption,
    RayOption,
    SeedsOption,
    seeds_in,
)
from fedsim.cli.shown import draw_figures, shown
from fedsim.processes import gc_policy


def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISON", help="A comparison file, or a shipped one's name, e.g. evidence."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The comparison's folder itself; by default runs/<name>. Finished runs in it are kept."
        ),
    ] = None,
    processes: ProcessesOption = None,
    seeds: SeedsOption = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="First choose settings on the file's grid (validation questions).")
    ] = False,
    check_only: CheckOption = False,
    cache_dir: CacheOption = None,
    ray: RayOption = None,
    figures: Annotated[bool, typer.Option(help="Draw figures/ into the comparison's folder.")] = True,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario in several variants and seeds, in parallel; the last line printed is the folder."""
    chosen = seeds_in(seeds)
    if check_only:
        print_outlook(comparison, out, processes, chosen)
        return
    with gc_policy.unsought():
        from fedsim.sweeps.compare import run as comparing
        from fedsim.sweeps.workers import ExecutionConfig

    where = ExecutionConfig(processes, cache_dir, ray)
    with shown(quiet) as progress:
        folder = comparing.compare(comparison, out, where=where, progress=progress, seeds=chosen, tune=tune)
        if figures:
            draw_figures(folder, progress)
    for page in (*(["tuning.md"] if tune else []), "comparison.md"):
        print((folder / page).read_text(encoding="utf-8"))
    if figures:
        print(folder / "figures" / "index.html")
    print(folder)


def print_outlook(
    comparison: str,
    out: Path | None = None,
    processes: int | None = None,
    seeds: tuple[int, ...] | None = None,
) -> None:
    """Say how many runs a comparison has and what they take."""
    from fedsim.sweeps.compare import outlook

    for line in outlook.lines(outlook.outlook(comparison, out, processes=processes, seeds=seeds)):
        print(line)
