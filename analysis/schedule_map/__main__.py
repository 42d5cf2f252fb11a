"""Command line: a sweep and the table to be written of it; or tables and the figure, and the section is printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.command import exit_code, paths
from analysis.schedule_map.figure import schedule_map
from analysis.schedule_map.section import lines
from analysis.schedule_map.tables import AXES, POINT_AXES, cells, collect
from fedsim.figures.style import save_png

_USAGE = "analysis.schedule_map SWEEP_FOLDER TABLE.csv, or: ... MAP.csv [POINTS.csv [LONG.csv]] FIGURE.png"


def _written(given: Sequence[Path]) -> str:
    if given[0].is_dir() and len(given) == 2:
        folder, table = given
        return collect(folder, table)
    runs, *others, figure = given
    written = "\n".join(lines(runs, *others))
    points = cells(others[0], POINT_AXES) if others else ()
    framed = {tuple(name.split("_")) for name, *_ in points}
    save_png(schedule_map(cells(runs, AXES), framed), figure.with_suffix(""))
    return written


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    return exit_code(lambda: _written(paths(arguments, _USAGE, 2, 3, 4)))


if __name__ == "__main__":
    sys.exit(main())
