"""The books must balance: checks over all records at the end of every run.

They are cheap, always on, and a failure is a bug in fedsim, never in a scenario. Rows are read in pieces, and what is kept of
them is about twenty bytes a request; a run that fails is read again by the simple twin, which names the rows.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import product

import numpy as np

from fedsim.records import invariants_naive
from fedsim.records.invariants_naive import ARRIVED, Limits
from fedsim.records.log import Chunk, RecordLog
from fedsim.records.rows import (
    FATE_OF_STATUS,
    SERVER_ID,
    STATUSES,
    Compute,
    Evaluation,
    Fault,
    Group,
    Outcome,
    Presence,
    Reward,
    Transfer,
    Update,
)

__all__ = ["NO_LIMITS", "Limits", "check"]

NO_LIMITS = Limits()

# One byte a request says how it ended and what it was for, as far as the checks ask; 0: there is no such request.
_ENDS = [("ok", "setup"), *product(STATUSES, ("setup", "cancel", "control", "any other"))]
_CODES = {end: code for code, end in enumerate(_ENDS) if code}
_HAS_REPLY = np.array([False, *(status in ARRIVED for status, _ in _CODES)])
_PAGE_BITS = 16
_WAS_SENT = {"down": 1, "up": 2}
_BESIDE = ("retransmitted", "duplicate", "cut")  # fates of bytes that are no part of a whole message


def check(
    log: RecordLog,
    link_totals: Mapping[str, float],
    *,
    parallel_ids: Collection[int] = (SERVER_ID,),
    limits: Limits = NO_LIMITS,
) -> None:
    """Check a whole log.

    Args:
        log: all records of the run, work in flight drained.
        link_totals: bytes that the links carried, per direction, counted by the links themselves.
        parallel_ids: devices that may compute several things at once (the server).
        limits: what the scenario allows at once.

    Raises:
        InvariantViolation: a request with no outcome or two; two requests that share the key of their random draws;
            an interval that ends before it starts, or is not a number; outcomes out of order; recorded bytes other than
            carried bytes; a message whose fate is not that of its request, or a reply without its bytes; a negative
            staleness; two computations of one device at the same time; a row that belongs to no request; more groups
            under way, or more clients asked, than the scenario allows.
    """
    requests = _Requests(limits)
    for chunk in log.chunks(Outcome):
        requests.add(chunk.of(Outcome))
    rows = _Rows(requests, parallel_ids, limits)
    for chunk in log.chunks():
        rows.add(chunk)
    if not (requests.are_sound() and rows.are_sound(link_totals)):
        # It may find nothing: keys are compared by their hashes here.
        invariants_naive.check(log, link_totals, parallel_ids=parallel_ids, limits=limits)
    elif rows.crowded:
        computes = (row for chunk in log.chunks(Compute) for row in chunk.of(Compute))
        invariants_naive.check_overlap(
            (row for row in computes if row.client_id in rows.crowded), parallel_ids
        )


class _Requests:
    """What every outcome said, in a few bytes each."""

    def __init__(self, limits: Limits) -> None:
        self._asked_at_most = limits.asked
        self._sound = True
        self._last_at_s = 0.0
        self._keys = array("q")
        self._asked = array("q")
        self._codes: dict[int, bytearray] = defaultdict(_page)
        self._sent: dict[int, bytearray] = defaultdict(_page)

    def add(self, rows: list[Outcome]) -> None:
        for row in rows:
            page, place = self._codes[row.request_id >> _PAGE_BITS], row.request_id & _PAGE_MASK
            in_order = 0 <= row.sent_at_s <= row.ended_at_s and self._last_at_s <= row.ended_at_s
            if page[place] or not in_order:
                self._sound = False
            page[place] = _CODES.get((row.status, row.purpose)) or _CODES[row.status, "any other"]
            self._last_at_s = row.ended_at_s
            round_index = row.subject if row.question_id < 0 else -1
            self._keys.append(hash((row.client_id, row.purpose, row.question_id, round_index, row.attempt)))
            if (
                self._asked_at_most is not None
                and row.subject >= 0
                and row.purpose in ("question", "adapter")
            ):
                self._asked.append(hash((row.purpose, row.subject, row.attempt)))

    def code(self, request_id: int) -> int:
        page = self._codes.get(request_id >> _PAGE_BITS)
        return 0 if page is None else page[request_id & _PAGE_MASK]

    def was_sent(self, request_id: int, direction: str) -> None:
        self._sent[request_id >> _PAGE_BITS][request_id & _PAGE_MASK] |= _WAS_SENT[direction]

    def are_sound(self) -> bool:
        """To be asked when the transfers were counted."""
        most = self._asked_at_most
        return (
            self._sound
            and _most_alike(self._keys) <= 1
            and (most is None or _most_alike(self._asked) <= most)
            and all(self._is_whole(number) for number in self._codes)
        )

    def _is_whole(self, number: int) -> bool:
        """Whether every request of a page that brought a reply has both messages."""
        replied = _HAS_REPLY[np.frombuffer(self._codes[number], dtype=np.uint8)]
        sent = np.frombuffer(self._sent[number], dtype=np.uint8)
        return bool((sent[replied] == sum(_WAS_SENT.values())).all())


class _Rows:
    """All other checks, row by row.

    Attributes:
        crowded: devices of which two computations that follow one another in the log overlap; they may be out of order only.
    """

    def __init__(self, requests: _Requests, parallel_ids: Collection[int], limits: Limits) -> None:
        self._requests = requests
        self._parallel_ids = parallel_ids
        self._limits = limits
        self._sound = True
        self._carried = {"down": 0, "up": 0}
        self._num_cut = {"down": 0, "up": 0}
        self._free_at_s: dict[int, float] = {}
        self._dispatched_at_s, self._completed_at_s = array("d"), array("d")
        self._updated: tuple[float, float] = (-np.inf, -np.inf)  # instant and version of the last update
        self._evaluated_at_s = -np.inf
        self.crowded: set[int] = set()

    def add(self, chunk: Chunk) -> None:
        self._add_transfers(chunk.of(Transfer))
        self._add_computes(chunk.of(Compute))
        self._add_groups(chunk.of(Group))
        self._add_steps(chunk)
        known = all(
            row.client_id == SERVER_ID or self._requests.code(row.request_id) for row in chunk.of(Reward)
        )
        intervals: list[Presence | Fault] = [*chunk.of(Presence), *chunk.of(Fault)]
        forward = all(0 <= row.start_at_s <= row.end_at_s for row in intervals)
        self._sound &= known and forward

    def are_sound(self, link_totals: Mapping[str, float]) -> bool:
        balanced = all(
            abs(self._carried[direction] - link_totals.get(direction, 0)) <= self._num_cut[direction]
            for direction in self._carried
        )
        return self._sound and balanced and self._groups_fit()

    def _add_transfers(self, rows: list[Transfer]) -> None:
        for row in rows:
            direction, fate = row.direction, row.fate
            self._carried[direction] += row.wire_bytes
            self._num_cut[direction] += fate == "cut"
            code = self._requests.code(row.request_id)
            whole = row.wire_bytes >= 0 <= row.paper_bytes and 0 <= row.start_at_s <= row.end_at_s
            if not (whole and code):
                self._sound = False
                continue
            if fate in _BESIDE:
                continue
            status, purpose = _ENDS[code]
            if direction == "down" and row.purpose in ("cancel", "control") and row.purpose != purpose:
                continue  # a message beside the request
            if fate != FATE_OF_STATUS[status]:
                self._sound = False
            if row.purpose != "setup" or purpose == "setup":
                self._requests.was_sent(row.request_id, direction)

    def _add_computes(self, rows: list[Compute]) -> None:
        for row in rows:
            client_id, start_s, end_s = row.client_id, row.start_at_s, row.end_at_s
            known = client_id == SERVER_ID or self._requests.code(row.request_id)
            if not (known and 0 <= start_s <= end_s):
                self._sound = False
            if client_id in self._parallel_ids:
                continue
            free_at_s = self._free_at_s.get(client_id, 0.0)
            if start_s < free_at_s - 1e-9 * max(1.0, free_at_s):
                self.crowded.add(client_id)
            self._free_at_s[client_id] = end_s

    def _add_groups(self, rows: list[Group]) -> None:
        cohort = self._limits.cohort
        for row in rows:
            forward = 0 <= row.dispatched_at_s <= row.completed_at_s
            answered = 0 <= row.num_answered <= row.num_experts
            if not (forward and answered and (cohort is None or row.num_experts <= cohort)):
                self._sound = False
            if self._limits.groups is not None and row.dispatched_at_s < row.completed_at_s:
                self._dispatched_at_s.append(row.dispatched_at_s)
                self._completed_at_s.append(row.completed_at_s)

    def _groups_fit(self) -> bool:
        """At every dispatch, those dispatched until then less those that were complete by then are not too many."""
        if self._limits.groups is None or not self._dispatched_at_s:
            return True
        dispatched_at_s = np.sort(np.frombuffer(self._dispatched_at_s))
        completed_at_s = np.sort(np.frombuffer(self._completed_at_s))
        begun = np.arange(1, len(dispatched_at_s) + 1)
        over = np.searchsorted(completed_at_s, dispatched_at_s, side="right")
        return bool((begun - over <= self._limits.groups).all())

    def _add_steps(self, chunk: Chunk) -> None:
        for update in chunk.of(Update):
            at_s, version = self._updated
            risen = at_s <= update.at_s and version < update.policy_version
            if not (risen and 0 <= update.staleness_mean <= update.staleness_max):
                self._sound = False
            self._updated = update.at_s, update.policy_version
        for evaluation in chunk.of(Evaluation):
            self._sound &= self._evaluated_at_s <= evaluation.at_s
            self._evaluated_at_s = evaluation.at_s


def _most_alike(numbers: array[int]) -> int:
    """How often the most frequent number is there."""
    if not numbers:
        return 0
    ordered = np.sort(np.frombuffer(numbers, dtype=np.int64))
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    return int(np.diff(np.append(starts, len(ordered))).max())


def _page() -> bytearray:
    return bytearray(1 << _PAGE_BITS)


_PAGE_MASK = (1 << _PAGE_BITS) - 1
