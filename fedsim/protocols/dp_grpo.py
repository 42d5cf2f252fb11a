"""Control: GRPO on the server's own labelled set Dp, and nothing else. What could it have learned alone?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler
from fedsim.protocols.shared.group_relative import ServerRewardedConfig, train
from fedsim.protocols.shared.learner import truth_judge
from fedsim.protocols.shared.state import ServerState
from fedsim.sim.network import wire


class Config(ServerRewardedConfig):
    """Control: GRPO on the server's own Dp labels."""

    name: Literal["dp_grpo"] = Field("dp_grpo", description="control: GRPO on the server's own Dp labels")


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the truth as reward, on the exemplars."""
    await train(federation, config, state, state.data.auxiliary, truth_judge(state))


HANDLERS: Mapping[type[wire.Message], Handler] = {}
