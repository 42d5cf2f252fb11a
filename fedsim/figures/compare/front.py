"""The trade-off front: what a method gains on the test questions against every byte it puts on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.figures.compare.axes import amount_scale, limits, logarithmic, not_measured, said_of_all
from fedsim.figures.compare.runs import ComparisonRuns, Method, bounds
from fedsim.figures.labels import Point, figure_with_footer, label_points, method_style, spread
from fedsim.figures.style import BLACK, GREY, light_grid, settle, styled

Stretch = tuple[float, float, float, float]
"""A piece of a line: from x, y to x, y in data coordinates."""


def compare_front(comparison: ComparisonRuns) -> Figure | None:
    """Left: methods that send nothing, side by side. Right: gain against wire bytes, with intervals both ways.

    The steps join the efficient methods (no other gains as much with as few bytes, by the means); they show the best
    gain for at most so many bytes.

    Returns:
        None if no method has test accuracy.
    """
    methods = [method for method in comparison.methods if method.gains()["mean"] is not None]
    if not methods:
        return None
    free = [method for method in methods if not method.total("wire")["mean"]]
    paying = [method for method in methods if method.total("wire")["mean"]]
    with styled():
        found = [bounds(method.gains()) for method in methods]
        low, high, is_cut = limits([one[0] for one in found], [end for one in found for end in one[1:]])
        sentences = [*said_of_all(comparison), *_how(comparison, methods, is_cut)]
        figure = figure_with_footer(3.4 if len(methods) > 8 else 2.7, sentences)
        if free and paying:
            left_in, names_in = (
                0.25 + 0.09 * len(free),
                0.25 + 0.055 * max(len(method.label) for method in free),
            )
            widths = (left_in, names_in, 6.7 - left_in - names_in)
            none, names, some = figure.subplots(1, 3, width_ratios=widths)
        elif free:
            none, names = figure.subplots(1, 2, width_ratios=(2.0, 5.0))
            some = None
        else:
            none, names, some = None, None, figure.subplots()
        if none is not None and names is not None:
            _draw_free(none, names, free, (low, high))
        if some is not None:
            points, steps = _draw_paying(some, paying, _best(free), (low, high))
        for axes in (none, some):
            if axes is not None:
                light_grid(axes)
                axes.axhline(0, color=GREY, linewidth=0.6, zorder=0.5)
        (none if none is not None else some).set_ylabel("gain in greedy accuracy, test")
        settle(figure)
        if some is not None:
            label_points(figure, some, points, steps)
    return figure


def efficient(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Places that no other dominates (at most the cost and at least the gain, one of them better), by rising cost."""
    found = [
        place
        for place, (cost, gain) in enumerate(zip(costs, gains, strict=True))
        if not any(
            other_cost <= cost and other_gain >= gain and (other_cost < cost or other_gain > gain)
            for other_cost, other_gain in zip(costs, gains, strict=True)
        )
    ]
    return sorted(found, key=lambda place: (costs[place], place))


def _mean(method: Method) -> float:
    return bounds(method.gains())[0]


def _best(free: Sequence[Method]) -> float | None:
    return max((_mean(method) for method in free), default=None)


def _draw_free(axes: Axes, names: Axes, free: Sequence[Method], limits: tuple[float, float]) -> None:
    order = sorted(free, key=lambda method: (-_mean(method), method.index))
    for rank, method in enumerate(order):
        style, found = method_style(method.index), method.gains()
        if found["low"] is not None and found["high"] is not None:
            axes.plot(
                [rank, rank], [found["low"], found["high"]], color=style.colour, linewidth=0.9, zorder=2
            )
        axes.plot([rank], [_mean(method)], color=style.colour, marker=style.marker, markersize=4.5, zorder=3)
    axes.set_xlim(-0.8, len(order) - 0.2)
    axes.set_ylim(*limits)
    axes.set_xticks([])
    axes.set_xlabel("0 B")
    names.set_xlim(0, 1)
    names.set_ylim(*limits)
    names.axis("off")
    slots = spread([_mean(method) for method in order], (limits[1] - limits[0]) / 24, *limits)
    for method, slot in zip(order, slots, strict=True):
        style = method_style(method.index)
        names.plot([-0.06, 0.05], [_mean(method), slot], color=style.colour, linewidth=0.6, clip_on=False)
        names.plot([0.09], [slot], color=style.colour, marker=style.marker, clip_on=False)
        names.annotate(
            method.label,
            (0.09, slot),
            xytext=(5, 0),
            textcoords="offset points",
            fontsize=6.5,
            va="center",
            color=BLACK,
        )


def _draw_paying(
    axes: Axes, paying: Sequence[Method], best_free: float | None, limits: tuple[float, float]
) -> tuple[list[Point], list[Stretch]]:
    means = [bounds(method.total("wire"))[0] for method in paying]
    unit_bytes, unit = amount_scale("bytes", max(means))
    left, right = min(means) / 2.2 / unit_bytes, 2.2 * max(means) / unit_bytes
    logarithmic(axes, left, right)
    axes.set_ylim(*limits)
    points = []
    for method, mean in zip(paying, means, strict=True):
        style, (y, bottom, top) = method_style(method.index), bounds(method.gains())
        x = mean / unit_bytes
        x_ends = tuple(max(left, end / unit_bytes) for end in bounds(method.total("wire"))[1:])
        y_ends = (bottom, top)
        axes.plot(x_ends, [y, y], color=style.colour, linewidth=0.9, zorder=3)
        axes.plot([x, x], y_ends, color=style.colour, linewidth=0.9, zorder=3)
        axes.plot([x], [y], color=style.colour, marker=style.marker, markersize=5, zorder=4)
        points.append(Point(x, y, method.label, style.colour, (x_ends[0], x_ends[1]), y_ends))
    steps = _draw_front(axes, points, best_free, (left, right))
    axes.set_xlabel(f"bytes on the wire to the end, both directions ({unit}, logarithmic)")
    light_grid(axes, "both")
    return points, steps


def _draw_front(
    axes: Axes, points: Sequence[Point], best_free: float | None, ends: tuple[float, float]
) -> list[Stretch]:
    places = efficient([point.x for point in points], [point.y for point in points])
    steps = [(points[place].x, points[place].y) for place in places]
    if best_free is not None:
        steps = [(ends[0], best_free), *(step for step in steps if step[1] > best_free)]
    steps.append((ends[1], steps[-1][1]))
    xs, ys = zip(*steps, strict=True)
    axes.step(
        xs, ys, where="post", color=GREY, linewidth=1.0, linestyle=(0, (4.0, 2.0)), zorder=1, label="front"
    )
    corners = list(pairwise(steps))
    level = [(x, y, next_x, y) for (x, y), (next_x, _) in corners]
    return level + [(next_x, y, next_x, next_y) for (_, y), (next_x, next_y) in corners]


def _how(comparison: ComparisonRuns, methods: Sequence[Method], is_cut: bool) -> list[str]:
    whiskers = " Whiskers: 95% intervals of gain and of bytes." if len(comparison.seeds) > 1 else ""
    cut = " Whiskers that leave the axis are longer than it shows." if is_cut else ""
    return [
        f"Gain: end minus start.{whiskers} Dashed steps: the best mean gain for at most so many bytes, by the "
        f"means; methods left at 0 B send nothing.{cut}",
        *not_measured([method for method in comparison.methods if method not in methods], "test accuracy"),
    ]
