"""Teacher-forced scores of answers by a big model, without filling: every token of a batch is one row of a matrix.

On a model of a hundred million weights every filled-up row costs as much as a real one. Here questions and the answers that
continue them lie one after the other, ``N`` tokens in all; what works token by token (all matrix products) runs over the
``N`` rows, and attention runs over groups of one canonical width, in which an answer sees its question and itself. The bits of
an answer's scores depend on itself and its question alone, as long as a matrix product's rows do not depend on how many there
are; `rows_are_independent` tries that on this machine, and where it is not so nothing is packed.

Layers below every adapter are the same for policy and clients: what leaves them is remembered (`SharedLayers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention

from fedsim.models.real.lean_llama import half_turned, llama_of, normed, rotations, through
from fedsim.models.real.tokens import Ids

_WIDTH_STEP = 16
_MOST_BYTES = 256 << 20
FEWEST_ROWS = 4
"""Rows of a matrix product at least: of fewer, other kernels take over."""

_TRIED_ROWS = (FEWEST_ROWS, 5, 7, 8, 13, 16, 24, 33, 64, 127)
_MOST_ROWS = 160
_INDEPENDENT: dict[tuple[torch.Size, ...], bool] = {}


@dataclass(frozen=True)
class Pack:
    """Questions and answers as rows of one matrix: first every question's tokens, then every answer's.

    Attributes:
        prompts: distinct questions.
        owners: for each answer the index of its question.
        inputs: for each answer its tokens without the last one, whose successor nobody asks for.
    """

    prompts: tuple[Ids, ...]
    owners: tuple[int, ...]
    inputs: tuple[Ids, ...]

    @classmethod
    def of(cls, prompts: Sequence[Ids], owners: Sequence[int], inputs: Sequence[Ids]) -> Pack:
        """A pack; of too few tokens one with a question more, which nobody asked."""
        few = sum(map(len, (*prompts, *inputs))) < FEWEST_ROWS
        return cls((*prompts, *[(0,) * FEWEST_ROWS] * few), tuple(owners), tuple(inputs))

    @cached_property
    def starts(self) -> tuple[list[int], list[int]]:
        """The first row of every question and of every answer."""
        place, found = 0, []
        for ids in (*self.prompts, *self.inputs):
            found.append(place)
            place += len(ids)
        return found[: len(self.prompts)], found[len(self.prompts) :]

    @cached_property
    def ids(self) -> Tensor:
        """Tokens, int64 ``[N]``."""
        return torch.tensor([token for ids in (*self.prompts, *self.inputs) for token in ids])

    @cached_property
    def positions(self) -> Tensor:
        """Positions, int64 ``[N]``: an answer goes on where its question ends."""
        own = [range(len(ids)) for ids in self.prompts]
        own += [
            range(len(self.prompts[owner]), len(self.prompts[owner]) + len(ids))
            for owner, ids in zip(self.owners, self.inputs, strict=True)
        ]
        return torch.tensor([position for positions in own for position in positions])

    @cached_property
    def groups(self) -> list[_Group]:
        """Groups of one width that attention runs over."""
        prompt_starts, answer_starts = self.starts
        widths: dict[tuple[int, int], list[tuple[list[int], int, list[int]]]] = {}
        for ids, start in zip(self.prompts, prompt_starts, strict=True):
            rows = list(range(start, start + len(ids)))
            widths.setdefault((_canonical(len(ids)), 0), []).append((rows, len(ids), []))
        for owner, ids, start in zip(self.owners, self.inputs, answer_starts, strict=True):
            if ids:
                first, count = prompt_starts[owner], len(self.prompts[owner])
                own = list(range(start, start + len(ids)))
                rows = list(range(first, first + count))
                widths.setdefault((_canonical(count), len(ids)), []).append((rows, count, own))
        return [_group(width, members) for (width, _), members in sorted(widths.items())]

    @cached_property
    def order(self) -> Tensor:
        """Where each row's attention stands among the groups' outputs, int64 ``[N]``."""
        asked = torch.cat([group.asked.flatten() for group in self.groups])
        real = torch.cat([group.real.flatten() for group in self.groups])
        places = torch.arange(len(asked))[real]
        return places[asked[real].argsort()]


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that attend together.

    Attributes:
        asked: rows that ask ``[n, A]``; filled up where ``real`` is false.
        real: bool ``[n, A]``.
        seen: rows that may be seen ``[n, W]``.
        bias: additive attention bias ``[n, 1, A, W]``; None: causal.
    """

    asked: Tensor
    real: Tensor
    seen: Tensor
    bias: Tensor | None


def _group(width: int, members: Sequence[tuple[list[int], int, list[int]]]) -> _Group:
    prompts = torch.tensor([rows + rows[:1] * (width - count) for rows, count, _ in members])
    counts = torch.tensor([count for _, count, _ in members])
    real = torch.arange(width) < counts[:, None]
    num = len(members[0][2])
    if not num:
        return _Group(prompts, real, prompts, None)
    own = torch.tensor([rows for *_, rows in members])
    causal = torch.ones(num, num, dtype=torch.bool).tril().expand(len(members), num, num)
    allowed = torch.cat([real[:, None, :].expand(-1, num, -1), causal], dim=-1)
    bias = torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))
    return _Group(
        own, torch.ones_like(own, dtype=torch.bool), torch.cat([prompts, own], dim=1), bias[:, None]
    )


