"""Zero-shot: the initial policy as it is. No training, no requests, no bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedsim.asking import Handler
from fedsim.federation import Federation
from fedsim.models.config import PolicyConfig
from fedsim.network import wire
from fedsim.states import ServerState


class Config(PolicyConfig):
    """Settings of zero-shot: only the sampling ones matter (pass@k)."""

    name: Literal["zero_shot"] = Field("zero_shot", description="the initial policy, untrained")


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Nothing to do: evaluation happens around the protocol."""


HANDLERS: Mapping[type[wire.Message], Handler] = {}
