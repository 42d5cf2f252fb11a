"""Questions and answers of a big model without filling, and with what they have in common computed once.

On a model of a hundred million weights every row of a matrix costs. Here the texts of a batch have a row for each distinct
beginning, ``N`` in all: questions of one wording share their first tokens, candidates of one question share it. What works
token by token (all matrix products) runs over the ``N`` rows, and attention runs over groups of one canonical width, in which
an answer sees its question and itself. The bits of a text's numbers depend on itself alone, as long as a matrix product's
rows do not depend on how many there are; `rows_are_independent` tries that on this machine, and where it is not so nothing is
packed.

Layers below every adapter are the same for policy and clients: what leaves them is remembered (`SharedLayers`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention

from fedsim.models.real.lean_llama import half_turned, llama_of, normed, rotations, through
from fedsim.models.real.tokens import Ids

_WIDTH_STEP = 16
_MOST_REMEMBERED = 60_000  # beginnings
FEWEST_ROWS = 4
"""Rows of a matrix product at least: of fewer, other kernels take over."""

_TRIED_ROWS = (FEWEST_ROWS, 5, 7, 8, 13, 16, 24, 33, 64, 127)
_MOST_ROWS = 160
_INDEPENDENT: dict[tuple[torch.Size, ...], bool] = {}


@dataclass(frozen=True)
class Pack:
    """Questions and answers that continue them, as rows of one matrix: a row for each distinct beginning.

    Two texts that begin with the same tokens have those rows in common, as questions of one wording and candidates of one
    question do.

    Attributes:
        prompts: questions.
        owners: for each answer the index of its question.
        inputs: for each answer its tokens without the last one, whose successor nobody asks for.
    """

    prompts: tuple[Ids, ...]
    owners: tuple[int, ...]
    inputs: tuple[Ids, ...]

    @classmethod
    def of(cls, prompts: Sequence[Ids], owners: Sequence[int], inputs: Sequence[Ids]) -> Pack:
        """A pack; of too few rows one with a question more, which nobody asked."""
        pack = cls(tuple(prompts), tuple(owners), tuple(inputs))
        if len(pack.rows) >= FEWEST_ROWS:
            return pack
        return cls((*prompts, tuple(range(FEWEST_ROWS))), tuple(owners), tuple(inputs))

    @cached_property
    def rows(self) -> dict[Ids, int]:
        """The row of every distinct beginning: first those of the questions, then those that go on into answers."""
        found: dict[Ids, int] = {}
        for ids in self.prompts:
            for end in range(1, len(ids) + 1):
                found.setdefault(ids[:end], len(found))
        for owner, inputs in zip(self.owners, self.inputs, strict=True):
            ids, past = (*self.prompts[owner], *inputs), len(self.prompts[owner])
            for end in range(past + 1, len(ids) + 1):
                found.setdefault(ids[:end], len(found))
        return found

    @cached_property
    def prompt_rows(self) -> list[list[int]]:
        """For each question the rows of its tokens."""
        return [[self.rows[ids[:end]] for end in range(1, len(ids) + 1)] for ids in self.prompts]

    @cached_property
    def answer_rows(self) -> list[list[int]]:
        """For each answer the rows of its input tokens."""
        found = []
        for owner, inputs in zip(self.owners, self.inputs, strict=True):
            ids, past = (*self.prompts[owner], *inputs), len(self.prompts[owner])
            found.append([self.rows[ids[:end]] for end in range(past + 1, len(ids) + 1)])
        return found

    @cached_property
    def ids(self) -> Tensor:
        """Tokens, int64 ``[N]``."""
        return torch.tensor([beginning[-1] for beginning in self.rows])

    @cached_property
    def positions(self) -> Tensor:
        """Positions, int64 ``[N]``."""
        return torch.tensor([len(beginning) - 1 for beginning in self.rows])

    @cached_property
    def groups(self) -> list[_Group]:
        """Groups of one width that attention runs over."""
        widths: dict[tuple[int, int], dict[tuple[int, ...], tuple[list[int], list[int]]]] = {}
        for rows in self.prompt_rows:
            widths.setdefault((_canonical(len(rows)), 0), {})[tuple(rows)] = (rows, [])
        for owner, own in zip(self.owners, self.answer_rows, strict=True):
            if own:
                rows = self.prompt_rows[owner]
                widths.setdefault((_canonical(len(rows)), len(own)), {})[tuple(rows + own)] = (rows, own)
        return [_group(width, list(members.values())) for (width, _), members in sorted(widths.items())]

    @cached_property
    def order(self) -> Tensor:
        """Where each row's attention stands among the groups' outputs, int64 ``[N]``."""
        asked = torch.cat([group.asked.flatten() for group in self.groups])
        real = torch.cat([group.real.flatten() for group in self.groups])
        places = torch.arange(len(asked))[real].flip(0)
        order = torch.empty(len(self.rows), dtype=torch.long)
        order[asked[real].flip(0)] = places  # of several that ask the same, any is as good
        return order


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


def _group(width: int, members: Sequence[tuple[list[int], list[int]]]) -> _Group:
    prompts = torch.tensor([rows + rows[:1] * (width - len(rows)) for rows, _ in members])
    real = torch.arange(width) < torch.tensor([len(rows) for rows, _ in members])[:, None]
    num = len(members[0][1])
    if not num:
        return _Group(prompts, real, prompts, None)
    own = torch.tensor([rows for _, rows in members])
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
    states = _embedded(llama, pack) if shared is None else shared.leaving(pack)
    states = _attended_through(llama, range(first, len(llama.model.layers)), states, pack)
    rows = [
        [pack.prompt_rows[owner][-1], *own] for owner, own in zip(pack.owners, pack.answer_rows, strict=True)
    ]
    wanted = sorted({row for own in rows for row in own})
    places = {row: place for place, row in enumerate(wanted)}
    return _head(llama, states[torch.tensor(wanted)]), [[places[row] for row in own] for own in rows]


@torch.no_grad()
def packed_prefill(
    network: Any, prompts: Sequence[Ids], width: int
) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Keys and values ``[n, heads, W, d]`` per layer, which of them are real ``[n, W]``, and logits after each question."""
    llama, pack = llama_of(network), Pack.of(prompts, [], [])
    kept: list[tuple[Tensor, Tensor]] = []
    states = _attended_through(llama, range(len(llama.model.layers)), _embedded(llama, pack), pack, kept)
    own = pack.prompt_rows[: len(prompts)]
    rows = torch.tensor([[*one, *one[:1] * (width - len(one))] for one in own])
    real = torch.arange(width) < torch.tensor([len(one) for one in own])[:, None]
    layers = [(keys[rows].transpose(1, 2), values[rows].transpose(1, 2)) for keys, values in kept]
    return layers, real, _head(llama, states[torch.tensor([one[-1] for one in own])])


