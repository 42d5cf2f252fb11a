"""What a stress sweep says: one tidy table, the points with their numbers over seeds, and two pages for people.

    stress.csv   one row per run          why.csv      lost requests per point, cause, phase and device class
    stress.json  one entry per point      domains.csv  groups lost per point and domain
    stress.md    what each setting pays, where it breaks      why.md   why rewards were lost

What a run costs (time, time per usable reward, bytes, energy) is heavy-tailed, so it stands as median and 90th percentile over
seeds, a run that did not finish counting as more than any other (`fedsim.sweeps.stats` has the definition). Shares,
accuracies and the like are means over seeds with 95% Student-t intervals (n = seeds: a run is one observation). A level *wins*
at a point and seed if no other level of its axis costs less there (`fedsim.sweeps.stress.pairs.wins`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedsim.config.csv_files import csv_records
from fedsim.config.units import format_bytes, format_seconds
from fedsim.records.run_folder import write_atomically, write_json
from fedsim.records.summary import TIMING
from fedsim.sweeps.compare.run import RUNS
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import NOT_REACHED, QUANTILES, Interval, interval, quantiles, show_quantiles
from fedsim.sweeps.stress.file import Stress, StressRun
from fedsim.sweeps.stress.losses import counted, line, losses, why_lines
from fedsim.sweeps.stress.pairs import COSTS, MEANS, WON, Runs, measure, ratio, share_won, wins
from fedsim.sweeps.stress.rows import Row

Parts = Mapping[str, Mapping[tuple[int, int], float]]
"""By the names of ``WON``, every run's part of a win by its point and seed."""

Write = Callable[[float], str]

_MOST_BROKEN = 60  # lines of the table of what broke


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axis is across, which up, and which has a panel for each level; the others are pooled."""

    x: str
    y: str | None
    panels: str | None

    @property
    def paying(self) -> str | None:
        """The axis whose levels are held against each other."""
        return self.panels or self.y


def layout(stress: Stress) -> Layout:
    """The axes in their order; in a random sweep ranges go across and up, and the first list of levels has the panels."""
    names = list(stress.axes)
    if stress.random is not None:
        names.sort(key=lambda name: stress.axes[name].names is not None)  # stable: ranges first, in order
        lists = [name for name in names[1:] if stress.axes[name].names is not None]
        across = [name for name in names if name not in lists[:1]][:2]
        return Layout(across[0], across[1] if len(across) > 1 else None, lists[0] if lists else None)
    padded: list[str | None] = [*names, None, None]
    return Layout(names[0], padded[1], padded[2])


def write_stress(folder: Path, stress: Stress, runs: Runs) -> list[Path]:
    """Write every table of a sweep into its folder."""
    return [
        write_atomically(folder / "stress.csv", csv_records(_run_rows(runs))),
        write_atomically(folder / "why.csv", csv_records(_why_rows(stress, runs))),
        write_atomically(folder / "domains.csv", csv_records(_domain_rows(runs))),
        write_json(folder / "stress.json", document(stress, runs)),
        write_atomically(folder / "stress.md", "\n".join(page(stress, runs)).encode()),
        write_atomically(folder / "why.md", "\n".join(why_page(stress, runs)).encode()),
    ]


def document(stress: Stress, runs: Runs) -> dict[str, Any]:
    """``stress.json``: the axes, every point (levels, statuses, reasons, numbers), and losses by panel.

    Of a point, each of ``MEANS`` is an interval over seeds. Each of ``COSTS`` has ``median`` and ``p90`` (null: not reached),
    ``values`` (by seed; null: did not finish) and ``n``, how many are known. Each of ``WON`` has the share of wins as ``mean``
    and, as ``n``, in how many seeds some level finished (0 in a random sweep, whose points have no pairs).
    """
    shape = layout(stress)
    first = runs[0][0].scenario
    parts = _parts(stress, runs)
    return {
        "name": stress.name,
        "fidelity": first.fidelity,
        "protocol": first.protocol.name,
        "seeds": list(stress.seeds),
        "axes": {
            name: {
                "key": axis.key,
                "levels": axis.names,
                "low": axis.low,
                "high": axis.high,
                "scale": axis.scale,
                "unit": axis.unit,
            }
            for name, axis in stress.axes.items()
        },
        "random": stress.random is not None,
        "layout": {"x": shape.x, "y": shape.y, "panels": shape.panels},
        "points": [_point(group, parts) for group in _by_point(runs)],
        "lost": {name: losses([row for _, row in group]) for name, group in _by_panel(stress, runs).items()},
    }


def _point(runs: Runs, parts: Parts) -> dict[str, Any]:
    statuses = Counter(row.numbers["status"] for _, row in runs)
    until_s = [row.numbers["virtual_s"] for _, row in runs if row.numbers["status"] == "out_of_time"]
    return {
        "levels": dict(runs[0][0].levels),
        "statuses": dict(sorted(statuses.items())),
        "reasons": sorted({row.numbers["reason"] for _, row in runs} - {""}),
        "out_of_time_s": min(until_s, default=None),
        **{name: _cost(_values(runs, name)) for name in COSTS},
        **{name: interval(_values(runs, name)) for name in MEANS},
        **{name: share_won(runs, parts[name]) for name in WON},
    }


def _cost(values: Sequence[float | None]) -> dict[str, Any]:
    return quantiles(values) | {"values": values, "n": sum(value is not None for value in values)}


def _values(runs: Runs, name: str) -> list[float | None]:
    return [measure(row, name) for _, row in runs]


def _parts(stress: Stress, runs: Runs) -> dict[str, dict[tuple[int, int], float]]:
    """Every run's part of a win, by the names of ``WON``; none where points have no pairs."""
    axis = layout(stress).paying
    return {
        name: {} if axis is None or stress.random is not None else wins(runs, axis, cost)
        for name, cost in WON.items()
    }


