"""Borda: clients rank a question's candidates, and the server learns from the points that the ranks are worth.

A protocol of a third party in one file, as docs/plugins.md describes it: two messages of its own, settings, the server's half,
the clients' half. Of G candidates a client's best one gets G - 1 points and its worst none (Borda, 1784); a reward is a
share of the points that one can get. So what leaves a client is an order of candidates, and no score.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from fedsim.config.strict import AtMostClients
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.models.interfaces import CandidateGroup
from fedsim.protocols.shared.group_relative import GroupRelativeConfig, train
from fedsim.protocols.shared.learner import Judgement
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.sim import streams
from fedsim.sim.devices.cost import Work, score_work
from fedsim.sim.network import wire


class Ballot(wire.OfDraw, frozen=True, array_like=True, tag="borda.ballot"):
    """Down: a question and the candidates to be ranked."""

    purpose = "ballot"
    texts: ClassVar[dict[str, wire.TextKind]] = {"question": "question", "candidates": "candidate"}

    question: str
    candidates: tuple[str, ...]


class Ranking(wire.OfDraw, frozen=True, array_like=True, tag="borda.ranking"):
    """Up: the points of every candidate, a byte each."""

    purpose = "ranking"
    reveals = "rankings"

    points: wire.Array


class Config(GroupRelativeConfig):
    """Settings: those of all protocols that learn from groups, and who votes."""

    name: Literal["borda"] = Field("borda", description="rewards are the points of ranks")
    num_voters: Annotated[int, AtMostClients()] = Field(
        2, ge=1, description="clients that rank a question (count)"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """The server's half: ask some of those who are there, in an order that the question's key draws."""

    async def judge(group: CandidateGroup) -> Judgement:
        draw = group.draw
        await federation.any_online(range(len(federation.clients)))
        voters = sorted(
            federation.online(),
            key=lambda client_id: streams.uniform(state.seed, "voter", draw.index, client_id),
        )[: config.num_voters]
        message = Ballot(wire.pack_id(draw.index), draw.question.text, tuple(group.texts))
        subject = Subject(draw.index, draw.question.question_id, draw.epoch)
        replies = await federation.broadcast(message, voters, subject)
        rewards = np.full((len(voters), len(group.texts)), np.nan)
        for row, reply in enumerate(replies.values()):
            if isinstance(reply, Ranking):  # else the error that ended the request
                rewards[row] = reply.points.array() / max(len(group.texts) - 1, 1)
        return Judgement(rewards, num_experts=len(voters))

    await train(federation, config, state, state.data.pool, judge)


def rank(client: ClientState, message: Ballot) -> HandlerResult:
    """The clients' half: candidates in the order of the client's own model."""
    likelihood = client.evaluator.likelihood(message.question, message.candidates)
    points = np.argsort(np.argsort(likelihood, kind="stable"), kind="stable")
    return HandlerResult(Ranking(message.draw, wire.Array.of("points", points, "uint8")))


def rank_cost(client: ClientState, message: Ballot) -> Work:
    """One prefill of prompt and candidates, from token counts alone."""
    lengths = [client.tokens.candidate(text) for text in message.candidates]
    return score_work(client.spec, client.tokens.question(message.question), lengths)


def expect_rank(client: ClientState, message: Ballot) -> None:
    """Announce a score, so that real ones are computed in batches."""
    client.evaluator.expect(message.question, message.candidates)


def refused(message: Ballot, reply: Any) -> str | None:
    """The server's boundary: as many points as candidates, each number of points once."""
    points = sorted(reply.points.array().ravel().tolist())
    return (
        None
        if points == [*range(len(message.candidates))]
        else "points that are no ranking of the candidates"
    )


HANDLERS = {Ballot: Handler(rank, rank_cost, Ranking, expect_rank, refused)}
