"""The gradient of an update in parts, for any process to compute: candidates and what they count in, slopes and sums out.

An update's loss is a sum over its questions (``objective.py``), so its gradient is a sum over parts of them, added in their
order. Which questions make a part depends on the update alone, never on how many processes there are, so that a step has the
same bits wherever its parts were computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor

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


class GradientPart(msgspec.Struct, frozen=True, tag="gradient"):
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


class Gradient(msgspec.Struct, frozen=True):
    """What comes of a part: the slopes of all weights one after the other, and its sums (see `Totals`)."""

    slopes: Tensor
    loss: float
    entropy: float
    clipped: float
    tokens: float


def parts_of(
    language: LanguageModel, rows: Sequence[Row], count: float, most_questions: int
) -> list[GradientPart]:
    """The rows of an update as parts: an even number of about the same size, so that two processes have equal shares."""
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


def stand_alone(config: PolicyConfig) -> bool:
    """Whether a part's gradient needs nothing of the other parts, and leaves nothing for later passes but its sums."""
    return config.loss != "disco_constrained" and config.ratio != "decoupled" and not config.record_ratios


def gradient(
    live: LanguageModel, initial: LanguageModel, config: PolicyConfig, part: GradientPart
) -> Gradient:
    """The gradient of one part of an update whose parts `stand_alone`; leaves no gradient behind."""
    weights = trainable(live)
    totals = Totals()
    for weight in weights:
        weight.grad = None
    backward(live, initial, config, part, totals)
    slopes = torch.cat([_slope(weight).ravel() for weight in weights])
    for weight in weights:
        weight.grad = None
    return Gradient(slopes, totals.loss, totals.entropy, totals.clipped, totals.tokens)


def take_up(weights: Sequence[Tensor], found: Sequence[Gradient], totals: Totals) -> None:
    """Give the weights the sum of these gradients, added in their order, and the totals their sums."""
    slopes = found[0].slopes.clone()
    for one in found[1:]:
        slopes += one.slopes
    for one in found:
        totals.add_sums(one.loss, one.entropy, one.clipped, one.tokens)
    own = torch.split(slopes, [weight.numel() for weight in weights])
    for weight, slope in zip(weights, own, strict=True):
        weight.grad = slope.view_as(weight).clone()


def trainable(language: LanguageModel) -> list[Tensor]:
    """The weights that learn, in the network's order."""
    return [weight for weight in language.network.parameters() if weight.requires_grad]


def _slope(weight: Tensor) -> Tensor:
    """A weight's gradient after a backward pass, in which a model from scratch uses every weight."""
    assert weight.grad is not None
    return weight.grad


def _prompt(row: Row) -> str:
    return row.prompt
