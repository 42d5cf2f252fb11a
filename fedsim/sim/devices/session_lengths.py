"""Laws of session and gap lengths, scaled to mean 1: as keyed uniform draws become lengths.

An interval that holds at a given instant of a stationary process is not like any interval: long ones are met more often. Its
length has density ``x f(x) / E[X]`` (length-biased), and the instant divides it uniformly into an age and a residual.

References:
    Cox, Renewal Theory (1962), chapter 5 (equilibrium renewal processes, backward and forward recurrence times).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol


class Lengths(Protocol):
    """A law of positive lengths of mean 1."""

    def full(self, draw: float) -> float:
        """The length of an interval, from a uniform draw."""

    def met(self, draw: float, share: float) -> tuple[float, float]:
        """Age and residual of the interval that holds at a given instant, from two uniform draws."""


class Exponential:
    """Exponential lengths; age and residual are independent with the same law (no memory)."""

    def full(self, draw: float) -> float:
        """``-ln u``."""
        return -math.log(draw)

    def met(self, draw: float, share: float) -> tuple[float, float]:
        """Two exponential draws."""
        return -math.log(share), -math.log(draw)


class Weibull:
    """Weibull lengths: ``scale (-ln u)^(1/k)`` with ``scale = 1 / Gamma(1 + 1/k)``.

    A length-biased Weibull is ``scale G^(1/k)`` with G gamma distributed of shape ``1 + 1/k``.
    """

    def __init__(self, shape: float) -> None:
        self.shape = shape
        self.scale = 1 / math.gamma(1 + 1 / shape)

    def full(self, draw: float) -> float:
        """The quantile function at ``1 - draw``."""
        return self.scale * float((-math.log(draw)) ** (1 / self.shape))

    def met(self, draw: float, share: float) -> tuple[float, float]:
        """A uniform division of a length-biased draw."""
        from scipy.special import gammaincinv  # only here: importing scipy costs more than a small run

        biased = float(float(gammaincinv(1 + 1 / self.shape, draw)) ** (1 / self.shape))
        return (1 - share) * self.scale * biased, share * self.scale * biased


class Tabulated:
    """A law given by its quantiles: the quantile function Q is linear between (p, Q(p)) pairs, then scaled to mean 1.

    Attributes:
        mean: the mean before scaling, ``integral of Q(p) dp`` by trapezoids (exact for a piecewise linear Q).
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._p = [p for p, _ in points]
        self._q = [q for _, q in points]
        areas = [0.5 * (high - low) * (a + b) for (low, a), (high, b) in pairwise(points)]
        self._area = [0.0, *accumulate(areas)]
        self.mean = self._area[-1]

    def value(self, p: float) -> float:
        """The unscaled quantile Q(p)."""
        i = min(bisect_right(self._p, p), len(self._p) - 1) - 1
        low, high = self._p[i], self._p[i + 1]
        return self._q[i] + (self._q[i + 1] - self._q[i]) * (p - low) / (high - low)

    def full(self, draw: float) -> float:
        """``Q(draw)`` over the mean."""
        return self.value(draw) / self.mean

    def met(self, draw: float, share: float) -> tuple[float, float]:
        """A uniform division of a length-biased draw, ``Q(p)`` with ``integral from 0 to p of Q = draw * mean``."""
        biased = self.value(self._biased_p(draw)) / self.mean
        return (1 - share) * biased, share * biased

    def _biased_p(self, draw: float) -> float:
        """Solve the quadratic ``q_i x + slope x^2 / 2 = rest`` in the cell that holds the wanted area."""
        wanted = draw * self.mean
        i = min(bisect_right(self._area, wanted), len(self._area) - 1) - 1
        rest, start = wanted - self._area[i], self._q[i]
        slope = (self._q[i + 1] - start) / (self._p[i + 1] - self._p[i])
        root = math.sqrt(start * start + 2 * slope * rest)
        return min(self._p[i] + (2 * rest / (start + root) if start + root else 0.0), self._p[i + 1])
