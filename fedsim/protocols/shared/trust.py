"""What a server makes of several experts' scores: how it fuses them, and how far it believes each of them.

``reliability`` and ``routed`` need scores of candidates whose rightness the server knows. So it audits: at the start, questions
of the auxiliary set with candidates that it samples itself go to every client as ordinary ``Candidates``, one after the other,
charged like any other; a client cannot tell an audit from work (the draw's number is the simulator's). Nothing is learned from
an audit but whom to believe.

What the server believes (`rl/reliability.py`) is kept whatever the fusion, since it costs nothing but arithmetic, and left for
the run folder; only ``fusion: reliability`` acts on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from fedsim.config.strict import StrictModel
from fedsim.errors import FederationError, ReplyRejected, RequestError
from fedsim.federation.clients import Client, Federation
from fedsim.federation.handlers import Subject
from fedsim.models.interfaces import CandidateGroup, Draw, FloatArray
from fedsim.protocols.shared.state import ServerState
from fedsim.rl import reliability, reward_router
from fedsim.rl.fusion import Fuse, Fusion, fused
from fedsim.sim.devices.cost import generate_work
from fedsim.sim.network import wire
from fedsim.tasks.questions import Question

AUDIT_DRAWS = 2**40
"""Draws from here on are audits: no question of the stream gets so far."""


class TrustConfig(StrictModel):
    """What is believed of an expert, what evidence counts, and when it is distrusted."""

    prior: float = Field(
        0.75, gt=0, lt=1, description="t_0, trust in an expert before anything is known (probability)"
    )
    strength: float = Field(4.0, gt=0, description="s, units of evidence that the prior is worth")
    memory: float = Field(
        0.99, gt=0, le=1, description="share of older evidence by agreement that each further group leaves"
    )
    audit_weight: float = Field(5.0, gt=0, description="w, groups of agreement that one audit counts for")
    distrust_below: float = Field(
        0.57, gt=0, lt=1, description="an expert is reported as distrusted below this trust (a coin has 0.5)"
    )
    silent_below: float = Field(
        0.3, ge=0, le=1, description="or if the share of its replies that came in time is below this"
    )
    slow_factor: float = Field(
        10.0, gt=1, description="or if its replies took so many times the middle expert's mean wait"
    )
    at_least: int = Field(
        10, ge=1, description="an expert asked less often than this is not reported (requests)"
    )

    @property
    def as_prior(self) -> reliability.Prior:
        """The part that is the update rule's."""
        return reliability.Prior(self.prior, self.strength, self.memory, self.audit_weight)


class FusionConfig(StrictModel):
    """How several experts' scores become one."""

    fusion: Fusion = Field(
        "mean",
        description="one number of several experts': mean (the paper), weighted by competence for the question, by "
        "reliability (agreement, audits) or by a router (routed, MoR); applied to rewards under grouping candidates, to "
        "standardised rewards under per_expert and joint",
    )
    trim: float = Field(
        0.2, ge=0, le=0.5, description="trimmed_mean: share of the scores cut off at each end, rounded down"
    )
    audits: int | None = Field(
        None,
        ge=0,
        description="auxiliary questions sent to each client for scores that the server can check (count; default 20 "
        "with fusion reliability or routed)",
    )
    router_penalty: float = Field(
        1e-3, gt=0, description="routed: lambda, weight of the squared router in its loss"
    )
    router_temperature: float = Field(
        0.25, gt=0, description="routed: T of the softmax over experts (embeddings have length 1)"
    )
    trust: TrustConfig = Field(TrustConfig.defaults(), description="how far the server believes each expert")

    @property
    def num_audits(self) -> int:
        """Audits per client."""
        if self.audits is not None:
            return self.audits
        return 20 if self.fusion in ("reliability", "routed") else 0

    @model_validator(mode="after")
    def _router_is_trained(self) -> FusionConfig:
        if self.fusion == "routed" and self.num_audits == 0:
            raise ValueError("fusion routed needs audits: its router is trained on their scores")
        return self


