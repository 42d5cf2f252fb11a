"""Heat maps of a stress sweep: one measure over two axes, a panel for every level of the third; darker is always worse.

A cell of what a run costs (time, bytes) is the median over the seeds, the 90th percentile in brackets under it; a run that did
not finish counts as more than any other (`fedsim.sweeps.stats`). Any other cell is a mean. A cell that some seeds did not
finish says how many did; one without a number is hatched and says how it ended. Bold is the best of all panels at the same
place. A random sweep is drawn as points instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedsim.figures.labels import figure_with_footer
from fedsim.figures.stress.runs import Sweep
from fedsim.figures.style import BLACK, GREY, PALE, byte_scale, styled, time_scale
from fedsim.sweeps.stats import NOT_REACHED, percentile
from fedsim.sweeps.stress.losses import counted
from fedsim.sweeps.stress.pages import named_seeds
from fedsim.sweeps.stress.pairs import COSTS

_MOST_ACROSS = 3  # panels side by side
_CELL_IN, _LINE_IN, _HEAD_IN, _FOOT_IN = 0.235, 0.1, 0.24, 0.8
_WORDS = {"failed": "failed", "refused": "refused", "out_of_time": "late"}


@dataclass(frozen=True, slots=True)
class Measure:
    """What a map shows.

    Attributes:
        key: the measure in ``stress.json``.
        title: what stands above the panels; the unit stands at the colour bar.
        scale: from a typical value to (divide by, unit).
        better: whether more is better or less.
        logarithmic: whether colours follow the logarithm.
        bounds: the colours' ends; the data's where None.
    """

    key: str
    title: str
    scale: Callable[[float], tuple[float, str]]
    better: str = "less"
    logarithmic: bool = False
    bounds: tuple[float, float] | None = None

    @property
    def is_cost(self) -> bool:
        """Whether it is shown as quantiles, not as a mean."""
        return self.key in COSTS


def _percent(_: float) -> tuple[float, str]:
    return 0.01, "%"


def _plain(_: float) -> tuple[float, str]:
    return 1.0, ""


MEASURES: Mapping[str, Measure] = {
    "time": Measure("time_s", "virtual time to finish", time_scale, logarithmic=True),
    "time_per_reward": Measure(
        "time_per_reward_s", "virtual time to finish per usable reward", time_scale, logarithmic=True
    ),
    "won": Measure(
        "time_won", "share of seeds won, by time to finish", _percent, better="more", bounds=(0.0, 100.0)
    ),
    "won_per_reward": Measure(
        "time_per_reward_won",
        "share of seeds won, by time per usable reward",
        _percent,
        better="more",
        bounds=(0.0, 100.0),
    ),
    "accuracy": Measure("greedy_final", "greedy accuracy on the test questions", _plain, better="more"),
    "rewards": Measure(
        "rewards_share",
        "rewards that came, of those wanted",
        _percent,
        better="more",
        bounds=(0.0, 100.0),
    ),
    "wasted": Measure("wasted_share", "wire bytes wasted", _percent, bounds=(0.0, 100.0)),
    "groups_lost": Measure("groups_lost_share", "question groups lost", _percent, bounds=(0.0, 100.0)),
    "bytes": Measure("wire_bytes", "bytes on the wire, both ways", byte_scale, logarithmic=True),
}


def stress_map(sweep: Sweep, name: str) -> Figure | None:
    """The heat maps of one measure of `MEASURES`; None if no run has it."""
    measure = MEASURES[name]
    values = [_value([point], measure) for point in sweep.points]
    known = [value for value in values if value is not None]
    if not known:
        return None
    per_unit, unit = measure.scale(_typical(measure, known))
    norm = _norm(measure, [value / per_unit for value in known])
    panels = sweep.levels(sweep.panels)
    across = min(_MOST_ACROSS, len(panels))
    down = math.ceil(len(panels) / across)
    rows = 5 if sweep.is_random else len(sweep.levels(sweep.y))
    with styled():
        cell_in = _CELL_IN * (1.4 if rows == 1 else 1) + _LINE_IN * _has_p90(sweep, measure)
        height_in = down * (rows * cell_in + _HEAD_IN) + _FOOT_IN
        figure = figure_with_footer(height_in, list(_small_print(sweep, measure)))
        grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        colours = _colours(measure)
        best = {} if sweep.is_random or len(panels) == 1 else _best(sweep, measure, per_unit)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_visible(False)
                continue
            draw = _scatter if sweep.is_random else _cells
            draw(axes, sweep, panels[place], measure, per_unit, norm, colours, best)
            axes.set_title(panels[place], fontsize=8, pad=3)
            if sweep.y is not None and place % across == 0:
                axes.set_ylabel(sweep.label(sweep.y))
            if place + across >= len(panels):
                axes.set_xlabel(sweep.label(sweep.x))
                axes.tick_params(labelbottom=True)
        bar = figure.colorbar(
            ScalarMappable(norm, colours),
            ax=list(grid.flat),
            location="right",
            fraction=0.03,
            pad=0.015,
            aspect=30,
        )
        bar.set_label(unit)
        figure.suptitle(_title(sweep, measure), x=0.005, ha="left", fontsize=8)
        bar.outline.set_visible(False)
        if measure.logarithmic:
            _plain_ticks(bar, norm)
    return figure


def _norm(measure: Measure, values: Sequence[float]) -> Normalize:
    low, high = measure.bounds or (min(values), max(values))
    if measure.logarithmic and low > 0:
        return LogNorm(low, max(high, low * 1.05))
    return Normalize(low, max(high, low + 1e-9))


def _colours(measure: Measure) -> Colormap:
    """Yellow to brown without its palest and darkest ends; dark is worse."""
    whole = colormaps["YlOrBr"]
    steps = [whole(0.03 + 0.85 * step / 255) for step in range(256)]
    return ListedColormap(steps if measure.better == "less" else steps[::-1])


def _plain_ticks(bar: Any, norm: Normalize) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written out."""
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 1.0)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [
        factor * 10.0**power
        for power in powers
        for factor in (1, 2, 5)
        if low <= factor * 10.0**power <= high
    ]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()