# ----------------------------------------------------------------------------------------------------- tidy tables


def _run_rows(runs: Runs) -> Iterator[dict[str, Any]]:
    for run, row in runs:
        yield {
            "point": run.point,
            **run.levels,
            "seed": run.seed,
            **row.numbers,
            "folder": f"{RUNS}/{run.key}",
        }


def _why_rows(stress: Stress, runs: Runs) -> Iterator[dict[str, Any]]:
    """Every point's lost requests, summed over seeds; ``share`` is of the requests that the point asked of that class."""
    for group in _by_point(runs):
        asked: Counter[str] = Counter()
        lost: Counter[tuple[str, str, str, str]] = Counter()
        for _, row in group:
            asked.update(row.asked)
            lost.update(row.lost)
        for (cause, status, phase, device_class), count in sorted(lost.items()):
            yield {
                "point": group[0][0].point,
                **group[0][0].levels,
                "cause": cause,
                "status": status,
                "phase": phase,
                "device_class": device_class,
                "lost": count,
                "asked": asked[device_class],
                "share": count / asked[device_class],
            }


def _domain_rows(runs: Runs) -> Iterator[dict[str, Any]]:
    for group in _by_point(runs):
        for domain, counts in losses([row for _, row in group])["domains"].items():
            share = counts["lost"] / counts["groups"]
            yield {
                "point": group[0][0].point,
                **group[0][0].levels,
                "domain": domain,
                **counts,
                "share": share,
            }


# ----------------------------------------------------------------------------------------------- pages for people


def page(stress: Stress, runs: Runs) -> Iterator[str]:
    """``stress.md``, line by line."""
    shape = layout(stress)
    statuses = Counter(row.numbers["status"] for _, row in runs)
    endings = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(statuses.items()))
    axes = " x ".join(f"{len(axis.names or ())} {name}" for name, axis in stress.axes.items())
    if stress.random is not None:
        axes = f"{counted(stress.random.runs, 'random point')} of {', '.join(stress.axes)}"
    yield f"# Stress sweep {stress.name}\n"
    yield f"{counted(len(runs), 'run')} ({axes}, {named_seeds(stress.seeds)}): {endings}.\n"
    if runs[0][0].scenario.fidelity == "timing":
        yield f"Fidelity {TIMING}.\n"
    parts = _parts(stress, runs)
    paying = shape.paying
    if paying is not None and stress.axes[paying].names is not None:
        yield f"## What each {paying} pays\n"
        yield from _paid(paying, _by_level(stress, runs, paying), parts, has_pairs=stress.random is None)
    yield "## Where it breaks\n"
    yield from _broken(stress, runs)
    if stress.random is None:
        yield from _grids(stress, shape, runs, parts)


