"""``fedsim stress``: a scenario under every setting of some axes."""

from __future__ import annotations

from typing import Annotated

import typer

from fedsim.cli.options import SweepOptions, with_sweep_options
from fedsim.processes import gc_policy


@with_sweep_options
def stress(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's file, or a shipped one's name, e.g. stragglers.")
    ],
    *,
    options: SweepOptions,
) -> None:
    """Run a scenario under every setting of some axes (or random ones); the last line printed is the folder."""
    with gc_policy.unsought():
        from fedsim.sweeps.stress import run as stressing

    if options.check_only:
        for line in options.foresee(stressing.outlook_lines, sweep):
            print(line)
        return
    folder = options.perform(stressing.stress, sweep)
    print((folder / "stress.md").read_text(encoding="utf-8").partition("\n## Time to finish")[0])
    for name in ("stress.md", "why.md", *(["figures/index.html"] if options.figures else [])):
        print(folder / name)
    print(folder)
