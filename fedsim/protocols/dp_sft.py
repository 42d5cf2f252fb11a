"""Control: supervised fine-tuning on the server's own labelled set Dp, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler
from fedsim.models.config import PolicyConfig
from fedsim.protocols.shared.state import ServerState
from fedsim.protocols.shared.supervised import fine_tune
from fedsim.sim.network import wire


class Config(PolicyConfig):
    """Control: SFT on the server's own Dp labels; a step of ``fit_batch_size`` rows counts as one update."""

    name: Literal["dp_sft"] = Field("dp_sft", description="control: SFT on the server's own Dp labels")


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """SFT steps on Dp until the run's stop condition."""
    await fine_tune(federation, state, state.data.auxiliary, config.fit_batch_size)


HANDLERS: Mapping[type[wire.Message], Handler] = {}
