"""The section on where not waiting helps, from the tables of the map, of its corners with more steps and of its points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from analysis.schedule_map.tables import AXES, POINT_AXES, ROUNDS, Cell, Place, cells, levels, named, read
from analysis.tables import head, row
from fedsim.errors import DataFileError
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import Interval

FIGURE = "async_map.png"


def lines(runs: Path, points: Path | None = None, long: Path | None = None) -> list[str]:
    """The section, line by line.

    Args:
        runs: table of the map.
        points: of cells of the map with real models, where there are any.
        long: of cells of the map with more steps, where there are any.

    Raises:
        InputError: a table is not what ``tables.collect`` writes, or has cells that the map lacks.
    """
    found = cells(runs, AXES)
    given = [path for path in (runs, points, long) if path is not None]
    made_by = dict.fromkeys(one["commit"] for path in given for one in read(path, ("commit",)))
    return [
        f"Runs are of commit {', '.join(made_by)}.",
        "",
        '## Where "as rewards arrive" helps',
        "",
        *_what(runs, found),
        "",
        f"![Time in rounds over time as rewards arrive]({FIGURE})",
        "",
        *_table(found),
        "",
        *_what_decides(found),
        "",
        *(() if long is None else (*_longer(long, found), "")),
        *(() if points is None else (*_points(points, found), "")),
        "**What this does not show.** Whether a reward that is some steps old is worth as much: staleness is "
        "only counted. One job (texts and billing as assumed), one number of questions under way, devices that "
        "differ in speed alone, are always there and never fail. Nobody sets a deadline, under which rounds "
        "would wait less and lose rewards.",
    ]


def _what(path: Path, found: Mapping[Place, Cell]) -> Iterator[str]:
    clients, spreads, servers = levels(found)
    some = next(iter(found.values())).rounds
    yield (
        f"Timing fidelity: seconds, no learning. Varied: {', '.join(clients)} clients; spread of their speed "
        f"(lognormal sigma) {', '.join(spreads)}; server as fast as {', '.join(servers)} A100; seeds "
        f"{_seeds(path)}. The control is the same scenario in rounds (`{ROUNDS}`) with as many questions under "
        f"way: {some['rewards_used'] / some['updates']:.0f} rewards in each of {some['updates']:.0f} steps, "
        f"{some['rewards_used']:.0f} usable rewards in every run. Two experts a question are drawn at random, so "
        "every device is asked alike; where competence decides, read clients as the competent ones. The ratio is "
        "time per usable reward in rounds over that as rewards arrive, paired by seed (devices, questions and "
        "luck are the same): geometric mean and 95% Student-t interval over seeds. Above 1, not waiting is faster."
    )


def _seeds(path: Path) -> str:
    return ", ".join(dict.fromkeys(one["seed"] for one in read(path, ("seed",))))


def _table(found: Mapping[Place, Cell]) -> Iterator[str]:
    clients, spreads, servers = ([*dict.fromkeys((level[0], level[-1]))] for level in levels(found))
    yield from head(
        *AXES, "server busy", "busiest device busy", "at most by overlap", "ratio", "staleness", "too stale",
        "rewards from the slowest quarter",
    )  # fmt: skip
    for place in ((count, spread, server) for server in servers for count in clients for spread in spreads):
        if place not in found:
            continue
        cell = found[place]
        stale = cell.arrival["groups_too_stale"] / max(1.0, cell.arrival["groups"])
        yield row(
            [
                *place,
                f"{cell.rounds['server_share']:.0%}",
                f"{cell.rounds['busiest_share']:.0%}",
                f"{cell.bound:.2f}",
                show(cell.ratio, digits=2),
                f"{cell.arrival['staleness_mean']:.2f}",
                f"{stale:.1%}",
                f"{cell.rounds['slow_rewards']:.0%}, {cell.arrival['slow_rewards']:.0%}",
            ]
        )
    yield ""
    yield (
        "The corners of the map. Busy: share of the time in rounds in which the server, or the busiest of the "
        "devices, computes. Staleness (policy versions behind, mean) and too stale (share of the groups on "
        "record that were asked in vain): as rewards arrive; in rounds both are 0. Last column: of the used "
        "rewards, in rounds and as they arrive."
    )


def _what_decides(found: Mapping[Place, Cell]) -> Iterator[str]:
    told = [cell for cell in found.values() if cell.is_told_from_one]
    in_order = sorted(found, key=lambda place: found[place].value)
    least, best = in_order[0], in_order[-1]
    reached = [cell.value / cell.bound for cell in found.values()]
    logs = np.log([[cell.value, cell.bound] for cell in found.values()])
    yield (
        f"Of {len(found)} cells not waiting is faster in {sum(cell.value > 1 for cell in told)} and slower in "
        f"{sum(cell.value < 1 for cell in told)}; in {len(found) - len(told)} the interval includes 1. Most: "
        f"{found[best].value:.2f} ({named(AXES, best)}); least: {found[least].value:.2f} ({named(AXES, least)})."
    )
    yield ""
    yield (
        "**What decides it.** In rounds a step takes the server's work and then that of the slowest device, "
        "while all others wait. Without waiting both overlap and a device that is done takes the next question, "
        "but whoever has most work still needs its time: the ratio is at most one over the share of the time in "
        "which the server or the busiest device computes in rounds. Near 1 nothing can be won, because the "
        "server is the bottleneck, or one slow device is: questions that wait for it come to fill all places. "
        "Most is won where neither is busy in rounds: work of both about equal, or many devices of which few are "
        "slow and each is asked rarely."
    )
    yield ""
    above = sum(share > 1 for share in reached)
    longer = [_server_s(cell.arrival) / _server_s(cell.rounds) for cell in found.values()]
    full = sum(cell.arrival["server_share"] >= 0.9 for cell in found.values())
    fit = f"correlate with {np.corrcoef(logs.T)[0, 1]:.2f}, and " if len(found) > 2 else "are close: "
    yield (
        f"How well this predicts the map: the logarithms of ratio and bound {fit}the ratio reaches "
        f"{min(reached):.0%} to {max(reached):.0%} of the bound, {float(np.median(reached)):.0%} in the median. "
        "Below it, because the server's work is not the same: without rounds it samples in many small batches, each as "
        f"long as its longest answer, and computes {min(longer):.1f} to {max(longer):.1f} times as long per reward; in "
        f"{full} cells it is busy for 90% of the time or more. Above it in {above} {'cell' if above == 1 else 'cells'}: "
        "more than overlap can give, so other rewards are used: questions of slow devices come too late, or are not "
        "waited for at the run's end."
    )


def _server_s(runs: Mapping[str, float]) -> float:
    """Seconds in which the server computes, per usable reward."""
    return runs["server_share"] * runs["time_per_reward_s"]


def _longer(path: Path, found: Mapping[Place, Cell]) -> Iterator[str]:
    yield (
        "**The run's end.** As rewards arrive, the last questions under way are not waited for, and in a short "
        "run of few requests per device that is where a slow device's questions are. The same cells with more "
        f"steps (seeds {_seeds(path)}):"
    )
    yield ""
    yield from head(*AXES, "steps", "ratio", "steps", "ratio", "at most by overlap")
    for place, cell in cells(path, AXES).items():
        if place not in found:
            raise DataFileError(f"{path}: {named(AXES, place)} is no cell of the map")
        pair = [
            part
            for one in (found[place], cell)
            for part in (f"{one.rounds['updates']:.0f}", show(one.ratio, digits=2))
        ]
        yield row([*place, *pair, f"{cell.bound:.2f}"])


def _points(path: Path, found: Mapping[Place, Cell]) -> Iterator[str]:
    measured = cells(path, POINT_AXES)
    names, choices, _ = levels(measured)
    yield "### Two points with real models"
    yield ""
    yield (
        "Devices, server, billing, texts and schedules of the map, but real models sample, score and learn "
        f"(seeds {_seeds(path)}). Map: the cell above. Predicted: this very job in timing fidelity. Agree: the "
        "intervals overlap."
    )
    yield ""
    yield from head(
        *AXES, "experts", "map", "predicted", "measured", "agree", "server's work per group", "device's per request",
        "accuracy ahead",
    )  # fmt: skip
    for name, experts in ((name, experts) for name in names for experts in choices):
        place = tuple(name.split("_"))
        predicted, real = (measured.get((name, experts, models)) for models in ("timing", "real"))
        if predicted is None or real is None or place not in found:
            raise DataFileError(
                f"{path}: cell {name}, experts {experts} must have runs of models timing and real, and be a cell "
                "of the map"
            )
        yield row(
            [
                *place,
                experts,
                show(found[place].ratio, digits=2) if experts == "random" else "",
                show(predicted.ratio, digits=2),
                show(real.ratio, digits=2),
                "yes" if _overlap(predicted.ratio, real.ratio) else "no",
                f"{_work(real, 'server_flop_per_group') / _work(predicted, 'server_flop_per_group') - 1:+.0%}",
                f"{_work(real, 'flop_per_request') / _work(predicted, 'flop_per_request') - 1:+.0%}",
                show(real.ahead, signed=True),
            ]
        )
    yield ""
    yield (
        "Work: billed FLOP of real models' texts against those of the stand-ins (equal texts have equal lengths, "
        "and real candidates are often equal). Accuracy ahead: greedy accuracy on the validation questions as "
        "rewards arrive less that in rounds, at the last instant that both have reached; so short a job is no "
        "measure of learning."
    )


def _work(cell: Cell, column: str) -> float:
    return (cell.rounds[column] + cell.arrival[column]) / 2


def _overlap(a: Interval, b: Interval) -> bool:
    """Whether two intervals overlap; False where one is not known."""
    if a["low"] is None or a["high"] is None or b["low"] is None or b["high"] is None:
        return False
    return a["low"] <= b["high"] and b["low"] <= a["high"]
