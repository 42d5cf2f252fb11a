"""What takes devices away besides their own sessions: outages of whole regions, joining late, leaving for good."""

from __future__ import annotations

import math

from fedsim.sim import streams
from fedsim.sim.devices.availability_config import JoinConfig, OutageConfig
from fedsim.sim.devices.presence import StatedAvailability
from fedsim.sim.devices.session_lengths import Exponential
from fedsim.sim.devices.sessions import Renewal


class Outages(StatedAvailability):
    """Regions that fail as a whole: every device of a region is away together.

    A device belongs to one of R regions by a keyed uniform draw. A region is up for exponential times of mean ``mean_between``
    and out for exponential times of mean ``mean_length``, stationary from time 0 on and independent of other regions. So two
    devices' outages have correlation 1/R on average, and 1 within a region.
    """

    def __init__(self, config: OutageConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        means = (config.mean_between, config.mean_length)
        self._regions = Renewal(seed, "outage", lambda _: means, Exponential(), Exponential())

    def region_of(self, client_id: int) -> int:
        """The region of a client, 0 to R - 1."""
        return int(streams.uniform(self._seed, "region", client_id) * self._config.regions)

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client's region is up."""
        return self._regions.is_on(self.region_of(client_id), at_s)

    def next_change(self, client_id: int, at_s: float) -> float:
        """When the client's region next fails or comes back."""
        return self._regions.next_change(self.region_of(client_id), at_s)

    def share_of(self, client_id: int) -> float:
        """``mean_between / (mean_between + mean_length)``."""
        return self._regions.share_of(0)


class Membership(StatedAvailability):
    """One stay per client: from when it joins until it leaves for good.

    A share of the clients joins late, at uniform instants up to ``time``; a stay is exponential with mean ``mean_stay``, so the
    share of early clients that are still there at t is ``exp(-t / mean_stay)``.
    """

    def __init__(self, join: JoinConfig | None, mean_stay_s: float | None, seed: int) -> None:
        self._join = join
        self._mean_stay_s = mean_stay_s
        self._seed = seed
        self._stays: dict[int, tuple[float, float]] = {}

    def stay(self, client_id: int) -> tuple[float, float]:
        """When the client joins and when it leaves for good (infinity: never)."""
        if client_id not in self._stays:
            self._stays[client_id] = self._draw(client_id)
        return self._stays[client_id]

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client has joined and not left."""
        joins_at_s, leaves_at_s = self.stay(client_id)
        return joins_at_s <= at_s < leaves_at_s

    def next_change(self, client_id: int, at_s: float) -> float:
        """When it joins, or then when it leaves; infinity afterwards."""
        return next((instant for instant in self.stay(client_id) if instant > at_s), math.inf)

    def share_of(self, client_id: int) -> float:
        """1: shares are those of the time in which a client takes part."""
        return 1.0

    def _draw(self, client_id: int) -> tuple[float, float]:
        joins_at_s = 0.0
        if self._join is not None and streams.uniform(self._seed, "joins late", client_id) < self._join.share:
            joins_at_s = self._join.time * streams.uniform(self._seed, "joins at", client_id)
        if self._mean_stay_s is None:
            return joins_at_s, math.inf
        return joins_at_s, joins_at_s + streams.exponential(self._mean_stay_s, self._seed, "stay", client_id)
