"""The summary of one run: every total is a sum over records, nothing is counted twice.

``summarise`` is a pure function of the log and of a context that holds what no record may hold (wall time)
or what only the simulator knows (which candidates were right).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedsim.records import (
    FATES,
    PURPOSES,
    SERVER_ID,
    STATUSES,
    Compute,
    Evaluation,
    Group,
    Member,
    Outcome,
    Presence,
    Purpose,
    RecordLog,
    Reward,
    Transfer,
    Update,
)
from fedsim.runfolder import plain

LEAVES: Mapping[Purpose, str] = {
    "probe": "scalars",
    "reward": "scalars",
    "answer": "answers",
    "adapter": "weights",
    "synthetic": "synthetic rows",
    "data": "private rows",
}
"""What a message that goes up says about its sender, by purpose, from the least to the most; the others carry nothing."""


@dataclass(frozen=True, slots=True)
class SummaryContext:
    """What a summary needs beside the records.

    Attributes:
        protocol: name of the protocol.
        seed: the run's seed.
        virtual_s: virtual instant at which the protocol returned.
        wall_s: real seconds the run took.
        stopped_by: which stop condition was met first.
        initial_by_domain: greedy test accuracy per domain of the initial policy.
        final_by_domain: the same of the final policy.
        candidate_correct: per draw, whether each candidate equals the truth ``[G]`` (the simulator's
            knowledge; for ``reward_auc_by_client`` only).
        billed: what the run is billed as, in one line; None where everything counts as it is.
        privacy: what the wire variant lets out, and what noise promises for the whole run; None where none is declared.
        detection: whom the server came to distrust, against the truth; None where nobody is hostile on purpose.
    """

    protocol: str
    seed: int
    virtual_s: float
    wall_s: float
    stopped_by: str
    initial_by_domain: Mapping[str, float] = field(default_factory=dict)
    final_by_domain: Mapping[str, float] = field(default_factory=dict)
    candidate_correct: Mapping[int, Sequence[bool]] = field(default_factory=dict)
    billed: str | None = None
    privacy: Mapping[str, Any] | None = None
    detection: Mapping[str, Any] | None = None


def summarise(log: RecordLog, context: SummaryContext) -> dict[str, Any]:
    """The run in one JSON-ready dictionary; null where a number is undefined, never NaN.

    ``accuracy`` is of the test split, first and last evaluation (``validation`` likewise).
    ``bytes.by_fate`` and ``bytes.by_purpose`` are wire bytes, both directions. ``leaves`` is what has left the clients,
    useful or not, read from what went up (empty: nothing). ``learning.entropy`` and
    ``kl_to_initial`` are of the last evaluation (test, else validation); ``clip_fraction`` is a mean over
    updates, weighted by candidates; ``zero_variance_share`` is the share of scored groups without spread.
    ``staleness.mean`` is weighted by groups. ``requests_under_way`` are those of ``requests`` without a usable reply that
    were still under way when the protocol ended. ``detection`` stands there only where a scenario asks for it.
    """
    return dict(
        plain(
            {
                "protocol": context.protocol,
                "seed": context.seed,
                "virtual_s": context.virtual_s,
                "wall_s": context.wall_s,
                "stopped_by": context.stopped_by,
                "accuracy": _accuracy(log, "test") | {"by_domain": _by_domain(context)},
                "validation": _accuracy(log, "validation"),
                "bytes": _bytes(log.of(Transfer)),
                "leaves": leaves(log.of(Transfer)),
                "requests": _requests(log.of(Outcome)),
                "requests_under_way": _under_way(log.of(Outcome), context.virtual_s),
                "groups": _groups(log.of(Group)),
                "updates": len(log.of(Update)),
                "staleness": _staleness(log.of(Update)),
                "learning": _learning(log, context.candidate_correct),
                "load": _load(log),
                "billed": context.billed,
                "privacy": context.privacy,
                "clients": _clients(log.of(Member)),
                "one_off": {"client_training": _client_training(log.of(Member))},
                **({} if context.detection is None else {"detection": context.detection}),
                "records_sha256": log.sha256(),
            }
        )
    )


def leaves(rows: Iterable[Transfer]) -> list[str]:
    """What has left the clients: ``scalars``, ``answers``, ``weights``, ``synthetic rows``, ``private rows``; in that order.

    Bytes of a message that was cut or came too late have left as well.
    """
    purposes = {row.purpose for row in rows if row.direction == "up" and row.wire_bytes > 0}
    return list(dict.fromkeys(kind for purpose, kind in LEAVES.items() if purpose in purposes))


def within_group_auc(
    rewards: Iterable[Reward], candidate_correct: Mapping[int, Sequence[bool]]
) -> float | None:
    """Probability that a right candidate is scored above a wrong one of the same group; ties count one half.

    AUC = sum over groups, right i and wrong j of (1[r_i > r_j] + 1/2 1[r_i = r_j]) / number of such pairs.
    Each pair weighs the same. Scores that are NaN, and draws without known correctness, are left out.

    Returns:
        The AUC in [0, 1], or None if no group holds both a right and a wrong candidate.
    """
    won = 0.0
    pairs = 0
    for row in rewards:
        known = candidate_correct.get(row.draw)
        if known is None:
            continue
        # A partial reply scores the first candidates only; more scores than candidates are a bug.
        of_scored = zip(row.rewards, known[: len(row.rewards)], strict=True)
        scored = [(score, right) for score, right in of_scored if not math.isnan(score)]
        right_scores = [score for score, right in scored if right]
        wrong_scores = [score for score, right in scored if not right]
        pairs += len(right_scores) * len(wrong_scores)
        won += sum((good > bad) + 0.5 * (good == bad) for good in right_scores for bad in wrong_scores)
    return won / pairs if pairs else None


def _accuracy(log: RecordLog, split: str) -> dict[str, Any]:
    rows = [row for row in log.of(Evaluation) if row.split == split]
    first, last = (rows[0], rows[-1]) if rows else (None, None)
    return {
        name: {"initial": getattr(first, name, None), "final": getattr(last, name, None)}
        for name in ("greedy", "pass_at_1", "pass_at_8")
    } | {"num_questions": last.num_questions if last else 0}


def _by_domain(context: SummaryContext) -> dict[str, dict[str, float | None]]:
    initial, final = context.initial_by_domain, context.final_by_domain
    return {
        domain: {"initial": initial.get(domain), "final": final.get(domain)}
        for domain in {**initial, **final}
    }


def _bytes(rows: list[Transfer]) -> dict[str, Any]:
    directions: Counter[str] = Counter()
    fates: Counter[str] = Counter()
    purposes: Counter[str] = Counter()
    for row in rows:
        directions[row.direction] += row.wire_bytes
        fates[row.fate] += row.wire_bytes
        purposes[row.purpose] += row.wire_bytes
    return {
        "paper": {"uplink": sum(row.paper_bytes for row in rows)},
        "wire": {"uplink": directions["up"], "downlink": directions["down"]},
        "by_fate": {fate: fates[fate] for fate in FATES},
        "by_purpose": {purpose: purposes[purpose] for purpose in PURPOSES},
    }


def _requests(rows: list[Outcome]) -> dict[str, int]:
    counts = Counter(row.status for row in rows)
    return {status: counts[status] for status in STATUSES} | {"total": len(rows)}


def _under_way(rows: list[Outcome], virtual_s: float) -> int:
    """Requests without a usable reply that the protocol's end overtook: they ended after it."""
    return sum(row.status != "ok" and row.ended_at_s > virtual_s for row in rows)


