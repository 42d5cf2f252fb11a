"""Sums over records that come in pieces: what a summary is made of.

Each keeps what its sum needs and no row; sums of floats are exact (``ExactSum``), so the pieces and their order do not show.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedsim.records.log import Chunk
from fedsim.records.rows import (
    FATES,
    PURPOSES,
    SERVER_ID,
    Compute,
    Member,
    Outcome,
    Presence,
    Reward,
    Transfer,
    Update,
)

REVEALED = ("scalars", "answers", "weights", "synthetic rows", "private rows")
"""What our messages reveal about the clients that send them, from the least to the most."""

_MOST_PARTS = 256


class ExactSum:
    """The correctly rounded sum of everything that was added, as ``math.fsum`` over all of it at once would give.

    What was added is kept as a short list of floats with exactly the same sum: of each piece its rounded sum, the rounded sum
    of what that leaves, and so on until nothing is left (an error-free transformation; Shewchuk, 1997).
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, values: Iterable[float]) -> None:
        """Add a piece."""
        self._parts += _expansion([*values])
        if len(self._parts) > _MOST_PARTS:
            self._parts = _expansion(self._parts)

    def join(self, other: ExactSum) -> None:
        """Add everything that was added to another sum."""
        self.add(other._parts)

    def value(self) -> float:
        """The sum so far; 0.0 of nothing."""
        return math.fsum(self._parts)


@dataclass(slots=True)
class Traffic:
    """Bytes by what they were for, and what has left the clients."""

    paper_bytes: int = 0
    by_direction: Counter[str] = field(default_factory=Counter)
    by_fate: Counter[str] = field(default_factory=Counter)
    by_purpose: Counter[str] = field(default_factory=Counter)
    sent_up: set[str] = field(default_factory=set)

    def add(self, rows: list[Transfer]) -> None:
        """Count messages."""
        directions, fates, purposes = self.by_direction, self.by_fate, self.by_purpose
        for row in rows:
            wire_bytes = row.wire_bytes
            directions[row.direction] += wire_bytes
            fates[row.fate] += wire_bytes
            purposes[row.purpose] += wire_bytes
        self.paper_bytes += sum(row.paper_bytes for row in rows)
        self.sent_up.update(row.purpose for row in rows if row.direction == "up" and row.wire_bytes > 0)

    def leaves(self, reveals: Mapping[str, str | None]) -> list[str]:
        """What has left the clients: ours in the order of ``REVEALED``, then what third parties' messages reveal, by name.

        Bytes of a message that was cut or came too late have left as well. A purpose that ``reveals`` does not know is named.
        """
        told = [reveals.get(purpose, f"{purpose} (undeclared)") for purpose in self.sent_up]
        kinds = {kind for kind in told if kind is not None}
        return [*(kind for kind in REVEALED if kind in kinds), *sorted(kinds.difference(REVEALED))]

    def to_dict(self) -> dict[str, Any]:
        """Both accounts, and wire bytes by fate and purpose."""
        return {
            "paper": {"uplink": self.paper_bytes},
            "wire": {"uplink": self.by_direction["up"], "downlink": self.by_direction["down"]},
            "by_fate": {fate: self.by_fate[fate] for fate in FATES},
            "by_purpose": {purpose: self.by_purpose[purpose] for purpose in in_order(self.by_purpose)},
        }


def in_order(purposes: Iterable[str]) -> list[str]:
    """All of our purposes, then those of third parties among these, by name."""
    return [*PURPOSES, *sorted({*purposes} - {*PURPOSES})]


@dataclass(slots=True)
class WeightedMean:
    """Mean of values that may be NaN, which do not count, by weights; exact sums."""

    products: ExactSum = field(default_factory=ExactSum)
    weights: ExactSum = field(default_factory=ExactSum)

    def add(self, pairs: Iterable[tuple[float, float]]) -> None:
        """Add (value, weight) pairs."""
        known = [(value, weight) for value, weight in pairs if not math.isnan(value)]
        self.products.add(value * weight for value, weight in known)
        self.weights.add(weight for _, weight in known)

    def value(self) -> float | None:
        """The mean, or None where nothing weighs."""
        total = self.weights.value()
        return self.products.value() / total if total > 0 else None


@dataclass(slots=True)
class Steps:
    """What the optimiser steps were made of."""

    num: int = 0
    staleness_max: int | None = None
    staleness: WeightedMean = field(default_factory=WeightedMean)
    clip_fraction: WeightedMean = field(default_factory=WeightedMean)

    def add(self, rows: list[Update]) -> None:
        """Count optimiser steps."""
        if not rows:
            return
        self.num += len(rows)
        highest = max(row.staleness_max for row in rows)
        self.staleness_max = highest if self.staleness_max is None else max(highest, self.staleness_max)
        self.staleness.add((row.staleness_mean, row.num_groups) for row in rows)
        self.clip_fraction.add((row.clip_fraction, row.num_candidates) for row in rows)


@dataclass(slots=True)
class Auc:
    """Probability that a right candidate is scored above a wrong one of the same group; ties count one half.

    AUC = sum over groups, right i and wrong j of (1[r_i > r_j] + 1/2 1[r_i = r_j]) / number of such pairs. Each pair weighs
    the same. Scores that are NaN, and draws without known correctness, are left out.
    """

    won: float = 0.0
    pairs: int = 0

    def add(self, won: float, pairs: int) -> None:
        """Add the pairs of one group."""
        self.won += won
        self.pairs += pairs

    def value(self) -> float | None:
        """Share of the pairs that were won, or None where there are none."""
        return self.won / self.pairs if self.pairs else None


