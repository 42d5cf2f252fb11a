"""Probabilities that differ between devices: a normal spread of their log-odds, with the mean kept.

Device k's probability is ``p_k = 1 / (1 + exp(-(a + s z_k)))`` with a standard normal z_k: a logit-normal law. ``s`` is the
standard deviation of the log-odds (0: all alike), and ``a`` solves ``E[p_k] = p``, so that a spread never changes how much
is lost on average, only whose it is. z_k is a keyed draw, or a given score where the order of the devices is chosen.

References:
    Aitchison and Shen, Logistic-normal distributions: some properties and uses, Biometrika 67 (1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from fedsim.sim import streams

_GRID = tuple(i / 20 for i in range(-180, 181))
_DENSITIES = tuple(math.exp(-0.5 * z * z) for z in _GRID)


class Odds:
    """One probability per client, with a given mean and spread.

    With ``scores`` (one standard normal score per client) the mean over these clients is kept exactly; with keyed draws the
    mean of the law is, so that one client more changes nobody's probability.
    """

    __slots__ = ("_location", "_mean", "_scores", "_seed", "_spread", "_what")

    def __init__(
        self, mean: float, spread: float, seed: int, what: str, scores: Sequence[float] | None = None
    ) -> None:
        self._mean = mean
        self._spread = spread
        self._seed = seed
        self._what = what
        self._scores = None if scores is None else tuple(float(score) for score in scores)
        self._location = location(mean, spread, self._scores) if self._differ else 0.0

    @property
    def _differ(self) -> bool:
        return self._spread > 0 and 0 < self._mean < 1

    def of(self, client_id: int) -> float:
        """The client's probability."""
        if not self._differ:
            return self._mean
        return _logistic(self._location + self._spread * self.score(client_id))

    def score(self, client_id: int) -> float:
        """The client's z: given, or a standard normal draw keyed by what it is for."""
        if self._scores is not None:
            return self._scores[client_id]
        return streams.normal(self._seed, self._what, "odds", client_id)


@lru_cache(maxsize=256)
def location(mean: float, spread: float, scores: tuple[float, ...] | None = None) -> float:
    """The a with ``E[1 / (1 + exp(-(a + spread z)))] = mean``, over the given scores or z ~ N(0, 1).

    The normal mean is a trapezoid sum over [-9, 9], exact to about 1e-15; a is bisected, since the mean rises with it.
    """
    points, weights = (_GRID, _DENSITIES) if scores is None else (scores, (1.0,) * len(scores))
    total = math.fsum(weights)

    def excess(a: float) -> float:
        return (
            math.fsum(w * _logistic(a + spread * z) for z, w in zip(points, weights, strict=True)) / total
            - mean
        )

    reach = spread * max(map(abs, points)) + 1.0
    centre = math.log(mean / (1 - mean))
    return _root(excess, centre - reach, centre + reach)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return low


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
