"""Control: the frozen initial server scores the candidates itself. Whatever this gains is sharpening, not knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from fedsim.asking import Handler
from fedsim.devices.cost import score_work
from fedsim.federation import Federation
from fedsim.network import wire
from fedsim.protocols.group_relative import ServerRewardedConfig, train
from fedsim.protocols.learner import Judgement
from fedsim.roles import Group
from fedsim.states import ServerState


class Config(ServerRewardedConfig):
    """Settings of the control: those of the shared machinery."""

    name: Literal["self_reward"] = Field(
        "self_reward", description="control: the frozen initial server scores"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the likelihood under the frozen initial server as reward."""

    async def judge(group: Group) -> Judgement:
        text = group.draw.question.text
        tokens = state.tokens
        work = score_work(state.spec, tokens.question(text), [tokens.candidate(c) for c in group.texts])
        state.frozen.expect(text, group.texts)
        await federation.server.compute(work, "score", group.draw.index)
        return Judgement(np.array([state.frozen.likelihood(text, group.texts)]), num_experts=1)

    await train(federation, config, state, state.data.pool, judge)


HANDLERS: Mapping[type[wire.Message], Handler] = {}
