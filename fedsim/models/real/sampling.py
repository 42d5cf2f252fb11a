"""Sampling and greedy decoding with shared prefixes: each token is drawn by inverse CDF from a given uniform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from fedsim.models.config import PolicyConfig
from fedsim.models.real.language import LanguageModel, Prefix, filled, prefill
from fedsim.models.real.tokens import Ids
from fedsim.sim import streams

_WORTH_MOVING = 0.8
"""Living rows move together when the batches shrink to this share: moving copies their cache."""


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

    A step runs in batches of ``decode_rows`` rows, the last one smaller where that changes no bit; rows that ended leave,
    and the rest move together when that saves enough. The token of row r at step t is the inverse CDF of
    ``uniforms[r, t]``, or the most probable one.

    Args:
        language: the model.
        prefix: ``n`` questions, already run.
        copies: answers per question.
        max_new_tokens: most tokens of an answer, the end token included.
        uniforms: draws in (0, 1) ``[n * copies, max_new_tokens]``; None decodes greedily.
        temperature: divides the logits.
    """
    num_rows = len(prefix.lengths) * copies
    owners = torch.arange(len(prefix.lengths)).repeat_interleave(copies)
    tokens = np.full((num_rows, max_new_tokens), language.end_id)
    counts = np.zeros(num_rows, dtype=np.int64)
    ended = np.zeros(num_rows, dtype=bool)
    entropy = np.zeros(num_rows)

    def choose(rows: npt.NDArray[np.int64], logits: Tensor, which: npt.NDArray[np.int64], step: int) -> None:
        """Choose the token of each row by the logits ``[n, V]`` that are its own, ``which`` of them."""
        picked, h = _pick(logits, which, None if uniforms is None else uniforms[rows, step], temperature)
        tokens[rows, step], counts[rows] = picked, step + 1
        ended[rows] = np.isin(picked, language.end_ids)
        if language.tokens.stops_at_texts:
            ended[rows] |= [language.has_ended(tuple(tokens[row, : step + 1].tolist())) for row in rows]
        entropy[rows] += h

    everyone = np.arange(num_rows)
    choose(everyone, prefix.logits, owners.numpy(), 0)
    batches: list[_Batch] = []
    distinct = _Distinct.of(prefix, owners) if language.packs else None
    for step in range(1, max_new_tokens):
        alive = everyone[~ended]
        if not len(alive):
            break
        if distinct is not None:
            choose(
                alive,
                distinct.step(language, prefix, alive, tokens[alive, step - 1], step),
                distinct.states[alive],
                step,
            )
            continue
        # A batch without a living row takes no more steps, so its cache is too short to move with the others.
        batches = [batch for batch in batches if not ended[batch.rows].all()]
        sizes = _batch_sizes(language, len(alive))
        if step == 1 or sum(sizes) <= _WORTH_MOVING * sum(len(batch.rows) for batch in batches):
            batches = _regroup(batches, prefix, owners, alive, sizes, max_new_tokens)
        for batch in batches:
            live = ~ended[batch.rows[: batch.count]]
            last = torch.from_numpy(tokens[batch.rows, step - 1])[:, None]
            logits = _step(language, prefix, owners, batch, last, step)
            rows = batch.rows[: batch.count][live]
            choose(rows, logits[: batch.count][torch.from_numpy(live)], np.arange(len(rows)), step)
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
    """Sample ``copies`` answers to each question.

    Token t of copy c of question i is drawn by element ``[c, t]`` of the stream ``(seed, *keys[i])``.
    """
    shape = (copies, config.max_new_tokens)
    uniforms = np.concatenate([streams.generator(seed, *key).random(shape) for key in keys])
    return decode(language, prefix, copies, config.max_new_tokens, uniforms, config.temperature)


@torch.no_grad()
def greedy_answers(language: LanguageModel, prompts: Sequence[Ids], max_new_tokens: int) -> list[Sampled]:
    """The most probable answer, token by token, to each of some questions of one canonical width."""
    prefix = prefill(language, prompts, language.width(prompts[0]))
    return [answer for (answer,) in decode(language, prefix, 1, max_new_tokens, None)]


