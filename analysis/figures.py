"""Figures of the evidence pages, drawn from tables of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from analysis.results import Results, Run
from analysis.tables import SHORT, mean_of, title
from fedsim.config.units import format_bytes
from fedsim.figures.labels import figure_with_footer, method_style
from fedsim.figures.style import GREY, light_grid, new_figure, settle, styled
from fedsim.sweeps.stats import Interval, percentile

_START = ("accuracy", "greedy", "initial")
_LEAST_BYTES = 50 * 2**10
_TICKS_BYTES = (100 * 2**10, 2**20, 10 * 2**20, 100 * 2**20)


def main_figure(skills: Results) -> Figure | None:
    """End accuracy on unseen questions against wire bytes, virtual seconds, and the largest AUC of an attack on rows."""
    quantities = [BOTH_WAYS, VIRTUAL_TIME]
    notes = []
    if any(largest_auc(run) is not None for run in skills.runs):
        quantities.append(Quantity("what an attacker learns [largest AUC]", _learnt, "auc"))
        notes = [
            "AUC .5 is a coin, and also stands where nothing leaves a client; methods that nobody attacked are left "
            "out there."
        ]
    return ends_against(skills, quantities, "greedy accuracy, words never asked", *notes)


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a panel shows ends against: its label, its value for a run, and its scale."""

    label: str
    of: Callable[[Run], float | None]
    scale: str = "linear"


BOTH_WAYS = Quantity("wire, both ways", lambda run: run.wire_bytes, "bytes")
UPLINK = Quantity("uplink, paper's account", lambda run: run.number("bytes", "paper", "uplink"), "bytes")
VIRTUAL_TIME = Quantity("virtual time [s]", lambda run: run.number("virtual_s"), "log")


def _learnt(run: Run) -> float | None:
    """The largest AUC; a coin where nothing leaves a client, None where something does and nobody attacked."""
    return 0.5 if not run.summary["leaves"] else largest_auc(run)


def ends_against(results: Results, quantities: Sequence[Quantity], label: str, *notes: str) -> Figure | None:
    """A panel for each quantity: every method's end accuracy against it; None where no run has an end.

    Args:
        results: the table.
        quantities: one for each panel.
        label: of the accuracy.
        notes: further lines under the panels.
    """
    names = [name for name in results.planned if results.values(name, "end")]
    if not names:
        return None
    places = {name: place for place, name in enumerate(results.planned)}
    with styled():
        said = (
            "Each mark: mean end accuracy with its 95% interval over seeds, at the median of the other quantity. "
            "Dashed: mean start."
        )
        figure = figure_with_footer(3.6, [said, *notes])
        panels = figure.subplots(1, len(quantities), sharey=True)
        starts = results.values(max(names, key=lambda name: len(results.by_name[name])), *_START)
        level = mean_of(starts)["mean"] or 0.0
        for axes, quantity in zip(panels, quantities, strict=True):
            axes.axhline(level, color=GREY, linestyle=(0, (4, 2)), linewidth=0.8, zorder=0.5)
            largest = 0.0
            for name in names:
                found = [quantity.of(run) for run in results.by_name[name].values()]
                x = percentile([one for one in found if one is not None], 50)
                if x is not None:
                    largest = max(largest, x)
                    _mark(axes, x, mean_of(results.values(name, "end")), places[name])
            _scale(axes, quantity, largest)
            light_grid(axes)
        panels[0].set_ylabel(label)
        panels[0].set_ylim(max(0.0, panels[0].get_ylim()[0]), min(1.0, panels[0].get_ylim()[1]))
        handles = [
            axes_line(
                panels[0], places[name], f"{SHORT.get(name, title(name))} ({len(results.by_name[name])})"
            )
            for name in names
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4)
        return settle(figure)


