"""Numbers of few runs: means over seeds with 95% intervals (Student-t; one run is one observation), and quantiles.

Quantiles are for heavy-tailed numbers such as times to finish, of which some may be censored. The q-th percentile of n values
is the ceil(q n / 100)-th smallest: an order statistic, always one of the values, never a mean of two (of an even number the
median is the lower of the middle ones; of nine values or fewer the 90th percentile is the largest). A value that is not known
because its run never got there (None) counts as more than any other; a percentile that falls on one is not reached (None).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Interval = dict[str, float | int | None]
"""``mean``, ``low``, ``high``, and ``n`` that were measured."""

LEVEL = 0.95

NOT_REACHED = "-"
QUANTILES = (
    "median, in brackets the 90th percentile: of n values the ceil(n/2)-th and ceil(.9 n)-th smallest (one number where both "
    "read alike)."
)


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


def percentile(values: Sequence[float | None], percent: int) -> float | None:
    """The ceil(percent n / 100)-th smallest of n values; None if it is not reached.

    >>> percentile([7.4, 171.0, 8.5], 50), percentile([7.4, None, 8.5], 50), percentile([7.4, None, None], 50)
    (8.5, 8.5, None)
    """
    known = sorted(value for value in values if value is not None)
    place = -(-percent * len(values) // 100)
    return known[place - 1] if 0 < place <= len(known) else None


def quantiles(values: Sequence[float | None]) -> dict[str, float | None]:
    """Median and 90th percentile, as JSON files have them."""
    return {"median": percentile(values, 50), "p90": percentile(values, 90)}


def show_quantiles(values: Sequence[float | None], write: Callable[[float], str]) -> str:
    """``9 min 06 s (1 h 02 min)``; what is not reached is ``-``, and where both read alike they are written once."""
    median, p90 = (NOT_REACHED if found is None else write(found) for found in quantiles(values).values())
    return median if median == p90 else f"{median} ({p90})"
