"""How well an attack tells members from others: AUC, true positives at few false ones, and what chance alone makes of them.

An attack gives every record a score, higher for what it takes for a member. With members' scores ``a [m]`` and others' ``b
[n]``:

    AUC = (1 / (m n)) sum_ij (1[a_i > b_j] + 1/2 1[a_i = b_j])          (0.5: no better than a coin)
    TPR at FPR f = share of a above t, where t is the smallest threshold that at most a share f of b exceeds

The second says what an attacker may be *sure* of, and is the one to watch: a mean like the AUC hides it. Intervals are
percentiles over bootstrap samples of the records, members and others apart; they know nothing of other seeds or clients.

References:
    Carlini et al., Membership Inference Attacks From First Principles, IEEE S&P 2022, sections III and IV.
    Yeom et al., Privacy Risk in Machine Learning, CSF 2018; Watson et al., On the Importance of Difficulty Calibration in
    Membership Inference Attacks, ICLR 2022.
    Efron, Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedsim.sim import streams

FloatArray = npt.NDArray[np.float64]

FALSE_POSITIVES = 0.01
LEVEL = 0.95
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Membership:
    """How well one attack did on so many members and others."""

    num_members: int
    num_others: int
    auc: Estimate
    tpr: Estimate


def auc(members: FloatArray, others: FloatArray) -> float:
    """Probability that a member scores above another record; ties count one half.

    >>> auc(np.array([3.0, 1.0]), np.array([2.0, 1.0]))
    0.625

    Raises:
        ValueError: there is no member, or no other record.
    """
    _check(members, others)
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left")
    upto = np.searchsorted(ordered, members, "right")
    return float((below + upto).sum() / (2.0 * len(members) * len(others)))


def tpr_at_fpr(members: FloatArray, others: FloatArray, rate: float = FALSE_POSITIVES) -> float:
    """Share of members above the threshold that at most this share of the others exceeds.

    >>> tpr_at_fpr(np.array([9.0, 5.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0]), rate=0.25)
    0.6666666666666666

    Raises:
        ValueError: as for `auc`.
    """
    _check(members, others)
    allowed = math.floor(rate * len(others) + 1e-9)
    threshold = np.sort(others)[::-1][allowed] if allowed < len(others) else -math.inf
    return float((members > threshold).mean())


def membership(
    members: Sequence[float], others: Sequence[float], *key: streams.Part, resamples: int = RESAMPLES
) -> Membership | None:
    """Both measures with their intervals; None where one of the two kinds is missing.

    Args:
        members: the attack's scores of members.
        others: of the others.
        key: of the bootstrap's draws.
        resamples: bootstrap samples.

    Raises:
        ValueError: a score is not a number.
    """
    ours, theirs = np.asarray(members, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if not len(ours) or not len(theirs):
        return None
    return Membership(
        len(ours),
        len(theirs),
        _estimate(auc, ours, theirs, (*key, "auc"), resamples),
        _estimate(tpr_at_fpr, ours, theirs, (*key, "tpr"), resamples),
    )


def share(hits: Sequence[bool], *key: streams.Part, resamples: int = RESAMPLES) -> Estimate | None:
    """The share of hits with its bootstrap interval; None without any.

    A share of nothing or of everything has the interval of no width that the bootstrap gives it; 3 / n is a better bound there.
    """
    if not hits:
        return None
    rate = float(np.mean(hits))
    drawn = streams.generator(*key, "share").binomial(len(hits), rate, resamples) / len(hits)
    return Estimate(rate, *_percentiles(drawn))


def likeness(row: tuple[str, str], rows: Sequence[tuple[str, str]]) -> float:
    """How like the most alike of some (question, answer) rows is: Jaccard index of character trigrams, 1 for the same row.

    >>> likeness(("1+2=", "3"), [("7+1=", "8"), ("1+2=", "3")]), likeness(("1+2=", "3"), [])
    (1.0, 0.0)
    """
    own = _trigrams(row)
    return max((len(own & other) / len(own | other) for other in map(_trigrams, rows)), default=0.0)


def answer_likeness(rewards: Sequence[float]) -> float:
    """How much rewards look like 1[candidate = answer] rather than a model's view: minus their mean distance to 0 or 1.

    >>> answer_likeness([0.0, 1.0]), answer_likeness([0.25, 0.5])
    (-0.0, -0.375)
    """
    return -sum(min(reward, 1.0 - reward) for reward in rewards) / len(rewards)


def _trigrams(row: tuple[str, str]) -> frozenset[str]:
    text = f"\x02{row[0]}\x1f{row[1]}\x03"
    return frozenset(text[place : place + 3] for place in range(len(text) - 2))


def _estimate(
    measure: Callable[[FloatArray, FloatArray], float],
    members: FloatArray,
    others: FloatArray,
    key: tuple[streams.Part, ...],
    resamples: int,
) -> Estimate:
    draws = streams.generator(*key)
    sampled = np.array(
        [
            measure(
                members[draws.integers(len(members), size=len(members))],
                others[draws.integers(len(others), size=len(others))],
            )
            for _ in range(resamples)
        ]
    )
    return Estimate(measure(members, others), *_percentiles(sampled))


def _percentiles(sampled: FloatArray) -> tuple[float, float]:
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(sampled, [tail, 1.0 - tail])
    return float(low), float(high)


def _check(members: FloatArray, others: FloatArray) -> None:
    if not len(members) or not len(others):
        raise ValueError(f"{len(members)} members and {len(others)} others; there must be some of both")
    if np.isnan(members).any() or np.isnan(others).any():
        raise ValueError("a score is not a number")
