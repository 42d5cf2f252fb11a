"""Validation accuracy of every method against what it cost: bytes in both accounts, and virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.figures.compare.axes import amount_scale, cost_axis, limits, not_measured, said_of_all
from fedsim.figures.compare.runs import ComparisonRuns, Method, bounds
from fedsim.figures.labels import figure_with_footer, method_style, spread
from fedsim.figures.style import BLACK, light_grid, styled
from fedsim.sweeps.stats import Interval, interval

MOST_BANDS = 5
"""With more methods than this, or with two seeds, bands would hide everything; the intervals at the end stand beside."""

_COSTS = {
    "wire_bytes": ("bytes", "wire, both ways"),
    "paper_bytes": ("bytes", "paper, uplink"),
    "virtual_s": ("time", "virtual time"),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One method's accuracy against one cost: a point per policy version that every seed looked at, and the end."""

    cost: tuple[float, ...]
    greedy: tuple[Interval, ...]


def compare_curves_bytes(comparison: ComparisonRuns) -> Figure | None:
    """Accuracy against cumulative bytes, wire and paper side by side; None if no method has an accuracy."""
    return _curves(comparison, ("wire_bytes", "paper_bytes"))


def compare_curves_time(comparison: ComparisonRuns) -> Figure | None:
    """Accuracy against virtual time; None if no method has an accuracy."""
    return _curves(comparison, ("virtual_s",))


def curve(method: Method, cost: str) -> Curve:
    """Means over the seeds on the grid of updates: of the cost and of the accuracy at the same policy version.

    Seeds that ended at different versions add one last point: the mean of their last looks.
    """
    by_version = [{look.version: look for look in run.looks} for run in method.runs]
    common = sorted(set(by_version[0]).intersection(*by_version[1:]))
    rows = [[looks[version] for looks in by_version] for version in common]
    last = [run.looks[-1] for run in method.runs]
    if not rows or rows[-1] != last:
        rows.append(last)
    return Curve(
        tuple(sum(float(getattr(look, cost)) for look in row) / len(row) for row in rows),
        tuple(interval([look.value for look in row]) for row in rows),
    )


def _curves(comparison: ComparisonRuns, costs: Sequence[str]) -> Figure | None:
    methods = [method for method in comparison.methods if method.has_looks()]
    if not methods:
        return None
    with_bands = len(methods) <= MOST_BANDS and len(comparison.seeds) > 2
    low, high, is_cut = _limits(methods, costs[0], with_bands)
    body_in = max(2.4, 0.135 * len(methods) + 0.6)
    with styled():
        sentences = [*said_of_all(comparison), *_how(comparison, with_bands, is_cut, costs)]
        figure = figure_with_footer(body_in, sentences)
        widths = [*([4.4 / len(costs)] * len(costs)), 0.2 + 0.05 * len(methods), 1.55]
        *panels, strip, names = figure.subplots(1, len(widths), width_ratios=widths).tolist()
        for axes, cost in zip(panels, costs, strict=True):
            _draw_panel(axes, methods, cost, with_bands)
        for axes in (*panels, strip):
            axes.set_ylim(low, high)
        panels[0].set_ylabel("greedy accuracy, validation")
        for axes in (*panels[1:], strip):
            axes.tick_params(axis="y", labelleft=False)
        gap = (high - low) * 0.125 / (body_in - 0.45)
        slots = spread([bounds(method.final())[0] for method in methods], gap, low, high)
        _draw_ends(strip, methods, slots)
        _draw_names(names, methods, slots, low, high)
        return figure


