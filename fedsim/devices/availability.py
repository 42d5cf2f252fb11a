"""When devices are there: pure functions of (seed, client, virtual time).

An idle device has no process and no event; whoever wants to know asks. Whether a device is on at an instant
never depends on what was asked before. Intervals are half open, [start, end): at the instant of a change the
new state holds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

from fedsim import streams
from fedsim.devices.config import AlwaysConfig, SessionsConfig


class Availability(Protocol):
    """When each client is there."""

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client is there at this instant."""

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the client comes or goes; infinity if it never does."""

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        """The intervals in which the client is there, cut to the span; empty list if none."""


def availability(config: AlwaysConfig | SessionsConfig, seed: int) -> Availability:
    """The availability that a scenario asks for."""
    return Sessions(config, seed) if isinstance(config, SessionsConfig) else AlwaysOn()


def next_on(source: Availability, client_id: int, at_s: float) -> float:
    """The first instant, ``at_s`` or later, at which the client is there; infinity if it never comes."""
    return at_s if source.is_on(client_id, at_s) else source.next_change(client_id, at_s)


def expected_share(config: AlwaysConfig | SessionsConfig) -> float:
    """The long-run share of time a device is there: ``mean_on / (mean_on + mean_off)``; 1 for always."""
    if isinstance(config, AlwaysConfig):
        return 1.0
    return config.mean_on / (config.mean_on + config.mean_off)


class AlwaysOn:
    """Every client is there all the time."""

    def is_on(self, client_id: int, at_s: float) -> bool:
        """True."""
        return True

    def next_change(self, client_id: int, at_s: float) -> float:
        """Infinity."""
        return math.inf

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        """The whole span, if it is not empty."""
        return [(start_at_s, end_at_s)] if start_at_s < end_at_s else []


class Sessions:
    """On/off sessions: an alternating renewal process per client, stationary from time 0 on.

    Session and gap lengths are exponential, or Weibull with the given shape, with means ``mean_on`` and
    ``mean_off``. A client starts on with probability ``mean_on / (mean_on + mean_off)``, and its first
    interval has the equilibrium residual law: a uniform share of a length-biased interval, so that no instant
    is special. Length n of a client is a keyed draw; instants are its partial sums, always added from 0
    upwards and kept, so that the order of questions cannot matter.

    References:
        Cox, Renewal Theory (1962), chapters 5 and 7 (equilibrium and alternating renewal processes).
    """

    def __init__(self, config: SessionsConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._lengths = _LAWS[config.distribution](config.shape or 1.0)
        self._changes: dict[int, list[float]] = {}
        self._starts_on: dict[int, bool] = {}

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client is in a session."""
        changes = self._changes_past(client_id, at_s)
        return self._starts_on[client_id] ^ bool(bisect_right(changes, at_s) & 1)

    def next_change(self, client_id: int, at_s: float) -> float:
        """The end of the session or gap that holds at ``at_s``."""
        changes = self._changes_past(client_id, at_s)
        return changes[bisect_right(changes, at_s)]

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        """The client's sessions, cut to the span."""
        sessions = []
        at_s = next_on(self, client_id, start_at_s)
        while at_s < end_at_s:
            gone_at_s = self.next_change(client_id, at_s)
            sessions.append((at_s, min(gone_at_s, end_at_s)))
            at_s = next_on(self, client_id, gone_at_s)
        return sessions

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
            draw = streams.uniform(self._seed, "availability", client_id, n)
            changes.append(changes[-1] + self._mean_s(on) * self._lengths.full(draw))
        return changes

    def _begin(self, client_id: int) -> list[float]:
        key = (self._seed, "availability", client_id)
        on = streams.uniform(*key, "start") < expected_share(self._config)
        residual = self._lengths.residual(streams.uniform(*key, 0), streams.uniform(*key, "share"))
        self._starts_on[client_id] = on
        self._changes[client_id] = [self._mean_s(on) * residual]
        return self._changes[client_id]

    def _mean_s(self, on: bool) -> float:
        return self._config.mean_on if on else self._config.mean_off


class _Exponential:
    """Exponential lengths of mean 1; the residual has the same law (no memory)."""

    def __init__(self, shape: float) -> None:
        self.shape = shape

    def full(self, draw: float) -> float:
        return -math.log(draw)

    def residual(self, draw: float, share: float) -> float:
        return -math.log(draw)


class _Weibull:
    """Weibull lengths of mean 1: ``scale (-ln u)^(1/k)`` with ``scale = 1 / Gamma(1 + 1/k)``.

    A length-biased Weibull is ``scale G^(1/k)`` with G gamma distributed of shape ``1 + 1/k``.
    """

    def __init__(self, shape: float) -> None:
        self.shape = shape
        self.scale = 1 / math.gamma(1 + 1 / shape)

    def full(self, draw: float) -> float:
        return self.scale * float((-math.log(draw)) ** (1 / self.shape))

    def residual(self, draw: float, share: float) -> float:
        from scipy.special import gammaincinv  # only here: importing scipy costs more than a small run

        biased = float(gammaincinv(1 + 1 / self.shape, draw))
        return share * self.scale * float(biased ** (1 / self.shape))


_LAWS: dict[str, Callable[[float], _Exponential | _Weibull]] = {
    "exponential": _Exponential,
    "weibull": _Weibull,
}