def _cells(
    axes: Axes,
    sweep: Sweep,
    panel: str,
    measure: Measure,
    per_unit: float,
    norm: Normalize,
    colours: Colormap,
    best: Mapping[tuple[str, str], str],
) -> None:
    columns, rows = sweep.levels(sweep.x), sweep.levels(sweep.y)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for place, (x, column) in ((y, pair) for y in range(len(rows)) for pair in enumerate(columns)):
        points = _points(sweep, panel, column, rows[place])
        value = _value(points, measure)
        corner = (x - 0.48, place - 0.47)
        if value is None:
            axes.add_patch(
                Rectangle(corner, 0.96, 0.94, facecolor="white", edgecolor=GREY, hatch="////", linewidth=0)
            )
            why = "\n".join([_why_not(points), *_finished(points, measure)])
            words = axes.text(x, place, why, ha="center", va="center", fontsize=5.5)
            words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
            continue
        shade = colours(norm(value / per_unit))
        axes.add_patch(Rectangle(corner, 0.96, 0.94, facecolor=shade, linewidth=0))
        ink = "white" if _luminance(shade) < 0.38 else BLACK
        is_best = _short(value / per_unit) == best.get((column, rows[place]))
        small = [*_p90(sweep, points, measure, per_unit), *_finished(points, measure)]
        axes.text(
            x, place + 0.17 * bool(small), _short(value / per_unit), ha="center", va="center" if small else "center_baseline",
            fontsize=6.5, color=ink, fontweight="bold" if is_best else "normal",
        )  # fmt: skip
        if small:
            axes.text(
                x,
                place - 0.02,
                "\n".join(small),
                ha="center",
                va="top",
                fontsize=5.2,
                color=ink,
                linespacing=1.0,
            )


def _scatter(
    axes: Axes,
    sweep: Sweep,
    panel: str,
    measure: Measure,
    per_unit: float,
    norm: Normalize,
    colours: Colormap,
    best: Mapping[tuple[str, str], str],
) -> None:
    points = [(point, _value([point], measure)) for point in sweep.at(panel)]
    known = [(point, value / per_unit) for point, value in points if value is not None]
    xs = [_place(sweep, sweep.x, point) for point, _ in known]
    ys = [value if sweep.y is None else _place(sweep, sweep.y, point) for point, value in known]
    axes.scatter(
        xs,
        ys,
        c=[value for _, value in known],
        norm=norm,
        cmap=colours,
        s=14,
        linewidths=0.3,
        edgecolors=GREY,
    )
    for axis, lay in ((sweep.x, axes.set_xscale), (sweep.y, axes.set_yscale)):
        if axis is not None and sweep.axes[axis]["scale"] == "log":
            lay("log")
    none = [point for point, value in points if value is None]
    if none and sweep.y is not None:
        axes.scatter(
            [_place(sweep, sweep.x, point) for point in none], [_place(sweep, sweep.y, point) for point in none],
            marker="x", s=14, color=BLACK, linewidths=0.8,
        )  # fmt: skip
    axes.grid(visible=True, color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)


def _place(sweep: Sweep, axis: str, point: Mapping[str, Any]) -> float:
    """Where a point stands on an axis: its number, or the number of its level."""
    level = point["levels"][axis]
    levels = sweep.axes[axis]["levels"]
    return float(level) if levels is None else float(list(levels).index(level))


def _points(sweep: Sweep, panel: str, column: str, row: str) -> list[Mapping[str, Any]]:
    return [
        point
        for point in sweep.at(panel)
        if point["levels"][sweep.x] == column and (sweep.y is None or point["levels"][sweep.y] == row)
    ]


def _value(points: Sequence[Mapping[str, Any]], measure: Measure) -> float | None:
    """What a cell shows: the median of its points' runs, or the mean of its points' means."""
    if measure.is_cost:
        return percentile(_runs(points, measure), 50)
    known = [float(point[measure.key]["mean"]) for point in points if point[measure.key]["mean"] is not None]
    return sum(known) / len(known) if known else None


