"""Fusing what several experts said about the same candidates into one number per candidate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def mean_of_answered(scores: FloatArray) -> FloatArray:
    """r_g = (1 / |S_g|) sum_{k in S_g} s_kg, where S_g are the experts that scored candidate g.

    Args:
        scores: ``[M, G]``, NaN where an expert did not answer.

    Returns:
        ``[G]``, NaN where nobody answered; a missing score is left out, never counted as zero.
    """
    answered = ~np.isnan(scores)
    counts = answered.sum(axis=0)
    totals = np.where(answered, scores, 0.0).sum(axis=0)
    return np.asarray(np.where(counts > 0, totals / np.maximum(counts, 1), np.nan), dtype=np.float64)