def _paid(
    axis: str,
    levels: Mapping[str, Runs],
    parts: Parts,
    *,
    has_pairs: bool,
) -> Iterator[str]:
    """One line per level: what it costs, how often it wins, its costs against the first level's, and what it loses.

    Points drawn at random have no pairs: no two differ in one axis alone.
    """
    first_name, first = next(iter(levels.items()))
    has_accuracy = any(value is not None for value in _values(first, "greedy_final"))
    head = [
        axis,
        "finished",
        "time",
        "time per usable reward",
        *(["won, time", "won, time per reward", "time, ratio", "bytes, ratio"] * has_pairs),
        "rewards that came",
        "wasted bytes",
        "groups lost",
    ]
    yield line(head + ["greedy accuracy"] * has_accuracy)
    yield "|---" * (len(head) + has_accuracy) + "|"
    for name, runs in levels.items():
        finished = sum(row.numbers["status"] == "finished" for _, row in runs)
        pairs = [
            *(_percent(share_won(runs, parts[won])) for won in WON),
            *("1" if name == first_name else show(ratio(runs, first, axis, key)) for key in _RATIOS),
        ]
        yield line(
            [
                name,
                f"{finished} of {len(runs)}",
                *(show_quantiles(_values(runs, key), format_seconds) for key in WON.values()),
                *(pairs * has_pairs),
                *(_percent(interval(_values(runs, key))) for key in _SHARES),
                *([show(interval(_values(runs, "greedy_final")))] * has_accuracy),
            ]
        )
    yield f"\nTimes, of all runs of a line: {_QUANTILES}\n"
    if not has_pairs:
        yield (
            f"The other columns are means over the runs of that {axis}, each of which weighs alike. Its points are its own "
            "draws, so a difference may also come from the other axes.\n"
        )
        return
    yield (
        f"Won: share of points and seeds (where some {axis} finished) at which no other {axis} was faster; equals share a win. "
        f"Ratios are to {first_name} at the same point and seed where both finished: the geometric mean, with its 95% "
        "interval over seeds. The other columns are means over all points; they weigh every point of the grid alike.\n"
    )


def _broken(stress: Stress, runs: Runs) -> Iterator[str]:
    """What ended the runs that did not finish, how often, and at which points."""
    found = [
        (group, [row.numbers for _, row in group if row.numbers["status"] != "finished"])
        for group in _by_point(runs)
    ]
    broken = [(group, numbers) for group, numbers in found if numbers]
    if not broken:
        yield "Every run finished.\n"
        return
    kinds: dict[tuple[str, str], list[tuple[StressRun, Row]]] = defaultdict(list)
    for run, row in runs:
        if row.numbers["status"] != "finished":
            kinds[_way(row.numbers)].append((run, row))
    marks = {kind: f"{place}" for place, kind in enumerate(sorted(kinds), 1)}
    yield line(["", "how", "why", "runs", "one of them"])
    yield "|---" * 5 + "|"
    for kind in sorted(kinds):
        why = _short(_common([_reason(row.numbers) for _, row in kinds[kind]]))
        yield line([marks[kind], kind[0], why, len(kinds[kind]), f"{RUNS}/{kinds[kind][0][0].key}"])
    yield "\nNumbers that differ between the runs of a line are left out (…); the whole message stands in the run's folder.\n"
    yield line([*stress.axes, "seeds", "how", "why"])
    yield "|---" * (len(stress.axes) + 3) + "|"
    for group, numbers in broken[:_MOST_BROKEN]:
        ways = sorted({_way(one) for one in numbers})
        how = ", ".join(dict.fromkeys(status for status, _ in ways))
        yield line(
            [
                *group[0][0].levels.values(),
                f"{len(numbers)} of {len(group)}",
                how,
                ", ".join(f"({marks[way]})" for way in ways),
            ]
        )
    if len(broken) > _MOST_BROKEN:
        yield f"\n{counted(len(broken) - _MOST_BROKEN, 'more point')} in stress.csv."
    yield ""


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def _reason(numbers: Mapping[str, Any]) -> str:
    return str(numbers["reason"] or f"stopped by {numbers['stopped_by']}")


def _way(numbers: Mapping[str, Any]) -> tuple[str, str]:
    """How a run ended, and the reason without its numbers: runs that agree in both ended in the same way."""
    return str(numbers["status"]).replace("_", " "), _NUMBER.sub("…", _reason(numbers))


def _common(reasons: Sequence[str]) -> str:
    """One text for reasons that differ in their numbers only; a number that all share stays."""
    found = [_NUMBER.findall(reason) for reason in reasons]
    shared = iter(same[0] if len(set(same)) == 1 else "…" for same in zip(*found, strict=True))
    return _NUMBER.sub(lambda _: next(shared), reasons[0])


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _grids(stress: Stress, shape: Layout, runs: Runs, parts: Parts) -> Iterator[str]:
    for name, (title, write) in _GRIDS.items():
        if all(value is None for value in _values(runs, name)):
            continue
        yield f"## {title}\n"
        if name == COSTS[0]:  # no other cost is known where this is not
            yield f"Times and bytes, here and below: {_QUANTILES}\n"
        yield from _grid(
            stress, shape, runs, partial(_cost_cell if name in COSTS else _mean_cell, name, write)
        )
    for name, title in _WON_GRIDS.items():
        if parts[name]:
            yield f"## {title}\n"
            yield from _grid(stress, shape, runs, partial(_won_cell, parts[name]))