def _groups(rows: list[Group]) -> dict[str, int]:
    counts: Counter[str] = Counter(row.fate for row in rows)
    fates = ("trained", "too_stale", "no_experts", "no_rewards")
    return {fate: counts[fate] for fate in fates} | {"total": len(rows)}


def _staleness(rows: list[Update]) -> dict[str, float | int | None]:
    return {
        "mean": _weighted_mean((row.staleness_mean, row.num_groups) for row in rows),
        "max": max((row.staleness_max for row in rows), default=None),
    }


def _learning(log: RecordLog, candidate_correct: Mapping[int, Sequence[bool]]) -> dict[str, Any]:
    evaluations = log.of(Evaluation)
    tested = [row for row in evaluations if row.split == "test"] or evaluations
    last = tested[-1] if tested else None
    scored = [row for row in log.of(Group) if row.fate in ("trained", "too_stale")]
    by_client: dict[int, list[Reward]] = defaultdict(list)
    by_evaluator: dict[str, list[Reward]] = defaultdict(list)
    for row in log.of(Reward):
        by_client[row.client_id].append(row)
        by_evaluator[row.evaluator].append(row)
    return {
        "entropy": last.entropy if last else None,
        "kl_to_initial": last.kl_to_initial if last else None,
        "clip_fraction": _weighted_mean((row.clip_fraction, row.num_candidates) for row in log.of(Update)),
        "zero_variance_share": sum(row.zero_variance for row in scored) / len(scored) if scored else None,
        "reward_auc_by_client": {
            "server" if client == SERVER_ID else str(client): within_group_auc(rows, candidate_correct)
            for client, rows in sorted(by_client.items())
        },
        "reward_auc_by_evaluator": {
            evaluator: within_group_auc(rows, candidate_correct)
            for evaluator, rows in sorted(by_evaluator.items())
        },
    }


