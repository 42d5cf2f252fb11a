"""The map: a panel for each server, clients across, spread of speed up; colours turn at 1."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.schedule_map.tables import Cell, Place, levels
from fedsim.figures.labels import figure_with_footer
from fedsim.figures.style import BLACK, GREY, styled

_CELL_IN, _HEAD_IN, _AROUND_IN = 0.36, 0.25, 0.5
_TICKS = (0.2, 0.5, 1, 2, 5, 10)


def schedule_map(found: Mapping[Place, Cell], framed: Collection[Place] = ()) -> Figure:
    """The map of some cells by ``tables.AXES``; ``framed`` are those that were also run with real models."""
    clients, spreads, servers = levels(found)
    most = max(1.05, *(max(cell.value, 1 / cell.value) for cell in found.values()))
    norm, colours = LogNorm(1 / most, most), colormaps["PuOr_r"]
    across = len(servers) if len(servers) <= 3 else 2
    down = math.ceil(len(servers) / across)
    with styled():
        sheet = figure_with_footer(
            down * (_CELL_IN * len(spreads) + _HEAD_IN) + _AROUND_IN,
            [
                "Large: time per usable reward in rounds over that as rewards arrive, geometric mean over seeds; "
                "above 1 not waiting is faster. Small: measured share of the time in rounds in which the server "
                "computes. Hatched: the 95% interval over seeds includes 1."
                + (" Framed: also run with real models." if framed else "")
            ],
        )
        grid = sheet.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for number, axes in enumerate(grid.flat):
            if number >= len(servers):
                axes.set_visible(False)
                continue
            axes.set(xlim=(-0.5, len(clients) - 0.5), ylim=(-0.5, len(spreads) - 0.5))
            axes.set_xticks(range(len(clients)), clients)
            axes.set_yticks(range(len(spreads)), spreads)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(f"server as fast as {servers[number]} A100", fontsize=8, pad=3)
            if number % across == 0:
                axes.set_ylabel("spread of speed")
            if number + across >= len(servers):
                axes.set_xlabel("clients")
                axes.tick_params(labelbottom=True)
            for place, cell in found.items():
                if place[2] == servers[number]:
                    corner = (clients.index(place[0]) - 0.48, spreads.index(place[1]) - 0.46)
                    _draw_cell(axes, corner, cell, norm, colours, is_framed=place in framed)
        bar = sheet.colorbar(
            ScalarMappable(norm, colours), ax=[*grid.flat], fraction=0.03, pad=0.015, aspect=20
        )
        ticks = [tick for tick in _TICKS if 1 / most <= tick <= most]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
        bar.outline.set_visible(False)
        bar.set_label("ratio")
    return sheet


def _draw_cell(
    axes: Axes, corner: tuple[float, float], cell: Cell, norm: LogNorm, colours: Colormap, *, is_framed: bool
) -> None:
    shade = colours(norm(cell.value))
    look: dict[str, Any] = {"facecolor": shade, "linewidth": 0}
    if not cell.is_told_from_one:
        look |= {"edgecolor": GREY, "hatch": "////"}
    axes.add_patch(Rectangle(corner, 0.96, 0.92, **look))
    if is_framed:
        axes.add_patch(Rectangle(corner, 0.96, 0.92, fill=False, edgecolor=BLACK, linewidth=1.4))
    red, green, blue = shade[:3]
    ink = "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.4 else BLACK
    x, y = corner[0] + 0.48, corner[1] + 0.46
    box = None if cell.is_told_from_one else {"facecolor": shade, "edgecolor": "none", "pad": 0.5}
    large = axes.text(x, y + 0.16, f"{cell.value:.2f}", ha="center", va="center", fontsize=6.5, color=ink)
    small = axes.text(
        x, y - 0.25, f"{cell.rounds['server_share']:.0%}", ha="center", va="center", fontsize=5.2, color=ink
    )
    if box is not None:
        large.set_bbox(box)
        small.set_bbox(box)
