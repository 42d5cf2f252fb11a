"""Central training on pooled data: every client sends all its private rows once, and the server trains on them.

The conventional upper bound of federated learning: nothing stays private, and the bytes of all rows are counted (once: the
rows do not change). ``objective: sft`` is supervised fine-tuning on the rows, ``grpo`` is GRPO on their questions with
1[candidate = answer] as reward. Where `central_grpo` learns from the truth on the server's own questions Ds and moves no
byte, this one learns from the clients' rows.

A row travels as its question and answer text: no domain, no owner. A client without rows answers with none, since it
was asked for all it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from fedsim.errors import FederationError
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.protocols.shared.group_relative import ServerRewardedConfig
from fedsim.protocols.shared.one_shot import GatheringConfig, gather
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.protocols.shared.supervised import Objective, learn_from_rows
from fedsim.sim.devices.cost import NO_WORK, Work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import Question

CLIENT_RUNS = "nothing"
"""Clients only send what they have."""

FIRST_ROW_ID = 10**9
"""Received rows are numbered from here, beyond the ids of the server's own questions."""


class Config(ServerRewardedConfig, GatheringConfig):
    """Pooled training: all private rows go up; the server trains on them."""

    name: Literal["central_pooled"] = Field(
        "central_pooled", description="all private rows go up; the server trains on them"
    )
    objective: Objective = Field(
        "sft", description="sft: fine-tuning on the rows; grpo: their answers as reward"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Collect every client's rows, then train on all of them until the run's stop condition."""
    replies = await gather(federation, wire.RowsRequest(wire.pack_id(0)), config)
    rows = received_rows(replies.values(), "pooled", state.data.answers)
    if not rows:
        raise FederationError("the clients that answered have no private row")
    await learn_from_rows(federation, config, state, rows, config.objective)


def received_rows(replies: Iterable[wire.Message], domain: str, rule: AnswerRule) -> list[Question]:
    """Rows that came up, as questions; their domain did not travel, so all get the same name.

    Of a worked solution the answer is what the rule finds in it; what else would be right did not travel either.
    """
    pairs = [
        pair
        for reply in replies
        if isinstance(reply, wire.Rows)
        for pair in zip(reply.questions, reply.answers, strict=True)
    ]
    rows = []
    for index, (text, taught) in enumerate(pairs):
        found = "" if rule.pattern is None else rule.extract(taught)
        solution = taught if found else ""
        rows.append(Question(FIRST_ROW_ID + index, domain, text, found or taught, solution=solution))
    return rows


def send_rows(client: ClientState, message: wire.RowsRequest) -> HandlerResult:
    """All private rows, as text."""
    rows = client.rows
    return HandlerResult(
        wire.Rows(message.draw, tuple(row.text for row in rows), tuple(row.taught for row in rows))
    )


def no_work(client: ClientState, message: wire.RowsRequest) -> Work:
    """Reading rows from storage is not counted."""
    return NO_WORK


HANDLERS: Mapping[type[wire.Message], Handler] = {wire.RowsRequest: Handler(send_rows, no_work, wire.Rows)}
