"""Means over seeds with their 95% intervals (Student-t; one run is one observation), and differences paired by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Interval = dict[str, float | int | None]
"""``mean``, ``low``, ``high``, and ``n`` that were measured."""

LEVEL = 0.95


def interval(values: Sequence[float | None]) -> Interval:
    """Mean and Student-t interval: ``mean +- t_{n-1} s / sqrt(n)``; no interval for one value, None for none.

    A value that is undefined in one run (None) leaves that run out, and ``n`` says so.
    """
    known = [float(value) for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean = float(np.mean(known))
    if len(known) == 1:
        return {"mean": mean, "low": None, "high": None, "n": 1}
    from scipy.special import stdtrit  # scipy.stats takes as long to import as a small run

    half = float(stdtrit(len(known) - 1, 0.5 + LEVEL / 2) * np.std(known, ddof=1) / np.sqrt(len(known)))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(known)}


def paired(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Interval:
    """Interval of the differences ``ours - theirs``, seed by seed."""
    return interval([None if a is None or b is None else a - b for a, b in zip(ours, theirs, strict=True)])
