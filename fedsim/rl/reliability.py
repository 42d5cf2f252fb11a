"""How far the server believes each expert: agreement with the others and with questions whose answer it knows, learned online.

Scores of different experts share no scale, so agreement is counted in pairs of candidates (g, h) that both experts tell apart:
experts k and j agree on a pair if they order it alike. One group gives expert k one unit of evidence at most,

    for_k += sum_j t_j C_kj / sum_j t_j,   against_k += sum_j t_j D_kj / sum_j t_j,     j over the others who scored

with C_kj and D_kj = 1 - C_kj the shares of pairs that k and j order alike and contrariwise, and t_j the trust in j before this
group: who is distrusted accuses nobody. Old evidence of this kind fades by ``memory`` for each group. An audit (a question of
the auxiliary set, whose label the server knows, among candidates right and wrong) gives one unit as well, for the share of
pairs (right, wrong) in which the right one has the higher score, a tie counting one half; audits do not fade. A reply that the
boundary refused is one unit against. The trust is the mean of a Beta posterior,

    t_k = (s t_0 + for_k + w right_k) / (s + for_k + against_k + refused_k + w (right_k + wrong_k))

the probability that expert k orders a pair rightly: 1/2 is a coin, less is worse than a coin. In a weighted mean an expert
counts max(0, ln(t_k / (1 - t_k))), which is how independent voters of these accuracies are combined best (Nitzan and Paroush):
nothing for a coin; an expert that is always wrong is left out, not turned around.

What it leaves out: one trust per expert, not one per domain; and where most of those asked collude, agreement with the others
speaks for the colluders, and only audits speak against them.

References:
    Nitzan and Paroush, Optimal decision rules in uncertain dichotomous choice situations, International Economic Review 23
    (1982). Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm, Applied Statistics
    28 (1979). Josang and Ismail, The beta reputation system, Bled 2002. The update itself is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of an expert before anything is known, and what evidence counts.

    Attributes:
        trust: t_0, probability that it orders a pair of candidates rightly.
        strength: s, units of evidence that the prior is worth.
        memory: share of the evidence by agreement that one more group leaves, in (0, 1].
        audit_weight: w, what an audit counts against one group of agreement.
    """

    trust: float = 0.75
    strength: float = 4.0
    memory: float = 0.99
    audit_weight: float = 5.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Units of evidence on every expert, ``[K]`` each."""

    agreed: FloatArray
    disagreed: FloatArray
    right: FloatArray
    wrong: FloatArray
    refused: FloatArray


def no_evidence(num_clients: int) -> Evidence:
    """Nothing is known of anybody."""
    return Evidence(*(np.zeros(num_clients) for _ in range(5)))


def trust(evidence: Evidence, prior: Prior) -> FloatArray:
    """t_k of the module's formula, ``[K]`` in (0, 1)."""
    good = evidence.agreed + prior.audit_weight * evidence.right
    bad = evidence.disagreed + evidence.refused + prior.audit_weight * evidence.wrong
    return np.asarray((prior.strength * prior.trust + good) / (prior.strength + good + bad), dtype=np.float64)


def voting_weights(trusts: FloatArray) -> FloatArray:
    """max(0, ln(t / (1 - t))), ``[K]``: what an expert of this accuracy counts in a weighted mean."""
    return np.asarray(np.maximum(np.log(trusts) - np.log1p(-trusts), 0.0), dtype=np.float64)


def concordance(scores: FloatArray) -> FloatArray:
    """C_kj, the share of candidate pairs that k and j order alike among those both tell apart, ``[M, M]``.

    NaN where there is no such pair, and on the diagonal.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.
    """
    first, second = _pairs(scores.shape[1])
    with np.errstate(invalid="ignore"):
        signs = np.nan_to_num(np.sign(scores[:, first] - scores[:, second]))
    balance, compared = signs @ signs.T, np.abs(signs) @ np.abs(signs).T
    np.fill_diagonal(compared, 0.0)
    share = 0.5 + 0.5 * balance / np.where(compared > 0, compared, 1.0)
    return np.asarray(np.where(compared > 0, share, np.nan), dtype=np.float64)


@lru_cache(64)
def _pairs(num: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """All pairs of so many candidates, each once."""
    return np.triu_indices(num, 1)


def after_group(evidence: Evidence, experts: Sequence[int], scores: FloatArray, prior: Prior) -> Evidence:
    """The evidence after one more group of candidates.

    Args:
        evidence: what is known so far.
        experts: client ids of the rows, each once.
        scores: ``[M, G]``, NaN where an expert did not answer; one that says nothing gives and gets no evidence.
        prior: what counts.

    Returns:
        New evidence; the old one is not changed.

    Raises:
        ValueError: an expert stands twice, or there is not one row for each.
    """
    ids = list(experts)
    if len(set(ids)) != len(ids) or scores.shape[:1] != (len(ids),):
        raise ValueError(f"{len(ids)} experts {ids} and scores {scores.shape}; must be one row per expert")
    if len(ids) < 2:
        return evidence  # nobody to agree with
    alike = concordance(scores)
    weights = np.where(np.isnan(alike), 0.0, trust(evidence, prior)[ids][None, :])
    totals = weights.sum(axis=1)
    heard = totals > 0
    share = (weights * np.nan_to_num(alike)).sum(axis=1) / np.where(heard, totals, 1.0)
    fading = np.where(heard, prior.memory, 1.0)
    agreed, disagreed = evidence.agreed.copy(), evidence.disagreed.copy()
    agreed[ids] = fading * agreed[ids] + np.where(heard, share, 0.0)
    disagreed[ids] = fading * disagreed[ids] + np.where(heard, 1.0 - share, 0.0)
    return replace(evidence, agreed=agreed, disagreed=disagreed)


def after_audit(evidence: Evidence, expert: int, scores: FloatArray, right: Sequence[bool]) -> Evidence:
    """The evidence after an expert scored candidates of which the server knows which are right.

    Args:
        evidence: what is known so far.
        expert: its client id.
        scores: ``[G]``, finite.
        right: ``[G]``; where all or none are, nothing is learned.
    """
    truth = np.asarray(right, dtype=np.bool_)
    gaps = scores[truth][:, None] - scores[~truth][None, :]
    if not gaps.size:
        return evidence
    share = float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    return replace(
        evidence,
        right=_plus(evidence.right, expert, share),
        wrong=_plus(evidence.wrong, expert, 1.0 - share),
    )


def after_refusal(evidence: Evidence, expert: int) -> Evidence:
    """The evidence after a reply of this expert was refused at the boundary: one unit against it."""
    return replace(evidence, refused=_plus(evidence.refused, expert, 1.0))


def _plus(units: FloatArray, expert: int, more: float) -> FloatArray:
    changed = units.copy()
    changed[expert] += more
    return changed
