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
    """

    question_id: int
    domain: str
    text: str
    answer: str


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

    @property
    def num_clients(self) -> int:
        """K, the number of clients that the private rows were dealt to."""
        return len(self.private)
