"""From scored tokens to the number that an optimiser step descends: the policy's loss, batch by batch, and its books.

The equations are in ``fedsim.rl``; here they meet the rows of an update. A loss is a sum over batches, so an update may be
back-propagated in parts: every average divides by a count of the whole update, and what is not linear in the batch (DisCO's
squared hinge) enters as a slope that was measured on the whole update beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import RatioStats, UpdateStats
from fedsim.models.real.likelihood import AnswerScores
from fedsim.models.real.tokens import Ids
from fedsim.rl.discriminative import (
    batch_objective,
    divergence_from_old,
    likelihood_ratio_score,
    log_likelihood_score,
)
from fedsim.rl.losses import (
    clipped_surrogate,
    decoupled_surrogate,
    effective_sample_share,
    is_clipped,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One distinct candidate of an update: ``weight`` is its multiplicity times its share of the loss.

    ``behaviour`` are its log-probabilities under the policy that sampled it, ``staleness`` versions ago; None where that is the
    policy at the start of the update, which has one pass: they are those of the pass, bit for bit.
    """

    prompt: str
    ids: Ids
    behaviour: Tensor | None
    advantage: float
    weight: float
    draw: int = 0
    staleness: int = 0
    multiplicity: int = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one batch as tensors: ``behaviour`` and ``start`` ``[R, T]``, ``gains`` ``[R]``, ``weights`` ``[R, 1]``."""

    behaviour: Tensor
    start: Tensor
    gains: Tensor
    weights: Tensor
    draws: list[int]


@dataclass(frozen=True, slots=True)
class Brake:
    """DisCO's constraint in one pass: its slope in the divergence, and over how many tokens that is a mean."""

    slope: float
    num_tokens: float


NO_BRAKE = Brake(0.0, 1.0)


def token_objective(config: PolicyConfig, log_probs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The surrogate of every token, and whether the clip took its gradient away: ``[R, T]`` each.

    ``ratio: clipped`` clips around the policy that sampled, ``decoupled`` around the one at the start of the update.
    """
    clip = (config.clip_low, config.clip_high)
    if config.ratio == "decoupled":
        surrogate = decoupled_surrogate(
            log_probs, batch.start, batch.behaviour, batch.gains, *clip, config.behaviour_weight_cap
        )
        return surrogate, is_clipped(log_probs.detach(), batch.start, batch.gains, *clip)
    surrogate = clipped_surrogate(log_probs, batch.behaviour, batch.gains, *clip)
    return surrogate, is_clipped(log_probs.detach(), batch.behaviour, batch.gains, *clip)


def discriminative_objective(config: PolicyConfig, scores: AnswerScores, batch: Batch) -> Tensor:
    """Sum of DisCO's J(q) over the questions of a batch, whose draws stand whole in it: ``[]``."""
    disco = config.disco
    if disco.score == "log_likelihood":
        per_answer = log_likelihood_score(scores.log_probs, scores.mask)
    else:
        per_answer = likelihood_ratio_score(scores.log_probs, batch.behaviour, scores.mask)
    return batch_objective(per_answer, batch.gains, batch.weights.squeeze(-1), batch.draws, disco.tau)


def divergence_part(scores: AnswerScores, batch: Batch, num_tokens: float) -> Tensor:
    """A batch's part of KL(behaviour || pi_theta), the mean over the ``num_tokens`` tokens of the update: ``[]``."""
    return divergence_from_old(scores.log_probs, batch.behaviour, scores.mask * batch.weights, num_tokens)


@dataclass(slots=True)
class _Stale:
    """Tokens of one staleness: their ratios at the start of the update, and how often they were clipped."""

    ratios: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)
    clipped: float = 0.0
    seen: float = 0.0


@dataclass(slots=True)
class Totals:
    """Sums over the passes of one update; ``by_staleness`` is filled when ratios are put on record.

    ``start`` remembers each row's log-probabilities at the start of the update, when ``ratio: decoupled`` needs them.
    """

    loss: float = 0.0
    entropy: float = 0.0
    clipped: float = 0.0
    tokens: float = 0.0
    grad_norm: float = 0.0
    start: dict[tuple[int, Ids, float], Tensor] = field(default_factory=dict)
    by_staleness: dict[int, _Stale] = field(default_factory=dict)

    def batch(self, config: PolicyConfig, rows: Sequence[Row], log_probs: Tensor) -> Batch:
        """The rows as tensors; in the first pass the policy is still the one at the start of the update."""
        dtype = log_probs.dtype
        start = log_probs.detach()
        if config.ratio == "decoupled":
            for row, values in zip(rows, start, strict=True):
                self.start.setdefault(_key(row), values[: len(row.ids)].clone())
            start = _padded([self.start[_key(row)] for row in rows])
        return Batch(
            behaviour=_padded(
                [
                    values[: len(row.ids)] if row.behaviour is None else row.behaviour
                    for row, values in zip(rows, log_probs.detach(), strict=True)
                ]
            ),
            start=start,
            gains=torch.tensor([row.advantage for row in rows], dtype=dtype),
            weights=torch.tensor([row.weight for row in rows], dtype=dtype)[:, None],
            draws=[row.draw for row in rows],
        )

    def add(self, loss: float, clipped: Tensor, entropy: Tensor, weights: Tensor) -> None:
        """One batch of one pass; tensors ``[R, T]``."""
        self.loss += loss
        self.entropy += float((entropy * weights).sum())
        self.clipped += float((clipped * weights).sum())
        self.tokens += float(weights.sum())

    def add_ratios(
        self, rows: Sequence[Row], scores: AnswerScores, behaviour: Tensor, clipped: Tensor, first: bool
    ) -> None:
        """The same batch by staleness; ratios are those of the first pass, before any step."""
        ratios = (scores.log_probs.detach() - behaviour).double().exp()
        often = torch.tensor([float(row.multiplicity) for row in rows], dtype=torch.float64)
        counts = scores.mask.double() * often[:, None]
        for staleness in sorted({row.staleness for row in rows}):
            index = torch.tensor([i for i, row in enumerate(rows) if row.staleness == staleness])
            part = self.by_staleness.setdefault(staleness, _Stale())
            part.seen += float(counts[index].sum())
            part.clipped += float((counts[index] * clipped[index]).sum())
            if first:
                part.ratios.append(ratios[index].flatten())
                part.counts.append(counts[index].flatten())

    def stats(self, passes: int, weight_cap: float) -> UpdateStats:
        """Means over the passes; entropy and clip fraction are means over the trained tokens."""
        tokens = self.tokens or 1.0
        return UpdateStats(
            self.loss / passes,
            self.entropy / tokens,
            self.clipped / tokens,
            self.grad_norm,
            tuple(
                _stats(staleness, part, weight_cap) for staleness, part in sorted(self.by_staleness.items())
            ),
        )


def _stats(staleness: int, part: _Stale, weight_cap: float) -> RatioStats:
    ratios, counts = torch.cat(part.ratios), torch.cat(part.counts)
    num_tokens = float(counts.sum())
    return RatioStats(
        staleness=staleness,
        num_tokens=round(num_tokens),
        mean_ratio=float((counts * ratios).sum()) / num_tokens,
        effective_share=effective_sample_share(ratios, counts),
        truncated_share=float((counts * (ratios > weight_cap)).sum()) / num_tokens,
        clip_fraction=part.clipped / part.seen,
        divergence=-float((counts * ratios.log()).sum()) / num_tokens,
    )


def _key(row: Row) -> tuple[int, Ids, float]:
    return row.draw, row.ids, row.advantage


def _padded(values: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