def _embedded(llama: Any, pack: Pack) -> Tensor:
    return embedding(pack.ids, llama.model.embed_tokens.weight, llama.model.padding_idx)


def _head(llama: Any, states: Tensor) -> Tensor:
    filled = torch.cat([states, states[-1:].expand(max(0, FEWEST_ROWS - len(states)), -1)])
    logits: Tensor = linear(normed(llama.model.norm, filled), llama.lm_head.weight)[: len(states)]
    return logits


def _attended_through(
    llama: Any,
    layers: range,
    states: Tensor,
    pack: Pack,
    kept: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """States ``[N, h]`` after these layers; ``kept`` takes up each layer's keys and values ``[N, heads, d]``."""
    cos, sin = rotations(llama.model.rotary_emb.inv_freq, pack.positions[None])
    cos, sin = cos[0, 0][:, None], sin[0, 0][:, None]  # [N, 1, d]
    scale = llama.model.layers[0].self_attn.scaling

    def attend(_: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = (query * cos) + (half_turned(query) * sin)
        key = (key * cos) + (half_turned(key) * sin)
        if kept is not None:
            kept.append((key, value))
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
        self._known: dict[Ids, Tensor] = {}

    @torch.no_grad()
    def leaving(self, pack: Pack) -> Tensor:
        """States ``[N, h]`` that leave these layers."""
        missing = {beginning for beginning in pack.rows if beginning not in self._known}
        if missing:
            self._run(pack, missing)
        states = torch.stack([self._known[beginning] for beginning in pack.rows])
        if len(self._known) > _MOST_REMEMBERED:
            for beginning in list(self._known)[: _MOST_REMEMBERED // 2]:
                del self._known[beginning]
        return states

    def _run(self, pack: Pack, missing: Collection[Ids]) -> None:
        """Remember the beginnings that are missing; texts that they belong to are run whole, for they attend to it all."""
        answers = [
            (owner, inputs)
            for owner, inputs in zip(pack.owners, pack.inputs, strict=True)
            if any((*pack.prompts[owner], *inputs[:end]) in missing for end in range(1, len(inputs) + 1))
        ]
        asked = {pack.prompts[owner] for owner, _ in answers}
        prompts = [
            ids
            for ids in dict.fromkeys(pack.prompts)
            if ids in asked or any(ids[:end] in missing for end in range(1, len(ids) + 1))
        ]
        places = {ids: place for place, ids in enumerate(prompts)}
        part = Pack.of(
            prompts, [places[pack.prompts[owner]] for owner, _ in answers], [inputs for _, inputs in answers]
        )
        llama = llama_of(self._network)
        states = _attended_through(llama, range(self.num_layers), _embedded(llama, part), part)
        for beginning, row in part.rows.items():
            if beginning in missing:
                self._known[beginning] = states[row].clone()


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