def _grid(stress: Stress, shape: Layout, runs: Runs, write: Callable[[Runs], str]) -> Iterator[str]:
    columns = stress.axes[shape.x].names or ()
    side = [axis for axis in (shape.panels, shape.y) if axis is not None]
    yield line([*side, *(f"{shape.x} {column}" for column in columns)])
    yield "|---" * (len(side) + len(columns)) + "|"
    cells: dict[tuple[str, ...], list[tuple[StressRun, Row]]] = defaultdict(list)
    for run, row in runs:
        cells[*(run.levels[axis] for axis in side), run.levels[shape.x]].append((run, row))
    for place in dict.fromkeys(key[:-1] for key in cells):
        yield line([*place, *(write(cells[*place, column]) for column in columns)])
    yield ""


def _cost_cell(name: str, write: Write, runs: Runs) -> str:
    values = _values(runs, name)
    return show_quantiles(values, write) + _known(values)


def _mean_cell(name: str, write: Write, runs: Runs) -> str:
    values = _values(runs, name)
    mean = interval(values)["mean"]
    return (NOT_REACHED if mean is None else write(mean)) + _known(values)


def _won_cell(parts: Mapping[tuple[int, int], float], runs: Runs) -> str:
    return _percent(share_won(runs, parts)) or NOT_REACHED


def _known(values: Sequence[float | None]) -> str:
    """`` 1/2`` where only so many of the runs have a value."""
    known = sum(value is not None for value in values)
    return "" if known == len(values) else f" {known}/{len(values)}"


def why_page(stress: Stress, runs: Runs) -> Iterator[str]:
    """``why.md``, line by line: lost requests by cause, phase and device class, and groups lost by domain."""
    yield f"# Why rewards were lost: {stress.name}\n"
    panels = {name: [row for _, row in group] for name, group in _by_panel(stress, runs).items()}
    yield from why_lines(layout(stress).panels or "sweep", panels)


# ----------------------------------------------------------------------------------------------------------- shared


def _by_point(runs: Runs) -> list[Runs]:
    found: dict[int, list[tuple[StressRun, Row]]] = defaultdict(list)
    for run, row in runs:
        found[run.point].append((run, row))
    return list(found.values())


def _by_panel(stress: Stress, runs: Runs) -> dict[str, Runs]:
    """Runs by level of the panels' axis; all together where there is none."""
    axis = layout(stress).panels
    return {"all": list(runs)} if axis is None else _by_level(stress, runs, axis)


def _by_level(stress: Stress, runs: Runs, axis: str) -> dict[str, Runs]:
    """Runs by an axis's levels, in their order; a random sweep may have drawn none of a level."""
    found = {
        name: [pair for pair in runs if pair[0].levels[axis] == name]
        for name in stress.axes[axis].names or ()
    }
    return {name: group for name, group in found.items() if group}


def named_seeds(seeds: Sequence[int], colon: str = "") -> str:
    """``seed 0``, ``seeds 0, 1``, ``seeds 0 to 19``."""
    in_a_row = len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    listed = f"{seeds[0]} to {seeds[-1]}" if in_a_row else ", ".join(map(str, seeds))
    return f"seed{'' if len(seeds) == 1 else 's'}{colon} {listed}"


def _percent(found: Interval) -> str:
    return "" if found["mean"] is None else f"{found['mean']:.1%}"


_QUANTILES = (
    f"{QUANTILES} A run that did not finish counts as more than any other; {NOT_REACHED}: not reached; 1/2: so many of the "
    "cell's runs finished."
)
_RATIOS = ("time_s", "wire_bytes")
_SHARES = ("rewards_share", "wasted_share", "groups_lost_share")
_GRIDS: dict[str, tuple[str, Write]] = {
    "time_s": ("Time to finish", format_seconds),
    "time_per_reward_s": ("Time to finish per usable reward", format_seconds),
    "greedy_final": ("Greedy accuracy on the test questions, at the end", lambda value: f"{value:.3f}"),
    "rewards_share": ("Rewards that came, of those wanted", lambda value: f"{value:.0%}"),
    "wasted_share": ("Wasted bytes, share of the wire's", lambda value: f"{value:.0%}"),
    "wire_bytes": ("Bytes on the wire, both ways", format_bytes),
    "groups_lost_share": ("Groups lost, share", lambda value: f"{value:.0%}"),
}
_WON_GRIDS = {
    "time_won": "Share of seeds won, by time to finish",
    "time_per_reward_won": "Share of seeds won, by time per usable reward",
}
