"""How figures look: one palette, one set of font sizes, one way to save.

Colours are those of Okabe and Ito, which people with any common colour blindness can tell apart. Figures
are 7.2 inches wide, the text width of a two-column page, and carry 8-point type, so that they are printed
unscaled. They are drawn without pyplot: no global state, no display, and the same bytes every time.

References:
    M. Okabe, K. Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fedsim.figures.fonts import FAMILY, fit_text, quiet_fonts
from fedsim.records.run_folder import write_atomically

BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
YELLOW = "#F0E442"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#999999"
PALE = "#E6E6E6"

WIDTH_IN = 7.2

STYLE: dict[str, Any] = {
    "font.family": FAMILY,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "axes.grid": False,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.hashsalt": "fedsim",
    "svg.fonttype": "path",
}


def styled() -> AbstractContextManager[None]:
    """Within it, matplotlib draws in this style."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure whose layout keeps labels apart; draw within ``styled()``."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def settle(figure: Figure) -> Figure:
    """Give its texts their fonts, lay the figure out once and fix where its axes stand, to a millionth of its size.

    The layout's solver orders its unknowns by memory address, so its last bits differ from process to process; they would
    show in the SVG file, whose clip paths are named by a hash of them.
    """
    fit_text(figure)
    engine = figure.get_layout_engine()
    if engine is not None:
        with quiet_fonts():
            engine.execute(figure)  # what drawing begins with; the rest of a drawing would be thrown away
    figure.set_layout_engine(None)  # not "none", under which saving draws once more for the layout
    for axes in figure.axes:
        x, y, width, height = axes.get_position().bounds
        axes.set_position((round(x, 6), round(y, 6), round(width, 6), round(height, 6)))
    return figure


_UNDATED: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write ``stem.png`` (200 dpi) and ``stem.svg``; undated, so that equal runs give equal files."""
    with styled():
        settle(figure)
        return _write(figure, stem, ".png"), _write(figure, stem, ".svg")


def save_png(figure: Figure, stem: Path) -> Path:
    """Write ``stem.png`` alone, for a page that shows it; the same bytes as `save` gives."""
    with styled():
        settle(figure)
        return _write(figure, stem, ".png")


def _write(figure: Figure, stem: Path, suffix: str) -> Path:
    buffer = io.BytesIO()
    fit_text(figure)  # also of what was written since it was settled
    with quiet_fonts():
        figure.savefig(buffer, format=suffix[1:], dpi=200, metadata=_UNDATED[suffix])
    return write_atomically(stem.with_name(stem.name + suffix), buffer.getvalue())


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Thin grid lines behind the data."""
    axes.grid(visible=True, axis=axis, color=PALE, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def time_scale(longest_s: float) -> tuple[float, str]:
    """Seconds per unit, and the unit, in which a span of this length is easily read."""
    for unit_s, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if longest_s >= 3 * unit_s:
            return unit_s, unit
    return 1.0, "s"


def byte_scale(most_bytes: float) -> tuple[float, str]:
    """Bytes per unit, and the unit, in which an amount of this size is easily read."""
    for unit_bytes, unit in ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB")):
        if most_bytes >= unit_bytes:
            return unit_bytes, unit
    return 1.0, "B"
