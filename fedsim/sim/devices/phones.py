"""Measured smartphones: a share of time per device, sessions and gaps by their quantiles, thinned by the hour of day.

Device k's share f_k is ``Q_f(u_k)``, the measured quantile function at a keyed uniform draw (or at ``Phi(-z_k)`` for a given
score z_k). Its sessions have the measured law, with mean m = 1,931 s; its gaps have the measured shape, scaled to the mean
``m (1 - f_k) / f_k``. With ``by_hour`` a session is kept with probability r(hour of its start), such that presence by hour is
the measured one: r is what, smoothed by these sessions (`fedsim.sim.devices.cycles`), gives the measured hours, and stands
solved beside them. Gaps are then those of the share ``f_k / mean(r)``, at most 0.99, so that f_k stays the mean over a day.

The table's last cell (99% to 100%) is far from linear: linear interpolation would give sessions a mean of 2,663 s. There ``Q``
is ``Q(0.99) + (Q(1) - Q(0.99)) x^k`` with the k that gives the measured mean. Sessions and gaps are at least a second (6%
of the measured sessions are zero).

Left out: that a user's sessions are like each other, that often-on users have longer sessions, weekdays, and the 290 of 1,000
users without a usable interval.

References:
    Yang et al., Characterizing Impacts of Heterogeneity in Federated Learning upon Large-Scale Smartphone Data, WWW 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import NormalDist

from fedsim.sim import streams
from fedsim.sim.devices.availability_config import PhonesConfig
from fedsim.sim.devices.cycles import Hourly
from fedsim.sim.devices.presets import table
from fedsim.sim.devices.session_lengths import Tabulated
from fedsim.sim.devices.sessions import Renewal, mean_gap_s

MEAN_SESSION_S, MEAN_GAP_S = 1931.0, 11758.0
"""Means of the measured sessions and gaps, which the quantiles alone do not give."""

_MOST_SHARE = 0.99
_NORMAL = NormalDist()


class Phones(Renewal):
    """Sessions of measured smartphones."""

    def __init__(self, config: PhonesConfig, seed: int, scores: Sequence[float] | None = None) -> None:
        self._scores = scores
        cycle = Hourly(hourly_starts(), config.starts_at) if config.by_hour else None
        self._kept = 1.0 if cycle is None else cycle.mean
        super().__init__(seed, "availability", self._gaps_of, session_lengths(), gap_lengths(), cycle)

    def _gaps_of(self, client_id: int) -> tuple[float, float]:
        if self._scores is None:
            draw = streams.uniform(self._seed, "availability share", client_id)
        else:
            draw = _NORMAL.cdf(-self._scores[client_id])
        before_thinning = min(shares().value(draw) / self._kept, _MOST_SHARE)
        return MEAN_SESSION_S, mean_gap_s(MEAN_SESSION_S, before_thinning)


@cache
def shares() -> Tabulated:
    """The law of a user's share of time; its mean is 0.095."""
    return Tabulated(_quantiles("available_fraction"))


@cache
def session_lengths() -> Tabulated:
    """The law of session lengths."""
    return Tabulated(_with_tail(_quantiles("session_s", at_least=1.0), MEAN_SESSION_S))


@cache
def gap_lengths() -> Tabulated:
    """The law of gap lengths."""
    return Tabulated(_with_tail(_quantiles("gap_s", at_least=1.0), MEAN_GAP_S))


@cache
def hourly_starts() -> tuple[float, ...]:
    """How often a session that starts in this hour of the trace's clock is kept, over the highest [24]."""
    return tuple(float(row["start_level"]) for row in table("availability_by_hour.csv"))


def _with_tail(points: list[tuple[float, float]], mean: float) -> list[tuple[float, float]]:
    """The quantiles with the last cell bent, so that the mean is the measured one."""
    *below, (low_p, low), (high_p, high) = points
    rest = (mean - Tabulated([*below, (low_p, low)]).mean) / (high_p - low_p)
    power = (high - low) / (
        rest - low
    ) - 1  # the mean of low + (high - low) x^k is low + (high - low) / (k + 1)
    cells = 50
    bent = [
        (low_p + (high_p - low_p) * i / cells, low + (high - low) * (i / cells) ** power)
        for i in range(1, cells)
    ]
    return [*below, (low_p, low), *bent, (high_p, high)]


def _quantiles(column: str, at_least: float = 0.0) -> list[tuple[float, float]]:
    return [
        (float(row["p"]), max(float(row[column]), at_least)) for row in table("availability_quantiles.csv")
    ]
