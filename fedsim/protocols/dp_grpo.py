"""Control: GRPO on the server's own labelled set Dp, and nothing else. What could it have learned alone?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedsim.asking import Handler
from fedsim.federation import Federation
from fedsim.network import wire
from fedsim.protocols.group_relative import ServerRewardedConfig, train
from fedsim.protocols.learner import truth_judge
from fedsim.states import ServerState


class Config(ServerRewardedConfig):
    """Settings of the control: those of the shared machinery."""

    name: Literal["dp_grpo"] = Field("dp_grpo", description="control: GRPO on the server's own Dp labels")


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the truth as reward, on the exemplars."""
    await train(federation, config, state, state.data.auxiliary, truth_judge(state))


HANDLERS: Mapping[type[wire.Message], Handler] = {}
