"""A sweep over schedules as a table of one row per run, and such a table as cells that hold both schedules.

    ratio = time per usable reward in rounds (barrier) / the same as rewards arrive (group), paired by seed

What overlap alone can give is bounded. In rounds everybody waits for everybody: in T seconds the server is busy u_s T, and the
busiest device u_d T. Without waiting the same work still takes whoever has most of it that long, so

    ratio <= 1 / max(u_s, u_d)

A ratio above it comes from less work, not from overlap: the rewards used are others, those of faster devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.config.csv_files import csv_records, read_csv_records
from fedsim.errors import DataFileError
from fedsim.records.looks import looks
from fedsim.records.rows import SERVER_ID
from fedsim.records.run import Run, load
from fedsim.records.run_folder import write_atomically
from fedsim.sweeps.stats import Interval, interval

ROUNDS, ARRIVAL = "barrier", "group"
AXES = ("clients", "spread", "server")
POINT_AXES = ("cell", "experts", "models")
"""Of ``scenarios/async/map_points.yaml``; a cell is named by its levels of ``AXES``, joined by ``_``."""

_OF_SWEEP = ("time_per_reward_s", "rewards_used", "updates", "groups", "groups_too_stale", "staleness_mean")
_OF_RUN = ("server_share", "busiest_share", "slow_rewards", "server_flop_per_group", "flop_per_request")
_DIGITS = 6  # significant ones of what is kept

Place = tuple[str, ...]


def collect(sweep: Path, table: Path) -> str:
    """Write what is read of a finished sweep as a table, one row per run.

    Raises:
        InputError: there is no such sweep, or a run of it did not finish.
    """
    rows = read(sweep / "stress.csv", ("point", "seed", "status", "folder", *_OF_SWEEP))
    columns = [*rows[0]]
    axes = columns[columns.index("point") + 1 : columns.index("seed")]
    kept = [
        {name: one[name] for name in (*axes, "seed")}
        | {name: _short(float(one[name])) for name in _OF_SWEEP}
        | _of_run(load(sweep / one["folder"]))
        for one in rows
    ]
    write_atomically(table, csv_records(kept))
    return f"{table}: {len(kept)} runs"


def read(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a table.

    Raises:
        DataFileError: it cannot be read, has no row, lacks a column, or a run in it did not finish.
    """
    try:
        rows = read_csv_records(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path} cannot be read ({error})") from None
    missing = [name for name in ("time_per_reward_s", *needed) if not rows or name not in rows[0]]
    if missing:
        raise DataFileError(f"{path}:1: the column {missing[0]} is missing, or there is no row")
    for line, one in enumerate(rows, 2):
        if one.get("status", "finished") != "finished" or not one["time_per_reward_s"]:
            raise DataFileError(f"{path}:{line}: this run did not finish; the map is read from whole sweeps")
    return rows


def _of_run(run: Run) -> dict[str, str]:
    """What a table keeps of a run's records.

    ``server_share`` and ``busiest_share``: of the run's time, in which the server and the busiest device compute.
    ``slow_rewards``: of the rewards used, those from the slowest quarter of the devices (by the speed at which each computed).
    ``looks``: greedy accuracy on the validation questions, ``instant:value``.
    """
    import polars as pl

    end_s = run.summary["virtual_s"]
    until_s = pl.min_horizontal("end_at_s", pl.lit(end_s))  # the last requests end after the run
    computes = run.records["computes"].filter(pl.col("start_at_s") < end_s)
    spent = computes.group_by("client_id").agg(
        busy_s=(until_s - pl.col("start_at_s")).sum(),
        speed=pl.col("flop").sum() / (pl.col("end_at_s") - pl.col("start_at_s")).sum(),
        flop=pl.col("flop").sum(),
        count=pl.len(),
    )
    server, devices = spent.filter(client_id=SERVER_ID), spent.filter(pl.col("client_id") != SERVER_ID)
    slowest = devices.sort("speed", "client_id")["client_id"].head(math.ceil(devices.height / 4)).to_list()
    groups, outcomes = run.records["groups"], run.records["outcomes"]
    trained = groups.filter(fate="trained")["draw"].unique().to_list()
    used = outcomes.filter(pl.col("status") == "ok", pl.col("subject").is_in(trained))["client_id"].to_list()
    numbers = (
        server["busy_s"].sum() / end_s,
        max(devices["busy_s"].to_list(), default=0.0) / end_s,
        sum(client in slowest for client in used) / max(1, len(used)),
        sum(server["flop"].to_list()) / max(1, groups.height),
        sum(devices["flop"].to_list()) / max(1, sum(devices["count"].to_list())),
    )
    seen = " ".join(f"{_short(look.virtual_s)}:{_short(look.value)}" for look in looks(run))
    kept = dict(zip(_OF_RUN, map(_short, numbers), strict=True))
    return kept | {"looks": seen, "commit": (run.manifest.get("git_commit") or "unknown")[:10]}


