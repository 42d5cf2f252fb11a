"""Central-GRPO: the same policy, questions and optimiser, rewarded by the truth. The upper bound; no data moves.

The paper's baseline of the same name (PAPER, Table 1). The reward is 1[candidate = truth] on Ds, known to the server
without asking anybody, so the run has no requests and no bytes; its virtual time is the server's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from fedsim.federation import Federation
from fedsim.network import wire
from fedsim.protocols.group_relative import Judge, Judgement, ServerRewardedConfig, train
from fedsim.request import Handler
from fedsim.roles import Group
from fedsim.states import ServerState


class Config(ServerRewardedConfig):
    """Settings of Central-GRPO: those of the shared machinery."""

    name: Literal["central_grpo"] = Field(
        "central_grpo", description="truth as reward on Ds; the upper bound"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the truth as the only expert."""
    await train(federation, config, state, state.data.pool, truth_judge(state))


def truth_judge(state: ServerState) -> Judge:
    """A judge that knows the truth: one expert, reward 1[candidate = answer]."""

    async def judge(group: Group) -> Judgement:
        answer = group.draw.question.answer
        rewards = [float(state.data.answers.right(text, answer)) for text in group.texts]
        return Judgement(np.array([rewards]), num_experts=1)

    return judge


HANDLERS: Mapping[type[wire.Message], Handler] = {}
