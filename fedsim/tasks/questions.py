"""What a question is, and what a federation's data set is made of. No generation here, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedsim.tasks.matching import AnswerRule


@dataclass(frozen=True, slots=True)
class Question:
    """One question with the answer that goes with it.

    ``answer`` is the truth, except in the public corpus, where it is what the corpus says (perhaps wrong).
    ``question_id`` is unique over all splits of one data set.

    Attributes:
        accepted: other answers that are right as well.
        solution: what a model writes that ends in the answer, such as worked steps; empty where that is the answer alone.
        fact: what the question is about, the same for all its wordings; empty where nobody says.
    """

    question_id: int
    domain: str
    text: str
    answer: str
    accepted: tuple[str, ...] = ()
    solution: str = ""
    fact: str = ""

    @property
    def taught(self) -> str:
        """What models are trained to write: the solution, or the answer where there is none."""
        return self.solution or self.answer

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that are right, the one that is taught first."""
        return (self.answer, *self.accepted)


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How an answer stands after its question.

    Attributes:
        answer_prefix: text that every answer begins with, such as a blank: put before answers that are taught or scored.
        stop: texts that end an answer, as the end token does.
    """

    answer_prefix: str = ""
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskData:
    """Everything one federation knows, split once: the splits share no question text.

    Attributes:
        domains: domain names, in a fixed order.
        public: the server's pre-training corpus, whose answers may be wrong.
        private: per client, its own correct rows.
        auxiliary: Dp, the server's small labelled set (exemplars).
        pool: Ds, the server's unlabelled questions; the truth in them is read by the simulator and by
            controls that say so, never by FedGRPO.
        validation: questions on which settings are chosen and progress is watched.
        test: questions that are only ever reported.
        trusted: per client, the answers it owns for pool questions, ``question_id -> answer`` (AE).
        partition: private rows per client and domain, int64 ``[K, D]``.
        answers: how an answer is read from a model's text, and when it is right.
        format_rows: labelled rows that show server and clients how an answer is written, before anything else.
        looks: more sets of questions that are only measured, by name.
        text_format: how an answer stands after its question.
    """

    domains: tuple[str, ...]
    public: tuple[Question, ...]
    private: tuple[tuple[Question, ...], ...]
    auxiliary: tuple[Question, ...]
    pool: tuple[Question, ...]
    validation: tuple[Question, ...]
    test: tuple[Question, ...]
    trusted: tuple[Mapping[int, str], ...]
    partition: npt.NDArray[np.int64] = field(repr=False)
    answers: AnswerRule = field(default_factory=AnswerRule)
    format_rows: tuple[Question, ...] = ()
    looks: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    text_format: TextFormat = field(default_factory=TextFormat)

    @property
    def num_clients(self) -> int:
        """K, the number of clients that the private rows were dealt to."""
        return len(self.private)
