"""The simple twin of ``invariants``: the same checks over whole lists of rows, and the message that names the rows.

It holds a whole log in memory, so it runs only when something is wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from fedsim.errors import InvariantViolation
from fedsim.records.log import RecordLog
from fedsim.records.rows import (
    FATE_OF_STATUS,
    SERVER_ID,
    Compute,
    Direction,
    Evaluation,
    Fault,
    Group,
    Outcome,
    Presence,
    Record,
    Reward,
    Transfer,
    Update,
)

_SHOWN = 5
_DIRECTIONS: tuple[Direction, ...] = ("down", "up")
ARRIVED = ("ok", "late", "over_selected", "failed")
"""How a request ended whose reply came."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a scenario allows at once; None: as many as there are.

    Attributes:
        groups: question groups under way at once.
        cohort: experts of one group.
        asked: clients asked about one question of a draw, or in one try of a round, spares and replacements included.
    """

    groups: int | None = None
    cohort: int | None = None
    asked: int | None = None


def check(
    log: RecordLog,
    link_totals: Mapping[str, float],
    *,
    parallel_ids: Collection[int],
    limits: Limits,
) -> None:
    """Check a whole log; see ``fedsim.records.invariants.check``."""
    _check_outcomes(log)
    _check_keys(log.of(Outcome))
    _check_times(log)
    check_bytes(log, link_totals)
    _check_fates(log)
    _check_staleness(log)
    check_overlap(log.of(Compute), parallel_ids)
    _check_limits(log, limits)


def check_bytes(log: RecordLog, link_totals: Mapping[str, float]) -> None:
    """Sum of ``wire_bytes`` per direction, received, cut and lost (sent again), equals what the links carried.

    Exactly, whatever the total: finished flows are whole bytes on the links too. Only a flow that was cut may have sent a
    part of a byte, which its record rounds, so one byte is allowed for every row of fate ``cut``.

    Raises:
        InvariantViolation: they differ, or a row holds a negative number of bytes.
    """
    recorded = dict.fromkeys(_DIRECTIONS, 0)
    num_cut = dict.fromkeys(_DIRECTIONS, 0)
    for row in log.of(Transfer):
        recorded[row.direction] += row.wire_bytes
        num_cut[row.direction] += row.fate == "cut"
    negative = [row for row in log.of(Transfer) if min(row.wire_bytes, row.paper_bytes) < 0]
    _refuse(negative, "transfers of a negative number of bytes")
    for direction in _DIRECTIONS:
        carried = link_totals.get(direction, 0)
        tolerance = num_cut[direction]
        if not abs(recorded[direction] - carried) <= tolerance:
            fates: Counter[str] = Counter()
            for row in log.of(Transfer):
                fates[row.fate] += row.wire_bytes * (row.direction == direction)
            lost = fates["retransmitted"]
            received = recorded[direction] - fates["cut"] - lost
            raise InvariantViolation(
                f"bytes {direction}: records hold {recorded[direction]} ({received} received, {fates['cut']} cut, {lost} "
                f"lost and sent again), the links carried {carried} "
                f"(difference {recorded[direction] - carried}, allowed {tolerance})"
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
    intervals: list[Transfer | Compute | Presence | Fault] = [
        *log.of(Transfer),
        *log.of(Compute),
        *log.of(Presence),
        *log.of(Fault),
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


def _check_fates(log: RecordLog) -> None:
    """The two messages of a request bear its fate, and one that brought a reply has both of them, whole."""
    outcomes = {row.request_id: row for row in log.of(Outcome)}
    whole: Counter[tuple[int, Direction]] = Counter()
    wrong: list[Record] = []
    for row in log.of(Transfer):
        outcome = outcomes[row.request_id]
        if row.fate in ("retransmitted", "duplicate", "cut"):
            continue
        if (
            row.direction == "down"
            and row.purpose in ("cancel", "control")
            and row.purpose != outcome.purpose
        ):
            continue  # a message beside the request
        if row.fate != FATE_OF_STATUS[outcome.status]:
            wrong += [row, outcome]
        whole[row.request_id, row.direction] += row.purpose != "setup" or outcome.purpose == "setup"
    _refuse(wrong, "rows of transfers whose fate is not their request's")
    torn = [
        row
        for row in outcomes.values()
        if row.status in ARRIVED and not (whole[row.request_id, "down"] and whole[row.request_id, "up"])
    ]
    _refuse(torn, "requests whose reply came although a message of theirs was not sent whole")


def _check_limits(log: RecordLog, limits: Limits) -> None:
    groups = log.of(Group)
    crowded = [row for row in groups if not 0 <= row.num_answered <= row.num_experts]
    _refuse(crowded, "groups that more experts answered than were wanted")
    if limits.cohort is not None:
        crowded = [row for row in groups if row.num_experts > limits.cohort]
        _refuse(crowded, f"groups of more than the {limits.cohort} experts allowed")
    if limits.groups is not None:
        under_way: dict[int, Group] = {}
        changes = [
            (row.dispatched_at_s, 1, row) for row in groups if row.dispatched_at_s < row.completed_at_s
        ]
        changes += [
            (row.completed_at_s, 0, row) for row in groups if row.dispatched_at_s < row.completed_at_s
        ]
        for _, begins, group in sorted(changes, key=lambda change: change[:2]):
            if not begins:
                del under_way[group.draw]
                continue
            under_way[group.draw] = group
            if len(under_way) > limits.groups:
                _refuse([*under_way.values()], f"groups under way at once, {limits.groups} allowed")
    if limits.asked is not None:
        asked: dict[tuple[str, int, int], list[Outcome]] = defaultdict(list)
        for row in log.of(Outcome):
            if row.subject >= 0 and row.purpose in ("question", "adapter"):
                asked[row.purpose, row.subject, row.attempt].append(row)
        for rows in asked.values():
            _refuse(
                rows if len(rows) > limits.asked else [], f"clients asked the same, {limits.asked} allowed"
            )


def _check_staleness(log: RecordLog) -> None:
    wrong = [row for row in log.of(Update) if not 0 <= row.staleness_mean <= row.staleness_max]
    _refuse(wrong, "updates with an impossible staleness")


def check_overlap(rows: Iterable[Compute], parallel_ids: Collection[int]) -> None:
    """No device computes two things at the same time, but those that may.

    Raises:
        InvariantViolation: one does.
    """
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
