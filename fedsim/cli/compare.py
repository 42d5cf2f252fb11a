"""``fedsim compare``: a scenario in several variants and seeds."""

from __future__ import annotations

from typing import Annotated

import typer

from fedsim.cli.options import SweepOptions, with_sweep_options
from fedsim.processes import gc_policy


@with_sweep_options
def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISON", help="A comparison file, or a shipped one's name, e.g. evidence."
        ),
    ],
    tune: Annotated[
        bool, typer.Option("--tune", help="First choose settings on the file's grid (validation questions).")
    ] = False,
    *,
    options: SweepOptions,
) -> None:
    """Run a scenario in several variants and seeds, in parallel; the last line printed is the folder."""
    with gc_policy.unsought():
        from fedsim.sweeps.compare import run as comparing
        from fedsim.sweeps.compare.outlook import lines, outlook

    if options.check_only:
        print(*lines(options.foresee(outlook, comparison)), sep="\n")
        return
    folder = options.perform(comparing.compare, comparison, tune=tune)
    for page in (*(["tuning.md"] if tune else []), "comparison.md"):
        print((folder / page).read_text(encoding="utf-8"))
    if options.figures:
        print(folder / "figures" / "index.html")
    print(folder)
