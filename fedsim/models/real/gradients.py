"""The gradient of an update in parts: one backward pass after the other adds up in the weights' ``grad``.

An update's loss is a sum over its questions (``objective.py``), so its gradient is a sum over parts of them. Which questions
make a part, and the order of the parts, decide the last bits of every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedsim.models.config import PolicyConfig
from fedsim.models.real.language import LanguageModel, by_width
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.objective import (
    NO_BRAKE,
    Brake,
    Row,
    Totals,
    discriminative_objective,
    divergence_part,
    token_objective,
)
from fedsim.models.real.tokens import Ids
from fedsim.rl.losses import k3_kl, masked_mean

_LARGEST = 48
_WORTH_HALVING = 32
"""Questions: no part has more than the first, and an update of fewer than the second stays whole."""


@dataclass(frozen=True, slots=True)
class GradientPart:
    """Candidates of one update whose questions have one canonical width.

    Attributes:
        prompts: the distinct questions.
        owners: for each candidate the index of its question.
        rows: the candidates.
        count: what the loss of the whole update divides by.
    """

    prompts: tuple[Ids, ...]
    owners: tuple[int, ...]
    rows: tuple[Row, ...]
    count: float


def parts_of(
    language: LanguageModel, rows: Sequence[Row], count: float, most_questions: int
) -> list[GradientPart]:
    """The rows of an update as parts; those of a large one are an even number of about the same size."""
    if language.packs:  # what is kept for the backward pass is large
        most_questions = min(most_questions, 2 * language.shapes.prompt_rows)
    num = len({row.prompt for row in rows})
    if num >= _WORTH_HALVING:
        most_questions = min(most_questions, -(-num // (2 * -(-num // (2 * _LARGEST)))))
    parts = []
    for same in by_width(language, rows, _prompt, most_questions):
        texts = {text: index for index, text in enumerate(dict.fromkeys(row.prompt for row in same))}
        parts.append(
            GradientPart(
                tuple(language.prompt_ids(text) for text in texts),
                tuple(texts[row.prompt] for row in same),
                tuple(same),
                count,
            )
        )
    return parts


def backward(
    live: LanguageModel,
    initial: LanguageModel,
    config: PolicyConfig,
    part: GradientPart,
    totals: Totals,
    brake: Brake = NO_BRAKE,
    first: bool = True,
) -> None:
    """Add the gradient of a part's loss: ``-sum_t w (surrogate_t - beta k3_t) / count``, or DisCO's.

    Args:
        live: the policy that learns.
        initial: the frozen initial policy, for the KL.
        config: of the loss.
        part: the candidates.
        totals: takes up the part's sums.
        brake: DisCO's constraint.
        first: whether the weights are still those at the start of the update.
    """
    answers = [row.ids for row in part.rows]
    scores = answer_scores(live, part.prompts, part.owners, answers, config.temperature, entropy=True)
    batch = totals.batch(config, part.rows, scores.log_probs)
    if config.loss == "disco_constrained":
        clipped = torch.zeros_like(scores.mask, dtype=torch.bool)
        loss = -discriminative_objective(config, scores, batch) / part.count
        pulled = loss + brake.slope * divergence_part(scores, batch, brake.num_tokens)
    else:
        objective, clipped = token_objective(config, scores.log_probs, batch)
        if config.kl_weight:
            with torch.no_grad():
                reference = answer_scores(initial, part.prompts, part.owners, answers, config.temperature)
            objective = objective - config.kl_weight * k3_kl(scores.log_probs, reference.log_probs)
        loss = pulled = -masked_mean(objective, scores.mask * batch.weights, part.count)
    pulled.backward()  # type: ignore[no-untyped-call]
    assert scores.entropy is not None
    with torch.no_grad():
        totals.add(float(loss.detach()), clipped, scores.entropy, scores.mask * batch.weights)
        if config.record_ratios:
            totals.add_ratios(part.rows, scores, batch.behaviour, clipped, first)


def _prompt(row: Row) -> str:
    return row.prompt
