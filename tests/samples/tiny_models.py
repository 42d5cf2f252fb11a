"""A tiny world for tests of real models: one-digit sums and words spelt backward, and a Llama of a few thousand weights."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.policy import LanguagePolicy
from fedsim.models.real.tokenizer import build_tokenizer
from fedsim.models.real.training import train_from_scratch
from fedsim.models.sources import ScratchModel
from fedsim.tasks.questions import Question

TINY = ScratchModel(
    hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, steps=250, batch_size=64, warmup_steps=10
)
WORDS = ["cat", "dog", "sun", "bird", "fish", "lamp", "tree", "moon", "star", "rain", "wolf", "bear"]


@cache
def questions() -> tuple[Question, ...]:
    sums = [(f"What is {a} + {b}? Answer:", str(a + b)) for a in range(10) for b in range(10)]
    words = [(f"Spell this word backward: {word}", word[::-1]) for word in WORDS]
    rows = [("sums", *row) for row in sums] + [("words", *row) for row in words]
    return tuple(Question(index, *row) for index, row in enumerate(rows))


@cache
def tokenizer():
    return build_tokenizer(questions())


@cache
def trained_network():
    torch.set_num_threads(1)
    return train_from_scratch(TINY, tokenizer(), questions(), seed=1)[0]


def language(network=None, **shapes: int) -> LanguageModel:
    """The trained tiny model (a copy), with small canonical shapes."""
    rows = {"prompt_tokens": 8, "prompt_rows": 8, "answer_rows": 16, "decode_rows": 32, **shapes}
    return LanguageModel(network or deepcopy(trained_network()), tokenizer(), Shapes(**rows))


def policy(config: PolicyConfig | None = None, seed: int = 7, network=None) -> LanguagePolicy:
    live = language(network)
    frozen = language(deepcopy(live.network).requires_grad_(False))
    config = config or PolicyConfig(warmup_updates=1, learning_rate=1e-3)
    return LanguagePolicy(live, frozen, config, lambda given, truth: given in truth, seed, [])