def _short(value: float) -> str:
    return f"{value:.{_DIGITS}g}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a map.

    Attributes:
        ratio: geometric mean over seeds, with its 95% interval.
        rounds: means of the runs in rounds, by column.
        arrival: means of the runs as rewards arrive, by column.
        ahead: accuracy as rewards arrive less that in rounds, at the last instant that both have reached.
    """

    ratio: Interval
    rounds: Mapping[str, float]
    arrival: Mapping[str, float]
    ahead: Interval

    @property
    def value(self) -> float:
        """The ratio."""
        return float(self.ratio["mean"] or 0.0)

    @property
    def bound(self) -> float:
        """What overlap alone can give."""
        return 1 / max(self.rounds["server_share"], self.rounds["busiest_share"])

    @property
    def is_told_from_one(self) -> bool:
        """Whether the ratio's interval is known and excludes 1."""
        low, high = self.ratio["low"], self.ratio["high"]
        return low is not None and high is not None and not low <= 1 <= high


def cells(path: Path, axes: Sequence[str]) -> dict[Place, Cell]:
    """The cells of a table, by their levels of the axes.

    Raises:
        DataFileError: the table is not what `collect` writes, or a run has no partner at its place and seed.
    """
    found: dict[Place, dict[str, dict[str, Mapping[str, str]]]] = {}
    for one in read(path, (*axes, "schedule", "seed", *_OF_SWEEP, *_OF_RUN, "looks", "commit")):
        place = tuple(one[name] for name in axes)
        runs = found.setdefault(place, {}).setdefault(one["seed"], {})
        if runs.setdefault(one["schedule"], one) is not one:
            raise DataFileError(
                f"{path}: {named(axes, place)}, seed {one['seed']} has two runs of {one['schedule']}"
            )
    for place, seeds in found.items():
        for seed, runs in seeds.items():
            if set(runs) != {ROUNDS, ARRIVAL}:
                raise DataFileError(
                    f"{path}: {named(axes, place)}, seed {seed} has {' and '.join(sorted(runs))}; "
                    f"must be one run of {ROUNDS} and one of {ARRIVAL}"
                )
    return {place: _cell([*seeds.values()]) for place, seeds in found.items()}


def named(axes: Sequence[str], place: Place) -> str:
    """A place in words: ``clients 8, spread 0``."""
    return ", ".join(f"{name} {level}" for name, level in zip(axes, place, strict=True))


def levels(found: Iterable[Place]) -> list[list[str]]:
    """The levels of every axis, in the order in which places first have them."""
    return [[*dict.fromkeys(column)] for column in zip(*found, strict=True)]


def _cell(pairs: Sequence[Mapping[str, Mapping[str, str]]]) -> Cell:
    rounds, arrival = ([pair[schedule] for pair in pairs] for schedule in (ROUNDS, ARRIVAL))
    logs = interval(
        [
            math.log(float(waits["time_per_reward_s"]) / float(goes_on["time_per_reward_s"]))
            for waits, goes_on in zip(rounds, arrival, strict=True)
        ]
    )
    ratio: Interval = {
        key: None if logs[key] is None else math.exp(logs[key] or 0.0) for key in ("mean", "low", "high")
    }
    ahead = [_ahead(waits["looks"], goes_on["looks"]) for waits, goes_on in zip(rounds, arrival, strict=True)]
    return Cell(ratio | {"n": logs["n"]}, _means(rounds), _means(arrival), interval(ahead))


def _means(runs: Sequence[Mapping[str, str]]) -> dict[str, float]:
    return {name: sum(float(one[name]) for one in runs) / len(runs) for name in (*_OF_SWEEP, *_OF_RUN)}


def _ahead(rounds: str, arrival: str) -> float | None:
    seen: list[list[Any]] = [
        [tuple(map(float, look.split(":"))) for look in text.split()] for text in (rounds, arrival)
    ]
    if not all(seen):
        return None
    end_s = min(looked[-1][0] for looked in seen)
    before, after = ([value for at_s, value in looked if at_s <= end_s][-1] for looked in seen)
    return float(after - before)
