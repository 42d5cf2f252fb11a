"""Where clients' models compute, and how precisely: the CPU in float32, or a GPU, perhaps in bfloat16.

A placed evaluator is the very evaluator, whose network lies on the device and whose tensors are made there. What a placement
other than the default gives are other bits, of scores alone: the policy is trained on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from fedsim.errors import ModelFileError
from fedsim.models.real.evaluator import ModelEvaluator
from fedsim.models.real.language import LanguageModel


@dataclass(frozen=True, slots=True)
class Placement:
    """A device, a precision, and the share of a GPU's memory that this process may take (see ``compute``)."""

    device: Literal["cpu", "cuda", "auto"] = "cpu"
    autocast: Literal["none", "bf16"] = "none"
    gpu_share: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether it is the default, which needs nothing."""
        return self.torch_device.type == "cpu" and self.autocast == "none"

    @property
    def torch_device(self) -> torch.device:
        """The device itself.

        Raises:
            ModelFileError: a GPU is asked for, and there is none.
        """
        if self.device == "cpu" or (self.device == "auto" and not torch.cuda.is_available()):
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise ModelFileError("compute.device is cuda, but torch finds no GPU here; use auto or cpu")
        return torch.device("cuda")

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Within it tensors are made on the device, and products are computed in the precision."""
        device = self.torch_device
        with contextlib.ExitStack() as inside:
            if device.type != "cpu":
                inside.enter_context(device)
            if self.autocast == "bf16":
                inside.enter_context(torch.autocast(device.type, torch.bfloat16))
            yield

    def reserve(self) -> None:
        """Hold this process to its share of the GPU's memory, where there is one."""
        if self.torch_device.type == "cuda" and self.gpu_share < 1:
            torch.cuda.set_per_process_memory_fraction(self.gpu_share)


class PlacedEvaluator:
    """Implements ``fedsim.models.interfaces.Evaluator``: an evaluator on a device; moves its network there."""

    def __init__(self, inner: ModelEvaluator, placement: Placement) -> None:
        placement.reserve()
        inner.language.network.to(placement.torch_device)
        self._inner = inner
        self._placement = placement

    @property
    def language(self) -> LanguageModel:
        """The model."""
        return self._inner.language

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Queue a scoring that will be due later."""
        self._inner.expect(question, candidates)

    def expect_answer(self, question: str) -> None:
        """Queue an own answer that will be due later."""
        self._inner.expect_answer(question)

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """As `ModelEvaluator.likelihood`, computed on the device."""
        with self._placement.scope():
            return self._inner.likelihood(question, candidates)

    def answers(self, questions: Sequence[str]) -> list[str]:
        """As `ModelEvaluator.answers`, computed on the device."""
        with self._placement.scope():
            return self._inner.answers(questions)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under this client's tokenizer."""
        return self._inner.count_tokens(text)
