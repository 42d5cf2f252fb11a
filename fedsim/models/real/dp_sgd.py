"""Training a small Llama on one client's rows, with every row's gradient clipped and noise added (DP-SGD), or plainly.

In each step every row takes part independently with probability q = min(1, batch_size / rows) (Poisson sampling). Then

    g = (1 / B) (sum_i g_i min(1, C / |g_i|) + N(0, (z C)^2)),    B = q rows, the expected batch

is given to Adam, which is post-processing. g_i is the gradient of row i's own mean token loss. Neighbouring data sets differ by
one added or removed row, whose clipped gradient has norm at most C; the accountant turns (q, steps, z) into epsilon.

No gradient is ever made row by row. One backward pass gives, for each layer, its inputs a [B, T, i] and the gradient at its
outputs g [B, T, o]; a row's weight gradient is ``sum_t g_t a_t^T``, whose squared norm is ``sum_tu (g_t . g_u)(a_t . a_u)``,
and the clipped sum is one matrix product over all rows. The tied embedding is both the first and the last layer: its norm has
a cross term. Any other weight that is used twice is refused, because its norm would lack one. This is exact (a test compares a
plain loop) and costs 1.4 times a plain step here; ``vmap(grad)`` costs 8 to 11.

A client's model trained so says nothing of a training row, in rewards or in probe bits, that the model would not: that is
post-processing, however often it is asked. Not covered: the vocabulary of scratch models (one character tokenizer is read off
all questions of the run), and how many rows a client has, which its sampling rate is made from.

Not hardened: the noise is drawn by a keyed generator in floating point, as a simulation may and a deployment must not.

References:
    Abadi et al., Deep Learning with Differential Privacy, CCS 2016, algorithm 1; Goodfellow, Efficient Per-Example Gradient
    Computations, arXiv 1510.01799; Li et al., Large Language Models Can Be Strong Differentially Private Learners, ICLR
    2022, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from fedsim.errors import ModelFileError
from fedsim.models.cache import sources_hash
from fedsim.models.real.training import IGNORED, EncodedRow, Trained, collated
from fedsim.privacy.config import EvaluatorPrivacyConfig, TuningConfig
from fedsim.sim import streams

_ROWS_AT_ONCE = 128
_DETERMINING_SOURCES = (
    "models/real/dp_sgd.py", "privacy/accounting.py", "sim/streams.py",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Protection:
    """What DP-SGD adds: clipping to ``clip_norm``, and noise of ``noise_multiplier`` times that."""

    clip_norm: float
    noise_multiplier: float


def tune(
    network: PreTrainedModel,
    rows: Sequence[EncodedRow],
    settings: TuningConfig,
    protection: Protection | None,
    seed: int,
) -> list[list[int]]:
    """Train the network in place; return which rows took part in each step. A pure function of its arguments.

    Raises:
        ModelFileError: the network has a kind of weights whose row gradients are not known here.
    """
    weights = trainable(network)
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    draws = poisson_draws(len(rows), settings, seed)
    expected = sampling_rate(len(rows), settings) * len(rows)
    network.train()
    for step, taken in enumerate(draws):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1.0 - step / settings.steps)
        sums = clipped_sum(network, [rows[i] for i in taken], protection.clip_norm if protection else None)
        for weight, total in zip(weights, sums, strict=True):
            weight.grad = total / expected
        if protection is not None and protection.noise_multiplier:
            deviation = protection.noise_multiplier * protection.clip_norm / expected
            noise = streams.generator(seed, "gradient noise", step)
            for weight in weights:
                assert weight.grad is not None
                drawn = noise.standard_normal(tuple(weight.shape), dtype=np.float32)
                weight.grad += deviation * torch.from_numpy(drawn)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    network.eval()
    return draws


def trainable(network: PreTrainedModel) -> list[Tensor]:
    """The weights that learn, in the network's order: all of them, or its adapters."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def sampling_rate(num_rows: int, settings: TuningConfig) -> float:
    """q: the probability with which a row takes part in a step."""
    return min(1.0, settings.batch_size / num_rows)


