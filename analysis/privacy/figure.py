"""What a setting gains against what the strongest attack on training rows makes of its runs."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from analysis.finished import Compared
from analysis.privacy.runs import TRAINING_ROW, Leaks, Measured
from fedsim.figures.compare.runs import bounds
from fedsim.figures.labels import Point, figure_with_footer, label_points, method_style
from fedsim.figures.style import GREY, light_grid, settle, styled
from fedsim.sweeps.compare.tables import gain
from fedsim.sweeps.stats import interval


def privacy_map(compared: Compared, leaks: Mapping[str, Leaks]) -> Figure | None:
    """A point for each variant that was attacked and measured; None if there is none."""
    points = []
    for index, (name, runs) in enumerate(compared.summaries.items()):
        gains = interval([gain(run, "pass_at_1") for run in runs])
        told = strongest(leaks[name]) if name in leaks else None
        if told is None or gains["mean"] is None:
            continue
        x, left, right = bounds(told.found)
        y, bottom, top = bounds(gains)
        points.append((Point(x, y, name, method_style(index).colour, (left, right), (bottom, top)), index))
    if not points:
        return None
    with styled():
        figure = figure_with_footer(
            3.2,
            [
                "Across: the highest AUC of any attack on training rows of that variant (0.5: chance); up: gain in pass@1 on "
                "the test questions. Whiskers: 95% intervals, over seeds where there are several, else bootstrap over records. "
                "The highest of several AUCs is a little above what the best attack would show on new runs."
            ],
        )
        axes = figure.subplots()
        for point, index in points:
            axes.plot(point.x_ends, [point.y] * 2, color=point.colour, linewidth=0.8, alpha=0.6)
            axes.plot([point.x] * 2, point.y_ends, color=point.colour, linewidth=0.8, alpha=0.6)
            axes.plot([point.x], [point.y], color=point.colour, marker=method_style(index).marker)
        axes.axvline(0.5, color=GREY, linewidth=0.6, linestyle=(0, (1.0, 2.0)))
        axes.axhline(0.0, color=GREY, linewidth=0.6, linestyle=(0, (1.0, 2.0)))
        axes.margins(0.15)
        axes.set_xlabel("strongest membership attack, AUC")
        axes.set_ylabel("gain, pass@1, test")
        light_grid(axes, "both")
        settle(figure)
        label_points(figure, axes, [point for point, _ in points])
    return figure


def strongest(leaks: Leaks) -> Measured | None:
    """The highest AUC of the attacks on training rows; None if there was none."""
    found = [one.auc for one in leaks.attacks if one.key[2] == TRAINING_ROW and one.auc is not None]
    return max(found, key=lambda one: float(one.found["mean"] or 0.0), default=None)
