"""Training the server's model on a client's rows with real weights: SFT, or GRPO with the private answers as reward.

One copy of the network serves all clients in turn: frozen weights are shared with the live policy (nobody changes them),
trainable ones are the copy's own, and every call loads what the client was sent and starts a fresh optimiser. So the live
policy never notices, and what comes out depends on (client, round, weights, rows) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedsim.models.client_training_config import LocalTrainingConfig, local_batches
from fedsim.models.interfaces import Draw, Exercise, LocalUpdate, Weights
from fedsim.models.real.adapters import shared_copy
from fedsim.models.real.evaluation import Matches
from fedsim.models.real.language import LanguageModel
from fedsim.models.real.policy import LanguagePolicy
from fedsim.rl.advantages import advantages
from fedsim.sim import streams
from fedsim.tasks.questions import Question

_PEFT_PREFIX, _PEFT_SUFFIX = "base_model.model.", ".default.weight"


class PolicyTrainer:
    """Implements ``fedsim.models.interfaces.LocalTrainer`` with the policy's own network, loss and sampler.

    Args:
        policy: the live policy, whose trainable weights are the common start.
        config: how clients train.
        right: ``right(text, truth)``: when a candidate's reward is 1 (grpo).
        seed: root of every draw.
    """

    def __init__(
        self, policy: LanguagePolicy, config: LocalTrainingConfig, right: Matches, seed: int
    ) -> None:
        self._policy = policy
        self._right = right
        self._seed = seed
        self._config = config
        self._local_config = config.model_copy(
            update={
                "learning_rate": config.local_learning_rate,
                "warmup_updates": 0,
                "fit_learning_rate": config.local_learning_rate,
                "fit_batch_size": config.local_batch_size,
            }
        )
        live = policy.language
        self._language = LanguageModel(
            shared_copy(live.network), live.tokenizer, live.shapes, live.tokens, live.shared
        )
        self._start = trainable_weights(live.network)

    def start(self) -> Weights:
        """The live policy's trainable weights when the run began: A random, B zero; or all weights."""
        return self._start

    def tune(
        self, client_id: int, round_index: int, weights: Weights, rows: Sequence[Question]
    ) -> LocalUpdate:
        """Train from ``weights`` on the rows, with AdamW from zero moments; a pure function of its arguments.

        Raises:
            ValueError: the weights have other names or shapes than the network's trainable part.
        """
        key = streams.integer(self._seed, "local", client_id, round_index)
        set_trainable_weights(self._language.network, weights)
        # A policy of one round: its optimiser dies with it, and its draws are keyed by client and round.
        local = LanguagePolicy(self._language, self._policy.initial, self._local_config, self._right, key, ())
        losses: list[float] = []
        steps: list[tuple[Exercise, ...]] = []
        num_draws = 0
        for batch in local_batches(self._config, rows, key):
            if self._config.objective == "sft":
                losses.append(local.fit(batch, steps=1).loss)
                steps.append(tuple((row.text, (row.taught,)) for row in batch))
            else:
                draws = [Draw(num_draws + offset, row) for offset, row in enumerate(batch)]
                num_draws += len(draws)
                loss, exercises = self._reinforce(local, draws)
                losses.append(loss)
                steps.append(exercises)
        return LocalUpdate(
            weights=trainable_weights(self._language.network),
            loss=float(np.mean(losses)) if losses else float("nan"),
            steps=tuple(steps),
            sampled=self._config.objective == "grpo",
        )

    def install(self, weights: Weights) -> None:
        """Make these the live policy's weights; one new version.

        Raises:
            ValueError: as for ``tune``.
        """
        self._policy.take_down()
        set_trainable_weights(self._policy.language.network, weights)
        self._policy.fit((), steps=0)  # learns nothing: a new version is all it makes

    def _reinforce(self, local: LanguagePolicy, draws: Sequence[Draw]) -> tuple[float, tuple[Exercise, ...]]:
        """One GRPO step: G candidates per question, reward 1[candidate is the private answer]."""
        groups = local.sample(draws)
        gains = []
        for group in groups:
            accepted = group.draw.question.answers
            rewards = np.array([[float(self._right(text, accepted)) for text in group.texts]])
            gains.append(
                advantages(
                    rewards,
                    grouping="candidates",
                    epsilon=self._config.epsilon,
                    divide_by_std=self._config.divide_by_std,
                )
            )
        loss = local.update(groups, gains).loss
        return loss, tuple((group.draw.question.text, tuple(group.texts)) for group in groups)


def canonical_name(name: str) -> str:
    """A parameter's name as in ``fedsim.sim.devices.adapters``, without what peft and transformers put around it.

    >>> canonical_name("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight")
    'layers.0.self_attn.q_proj.lora_A'
    """
    return name.removeprefix(_PEFT_PREFIX).removeprefix("model.").removesuffix(_PEFT_SUFFIX)


def trainable_weights(network: Any) -> dict[str, npt.NDArray[np.float32]]:
    """A copy of a network's trainable weights by canonical name."""
    return {name: weight.detach().numpy().copy() for name, weight in _trainable(network).items()}


@torch.no_grad()
def set_trainable_weights(network: Any, weights: Weights) -> None:
    """Write weights into a network's trainable part, by canonical name.

    Raises:
        ValueError: names or shapes differ.
    """
    own = _trainable(network)
    if own.keys() != weights.keys():
        differing = sorted(own.keys() ^ weights.keys())
        raise ValueError(f"{len(differing)} weights are on one side only, first {differing[0]}")
    for name, weight in own.items():
        if tuple(weight.shape) != weights[name].shape:
            raise ValueError(f"{name} has shape {weights[name].shape}; must be {tuple(weight.shape)}")
        weight.copy_(torch.tensor(weights[name]))


def _trainable(network: Any) -> dict[str, torch.nn.Parameter]:
    return {
        canonical_name(name): weight for name, weight in network.named_parameters() if weight.requires_grad
    }
