"""A client's own small model as an evaluator: likelihoods of candidates and its own greedy answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from fedsim.models.real.language import LanguageModel, by_width
from fedsim.models.real.stacked import Stack, can_stack
from fedsim.models.real.tokens import Ids
from fedsim.models.real.work_parts import Alone, AnswerPart, ScorePart, Sharing, answered, scored, shared_out

_MOST_REMEMBERED = 200_000
_QUESTIONS_AT_ONCE = 256
_WORTH_BEGINNING = 256  # scores, of each process

_Score = tuple[int, str, str]
"""A score that is wanted: client, question, candidate."""


class ModelEvaluator:
    """Implements ``fedsim.models.interfaces.Evaluator`` with a real language model that never changes.

    Announced work waits until the first score of it is due, or until there is enough of it for somebody who computes beside
    this process; then everything queued is computed in one batch, that of all evaluators ``in_company``. A score is a pure
    function of (weights, question, candidate): computed early or late, alone or together, it has the same bits.
    """

    def __init__(self, language: LanguageModel, max_new_tokens: int) -> None:
        self.language = language
        self._max_new_tokens = max_new_tokens
        self._queue: dict[tuple[str, str], None] = {}
        self._under_way: set[tuple[str, str]] = set()
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

    @property
    def num_queued(self) -> int:
        """Announced scores that nobody has begun to compute."""
        return len(self._queue)

    def take_queue(self) -> dict[str, list[str]]:
        """Announced candidates by question; they are no longer queued, but under way."""
        self._under_way.update(self._queue)
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
        self._queue.update(
            dict.fromkeys(key for key in keys if key not in self._likelihoods and key not in self._under_way)
        )
        self._company.announced()

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
        if any(text not in self._answers for text in questions):
            for text in questions:
                self.expect_answer(text)
            self._company.answer()
        return [self._answers[text] for text in questions]

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under this client's tokenizer."""
        return self.language.count_tokens(text)

    def _compute_queue(self) -> None:
        for evaluator, question, candidate, score in self._company.scores():
            evaluator._likelihoods[question, candidate] = score
            evaluator._under_way.discard((question, candidate))


class Company:
    """Evaluators whose announced work is computed together; models that differ in their weights alone share passes.

    Args:
        evaluators: whose; by client id, where somebody shares.
        sharing: who computes beside this process; by default nobody.
    """

    def __init__(self, evaluators: Sequence[ModelEvaluator], sharing: Sharing | None = None) -> None:
        self._evaluators = list(evaluators)
        self._sharing: Sharing = sharing or Alone()
        for evaluator in evaluators:
            evaluator.join(self)
        languages = [evaluator.language for evaluator in evaluators]
        self._language = Stack(languages) if len(languages) > 1 else languages[0]
        self._kept: list[tuple[list[_Score], ScorePart]] = []
        self._begun: list[tuple[list[_Score], Callable[[], list[float]]]] = []

    def announced(self) -> None:
        """Something was queued: when it is enough, have those who compute beside this process begin their share of it.

        This process does its own share, or what of it the others are not done with sooner, when the first of it is due.
        """
        others = self._sharing.num_processes - 1
        queued = sum(evaluator.num_queued for evaluator in self._evaluators)
        if not others or queued < _WORTH_BEGINNING * (1 + others):
            return
        batches = self._batches(1 + others)
        own, *given = shared_out([len(batch) for batch, _ in batches], [0.0] * (1 + others))
        self._kept += [batches[place] for place in own]
        for place in (place for places in given for place in places):
            batch, part = batches[place]
            self._begun.append((batch, self._sharing.begun(part, self._scored)))

    def scores(self) -> Iterator[tuple[ModelEvaluator, str, str, float]]:
        """Every score that any of them has announced, with whose it is; empties the queues."""
        batches = [*self._kept, *self._batches(self._sharing.num_processes)]
        begun, self._begun, self._kept = self._begun, [], []
        found = self._sharing.shared([part for _, part in batches], self._scored)
        every = [(batch, scores) for (batch, _), scores in zip(batches, found, strict=True)]
        for batch, scores in [*every, *((batch, awaited()) for batch, awaited in begun)]:
            for (member, question, text), score in zip(batch, scores, strict=True):
                yield self._evaluators[member], question, text, score

    def _batches(self, num: int) -> list[tuple[list[_Score], ScorePart]]:
        """What is queued as parts, of which so many may be done at once: a client's questions stay together."""
        queues = [evaluator.take_queue() for evaluator in self._evaluators]
        language = self._language
        found = []
        for members in shared_out([len(queue) for queue in queues], [0.0] * num):
            asked = [(member, question) for member in members for question in queues[member]]
            for batch in by_width(language, asked, _text_of, _QUESTIONS_AT_ONCE):
                pairs = [
                    (at, text)
                    for at, (member, question) in enumerate(batch)
                    for text in queues[member][question]
                ]
                part = ScorePart(
                    tuple(member for member, _ in batch),
                    tuple(language.prompt_ids(question) for _, question in batch),
                    tuple(at for at, _ in pairs),
                    tuple(language.answer_ids(text) for _, text in pairs),
                )
                found.append(([(*batch[at], text) for at, text in pairs], part))
        return found

    def _scored(self, part: ScorePart) -> list[float]:
        return scored(self._language, part)

    def answer(self) -> None:
        """Every own answer that any of them has announced; empties the queues."""
        batches: list[tuple[ModelEvaluator, list[str]]] = []
        parts = []
        for client, evaluator in enumerate(self._evaluators):
            language = evaluator.language
            for texts in by_width(language, evaluator.take_answers_due(), _itself, _QUESTIONS_AT_ONCE):
                batches.append((evaluator, texts))
                parts.append(AnswerPart(client, tuple(language.prompt_ids(text) for text in texts)))
        found = self._sharing.shared(parts, self._answered)
        for (evaluator, texts), answers in zip(batches, found, strict=True):
            of = evaluator.language.answer_text
            evaluator.remember({text: of(ids) for text, ids in zip(texts, answers, strict=True)})

    def _answered(self, part: AnswerPart) -> list[Ids]:
        evaluator = self._evaluators[part.client]
        return answered(evaluator.language, evaluator.max_new_tokens, part)


def drop_oldest(remembered: dict[tuple[str, str], float]) -> None:
    """Keep what is remembered of scorings within bounds: of too many, the older half goes."""
    if len(remembered) > _MOST_REMEMBERED:
        for key in list(remembered)[: _MOST_REMEMBERED // 2]:
            del remembered[key]


def in_company(
    evaluators: Sequence[ModelEvaluator], sharing: Sharing | None = None
) -> Sequence[ModelEvaluator]:
    """The same evaluators, computing together, and with whoever shares, where their models can be stacked."""
    if evaluators and can_stack([evaluator.language for evaluator in evaluators]):
        Company(evaluators, sharing)
    return evaluators


def _text_of(asked: tuple[int, str]) -> str:
    return asked[1]


def _itself(text: str) -> str:
    return text
