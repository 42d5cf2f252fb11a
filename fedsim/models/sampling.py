"""Sampling and greedy decoding with shared prefixes: each token is drawn by inverse CDF from a given uniform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from fedsim import streams
from fedsim.models.config import PolicyConfig
from fedsim.models.language import Ids, LanguageModel, Prefix, shared_cache


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer: its ids (the end token included when it came) and whether the limit cut it off."""

    ids: Ids
    truncated: bool
    entropy_sum: float


@torch.no_grad()
def decode(
    language: LanguageModel,
    prefix: Prefix,
    copies: int,
    max_new_tokens: int,
    uniforms: npt.NDArray[np.float64] | None,
    temperature: float = 1.0,
) -> list[list[Sampled]]:
    """Continue every question ``copies`` times until the end token or the limit.

    A step runs in batches of ``decode_rows`` rows; rows that ended leave, and the rest move together when a whole
    batch can be saved. The token of row r at step t is the inverse CDF of ``uniforms[r, t]``, or the most probable one.

    Args:
        language: the model.
        prefix: ``n`` questions, already run.
        copies: answers per question.
        max_new_tokens: most tokens of an answer, the end token included.
        uniforms: draws in (0, 1) ``[n * copies, max_new_tokens]``; None decodes greedily.
        temperature: divides the logits.
    """
    num_rows, size = len(prefix.lengths) * copies, language.shapes.decode_rows
    owners = torch.arange(len(prefix.lengths)).repeat_interleave(copies)
    tokens = np.full((num_rows, max_new_tokens), language.end_id)
    counts = np.zeros(num_rows, dtype=np.int64)
    ended = np.zeros(num_rows, dtype=bool)
    entropy = np.zeros(num_rows)

    def choose(rows: npt.NDArray[np.int64], logits: Tensor, step: int) -> None:
        picked, h = _pick(logits, None if uniforms is None else uniforms[rows, step], temperature)
        tokens[rows, step], counts[rows] = picked, step + 1
        ended[rows] = picked == language.end_id
        entropy[rows] += h

    everyone = np.arange(num_rows)
    choose(everyone, prefix.logits[owners], 0)
    batches: list[_Batch] = []
    for step in range(1, max_new_tokens):
        alive = everyone[~ended]
        if not len(alive):
            break
        if step == 1 or -(-len(alive) // size) < len(batches):
            batches = _regroup(batches, prefix, owners, alive, size)
        for batch in batches:
            live = ~ended[batch.rows[: batch.count]]
            if live.any():
                last = torch.from_numpy(tokens[batch.rows, step - 1])[:, None]
                logits = _step(language, prefix, owners, batch, last, step)
                rows = batch.rows[: batch.count][live]
                choose(rows, logits[: batch.count][torch.from_numpy(live)], step)
    answers = [
        Sampled(tuple(tokens[row, : counts[row]].tolist()), not ended[row], float(entropy[row]))
        for row in everyone
    ]
    return [answers[start : start + copies] for start in range(0, num_rows, copies)]


def sample_answers(
    language: LanguageModel,
    prefix: Prefix,
    keys: Sequence[tuple[str, int]],
    copies: int,
    config: PolicyConfig,
    seed: int,
) -> list[list[Sampled]]:
    """Sample ``copies`` answers to each question; token t of copy c of question i is drawn by element ``[c, t]`` of
    the stream ``(seed, *keys[i])``.
    """
    shape = (copies, config.max_new_tokens)
    uniforms = np.concatenate([streams.generator(seed, *key).random(shape) for key in keys])
    return decode(language, prefix, copies, config.max_new_tokens, uniforms, config.temperature)


@dataclass(slots=True)
class _Batch:
    """``decode_rows`` rows with their cache; the rows past ``count`` are filling."""

    rows: npt.NDArray[np.int64]
    count: int
    cache: DynamicCache


def _regroup(
    batches: list[_Batch], prefix: Prefix, owners: Tensor, alive: npt.NDArray[np.int64], size: int
) -> list[_Batch]:
    """Pack the living rows into as few batches as possible."""
    groups = [alive[start : start + size] for start in range(0, len(alive), size)]
    filled = [np.concatenate([group, np.repeat(group[-1:], size - len(group))]) for group in groups]
    if not batches:
        caches = [shared_cache(prefix, owners[torch.from_numpy(rows)]) for rows in filled]
    else:
        place = np.full(len(owners), -1, dtype=np.int64)
        for number, batch in enumerate(batches):
            place[batch.rows[: batch.count]] = number * size + np.arange(batch.count)
        layers = [
            (
                torch.cat([b.cache.layers[i].keys for b in batches]),
                torch.cat([b.cache.layers[i].values for b in batches]),
            )
            for i in range(len(prefix.keys))
        ]
        indices = [torch.from_numpy(place[rows]) for rows in filled]
        caches = [
            DynamicCache([(k.index_select(0, i), v.index_select(0, i)) for k, v in layers]) for i in indices
        ]
    return [_Batch(r, len(g), c) for r, g, c in zip(filled, groups, caches, strict=True)]


def _step(
    language: LanguageModel, prefix: Prefix, owners: Tensor, batch: _Batch, last: Tensor, step: int
) -> Tensor:
    """Logits ``[decode_rows, V]`` after one more token."""
    owner = owners[torch.from_numpy(batch.rows)]
    bias = torch.nn.functional.pad(prefix.bias[owner], (0, step))
    out = language.network(
        input_ids=last, attention_mask=bias[:, None, None, :],
        position_ids=prefix.lengths[owner, None] + (step - 1), past_key_values=batch.cache, use_cache=True,
    )  # fmt: skip
    return out.logits[:, -1].float()


def _pick(
    logits: Tensor, uniforms: npt.NDArray[np.float64] | None, temperature: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Tokens ``[n]`` and the entropies of their distributions ``[n]``."""
    log_probs = (logits.double() / temperature).log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(-1).numpy()
    if uniforms is None:
        return logits.argmax(-1).numpy(), entropy
    cdf = probs.cumsum(-1)
    # The last value is 1 up to rounding: scaling the draw keeps it inside.
    draws = torch.from_numpy(uniforms)[:, None] * cdf[:, -1:]
    return torch.searchsorted(cdf, draws, right=True).squeeze(-1).clamp_max(
        logits.shape[-1] - 1
    ).numpy(), entropy
