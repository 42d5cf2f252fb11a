"""Control: the frozen initial server scores the candidates itself. Whatever this gains is sharpening, not knowledge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler
from fedsim.models.interfaces import CandidateGroup
from fedsim.protocols.shared.group_relative import ServerRewardedConfig, train
from fedsim.protocols.shared.learner import Judgement
from fedsim.protocols.shared.state import ServerState
from fedsim.sim.devices.cost import score_work
from fedsim.sim.network import wire


class Config(ServerRewardedConfig):
    """Settings of the control: those of the shared machinery."""

    name: Literal["self_reward"] = Field(
        "self_reward", description="control: the frozen initial server scores"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the likelihood under the frozen initial server as reward."""

    async def judge(group: CandidateGroup) -> Judgement:
        text = group.draw.question.text
        tokens = state.tokens
        work = score_work(state.spec, tokens.question(text), [tokens.candidate(c) for c in group.texts])
        state.frozen.expect(text, group.texts)
        await federation.server.compute(work, "score", group.draw.index)
        return Judgement(np.array([state.frozen.likelihood(text, group.texts)]), num_experts=1)

    await train(federation, config, state, state.data.pool, judge)


HANDLERS: Mapping[type[wire.Message], Handler] = {}
