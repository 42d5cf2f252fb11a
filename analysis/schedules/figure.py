"""Schedules compared: accuracy on the validation questions over virtual time and over bytes, a row for each family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.provenance import ENOUGH_SEEDS
from analysis.schedules.runs import Family, ScheduleRun, at_most
from fedsim.figures.labels import figure_with_footer, method_style
from fedsim.figures.style import byte_scale, light_grid, styled, time_scale
from fedsim.records.looks import Look
from fedsim.sweeps.stats import Interval, interval

_POINTS = 80  # of a curve's grid
_ROW_IN = 2.5

_COSTS: tuple[tuple[str, Callable[[Look], float], Callable[[float], tuple[float, str]]], ...] = (
    ("virtual time", lambda look: look.virtual_s, time_scale),
    ("wire, both ways", lambda look: look.wire_bytes, byte_scale),
)


def schedule_curves(families: Sequence[Family]) -> Figure | None:
    """One row of two panels for each family that was looked at; None if none was."""
    drawn = [family for family in families if all(run.looks for runs in family.runs.values() for run in runs)]
    if not drawn:
        return None
    with styled():
        figure = figure_with_footer(
            _ROW_IN * len(drawn),
            [
                "Lines: mean over seeds of what the last look at the validation questions found, less that seed's start, up "
                "to the earliest end of a seed. Bands (three seeds or more): 95% Student-t intervals over seeds, of the "
                "reference (*) and of those that do not wait. Curves go in steps, since accuracy is known at looks alone."
            ],
        )
        grid = figure.subplots(len(drawn), 3, squeeze=False, width_ratios=[1.0, 1.0, 0.42])
        for (time, size, names), family in zip(grid.tolist(), drawn, strict=True):
            for axes, (title, amount, scale) in zip((time, size), _COSTS, strict=True):
                _draw(axes, family, title, amount, scale)
            time.set_ylabel(f"{family.title.lower()}:\ngreedy, validation, above start")
            names.axis("off")
            handles, labels = time.get_legend_handles_labels()
            names.legend(handles, labels, loc="center left", bbox_to_anchor=(-0.15, 0.5))
    return figure


def stepped(
    runs: Sequence[ScheduleRun], amount: Callable[[Look], float], grid: Sequence[float]
) -> list[Interval]:
    """What the last look within every amount of a grid found, less the run's first: intervals over the seeds."""
    found = []
    for place in grid:
        looks = [at_most(run.looks, amount, float(place)) for run in runs]
        found.append(
            interval(
                [
                    None if look is None else look.value - run.looks[0].value
                    for run, look in zip(runs, looks, strict=True)
                ]
            )
        )
    return found


def _draw(
    axes: Axes,
    family: Family,
    title: str,
    amount: Callable[[Look], float],
    scale: Callable[[float], tuple[float, str]],
) -> None:
    per_unit, unit = scale(max(amount(run.looks[-1]) for runs in family.runs.values() for run in runs))
    for index, (name, runs) in enumerate(family.runs.items()):
        style = method_style(index)
        start = max(amount(run.looks[0]) for run in runs)
        grid = np.linspace(start, min(amount(run.looks[-1]) for run in runs), _POINTS).tolist()
        steps = stepped(runs, amount, grid)
        where, means = [place / per_unit for place in grid], [float(one["mean"] or 0.0) for one in steps]
        mark = " *" if name == family.reference else ""
        axes.plot(
            where, means, color=style.colour, linestyle=style.line, drawstyle="steps-post", label=name + mark
        )
        if len(runs) < ENOUGH_SEEDS or (name != family.reference and name in family.waits):
            continue
        ends = [(one["low"], one["high"]) for one in steps]
        if all(low is not None and high is not None for low, high in ends):
            lows, highs = [float(low or 0.0) for low, _ in ends], [float(high or 0.0) for _, high in ends]
            axes.fill_between(where, lows, highs, step="post", color=style.colour, alpha=0.12, linewidth=0)
    shown = [one for line in axes.lines for one in np.asarray(line.get_ydata(), dtype=float).tolist()]
    room = max(max(shown) - min(shown), 0.02)
    axes.set_ylim(min(shown) - 0.5 * room, max(shown) + 0.5 * room)
    axes.set_xlabel(f"{title} ({unit})")
    light_grid(axes, "both")