def _scale(axes: Axes, quantity: Quantity, largest: float) -> None:
    axes.set_xlabel(quantity.label)
    if quantity.scale == "bytes":
        ticks = [tick for tick in _TICKS_BYTES if tick <= 2 * largest]
        axes.set_xscale("symlog", linthresh=_LEAST_BYTES)
        axes.set_xticks([0, *ticks], ["0", *(format_bytes(tick).replace(".0", "") for tick in ticks)])
        axes.set_xlim(-_LEAST_BYTES / 4, 2 * max(largest, _LEAST_BYTES))
        axes.minorticks_off()
    elif quantity.scale == "auc":
        axes.set_xlim(0.45, max(0.85, largest + 0.02))
    elif quantity.scale == "log":
        axes.set_xscale("log")
        axes.margins(x=0.1)
        axes.xaxis.set_major_formatter(ScalarFormatter())


def largest_auc(run: Run) -> float | None:
    """The largest AUC of an attack on training rows by what leaves clients; None where none was made."""
    found = [
        attack["result"]["auc"]["value"]
        for attack in (run.leakage or {}).get("attacks", ())
        if attack["target"] == "training row"
        and attack["source"] != "policy"
        and attack["result"] is not None
    ]
    return max(found, default=None)


def error_curve(errors: Results, kinds: Sequence[str], rates: Sequence[str]) -> Figure | None:
    """Gain of every method against the share of errors in the server's corpus."""
    if not errors.runs:
        return None
    with styled():
        figure = new_figure(2.6, 4.6)
        axes = figure.subplots()
        axes.axhline(0, color=GREY, linewidth=0.8)
        for place, kind in enumerate(kinds):
            points = [
                (float(rate), mean_of(errors.values(f"{kind}-{rate}", "gain")))
                for rate in rates
                if errors.values(f"{kind}-{rate}", "gain")
            ]
            style = method_style(place)
            axes.plot(
                [x for x, _ in points],
                [y["mean"] or 0.0 for _, y in points],
                color=style.colour,
                linestyle=style.line,
                label=title(kind),
            )
            for x, y in points:
                _mark(axes, x + place * 0.6 - 1.0, y, place)
        axes.set_xlabel("public answers wrong on purpose [%]")
        axes.set_ylabel("gain in greedy accuracy, test")
        axes.set_xticks([float(rate) for rate in rates])
        light_grid(axes)
        figure.legend(loc="outside upper center", ncols=2)
        return settle(figure)


def dropout_figure(
    results: Results,
    levels: Sequence[str],
    policies: Sequence[str],
    lost: Callable[[Results, str, str], Interval],
) -> Figure | None:
    """Lost share of the gain by level: a panel for independent and for correlated dropout, a line for each policy."""
    kinds = list(dict.fromkeys(level.rpartition("-")[0] for level in levels))
    if not any(lost(results, level, policy)["mean"] is not None for level in levels for policy in policies):
        return None
    with styled():
        figure = new_figure(2.6)
        for axes, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
            for place, policy in enumerate(policies):
                shares = [float(level.rpartition("-")[2]) for level in levels if level.startswith(kind)]
                found = [(x, lost(results, f"{kind}-{x:g}", policy)) for x in shares]
                known = [(x + 0.02 * (place - 1), one) for x, one in found if one["mean"] is not None]
                style = method_style(place)
                axes.plot(
                    [0.0, *(x for x, _ in known)],
                    [0.0, *(one["mean"] or 0.0 for _, one in known)],
                    color=style.colour,
                    label=policy,
                )
                for x, one in known:
                    _mark(axes, x, one, place)
            axes.set_title(kind)
            axes.set_xlabel("tasks given up")
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            light_grid(axes)
        figure.axes[0].set_ylabel("lost share of the gain")
        figure.axes[0].yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(policies)
        )
        return settle(figure)


def axes_line(axes: Axes, place: int, label: str) -> object:
    """What a legend shows for a method."""
    style = method_style(place)
    return axes.plot([], [], color=style.colour, marker=style.marker, linestyle="none", label=label)[0]


def _mark(axes: Axes, x: float, y: Interval, place: int) -> None:
    style = method_style(place)
    if y["low"] is not None and y["high"] is not None:
        axes.plot([x, x], [y["low"], y["high"]], color=style.colour, linewidth=0.9, zorder=2)
    axes.plot([x], [y["mean"] or 0.0], color=style.colour, marker=style.marker, markersize=4.5, zorder=3)
