"""On/off sessions: alternating renewal processes, a pure function of (seed, client, virtual time)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from fedsim.sim import streams
from fedsim.sim.devices.availability_config import DailyConfig, SessionsConfig
from fedsim.sim.devices.cycles import Cycle, SkewedCosine
from fedsim.sim.devices.odds import Odds
from fedsim.sim.devices.presence import StatedAvailability
from fedsim.sim.devices.session_lengths import Exponential, Lengths, Weibull

MAX_SHARE = 0.999
"""A spread makes no device's gaps shorter than a thousandth of its sessions: there would be no end of changes."""


class Renewal(StatedAvailability):
    """Sessions and gaps of independent lengths, stationary from time 0 on, perhaps thinned by a daily cycle.

    A client starts in a session with probability ``mean_on / (mean_on + mean_off)``, and its first interval has the equilibrium
    law: a uniform part of a length-biased interval, so that no instant is special (but for the time of day). Length n of a
    client is a keyed draw; instants are partial sums, always added from 0 upwards and kept, so that the order of questions
    cannot matter. A session that the cycle does not keep is part of the gap around it.

    Args:
        seed: root of the draws.
        what: first part of the draws' key after the seed.
        means_s: mean session and mean gap of a client, seconds; an infinite gap is a client that never comes.
        on: law of session lengths.
        off: law of gap lengths.
        cycle: keeps a session by the time of day at which it starts.

    References:
        Cox, Renewal Theory (1962), chapters 5 and 7 (equilibrium and alternating renewal processes).
    """

    def __init__(
        self,
        seed: int,
        what: str,
        means_s: Callable[[int], tuple[float, float]],
        on: Lengths,
        off: Lengths,
        cycle: Cycle | None = None,
    ) -> None:
        self._seed = seed
        self._what = what
        self._means_of = means_s
        self._laws = (off, on)
        self._cycle = cycle
        self._changes: dict[int, list[float]] = {}
        self._starts_on: dict[int, bool] = {}
        self._first_at_s: dict[int, float] = {}  # when the interval that holds at 0 began
        self._means_s: dict[int, tuple[float, float]] = {}  # of gaps, of sessions

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client is in a session."""
        return self._holds(client_id, bisect_right(self._changes_past(client_id, at_s), at_s))

    def next_change(self, client_id: int, at_s: float) -> float:
        """The end of the session or gap that holds at ``at_s``."""
        changes = self._changes_past(client_id, at_s)
        n = bisect_right(changes, at_s)
        if self._cycle is None:
            return changes[n]
        state = self._holds(client_id, n)
        while changes[n] < math.inf:
            self._changes_past(client_id, changes[n])
            n += 1
            if self._holds(client_id, n) != state:
                return changes[n - 1]
        return math.inf

    def share_of(self, client_id: int) -> float:
        """``mean_on / (mean_on + mean_off)``, times the cycle's mean."""
        on_s, off_s = self._means_of(client_id)
        share = on_s / (on_s + off_s) if off_s < math.inf else 0.0
        return share if self._cycle is None else share * self._cycle.mean

    def _holds(self, client_id: int, n: int) -> bool:
        """Whether interval n of the client is a session, and kept."""
        if not self._starts_on[client_id] ^ bool(n & 1):
            return False
        if self._cycle is None:
            return True
        start_at_s = self._changes[client_id][n - 1] if n else self._first_at_s[client_id]
        draw = streams.uniform(self._seed, self._what, client_id, n, "kept")
        return draw < self._cycle.level(client_id, start_at_s)

    def _changes_past(self, client_id: int, at_s: float) -> list[float]:
        """The client's changes from 0 on, the last of them after ``at_s``."""
        if at_s < 0 or not math.isfinite(at_s):
            raise ValueError(f"virtual time is {at_s}; must be finite and not negative")
        changes = self._changes.get(client_id)
        if changes is None:
            changes = self._begin(client_id)
        while changes[-1] <= at_s:
            n = len(changes)
            on = self._starts_on[client_id] ^ bool(n & 1)
            draw = streams.uniform(self._seed, self._what, client_id, n)
            changes.append(changes[-1] + self._means_s[client_id][on] * self._laws[on].full(draw))
        return changes

    def _begin(self, client_id: int) -> list[float]:
        key = (self._seed, self._what, client_id)
        on_s, off_s = self._means_of(client_id)
        self._means_s[client_id] = (off_s, on_s)
        if off_s == math.inf:
            on, age_s, residual_s = False, 0.0, math.inf
        else:
            on = streams.uniform(*key, "start") < on_s / (on_s + off_s)
            mean_s = on_s if on else off_s
            age, residual = self._laws[on].met(streams.uniform(*key, 0), streams.uniform(*key, "share"))
            age_s, residual_s = mean_s * age, mean_s * residual
        self._starts_on[client_id] = on
        self._first_at_s[client_id] = -age_s
        self._changes[client_id] = [residual_s]
        return self._changes[client_id]


class Sessions(Renewal):
    """Sessions and gaps of the means ``mean_on`` and ``mean_off``, exponential or Weibull with the given shape.

    With a ``spread``, client k's share of time f_k has that standard deviation of log-odds (`fedsim.sim.devices.odds`), and its
    mean gap is ``mean_on (1 - f_k) / f_k``: sessions are alike, so a device that is there is lost as fast as any other.
    """

    def __init__(self, config: SessionsConfig, seed: int, scores: Sequence[float] | None = None) -> None:
        share = config.mean_on / (config.mean_on + config.mean_off)
        law = lengths(config.distribution, config.shape)
        alike = (config.mean_on, config.mean_off)
        spread = _spread_gaps(config.mean_on, share, config.spread, seed, scores) if config.spread else None
        super().__init__(seed, "availability", spread or (lambda _: alike), law, law)


class Daily(Renewal):
    """Sessions thinned by a daily cycle: without it, a device would be there ``peak_share`` of the time.

    Device k is there at t with probability ``g_k (r * h)(t)`` (`fedsim.sim.devices.cycles`), where g_k is ``peak_share``, or
    differs with the ``spread``; over a day the mean is ``(peak_share + low_share) / 2``.
    """

    def __init__(self, config: DailyConfig, seed: int, scores: Sequence[float] | None = None) -> None:
        law = lengths(config.distribution, config.shape)
        means = _spread_gaps(config.mean_on, config.peak_share, config.spread, seed, scores)
        super().__init__(seed, "availability", means, law, law, SkewedCosine(config, seed))


def lengths(distribution: str, shape: float | None) -> Lengths:
    """The law of lengths that a scenario names."""
    return Weibull(shape) if distribution == "weibull" and shape is not None else Exponential()


def mean_gap_s(mean_on_s: float, share: float) -> float:
    """The mean gap that leaves a share f of the time for sessions: ``mean_on (1 - f) / f``; infinite for f = 0."""
    return mean_on_s * (1 - share) / share if share else math.inf


def _spread_gaps(
    mean_on_s: float, share: float, spread: float, seed: int, scores: Sequence[float] | None
) -> Callable[[int], tuple[float, float]]:
    """Means of a client whose share of time is spread; the highest score gets the smallest share."""
    absent_first = None if scores is None else [-score for score in scores]
    odds = Odds(share, spread, seed, "availability", absent_first)
    most = max(share, MAX_SHARE)
    return lambda client_id: (mean_on_s, mean_gap_s(mean_on_s, min(odds.of(client_id), most)))
