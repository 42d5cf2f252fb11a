"""How long texts count where they are not counted as they are: token lengths from stated distributions.

A run that is billed as a bigger model takes the lengths of questions, rationales and answers from here, in either
fidelity, instead of from the little texts that it really works on. A length is a keyed draw of (seed, kind, text): the
same text is always as long, whoever asks, in whatever order. A candidate is a rationale and an answer.

    text: {question: {median: 120, p95: 400}, rationale: {low: 200, high: 600}, answer: 8, bytes_per_token: 4}

A distribution is a fixed count, a lognormal by its median and 95th percentile, a uniform range, or a preset: the quantiles
of prompts and answers of two production services (``presets/text_lengths.csv``).

References:
    Patel et al., Splitwise: Efficient Generative LLM Inference Using Phase Splitting, ISCA 2024 (the presets' traces).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from fedsim.config.strict import StrictModel
from fedsim.sim import streams
from fedsim.sim.devices.presets import unknown_name
from fedsim.sim.network.wire import TextKind

MOST_TOKENS = 1_000_000
"""No text is longer."""

GREATEST_SHARE = 0.999
"""The longest text of an unbounded distribution, for memory, is its quantile at this share."""

_NORMAL = NormalDist()
_Z_95 = _NORMAL.inv_cdf(0.95)
_AT_MOST = "longer draws are cut to this (tokens; null: not cut)"


class FixedLength(StrictModel):
    """Every text has the same length; a bare integer is short for it."""

    tokens: int = Field(ge=0, le=MOST_TOKENS, description="length of every text (tokens)")

    @property
    def least(self) -> int:
        """The shortest possible length, tokens."""
        return self.tokens

    def at(self, share: float) -> int:
        """The quantile at ``share``, tokens."""
        return self.tokens

    def __str__(self) -> str:
        return f"{self.tokens}"


class LognormalLength(StrictModel):
    """Lognormal lengths: ``median (p95 / median)^(z / 1.645)`` for a standard normal z, at least 1."""

    median: float = Field(gt=0, le=MOST_TOKENS, description="half of the texts are longer (tokens)")
    p95: float = Field(gt=0, le=MOST_TOKENS, description="one text in twenty is longer (tokens)")
    at_most: int | None = Field(None, ge=1, le=MOST_TOKENS, description=_AT_MOST)

    @model_validator(mode="after")
    def _ordered(self) -> LognormalLength:
        if self.p95 < self.median:
            raise ValueError(f"p95 {self.p95:g} must be at least the median, {self.median:g}")
        return self

    @property
    def least(self) -> int:
        """The shortest possible length, tokens."""
        return 1

    def at(self, share: float) -> int:
        """The quantile at ``share``, tokens."""
        exponent = _NORMAL.inv_cdf(share) / _Z_95
        log_length = math.log(self.median) + exponent * math.log(self.p95 / self.median)
        return _bounded(math.exp(min(log_length, math.log(MOST_TOKENS))), self.at_most)

    def __str__(self) -> str:
        return f"lognormal (median {self.median:g}, 95% {self.p95:g}{_limit(self.at_most)})"


class UniformLength(StrictModel):
    """Every whole number of tokens from ``low`` to ``high`` is as likely."""

    low: int = Field(ge=0, le=MOST_TOKENS, description="shortest length (tokens)")
    high: int = Field(ge=0, le=MOST_TOKENS, description="longest length (tokens)")

    @model_validator(mode="after")
    def _ordered(self) -> UniformLength:
        if self.high < self.low:
            raise ValueError(f"high {self.high} must be at least low, {self.low}")
        return self

    @property
    def least(self) -> int:
        """The shortest possible length, tokens."""
        return self.low

    def at(self, share: float) -> int:
        """The quantile at ``share``, tokens."""
        return min(self.high, self.low + math.floor(share * (self.high - self.low + 1)))

    def __str__(self) -> str:
        return f"uniform ({self.low} to {self.high})"


class PresetLength(StrictModel):
    """Lengths with the quantiles of a measured service; a bare name is short for it."""

    preset: str = Field(
        description="azure-conv-prompt, azure-conv-answer, azure-code-prompt or azure-code-answer"
    )
    at_most: int | None = Field(None, ge=1, le=MOST_TOKENS, description=_AT_MOST)

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str) -> str:
        if preset not in length_presets():
            raise ValueError(unknown_name("text length preset", preset, length_presets()))
        return preset

    @property
    def least(self) -> int:
        """The shortest possible length, tokens."""
        return 1

    def at(self, share: float) -> int:
        """The quantile at ``share``, tokens, interpolated between whole percents."""
        table = length_presets()[self.preset]
        below = min(math.floor(100 * share), 99)
        rest = 100 * share - below
        return _bounded(table[below] + rest * (table[below + 1] - table[below]), self.at_most)

    def __str__(self) -> str:
        return self.preset + (f" ({_limit(self.at_most).removeprefix(', ')})" if self.at_most else "")


def _expand(value: object) -> object:
    """A bare integer is a fixed length, a bare word a preset."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"tokens": value}
    if isinstance(value, str):
        return {"preset": value}
    if not isinstance(value, Mapping | StrictModel):
        raise ValueError(
            f"{value!r} must be a count of tokens, a preset's name, {{median, p95}} or {{low, high}}"
        )
    return value


