"""How a client trains the server's model on its own rows: settings, and in what order it sees the rows. No torch here.

A protocol whose settings are a ``LocalTrainingConfig`` gets a ``LocalTrainer``, with real models and with stand-ins alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from pydantic import Field, model_validator

from fedsim.config.limits import MAX_BATCH
from fedsim.errors import ScenarioError
from fedsim.models.config import PolicyConfig
from fedsim.models.sources import LoraConfig
from fedsim.sim import streams
from fedsim.sim.devices.adapters import LINEAR_LAYERS, Shape, full_shapes, lora_shapes
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.tasks.questions import Question


class LocalTrainingConfig(PolicyConfig):
    """How clients train; the server has no optimiser, so the two learning rates of the policy mean nothing."""

    objective: Literal["sft", "grpo"] = Field(
        "sft",
        description="what clients train on: their private answers (sft), or their own candidates, rewarded by exact "
        "match with those (grpo)",
    )
    module: Literal["lora", "full"] = Field(
        "lora", description="what is trained and travels: low-rank adapters, or all weights (FedAvg)"
    )
    lora: LoraConfig = Field(
        LoraConfig.defaults(),
        description="the adapters (module lora); those of models.server do not count here",
    )
    local_epochs: int | None = Field(
        None,
        ge=1,
        le=MAX_BATCH,
        description="passes over the client's rows in one round (count; 1 unless local_steps is given)",
    )
    local_steps: int | None = Field(
        None, ge=1, le=MAX_BATCH, description="optimiser steps in one round, instead of whole passes (count)"
    )
    fewest_local_steps: int | None = Field(
        None,
        ge=1,
        le=MAX_BATCH,
        description="a client does between so many and all of its local steps, drawn each time (count; default all)",
    )
    local_batch_size: int = Field(
        32,
        ge=1,
        le=MAX_BATCH,
        description="rows (sft) or questions with G candidates each (grpo) in one local step (count)",
    )
    local_learning_rate: float = Field(
        1e-3, gt=0, description="AdamW learning rate on the clients, constant (per step)"
    )
    epsilon: float = Field(
        1e-2, gt=0, description="added to the deviation of a group's rewards (grpo; rewards are 0 or 1)"
    )
    divide_by_std: bool = Field(
        True, description="divide centred rewards by their deviation (grpo; false: centre only)"
    )

    @model_validator(mode="after")
    def _one_length(self) -> LocalTrainingConfig:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError("local_epochs and local_steps are both given; give one of them")
        if self.inner_passes != 1:
            raise ValueError("inner_passes must be 1 in local training; give local_steps instead")
        return self

    @model_validator(mode="after")
    def _known_targets(self) -> LocalTrainingConfig:
        unknown = [target for target in self.lora.targets if target not in LINEAR_LAYERS]
        if unknown or not self.lora.targets:
            raise ValueError(f"lora.targets must be some of {', '.join(LINEAR_LAYERS)}")
        return self

    def adapter_shapes(self, spec: ModelSpec) -> dict[str, Shape]:
        """Names and shapes of what is trained and travels when the server's model has this architecture."""
        if self.module == "full":
            return full_shapes(spec)
        try:
            return lora_shapes(spec, self.lora.rank, self.lora.targets, self.lora.layers)
        except ValueError as error:
            raise ScenarioError(f"protocol.lora: {error}").at("protocol", "lora", "layers") from None

    def num_local_steps(self, num_rows: int) -> int:
        """Optimiser steps of one client in one round, at most."""
        if self.local_steps is not None:
            return self.local_steps
        return (self.local_epochs or 1) * -(-num_rows // self.local_batch_size)


def local_batches(
    config: LocalTrainingConfig, rows: Sequence[Question], *key: streams.Part
) -> Iterator[list[Question]]:
    """The batches of one round: every epoch is a keyed permutation of the rows, cut into ``local_batch_size``."""
    return islice(_epochs(config.local_batch_size, rows, key), num_steps(config, len(rows), *key))


def num_steps(config: LocalTrainingConfig, num_rows: int, *key: streams.Part) -> int:
    """Optimiser steps of one client this time: K, uniform over ``fewest_local_steps .. num_local_steps``.

    It stands for a client that does as much as it can afford; that it has nothing to do with the device's speed is a choice.
    """
    most = config.num_local_steps(num_rows)
    if config.fewest_local_steps is None or config.fewest_local_steps >= most:
        return most
    choices = most - config.fewest_local_steps + 1
    return config.fewest_local_steps + int(choices * streams.uniform(*key, "local steps"))


def _epochs(size: int, rows: Sequence[Question], key: tuple[streams.Part, ...]) -> Iterator[list[Question]]:
    epoch = 0
    while rows:
        order = streams.generator(*key, "local rows", epoch).permutation(len(rows)).tolist()
        for start in range(0, len(order), size):
            yield [rows[index] for index in order[start : start + size]]
        epoch += 1
