"""Control: the chosen experts send their own answers, and the server is fine-tuned on them (SFT, no RL).

Same selection, same questions, same number of requests as FedGRPO, but text leaves the clients: this control is *not*
scalar-only, and its uplink carries answers. It shows what the privacy of scalars costs, or does not cost.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from fedsim.config.limits import MAX_UNDER_WAY
from fedsim.errors import FederationError
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.federation.stragglers.config import refuse_rules_for_rewards
from fedsim.federation.stragglers.policies import Stragglers
from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.protocols.shared.client_selection import PROBE_HANDLERS, Experts, ExpertsConfig
from fedsim.protocols.shared.learner import HOPELESS_GROUPS
from fedsim.protocols.shared.rollouts import QuestionStream
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.sim.devices.cost import Work, generate_work, training_work
from fedsim.sim.network import wire
from fedsim.tasks.questions import Question


class Config(PolicyConfig, ExpertsConfig):
    """Control: SFT on the experts' own answers (not scalar-only), one round of questions per update."""

    name: Literal["distil"] = Field(
        "distil", description="control: SFT on the experts' own answers (not scalar-only)"
    )
    questions_per_update: int = Field(
        96, ge=1, le=MAX_UNDER_WAY, description="questions in one round (count)"
    )

    @model_validator(mode="after")
    def _answers_are_no_rewards(self) -> Config:
        refuse_rules_for_rewards(self.stragglers, "an answer")
        return self


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Rounds of questions; one pass of SFT over the answers that came back."""
    experts = Experts(federation, config, state)
    stragglers = Stragglers(config.stragglers, federation.now_s)
    stream = QuestionStream(state.data.pool, state.seed)
    num_unanswered = 0
    async with asyncio.TaskGroup() as tasks:
        await experts.start(tasks)
        while True:
            draws = [stream.next() for _ in range(config.questions_per_update)]
            answered = await asyncio.gather(*(_ask(federation, stragglers, experts, draw) for draw in draws))
            rows = [row for rows in answered for row in rows]
            num_unanswered = 0 if rows else num_unanswered + len(draws)
            if num_unanswered >= HOPELESS_GROUPS:
                raise FederationError(f"{num_unanswered} questions in a row brought no answer")
            if not rows:
                continue
            lengths = [
                state.tokens.question(row.text) + state.tokens.candidate(row.answer) + 1 for row in rows
            ]
            work = training_work(state.spec, lengths)
            await federation.server.compute(work, "update", state.policy.version)
            stats = state.policy.fit(rows, steps=math.ceil(len(rows) / config.fit_batch_size))
            state.monitor.updated(stats, [], len(rows), 0.0)
            await state.monitor.pause_if_over()


async def _ask(
    federation: Federation, stragglers: Stragglers, experts: Experts, draw: Draw
) -> list[Question]:
    chosen = await experts.choose(draw)
    message = wire.QuestionOnly(wire.pack_id(draw.index), draw.question.text)
    subject = Subject(draw.index, draw.question.question_id, draw.epoch)
    replies = await stragglers.collect(
        lambda client_id, _: federation.clients[client_id].request(message, subject),
        chosen,
        experts.spares(draw, chosen),
    )
    return [
        replace(draw.question, answer=reply.answer, accepted=(), solution="")
        for reply in replies.values()
        if isinstance(reply, wire.Answer)
    ]


def answer(client: ClientState, message: wire.QuestionOnly) -> HandlerResult:
    """The client's own greedy answer, as text."""
    return HandlerResult(wire.Answer(message.draw, client.evaluator.answers([message.question])[0]))


def answer_cost(client: ClientState, message: wire.QuestionOnly) -> Work:
    """Decoding one answer."""
    own = client.evaluator.answers([message.question])[0]
    tokens = client.tokens
    return generate_work(client.spec, [tokens.question(message.question)], [[tokens.candidate(own) + 1]])


def expect_answer(client: ClientState, message: wire.QuestionOnly) -> None:
    """Announce an own answer, so that real ones are computed in batches."""
    client.evaluator.expect_answer(message.question)


HANDLERS: Mapping[type[wire.Message], Handler] = {
    **PROBE_HANDLERS,
    wire.QuestionOnly: Handler(answer, answer_cost, wire.Answer, expect_answer),
}
