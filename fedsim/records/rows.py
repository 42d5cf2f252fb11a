"""Frozen records: every number fedsim prints is a sum over these rows.

A record holds no wall time, host, path or flush point, so the same scenario, seed and platform give the same
bytes. Instants are virtual seconds. ``client_id`` is -1 for the server. ``fedsim.records.log`` keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

Direction = Literal["down", "up"]
Purpose = str
"""What a message is for: one of ``PURPOSES``, or any plain name that a third party's message has for its purpose."""

Fate = Literal["useful", "late", "duplicate", "retransmitted", "over_selected", "cut", "rejected"]
Status = Literal["ok", "late", "dropped", "cut", "offline", "cancelled", "over_selected", "failed"]
Phase = Literal["down", "queue", "compute", "up", "done"]
GroupFate = Literal["trained", "too_stale", "no_experts", "no_rewards"]

PURPOSES: tuple[Purpose, ...] = (
    "setup", "probe", "question", "reward", "answer", "adapter", "synthetic", "data", "cancel", "control",
)  # fmt: skip
FATES: tuple[Fate, ...] = get_args(Fate)
STATUSES: tuple[Status, ...] = get_args(Status)
GROUP_FATES: tuple[GroupFate, ...] = get_args(GroupFate)
FATE_OF_STATUS: Mapping[Status, Fate] = {
    "ok": "useful",
    "late": "late",
    "dropped": "cut",
    "cut": "cut",
    "offline": "cut",
    "cancelled": "late",
    "over_selected": "over_selected",
    "failed": "rejected",
}
"""What the bytes of a request's two messages were good for, by how it ended."""

SERVER_ID = -1


class Record(msgspec.Struct, frozen=True, array_like=True, tag=True, kw_only=True, gc=False):
    """Root of all records; encodes as a msgpack array that starts with the record's name."""


class Transfer(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """Bytes of one message in one direction, with one purpose and one fate.

    ``wire_bytes`` is everything that was put on the wire (encoded message + transport overhead, or the part sent
    before a cut). ``paper_bytes`` is the paper's account: numbers times their declared width plus UTF-8 text,
    uplink only, of messages that arrived (0 otherwise). Both stand in the same row. ``energy_j`` is the device's radio's.
    """

    request_id: int
    client_id: int
    direction: Direction
    purpose: Purpose
    fate: Fate
    start_at_s: float
    end_at_s: float
    message_bytes: int
    wire_bytes: int
    paper_bytes: int
    energy_j: float = 0.0


class Compute(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """One computation of one device (or the server): its work, when it held the device, and what it cost.

    FLOP and bytes are those of the work that was done: of a computation that was cut or given up, its share of the nominal
    length. One that slept while its device was away has a row for each stretch of it, which share FLOP and bytes.
    """

    request_id: int
    client_id: int
    kind: str
    start_at_s: float
    end_at_s: float
    flop: float
    memory_bytes: float
    energy_j: float
    cut: bool


class Outcome(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """How one request ended; every request has exactly one. ``phase`` is where it ended.

    ``client_id``, ``purpose``, ``question_id`` and ``attempt`` are the key of the request's random draws, so that requests
    of two protocols can be paired; ``subject`` is the draw that asked, or the round of a message about no question, which is
    a part of the key as well (-1 where there is neither).
    """

    request_id: int
    client_id: int
    device_class: str
    purpose: Purpose
    subject: int
    sent_at_s: float
    ended_at_s: float
    status: Status
    phase: Phase
    cause: str
    question_id: int = -1
    attempt: int = 0


class Reward(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """The scores one client returned for one group of candidates; NaN for each that a stand-in for a model made up."""

    request_id: int
    client_id: int
    draw: int
    question_id: int
    evaluator: str
    rewards: tuple[float, ...]
    at_s: float


class Group(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """One question's group when its advantages became final.

    ``num_experts`` were asked, ``num_answered`` answered in time; ``correct`` is the share of the G candidates
    that equal the truth (known to the simulator only, never used by a protocol that must not know it). What stand-ins for
    models made is not measured: rewards and ``correct`` are NaN then, and ``zero_variance`` is False.
    """

    draw: int
    question_id: int
    domain: str
    policy_version: int
    dispatched_at_s: float
    completed_at_s: float
    num_experts: int
    num_answered: int
    reward_mean: float
    reward_std: float
    zero_variance: bool
    correct: float
    fate: GroupFate


class Update(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """One optimiser step: ``policy_version`` is the version it produced.

    ``loss`` and what follows it are NaN where stand-ins for models measured nothing.
    """

    policy_version: int
    at_s: float
    num_groups: int
    num_candidates: int
    staleness_mean: float
    staleness_max: int
    loss: float
    entropy: float
    clip_fraction: float
    grad_norm: float
    reward_mean: float
    zero_variance_share: float


class Ratio(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """What the groups of one staleness were worth in one optimiser step (``record_ratios``); one row for each staleness.

    ``policy_version`` is the version that the step produced. The numbers are those of ``fedsim.models.interfaces.RatioStats``.
    """

    policy_version: int
    staleness: int
    num_tokens: int
    mean_ratio: float
    effective_share: float
    truncated_share: float
    clip_fraction: float
    divergence: float


class Evaluation(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """Accuracy of one policy version on one split; takes no virtual time (a simulator's view, not the server's).

    ``split`` is ``validation``, ``test``, or the name of an extra set of questions of an own file.
    """

    policy_version: int
    at_s: float
    split: str
    greedy: float
    pass_at_1: float
    pass_at_8: float
    entropy: float
    kl_to_initial: float
    num_questions: int


class Presence(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """One interval in which a device was available, cut to the run's span (for the timeline)."""

    client_id: int
    device_class: str
    start_at_s: float
    end_at_s: float


class Fault(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """A fault on purpose: an interval in which one held for a client (-1: the server's link), or a reply that it struck.

    ``request_id`` is the struck request, or -1; a struck reply's interval is the time for which it was held back.
    """

    kind: str
    client_id: int
    request_id: int
    start_at_s: float
    end_at_s: float


class Member(Record, frozen=True, array_like=True, tag=True, kw_only=True):
    """One client before the run: whether its device can hold the model, and the one-off training of its own model.

    ``training_*`` are virtual seconds on that device, FLOP and joules; 0 for a client without a model of its own. They are
    in no other total.
    """

    client_id: int
    device_class: str
    memory_bytes: float
    needed_bytes: float
    takes_part: bool
    training_s: float
    training_flop: float
    training_energy_j: float


RECORD_TYPES: tuple[type[Record], ...] = (
    Transfer, Compute, Outcome, Reward, Group, Update, Evaluation, Presence, Member, Fault, Ratio,
)  # fmt: skip

AnyRecord = (
    Transfer | Compute | Outcome | Reward | Group | Update | Evaluation | Presence | Member | Fault | Ratio
)
