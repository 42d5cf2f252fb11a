"""Asking why: the story of one request or one client in virtual time, from a run folder alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedsim.config.units import format_bytes, format_seconds
from fedsim.errors import InputError
from fedsim.records.run import Run

if TYPE_CHECKING:
    import polars as pl

# An event: its instant, its rank among events of that instant, and what happened.
_Event = tuple[float, int, str]
_Row = Mapping[str, Any]

_SENT, _DOWN, _QUEUED, _COMPUTED, _UP, _REWARD, _ENDED, _GROUP = range(8)


def story(run: Run, *, request: int | None = None, client: int | None = None) -> list[str]:
    """What happened to one request, or to one client, one line per event, in the order of virtual time.

    Args:
        run: a loaded run.
        request: a request id; excludes ``client``.
        client: a client id; all its requests and its comings and goings.

    Raises:
        InputError: neither or both were given, or the run has no such request or client.
    """
    if (request is None) == (client is None):
        raise InputError("give one of --request and --client")
    if request is not None:
        return _request_story(run, request)
    assert client is not None
    return _client_story(run, client)


def _request_story(run: Run, request_id: int) -> list[str]:
    outcome = next(iter(_rows(run.outcomes, request_id=request_id)), None)
    if outcome is None:
        raise InputError(f"{run.folder}: no request {request_id}; {_range(run.outcomes, 'request_id')}")
    head = (
        f"request {request_id} ({outcome['purpose']}, subject {outcome['subject']}) "
        f"to client {outcome['client_id']} ({outcome['device_class']})"
    )
    return [head, *_lines(_Books.of_client(run, outcome["client_id"]).events(outcome))]


def _client_story(run: Run, client_id: int) -> list[str]:
    outcomes = _rows(run.outcomes, client_id=client_id)
    presence = _rows(run.presence, client_id=client_id)
    if not outcomes and not presence:
        raise InputError(f"{run.folder}: no client {client_id}; {_range(run.presence, 'client_id')}")
    events: list[_Event] = []
    for interval in presence:
        stayed = _duration(interval["end_at_s"] - interval["start_at_s"])
        events.append((interval["start_at_s"], -1, f"available, for {stayed}"))
        events.append((interval["end_at_s"], _GROUP + 1, "no longer available, or the run has ended"))
    books = _Books.of_client(run, client_id)
    for fault in books.faults.get(-1, []):
        name = fault["kind"].replace("_", " ")
        events.append((fault["start_at_s"], -1, f"fault: {name} begins"))
        events.append((fault["end_at_s"], -1, f"fault: {name} ends, or the run has ended"))
    for outcome in outcomes:
        label = f"request {outcome['request_id']}: "
        events += [(at_s, rank, label + text) for at_s, rank, text in books.events(outcome)]
    device_class = (outcomes or presence)[0]["device_class"]
    ok = sum(outcome["status"] == "ok" for outcome in outcomes)
    head = f"client {client_id} ({device_class}): {len(outcomes)} requests, {ok} ok"
    return [head, *_lines(events)]


@dataclass(frozen=True, slots=True)
class _Books:
    """The rows of one client, by request, and the groups, by draw."""

    transfers: Mapping[int, list[_Row]]
    computes: Mapping[int, list[_Row]]
    rewards: Mapping[int, list[_Row]]
    faults: Mapping[int, list[_Row]]
    groups: Mapping[int, list[_Row]]

    @classmethod
    def of_client(cls, run: Run, client_id: int) -> _Books:
        """Read them once; the server's own work is not among them, since it is no client's."""
        return cls(
            transfers=_by(_rows(run.transfers, client_id=client_id), "request_id"),
            computes=_by(_rows(run.computes, client_id=client_id), "request_id"),
            rewards=_by(
                [_measured(row, run) for row in _rows(run.rewards, client_id=client_id)], "request_id"
            ),
            faults=_by(_rows(run.faults, client_id=client_id), "request_id"),
            groups=_by([_measured(row, run) for row in _rows(run.groups)], "draw"),
        )

    def events(self, outcome: _Row) -> list[_Event]:
        """Everything that one request led to."""
        request_id = outcome["request_id"]
        transfers = self.transfers.get(request_id, [])
        computes = self.computes.get(request_id, [])
        rewards = self.rewards.get(request_id, [])
        groups = [row for draw in {row["draw"] for row in rewards} for row in self.groups.get(draw, [])]
        return [
            (outcome["sent_at_s"], _SENT, f"sent by the server ({outcome['purpose']})"),
            *(_transfer_event(row) for row in transfers),
            *_queue_events(outcome, transfers, computes),
            *(_compute_event(row) for row in computes),
            *(_fault_event(row) for row in self.faults.get(request_id, [])),
            *(_reward_event(row) for row in rewards),
            (outcome["ended_at_s"], _ENDED, _ending(outcome)),
            *(_group_event(row) for row in groups),
        ]


def _measured(row: _Row, run: Run) -> _Row:
    """A row without what stand-ins made up, which earlier versions put on record."""
    if run.measures:
        return row
    unknown = {"rewards": [math.nan] * len(row["rewards"])} if "rewards" in row else {"reward_mean": math.nan}
    return {**row, **unknown}


def _transfer_event(row: _Row) -> _Event:
    took = _duration(row["end_at_s"] - row["start_at_s"])
    verb, rank = ("downloaded", _DOWN) if row["direction"] == "down" else ("uploaded", _UP)
    fate = "" if row["fate"] == "useful" else f", {row['fate'].replace('_', ' ')}"
    paper = f", {format_bytes(row['paper_bytes'])} in the paper's account" if row["paper_bytes"] else ""
    size = format_bytes(row["wire_bytes"])
    return row["end_at_s"], rank, f"{verb} {size} ({row['purpose']}) in {took}{paper}{fate}"


def _queue_events(outcome: _Row, transfers: list[_Row], computes: list[_Row]) -> list[_Event]:
    arrivals = [
        row["end_at_s"]
        for row in transfers
        if row["direction"] == "down" and row["purpose"] == outcome["purpose"]
    ]
    if not arrivals:
        return []
    arrived_at_s = max(arrivals)
    if computes:
        left_at_s = min(row["start_at_s"] for row in computes)
    elif outcome["phase"] == "queue":
        left_at_s = outcome["ended_at_s"]
    else:
        return []
    if left_at_s <= arrived_at_s:
        return []
    waited = _duration(left_at_s - arrived_at_s)
    return [(left_at_s, _QUEUED, f"waited {waited} (on the way and in the queue)")]


def _compute_event(row: _Row) -> _Event:
    took = _duration(row["end_at_s"] - row["start_at_s"])
    cut = ", cut" if row["cut"] else ""
    cost = f"{_flop(row['flop'])}, {row['energy_j']:.3g} J"
    return row["end_at_s"], _COMPUTED, f"computed {row['kind']} in {took} ({cost}){cut}"


def _fault_event(row: _Row) -> _Event:
    held_s = row["end_at_s"] - row["start_at_s"]
    held = f", held back for {_duration(held_s)}" if held_s else ""
    return row["start_at_s"], _UP - 1, f"fault on the reply: {row['kind'].replace('_', ' ')}{held}"


def _reward_event(row: _Row) -> _Event:
    measured = [score for score in row["rewards"] if not math.isnan(score)]
    scores = " ".join(f"{score:.3g}" for score in measured) or f"{len(row['rewards'])} of them, not measured"
    return row["at_s"], _REWARD, f"rewards by {row['evaluator']} for draw {row['draw']}: {scores}"


def _group_event(row: _Row) -> _Event:
    reward = "" if math.isnan(row["reward_mean"]) else f"mean reward {row['reward_mean']:.3g}, "
    text = (
        f"group of draw {row['draw']} ({row['domain']}) final: {row['num_answered']} of {row['num_experts']} "
        f"experts answered, {reward}{row['fate'].replace('_', ' ')}"
    )
    return row["completed_at_s"], _GROUP, text


def _ending(outcome: _Row) -> str:
    after = _duration(outcome["ended_at_s"] - outcome["sent_at_s"])
    phase = "" if outcome["phase"] == "done" else f" in phase {outcome['phase']}"
    cause = f": {outcome['cause']}" if outcome["cause"] else ""
    return f"ended {outcome['status'].replace('_', ' ')}{phase} after {after}{cause}"


def _lines(events: list[_Event]) -> list[str]:
    ordered = sorted(events, key=lambda event: event[:2])
    width = max((len(f"{event[0]:.3f}") for event in ordered), default=0)
    return [f"{at_s:>{width}.3f} s  {text}" for at_s, _, text in ordered]


def _duration(amount_s: float) -> str:
    return format_seconds(amount_s) if amount_s >= 0.01 or amount_s == 0 else f"{amount_s * 1e3:.2g} ms"


def _flop(amount: float) -> str:
    for prefix, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if amount >= factor:
            return f"{amount / factor:.3g} {prefix}FLOP"
    return f"{amount:.3g} FLOP"


def _by(rows: list[_Row], column: str) -> dict[int, list[_Row]]:
    found: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return found


def _rows(table: pl.DataFrame, **wanted: int) -> list[_Row]:
    for column, value in wanted.items():
        if not -(2**63) <= value < 2**63:  # no column holds it, and polars cannot compare with it
            return []
        table = table.filter(table[column] == value)
    return table.to_dicts()  # type: ignore[return-value]


def _range(table: pl.DataFrame, column: str) -> str:
    if table.is_empty():
        return "the run has none"
    ids = table[column].to_list()
    return f"they run from {min(ids)} to {max(ids)}"