def _kind(value: object) -> str:
    keys = value if isinstance(value, Mapping) else set(getattr(type(value), "model_fields", ()))
    for key, kind in (("preset", "preset"), ("low", "uniform"), ("high", "uniform"), ("tokens", "fixed")):
        if key in keys:
            return kind
    return "lognormal"


_Forms = FixedLength | LognormalLength | UniformLength | PresetLength
Length = Annotated[
    Annotated[FixedLength, Tag("fixed")]
    | Annotated[LognormalLength, Tag("lognormal")]
    | Annotated[UniformLength, Tag("uniform")]
    | Annotated[PresetLength, Tag("preset")],
    Discriminator(_kind),
    BeforeValidator(_expand, json_schema_input_type=int | str | _Forms),
]


class TextConfig(StrictModel):
    """Stated lengths of texts, in tokens: a count, {median, p95}, {low, high} or a preset's name each."""

    question: Length = Field(description="length of a question's prompt (tokens, at least 1)")
    rationale: Length = Field(
        default_factory=lambda: FixedLength(tokens=0),
        description="length of a candidate's rationale (tokens)",
    )
    answer: Length = Field(description="length of a final answer (tokens, at least 1)")
    bytes_per_token: float = Field(
        4.0, gt=0, le=100, description="UTF-8 bytes of a token on the wire (bytes per token)"
    )

    @field_validator("question", "answer")
    @classmethod
    def _not_empty(cls, length: Length) -> Length:
        if length.least < 1:
            raise ValueError("a question and an answer must have at least 1 token")
        return length

    def __str__(self) -> str:
        return (
            f"question {self.question}, rationale {self.rationale}, answer {self.answer} tokens, "
            f"{self.bytes_per_token:g} bytes a token"
        )


class TextLengths:
    """Lengths of texts as keyed draws, and how many bytes they count on the wire."""

    def __init__(self, config: TextConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        # Messages repeat their texts (exemplars, short answers): a look-up instead of a draw.
        self.tokens = lru_cache(maxsize=1 << 17)(self._tokens)
        self.text_bytes = lru_cache(maxsize=1 << 17)(self._text_bytes)

    @property
    def longest_row_tokens(self) -> int:
        """A question and a candidate, each at its ``GREATEST_SHARE`` quantile, with the end token."""
        config = self._config
        return 1 + sum(part.at(GREATEST_SHARE) for part in (config.question, config.rationale, config.answer))

    def _tokens(self, kind: TextKind, text: str) -> int:
        """Tokens of a text of this kind."""
        if kind == "candidate":
            return self._draw("rationale", text) + self._draw("answer", text)
        return self._draw(kind, text)

    def _text_bytes(self, kind: TextKind, text: str) -> int:
        """Bytes of a text of this kind: ``round(tokens x bytes_per_token)``."""
        return round(self.tokens(kind, text) * self._config.bytes_per_token)

    def _draw(self, part: Literal["question", "rationale", "answer"], text: str) -> int:
        source: Length = getattr(self._config, part)
        if isinstance(source, FixedLength):
            return source.tokens
        return source.at(streams.uniform(self._seed, "text length", part, text))


@cache
def length_presets() -> dict[str, tuple[int, ...]]:
    """Quantile tables by name: 101 numbers of tokens, at 0%, 1% ... 100%."""
    text = (files("fedsim.sim.presets") / "text_lengths.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    return {name: tuple(int(row[name]) for row in rows) for name in rows[0] if name != "percent"}


def _bounded(length: float, at_most: int | None) -> int:
    return min(max(1, round(length)), MOST_TOKENS if at_most is None else at_most)


def _limit(at_most: int | None) -> str:
    return "" if at_most is None else f", at most {at_most}"
