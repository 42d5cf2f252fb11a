"""Zero-shot: the initial policy as it is. No training, no requests, no bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler
from fedsim.models.config import PolicyConfig
from fedsim.protocols.shared.state import ServerState
from fedsim.sim.network import wire


class Config(PolicyConfig):
    """The initial policy, untrained: only the settings of sampling matter (pass@k)."""

    name: Literal["zero_shot"] = Field("zero_shot", description="the initial policy, untrained")


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Nothing to do: evaluation happens around the protocol."""


HANDLERS: Mapping[type[wire.Message], Handler] = {}
