"""Bytes and virtual time until a validation accuracy is reached; runs that never reach it are shown as censored."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedsim.figures.compare.axes import amount_scale, cost_axis, not_measured, row_height_in, said_of_all
from fedsim.figures.compare.runs import ComparisonRuns, Method
from fedsim.figures.labels import figure_with_footer
from fedsim.figures.style import BLUE, GREEN, PALE, VERMILLION, light_grid, styled
from fedsim.sweeps.compare.target import Target, Way, median_way, way_along

# Cost, its offset in a method's row, its colour, what the legend calls it.
_BYTES = (
    ("wire_bytes", -0.17, BLUE, "wire, both directions"),
    ("paper_bytes", 0.17, VERMILLION, "paper, uplink"),
)
_TIME = (("virtual_s", 0.0, GREEN, "virtual time"),)


_APART = 0.32
"""Height (rows) over which the runs of a method lie apart, so that equal amounts do not hide each other."""


def compare_target(comparison: ComparisonRuns) -> Figure | None:
    """One dot per run: what it had spent at its first look at or above the target, open with an arrow if it never was.

    Upright: the median over the runs, a run that never reached the target counting as more than any other; drawn
    where at least half of the runs reached it.

    Returns:
        None if there is no target, or no method has validation accuracy.
    """
    methods = [method for method in comparison.methods if method.has_looks()]
    if not methods or comparison.target is None:
        return None
    goal = comparison.target.validation_greedy
    ways = [
        [way for run in method.runs if (way := way_along(run.looks, goal)) is not None] for method in methods
    ]
    with styled():
        sentences = [*said_of_all(comparison), *_how(comparison, comparison.target)]
        figure = figure_with_footer(row_height_in(len(methods), 0.29, 0.5, 0.75), sentences)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1.0))
        _draw(left, ways, "bytes", "bytes to the target", _BYTES)
        _draw(right, ways, "time", "virtual time to the target", _TIME)
        left.set_yticks(range(len(methods)), [method.label for method in methods])
        left.set_ylim(len(methods) - 0.45, -0.55)
        _draw_counts(right, methods, ways)
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
            for row in range(1, len(methods)):
                axes.axhline(row - 0.5, color=PALE, linewidth=0.5, zorder=0)
        _legend(figure)
        return figure


def _draw(
    axes: Axes,
    ways: Sequence[Sequence[Way]],
    kind: str,
    title: str,
    lines: Sequence[tuple[str, float, str, str]],
) -> None:
    amounts = [one.amounts()[cost] for row in ways for one in row for cost, *_ in lines]
    per_unit, unit = amount_scale(kind, max(amounts))
    shape = cost_axis(axes, [amount / per_unit for amount in amounts], kind, room=2.5)
    for row, ones in enumerate(ways):
        for cost, offset, colour, _ in lines:
            spent = [one.amounts()[cost] / per_unit for one in ones]
            apart = _APART / len(lines) / max(1, len(ones) - 1)
            for place, (one, amount) in enumerate(zip(ones, spent, strict=True)):
                y = row + offset + (place - (len(ones) - 1) / 2) * apart
                _draw_run(axes, amount, y, colour, one.reached)
            median = median_way(ones, cost)
            if median is not None and len(ones) > 1:
                axes.plot(
                    [median / per_unit],
                    [row + offset],
                    "|",
                    color=colour,
                    markersize=9,
                    markeredgewidth=1.4,
                    zorder=2,
                )
    axes.set_xlabel(f"{title} ({unit}, {shape})")
    light_grid(axes, "x")


def _draw_run(axes: Axes, amount: float, y: float, colour: str, reached: bool) -> None:
    axes.plot(
        [amount], [y], "o", color=colour, markersize=2.8, markerfacecolor=colour if reached else "white",
        markeredgewidth=0.8, zorder=4, alpha=0.9, label="reached" if reached else "censored",
    )  # fmt: skip
    if not reached and amount > 0:
        axes.annotate(
            "", (amount, y), xytext=(11, 0), textcoords="offset points", zorder=3,
            arrowprops={"arrowstyle": "<-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 2,
                        "mutation_scale": 6},
        )  # fmt: skip


def _draw_counts(axes: Axes, methods: Sequence[Method], ways: Sequence[Sequence[Way]]) -> None:
    for row, ones in enumerate(ways):
        count = sum(one.reached for one in ones)
        axes.annotate(
            f"reached {count} of {len(ones)}", (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=6.5,
        )  # fmt: skip


def _legend(figure: Figure) -> None:
    keys = [
        (Line2D([], [], color=colour, marker="o", linestyle=""), label)
        for _, _, colour, label in (*_BYTES, *_TIME)
    ]
    keys.append(
        (
            Line2D([], [], color="#444444", marker="o", linestyle="", markerfacecolor="white"),
            "not reached: spent this, and more is needed",
        )
    )
    keys.append(
        (
            Line2D([], [], color="#444444", marker="|", linestyle="", markersize=8, markeredgewidth=1.4),
            "median of runs",
        )
    )
    handles, labels = zip(*keys, strict=True)
    figure.legend(handles, labels, loc="outside upper center", ncols=5, handletextpad=0.3, columnspacing=1.2)


def _how(comparison: ComparisonRuns, target: Target) -> list[str]:
    return [
        f"Target: {target.validation_greedy:.3f} greedy accuracy on the validation questions ({target.origin}). A dot is one "
        "run at its first look at or above it; a first crossing of a noisy curve is early rather than late. Open with an "
        "arrow: at its last look, without having reached it. What spends nothing has no arrow. The median counts those as more "
        "than any other and is missing where over half are. Logarithmic axes are linear from 0 to the dotted upright.",
        *not_measured(
            [method for method in comparison.methods if not method.has_looks()], "validation accuracy"
        ),
    ]
