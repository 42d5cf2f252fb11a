"""What one run of a stress sweep came to, as one flat row, and why its rewards were lost.

Everything is read from the run's folder: its summary, and the tables of outcomes and groups.

* ``time_s``: virtual seconds to the end of a run that did what it was asked to (its other stop conditions than
  ``stop.virtual``); None for one that failed or ran out of time, whose time is not less than ``virtual_s``.
* ``wasted_share``: share of the wire's bytes, both ways, whose fate is not ``useful``.
* ``groups_lost_share``: share of the groups on record that were not trained on (no rewards, no experts, or too stale).
* ``reason``: an error's name and its first clause (`first_clause`); the whole message stands in the run's folder.
* ``rewards_share``: rewards that came, of those that were wanted (experts times groups).
* ``rewards_used``: the usable ones among them, those of groups that were trained on.
* ``time_per_reward_s``: ``time_s / rewards_used``; None where either is missing.
* A request is *lost* if it belongs to a group on record (in a protocol without groups: if it was sent and ended while the
  protocol played), carries no status ``ok``, and was not merely superfluous (``over_selected``).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fedsim.errors import RunFolderError
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.records.run_folder import RECORDS, SUMMARY
from fedsim.sweeps.compare.tables import wasted_share
from fedsim.sweeps.stress.endings import Ending

if TYPE_CHECKING:
    import polars as pl

Status = Literal["finished", "out_of_time", "failed", "refused"]
_WITHOUT_REWARD = (
    "setup",
    "probe",
    "cancel",
    "control",
)  # purposes of requests that ask for nothing to learn from
_LOST_AS = ("too_stale", "no_experts", "no_rewards")

Why = tuple[str, str, str, str]
"""Cause, status, phase and device class of a lost request."""


@dataclass(frozen=True, slots=True)
class Row:
    """One run.

    Attributes:
        numbers: flat, by column; None where undefined.
        asked: requests whose reply was wanted, by device class.
        lost: how many of them were lost, by `Why`.
        domains: per domain, groups on record and groups lost.
    """

    numbers: Mapping[str, Any]
    asked: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[Why, int] = field(default_factory=dict)
    domains: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_row(folder: Path, ending: Ending, stop: StopConfig) -> Row:
    """Read a kept run; ``stop`` is what it was asked to do.

    Raises:
        RunFolderError: a file of it is damaged.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:  # refused before it began, or failed before there was anything to sum up
        return Row({"status": ending.status, "reason": first_clause(ending.reason), "wall_s": ending.wall_s})
    except ValueError:
        raise RunFolderError(f"{folder / SUMMARY} is damaged; remove the folder and sweep again") from None
    outcomes, groups = _table(folder, "outcomes", _OUTCOME), _table(folder, "groups", _GROUP)
    status = _status(summary, ending, stop)
    time_s = summary["virtual_s"] if status == "finished" else None
    wanted, came = int(groups["num_experts"].sum()), int(groups["num_answered"].sum())
    used = int(groups.filter(groups["fate"] == "trained")["num_answered"].sum())
    sizes, requests, fates = summary["bytes"], summary["requests"], summary["groups"]
    accuracy = {
        f"{name}_{when}": summary["accuracy"][name][when]
        for name in ("greedy", "pass_at_1", "pass_at_8")
        for when in ("initial", "final")
    }
    numbers = {
        "status": status,
        "reason": first_clause(ending.reason),
        "stopped_by": summary["stopped_by"],
        "virtual_s": summary["virtual_s"],
        "time_s": time_s,
        "time_per_reward_s": time_s / used if time_s is not None and used else None,
        "updates": summary["updates"],
        **accuracy,
        "wire_up_bytes": sizes["wire"]["uplink"],
        "wire_down_bytes": sizes["wire"]["downlink"],
        "paper_up_bytes": sizes["paper"]["uplink"],
        "wasted_share": wasted_share(summary),
        "requests": requests["total"],
        "requests_ok": requests["ok"],
        "groups": fates["total"],
        **{f"groups_{fate}": fates[fate] for fate in ("trained", *_LOST_AS)},
        "groups_lost_share": 1 - fates["trained"] / fates["total"] if fates["total"] else None,
        "rewards_wanted": wanted,
        "rewards_came": came,
        "rewards_used": used,
        "rewards_share": came / wanted if wanted else None,
        "reward_mean": _trained_reward(groups),
        "staleness_mean": summary["staleness"]["mean"],
        "energy_j": sum(load["energy_j"] for load in summary["load"].values()),
        "wall_s": ending.wall_s,
        "records_sha256": summary["records_sha256"],
    }
    asked, lost = _lost(outcomes, groups, summary["virtual_s"])
    return Row(numbers, asked, lost, _domains(groups))


