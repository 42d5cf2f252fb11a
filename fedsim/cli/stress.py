"""``fedsim stress``: a scenario under every setting of some axes."""

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


def stress(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's file, or a shipped one's name, e.g. stragglers.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The sweep's folder itself; by default runs/<name>. Finished runs in it are kept."),
    ] = None,
    processes: ProcessesOption = None,
    seeds: SeedsOption = None,
    check_only: CheckOption = False,
    cache_dir: CacheOption = None,
    ray: RayOption = None,
    figures: Annotated[bool, typer.Option(help="Draw heat maps into the sweep's folder.")] = True,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario under every setting of some axes (or random ones); the last line printed is the folder."""
    chosen = seeds_in(seeds)
    with gc_policy.unsought():
        from fedsim.sweeps.stress import run as stressing
        from fedsim.sweeps.workers import ExecutionConfig

    if check_only:
        for line in stressing.outlook_lines(sweep, out, processes=processes, seeds=chosen):
            print(line)
        return
    where = ExecutionConfig(processes, cache_dir, ray)
    with shown(quiet) as progress:
        folder = stressing.stress(sweep, out, where=where, progress=progress, seeds=chosen)
        if figures:
            draw_figures(folder, progress)
    print((folder / "stress.md").read_text(encoding="utf-8").partition("\n## Time to finish")[0])
    for name in ("stress.md", "why.md", *(["figures/index.html"] if figures else [])):
        print(folder / name)
    print(folder)