def poisson_draws(num_rows: int, settings: TuningConfig, seed: int) -> list[list[int]]:
    """Rows that take part in each step: each row by a coin of its own."""
    rate = sampling_rate(num_rows, settings)
    coins = streams.generator(seed, "poisson").random((settings.steps, num_rows))
    return [np.flatnonzero(step < rate).tolist() for step in coins]


def clipped_sum(
    network: PreTrainedModel, rows: Sequence[EncodedRow], clip_norm: float | None
) -> list[Tensor]:
    """``sum_i g_i min(1, C / |g_i|)`` for every trainable weight, in the network's order; None clips nothing."""
    totals = [torch.zeros_like(weight) for weight in trainable(network)]
    ordered = sorted(rows, key=lambda row: len(row.ids))
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        part = row_gradients(network, ordered[start : start + _ROWS_AT_ONCE])
        factors = torch.ones(len(part.norms))
        if clip_norm is not None:
            factors = (clip_norm / part.norms.clamp_min(1e-12)).clamp_max(1.0)
        for total, piece in zip(totals, part.weighted_sum(factors), strict=True):
            total += piece
    return totals


@dataclass(frozen=True)
class _Layer:
    """One use of a weight: what went in and the gradient at what came out, each ``[B, T, ...]``.

    ``inputs`` are activations (linear), normalised activations (norm) or token ids (embedding).
    """

    kind: str
    weight: int
    inputs: Tensor
    slopes: Tensor

    def squared_norms(self) -> Tensor:
        """Squared norms of the rows' gradients of this use alone ``[B]``."""
        if self.kind == "norm":
            return (self.slopes * self.inputs).sum(1).square().sum(-1)
        if self.kind == "embedding":
            same = (self.inputs[:, :, None] == self.inputs[:, None, :]).to(self.slopes.dtype)
        else:
            same = self.inputs @ self.inputs.mT
        return (same * (self.slopes @ self.slopes.mT)).sum((1, 2))

    def weighted_sum(self, factors: Tensor, shape: torch.Size) -> Tensor:
        """``sum_b factor_b g_b`` in the weight's shape."""
        slopes = self.slopes * factors[:, None, None]
        if self.kind == "norm":
            return (slopes * self.inputs).sum((0, 1))
        if self.kind == "embedding":
            return torch.zeros(shape).index_add_(0, self.inputs.flatten(), slopes.flatten(0, 1))
        return slopes.flatten(0, 1).mT @ self.inputs.flatten(0, 1)


@dataclass(frozen=True)
class RowGradients:
    """The gradients of a batch of rows, never written out: their norms ``[B]`` and their weighted sums."""

    layers: tuple[_Layer, ...]
    shapes: tuple[torch.Size, ...]
    norms: Tensor

    def weighted_sum(self, factors: Tensor) -> list[Tensor]:
        """``sum_b factor_b g_b`` for every weight."""
        sums = [torch.zeros(shape) for shape in self.shapes]
        for layer in self.layers:
            sums[layer.weight] += layer.weighted_sum(factors, self.shapes[layer.weight])
        return sums


