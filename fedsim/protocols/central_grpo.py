"""Central-GRPO: the same policy, questions and optimiser, rewarded by the truth. The upper bound; no data moves.

The paper's baseline of the same name (PAPER, Table 1). The reward is 1[candidate = truth] on Ds, known to the server
without asking anybody, so the run has no requests and no bytes; its virtual time is the server's own.
"""

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
    """Central-GRPO: truth as reward on Ds; the upper bound."""

    name: Literal["central_grpo"] = Field(
        "central_grpo", description="truth as reward on Ds; the upper bound"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the truth as the only expert."""
    await train(federation, config, state, state.data.pool, truth_judge(state))


HANDLERS: Mapping[type[wire.Message], Handler] = {}