def _draw_panel(axes: Axes, methods: Sequence[Method], cost: str, with_bands: bool) -> None:
    kind, title = _COSTS[cost]
    curves = {method.index: curve(method, cost) for method in methods}
    amounts = [amount for one in curves.values() for amount in one.cost]
    per_unit, unit = amount_scale(kind, max(amounts))
    shape = cost_axis(axes, [amount / per_unit for amount in amounts], kind, room=1.6)
    right = axes.get_xlim()[1]
    for method in methods:
        one, style = curves[method.index], method_style(method.index)
        where = [amount / per_unit for amount in one.cost]
        means, lows, highs = zip(*(bounds(found) for found in one.greedy), strict=True)
        end: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "linestyle": "",
            "markersize": 4.5,
            "zorder": 4,
        }
        axes.plot(where[-1:], means[-1:], **end)
        if where[-1] == 0:
            # It costs nothing: what it ends with is had for any budget.
            axes.axhline(means[-1], color=style.colour, linestyle=(0, (1.5, 2.0)), linewidth=0.9, zorder=1.5)
            continue
        axes.plot(where, means, color=style.colour, linestyle=style.line, linewidth=1.1, zorder=3)
        axes.plot([where[-1], right], means[-1:] * 2, color=style.colour, linewidth=0.4, alpha=0.5, zorder=1)
        if with_bands:
            axes.fill_between(where, lows, highs, color=style.colour, alpha=0.15, linewidth=0, zorder=1)
    axes.set_xlabel(f"{title} ({unit}{', log' if shape == 'log' else ''})")
    light_grid(axes, "both")


def _limits(methods: Sequence[Method], cost: str, with_bands: bool) -> tuple[float, float, bool]:
    """Limits of the accuracy axis, never past what an accuracy can be."""
    grids = [curve(method, cost).greedy for method in methods]
    means = [bounds(found)[0] for grid in grids for found in grid]
    ends = [
        end for grid in grids for found in (grid if with_bands else grid[-1:]) for end in bounds(found)[1:]
    ]
    low, high, is_cut = limits(means, ends)
    return max(-0.02, low), min(1.02, high), is_cut


def _draw_ends(axes: Axes, methods: Sequence[Method], slots: Sequence[float]) -> None:
    """Final accuracy with its interval, the methods side by side in the order of their names' places."""
    order = sorted(range(len(methods)), key=lambda place: -slots[place])
    for rank, place in enumerate(order):
        method = methods[place]
        style, (mean, low, high) = method_style(method.index), bounds(method.final())
        axes.plot([rank, rank], [low, high], color=style.colour, linewidth=1.0, zorder=2)
        axes.plot([rank], [mean], color=style.colour, marker=style.marker, zorder=3)
    axes.set_xlim(-0.9, len(methods) - 0.1)
    axes.set_xticks([])
    axes.set_xlabel("end")
    light_grid(axes)


def _draw_names(
    axes: Axes, methods: Sequence[Method], slots: Sequence[float], low: float, high: float
) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(low, high)
    axes.axis("off")
    for method, slot in zip(methods, slots, strict=True):
        style, mean = method_style(method.index), bounds(method.final())[0]
        axes.plot([-0.04, 0.07], [mean, slot], color=style.colour, linewidth=0.6, clip_on=False)
        axes.plot(
            [0.08, 0.22], [slot, slot], color=style.colour, linestyle=style.line, linewidth=1.1, clip_on=False
        )
        axes.plot([0.15], [slot], color=style.colour, marker=style.marker, clip_on=False)
        axes.text(0.25, slot, method.label, fontsize=6.5, va="center", color=BLACK)


def _how(comparison: ComparisonRuns, with_bands: bool, is_cut: bool, costs: Sequence[str]) -> list[str]:
    cut = " Intervals that leave the axis are longer than it shows." if is_cut else ""
    bands = "bands: 95% intervals of the accuracy; " if with_bands else ""
    interval_there = ", with its 95% interval" if len(comparison.seeds) > 1 else ""
    free = "sends nothing" if costs[0] != "virtual_s" else "takes no virtual time"
    return [
        "Curves: means over seeds of accuracy and of cost at the same policy version, joined by straight lines; "
        f"{bands}marker: the end of the runs, in the narrow panel too{interval_there}. "
        f"Dotted lines: a method that {free}. A logarithmic axis is linear from 0 to the dotted upright.{cut}",
        *not_measured(
            [method for method in comparison.methods if not method.has_looks()], "validation accuracy"
        ),
    ]
