"""Local training without models: timing fidelity, where steps and their texts are real and there are no numbers to train."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedsim.models.client_training_config import LocalTrainingConfig, local_batches
from fedsim.models.interfaces import Draw, Exercise, LocalUpdate, Policy, Weights
from fedsim.models.timing.stand_ins import StandInPolicy
from fedsim.sim import streams
from fedsim.sim.devices.adapters import Shape
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.tasks.questions import Question


class StandInTrainer:
    """Implements ``interfaces.LocalTrainer`` with empty arrays of the right names: ``[r, 0]`` and ``[0, r]`` for rank r.

    What a message of such arrays counts on the links is what the architecture says (``federation/billed_sizes.py``). The steps
    hold the rows that a real client would train on, in the same order (``local_batches``), and for GRPO stand-in candidates, so
    that the cost model sees what it would see.

    Args:
        policy: the live stand-in policy, whose version rises with every installation.
        config: how clients train.
        spec: the architecture of what would be trained.
        seed: root of every draw.
    """

    def __init__(self, policy: Policy, config: LocalTrainingConfig, spec: ModelSpec, seed: int) -> None:
        self._policy = policy
        self._config = config
        self._seed = seed
        self._start = {
            name: np.zeros(_emptied(name, shape), np.float32)
            for name, shape in config.adapter_shapes(spec).items()
        }

    def start(self) -> Weights:
        """Arrays without numbers."""
        return self._start

    def tune(
        self, client_id: int, round_index: int, weights: Weights, rows: Sequence[Question]
    ) -> LocalUpdate:
        """The weights as they were given, and the steps that were not taken; the loss is NaN."""
        key = streams.integer(self._seed, "local", client_id, round_index)
        sampled = self._config.objective == "grpo"
        steps = self._candidates(rows, key) if sampled else self._answers(rows, key)
        return LocalUpdate(weights, float("nan"), tuple(steps), sampled)

    def install(self, weights: Weights) -> None:
        """One version more."""
        self._policy.fit((), 0)

    def _answers(self, rows: Sequence[Question], key: int) -> Iterator[tuple[Exercise, ...]]:
        for batch in local_batches(self._config, rows, key):
            yield tuple((row.text, (row.taught,)) for row in batch)

    def _candidates(self, rows: Sequence[Question], key: int) -> Iterator[tuple[Exercise, ...]]:
        sampler = StandInPolicy(self._config, key)
        num_draws = 0
        for batch in local_batches(self._config, rows, key):
            draws = [Draw(num_draws + offset, row) for offset, row in enumerate(batch)]
            num_draws += len(draws)
            yield tuple((group.draw.question.text, tuple(group.texts)) for group in sampler.sample(draws))


def _emptied(name: str, shape: Shape) -> Shape:
    if name.endswith(".lora_A"):
        return (shape[0], 0)
    return (0, *shape[1:])
