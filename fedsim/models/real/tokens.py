"""Texts as token ids and back: how a question is asked, what an answer begins with, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from fedsim.tasks.questions import TextFormat

Ids = tuple[int, ...]
_MOST_TEXTS = 200_000


class Tokens:
    """Texts as token ids and back, remembered; models with one vocabulary share one.

    A tokenizer call takes 0.1 ms, and a run asks for the same few thousand texts some 200,000 times.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_format: TextFormat | None = None,
        chat: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._format = text_format or TextFormat()
        self._chat = chat
        self._prompts: dict[str, Ids] = {}
        self._plain: dict[str, Ids] = {}
        self.text = lru_cache(_MOST_TEXTS)(self._decoded)

    @property
    def stops_at_texts(self) -> bool:
        """Whether an answer may end at a text, and not at an end token alone."""
        return bool(self._format.stop)

    def prompt_ids(self, text: str) -> Ids:
        """Token ids of a question, with the tokenizer's own special tokens, or in its chat template."""
        if text not in self._prompts:
            self.read([text])
        return self._prompts[text]

    def answer_ids(self, text: str) -> Ids:
        """Token ids of an answer, the prefix that every answer has before it."""
        return self.plain_ids(self._format.answer_prefix + text)

    def covering(self, text: str, start: int, end: int) -> range:
        """Places in ``answer_ids(text)`` of the tokens that hold any character of the text from ``start`` to before ``end``."""
        prefix = self._format.answer_prefix
        read = self._tokenizer(prefix + text, add_special_tokens=False, return_offsets_mapping=True)
        first, last = start + len(prefix), end + len(prefix)
        places = [place for place, (a, b) in enumerate(read["offset_mapping"]) if a < last and b > first]
        return range(places[0], places[-1] + 1) if places else range(0)

    def has_stopped(self, ids: Ids) -> bool:
        """Whether sampled ids hold a text that ends an answer."""
        written = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        return any(stop in written for stop in self._format.stop)

    def plain_ids(self, text: str) -> Ids:
        """Token ids of a text, without special tokens."""
        ids = self._plain.get(text)
        if ids is None:
            self.read_plain([text])
            ids = self._plain[text]
        return ids

    def read(self, texts: Sequence[str]) -> None:
        """Make the ids of many questions at once, which takes a tenth of the time."""
        asked = list(texts)
        if self._chat:
            asked = [
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
                )
                for text in texts
            ]
        ids = self._tokenizer(asked, add_special_tokens=not self._chat)["input_ids"]
        self._prompts.update(zip(texts, map(tuple, ids), strict=True))

    def read_plain(self, texts: Sequence[str]) -> None:
        """Make the ids of many texts at once, without special tokens; of too many, the older half is forgotten."""
        if len(self._plain) > _MOST_TEXTS:
            for text in list(self._plain)[: _MOST_TEXTS // 2]:
                del self._plain[text]
        missing = [text for text in dict.fromkeys(texts) if text not in self._plain]
        if missing:
            ids = self._tokenizer(missing, add_special_tokens=False)["input_ids"]
            self._plain.update(zip(missing, map(tuple, ids), strict=True))

    def _decoded(self, ids: Ids) -> str:
        """The text of an answer, without its prefix, and without what comes from the first stop on."""
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        for stop in self._format.stop:
            text = text.split(stop, 1)[0]
        return text.removeprefix(self._format.answer_prefix)


def end_ids(network: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end an answer: the tokenizer's end token, then those of the model's generation settings."""
    named = [tokenizer.eos_token_id]
    settings = getattr(network, "generation_config", None)
    more = getattr(settings, "eos_token_id", None)
    named += more if isinstance(more, list) else [more]
    return tuple(dict.fromkeys(int(one) for one in named if one is not None))
