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
    shapes = tuple((weight.shape, weight.requires_grad) for weight in network.parameters())
    kind = (shapes, torch.get_num_threads(), full, width, past, gradients)
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
    config = llama_of(network).config
    ids = torch.randint(config.vocab_size, (rows, width), generator=draws)
    shape = (rows, config.num_key_value_heads, past, config.hidden_size // config.num_attention_heads)
    earlier = [
        (torch.randn(shape, generator=draws), torch.randn(shape, generator=draws))
        for _ in range(config.num_hidden_layers)
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
        cache = DynamicCache(list(zip(leaves[::2], leaves[1::2], strict=True)) if past else None)
        with torch.set_grad_enabled(gradients):
            logits = lean_logits(network, filled(ids), filled(bias), filled(positions), cache, last=not past)
            found = [logits[:rows], *(t[:rows] for layer in cache.layers for t in (layer.keys, layer.values))]
            if gradients:
                wanted = [weight for weight in network.parameters() if weight.requires_grad]
                # Gradients reach a layer's keys and values as well: later answers attend to them.
                value = (logits[:rows] * pull).sum() + sum(state.square().sum() for state in found[1:])
                slopes = torch.autograd.grad(value, [*wanted, *(leaves if past else ())])
                found += [*slopes[: len(wanted)], *(slope[:rows] for slope in slopes[len(wanted) :])]
        return found

    def canonical(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor[-1:].expand(full - rows, *tensor.shape[1:])])

    return all(torch.equal(a, b) for a, b in zip(run(torch.clone), run(canonical), strict=True))
