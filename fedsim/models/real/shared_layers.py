"""The layers that no adapter of a base changes, computed once for policy and clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from fedsim.models.real.lean_llama import lean_states
from fedsim.models.real.tokens import Ids

_MOST_BYTES = 256 << 20


class SharedLayers:
    """The layers below every adapter, the same for all models of one base: computed once for each question and answer.

    What enters the first layer above them is remembered, and of questions the keys and values that answers attend to. Frozen,
    so no gradient goes through. A row's bits do not depend on its batch, so it does not matter whose batch it was.

    Args:
        network: any model of the base; it must be lean.
        num_layers: how many layers no model has changed.
    """

    def __init__(self, network: Any, num_layers: int) -> None:
        self.num_layers = num_layers
        self._network = network
        self._known: dict[tuple[Ids, Ids], tuple[Tensor, ...]] = {}
        self._num_bytes = 0

    @torch.no_grad()
    def entering(
        self,
        keys: Sequence[tuple[Ids, Ids]],
        inputs: Callable[[Sequence[int]], tuple[Tensor, Tensor, Tensor, DynamicCache]],
    ) -> list[tuple[Tensor, ...]]:
        """For each row what enters the layers above ``[A, h]``; of a question also its keys and values in these layers.

        Args:
            keys: for each row the question, and the answer's input tokens (none: the row is the question itself).
            inputs: ids, attention bias, positions and cache for some of the rows, filled up to a canonical batch.
        """
        missing = list({key: row for row, key in enumerate(keys) if key not in self._known}.values())
        if missing:
            ids, bias, positions, cache = inputs(missing)
            states = lean_states(self._network, ids, bias, positions, cache, self.num_layers)
            for place, row in enumerate(missing):
                layers = cache.layers if not keys[row][1] else ()
                kept = (states[place], *(t[place] for layer in layers for t in (layer.keys, layer.values)))
                self._keep(keys[row], tuple(tensor.clone() for tensor in kept))
        return [self._known[key] for key in keys]

    def _keep(self, key: tuple[Ids, Ids], kept: tuple[Tensor, ...]) -> None:
        self._known[key] = kept
        self._num_bytes += sum(tensor.nbytes for tensor in kept)

    def shrink(self) -> None:
        """Forget the older half when it is too much."""
        if self._num_bytes > _MOST_BYTES:
            for key in list(self._known)[: len(self._known) // 2]:
                self._num_bytes -= sum(tensor.nbytes for tensor in self._known.pop(key))