@dataclass(slots=True)
class _Distinct:
    """The distinct beginnings of a big model's answers: copies that have written the same so far are computed once.

    Attributes:
        states: for each row which of them it has, int64 ``[rows]``.
        owners: for each of them its question ``[n]``.
        layers: their keys and values ``[n, heads, W, d]`` per layer.
    """

    states: npt.NDArray[np.int64]
    owners: Tensor
    layers: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, prefix: Prefix, owners: Tensor) -> _Distinct:
        """The questions themselves."""
        every = torch.arange(len(prefix.lengths))
        return cls(owners.numpy().copy(), every, list(zip(prefix.keys, prefix.values, strict=True)))

    def step(
        self,
        language: LanguageModel,
        prefix: Prefix,
        rows: npt.NDArray[np.int64],
        last: npt.NDArray[np.int64],
        step: int,
    ) -> Tensor:
        """Logits ``[n, V]`` after the rows' last tokens, one line for each of the beginnings that there are now."""
        pairs, which = np.unique(np.stack([self.states[rows], last], axis=1), axis=0, return_inverse=True)
        parents, token = torch.from_numpy(pairs).unbind(1)
        found, caches = [], []
        for start in range(0, len(pairs), language.shapes.decode_rows):
            some = parents[start : start + language.shapes.decode_rows]
            some = filled(some, language.rows(len(some), language.shapes.decode_rows))
            ids = filled(token[start : start + language.shapes.decode_rows], len(some))
            cache = DynamicCache([(k.index_select(0, some), v.index_select(0, some)) for k, v in self.layers])
            owner = self.owners[some]
            bias = torch.nn.functional.pad(prefix.bias[owner], (0, step))[:, None, None, :]
            found.append(
                language.logits(ids[:, None], bias, prefix.lengths[owner, None] + (step - 1), cache)[:, -1]
            )
            caches.append(cache)
        stacks = zip(*(cache.layers for cache in caches), strict=True)
        num = len(pairs)
        self.layers = [
            (torch.cat([one.keys for one in same])[:num], torch.cat([one.values for one in same])[:num])
            for same in stacks
        ]
        self.owners = self.owners[parents]
        self.states[rows] = which.reshape(-1)
        return torch.cat(found)[:num].float()


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer with room for the tokens to come: appending writes in place instead of copying everything."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._all_keys = torch.nn.functional.pad(keys, (0, 0, 0, room))
        self._all_values = torch.nn.functional.pad(values, (0, 0, 0, room))
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append one token's keys and values ``[rows, heads, 1, d]``."""
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        self._all_keys[:, :, start:end], self._all_values[:, :, start:end] = key_states, value_states
        self.keys, self.values = self._all_keys[:, :, :end], self._all_values[:, :, :end]
        return self.keys, self.values


@dataclass(slots=True)
class _Batch:
    """Rows with their cache; those past ``count`` are filling."""

    rows: npt.NDArray[np.int64]
    count: int
    cache: DynamicCache


def _batch_sizes(language: LanguageModel, count: int) -> list[int]:
    """Rows of each batch for so many living rows: all full but the last one, which a packing model leaves small."""
    full = language.shapes.decode_rows
    whole, rest = divmod(count, full)
    return [full] * whole + [language.rows(rest, full)] * bool(rest)


def _regroup(
    batches: list[_Batch],
    prefix: Prefix,
    owners: Tensor,
    alive: npt.NDArray[np.int64],
    sizes: Sequence[int],
    room: int,
) -> list[_Batch]:
    """Pack the living rows into batches of these sizes, the last of which may be filled up."""
    if batches:
        place = np.full(len(owners), -1, dtype=np.int64)
        before = 0
        for batch in batches:
            place[batch.rows[: batch.count]] = before + np.arange(batch.count)
            before += len(batch.rows)
        stacks = zip(*(batch.cache.layers for batch in batches), strict=True)
        layers = [(torch.cat([x.keys for x in same]), torch.cat([x.values for x in same])) for same in stacks]
    else:
        place = owners.numpy()
        layers = list(zip(prefix.keys, prefix.values, strict=True))
    packed: list[_Batch] = []
    for size in sizes:
        rows = alive[len(packed) * sizes[0] :][:size]
        filled = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))])
        index = torch.from_numpy(place[filled])
        cache = DynamicCache()
        cache.layers = [
            _RoomyLayer(k.index_select(0, index), v.index_select(0, index), room) for k, v in layers
        ]
        packed.append(_Batch(filled, len(rows), cache))
    return packed


def _step(
    language: LanguageModel, prefix: Prefix, owners: Tensor, batch: _Batch, last: Tensor, step: int
) -> Tensor:
    """Logits ``[rows, V]`` of a batch after one more token."""
    owner = owners[torch.from_numpy(batch.rows)]
    bias = torch.nn.functional.pad(prefix.bias[owner], (0, step))
    positions = prefix.lengths[owner, None] + (step - 1)
    return language.logits(last, bias[:, None, None, :], positions, batch.cache)[:, -1].float()


def _pick(
    logits: Tensor,
    which: npt.NDArray[np.int64],
    uniforms: npt.NDArray[np.float64] | None,
    temperature: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Tokens ``[rows]`` and the entropies of their distributions ``[rows]``: row r's is that of ``logits[which[r]]``."""
    log_probs = (logits.double() / temperature).log_softmax(-1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(-1).numpy()[which]
    if uniforms is None:
        return logits.argmax(-1).numpy()[which], entropy
    cdf = probs.cumsum(-1)
    counts = np.bincount(which, minlength=len(cdf))
    order = np.argsort(which, kind="stable")
    slots = np.empty_like(which)
    slots[order] = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    draws = torch.zeros(len(cdf), int(counts.max()), dtype=torch.float64)
    # The last value is 1 up to rounding: scaling the draw keeps it inside.
    draws[which, slots] = torch.from_numpy(uniforms) * cdf[which, -1]
    found = torch.searchsorted(cdf, draws, right=True)[which, slots]
    return found.clamp_max(logits.shape[-1] - 1).numpy(), entropy
