"""A causal language model that continues questions with answers, in batches of canonical shape.

Everything above (policy, evaluators, training of the policy) works on one structure: the *prefix* of a question is
run once, left-padded, and its keys and values are shared by all answers that continue it. Only ``prefill`` and
``extend`` call the network. Both see fixed shapes: a number of rows that does not depend on how many there are to
do (the last batch is filled up with copies; models that pack their rows need few), and widths that depend on a row's own
text alone. So a row's bits do not depend on the company it is computed in, and a
batch is free to be early, late, small or large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from fedsim.models.real.lean_llama import is_lean, lean_logits, llama_of
from fedsim.models.real.packed import FEWEST_ROWS, SharedLayers, packed_prefill, rows_are_independent
from fedsim.models.real.tokens import Ids, Tokens, end_ids

T = TypeVar("T")
_WIDTH_STEP = 16
_BIG = 20_000_000  # weights


@dataclass(frozen=True, slots=True)
class Shapes:
    """Canonical batch shapes (rows, tokens).

    Attributes:
        prompt_tokens: width to which questions are left-padded; a longer one gets the next multiple of 16.
        prompt_rows: questions per prefill.
        answer_rows: answers per teacher-forced pass.
        decode_rows: answers per sampling step.
        packs: leave out the filling of batches, and score answers in `packed` form, where the machine allows it.
    """

    prompt_tokens: int
    prompt_rows: int = 32
    answer_rows: int = 64
    decode_rows: int = 128
    packs: bool = False

    @classmethod
    def of(cls, network: Any, prompt_tokens: int) -> Shapes:
        """Shapes for a network: where a pass takes long by itself, filling is dear and small batches are not."""
        if sum(weight.numel() for weight in network.parameters()) < _BIG:
            return cls(prompt_tokens)
        return cls(prompt_tokens, prompt_rows=8, answer_rows=16, decode_rows=64, packs=True)


@dataclass(frozen=True, slots=True)
class Prefix:
    """Questions after one forward pass: what their continuations need.

    Attributes:
        keys: per layer ``[n, heads, W, d]``.
        values: per layer ``[n, heads, W, d]``.
        bias: additive attention bias over the prefix, 0 or minus infinity ``[n, W]``.
        lengths: real tokens of each question, int64 ``[n]``.
        logits: next-token logits after the question ``[n, V]``.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    bias: Tensor
    lengths: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Which items of a list one pass computes.

    Attributes:
        items: their places in the list, int64 ``[rows]``; those past ``kept`` are filling.
        kept: the rows of the pass that count.
        counts: rows of each of several networks that share the pass (``stacked.py``); None: one network.
    """

    items: Tensor
    kept: slice | Tensor
    counts: tuple[int, ...] | None = None


class LanguageModel:
    """A ``transformers`` causal model with its tokenizer and canonical shapes.

    Args:
        network: the model, perhaps with adapters.
        tokenizer: its tokenizer.
        shapes: of its batches.
        tokens: texts as ids, which models of one vocabulary share.
        shared: the layers that it has in common with other models of its base.

    Attributes:
        end_id: the end token that answers are taught and scored with.
        packs: whether batches are not filled up, and answers scored in packed form.
        end_ids: all tokens that end a sampled answer: the tokenizer's, and those of the model's generation settings.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: PreTrainedTokenizerBase,
        shapes: Shapes,
        tokens: Tokens | None = None,
        shared: SharedLayers | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.shapes = shapes
        self.end_ids = end_ids(network, tokenizer)
        self.end_id = self.end_ids[0]
        self.tokens = tokens or Tokens(tokenizer)
        self._was_lean = is_lean(network)
        self.shared = shared
        self.packs = shapes.packs and self._was_lean and rows_are_independent(network)

    @property
    def is_lean(self) -> bool:
        """Whether the network is one for ``lean_logits``, and still in the precision in which it came."""
        return self._was_lean and llama_of(self.network).lm_head.weight.dtype == torch.float32

    def batches(self, prompts: Sequence[int], full: int) -> Iterator[Batch]:
        """Passes over items that belong to these prompts, at most ``full`` rows each, the last one filled up."""
        for start in range(0, len(prompts), full):
            items = torch.arange(start, min(start + full, len(prompts)))
            yield Batch(filled(items, self.rows(len(items), full)), slice(0, len(items)))

    def logits(
        self,
        ids: Tensor,
        bias: Tensor,
        positions: Tensor,
        cache: DynamicCache,
        last: bool = False,
        batch: Batch | None = None,
    ) -> Tensor:
        """Next-token logits after each input token, or after the last alone; see ``lean_logits``, whose bits these are.

        ``batch`` is where the rows come from, for networks that share a pass.
        """
        if self.is_lean:
            return lean_logits(self.network, ids, bias, positions, cache, last)
        out = self.network(
            input_ids=ids, attention_mask=bias, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1 if last else 0,
        )  # fmt: skip
        logits: Tensor = out.logits
        return logits

    def rows(self, count: int, full: int) -> int:
        """How many rows a batch of ``count`` is filled up to: ``full``, or a few where rows are independent."""
        return max(count, min(full, FEWEST_ROWS)) if self.packs else full

    def prompt_ids(self, text: str) -> Ids:
        """Token ids of a question, with the tokenizer's own special tokens."""
        return self.tokens.prompt_ids(text)

    def answer_ids(self, text: str) -> Ids:
        """Token ids of a whole answer: its text and the end token."""
        return (*self.tokens.answer_ids(text), self.end_id)

    def answer_text(self, ids: Ids) -> str:
        """The text of sampled ids, without the end token."""
        return self.tokens.text(tuple(ids))

    def has_ended(self, ids: Ids) -> bool:
        """Whether sampled ids are a whole answer."""
        return ids[-1] in self.end_ids or (self.tokens.stops_at_texts and self.tokens.has_stopped(ids))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return len(self.tokens.plain_ids(text))

    def width(self, ids: Ids) -> int:
        """Canonical width of a question of these ids."""
        least = self.shapes.prompt_tokens
        return least if len(ids) <= least else -(-len(ids) // _WIDTH_STEP) * _WIDTH_STEP


def by_width(
    language: LanguageModel, items: Sequence[T], text: Callable[[T], str], most_questions: int
) -> list[list[T]]:
    """Items in batches whose questions have one canonical width; at most so many distinct questions a batch."""
    widths: dict[int, dict[str, list[T]]] = {}
    for item in items:
        question = text(item)
        same = widths.setdefault(language.width(language.prompt_ids(question)), {})
        same.setdefault(question, []).append(item)
    batches = []
    for _, questions in sorted(widths.items()):
        every = list(questions.values())
        for start in range(0, len(every), most_questions):
            batches.append([item for items in every[start : start + most_questions] for item in items])
    return batches


def filled(items: Tensor, rows: int) -> Tensor:
    """Items ``[n]`` and copies of the last one ``[rows]``."""
    return torch.cat([items, items[-1:].expand(rows - len(items))]) if len(items) < rows else items


def prefill(language: LanguageModel, prompts: Sequence[Ids], width: int) -> Prefix:
    """Run questions once, padded to ``width``, and keep what their continuations need."""
    if language.packs:
        layers, real, logits = packed_prefill(language.network, prompts, width, language.shared)
        keys, values = zip(*layers, strict=True)
        return Prefix(keys, values, _bias(real), real.sum(-1), logits)
    parts, places = [], []
    for batch in language.batches(range(len(prompts)), language.shapes.prompt_rows):
        cache = DynamicCache()
        inputs, real = _padded(language, [prompts[item] for item in batch.items.tolist()], width)
        logits = language.logits(
            inputs["input_ids"], inputs["attention_mask"], inputs["position_ids"], cache, True, batch
        )
        parts.append(
            Prefix(
                keys=tuple(layer.keys[batch.kept] for layer in cache.layers),
                values=tuple(layer.values[batch.kept] for layer in cache.layers),
                bias=_bias(real)[batch.kept].to(language.network.dtype),
                lengths=real.sum(-1)[batch.kept],
                logits=logits[batch.kept, -1].float(),
            )
        )
        places.append(batch.items[batch.kept])
    if len(parts) == 1 and isinstance(batch.kept, slice):  # the questions' own order, and nothing to join
        return parts[0]
    return Prefix(
        keys=tuple(_in_order(layer, places) for layer in zip(*(p.keys for p in parts), strict=True)),
        values=tuple(_in_order(layer, places) for layer in zip(*(p.values for p in parts), strict=True)),
        bias=_in_order([p.bias for p in parts], places),
        lengths=_in_order([p.lengths for p in parts], places),
        logits=_in_order([p.logits for p in parts], places),
    )


def _in_order(parts: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """What the passes found, in the order of the items."""
    found, place = torch.cat(list(parts)), torch.cat(list(places))
    return found if bool((place[1:] > place[:-1]).all()) else found[place.argsort()]


def padded_prompts(
    language: LanguageModel, prompts: Sequence[Ids], width: int | None = None
) -> Iterator[tuple[dict[str, Tensor], Tensor, int]]:
    """Batches of ``prompt_rows`` left-padded questions: network inputs, real tokens ``[rows, W]``, and how many count.

    A padded position attends to itself only (an empty softmax would be NaN) and is seen by nobody.
    """
    rows = language.shapes.prompt_rows
    width = width or max(language.width(ids) for ids in prompts)
    for start in range(0, len(prompts), rows):
        batch = prompts[start : start + rows]
        filling = [batch[-1]] * (language.rows(len(batch), rows) - len(batch))
        yield *_padded(language, [*batch, *filling], width), len(batch)


def _padded(language: LanguageModel, prompts: Sequence[Ids], width: int) -> tuple[dict[str, Tensor], Tensor]:
    ids, real = _left_padded(prompts, width, language.end_id)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    allowed = (real[:, None, :] & causal) | torch.eye(width, dtype=torch.bool)
    inputs = {
        "input_ids": ids,
        "attention_mask": _bias(allowed)[:, None].to(language.network.dtype),
        "position_ids": (real.cumsum(-1) - 1).clamp_min(0),
    }
    return inputs, real


def extend(language: LanguageModel, prefix: Prefix, owners: Tensor, inputs: Tensor) -> Tensor:
    """Next-token logits ``[R, A, V]`` after each input token of answers that continue shared prefixes.

    Args:
        language: the model.
        prefix: questions, already run.
        owners: which question each answer continues, int64 ``[R]``.
        inputs: the answers' tokens, right-padded, int64 ``[R, A]``.
    """
    width = inputs.shape[1]
    pieces, places = [], []
    for batch in language.batches(owners.tolist(), language.shapes.answer_rows):
        owner = owners[batch.items]
        bias, positions = _answer_inputs(prefix, owner, width)
        cache = shared_cache(prefix, owner)
        logits = language.logits(inputs[batch.items], bias, positions, cache, batch=batch)
        pieces.append(logits[batch.kept].float())
        places.append(batch.items[batch.kept])
    return _in_order(pieces, places)


def _answer_inputs(prefix: Prefix, owners: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Attention bias ``[R, 1, A, W + A]`` and positions ``[R, A]`` of answers that continue these questions."""
    causal = _bias(torch.ones(width, width, dtype=torch.bool).tril())
    bias = prefix.bias[owners][:, None, :].expand(len(owners), width, -1)
    bias = torch.cat([bias, causal.to(bias.dtype).expand(len(owners), width, width)], dim=-1)
    return bias[:, None], prefix.lengths[owners, None] + torch.arange(width)


def shared_cache(prefix: Prefix, owners: Tensor) -> DynamicCache:
    """A fresh cache that holds, for every row, its own question's keys and values."""
    pairs = zip(prefix.keys, prefix.values, strict=True)
    return DynamicCache(
        [(keys.index_select(0, owners), values.index_select(0, owners)) for keys, values in pairs]
    )


def _left_padded(rows: Sequence[Ids], width: int, pad: int) -> tuple[Tensor, Tensor]:
    """Ids ``[n, width]`` and which of them are real, bool ``[n, width]``."""
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(width) >= (width - lengths)[:, None]


def _bias(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))
