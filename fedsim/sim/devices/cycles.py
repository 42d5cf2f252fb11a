"""Daily cycles: how likely a session that starts at some time of day comes about.

Sessions are thinned: one that would start at s is kept with probability r(s). With a stationary share of time g before thinning
and sessions whose age in equilibrium has density h, a device is there at t with probability

    P(on at t) = g  integral of r(t - a) h(a) da,        which averages to g times the mean of r over a day.

The cycle is thus smoothed by the length of sessions. For exponential sessions of mean m and a cosine of angular frequency w,
the swing shrinks by ``1 / sqrt(1 + (w m)^2)`` and lags by ``atan(w m) / w``.

References:
    Daley and Vere-Jones, An Introduction to the Theory of Point Processes (2003), section 2.4 (thinning); Bonawitz et al.,
    Towards Federated Learning at Scale, MLSys 2019, section 9 (four times as many devices take part at night as by day).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from fedsim.sim import streams
from fedsim.sim.devices.availability_config import DailyConfig

HOUR_S = 3600.0


class Cycle(Protocol):
    """The probability r that a session which starts at some instant is kept."""

    @property
    def mean(self) -> float:
        """The mean of r over a day."""

    def level(self, client_id: int, at_s: float) -> float:
        """The probability r for this client at this instant, in [0, 1]."""


class SkewedCosine:
    """A cosine between ``low_share`` and ``peak_share``, over the latter, whose fall takes ``(1 + skew) / 2`` of the day.

    With x the share of a day since the device's own peak and F the share of the fall, ``c = (1 + cos(pi x / F)) / 2`` for
    ``x < F``, else ``(1 + cos(pi (1 - x) / (1 - F))) / 2``, and ``r = (low + (peak - low) c) / peak``. The mean is
    ``(low + peak) / (2 peak)`` whatever the skew. Peaks are normal around ``peak_at`` with sd ``phase_spread``.
    """

    def __init__(self, config: DailyConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._fall = 0.5 * (1 + config.skew)
        self._peak_at_s: dict[int, float] = {}

    @property
    def mean(self) -> float:
        """``(low + peak) / (2 peak)``."""
        return 0.5 * (1 + self._config.low_share / self._config.peak_share)

    def level(self, client_id: int, at_s: float) -> float:
        """The probability r at this instant."""
        config, fall = self._config, self._fall
        x = ((at_s - self.peak_at_s(client_id)) / config.day) % 1.0
        c = 0.5 * (1 + math.cos(math.pi * (x / fall if x < fall else (1 - x) / (1 - fall))))
        return (config.low_share + (config.peak_share - config.low_share) * c) / config.peak_share

    def peak_at_s(self, client_id: int) -> float:
        """One of the instants at which this client's cycle is highest."""
        if client_id not in self._peak_at_s:
            z = streams.normal(self._seed, "daily phase", client_id) if self._config.phase_spread else 0.0
            self._peak_at_s[client_id] = self._config.peak_at + self._config.phase_spread * z
        return self._peak_at_s[client_id]


class Hourly:
    """A level for each hour of the day, the same for all clients: how many starts are kept, over the highest."""

    def __init__(self, shares: Sequence[float], starts_at_s: float = 0.0) -> None:
        self._levels = [share / max(shares) for share in shares]
        self._starts_at_s = starts_at_s

    @property
    def mean(self) -> float:
        """The mean over the hours."""
        return math.fsum(self._levels) / len(self._levels)

    def level(self, client_id: int, at_s: float) -> float:
        """The level of the hour."""
        return self._levels[int((at_s + self._starts_at_s) // HOUR_S) % len(self._levels)]
