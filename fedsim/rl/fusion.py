"""Fusing what several experts said about the same candidates into one number per candidate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


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