@dataclass(slots=True)
class Conduct:
    """How one expert behaved: requests that ended, those answered in time, those refused, and seconds waited for them."""

    asked: int = 0
    answered: int = 0
    refused: int = 0
    waited_s: float = 0.0


class Trust:
    """What the server believes, and what it makes of scores."""

    def __init__(self, federation: Federation, config: FusionConfig, state: ServerState) -> None:
        num_clients = len(federation.clients)
        self._federation = federation
        self._config = config
        self._prior = config.trust.as_prior
        self._state = state
        self._evidence = reliability.no_evidence(num_clients)
        self._conduct = [Conduct() for _ in range(num_clients)]
        self._questions: list[_Audit] = []
        self._audited: dict[tuple[int, int], FloatArray] = {}
        self._router: FloatArray | None = None
        self._calibration = reward_router.calibration(np.full((num_clients, 1), np.nan))
        state.artefacts["trust"] = self.report

    # Fusing.

    def weights(
        self, experts: Sequence[int], competence: FloatArray, embedding: FloatArray
    ) -> FloatArray | None:
        """What each of these experts counts, ``[M]``; None: alike, or the rule takes no weights."""
        rule, ids = self._config.fusion, list(experts)
        if rule == "competence":
            return competence
        if rule == "reliability":
            return reliability.voting_weights(self.trusts()[ids])
        if rule == "routed" and self._router is not None:
            return reward_router.shares(self._router, embedding, self._config.router_temperature)[ids]
        return None

    def fuse(self, experts: Sequence[int], are_raw: bool) -> Fuse:
        """The rule for scores of these experts; ``are_raw``: they are rewards, each expert on its own scale."""
        rule = partial(fused, fusion=self._config.fusion, trim=self._config.trim)
        if self._config.fusion != "routed" or not are_raw:
            return rule
        ids = list(experts)
        return lambda scores, weights: rule(self._calibration.applied(scores, ids), weights)

    # Learning whom to believe.

    def trusts(self) -> FloatArray:
        """t_k, ``[K]``."""
        return reliability.trust(self._evidence, self._prior)

    def observe(self, experts: Sequence[int], rewards: FloatArray) -> None:
        """Learn from what these experts said of one group, ``[M, G]``."""
        if len(experts) > 1:
            self._evidence = reliability.after_group(self._evidence, experts, rewards, self._prior)

    async def ask(self, client_id: int, asking: Awaitable[wire.Message]) -> wire.Message:
        """Await one expert's reply and remember how it behaved; what the end of the run cut short is nobody's fault."""
        conduct, asked_at_s = self._conduct[client_id], self._federation.now_s()
        try:
            reply = await asking
        except ReplyRejected:
            conduct.refused += 1
            self._evidence = reliability.after_refusal(self._evidence, client_id)
            raise
        else:
            conduct.answered += 1
            return reply
        finally:
            if not self._state.monitor.stopped.is_set():
                conduct.asked += 1
                conduct.waited_s += self._federation.now_s() - asked_at_s

    # Audits.

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Sample the audits' candidates, and send every client its audits in the background."""
        if not self._config.num_audits:
            return
        self._questions = await self._sampled(self._state.data.auxiliary[: self._config.num_audits])
        if self._questions:
            for client in self._federation:
                tasks.create_task(self._audit(client), name=f"audits of client {client.client_id}")

    async def _sampled(self, questions: Sequence[Question]) -> list[_Audit]:
        """Groups of candidates for these questions, those of one kind left out; the label joins where no candidate is right."""
        draws = [Draw(AUDIT_DRAWS + place, question) for place, question in enumerate(questions)]
        groups = self._state.policy.sample(draws)
        self._state.policy.forget([draw.index for draw in draws])
        tokens, spec = self._state.tokens, self._state.spec
        answers = [[tokens.sampled(c.text, c.num_tokens) for c in group.candidates] for group in groups]
        prompts = [tokens.question(question.text) for question in questions]
        if draws:
            await self._federation.server.compute(
                generate_work(spec, prompts, answers), "sample", draws[0].index
            )
        audits = [self._audit_of(group) for group in groups]
        return [audit for audit in audits if any(audit.right) and not all(audit.right)]

    def _audit_of(self, group: CandidateGroup) -> _Audit:
        question, rule = group.draw.question, self._state.data.answers
        texts = group.texts
        if not any(rule.right(text, question.answers) for text in texts):
            texts[group.draw.index % len(texts)] = question.taught
        return _Audit(question, tuple(texts), tuple(rule.right(text, question.answers) for text in texts))

    async def _audit(self, client: Client) -> None:
        """All audits of one client, one after the other, whenever it is there; one that fails is not repeated."""
        for place, audit in enumerate(self._questions):
            draw = AUDIT_DRAWS + (client.client_id + 1) * len(self._questions) + place
            message = wire.Candidates(wire.pack_id(draw), audit.question.text, audit.candidates)
            try:
                await client.online()
                reply = await client.request(message, Subject(draw, audit.question.question_id))
            except FederationError:
                return
            except ReplyRejected:
                self._evidence = reliability.after_refusal(self._evidence, client.client_id)
                continue
            except RequestError:
                continue
            assert isinstance(reply, wire.Rewards)
            scores = np.array(reply.rewards)
            self._audited[client.client_id, place] = scores
            self._evidence = reliability.after_audit(self._evidence, client.client_id, scores, audit.right)
        self._route()

    def _route(self) -> None:
        """Calibrate the clients, and train the router, on the audits that have come by now."""
        if self._config.fusion != "routed":
            return
        group_size = max(len(audit.candidates) for audit in self._questions)
        scores = np.full((len(self._conduct), len(self._questions), group_size), np.nan)
        for (client_id, place), row in self._audited.items():
            scores[client_id, place, : len(row)] = row
        self._calibration = reward_router.calibration(scores.reshape(len(scores), -1))
        margins = np.full((len(self._questions), len(self._conduct)), np.nan)
        for client_id, place in self._audited:
            right = np.array(self._questions[place].right)
            row = scores[client_id, place, : len(right)]
            gap = row[right].mean() - row[~right].mean()
            margins[place, client_id] = gap / self._calibration.deviations[client_id]
        self._router = reward_router.fitted(
            self._state.policy.embed([audit.question for audit in self._questions]),
            margins,
            self._config.router_penalty,
            self._config.router_temperature,
        )

    # What the server would say.

    def report(self) -> list[dict[str, Any]]:
        """One row per client: trust, conduct, and why it is distrusted, if it is."""
        trusts = self.trusts()
        waits = [one.waited_s / one.asked for one in self._conduct if one.asked]
        middle_s = float(np.median(waits)) if waits else 0.0
        audits = [0] * len(self._conduct)
        for client_id, _ in self._audited:
            audits[client_id] += 1
        return [
            {
                "client_id": client_id,
                "trust": float(trusts[client_id]),
                "asked": one.asked,
                "answered": one.answered,
                "refused": one.refused,
                "audits": audits[client_id],
                "mean_wait_s": one.waited_s / one.asked if one.asked else None,
                "reasons": self._reasons(float(trusts[client_id]), one, audits[client_id], middle_s),
            }
            for client_id, one in enumerate(self._conduct)
        ]

    def _reasons(self, trust: float, conduct: Conduct, audits: int, middle_s: float) -> list[str]:
        limits = self._config.trust
        if conduct.asked + audits < limits.at_least:
            return []
        reasons = ["scores"] if trust < limits.distrust_below else []
        if conduct.asked and conduct.answered < limits.silent_below * conduct.asked:
            reasons.append("silent")
        if conduct.asked and conduct.waited_s > limits.slow_factor * middle_s * conduct.asked:
            reasons.append("slow")
        return reasons


@dataclass(frozen=True, slots=True)
class _Audit:
    """A question whose answer the server knows, with candidates right and wrong."""

    question: Question
    candidates: tuple[str, ...]
    right: tuple[bool, ...]
