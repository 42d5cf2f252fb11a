"""Stand-ins for models: timing fidelity, where tokens and bytes matter and weights do not.

Nothing here learns. A candidate is right with a stated probability, and a client's answer is right with a skill that grows with
its rows of the domain. All of it is keyed draws, so a timing run is as reproducible as a real one, imports no torch, and starts
in a fraction of a second. What a stand-in makes up steers a protocol as a real score would, and is never reported:
``evaluate`` returns NaN, and no record holds a reward, a loss or a right answer of a run without models (``Monitor.measures``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Accuracy, Candidate, CandidateGroup, Draw, FloatArray, UpdateStats
from fedsim.sim import streams
from fedsim.tasks.questions import Question

RIGHT_SHARE = 0.3
"""Probability that a stand-in candidate is right."""

HALF_SKILL_ROWS = 100
"""Rows of a domain at which a stand-in client answers half of its questions rightly."""

VOCABULARY = 200
"""Tokens in a stand-in vocabulary, as in the quick start's."""

_CHARS_PER_TOKEN = 4
_EMBEDDING = 16


class StandInPolicy:
    """A policy of token counts; see the module."""

    def __init__(self, config: PolicyConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._version = 0

    @property
    def version(self) -> int:
        """0 at the start, one more after every update."""
        return self._version

    def sample(self, draws: Sequence[Draw]) -> list[CandidateGroup]:
        """G keyed candidates per draw, right with probability ``RIGHT_SHARE``."""
        return [CandidateGroup(draw, self._version, tuple(self._candidates(draw))) for draw in draws]

    def update(self, groups: Sequence[CandidateGroup], advantages: Sequence[FloatArray]) -> UpdateStats:
        """One version more; nothing is learned."""
        self._version += 1
        return UpdateStats(0.0, 0.0, 0.0, 0.0)

    def fit(self, rows: Sequence[Question], steps: int) -> UpdateStats:
        """One version more; nothing is learned."""
        self._version += 1
        return UpdateStats(0.0, 0.0, 0.0, 0.0)

    def forget(self, draw_indices: Sequence[int]) -> None:
        """Nothing is remembered."""

    def embed(self, questions: Sequence[Question]) -> FloatArray:
        """Unit vectors ``[n, 16]`` that cluster by domain."""
        centres = {domain: _centre(domain) for domain in {q.domain for q in questions}}
        hashes = b"".join(streams.digest("question", q.question_id, size=4 * _EMBEDDING) for q in questions)
        uniforms = np.frombuffer(hashes, dtype="<u4").reshape(len(questions), _EMBEDDING) / 2.0**32
        # Uniform noise of variance 0.3 squared around the domain's centre.
        vectors = np.array([centres[q.domain] for q in questions]).reshape(-1, _EMBEDDING)
        rows = vectors + 0.3 * math.sqrt(12) * (uniforms - 0.5)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float64)

    def evaluate(self, questions: Sequence[Question], num_samples: int) -> Accuracy:
        """NaN: a stand-in has no accuracy."""
        return Accuracy(math.nan, math.nan, math.nan, {}, math.nan, math.nan, len(questions))

    def count_tokens(self, text: str) -> int:
        """A token per four characters, at least one."""
        return token_count(text)

    def _candidates(self, draw: Draw) -> Iterator[Candidate]:
        for g in range(self._config.group_size):
            # One hash for both draws: its upper bits say whether the candidate is right, its lower 20 what else it is.
            bits = streams.integer(self._seed, "candidate", draw.index, g)
            right = (bits >> 20) < RIGHT_SHARE * 2**43
            text = draw.question.taught if right else _wrong(draw.question, ((bits & 0xFFFFF) * 1000) >> 20)
            yield Candidate(text, min(self._config.max_new_tokens, token_count(text) + 1), truncated=False)


def _centre(domain: str) -> FloatArray:
    return streams.generator("domain", domain).normal(size=_EMBEDDING)


class StandInEvaluator:
    """A client's model of token counts: right with a skill that grows with its rows of the domain."""

    def __init__(
        self, client_id: int, rows: Mapping[str, int], known: Mapping[str, Question], seed: int
    ) -> None:
        self._client_id = client_id
        self._skill = {domain: n / (n + HALF_SKILL_ROWS) for domain, n in rows.items()}
        self._known = known
        self._seed = seed

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Nothing to prepare."""

    def expect_answer(self, question: str) -> None:
        """Nothing to prepare."""

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """A keyed score per candidate, higher for the right one by the client's skill."""
        truth = self._known[question]
        skill = self._skill.get(truth.domain, 0.0)
        noise = (streams.uniform(self._seed, "score", self._client_id, question, text) for text in candidates)
        return [
            0.5 * skill * (text == truth.taught) + 0.5 * draw
            for text, draw in zip(candidates, noise, strict=True)
        ]

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The truth with the client's skill, else a wrong number."""
        return [self._answer(question) for question in questions]

    def count_tokens(self, text: str) -> int:
        """A token per four characters, at least one."""
        return token_count(text)

    def _answer(self, question: str) -> str:
        truth = self._known[question]
        key = (self._seed, "own answer", self._client_id, question)
        if streams.uniform(*key) < self._skill.get(truth.domain, 0.0):
            return truth.taught
        return _wrong(truth, streams.integer(*key, "wrong") % 1000 + 1000)


def _wrong(question: Question, number: int) -> str:
    """What is taught for a question, with another text of the same length in the place of its answer."""
    wrong = as_long_as(question.answer, number)
    if wrong == question.answer:
        wrong = as_long_as(question.answer, number + 1)
    return question.taught.removesuffix(question.answer) + wrong


def as_long_as(text: str, number: int) -> str:
    """A number written in as many bytes as a text has: its last digits, or with zeros before it."""
    num_bytes = len(text.encode())
    return str(number).zfill(num_bytes)[-num_bytes:] if num_bytes else ""


def token_count(text: str) -> int:
    """Tokens of a text in timing fidelity: one per four characters, at least one."""
    return -(-len(text) // _CHARS_PER_TOKEN) or 1
