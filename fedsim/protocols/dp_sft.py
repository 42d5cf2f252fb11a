"""Control: supervised fine-tuning on the server's own labelled set Dp, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fedsim.devices.cost import training_work
from fedsim.federation import Federation
from fedsim.models.config import PolicyConfig
from fedsim.network import wire
from fedsim.request import Handler
from fedsim.states import ServerState


class Config(PolicyConfig):
    """Settings of the control: one optimiser step of ``fit_batch_size`` rows counts as one update."""

    name: Literal["dp_sft"] = Field("dp_sft", description="control: SFT on the server's own Dp labels")


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """SFT steps on Dp until the run's stop condition."""
    tokens = state.tokens
    rows = state.data.auxiliary
    batch = min(config.fit_batch_size, len(rows))
    tokens_per_row = round(
        sum(tokens.question(row.text) + tokens.candidate(row.answer) + 1 for row in rows) / len(rows)
    )
    work = training_work(state.spec, [tokens_per_row] * batch)
    while True:
        await federation.server.compute(work, "update", state.policy.version)
        stats = state.policy.fit(rows, steps=1)
        state.monitor.updated(stats, [], batch, 0.0)
        await state.monitor.pause_if_over()


HANDLERS: Mapping[type[wire.Message], Handler] = {}
