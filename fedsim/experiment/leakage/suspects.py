"""The rows that every attack asks about, and how well a score tells those that were trained on from the others.

Members are rows of one client; the others are validation and test questions of the same domains in the same numbers, on which
nobody trained. Clients are pooled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fedsim.models.interfaces import Components, Evaluator
from fedsim.privacy.membership import Membership, membership
from fedsim.sim import streams
from fedsim.tasks.questions import Question

FIRST_DRAW = 2**40
"""Draws and rounds of the attacks begin here: none of the run's own."""

Source = Literal["rewards", "answers", "adapters", "synthetic", "policy"]
Server = Literal["honest", "choosing"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One membership attack on a run: what it reads, at which server, what it asks, and how well it did (None: nothing)."""

    source: Source
    server: Server
    target: str
    how: str
    result: Membership | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row of which an attack asks whether it was in a client's training data."""

    client_id: int
    row: Question
    is_member: bool


def suspects(components: Components, seed: int, rows_per_client: int) -> Iterator[Suspect]:
    """Rows of every client, and as many questions of the same domains on which nobody trained."""
    unseen = [*components.data.validation, *components.data.test]
    for client_id, own in enumerate(components.data.private):
        taken = _sample(own, rows_per_client, seed, "members", client_id)
        for domain in components.data.domains:
            members = [row for row in taken if row.domain == domain]
            strangers = [row for row in unseen if row.domain == domain]
            others = _sample(strangers, len(members), seed, "others", client_id, domain)
            # As many of both: a client's domains must not tell its members from the others.
            yield from (Suspect(client_id, row, True) for row in members[: len(others)])
            yield from (Suspect(client_id, row, False) for row in others)


def attack_on_rows(
    source: Source, server: Server, how: str, rows: Sequence[Suspect], scores: Sequence[float], seed: int
) -> Attack:
    """What these scores, one a suspect, tell of who was trained on."""
    pairs: dict[bool, list[float]] = {True: [], False: []}
    for one, score in zip(rows, scores, strict=True):
        pairs[one.is_member].append(score)
    return Attack(source, server, "training row", how, membership(pairs[True], pairs[False], seed, how))


def log_likelihoods(scorer: Evaluator, rows: Sequence[Suspect]) -> list[float]:
    """The log-likelihood of every suspect's answer under a model (nats)."""
    for one in rows:
        scorer.expect(one.row.text, [one.row.taught])
    return [math.log(max(scorer.likelihood(one.row.text, [one.row.taught])[0], 1e-300)) for one in rows]


def gains(after: Sequence[float], before: Sequence[float]) -> list[float]:
    """Differences, one a suspect."""
    return [now - then for now, then in zip(after, before, strict=True)]


def _sample(rows: Sequence[Question], count: int, *key: streams.Part) -> list[Question]:
    order = streams.generator(*key).permutation(len(rows))[:count]
    return [rows[int(place)] for place in order]