_OUTCOME = ("purpose", "subject", "device_class", "status", "phase", "cause", "sent_at_s", "ended_at_s")
_GROUP = ("draw", "domain", "num_experts", "num_answered", "reward_mean", "fate")


def _table(folder: Path, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    import polars as pl

    path = folder / RECORDS / f"{name}.parquet"
    try:
        return pl.read_parquet(path, columns=list(columns))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); remove the folder and sweep again") from None


def _status(summary: Mapping[str, Any], ending: Ending, stop: StopConfig) -> Status:
    """A run that ``stop.virtual`` ended is out of time, unless that is all it was asked for."""
    asked_for_more = any((stop.updates, stop.wire_bytes, stop.accuracy, stop.wall))
    if ending.status == "finished" and summary["stopped_by"] == "virtual" and asked_for_more:
        return "out_of_time"
    return ending.status


def first_clause(message: str) -> str:
    """An error's name, or where its setting stands, and what it says first; folders of this machine are left out.

    >>> first_clause("Deadlock: at 20 s 27 tasks wait (2 daemon events are left): main: run at /home/me/a.py:18 waits")
    'Deadlock: at 20 s 27 tasks wait'
    >>> first_clause("/home/me/crowd.yaml:4: stop is missing; add updates")
    'crowd.yaml:4: stop is missing'
    """
    found = _HEAD.match(_FOLDERS.sub("", message))
    assert found is not None  # every part of it may be empty
    head, rest = found["head"] or "", found["rest"]
    return head + _CLAUSE_END.split(rest, maxsplit=1)[0].rstrip(" .")


_FOLDERS = re.compile(r"(?<![\w.)])/(?:[^/\s:]+/)+")
_HEAD = re.compile(r"(?P<head>(?:[A-Z]\w+: |--set \S+?=[^:]*: |\S+:\d+: )*)(?P<rest>.*)", re.DOTALL)
_CLAUSE_END = re.compile(r"[:;] | \(")


def kind_of(cause: str) -> str:
    """A cause without what differs from reply to reply: ``rejected: 7 rewards for 8 candidates`` is ``rejected``.

    A fault that is named with it stays: its kind is what a table of causes is read for.
    """
    kind, colon, details = cause.partition(": ")
    if not colon or kind != "rejected":
        return cause
    fault = details.rfind(" (fault: ")
    return kind if fault < 0 else kind + details[fault:]


def _trained_reward(groups: pl.DataFrame) -> float | None:
    """Mean reward of the groups that were trained on; None where none was measured."""
    rewards = groups.filter(groups["fate"] == "trained")["reward_mean"].to_list()
    trained = [reward for reward in rewards if not math.isnan(reward)]
    return sum(trained) / len(trained) if trained else None


def _lost(
    outcomes: pl.DataFrame, groups: pl.DataFrame, virtual_s: float
) -> tuple[dict[str, int], dict[Why, int]]:
    import polars as pl

    wanted = outcomes.filter(~pl.col("purpose").is_in(_WITHOUT_REWARD))
    if groups.height:
        wanted = wanted.filter(pl.col("subject").is_in(groups["draw"].unique().to_list()))
    else:
        wanted = wanted.filter(pl.col("ended_at_s") <= virtual_s)
    wanted = wanted.filter(pl.col("status") != "over_selected")
    asked = Counter(wanted["device_class"].to_list())
    lost = wanted.filter(pl.col("status") != "ok")
    rows = zip(*(lost[name].to_list() for name in ("cause", "status", "phase", "device_class")), strict=True)
    kinds = Counter((kind_of(cause), status, phase, of) for cause, status, phase, of in rows)
    return dict(sorted(asked.items())), dict(sorted(kinds.items()))


def _domains(groups: pl.DataFrame) -> dict[str, tuple[int, int]]:
    total, lost = Counter(groups["domain"].to_list()), Counter[str]()
    for domain, fate in zip(groups["domain"].to_list(), groups["fate"].to_list(), strict=True):
        lost[domain] += fate in _LOST_AS
    return {domain: (total[domain], lost[domain]) for domain in sorted(total)}