def row_gradients(network: PreTrainedModel, rows: Sequence[EncodedRow]) -> RowGradients:
    """One forward and one backward pass over the rows; see the module.

    Raises:
        ModelFileError: a weight belongs to no layer of a known kind, or several layers or calls share it; an embedding that is
            also the head is known. Uses outside of a layer (``functional.linear`` on its weight) are not noticed.
    """
    ids, labels = collated(rows)
    weights = trainable(network)
    index = {id(weight): number for number, weight in enumerate(weights)}
    uses: list[tuple[str, int, Tensor, Tensor]] = []

    def seen(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kind = _kind(module)
        if kind == "embedding":
            output = output.detach().requires_grad_()
        incoming = inputs[0].detach()
        if kind == "norm":
            incoming = incoming * torch.rsqrt(
                incoming.square().mean(-1, keepdim=True) + module.variance_epsilon
            )
        uses.append((kind, index[id(module.weight)], incoming, output))
        return output

    def differentiable(_: Any, __: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_()

    modules = [module for module in network.modules() if _kind(module) and id(module.weight) in index]
    known = {id(weight) for module in modules for weight in module.parameters(recurse=False)}
    if set(index) - known or any(getattr(module, "bias", None) is not None for module in modules):
        raise ModelFileError(
            f"{type(network).__name__} has weights whose row gradients are not known; "
            "dp_sgd knows linear layers without bias, embeddings and RMS norms"
        )
    hooks = [module.register_forward_hook(seen) for module in modules]
    for module in network.modules():
        if _kind(module) == "embedding" and module not in modules:  # where what is differentiable begins
            hooks.append(module.register_forward_hook(differentiable))
    try:
        for weight in weights:
            weight.requires_grad_(False)
        logits = network(input_ids=ids, use_cache=False).logits[:, :-1]
        _refuse_shared_weights(network, weights, [(kind, number) for kind, number, *_ in uses])
        targets = labels[:, 1:]
        losses = cross_entropy(logits.mT.float(), targets, ignore_index=IGNORED, reduction="none")
        loss = (losses.sum(-1) / (targets != IGNORED).sum(-1).clamp_min(1)).sum()
        slopes = torch.autograd.grad(loss, [output for *_, output in uses])
    finally:
        for hook in hooks:
            hook.remove()
        for weight in weights:
            weight.requires_grad_(True)
    layers = tuple(
        _Layer(kind, number, inputs, slope)
        for (kind, number, inputs, _), slope in zip(uses, slopes, strict=True)
    )
    return RowGradients(layers, tuple(weight.shape for weight in weights), _norms(layers))


def _norms(layers: Sequence[_Layer]) -> Tensor:
    """Norms of the rows' whole gradients ``[B]``: over all weights, with the cross term of a tied embedding."""
    total = torch.stack([layer.squared_norms().double() for layer in layers]).sum(0)
    for first in layers:
        for last in layers:
            if first.weight == last.weight and (first.kind, last.kind) == ("embedding", "linear"):
                # sum over t, u of slope_head[t, token_u] (h_t . slope_embedding[u])
                at_tokens = last.slopes.gather(
                    2, first.inputs[:, None, :].expand(-1, last.slopes.shape[1], -1)
                )
                total = total + 2 * (at_tokens * (last.inputs @ first.slopes.mT)).sum((1, 2)).double()
    return total.clamp_min(0).sqrt().float()


def _refuse_shared_weights(
    network: PreTrainedModel, weights: Sequence[Tensor], uses: Sequence[tuple[str, int]]
) -> None:
    """Every weight is used once, or once as embedding and once as head: no other cross term is in ``_norms``."""
    kinds: dict[int, list[str]] = {}
    for kind, weight in uses:
        kinds.setdefault(weight, []).append(kind)
    for weight, used_as in kinds.items():
        if len(used_as) > 1 and sorted(used_as) != ["embedding", "linear"]:
            name = next(name for name, one in network.named_parameters() if one is weights[weight])
            raise ModelFileError(
                f"{name} of {type(network).__name__} is used {len(used_as)} times; the row gradients of a shared weight are "
                "known to dp_sgd only where it is the embedding and the head"
            )


def _kind(module: Any) -> str:
    if isinstance(module, torch.nn.Linear):
        return "linear"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    return "norm" if hasattr(module, "variance_epsilon") else ""


def tuned_privately(
    network: PreTrainedModel, rows: Sequence[EncodedRow], settings: EvaluatorPrivacyConfig, seed: int
) -> Trained:
    """Tune what is trainable of a network, in place; its loss is not looked at, because it would be one more release."""
    protection = Protection(settings.tuning.clip_norm, settings.noise_multiplier(len(rows)))
    tune(network, rows, settings.tuning, protection, seed)
    return Trained(settings.tuning.steps, float("nan"))


def dp_sgd_source() -> str:
    """Hash of the code that determines the weights, for the cache's key."""
    return sources_hash(_DETERMINING_SOURCES)
