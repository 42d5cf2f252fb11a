"""The devices of a scenario as one figure: what each class can do, how often it is there, and what one request takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import offset_copy

from fedsim.experiment.forecast.device_table import QUANTITIES, PopulationTable, Quantity, quantiles
from fedsim.figures.labels import figure_with_footer
from fedsim.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, light_grid, save, styled

FloatArray = npt.NDArray[np.float64]

MOST_DOTS = 40
"""Classes of at most so many devices show each of them; larger ones their quantiles."""

_PANELS = (
    "flop_per_s", "memory_bytes_per_s", "rtt_s", "up_bytes_per_s", "down_bytes_per_s", "there", "gives_up", "reply_s",
)  # fmt: skip
_PHASES = (("down_s", "down", BLUE), ("compute_s", "compute", ORANGE), ("up_s", "up", GREEN))
_COLUMNS = 3
_TIMES = (
    (1e-3, "1 ms"), (1e-2, "10 ms"), (0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s"), (60.0, "1 min"), (600.0, "10 min"),
    (3_600.0, "1 h"), (36_000.0, "10 h"), (864_000.0, "10 d"), (8_640_000.0, "100 d"),
)  # fmt: skip
"""Marks of a time axis that spans orders of magnitude."""


def population_figure(table: PopulationTable) -> Figure:
    """Eight panels of quantities by class, and the phases of one request; the heterogeneity index stands below.

    A class of at most ``MOST_DOTS`` devices is drawn device by device; of a larger one a line goes from the 5% to the 95%
    quantile, a bar from 25% to 75%, and a mark stands at the median.
    """
    classes = table.classes
    rows = -(-(len(_PANELS) + 1) // _COLUMNS)
    with styled():
        figure = figure_with_footer(rows * (0.62 + 0.24 * max(2, len(classes))), _footer(table))
        grid = figure.subplots(rows, _COLUMNS, sharey=True, squeeze=False)
        axes = list(grid.flat)
        for place, column in zip(axes, _PANELS, strict=False):
            quantity = next(one for one in QUANTITIES if one.column == column)
            _draw_quantity(place, quantity, table.columns[column], list(classes.values()))
        _draw_phases(axes[len(_PANELS)], table, list(classes.values()))
        names = [f"{name} ({int(members.sum())})" for name, members in classes.items()]
        for row in grid:
            row[0].set_yticks(range(len(names)), names)
            row[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def write_figure(table: PopulationTable, folder: Path) -> tuple[Path, Path]:
    """Draw ``devices.png`` and ``devices.svg`` into a folder."""
    return save(population_figure(table), folder / "devices")


def _draw_quantity(
    axes: Axes, quantity: Quantity, values: FloatArray, classes: Sequence[npt.NDArray[np.bool_]]
) -> None:
    scale, unit = quantity.unit(values)
    times = _time_marks(values) if quantity.column == "reply_s" else []
    if times:
        scale = 1.0
    shown = values / scale
    axes.set_title(quantity.title if times else f"{quantity.title} ({unit})", loc="left")
    axes.tick_params(axis="y", length=0)
    light_grid(axes, "x")
    finite = shown[np.isfinite(shown)]
    if not finite.size:
        axes.set_xticks([])
        axes.text(
            0.5, 0.5, "none: no client\nis asked anything", transform=axes.transAxes, ha="center", va="center", color=GREY,
        )  # fmt: skip
        return
    for place, members in enumerate(classes):
        _draw_class(axes, place, shown[members])
    _scale(axes, finite, logarithmic=quantity.logarithmic)
    if times:
        axes.set_xticks([at_s for at_s, _ in times], [label for _, label in times])
        axes.xaxis.set_minor_locator(NullLocator())


def _time_marks(values: FloatArray) -> list[tuple[float, str]]:
    """At most four natural times within the values' range; none where they do not span two orders of magnitude."""
    finite = values[np.isfinite(values)]
    if not finite.size or not 0 < 100 * finite.min() < finite.max():
        return []
    inside = [(at_s, label) for at_s, label in _TIMES if finite.min() <= at_s <= finite.max()]
    return inside[:: max(1, -(-len(inside) // 4))]


def _draw_class(axes: Axes, place: int, values: FloatArray) -> None:
    finite = values[np.isfinite(values)]
    never = int(np.isinf(values).sum())
    if never:
        axes.annotate(
            f"{never} never", (1, place), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            xytext=(0, 3), textcoords="offset points", fontsize=6, color=GREY,
        )  # fmt: skip
    if not finite.size:
        return
    if len(finite) <= MOST_DOTS:
        lift = 0.22 * (np.arange(len(finite)) % 3 - 1) * (len(finite) > 1)
        axes.plot(finite, place + lift, "o", color=BLUE, markersize=3, alpha=0.6, markeredgewidth=0)
        return
    low, first, middle, third, high = quantiles(finite)
    axes.plot([low, high], [place, place], color=BLUE, linewidth=0.9, solid_capstyle="butt")
    axes.plot([first, third], [place, place], color=BLUE, linewidth=5, solid_capstyle="butt", alpha=0.55)
    axes.plot([middle], [place], "|", color=BLACK, markersize=8, markeredgewidth=1.2)


def _scale(axes: Axes, values: FloatArray, *, logarithmic: bool) -> None:
    """A range with some air, and few ticks that can be read as plain numbers."""
    low, high = float(values.min()), float(values.max())
    if logarithmic and low > 0:
        axes.set_xscale("log")
        middle, half = np.sqrt(low * high), max(np.sqrt(high / low), 1.6) ** 1.12
        axes.set_xlim(middle / half, middle * half)
        axes.xaxis.set_major_locator(FixedLocator(_round_numbers(middle / half, middle * half)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        end = 100.0 if high > 50 else max(1.25 * high, 1.0)
        axes.set_xlim(-0.03 * end, 1.03 * end)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], prune=None))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _round_numbers(low: float, high: float, most: int = 5) -> list[float]:
    """Powers of ten within the range; if they are fewer than three, 1, 2 and 5 times them too, or 1, 1.5, 2, 3, 5 and 7 times.

    >>> _round_numbers(90.0, 310.0)
    [100.0, 150.0, 200.0, 300.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        finer = [float(f"{one}e{power}") for power in powers for one in factors]
        finer = [tick for tick in finer if low <= tick <= high]
        if len(found) >= 2 and len(finer) > most:
            break
        found = finer
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // most)] if found else []


def _draw_phases(axes: Axes, table: PopulationTable, classes: Sequence[npt.NDArray[np.bool_]]) -> None:
    """Bars of the mean nominal seconds of a request, by phase; of the clients that take part."""
    whole = next(one for one in QUANTITIES if one.column == "request_s")
    scale, unit = whole.unit(table.columns["request_s"])
    axes.set_title(f"one request, mean by phase ({unit})", loc="left")
    axes.tick_params(axis="y", length=0)
    light_grid(axes, "x")
    if table.times is None:
        axes.set_xticks([])
        return
    ends = np.zeros(len(classes))
    for column, label, colour in _PHASES:
        means = np.array([_mean(table.columns[column][members]) for members in classes]) / scale
        axes.barh(range(len(classes)), means, 0.55, left=ends, color=colour, label=label)
        ends += means
    axes.set_xlim(0, 1.05 * max(ends.max(), 1e-12))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    figure = axes.get_figure()
    below = offset_copy(axes.transAxes, fig=figure, y=-18, units="points")  # type: ignore[arg-type]
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=below, ncols=3, handlelength=1,
        columnspacing=1, borderpad=0,
    )  # fmt: skip


def _mean(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0


def _footer(table: PopulationTable) -> list[str]:
    sentences = [
        "Compute and memory bandwidth as a runtime reaches them. Dots are devices; of a class of more than "
        f"{MOST_DOTS}: line 5% to 95%, bar 25% to 75%, mark at the median. Nominal times: idle links, idle device."
    ]
    if table.index is not None:
        index = table.index
        never = f" {index.num_never} clients can never reply." if index.num_never else ""
        sentences.append(
            f"Heterogeneity index {index.index:.2f}: standard deviation of the log time to a usable reply (devices "
            f"{index.device:.2f}, absence and giving up {index.state:.2f}, luck of one request {index.luck:.2f}); p90 / p10 "
            f"of its expectation {index.p90_over_p10:.3g}.{never}"
        )
    return sentences
