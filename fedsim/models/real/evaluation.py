"""Measuring a policy: greedy accuracy, pass@k, entropy and drift from the initial policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Accuracy
from fedsim.models.real.language import LanguageModel, by_width, prefill
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.sampling import Sampled, decode, sample_answers
from fedsim.rl.losses import k3_kl
from fedsim.tasks.questions import Question

Matches = Callable[[str, str | Sequence[str]], bool]
"""Whether a given answer counts as the true one, or as one of the accepted ones: ``matches(given, truth)``."""

_PASS_AT = 8


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right, ``1 - C(n - c, k) / C(n, k)``; NaN when n < k.

    >>> pass_at_k(8, 1, 1)
    0.125

    References:
        Chen et al., "Evaluating large language models trained on code" (arXiv 2107.03374), eq. 1.
    """
    if num_samples < k:
        return math.nan
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def measure(
    language: LanguageModel,
    initial: LanguageModel,
    questions: Sequence[Question],
    num_samples: int,
    config: PolicyConfig,
    matches: Matches,
    seed: int,
) -> Accuracy:
    """Measure a policy on questions whose answers are the truth.

    Samples are drawn by streams keyed by the question, the same ones for every version, so that a difference between two
    versions is not one of luck. Entropy is a mean over all sampled tokens, the k3 KL over those of every question's
    first sample. A truncated answer is wrong. NaN where nothing was sampled.
    """
    greedy: dict[int, bool] = {}
    correct: dict[int, int] = {}
    entropy, drift = np.zeros(2), np.zeros(2)

    def right(answer: Sampled, question: Question) -> bool:
        return not answer.truncated and matches(language.answer_text(answer.ids), question.answers)

    for batch in by_width(language, questions, _text, config.questions_per_pass):
        look = _look(language, initial, batch, num_samples, config, seed)
        for question, answer in zip(batch, look.greedy, strict=True):
            greedy[question.question_id] = right(answer, question)
        if num_samples:
            for question, answers in zip(batch, look.sampled, strict=True):
                correct[question.question_id] = sum(right(answer, question) for answer in answers)
                entropy += [sum(a.entropy_sum for a in answers), sum(len(a.ids) for a in answers)]
            drift += look.drift
    counts = [correct[question.question_id] for question in questions] if num_samples else []
    domains = dict.fromkeys(question.domain for question in questions)
    return Accuracy(
        greedy=_mean([greedy[q.question_id] for q in questions]),
        pass_at_1=_mean([pass_at_k(num_samples, c, 1) for c in counts]),
        pass_at_8=_mean([pass_at_k(num_samples, c, _PASS_AT) for c in counts]),
        greedy_by_domain={
            d: _mean([greedy[q.question_id] for q in questions if q.domain == d]) for d in domains
        },
        entropy=_ratio(entropy),
        kl_to_initial=_ratio(drift),
        num_questions=len(questions),
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """By question the greedy answer and the sampled ones; over all the sum of the k3 to the initial policy, and its tokens."""

    greedy: list[Sampled]
    sampled: list[list[Sampled]]
    drift: tuple[float, float]


@torch.no_grad()
def _look(
    language: LanguageModel,
    initial: LanguageModel,
    questions: Sequence[Question],
    num_samples: int,
    config: PolicyConfig,
    seed: int,
) -> _Look:
    """Answer questions of one canonical width; the stream of a question is (seed, "evaluate", its id), for every version."""
    prompts = [language.prompt_ids(question.text) for question in questions]
    prefix = prefill(language, prompts, language.width(prompts[0]))
    greedy = [answer for (answer,) in decode(language, prefix, 1, config.max_new_tokens, None)]
    if not num_samples:
        return _Look(greedy, [], (0.0, 0.0))
    keys = [("evaluate", question.question_id) for question in questions]
    answers = sample_answers(language, prefix, keys, num_samples, config, seed)
    owners, first = range(len(prompts)), [same[0].ids for same in answers]
    ours = answer_scores(language, prompts, owners, first, config.temperature, prefix=prefix)
    frozen = answer_scores(initial, prompts, owners, first, config.temperature)
    drift = k3_kl(ours.log_probs.double(), frozen.log_probs.double()) * ours.mask
    return _Look(greedy, answers, (float(drift.sum()), float(ours.mask.sum())))


def _text(question: Question) -> str:
    return question.text


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _ratio(sums: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else math.nan
