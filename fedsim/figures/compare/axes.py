"""What the figures of a comparison share: an axis of amounts that shows zero, and what must be said of every figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from fedsim.figures.compare.runs import ComparisonRuns, Method
from fedsim.figures.style import GREY, byte_scale, time_scale

_LINEAR_UP_TO = 50.0
_ZERO_DECADES = 0.6
"""Width of the stretch between 0 and the first power of ten, in decades."""


def amount_scale(kind: str, most: float) -> tuple[float, str]:
    """Amount per unit, and the unit, for ``bytes`` or ``time``."""
    return byte_scale(most) if kind == "bytes" else time_scale(most)


def logarithmic_with_zero(axes: Axes, amounts: Iterable[float], room: float = 1.5) -> float:
    """Make the horizontal axis logarithmic, with a short linear stretch to 0 at its left; returns the largest amount.

    Nothing is lost at zero: what costs nothing stands at the tick 0, left of a thin line that marks the break.

    Args:
        axes: whose horizontal axis.
        amounts: everything that will be drawn, in the axis' unit.
        room: factor of free space right of the largest.
    """
    positive = [amount for amount in amounts if amount > 0] or [1.0]
    first = math.floor(math.log10(min(positive)) + 1e-9)
    last = math.log10(max(positive))
    start = 10.0**first
    axes.set_xscale("symlog", linthresh=start, linscale=_ZERO_DECADES)
    axes.set_xlim(-0.25 * start, max(positive) * room)
    step = 1 + int(last - first) // 7
    digits = (1.0, 2.0, 5.0) if last - first < 1.5 else (1.0,)
    ticks = [
        digit * 10.0**power for power in range(first, math.floor(last + 0.3) + 1, step) for digit in digits
    ]
    ticks = [0.0, *(tick for tick in ticks if tick <= max(positive) * room)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    fine = [
        digit * 10.0**power
        for power in range(first, math.ceil(last) + 1)
        for digit in range(2, 10)
        if digit * 10.0**power < max(positive) * room
    ]
    axes.xaxis.set_minor_locator(FixedLocator(fine) if step == 1 else NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(start, color=GREY, linewidth=0.5, linestyle=(0, (1.0, 2.0)), zorder=0.5)
    return max(positive)


def cost_axis(axes: Axes, amounts: Iterable[float], kind: str, room: float) -> str:
    """Scale the horizontal axis: ``bytes`` as logarithms, ``time`` only where it spans much; returns which."""
    shown = list(amounts)
    positive = [amount for amount in shown if amount > 0] or [1.0]
    if kind == "time" and max(positive) / min(positive) <= _LINEAR_UP_TO:
        axes.set_xlim(-0.04 * max(positive), max(positive) * (1 + 0.15 * (room - 1)))
        return "linear"
    logarithmic_with_zero(axes, shown, room)
    return "log"


def limits(means: Sequence[float], ends: Sequence[float]) -> tuple[float, float, bool]:
    """Limits of a vertical axis that hold all means and their intervals' ends, and whether some end is off it.

    Intervals of two seeds are so wide that the means could not be told apart, so an end lies off the axis where it is
    further from all means than these are spread (at least 0.05).
    """
    room = max(max(means) - min(means), 0.05)
    low, high = min([*means, *ends]), max([*means, *ends])
    bottom, top = max(low, min(means) - room), min(high, max(means) + room)
    return bottom - 0.06 * room, top + 0.06 * room, bottom > low or top < high


def logarithmic(axes: Axes, left: float, right: float) -> None:
    """Make the horizontal axis logarithmic between two positive amounts, with plain numbers (1, 2, 5) at its ticks."""
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    decades = math.log10(right / left)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def row_height_in(num_methods: int, each_in: float, least_in: float, around_in: float) -> float:
    """Height of a figure with one row per method."""
    return max(least_in, num_methods * each_in) + around_in


def said_of_all(comparison: ComparisonRuns) -> list[str]:
    """What every figure of this comparison must say: seeds, billing, and whether accuracy exists at all."""
    seeds = len(comparison.seeds)
    counted = (
        "one seed, so there are no intervals"
        if seeds == 1
        else f"{seeds} seeds; 95% Student-t intervals over them"
    )
    return [
        f"Comparison {comparison.name}: {counted}.",
        *billing(comparison.methods),
        *timing(comparison.methods),
    ]


def billing(methods: Sequence[Method]) -> list[str]:
    """The sentence on billing, or nothing where every model counts as what it is."""
    groups: dict[str | None, list[str]] = {}
    for method in methods:
        groups.setdefault(method.billed, []).append(method.label)
    if set(groups) <= {None}:
        return []
    if len(groups) == 1:
        parts = [f"{next(iter(groups))}"]
    else:
        parts = [f"{text or 'not billed'} ({', '.join(names)})" for text, names in groups.items()]
    return [f"Billing is on, bytes and times are those of bigger models: {'; '.join(parts)}."]


def timing(methods: Sequence[Method]) -> list[str]:
    """The sentence on timing fidelity, or nothing where all models are real."""
    names = [method.label for method in methods if method.fidelity == "timing"]
    if not names:
        return []
    which = "every method" if len(names) == len(methods) else ", ".join(names)
    return [f"Timing fidelity ({which}): bytes and times of stand-in models, no accuracy."]


def not_measured(methods: Sequence[Method], what: str) -> list[str]:
    """The sentence that names methods left out of a figure, or nothing."""
    if not methods:
        return []
    return [f"Not drawn, without {what}: {', '.join(method.label for method in methods)}."]