class Scores:
    """How well each client's and each evaluator's scores tell right from wrong."""

    def __init__(self, candidate_correct: Mapping[int, Sequence[bool]]) -> None:
        self._correct = candidate_correct
        self.by_client: dict[int, Auc] = defaultdict(Auc)
        self.by_evaluator: dict[str, Auc] = defaultdict(Auc)

    def add(self, rows: list[Reward]) -> None:
        """Count replies."""
        for row in rows:
            known = self._correct.get(row.draw)
            won, pairs = (0.0, 0) if known is None else pairs_won(row, known)
            self.by_client[row.client_id].add(won, pairs)
            self.by_evaluator[row.evaluator].add(won, pairs)


def pairs_won(row: Reward, known: Sequence[bool]) -> tuple[float, int]:
    """Pairs of one group that the right candidate won, and all of its pairs."""
    # A partial reply scores the first candidates only; more scores than candidates are a bug.
    of_scored = zip(row.rewards, known[: len(row.rewards)], strict=True)
    scored = [(score, right) for score, right in of_scored if not math.isnan(score)]
    right_scores = [score for score, right in scored if right]
    wrong_scores = [score for score, right in scored if not right]
    won = sum((good > bad) + 0.5 * (good == bad) for good in right_scores for bad in wrong_scores)
    return won, len(right_scores) * len(wrong_scores)


class Load:
    """Requests, busy seconds and energy (computing and radio) of each class; the server is a class of its own."""

    def __init__(self) -> None:
        self._class_of: dict[int, str] = {SERVER_ID: "server"}
        self._classes = {"server"}  # of clients that were there, or were asked
        self._requests: Counter[str] = Counter()
        self._busy_s: dict[str, ExactSum] = defaultdict(ExactSum)
        self._energy_j: dict[str, ExactSum] = defaultdict(ExactSum)
        # Of clients whose class is not known yet, by client.
        self._early_busy_s: dict[int, ExactSum] = defaultdict(ExactSum)
        self._early_energy_j: dict[int, ExactSum] = defaultdict(ExactSum)

    def add(self, chunk: Chunk) -> None:
        """Count the next rows of all kinds."""
        class_of = self._class_of
        for member in chunk.of(Member):
            class_of.setdefault(member.client_id, member.device_class)
        there: list[Presence | Outcome] = [*chunk.of(Presence), *chunk.of(Outcome)]
        for row in there:
            class_of[row.client_id] = row.device_class
            self._classes.add(row.device_class)
        self._requests.update(row.device_class for row in chunk.of(Outcome))
        busy_s: dict[int, list[float]] = defaultdict(list)
        energy_j: dict[int, list[float]] = defaultdict(list)
        for compute in chunk.of(Compute):
            busy_s[compute.client_id].append(compute.end_at_s - compute.start_at_s)
            energy_j[compute.client_id].append(compute.energy_j)
        for transfer in chunk.of(Transfer):
            energy_j[transfer.client_id].append(transfer.energy_j)
        self._sort(busy_s, self._busy_s, self._early_busy_s)
        self._sort(energy_j, self._energy_j, self._early_energy_j)

    def _sort(
        self, by_client: dict[int, list[float]], by_class: dict[str, ExactSum], early: dict[int, ExactSum]
    ) -> None:
        together: dict[str, list[float]] = defaultdict(list)
        for client, values in by_client.items():
            device_class = self._class_of.get(client)
            if device_class is None:
                early[client].add(values)
            else:
                together[device_class] += values
        for device_class, values in together.items():
            by_class[device_class].add(values)

    def to_dict(self) -> dict[str, dict[str, float | int]]:
        """By class, in the order of their names."""
        for early, by_class in (
            (self._early_busy_s, self._busy_s),
            (self._early_energy_j, self._energy_j),
        ):
            for client, total in early.items():
                by_class[self._class_of.get(client, "unknown")].join(total)
            early.clear()
        return {
            device_class: {
                "requests": self._requests[device_class],
                # Exact sums: the same digits whatever the order of the rows.
                "busy_s": self._busy_s[device_class].value(),
                "energy_j": self._energy_j[device_class].value(),
            }
            for device_class in sorted({*self._classes, *self._busy_s})
        }


class Clients:
    """How many clients there are, how many of them cannot hold the model, and what their own models took before the run."""

    def __init__(self) -> None:
        self._by_class: dict[str, dict[str, int]] = {}
        self._longest_s = 0.0
        self._device_s, self._flop, self._energy_j = ExactSum(), ExactSum(), ExactSum()

    def add(self, rows: list[Member]) -> None:
        """Count clients."""
        for row in rows:
            counts = self._by_class.setdefault(row.device_class, {"total": 0, "too_small": 0})
            counts["total"] += 1
            counts["too_small"] += not row.takes_part
            self._longest_s = max(self._longest_s, row.training_s)
        self._device_s.add(row.training_s for row in rows)
        self._flop.add(row.training_flop for row in rows)
        self._energy_j.add(row.training_energy_j for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """All of them, and by class."""
        return {
            "total": sum(counts["total"] for counts in self._by_class.values()),
            "too_small": sum(counts["too_small"] for counts in self._by_class.values()),
            "by_class": dict(sorted(self._by_class.items())),
        }

    def training(self) -> dict[str, float]:
        """All devices at once take ``longest_s``, one by one ``device_s``."""
        return {
            "device_s": self._device_s.value(),
            "longest_s": self._longest_s,
            "flop": self._flop.value(),
            "energy_j": self._energy_j.value(),
        }


def _expansion(values: list[float]) -> list[float]:
    """A few floats whose exact sum is that of ``values``."""
    if len(values) < 2:
        return values
    parts: list[float] = []
    rest = values
    while (part := math.fsum(rest)) != 0.0:
        parts.append(part)
        if not math.isfinite(part):
            break
        rest = [*rest, -part]
    return parts
