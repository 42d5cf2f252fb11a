"""Smaller batches that keep the bits of canonical ones: a trial on this machine says which.

Batches have canonical shapes (``language.py``), so that a row's bits do not depend on its company; the last batch is filled
up with copies. Whether a batch of fewer rows would give the same bits depends on how the machine's matrix kernels cut a
product into blocks, never on the data. So it is tried, once per shape and process, on random data: where all values, and
where gradients are asked for all gradients, keep their bits in the smaller batch, the filling is left out. Where they do
not, or where the network is not a lean one, the batch stays canonical. Either way the results are those of the canonical
batch: the trial decides about time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from fedsim.models.real.lean_llama import lean_logits, llama_of

TRIED_ROWS = (8, 16, 24, 32, 48, 64, 96)
"""Smaller batches that are tried, few because a trial takes as long as two passes. Under four rows other kernels take over."""

_TRIALS: dict[tuple[object, ...], bool] = {}


def fitting_rows(network: Any, count: int, full: int, width: int, past: int) -> int:
    """The fewest of ``TRIED_ROWS`` from ``count`` on that give the bits of ``full`` rows; else ``full``.

    Args:
        network: a network that ``is_lean``; gradients count when they are on and it has weights that want them.
        count: rows that are needed.
        full: rows of a canonical batch.
        width: input tokens of every row.
        past: cached tokens of every row; 0 for questions, of which only the last position has logits.
    """
    gradients = torch.is_grad_enabled() and any(weight.requires_grad for weight in network.parameters())
    last = llama_of(network).model.layers[-1]
    kind = (
        tuple(weight.shape for weight in last.parameters()), _num_tried(network),
        llama_of(network).config.vocab_size, torch.get_num_threads(), full, width, past, gradients,
    )  # fmt: skip
    for rows in TRIED_ROWS:
        if not count <= rows < full:
            continue
        if (rows, *kind) not in _TRIALS:
            _TRIALS[rows, *kind] = has_the_same_bits(network, rows, full, width, past, gradients)
        if _TRIALS[rows, *kind]:
            return rows
    return full


def has_the_same_bits(network: Any, rows: int, full: int, width: int, past: int, gradients: bool) -> bool:
    """Whether random rows have the same values, and gradients, alone and with copies of the last one up to ``full``."""
    draws = torch.Generator().manual_seed(0)
    llama = llama_of(network)
    config, num_tried = llama.config, _num_tried(network)
    first = config.num_hidden_layers - num_tried
    ids = torch.randint(config.vocab_size, (rows, width), generator=draws)
    entering = torch.randn((rows, width, config.hidden_size), generator=draws) if first else None
    shape = (rows, config.num_key_value_heads, past, llama.model.layers[0].self_attn.head_dim)
    earlier = [
        (torch.randn(shape, generator=draws), torch.randn(shape, generator=draws)) for _ in range(num_tried)
    ]
    hidden = (
        torch.randint(past, (rows, 1), generator=draws) if past else torch.zeros(rows, 1, dtype=torch.long)
    )
    seen = (torch.arange(past + width) >= hidden)[:, None, None, :]
    causal = torch.ones(width, past + width, dtype=torch.bool).tril(past)
    bias = torch.zeros(rows, 1, width, past + width).masked_fill_(~(seen & causal), float("-inf"))
    bias[..., past:].diagonal(dim1=-2, dim2=-1).zero_()
    positions = past - hidden + torch.arange(width)
    pull = torch.randn(rows, width if past else 1, config.vocab_size, generator=draws)

    def run(filled: Callable[[Tensor], Tensor]) -> list[Tensor]:
        leaves = [filled(tensor).requires_grad_(gradients) for pair in earlier for tensor in pair]
        cache = DynamicCache()
        for place, (keys, values) in enumerate(zip(leaves[::2], leaves[1::2], strict=True) if past else ()):
            cache.update(keys, values, first + place)
        states = None if entering is None else filled(entering)
        with torch.set_grad_enabled(gradients):
            logits = lean_logits(
                network, filled(ids), filled(bias), filled(positions), cache, not past, states, first
            )
            made = [tensor[:rows] for layer in cache.layers[first:] for tensor in (layer.keys, layer.values)]
            found = [logits[:rows], *made]
            if gradients:
                wanted = [weight for weight in network.parameters() if weight.requires_grad]
                # Gradients reach a layer's keys and values as well: later answers attend to them.
                value = (logits[:rows] * pull).sum() + sum(state.square().sum() for state in found[1:])
                slopes = torch.autograd.grad(
                    value, [*wanted, *(leaves if past else ())], allow_unused=first > 0
                )
                found += [slope for slope in slopes[: len(wanted)] if slope is not None]
                found += [slope[:rows] for slope in slopes[len(wanted) :]]
        return found

    def canonical(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor[-1:].expand(full - rows, *tensor.shape[1:])])

    return all(torch.equal(a, b) for a, b in zip(run(torch.clone), run(canonical), strict=True))


def _num_tried(network: Any) -> int:
    """The last layers, on which a trial is made: a deep network's are all alike, and two show how gradients pass."""
    return min(2, llama_of(network).config.num_hidden_layers)