def _load(log: RecordLog) -> dict[str, dict[str, float | int]]:
    """Requests, busy seconds and energy (computing and radio) of each class; the server is a class of its own."""
    class_of = {row.client_id: row.device_class for row in log.of(Presence)}
    class_of |= {row.client_id: row.device_class for row in log.of(Outcome)}
    class_of[SERVER_ID] = "server"
    requests = Counter(row.device_class for row in log.of(Outcome))
    busy_s: dict[str, list[float]] = defaultdict(list)
    energy_j: dict[str, list[float]] = defaultdict(list)
    for row in log.of(Compute):
        device_class = class_of.get(row.client_id, "unknown")
        busy_s[device_class].append(row.end_at_s - row.start_at_s)
        energy_j[device_class].append(row.energy_j)
    for transfer in log.of(Transfer):
        energy_j[class_of.get(transfer.client_id, "unknown")].append(transfer.energy_j)
    return {
        device_class: {
            "requests": requests[device_class],
            # fsum: the same digits whatever the order of the rows.
            "busy_s": math.fsum(busy_s[device_class]),
            "energy_j": math.fsum(energy_j[device_class]),
        }
        for device_class in sorted({*class_of.values(), *busy_s})
    }


def _clients(rows: list[Member]) -> dict[str, Any]:
    """How many clients there are, and how many of them cannot hold the model."""
    by_class: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = by_class.setdefault(row.device_class, {"total": 0, "too_small": 0})
        counts["total"] += 1
        counts["too_small"] += not row.takes_part
    return {
        "total": len(rows),
        "too_small": sum(not row.takes_part for row in rows),
        "by_class": dict(sorted(by_class.items())),
    }


def _client_training(rows: list[Member]) -> dict[str, float]:
    """Training the clients' own models before the run; all devices at once take ``longest_s``, one by one ``device_s``."""
    return {
        "device_s": math.fsum(row.training_s for row in rows),
        "longest_s": max((row.training_s for row in rows), default=0.0),
        "flop": math.fsum(row.training_flop for row in rows),
        "energy_j": math.fsum(row.training_energy_j for row in rows),
    }


def _weighted_mean(pairs: Iterable[tuple[float, float]]) -> float | None:
    known = [(value, weight) for value, weight in pairs if not math.isnan(value)]
    total = math.fsum(weight for _, weight in known)
    return math.fsum(value * weight for value, weight in known) / total if total > 0 else None
