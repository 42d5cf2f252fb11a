"""Losses compared: what each ends with against the first, and what samples of every staleness were worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.finished import Compared
from analysis.losses.section import Stale, differences
from fedsim.figures.labels import figure_with_footer, method_style
from fedsim.figures.style import GREY, light_grid, styled

_PANELS = {
    "effective_share": "effective share",
    "clip_fraction": "clipped",
    "divergence": "divergence (nats)",
}


def loss_figure(compared: Compared, stale: Mapping[str, Sequence[Stale]]) -> Figure | None:
    """Differences to the first variant, and three panels over staleness; None where there is neither."""
    found = {name: one for name, one in differences(compared, "pass_at_1").items() if one["mean"] is not None}
    if not found and not stale:
        return None
    with styled():
        figure = figure_with_footer(
            max(1.8, 0.2 * len(found) + 0.9),
            [
                f"Left: pass@1 on the test questions minus that of {next(iter(compared.summaries))}, paired by seed, with 95% "
                "Student-t intervals. Right: means over the tokens of that staleness (policy versions), then over seeds."
            ],
        )
        left, *right = figure.subplots(1, 1 + len(_PANELS), width_ratios=[1.5, 1, 1, 1]).tolist()
        order = {name: place for place, name in enumerate(compared.summaries)}
        for place, (name, one) in enumerate(reversed(found.items())):
            style = method_style(order[name])
            if one["low"] is not None and one["high"] is not None:
                left.plot([one["low"], one["high"]], [place, place], color=style.colour, linewidth=1.0)
            left.plot([one["mean"]], [place], color=style.colour, marker=style.marker)
        left.axvline(0.0, color=GREY, linewidth=0.6)
        left.set_yticks(range(len(found)), list(reversed(found)))
        left.set_xlabel("pass@1, minus first")
        light_grid(left, "x")
        for axes, (key, title) in zip(right, _PANELS.items(), strict=True):
            _draw_stale(axes, stale, order, key, title)
        if stale:
            handles, labels = right[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure


def _draw_stale(
    axes: Axes, stale: Mapping[str, Sequence[Stale]], order: Mapping[str, int], key: str, title: str
) -> None:
    for name, found in stale.items():
        style = method_style(order[name])
        points = [(one.staleness, one.numbers[key]["mean"]) for one in found]
        known = [(where, value) for where, value in points if value is not None]
        axes.plot(
            [where for where, _ in known],
            [value for _, value in known],
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            label=name,
        )
    axes.set_xlabel("staleness")
    axes.set_title(title)
    light_grid(axes)
