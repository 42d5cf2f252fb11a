"""``fedsim leakage``: attacks on a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.options import CacheOption


def leakage(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run with real models.")
    ],
    rows: Annotated[
        int, typer.Option(min=1, help="Most rows of a client that are attacked, and as many others.")
    ] = 200,
    cache_dir: CacheOption = None,
) -> None:
    """Attack a finished run: membership inference and disclosed answers; the last line printed is leakage.json."""
    from fedsim.experiment.leakage import measure as attacks
    from fedsim.figures.leakage import table

    report = attacks.measure(folder, cache_dir=cache_dir, rows_per_client=rows)
    print(table({folder.name: report}))
    print(folder / attacks.LEAKAGE)
