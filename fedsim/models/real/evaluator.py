"""A client's own small model as an evaluator: likelihoods of candidates and its own greedy answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from fedsim.models.real.language import LanguageModel, by_width
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.sampling import greedy_answers
from fedsim.models.real.stacked import Stack, can_stack
from fedsim.tasks.matching import AnswerRule

_MOST_REMEMBERED = 200_000
_QUESTIONS_AT_ONCE = 256

_Asked = tuple[int, str]
"""A question whose candidates are to be scored: place of the client, text."""


class ModelEvaluator:
    """Implements ``fedsim.models.interfaces.Evaluator`` with a real language model that never changes.

    Announced work waits until the first score of it is due; then everything queued is computed in one batch, that of all
    evaluators ``in_company``. A score is a pure function of (weights, question, candidate): computed early or late, alone or
    together, it has the same bits.

    Args:
        language: the model.
        max_new_tokens: the most tokens of an own answer.
        counted: finds the answer in a candidate, whose tokens alone count in its likelihood; None: all of its tokens count.
    """

    def __init__(
        self, language: LanguageModel, max_new_tokens: int, counted: AnswerRule | None = None
    ) -> None:
        self.language = language
        self.counted = counted
        self._max_new_tokens = max_new_tokens
        self._queue: dict[tuple[str, str], None] = {}
        self._likelihoods: dict[tuple[str, str], float] = {}
        self._answers: dict[str, str] = {}
        self._answers_due: dict[str, None] = {}
        self._company = Company([self])

    def join(self, company: Company) -> None:
        """Compute scores together with these others from now on."""
        self._company = company

    @property
    def max_new_tokens(self) -> int:
        """The most tokens of an own answer."""
        return self._max_new_tokens

    def take_queue(self) -> dict[str, list[str]]:
        """Announced candidates by question; they are no longer queued."""
        by_question: dict[str, list[str]] = {}
        for question, candidate in self._queue:
            by_question.setdefault(question, []).append(candidate)
        self._queue.clear()
        return by_question

    def take_answers_due(self) -> list[str]:
        """Announced questions that have no answer yet; they are no longer queued."""
        due = [text for text in self._answers_due if text not in self._answers]
        self._answers_due.clear()
        return due

    def remember(self, answers: dict[str, str]) -> None:
        """Take own answers by question."""
        self._answers |= answers

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Queue a scoring that will be due later."""
        keys = [(question, candidate) for candidate in candidates]
        self._queue.update(dict.fromkeys(key for key in keys if key not in self._likelihoods))

    def expect_answer(self, question: str) -> None:
        """Queue an own answer that will be due later."""
        if question not in self._answers:
            self._answers_due[question] = None

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """``exp(sum_t log p(y_t | x, y_<t))`` over the tokens that count and the end token, in [0, 1].

        Where only an answer counts it is given the candidate's own steps; a candidate without an answer scores 0.
        """
        drop_oldest(self._likelihoods)
        keys = [(question, candidate) for candidate in candidates]
        if any(key not in self._likelihoods for key in keys):
            self.expect(question, candidates)
            self._compute_queue()
        return [self._likelihoods[key] for key in keys]

    def answers(self, questions: Sequence[str]) -> list[str]:
        """Greedy answers, at most ``max_new_tokens`` tokens long; when one has to be computed, all that are queued are."""
        if any(text not in self._answers for text in questions):
            for text in questions:
                self.expect_answer(text)
            self._company.answer()
        return [self._answers[text] for text in questions]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under this client's tokenizer."""
        return self.language.count_tokens(text)

    def counted_places(self, text: str) -> Sequence[int] | None:
        """Places of a candidate's tokens that count in its likelihood, the end token's too; None if it has no answer."""
        num_tokens = len(self.language.answer_ids(text))
        if self.counted is None:
            return range(num_tokens)
        place = self.counted.span(text)
        return None if place is None else [*self.language.tokens.covering(text, *place), num_tokens - 1]

    def _compute_queue(self) -> None:
        for evaluator, question, candidate, score in self._company.scores():
            evaluator._likelihoods[question, candidate] = score


class Company:
    """Evaluators whose announced work is computed together; models that differ in their weights alone share passes."""

    def __init__(self, evaluators: Sequence[ModelEvaluator]) -> None:
        self._evaluators = list(evaluators)
        for evaluator in evaluators:
            evaluator.join(self)
        languages = [evaluator.language for evaluator in evaluators]
        self._language = Stack(languages) if len(languages) > 1 else languages[0]

    def scores(self) -> Iterator[tuple[ModelEvaluator, str, str, float]]:
        """Every score that any of them has announced, with whose it is; empties the queues."""
        queues = [evaluator.take_queue() for evaluator in self._evaluators]
        asked = [(member, question) for member, queue in enumerate(queues) for question in queue]
        for batch in by_width(self._language, asked, _text_of, _QUESTIONS_AT_ONCE):
            pairs = [
                (place, text)
                for place, (member, question) in enumerate(batch)
                for text in queues[member][question]
            ]
            for (place, text), score in zip(pairs, self._likelihoods(batch, pairs), strict=True):
                member, question = batch[place]
                yield self._evaluators[member], question, text, score

    @torch.no_grad()
    def _likelihoods(self, batch: Sequence[_Asked], pairs: Sequence[tuple[int, str]]) -> list[float]:
        """What `ModelEvaluator.likelihood` says of candidates, each with the place of its question in the batch."""
        language = self._language
        if isinstance(language, Stack):
            language.assign([member for member, _ in batch])
        answers = [language.answer_ids(text) for _, text in pairs]
        prompts = [language.prompt_ids(question) for _, question in batch]
        scores = answer_scores(language, prompts, [place for place, _ in pairs], answers)
        # Summed one by one: a row's sum must not depend on the width that its batch is padded to.
        rows = scores.log_probs.double().cpu().numpy()
        counted = [self._evaluators[batch[place][0]].counted_places(text) for place, text in pairs]
        return [
            0.0 if places is None else min(1.0, math.exp(sum(row[places].tolist())))
            for row, places in zip(rows, counted, strict=True)
        ]

    def answer(self) -> None:
        """Every own answer that any of them has announced; empties the queues."""
        for evaluator in self._evaluators:
            language = evaluator.language
            for texts in by_width(language, evaluator.take_answers_due(), _itself, _QUESTIONS_AT_ONCE):
                prompts = [language.prompt_ids(text) for text in texts]
                found = greedy_answers(language, prompts, evaluator.max_new_tokens)
                answers = [language.answer_text(answer.ids) for answer in found]
                evaluator.remember(dict(zip(texts, answers, strict=True)))


def drop_oldest(remembered: dict[tuple[str, str], float]) -> None:
    """Keep what is remembered of scorings within bounds: of too many, the older half goes."""
    if len(remembered) > _MOST_REMEMBERED:
        for key in list(remembered)[: _MOST_REMEMBERED // 2]:
            del remembered[key]


def in_company(evaluators: Sequence[ModelEvaluator]) -> Sequence[ModelEvaluator]:
    """The same evaluators, computing together where their models can be stacked."""
    if evaluators and can_stack([evaluator.language for evaluator in evaluators]):
        Company(evaluators)
    return evaluators


def _text_of(asked: _Asked) -> str:
    return asked[1]


def _itself(text: str) -> str:
    return text
