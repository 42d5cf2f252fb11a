"""Bytes by direction and fate, in both accounts side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.config.units import format_bytes
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
    byte_scale,
    light_grid,
    new_figure,
    styled,
)
from fedsim.records.rows import FATES
from fedsim.records.run import Run
from fedsim.records.totals import in_order

# Bars: label, amount column, direction.
_BARS = (
    ("wire, downlink", "wire_bytes", "down"),
    ("wire, uplink", "wire_bytes", "up"),
    ("paper, uplink", "paper_bytes", "up"),
)
_FATE_COLOURS = (BLUE, ORANGE, YELLOW, SKY, PURPLE, VERMILLION, BLACK)
_PURPOSE_COLOURS = (GREY, PURPLE, BLUE, ORANGE, GREEN, SKY, YELLOW, PALE, VERMILLION, BLACK)
# Third parties' purposes come after ours: the colours begin again, with another hatch.
_HATCHES = ("", "////", "....", "xxxx")
# Beyond this ratio the smaller bar of a linear axis cannot be seen.
_LINEAR_UP_TO = 20.0


def traffic(run: Run) -> Figure | None:
    """Left: total bytes of each account and direction. Right: stacked shares by fate and by purpose.

    Totals are stacked by fate on a linear axis while the smallest bar can be seen on it, else they stand on
    a logarithmic one, where only lengths against the axis mean anything; that is why the stacks are shares
    in panels of their own.
    """
    amounts = pl.col("wire_bytes", "paper_bytes").sum()
    totals = run.scan("transfers").group_by("direction", "fate", "purpose").agg(amounts)
    transfers = totals.collect(engine="streaming")
    if transfers.is_empty():
        return None
    with styled():
        figure = new_figure(2.7)
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(1.15, 1, 1))
        _draw_totals(left, transfers)
        _draw_shares(middle, transfers, "fate", FATES, _FATE_COLOURS)
        _draw_shares(right, transfers, "purpose", in_order(transfers["purpose"]), _PURPOSE_COLOURS)
        left.set_yticks(range(len(_BARS)), [label for label, _, _ in _BARS])
        left.set_ylim(len(_BARS) - 0.4, -0.6)
    return figure


def _amount(transfers: pl.DataFrame, column: str, direction: str) -> int:
    return int(transfers.filter(pl.col("direction") == direction)[column].sum())


def _draw_totals(axes: Axes, transfers: pl.DataFrame) -> None:
    totals = [_amount(transfers, column, direction) for _, column, direction in _BARS]
    positive = [total for total in totals if total > 0] or [1]
    unit_bytes, unit = byte_scale(max(positive))
    is_linear = max(positive) / min(positive) <= _LINEAR_UP_TO
    if is_linear:
        _stack(axes, transfers, "fate", FATES, _FATE_COLOURS, [unit_bytes] * len(_BARS))
        axes.set_xlim(0, 1.4 * max(positive) / unit_bytes)
    else:
        axes.barh(range(len(totals)), [total / unit_bytes for total in totals], color=GREY, height=0.6)
        axes.set_xscale("log")
        axes.set_xlim(min(positive) / 10 / unit_bytes, 60 * max(positive) / unit_bytes)
    for row, total in enumerate(totals):
        start = max(total, 0 if is_linear else min(positive) / 10) / unit_bytes
        axes.annotate(
            format_bytes(total),
            (start, row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_xlabel(f"total ({unit}, {'by fate' if is_linear else 'logarithmic'})")
    light_grid(axes, "x")


def _stack(
    axes: Axes,
    transfers: pl.DataFrame,
    column: str,
    kinds: Sequence[str],
    colours: Sequence[str],
    units: Sequence[float],
    **look: Any,
) -> None:
    """A bar for each account and direction, in parts by kind, each in units of its bar."""
    left = [0.0] * len(_BARS)
    for place, kind in enumerate(kinds):
        rows = transfers.filter(pl.col(column) == kind)
        amounts = [_amount(rows, amount, direction) for _, amount, direction in _BARS]
        if not any(amounts):
            continue
        widths = [amount / unit for amount, unit in zip(amounts, units, strict=True)]
        axes.barh(
            range(len(_BARS)),
            widths,
            left=left,
            color=colours[place % len(colours)],
            hatch=_HATCHES[place // len(colours) % len(_HATCHES)],
            height=0.6,
            label=kind.replace("_", "-"),
            **look,
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]


def _draw_shares(
    axes: Axes, transfers: pl.DataFrame, column: str, kinds: Sequence[str], colours: Sequence[str]
) -> None:
    units = [max(_amount(transfers, amount, direction), 1) / 100 for _, amount, direction in _BARS]
    _stack(axes, transfers, column, kinds, colours, units, edgecolor="white", linewidth=0.4)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"share by {column} (%)")
    axes.tick_params(axis="y", length=0)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.0,
    )
