"""What a stress sweep says: one tidy table, the points with their intervals, and two pages for people.

    stress.csv   one row per run          why.csv      lost requests per point, cause, phase and device class
    stress.json  one entry per point      domains.csv  groups lost per point and domain
    stress.md    what each setting pays, where it breaks      why.md   why rewards were lost

Means over seeds have 95% Student-t intervals (n = seeds: a run is one observation). Times are of runs that finished.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.comparison import Interval, interval, show
from fedsim.runfolder import write_atomically, write_json
from fedsim.stress_file import Stress, StressRun
from fedsim.stress_rows import Row
from fedsim.sweep import RUNS
from fedsim.units import format_bytes, format_seconds

Runs = Sequence[tuple[StressRun, Row]]

MEASURES = ("time_s", "greedy_final", "rewards_share", "wasted_share", "groups_lost_share", "wire_bytes", "reward_mean",
            "staleness_mean", "energy_j", "wall_s")  # fmt: skip
_MOST_BROKEN = 60  # lines of the table of what broke


@dataclass(frozen=True, slots=True)
class Layout:
    """Which axis is across, which up, and which has a panel for each level; the others are averaged over."""

    x: str
    y: str | None
    panels: str | None


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
        write_atomically(folder / "stress.csv", _csv(_run_rows(runs))),
        write_atomically(folder / "why.csv", _csv(_why_rows(stress, runs))),
        write_atomically(folder / "domains.csv", _csv(_domain_rows(runs))),
        write_json(folder / "stress.json", document(stress, runs)),
        write_atomically(folder / "stress.md", "\n".join(page(stress, runs)).encode()),
        write_atomically(folder / "why.md", "\n".join(why_page(stress, runs)).encode()),
    ]


def document(stress: Stress, runs: Runs) -> dict[str, Any]:
    """``stress.json``: the axes, every point (levels, statuses, reasons, measures), and losses by panel."""
    shape = layout(stress)
    first = runs[0][0].scenario
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
            }
            for name, axis in stress.axes.items()
        },
        "random": stress.random is not None,
        "layout": {"x": shape.x, "y": shape.y, "panels": shape.panels},
        "points": [_point(group) for group in _by_point(runs)],
        "lost": {name: _losses(group) for name, group in _by_panel(stress, runs).items()},
    }


def _point(runs: Runs) -> dict[str, Any]:
    statuses = Counter(row.numbers["status"] for _, row in runs)
    until_s = [row.numbers["virtual_s"] for _, row in runs if row.numbers["status"] == "out_of_time"]
    return {
        "levels": dict(runs[0][0].levels),
        "statuses": dict(sorted(statuses.items())),
        "reasons": sorted({row.numbers["reason"] for _, row in runs} - {""}),
        "out_of_time_s": min(until_s, default=None),
        **{name: interval([measure(row, name) for _, row in runs]) for name in MEASURES},
    }


def measure(row: Row, name: str) -> float | None:
    """One number of a run; ``wire_bytes`` is both directions."""
    if name == "wire_bytes":
        up, down = row.numbers.get("wire_up_bytes"), row.numbers.get("wire_down_bytes")
        return None if up is None or down is None else float(up + down)
    return row.numbers.get(name)


def _losses(runs: Runs) -> dict[str, Any]:
    """Requests asked and lost, and the lost ones by cause, phase and device class; groups by domain."""
    asked: Counter[str] = Counter()
    found: dict[str, Counter[str]] = {"cause": Counter(), "phase": Counter(), "device_class": Counter()}
    for _, row in runs:
        asked.update(row.asked)
        for (cause, _, phase, device_class), count in row.lost.items():
            found["cause"][cause] += count
            found["phase"][phase] += count
            found["device_class"][device_class] += count
    domains: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for _, row in runs:
        for domain, (groups, lost) in row.domains.items():
            domains[domain][0] += groups
            domains[domain][1] += lost
    return {
        "asked": asked.total(),
        "asked_by_class": dict(sorted(asked.items())),
        "lost": found["cause"].total(),
        **{f"by_{name}": dict(counts.most_common()) for name, counts in found.items()},
        "domains": {domain: {"groups": pair[0], "lost": pair[1]} for domain, pair in sorted(domains.items())},
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
        for domain, counts in _losses(group)["domains"].items():
            share = counts["lost"] / counts["groups"]
            yield {
                "point": group[0][0].point,
                **group[0][0].levels,
                "domain": domain,
                **counts,
                "share": share,
            }


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    found = list(rows)
    columns = list(dict.fromkeys(key for row in found for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue().encode()


# ----------------------------------------------------------------------------------------------- pages for people


def page(stress: Stress, runs: Runs) -> Iterator[str]:
    """``stress.md``, line by line."""
    shape = layout(stress)
    statuses = Counter(row.numbers["status"] for _, row in runs)
    counted = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(statuses.items()))
    axes = " x ".join(
        f"{len(axis.names) if axis.names else 'drawn'} {name}" for name, axis in stress.axes.items()
    )
    yield f"# Stress sweep {stress.name}\n"
    yield f"{len(runs)} runs ({axes}, seeds {', '.join(map(str, stress.seeds))}): {counted}.\n"
    paying = shape.panels or shape.y
    if paying is not None and stress.axes[paying].names is not None:
        yield f"## What each {paying} pays\n"
        yield from _paid(paying, _by_level(stress, runs, paying))
    yield "## Where it breaks\n"
    yield from _broken(stress, runs)
    if stress.random is None:
        for name, (title, write) in _GRIDS.items():
            if any(measure(row, name) is not None for _, row in runs):
                yield f"## {title}\n"
                yield from _grid(stress, shape, runs, name, write)


def _paid(axis: str, panels: Mapping[str, Runs]) -> Iterator[str]:
    """One line per level: how much it takes against the first level, at the same point and seed, and what it loses."""
    first_name, first = next(iter(panels.items()))
    has_accuracy = any(measure(row, "greedy_final") is not None for _, row in first)
    head = [
        axis,
        "finished",
        "time, ratio",
        "bytes, ratio",
        "rewards that came",
        "wasted bytes",
        "groups lost",
    ]
    yield _line(head + ["greedy accuracy"] * has_accuracy)
    yield "|---" * (len(head) + has_accuracy) + "|"
    for name, runs in panels.items():
        means = [
            _percent(interval([measure(row, key) for _, row in runs]))
            for key in ("rewards_share", "wasted_share", "groups_lost_share")
        ]
        finished = sum(row.numbers["status"] == "finished" for _, row in runs)
        yield _line(
            [
                name,
                f"{finished} of {len(runs)}",
                *(
                    "1" if name == first_name else show(ratio(runs, first, axis, key))
                    for key in ("time_s", "wire_bytes")
                ),
                *means,
                *([show(interval([measure(row, "greedy_final") for _, row in runs]))] * has_accuracy),
            ]
        )
    yield (
        f"\nRatios are to {first_name} at the same point and seed where both finished: the geometric mean, with its 95% "
        "interval over seeds. The other columns are means over all points; they weigh every point of the grid alike.\n"
    )


def ratio(ours: Runs, theirs: Runs, axis: str, name: str) -> Interval:
    """Geometric mean of our measure over theirs, paired by the other axes' levels and the seed, with an interval over seeds.

    Per seed s, m_s = mean of ln(ours / theirs) over the pairs; the interval is exp(mean m +- t s_m / sqrt(n)).
    """
    other = {_pair_key(run, axis): row for run, row in theirs if row.numbers["status"] == "finished"}
    logs: dict[int, list[float]] = defaultdict(list)
    for run, row in ours:
        twin = other.get(_pair_key(run, axis))
        if twin is None or row.numbers["status"] != "finished":
            continue
        a, b = measure(row, name), measure(twin, name)
        if a and b:
            logs[run.seed].append(math.log(a / b))
    found = interval([sum(values) / len(values) for values in logs.values()])
    powers: Interval = {
        key: None if found[key] is None else math.exp(float(found[key] or 0.0))
        for key in ("mean", "low", "high")
    }
    return powers | {"n": found["n"]}


def _pair_key(run: StressRun, axis: str) -> tuple[object, ...]:
    return (run.seed, *(level for name, level in run.levels.items() if name != axis))


def _broken(stress: Stress, runs: Runs) -> Iterator[str]:
    """Points where a seed did not finish, and why."""
    found = [
        (group, [row.numbers for _, row in group if row.numbers["status"] != "finished"])
        for group in _by_point(runs)
    ]
    broken = [(group, numbers) for group, numbers in found if numbers]
    if not broken:
        yield "Every run finished.\n"
        return
    yield _line([*stress.axes, "seeds", "how", "why"])
    yield "|---" * (len(stress.axes) + 3) + "|"
    for group, numbers in broken[:_MOST_BROKEN]:
        how = ", ".join(sorted({one["status"].replace("_", " ") for one in numbers}))
        why = "; ".join(
            sorted({_short(one["reason"] or f"stopped by {one['stopped_by']}") for one in numbers})
        )
        yield _line([*group[0][0].levels.values(), f"{len(numbers)} of {len(group)}", how, why])
    if len(broken) > _MOST_BROKEN:
        yield f"\n{len(broken) - _MOST_BROKEN} more points stand in stress.csv."
    yield ""


def _short(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _grid(stress: Stress, shape: Layout, runs: Runs, name: str, write: Any) -> Iterator[str]:
    columns = stress.axes[shape.x].names or ()
    side = [axis for axis in (shape.panels, shape.y) if axis is not None]
    yield _line([*side, *(f"{shape.x} {column}" for column in columns)])
    yield "|---" * (len(side) + len(columns)) + "|"
    cells: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for run, row in runs:
        cells[*(run.levels[axis] for axis in side), run.levels[shape.x]].append(row)
    for place in dict.fromkeys(key[:-1] for key in cells):
        yield _line([*place, *(_cell(cells[*place, column], name, write) for column in columns)])
    yield ""


def _cell(rows: Sequence[Row], name: str, write: Any) -> str:
    known = [value for value in (measure(row, name) for row in rows) if value is not None]
    mean = write(sum(known) / len(known)) if known else "-"
    return mean if len(known) == len(rows) else f"{mean} ({len(known)}/{len(rows)})"


def why_page(stress: Stress, runs: Runs) -> Iterator[str]:
    """``why.md``, line by line: lost requests by cause, phase and device class, and groups lost by domain."""
    shape = layout(stress)
    panels = {name: _losses(group) for name, group in _by_panel(stress, runs).items()}
    total = _losses(runs)
    yield f"# Why rewards were lost: {stress.name}\n"
    if not total["asked"]:
        yield "No request for rewards is on record.\n"
        return
    yield (
        f"{total['lost']:,} of {total['asked']:,} requests brought no reward ({total['lost'] / total['asked']:.1%}). Counted "
        "are requests of groups on record, summed over seeds; superfluous ones (over-selected, or the slower of a pair) are in "
        "neither number. Columns are shares of the requests that were asked.\n"
    )
    head = shape.panels or "sweep"
    for part, title in (("cause", "By cause"), ("phase", "By phase"), ("device_class", "By device class")):
        names = list(total[f"by_{part}"])
        yield f"## {title}\n"
        yield _line([head, "asked", "lost", *names])
        yield "|---" * (len(names) + 3) + "|"
        for name, losses in panels.items():
            yield _line([name, f"{losses['asked']:,}", *_shares(losses, part, names)])
        if len(panels) > 1:
            yield _line(["all", f"{total['asked']:,}", *_shares(total, part, names)])
        yield ""
    if "".join(total["by_device_class"]):
        yield "By device class, shares are of the requests asked of that class.\n"
    yield "## Share of groups lost, by domain\n"
    domains = list(total["domains"])
    yield _line([head, *domains])
    yield "|---" * (len(domains) + 1) + "|"
    for name, losses in panels.items():
        yield _line([name, *(_domain_share(losses, domain) for domain in domains)])
    yield ""


def _shares(losses: Mapping[str, Any], part: str, names: Sequence[str]) -> list[str]:
    asked = losses["asked"]
    if not asked:
        return ["-"] * (len(names) + 1)
    of = [losses["asked_by_class"].get(name, 0) if part == "device_class" else asked for name in names]
    counts = [losses[f"by_{part}"].get(name, 0) for name in names]
    shares = [f"{count / base:.1%}" if base else "-" for count, base in zip(counts, of, strict=True)]
    return [f"{losses['lost'] / asked:.1%}", *shares]


def _domain_share(losses: Mapping[str, Any], domain: str) -> str:
    counts = losses["domains"].get(domain)
    return "-" if not counts else f"{counts['lost'] / counts['groups']:.1%}"


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


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _percent(found: Interval) -> str:
    return "" if found["mean"] is None else f"{found['mean']:.1%}"


_GRIDS: dict[str, tuple[str, Any]] = {
    "time_s": ("Time to finish", format_seconds),
    "greedy_final": ("Greedy accuracy on the test questions, at the end", lambda value: f"{value:.3f}"),
    "rewards_share": ("Rewards that came, of those wanted", lambda value: f"{value:.0%}"),
    "wasted_share": ("Wasted bytes, share of the wire's", lambda value: f"{value:.0%}"),
    "wire_bytes": ("Bytes on the wire, both ways", format_bytes),
    "groups_lost_share": ("Groups lost, share", lambda value: f"{value:.0%}"),
}