def packed_logits(network: Any, pack: Pack, shared: SharedLayers | None) -> tuple[Tensor, list[list[int]]]:
    """Next-token logits ``[M, V]`` after every question and every answer token, and for each answer the rows of its tokens.

    Args:
        network: a network that ``is_lean``; differentiable when gradients are on.
        pack: questions and answers.
        shared: the layers that it has in common with others.
    """
    llama = llama_of(network)
    first = 0 if shared is None else shared.num_layers
    if shared is None:
        states = embedding(pack.ids, llama.model.embed_tokens.weight, llama.model.padding_idx)
    else:
        states = shared.leaving(pack)
    states = _attended_through(llama, range(first, len(llama.model.layers)), states, pack)
    prompt_starts, answer_starts = pack.starts
    ends = [start + len(ids) - 1 for start, ids in zip(prompt_starts, pack.prompts, strict=True)]
    first_answer = len(states) - sum(map(len, pack.inputs))
    states = torch.cat([states[torch.tensor(ends)], states[first_answer:]])
    rows = [
        [owner, *range(len(ends) + start - first_answer, len(ends) + start - first_answer + len(ids))]
        for owner, start, ids in zip(pack.owners, answer_starts, pack.inputs, strict=True)
    ]
    filled = torch.cat([states, states[-1:].expand(max(0, FEWEST_ROWS - len(states)), -1)])
    return linear(normed(llama.model.norm, filled), llama.lm_head.weight)[: len(states)], rows


def _attended_through(llama: Any, layers: range, states: Tensor, pack: Pack) -> Tensor:
    """States ``[N, h]`` after these layers."""
    cos, sin = rotations(llama.model.rotary_emb.inv_freq, pack.positions[None])
    cos, sin = cos[0, 0][:, None], sin[0, 0][:, None]  # [N, 1, d]
    scale = llama.model.layers[0].self_attn.scaling

    def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = (query * cos) + (half_turned(query) * sin)
        key = (key * cos) + (half_turned(key) * sin)
        repeats = query.shape[1] // key.shape[1]
        mixed = []
        for group in pack.groups:
            q, k, v = (t[rows].transpose(1, 2) for t, rows in
                       ((query, group.asked), (key, group.seen), (value, group.seen)))  # fmt: skip
            k, v = (one.repeat_interleave(repeats, dim=1) for one in (k, v))
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=group.bias, is_causal=group.bias is None, scale=scale
            )
            mixed.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed)[pack.order].flatten(1)

    return through(llama, layers, states, attend)


class SharedLayers:
    """The layers below every adapter, the same for all models of one base: run once for each question and answer.

    Frozen, so no gradient goes through. What leaves them is remembered by tokens.

    Args:
        network: any model of the base; it must be lean.
        num_layers: how many layers no model has changed.
    """

    def __init__(self, network: Any, num_layers: int) -> None:
        self.num_layers = num_layers
        self._network = network
        self._known: dict[tuple[Ids, Ids], Tensor] = {}
        self._num_bytes = 0

    @torch.no_grad()
    def leaving(self, pack: Pack) -> Tensor:
        """States ``[N, h]`` that leave these layers."""
        prompts = [(ids, ()) for ids in pack.prompts]
        answers = [(pack.prompts[owner], ids) for owner, ids in zip(pack.owners, pack.inputs, strict=True)]
        missing = list(dict.fromkeys(key for key in (*prompts, *answers) if key not in self._known))
        if missing:
            self._run(missing)
        states = torch.cat([self._known[key] for key in (*prompts, *answers)])
        if self._num_bytes > _MOST_BYTES:
            for key in list(self._known)[: len(self._known) // 2]:
                self._num_bytes -= self._known.pop(key).nbytes
        return states

    def _run(self, missing: Sequence[tuple[Ids, Ids]]) -> None:
        """Remember these; an answer's question is run again, because answers attend to it."""
        prompts = tuple(dict.fromkeys(prompt for prompt, _ in missing))
        answers = [key for key in missing if key[1]]
        pack = Pack.of(prompts, [prompts.index(prompt) for prompt, _ in answers], [ids for _, ids in answers])
        llama = llama_of(self._network)
        states = embedding(pack.ids, llama.model.embed_tokens.weight, llama.model.padding_idx)
        states = _attended_through(llama, range(self.num_layers), states, pack)
        keys: list[tuple[Ids, Ids]] = [*((prompt, ()) for prompt in pack.prompts), *answers]
        for key, start in zip(keys, (*pack.starts[0], *pack.starts[1]), strict=True):
            kept = states[start : start + len(key[1] or key[0])].clone()
            if key not in self._known:
                self._num_bytes += kept.nbytes
                self._known[key] = kept


@torch.no_grad()
def rows_are_independent(network: Any) -> bool:
    """Whether a row of a matrix product has the same bits among few and among many rows, by trial on this network's shapes."""
    llama = llama_of(network)
    matrices = [weight for weight in llama.model.layers[-1].parameters() if weight.ndim == 2]
    shapes = tuple(dict.fromkeys(weight.shape for weight in (*matrices, llama.lm_head.weight)))
    if shapes not in _INDEPENDENT:
        draws = torch.Generator().manual_seed(0)
        _INDEPENDENT[shapes] = all(_has_independent_rows(shape, draws) for shape in shapes)
    return _INDEPENDENT[shapes]


def _has_independent_rows(shape: torch.Size, draws: torch.Generator) -> bool:
    weight = torch.randn(shape, generator=draws)
    rows = torch.randn(_MOST_ROWS, shape[1], generator=draws)
    full = linear(rows, weight)
    return all(torch.equal(linear(rows[:count], weight), full[:count]) for count in _TRIED_ROWS)


def _canonical(count: int) -> int:
    return -(-count // _WIDTH_STEP) * _WIDTH_STEP