def _runs(points: Sequence[Mapping[str, Any]], measure: Measure) -> list[float | None]:
    return [value for point in points for value in point[measure.key]["values"]]


def _has_p90(sweep: Sweep, measure: Measure) -> bool:
    """Whether cells have a second line: of a single run there is nothing to say beside what it is."""
    return measure.is_cost and not sweep.is_random and (len(sweep.seeds) > 1 or bool(sweep.averaged))


def _p90(
    sweep: Sweep, points: Sequence[Mapping[str, Any]], measure: Measure, per_unit: float
) -> Iterator[str]:
    if _has_p90(sweep, measure):
        found = percentile(_runs(points, measure), 90)
        yield f"({NOT_REACHED if found is None else _short(found / per_unit)})"


def _finished(points: Sequence[Mapping[str, Any]], measure: Measure) -> Iterator[str]:
    """``2/3`` where only so many of the cell's runs have a value; nothing where all have, or none."""
    runs = sum(sum(point["statuses"].values()) for point in points)
    known = sum(int(point[measure.key]["n"]) for point in points)
    if 0 < known < runs:
        yield f"{known}/{runs}"


def _why_not(points: Sequence[Mapping[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for point in points:
        for status, count in point["statuses"].items():
            counts[status] = counts.get(status, 0) + count
    worst = max(counts, key=lambda status: counts[status], default="")
    return _WORDS.get(worst, "none")


def _best(sweep: Sweep, measure: Measure, per_unit: float) -> dict[tuple[str, str], str]:
    """The best value of all panels at each place, as it is written there; none where all are written alike."""
    choose = min if measure.better == "less" else max
    found: dict[tuple[str, str], str] = {}
    for column in sweep.levels(sweep.x):
        for row in sweep.levels(sweep.y):
            values = [
                _value(_points(sweep, panel, column, row), measure) for panel in sweep.levels(sweep.panels)
            ]
            known = [value / per_unit for value in values if value is not None]
            if len(set(map(_short, known))) > 1:
                found[column, row] = _short(choose(known))
    return found


def _luminance(shade: tuple[float, float, float, float]) -> float:
    """Relative luminance of a colour (WCAG 2.1, without its linearisation: near enough to choose an ink)."""
    return 0.2126 * shade[0] + 0.7152 * shade[1] + 0.0722 * shade[2]


def _typical(measure: Measure, known: Sequence[float]) -> float:
    """The value that the unit is chosen for: where orders of magnitude are shown, the middle one, else the largest."""
    positive = [value for value in known if value > 0]
    if measure.logarithmic and positive:
        return math.sqrt(min(positive) * max(positive))
    return max(known)


def _short(value: float) -> str:
    """Two digits that count, as far as a cell has room."""
    if value >= 9.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.095 else f"{value:.2f}"


def _title(sweep: Sweep, measure: Measure) -> str:
    """What is shown, and as what of how many runs."""
    if _has_p90(sweep, measure):
        runs = math.prod([len(sweep.seeds), *(len(sweep.levels(axis)) for axis in sweep.averaged)])
        of = counted(runs, "run" if sweep.averaged else "seed")
        return f"{measure.title}: median (90th percentile) of {of}"
    is_median = measure.is_cost and len(sweep.seeds) > 1
    return f"{measure.title}: median of {counted(len(sweep.seeds), 'seed')}" if is_median else measure.title


def _small_print(sweep: Sweep, measure: Measure) -> Iterator[str]:
    several = len(sweep.seeds) > 1
    over = named_seeds(sweep.seeds)
    number = "median" if measure.is_cost else "mean"
    if sweep.is_random:
        shown = f"a mark is one random point, {f'the {number} over ' if several else ''}{over}"
        shown += f"; {' and '.join(sweep.averaged)} differ as well" if len(sweep.averaged) > 1 else ""
        shown += f"; {sweep.averaged[0]} differs as well" if len(sweep.averaged) == 1 else ""
    elif sweep.averaged:
        shown = f"{number}s over {' and over '.join([over, *sweep.averaged] if several else sweep.averaged)}"
        shown += "" if several else f", {over}"
    else:
        shown = f"{number}s over {over}" if several else over
    yield (
        f"{sweep.name}: {shown}. Darker is worse."
        + (
            " Bold: best of the panels at this place."
            if sweep.panels is not None and not sweep.is_random
            else ""
        )
    )
    statuses = {status for point in sweep.points for status in point["statuses"]}
    if statuses - {"finished"}:
        yield (
            "Small 2/3: so many of the cell's runs have this number"
            + (
                f"; the others count as more than any other ({NOT_REACHED}: not reached)"
                if measure.is_cost
                else ""
            )
            + ". Hatched: without a number (failed: the run went wrong inside the simulated world; late: its limit of virtual "
            "time came first; refused: before it began); reasons: stress.md."
        )
