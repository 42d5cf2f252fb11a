"""What it is to be there: the interface of every availability, and what follows from it alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class Availability(Protocol):
    """When each client is there; who inherits gets ``intervals`` from the other two answers."""

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client is there at this instant."""

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the client comes or goes; infinity if it never does."""

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        """The intervals in which the client is there, cut to the span; empty list if none."""
        found = []
        at_s = next_on(self, client_id, start_at_s) if start_at_s < end_at_s else math.inf
        while at_s < end_at_s:
            gone_at_s = self.next_change(client_id, at_s)
            found.append((at_s, min(gone_at_s, end_at_s)))
            at_s = next_on(self, client_id, gone_at_s) if gone_at_s < end_at_s else math.inf
        return found


class StatedAvailability(Availability, Protocol):
    """An availability that also says how much of the time each client is there."""

    def share_of(self, client_id: int) -> float:
        """The long-run share of time that this client is there, while it takes part at all."""


def next_on(source: Availability, client_id: int, at_s: float) -> float:
    """The first instant, ``at_s`` or later, at which the client is there; infinity if it never comes."""
    return at_s if source.is_on(client_id, at_s) else source.next_change(client_id, at_s)


class AlwaysOn(StatedAvailability):
    """Every client is there all the time."""

    def is_on(self, client_id: int, at_s: float) -> bool:
        """True."""
        return True

    def next_change(self, client_id: int, at_s: float) -> float:
        """Infinity."""
        return math.inf

    def share_of(self, client_id: int) -> float:
        """1."""
        return 1.0


class AllOf(StatedAvailability):
    """There when every one of several sources says so, e.g. not yet gone, in a region without outage, and in a session.

    Sources are asked in order; what is cheap, or can end a client's presence for good, stands first. They are independent, so
    the share of time is the product of theirs.

    Args:
        sources: all of them.
        horizon_s: nobody needs to know exactly what happens after this instant. A source that walks from one change to the
            next would walk for ever to where another, years later, has its next one.
        num_quick: so many of the first sources do not walk; they are asked whatever the instant is.
    """

    def __init__(
        self, sources: Sequence[StatedAvailability], horizon_s: float = math.inf, num_quick: int = 0
    ) -> None:
        self._sources = tuple(sources)
        self._horizon_s = horizon_s
        self._num_quick = num_quick

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether all sources say that the client is there (after the horizon: those that do not walk)."""
        return all(source.is_on(client_id, at_s) for source in self._asked(at_s))

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first change of any source for a client that is there; else the first instant at which all agree that it is.

        After the horizon it is an instant before which they do not agree.
        """
        if self.is_on(client_id, at_s):
            return min(source.next_change(client_id, at_s) for source in self._sources)
        earliest_at_s = -math.inf
        while earliest_at_s != at_s and at_s < math.inf:
            earliest_at_s = at_s
            for source in self._asked(at_s):  # each that is away now must come first
                if at_s < math.inf and not source.is_on(client_id, earliest_at_s):
                    at_s = max(at_s, source.next_change(client_id, earliest_at_s))
        return at_s

    def share_of(self, client_id: int) -> float:
        """The product of the sources' shares."""
        return math.prod(source.share_of(client_id) for source in self._sources)

    def _asked(self, at_s: float) -> tuple[StatedAvailability, ...]:
        return self._sources if at_s <= self._horizon_s else self._sources[: self._num_quick]
