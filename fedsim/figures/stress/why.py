"""Why rewards were lost in a stress sweep: by cause, phase and device class, and which domains lost their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from fedsim.figures.labels import figure_with_footer, method_style, shown_name
from fedsim.figures.stress.runs import Sweep
from fedsim.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    light_grid,
    styled,
)

_COLOURS = (BLUE, VERMILLION, ORANGE, GREEN, SKY, PURPLE, YELLOW)
_BAR_IN = 0.19
_PHASES = {
    "down": "download",
    "queue": "waiting its turn",
    "compute": "computing",
    "up": "upload",
    "done": "done, too late",
}


def stress_why(sweep: Sweep) -> Figure | None:
    """Shares of the requests asked (of a class: of that class's) and of the groups, per level of the panels' axis.

    Every share is the mean over runs of a run's own share, so that a setting or a seed that asks often weighs no more.
    """
    names = [name for name, losses in sweep.lost.items() if losses["asked"]]
    if not any(sweep.lost[name]["lost"] for name in names):
        return None
    with styled():
        body_in = 2 * (len(names) * _BAR_IN + 1.05)
        figure = figure_with_footer(
            body_in,
            [
                f"{sweep.name}: requests of groups on record; over-selected requests and the slower of a hedged pair are not "
                "counted. A group is lost if it was not trained on. Shares are means over runs (points and seeds): each weighs "
                "alike, however often it asked."
            ],
        )
        grid = figure.subplots(2, 2, sharey=True)
        _stack(grid[0, 0], sweep, names, "by_cause", "lost requests by cause (% of asked)")
        _stack(grid[0, 1], sweep, names, "by_phase", "lost requests by phase (% of asked)")
        _dots(
            grid[1, 0],
            names,
            _percents(sweep, names, "by_device_class"),
            "lost requests by device class (% of the class's)",
        )
        _dots(
            grid[1, 1], names, _percents(sweep, names, "domains"), "groups lost by domain (% of the domain's)"
        )
        for axes in grid.flat:
            axes.set_yticks(range(len(names)), names)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(names) - 0.45, -0.55)
            light_grid(axes, "x")
    return figure


def _stack(axes: Axes, sweep: Sweep, names: Sequence[str], part: str, title: str) -> None:
    found: list[Mapping[str, float]] = [sweep.lost[name]["shares"][part] for name in names]
    totals: dict[str, float] = {}
    for of_name in found:
        for label, share in of_name.items():
            totals[label] = totals.get(label, 0.0) + share
    ranked = sorted(totals, key=lambda label: (-totals[label], label))
    shown, others = ranked[: len(_COLOURS)], ranked[len(_COLOURS) :]
    left = [0.0] * len(names)
    for index, label in enumerate([*shown, *(["others"] if others else [])]):
        members = others if label == "others" and others else [label]
        shares = [100 * sum(of_name.get(one, 0.0) for one in members) for of_name in found]
        colour = _COLOURS[index] if index < len(_COLOURS) else GREY
        axes.barh(
            range(len(names)), shares, left=left, color=colour, height=0.66, label=_brief(label), linewidth=0
        )
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set_xlim(0, _room(left))
    axes.set_title(title)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=_below(axes),
        ncols=2,
        fontsize=6,
        handlelength=1,
        columnspacing=1,
    )


def _dots(axes: Axes, names: Sequence[str], shares: Mapping[str, Sequence[float | None]], title: str) -> None:
    for index, (label, row) in enumerate(shares.items()):
        style = method_style(index)
        known = [(share, place) for place, share in enumerate(row) if share is not None]
        axes.plot(
            [share for share, _ in known], [place for _, place in known], linestyle="none", marker=style.marker,
            color=style.colour, label=_brief(label), markersize=4, alpha=0.85, clip_on=False, zorder=3,
        )  # fmt: skip
    axes.set_xlim(0, _room([share for row in shares.values() for share in row if share is not None]))
    axes.set_title(title)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=_below(axes),
        ncols=3,
        fontsize=6,
        handletextpad=0.2,
        columnspacing=1,
    )


def _room(percents: Sequence[float]) -> float:
    """Where an axis ends, so that its largest mark stands off the edge."""
    return 1.05 * max(percents, default=0.0) or 1.0


def _percents(sweep: Sweep, names: Sequence[str], part: str) -> dict[str, list[float | None]]:
    """Per class or domain, its share under each name in percent; None where a name never asked it."""
    found: list[Mapping[str, float]] = [sweep.lost[name]["shares"][part] for name in names]
    labels = sorted({label for shares in found for label in shares})
    return {label: [100 * shares[label] if label in shares else None for shares in found] for label in labels}


def _below(axes: Axes) -> Transform:
    """The axes' own coordinates, moved down past the numbers under them."""
    return axes.transAxes + ScaledTranslation(0, -0.2, axes.figure.dpi_scale_trans)


def _brief(label: str) -> str:
    return shown_name(_PHASES.get(label, label))
