"""Fusing what several experts said about the same candidates into one number per candidate.

Every rule takes scores ``[M, G]`` with NaN where an expert did not answer and returns ``[G]``, NaN where nobody did; a missing
score is left out, never counted as zero. The score of a single expert comes back unchanged (``fused``), whatever the rule.

    mean            r_g = sum_k s_kg / |S_g|, S_g those who scored g (the paper); with weights: competence, reliability, routed
    standardised    r_g = m + d mean_k (s_kg - m_k) / d_k, with m and d the experts' mean location and mean deviation
    median          r_g = median_k s_kg: right as long as fewer than half of those who answered are wrong
    trimmed_mean    the mean of what is left when the floor(trim |S_g|) lowest and as many highest are cut off
    majority_vote   1, 0, or 1/2 for a tie: does expert k put g above the middle of its own lowest and highest score?

What a rule is applied to is the grouping's business (``rl/advantages.py``): the rewards as they came under ``candidates``, the
standardised ones under ``per_expert`` and ``joint``. The breakdown point differs with it: the median of raw rewards compares
numbers of different scales (a likelihood with a bit), the median of standardised ones compares opinions.

References:
    Zhu et al., FedGRPO, arXiv 2602.12014, step 5. Yin, Chen, Ramchandran, Bartlett, Byzantine-Robust Distributed Learning,
    ICML 2018 (coordinate-wise median and trimmed mean; there of gradients, here of rewards).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Fuse = Callable[[FloatArray, FloatArray | None], FloatArray]
"""A rule: scores ``[M, G]`` and weights ``[M]`` (or None) to ``[G]``."""

Fusion = Literal[
    "mean",
    "competence",
    "standardised",
    "median",
    "trimmed_mean",
    "majority_vote",
    "reliability",
    "routed",
]
WEIGHTED: frozenset[Fusion] = frozenset({"competence", "reliability", "routed"})
"""Rules that are the weighted mean; they differ in where the weights come from."""


def mean_of_answered(scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """r_g = sum_{k in S_g} w_k s_kg / sum_{k in S_g} w_k, where S_g are the experts that scored candidate g.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.
        weights: ``[M]``, finite and not negative, e.g. competences; equal when not given. Where those who answered
            weigh nothing at all, nobody is preferred and they count alike.

    Returns:
        ``[G]``, NaN where nobody answered; a missing score is left out, never counted as zero.

    Raises:
        ValueError: the weights are not one per expert, negative, or not finite.
    """
    answered = ~np.isnan(scores)
    shares = answered.astype(np.float64)
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != scores.shape[:1] or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError(f"weights {weights} must be one finite, non-negative number per expert")
        weighted = shares * weights[:, None]
        shares = np.where(weighted.sum(axis=0) > 0, weighted, shares)
    totals = (shares * np.where(answered, scores, 0.0)).sum(axis=0)
    counts = shares.sum(axis=0)
    known = counts > 0
    return np.asarray(np.where(known, totals / np.where(known, counts, 1.0), np.nan), dtype=np.float64)


def standardised_mean(scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """r_g = m + d mean_k (s_kg - m_k) / d_k: each expert's opinion counts alike, however wide its scale.

    m_k and d_k are the mean and the population deviation of expert k over what it scored, m and d their averages over the
    experts that scored anything. An expert without spread has no opinion: it moves m alone.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.
        weights: ``[M]``, as for ``mean_of_answered``.

    Returns:
        ``[G]``, in the rewards' own units.
    """
    rows = scores[~np.isnan(scores).all(axis=1)]
    if not rows.size:
        return np.full(scores.shape[1], np.nan)
    means = np.nanmean(rows, axis=1)
    deviations = np.where(_has_spread(rows), np.nanstd(rows, axis=1), 0.0)
    opinions = np.full(scores.shape, np.nan)
    opinions[~np.isnan(scores).all(axis=1)] = (rows - means[:, None]) / np.where(
        deviations > 0, deviations, 1.0
    )[:, None]
    return np.asarray(
        means.mean() + deviations.mean() * mean_of_answered(opinions, weights), dtype=np.float64
    )


def median(scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """r_g = median of the scores of those who scored g; of two, their mean. Takes no weights.

    Raises:
        ValueError: weights are given.
    """
    return trimmed_mean(scores, weights, trim=0.5)


def trimmed_mean(scores: FloatArray, weights: FloatArray | None = None, *, trim: float = 0.2) -> FloatArray:
    """r_g = mean of the scores of g without its c lowest and c highest, c = floor(trim n) of the n that came.

    At least one score (two, where n is even) is left, so ``trim`` 0.5 is the median. With 0.2, five experts lose two
    and four lose none.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.
        weights: none are taken.
        trim: share cut off at each end, in [0, 0.5].

    Raises:
        ValueError: weights are given, or ``trim`` is outside [0, 0.5].
    """
    _refuse_weights(weights)
    if not 0 <= trim <= 0.5:
        raise ValueError(f"trim is {trim}; must be in [0, 0.5]")
    num_answered = (~np.isnan(scores)).sum(axis=0)
    cut = np.floor(trim * num_answered + _ROUNDING).astype(np.int64)
    cut = np.minimum(cut, np.maximum((num_answered - 1) // 2, 0))
    place = np.arange(len(scores))[:, None]
    kept = (place >= cut) & (place < num_answered - cut)  # sorting puts NaN last
    return mean_of_answered(np.where(kept, np.sort(scores, axis=0), np.nan))


def majority_vote(scores: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """r_g = 1 if more of the voters approve of g than not, 0 if fewer, 1/2 for a tie.

    Expert k approves of g if s_kg > (min_g s_kg + max_g s_kg) / 2, the middle of its own range, which of binary rewards is
    1/2: the vote does not depend on the expert's scale or location. An expert without spread abstains; where all who scored g
    abstain it is a tie.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.
        weights: none are taken.

    Raises:
        ValueError: weights are given.
    """
    _refuse_weights(weights)
    answered = ~np.isnan(scores)
    balance = np.zeros(scores.shape[1])
    for row in scores[_has_spread(scores)]:
        middle = (np.nanmin(row) + np.nanmax(row)) / 2
        balance += np.where(np.isnan(row), 0.0, np.where(row > middle, 1.0, -1.0))
    return np.where(answered.any(axis=0), 0.5 + 0.5 * np.sign(balance), np.nan)


def fused(scores: FloatArray, weights: FloatArray | None, fusion: Fusion, trim: float = 0.2) -> FloatArray:
    """One number per candidate by the rule of this name; the only expert that answered is believed as it is.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.
        weights: ``[M]``, for the rules in ``WEIGHTED``; None: all alike.
        fusion: the rule.
        trim: of ``trimmed_mean``.
    """
    rows = scores[~np.isnan(scores).all(axis=1)]
    if len(rows) == 1:
        return np.array(rows[0], dtype=np.float64)
    if fusion == "mean" or fusion in WEIGHTED:
        return mean_of_answered(scores, weights)
    if fusion == "trimmed_mean":
        return trimmed_mean(scores, weights, trim=trim)
    return _RULES[fusion](scores, weights)


_RULES: dict[Fusion, Fuse] = {
    "standardised": standardised_mean,
    "median": median,
    "majority_vote": majority_vote,
}
_ROUNDING = 1e-9  # 0.29 x 100 is a little less than 29


def _has_spread(scores: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether each expert tells any two candidates apart, ``[M]``; exactly, where a deviation may round to 1e-17."""
    answered = ~np.isnan(scores)
    low = np.where(answered, scores, math.inf).min(axis=1, initial=math.inf)
    high = np.where(answered, scores, -math.inf).max(axis=1, initial=-math.inf)
    return np.asarray(high > low, dtype=np.bool_)


def _refuse_weights(weights: FloatArray | None) -> None:
    if weights is not None:
        raise ValueError("a rule by rank or by vote takes no weights: give them to a mean")
