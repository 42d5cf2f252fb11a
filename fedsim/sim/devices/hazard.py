"""The hazard of one request: an endurance that is spent at the rate of the phase it is in (`fedsim.sim.devices.dropout`)."""

from __future__ import annotations

from collections.abc import Callable

from fedsim.sim.timeline import Scheduled, Timeline


class Hazard:
    """Fails when the accumulated hazard ``integral of h(t) dt`` meets the request's endurance."""

    __slots__ = ("_at", "_endurance", "_fail", "_rate_per_s", "_since_s", "_timeline")

    def __init__(self, timeline: Timeline, endurance: float, fail: Callable[[], None]) -> None:
        self._timeline = timeline
        self._endurance = endurance
        self._fail = fail
        self._rate_per_s = 0.0
        self._since_s = timeline.now_s
        self._at: Scheduled | None = None

    def set_rate(self, rate_per_s: float) -> None:
        """From now on it is spent at this rate; 0: not at all."""
        if rate_per_s == self._rate_per_s:
            return
        now_s = self._timeline.now_s
        self._endurance = max(self._endurance - self._rate_per_s * (now_s - self._since_s), 0.0)
        self._rate_per_s, self._since_s = rate_per_s, now_s
        if self._at is not None:
            self._at.cancel()
        self._at = self._timeline.at(now_s + self._endurance / rate_per_s, self._fail) if rate_per_s else None
