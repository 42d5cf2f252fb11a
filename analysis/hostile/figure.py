"""Heat map of what rules of fusion retain of the oracle's gain under attacks; the colour turns at the wanted share."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from analysis.hostile.runs import HostileGrid, retained
from analysis.hostile.section import WANTED
from fedsim.figures.labels import figure_with_footer
from fedsim.figures.style import BLACK, PALE, styled

_CELL_IN, _AROUND_IN = 0.22, 1.0
_LOW, _HIGH = 0.0, 1.2  # the colours' ends; what lies beyond has the end's colour


def hostile_map(grid: HostileGrid) -> Figure | None:
    """Attacks up, rules across, retained pass@1 in every cell; None if nothing was measured."""
    levels = [level.name for level in grid.levels.values() if not (level.is_oracle and level.count)]
    shares = [[retained(grid, rule, level, "pass_at_1").interval for rule in grid.rules] for level in levels]
    if all(share["mean"] is None for row in shares for share in row):
        return None
    means = np.array(
        [[math.nan if share["mean"] is None else float(share["mean"]) for share in row] for row in shares]
    )
    with styled():
        figure = figure_with_footer(
            _CELL_IN * len(levels) + _AROUND_IN,
            [
                f"Share of the oracle's gain in pass@1 on the test questions, mean over seeds; below {WANTED:g} bold. In "
                "brackets how many seeds, where fewer than elsewhere. Grey: not measured."
            ],
        )
        axes = figure.subplots()
        colours = colormaps["PuOr"].with_extremes(bad=PALE)
        image = axes.imshow(
            np.ma.masked_invalid(means), cmap=colours, norm=TwoSlopeNorm(WANTED, _LOW, _HIGH), aspect="auto"
        )
        for up, row in enumerate(shares):
            for across, share in enumerate(row):
                if share["mean"] is None:
                    continue
                few = f" ({share['n']})" if int(share["n"] or 0) < len(grid.seeds) else ""
                weight = "bold" if share["mean"] < WANTED else "normal"
                dark = share["mean"] < 0.25 or share["mean"] > 1.12
                axes.text(
                    across, up, f"{share['mean']:.2f}{few}", ha="center", va="center", fontsize=6.5, weight=weight,
                    color="white" if dark else BLACK,
                )  # fmt: skip
        axes.set_xticks(range(len(grid.rules)), list(grid.rules))
        axes.set_yticks(range(len(levels)), levels)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.015, extend="both")
        bar.set_ticks([0.0, 0.3, 0.6, WANTED, 1.0, 1.2])
    return figure
