"""The books must balance: checks over all records at the end of every run.

They are cheap (one pass and a sort), always on, and a failure is a bug in fedsim, never in a scenario.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from fedsim.errors import InvariantViolation
from fedsim.records import (
    SERVER_ID,
    Compute,
    Direction,
    Evaluation,
    Group,
    Outcome,
    Presence,
    Record,
    RecordLog,
    Reward,
    Transfer,
    Update,
)

_SHOWN = 5
_DIRECTIONS: tuple[Direction, ...] = ("down", "up")


def check(
    log: RecordLog,
    link_totals: Mapping[str, float],
    *,
    parallel_ids: Collection[int] = (SERVER_ID,),
) -> None:
    """Check a whole log.

    Args:
        log: all records of the run, work in flight drained.
        link_totals: bytes that the links carried, per direction, counted by the links themselves.
        parallel_ids: devices that may compute several things at once (the server).

    Raises:
        InvariantViolation: a request with no outcome or two; two requests that share the key of their random draws;
            an interval that ends before it starts, or is
            not a number; outcomes out of order; recorded bytes other than carried bytes; a negative
            staleness; two computations of one device at the same time; a row that belongs to no request.
    """
    _check_outcomes(log)
    _check_keys(log.of(Outcome))
    _check_times(log)
    check_bytes(log, link_totals)
    _check_staleness(log)
    _check_overlap(log.of(Compute), parallel_ids)


def check_bytes(log: RecordLog, link_totals: Mapping[str, float]) -> None:
    """Sum of ``wire_bytes`` per direction equals what the links carried.

    Exactly, where the link counted in whole bytes (int). A link that counts in floats may differ by 1e-6 of
    the total, and by one byte for every transfer that may have been cut (a record holds whole bytes).

    Raises:
        InvariantViolation: they differ, or a row holds a negative number of bytes.
    """
    whole = {row.request_id for row in log.of(Outcome) if row.status in ("ok", "late", "over_selected")}
    recorded = dict.fromkeys(_DIRECTIONS, 0)
    num_cut = dict.fromkeys(_DIRECTIONS, 0)
    for row in log.of(Transfer):
        recorded[row.direction] += row.wire_bytes
        num_cut[row.direction] += row.fate == "cut" or row.request_id not in whole
    negative = [row for row in log.of(Transfer) if min(row.wire_bytes, row.paper_bytes) < 0]
    _refuse(negative, "transfers of a negative number of bytes")
    for direction in _DIRECTIONS:
        carried = link_totals.get(direction, 0)
        tolerance = 0.0 if isinstance(carried, int) else 1e-6 * abs(carried) + num_cut[direction]
        if not abs(recorded[direction] - carried) <= tolerance:
            raise InvariantViolation(
                f"bytes {direction}: records hold {recorded[direction]}, the links carried {carried} "
                f"(difference {recorded[direction] - carried}, allowed {tolerance:g})"
            )


def _check_outcomes(log: RecordLog) -> None:
    outcomes = log.of(Outcome)
    counts = Counter(row.request_id for row in outcomes)
    _refuse([row for row in outcomes if counts[row.request_id] > 1], "requests with more than one outcome")
    orphans = [row for row in log.of(Transfer) if row.request_id not in counts]
    _refuse(orphans, "transfers of a request that has no outcome")
    # The server's own work is asked for by no request.
    computes = [row for row in log.of(Compute) if row.client_id != SERVER_ID and row.request_id not in counts]
    _refuse(computes, "computations of a request that has no outcome")
    rewards = [row for row in log.of(Reward) if row.client_id != SERVER_ID and row.request_id not in counts]
    _refuse(rewards, "rewards of a request that has no outcome")


def _check_keys(outcomes: Collection[Outcome]) -> None:
    first: dict[tuple[int, str, int, int, int], Outcome] = {}
    for row in outcomes:
        round_index = row.subject if row.question_id < 0 else -1
        key = (row.client_id, row.purpose, row.question_id, round_index, row.attempt)
        twin = first.setdefault(key, row)
        _refuse(
            [] if twin is row else [twin, row],
            "requests that share their random draws (tell them apart by the question or the attempt of their Subject)",
        )


def _check_times(log: RecordLog) -> None:
    # `not (a <= b)` rather than `a > b`: an instant that is not a number fails too.
    intervals: list[Transfer | Compute | Presence] = [
        *log.of(Transfer),
        *log.of(Compute),
        *log.of(Presence),
    ]
    backwards: list[Record] = [row for row in intervals if not 0 <= row.start_at_s <= row.end_at_s]
    backwards += [row for row in log.of(Outcome) if not 0 <= row.sent_at_s <= row.ended_at_s]
    backwards += [row for row in log.of(Group) if not 0 <= row.dispatched_at_s <= row.completed_at_s]
    _refuse(backwards, "rows that end before they start")
    outcomes = log.of(Outcome)
    _refuse_disorder([(row.ended_at_s, row) for row in outcomes], "outcomes out of the order of time")
    _refuse_disorder([(row.at_s, row) for row in log.of(Update)], "updates out of the order of time")
    _refuse_disorder([(row.at_s, row) for row in log.of(Evaluation)], "evaluations out of the order of time")
    versions: list[tuple[float, Record]] = [(row.policy_version, row) for row in log.of(Update)]
    repeated = [pair for pair in pairwise(versions) if not pair[0][0] < pair[1][0]]
    _refuse([row for pair in repeated for _, row in pair], "updates whose policy version does not rise")


def _check_staleness(log: RecordLog) -> None:
    wrong = [row for row in log.of(Update) if not 0 <= row.staleness_mean <= row.staleness_max]
    _refuse(wrong, "updates with an impossible staleness")


def _check_overlap(rows: Iterable[Compute], parallel_ids: Collection[int]) -> None:
    by_device: dict[int, list[Compute]] = defaultdict(list)
    for row in rows:
        if row.client_id not in parallel_ids:
            by_device[row.client_id].append(row)
    for computes in by_device.values():
        computes.sort(key=lambda row: (row.start_at_s, row.end_at_s))
        clashes = [
            pair
            for pair in pairwise(computes)
            if pair[1].start_at_s < pair[0].end_at_s - 1e-9 * max(1.0, pair[0].end_at_s)
        ]
        _refuse([row for pair in clashes for row in pair], "computations of one device that overlap")


def _refuse_disorder(rows: list[tuple[float, Record]], what: str) -> None:
    disorder = [pair for pair in pairwise(rows) if pair[1][0] < pair[0][0]]
    _refuse([row for pair in disorder for _, row in pair], what)


def _refuse(rows: Collection[Record], what: str) -> None:
    if rows:
        shown = "; ".join(repr(row) for row in list(rows)[:_SHOWN])
        more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        raise InvariantViolation(f"{len(rows)} {what}: {shown}{more}")
