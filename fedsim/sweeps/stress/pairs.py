"""What is measured of a sweep's runs, and levels of one axis held against each other at the same point and seed.

``MEANS`` are averaged over runs. ``COSTS`` of a run are what it took to finish; they are heavy-tailed (one seed in three may
take twenty times as long), so they are shown as quantiles (`fedsim.sweeps.stats`), in which a run that did not finish
counts as more than any other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fedsim.sweeps.stats import Interval, interval
from fedsim.sweeps.stress.file import StressRun
from fedsim.sweeps.stress.rows import Row

Runs = Sequence[tuple[StressRun, Row]]

COSTS = ("time_s", "time_per_reward_s", "wire_bytes", "energy_j")
MEANS = (
    "greedy_final",
    "rewards_share",
    "wasted_share",
    "groups_lost_share",
    "reward_mean",
    "staleness_mean",
    "wall_s",
)
WON = {"time_won": "time_s", "time_per_reward_won": "time_per_reward_s"}
"""Shares of wins, and the cost that decides each."""


def measure(row: Row, name: str) -> float | None:
    """One number of a run; ``wire_bytes`` is both directions, and what a run costs is known only if it finished."""
    if name in COSTS and row.numbers["status"] != "finished":
        return None
    if name == "wire_bytes":
        up, down = row.numbers.get("wire_up_bytes"), row.numbers.get("wire_down_bytes")
        return None if up is None or down is None else float(up + down)
    return row.numbers.get(name)


def ratio(ours: Runs, theirs: Runs, axis: str, name: str) -> Interval:
    """Geometric mean of our cost over theirs, paired by the other axes' levels and the seed, with an interval over seeds.

    Per seed s, m_s = mean of ln(ours / theirs) over the pairs of which both finished; the interval is
    exp(mean m +- t s_m / sqrt(n)).
    """
    other = {_place(run, axis): measure(row, name) for run, row in theirs}
    logs: dict[int, list[float]] = defaultdict(list)
    for run, row in ours:
        a, b = measure(row, name), other.get(_place(run, axis))
        if a and b:
            logs[run.seed].append(math.log(a / b))
    found = interval([sum(values) / len(values) for values in logs.values()])
    powers: Interval = {
        key: None if found[key] is None else math.exp(float(found[key] or 0.0))
        for key in ("mean", "low", "high")
    }
    return powers | {"n": found["n"]}


def wins(runs: Runs, axis: str, name: str) -> dict[tuple[int, int], float]:
    """Each run's part of a win, by its point and seed: among the levels of an axis the smallest cost wins.

    Runs compete that differ in this axis alone (same other levels, same seed). k runs with the same smallest cost have 1/k
    each, and a run that did not finish has 0. Where no level finished nobody competes, and those runs are left out.
    """
    places: dict[tuple[object, ...], list[tuple[StressRun, float | None]]] = defaultdict(list)
    for run, row in runs:
        places[_place(run, axis)].append((run, measure(row, name)))
    found: dict[tuple[int, int], float] = {}
    for competing in places.values():
        known = [value for _, value in competing if value is not None]
        if known:
            best = min(known)
            found |= {(run.point, run.seed): (value == best) / known.count(best) for run, value in competing}
    return found


def share_won(runs: Runs, parts: Mapping[tuple[int, int], float]) -> Interval:
    """Mean part of a win (`wins`) over those of some runs that competed; ``n`` of them."""
    own = [parts[run.point, run.seed] for run, _ in runs if (run.point, run.seed) in parts]
    return {"mean": sum(own) / len(own) if own else None, "n": len(own)}


def _place(run: StressRun, axis: str) -> tuple[object, ...]:
    return (run.seed, *(level for name, level in run.levels.items() if name != axis))
