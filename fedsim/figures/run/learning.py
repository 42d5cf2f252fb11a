"""Accuracy and reward against what they cost: virtual time and bytes in both accounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsim.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    byte_scale,
    light_grid,
    new_figure,
    styled,
    time_scale,
)
from fedsim.records.looks import Look, looks
from fedsim.records.run import Run

_MEASURES = (("greedy", "greedy", BLUE), ("pass_at_1", "pass@1", VERMILLION), ("pass_at_8", "pass@8", GREEN))
_SPLITS = (("validation", "o", "-"), ("test", "D", ""))
_LOOK_MARKERS = "s^vPX*<>"


def learning(run: Run) -> Figure | None:
    """Two rows (accuracy; mean reward of the groups of each update) by three columns (time; wire; paper).

    Lines are validation questions, diamonds test questions; extra sets of questions are dotted, greedy alone. A row without
    a single number is left out. The reward is drawn per update (dots) with a running mean over ten updates. Wire bytes are
    both directions. A run of timing fidelity has no learning to be drawn, whatever an earlier version put on record.
    """
    if not run.measures:
        return None
    metrics = run.metrics.fill_nan(None).select(
        "event",
        "reward_mean",
        virtual_s="at_s",
        wire_bytes=pl.col("wire_up_bytes") + pl.col("wire_down_bytes"),
        paper_bytes="paper_up_bytes",
    )
    updates = metrics.filter(pl.col("event") == "update").drop_nulls("reward_mean")
    rows: list[tuple[Callable[[Axes, str, float], None], str]] = []
    if lines := _lines(run):
        rows.append((partial(_draw_accuracy, lines), "accuracy"))
    if not updates.is_empty():
        rows.append((partial(_draw_reward, updates), "mean reward"))
    if not rows:
        return None
    with styled():
        figure = new_figure(0.9 + 1.5 * len(rows))
        grid: list[list[Axes]] = figure.subplots(
            len(rows), 3, sharex="col", sharey="row", squeeze=False
        ).tolist()
        for column, (name, scale, label) in enumerate(_abscissas(metrics)):
            for line, (draw, _) in zip(grid, rows, strict=True):
                draw(line[column], name, scale)
            most = max(1e-9, *(metrics[name] / scale).to_list())
            grid[-1][column].set_xlim(-0.02 * most, 1.04 * most)
            grid[-1][column].set_xlabel(label)
        for line, (_, title) in zip(grid, rows, strict=True):
            line[0].set_ylabel(title)
        shown = [entry for line in grid for entry in zip(*line[0].get_legend_handles_labels(), strict=True)]
        handles, labels = zip(*shown, strict=True)
        figure.legend(handles, labels, loc="outside upper center", ncols=3 if len(shown) < 8 else 4)
    return figure


def _abscissas(metrics: pl.DataFrame) -> list[tuple[str, float, str]]:
    most = {name: float(max(metrics[name].to_list())) for name in ("virtual_s", "wire_bytes", "paper_bytes")}
    unit_s, time_unit = time_scale(most["virtual_s"])
    wire, wire_unit = byte_scale(most["wire_bytes"])
    paper, paper_unit = byte_scale(most["paper_bytes"])
    return [
        ("virtual_s", unit_s, f"virtual time ({time_unit})"),
        ("wire_bytes", wire, f"wire, both directions ({wire_unit})"),
        ("paper_bytes", paper, f"paper's account, uplink ({paper_unit})"),
    ]


def _lines(run: Run) -> list[tuple[tuple[Look, ...], dict[str, Any]]]:
    """What was measured, a line each: its looks, and how it is drawn."""
    found = set(run.metrics.filter(pl.col("greedy").is_not_nan())["split"].drop_nulls())
    lines: list[tuple[tuple[Look, ...], dict[str, Any]]] = []
    for split, marker, joined in _SPLITS:
        for measure, label, colour in _MEASURES:
            style = {
                "label": f"{label}, {split}",
                "color": colour,
                "marker": marker,
                "linestyle": "-" if found == {split} else joined,
                "markerfacecolor": "white" if split == "test" else colour,
                "zorder": 4 if split == "test" else 3,
            }
            lines.append((looks(run, measure, split), style))
    for split, marker in zip(sorted(found - {split for split, *_ in _SPLITS}), cycle(_LOOK_MARKERS)):
        style = {"label": f"greedy, {split}", "color": GREY, "marker": marker, "linestyle": ":"}
        lines.append((looks(run, "greedy", split), style))
    return [(seen, style) for seen, style in lines if seen]


def _draw_accuracy(
    lines: Sequence[tuple[Sequence[Look], dict[str, Any]]], axes: Axes, name: str, scale: float
) -> None:
    for seen, style in lines:
        axes.plot([getattr(look, name) / scale for look in seen], [look.value for look in seen], **style)
    light_grid(axes)
    # A little below zero, so that a marker at zero is whole.
    axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])


def _draw_reward(updates: pl.DataFrame, axes: Axes, name: str, scale: float) -> None:
    where = (updates[name] / scale).to_list()
    rewards = updates["reward_mean"].to_list()
    axes.plot(where, rewards, ".", color=GREY, markersize=2.5, label="reward, each update")
    axes.plot(where, running_mean(rewards, 10), color=ORANGE, label="reward, mean of 10 updates")
    light_grid(axes)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over the last ``window`` values up to each one (fewer at the start)."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means
