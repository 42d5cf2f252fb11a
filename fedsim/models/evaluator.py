"""A client's own small model as an evaluator: likelihoods of candidates and its own greedy answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fedsim.models.language import Ids, LanguageModel, by_width, prefill
from fedsim.models.likelihood import answer_scores
from fedsim.models.sampling import decode

_MOST_REMEMBERED = 200_000
_QUESTIONS_AT_ONCE = 256


class ModelEvaluator:
    """Implements ``fedsim.roles.Evaluator`` with a real language model that never changes.

    Announced work waits until the first score of it is due; then everything queued is computed in one batch. A score
    is a pure function of (weights, question, candidate): computed early or late, alone or together, it has the same bits.
    """

    def __init__(self, language: LanguageModel, max_new_tokens: int) -> None:
        self.language = language
        self._max_new_tokens = max_new_tokens
        self._queue: dict[tuple[str, str], None] = {}
        self._likelihoods: dict[tuple[str, str], float] = {}
        self._answers: dict[str, str] = {}
        self._answers_due: dict[str, None] = {}

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Queue a scoring that will be due later."""
        self._queue.update(
            dict.fromkeys((question, c) for c in candidates if (question, c) not in self._likelihoods)
        )

    def expect_answer(self, question: str) -> None:
        """Queue an own answer that will be due later."""
        if question not in self._answers:
            self._answers_due[question] = None

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """``exp(sum_t log p(y_t | x, y_<t))`` over the answer's tokens and the end token, in [0, 1]."""
        if len(self._likelihoods) > _MOST_REMEMBERED:
            for key in list(self._likelihoods)[: _MOST_REMEMBERED // 2]:
                del self._likelihoods[key]
        keys = [(question, candidate) for candidate in candidates]
        if any(key not in self._likelihoods for key in keys):
            self.expect(question, candidates)
            self._compute_queue()
        return [self._likelihoods[key] for key in keys]

    def answers(self, questions: Sequence[str]) -> list[str]:
        """Greedy answers, at most ``max_new_tokens`` tokens long; when one has to be computed, all that are queued are."""
        missing = list(dict.fromkeys(text for text in questions if text not in self._answers))
        if missing:
            due = [text for text in self._answers_due if text not in self._answers]
            missing = list(dict.fromkeys([*missing, *due]))
            self._answers_due.clear()
        for batch in by_width(self.language, missing, _itself, _QUESTIONS_AT_ONCE):
            prompts = [self.language.prompt_ids(text) for text in batch]
            with torch.no_grad():
                prefix = prefill(self.language, prompts, self.language.width(prompts[0]))
                decoded = decode(self.language, prefix, 1, self._max_new_tokens, None)
            for text, (answer,) in zip(batch, decoded, strict=True):
                self._answers[text] = self.language.answer_text(answer.ids)
        return [self._answers[text] for text in questions]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under this client's tokenizer."""
        return self.language.count_tokens(text)

    def _compute_queue(self) -> None:
        by_question: dict[str, list[str]] = {}
        for question, candidate in self._queue:
            by_question.setdefault(question, []).append(candidate)
        self._queue.clear()
        for batch in by_width(self.language, list(by_question), _itself, _QUESTIONS_AT_ONCE):
            pairs = [(owner, text) for owner, question in enumerate(batch) for text in by_question[question]]
            answers: list[Ids] = [self.language.answer_ids(text) for _, text in pairs]
            with torch.no_grad():
                scores = answer_scores(
                    self.language,
                    [self.language.prompt_ids(text) for text in batch],
                    [owner for owner, _ in pairs],
                    answers,
                )
            # Summed one by one: a row's sum must not depend on the width that its batch is padded to.
            rows = scores.log_probs.double().cpu().numpy()
            for (owner, text), row, ids in zip(pairs, rows, answers, strict=True):
                total = sum(row[: len(ids)].tolist())
                self._likelihoods[batch[owner], text] = float(min(1.0, math.exp(total)))


def _itself(text: str) -> str:
    return text
