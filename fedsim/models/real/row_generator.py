"""A generator of whole rows: a language model that answers the empty question with a question and its answer.

A row is the sequence ``<answer> question <answer> answer <eos>``. To the rest of the code it is an answer like any other: the
empty question's ids are ``<answer>`` alone, so training, sampling and caching need nothing new, and the loss is over all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedsim.models.interfaces import FloatArray
from fedsim.models.real.embedding import token_means
from fedsim.models.real.language import LanguageModel, Shapes, prefill
from fedsim.models.real.private_evolution import Row
from fedsim.models.real.sampling import decode
from fedsim.models.real.tokenizer import ANSWER
from fedsim.models.real.tokens import Ids
from fedsim.sim import streams
from fedsim.tasks.questions import Question

_SHAPES = Shapes(prompt_tokens=16, prompt_rows=32, decode_rows=128)
_MARKS = ("<pad>", "<unk>")


def whole_row(row: Question) -> Question:
    """The row as the generator learns it: the empty question, answered by all of the row."""
    return replace(row, text="", answer=f"{row.text}{ANSWER}{row.taught}", solution="")


class TextGenerator:
    """Samples, varies and embeds whole rows (``private_evolution.Generator``).

    Args:
        network: the trained generator.
        tokenizer: its tokenizer.
        max_tokens: longest row (tokens).
        temperature: divides the logits.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        temperature: float,
    ) -> None:
        self._language = LanguageModel(network, tokenizer, _SHAPES)
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._mark = int(tokenizer.convert_tokens_to_ids(ANSWER))
        self._unwanted = {int(tokenizer.convert_tokens_to_ids(mark)) for mark in _MARKS}

    def random(self, count: int, key: streams.Part) -> list[Row | None]:
        """Fresh rows; row r's tokens are drawn by element ``[r]`` of the stream ``key``."""
        start = self._language.prompt_ids("")
        return self._continued([start], count, key)

    def vary(self, rows: Sequence[Row], keep: float, key: streams.Part) -> list[Row | None]:
        """Each row's first tokens, and the rest sampled anew; at least the last token is."""
        prompts: list[Ids] = []
        for row in rows:
            ids = self._ids(row)
            kept = min(round(keep * (len(ids) - 1)), len(ids) - 2)
            prompts.append(ids[: 1 + max(0, kept)])
        return self._continued(prompts, 1, key)

    def embed(self, rows: Sequence[Row]) -> FloatArray:
        """Token means of the first and the last hidden states, each l2-normalised, side by side ``[n, 2 d]``."""
        found: list[FloatArray] = [np.zeros(0)] * len(rows)
        prompts = [self._ids(row)[:-1] for row in rows]
        for width, places in self._by_width(prompts).items():
            means = token_means(self._language, [prompts[i] for i in places], width)
            means /= np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-12)
            for place, mean in zip(places, means, strict=True):
                found[place] = mean.reshape(-1)
        return np.stack(found)

    def _ids(self, row: Row) -> Ids:
        question, answer = row
        return (*self._language.prompt_ids(""), *self._language.answer_ids(f"{question}{ANSWER}{answer}"))

    @torch.no_grad()
    def _continued(self, prompts: Sequence[Ids], copies: int, key: streams.Part) -> list[Row | None]:
        uniforms = streams.generator(key).random((len(prompts) * copies, self._max_tokens))
        rows: list[Row | None] = [None] * (len(prompts) * copies)
        for width, places in self._by_width(prompts).items():
            prefix = prefill(self._language, [prompts[i] for i in places], width)
            own = np.concatenate([uniforms[i * copies : (i + 1) * copies] for i in places])
            sampled = decode(self._language, prefix, copies, self._max_tokens, own, self._temperature)
            for place, answers in zip(places, sampled, strict=True):
                for copy, answer in enumerate(answers):
                    if not answer.truncated:
                        rows[place * copies + copy] = self.read((*prompts[place][1:], *answer.ids))
        return rows

    def read(self, ids: Ids) -> Row | None:
        """The row behind ids without the start mark; None if it is malformed: anything but text, mark, text, end."""
        if len(ids) > self._max_tokens or ids[-1] != self._language.end_id or ids.count(self._mark) != 1:
            return None
        body = ids[:-1]
        if self._language.end_id in body or self._unwanted & set(body):
            return None
        middle = body.index(self._mark)
        question, answer = (self._text(part) for part in (body[:middle], body[middle + 1 :]))
        return (question, answer) if question.strip() and answer.strip() else None

    def _text(self, ids: Ids) -> str:
        return str(self._language.tokenizer.decode(list(ids)))

    def _by_width(self, prompts: Sequence[Ids]) -> dict[int, list[int]]:
        widths: dict[int, list[int]] = {}
        for place, ids in enumerate(prompts):
            widths.setdefault(self._language.width(ids), []).append(place)
        return dict(sorted(widths.items()))
