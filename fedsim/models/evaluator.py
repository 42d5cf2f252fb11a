"""A client's own small model as an evaluator: likelihoods of candidates and its own greedy answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from fedsim.models.language import Ids, LanguageModel, by_width, prefill
from fedsim.models.likelihood import answer_scores
from fedsim.models.sampling import decode
from fedsim.models.stacked import Stack, can_stack

_MOST_REMEMBERED = 200_000
_QUESTIONS_AT_ONCE = 256


class ModelEvaluator:
    """Implements ``fedsim.roles.Evaluator`` with a real language model that never changes.

    Announced work waits until the first score of it is due; then everything queued is computed in one batch, that of all
    evaluators ``in_company``. A score is a pure function of (weights, question, candidate): computed early or late, alone or
    together, it has the same bits.
    """

    def __init__(self, language: LanguageModel, max_new_tokens: int) -> None:
        self.language = language
        self._max_new_tokens = max_new_tokens
        self._queue: dict[tuple[str, str], None] = {}
        self._likelihoods: dict[tuple[str, str], float] = {}
        self._answers: dict[str, str] = {}
        self._answers_due: dict[str, None] = {}
        self._company = Company([self])

    def join(self, company: Company) -> None:
        """Compute scores together with these others from now on."""
        self._company = company

    def take_queue(self) -> dict[str, list[str]]:
        """Announced candidates by question; they are no longer queued."""
        by_question: dict[str, list[str]] = {}
        for question, candidate in self._queue:
            by_question.setdefault(question, []).append(candidate)
        self._queue.clear()
        return by_question

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
        drop_oldest(self._likelihoods)
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
        for evaluator, question, candidate, score in self._company.scores():
            evaluator._likelihoods[question, candidate] = score


class Company:
    """Evaluators whose announced scores are computed together; models that differ in their weights alone share passes."""

    def __init__(self, evaluators: Sequence[ModelEvaluator]) -> None:
        self._evaluators = list(evaluators)
        for evaluator in evaluators:
            evaluator.join(self)
        languages = [evaluator.language for evaluator in evaluators]
        self._stack = Stack(languages) if len(languages) > 1 else None

    def scores(self) -> Iterator[tuple[ModelEvaluator, str, str, float]]:
        """Every score that any of them has announced, with whose it is; empties the queues."""
        queues = [evaluator.take_queue() for evaluator in self._evaluators]
        language = self._stack or self._evaluators[0].language
        asked = [(member, text) for member, queue in enumerate(queues) for text in queue]
        for batch in by_width(language, asked, _text_of, _QUESTIONS_AT_ONCE):
            if self._stack:
                self._stack.assign([member for member, _ in batch])
            pairs = [
                (at, text) for at, (member, question) in enumerate(batch) for text in queues[member][question]
            ]
            answers: list[Ids] = [language.answer_ids(text) for _, text in pairs]
            with torch.no_grad():
                scores = answer_scores(
                    language,
                    [language.prompt_ids(question) for _, question in batch],
                    [at for at, _ in pairs],
                    answers,
                )
            # Summed one by one: a row's sum must not depend on the width that its batch is padded to.
            rows = scores.log_probs.double().cpu().numpy()
            for (at, text), row, ids in zip(pairs, rows, answers, strict=True):
                member, question = batch[at]
                total = sum(row[: len(ids)].tolist())
                yield self._evaluators[member], question, text, float(min(1.0, math.exp(total)))


def drop_oldest(remembered: dict[tuple[str, str], float]) -> None:
    """Keep what is remembered of scorings within bounds: of too many, the older half goes."""
    if len(remembered) > _MOST_REMEMBERED:
        for key in list(remembered)[: _MOST_REMEMBERED // 2]:
            del remembered[key]


def in_company(evaluators: Sequence[ModelEvaluator]) -> Sequence[ModelEvaluator]:
    """The same evaluators, scoring together where their models can be stacked."""
    if evaluators and can_stack([evaluator.language for evaluator in evaluators]):
        Company(evaluators)
    return evaluators


def _text_of(asked: tuple[int, str]) -> str:
    return asked[1]


def _itself(text: str) -> str:
    return text
