"""Bytes to the end of every method: totals of both accounts on a logarithmic axis, shares by direction and fate beside them.

A stack on a logarithmic axis has no meaning (its upper segments look small because they stand high), so the totals are
dots, and what is stacked are shares on linear axes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fedsim.config.units import format_bytes
from fedsim.figures.compare.axes import amount_scale, logarithmic_with_zero, row_height_in, said_of_all
from fedsim.figures.compare.runs import ComparisonRuns, Method, bounds
from fedsim.figures.labels import figure_with_footer
from fedsim.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    light_grid,
    styled,
)
from fedsim.records.rows import FATES, Fate

# Where a method's two lines stand in its row, and which directions an account has.
OFFSETS = {"wire": -0.19, "paper": 0.19}
WAYS = {"wire": ("down", "up"), "paper": ("up",)}
_COLOURS = {"wire": BLUE, "paper": VERMILLION}
FATE_COLOURS = dict(zip(FATES, (SKY, ORANGE, YELLOW, GREEN, PURPLE, VERMILLION, BLACK), strict=True))
_THICK = 0.34
_HATCH = "/////"
_HOW = (
    "Upright: total; triangles: each direction. Upper line of a method: wire, every byte both ways. Lower line: paper, "
    "payload that arrived on the uplink. The left axis is logarithmic right of the dotted line and linear from it to 0; "
    "lengths on it do not add up, so shares stand beside it, of the mean amounts over seeds."
)


def compare_bytes(comparison: ComparisonRuns) -> Figure:
    """Left: bytes to the end, per account and direction. Middle: shares by direction and fate. Right: the wasted part.

    A method that sends nothing stands at 0 and is labelled so. Shares are of the mean amounts over the seeds.
    """
    methods = comparison.methods
    with styled():
        figure = figure_with_footer(
            row_height_in(len(methods), 0.31, 0.45, 0.7), [*said_of_all(comparison), _HOW]
        )
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1.9, 1.0, 0.8))
        _draw_totals(left, methods)
        shown = _draw_shares(middle, methods, FATES)
        _draw_shares(right, methods, FATES[1:])
        left.set_yticks(range(len(methods)), [method.label for method in methods])
        left.set_ylim(len(methods) - 0.45, -0.55)
        for axes in (left, middle, right):
            for row in range(1, len(methods)):
                axes.axhline(row - 0.5, color=PALE, linewidth=0.5, zorder=0)
            axes.tick_params(axis="y", length=0)
        middle.set_xlim(0, 100)
        middle.set_xlabel("share by direction and fate (%)")
        right.set_xlabel("wasted share (%)")
        if not right.patches:
            right.set_xlim(0, 1)
            right.set_xticks([])
            right.text(0.5, 0.5, "nothing wasted", transform=right.transAxes, ha="center", fontsize=6)
        _legend(figure, shown)
        return figure


def _draw_totals(axes: Axes, methods: Sequence[Method]) -> None:
    found = [
        method.total(account, way) for method in methods for account in WAYS for way in (None, *WAYS[account])
    ]
    amounts = [bounds(one)[0] for one in found]
    unit_bytes, unit = amount_scale("bytes", max(amounts))
    logarithmic_with_zero(axes, [amount / unit_bytes for amount in amounts], room=12.0)
    for row, method in enumerate(methods):
        for account, offset in OFFSETS.items():
            _draw_total(axes, method, account, row + offset, unit_bytes)
    axes.set_xlabel(f"bytes to the end of the run ({unit}, logarithmic)")
    light_grid(axes, "x")


def _draw_total(axes: Axes, method: Method, account: str, y: float, unit_bytes: float) -> None:
    colour = _COLOURS[account]
    mean, low, high = (amount / unit_bytes for amount in bounds(method.total(account)))
    parts = {way: bounds(method.total(account, way))[0] / unit_bytes for way in WAYS[account]}
    axes.plot([max(0.0, low), high], [y, y], color=colour, linewidth=1.0, solid_capstyle="butt", zorder=2)
    axes.plot(
        [mean], [y], "|", color=colour, markersize=7, markeredgewidth=1.6, zorder=3, label=f"{account} total"
    )
    if mean == 0:
        axes.plot([0], [y], "o", color=colour, markersize=3, zorder=4)
        parts = {}
    for way, part in parts.items():
        axes.plot([part], [y], "v" if way == "down" else "^", color=colour, markersize=4, markeredgewidth=0.7,
                  markerfacecolor="white" if part else colour, zorder=4)  # fmt: skip
    axes.annotate(
        format_bytes(mean * unit_bytes), (max(mean, high), y), xytext=(5, 0), textcoords="offset points",
        va="center", fontsize=6, color=BLACK,
    )  # fmt: skip


def _draw_shares(axes: Axes, methods: Sequence[Method], fates: Sequence[Fate]) -> set[Fate]:
    """Stacked shares (%) of each account's total, by direction (hatched: uplink) and fate; returns the fates there are."""
    shown: set[Fate] = set()
    for row, method in enumerate(methods):
        for account, offset in OFFSETS.items():
            whole = bounds(method.total(account))[0]
            start = 0.0
            for way in WAYS[account]:
                for fate in fates:
                    amount = method.mean_bytes(account, way, fate)
                    if amount <= 0:
                        continue
                    share = 100 * amount / whole
                    axes.barh(
                        row + offset, share, left=start, height=_THICK, color=FATE_COLOURS[fate],
                        hatch=_HATCH if way == "up" else None, edgecolor="white", linewidth=0,
                    )  # fmt: skip
                    start += share
                    shown.add(fate)
            if whole == 0 and len(fates) == len(FATES) and account == "wire":
                axes.text(1.5, row, "sends nothing", fontsize=6, color="#444444", va="center")
    light_grid(axes, "x")
    return shown


def _legend(figure: Figure, shown: set[Fate]) -> None:
    keys: list[tuple[object, str]] = [
        (
            Line2D([], [], color=_COLOURS[account], marker="|", markersize=7, markeredgewidth=1.6),
            account,
        )
        for account in WAYS
    ]
    for marker, label in (("v", "downlink"), ("^", "uplink")):
        line = Line2D([], [], color=BLUE, marker=marker, markersize=4, linestyle="", markerfacecolor="white")
        keys.append((line, label))
    keys += [(Patch(facecolor=FATE_COLOURS[fate]), fate.replace("_", "-")) for fate in FATES if fate in shown]
    if shown:
        keys.append((Patch(facecolor=GREY, hatch=_HATCH, edgecolor="white", linewidth=0), "hatched: uplink"))
    handles, labels = zip(*keys, strict=True)
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(keys) if len(keys) <= 8 else (len(keys) + 1) // 2,
        handlelength=1.4,
        columnspacing=1.1,
    )
