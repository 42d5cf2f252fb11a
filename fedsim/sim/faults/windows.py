"""When a fault holds on whom: windows [start, start + d) per target, as pure functions of (seed, target, virtual time).

A target is a client's id, or ``SERVER_ID`` for the server's link.

References:
    Cox, Renewal Theory (1962), chapter 7 (alternating renewal processes).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from fedsim.errors import ScenarioError
from fedsim.records.rows import SERVER_ID
from fedsim.sim import streams
from fedsim.sim.faults.config import FaultConfig, OnLinks

MOST_CHANGES = 100_000
"""So many changes without effect count as never: where faults leave a device practically no time in between."""


class Schedule:
    """The windows of one fault of the scenario, per target: [start, start + d), never overlapping."""

    def __init__(self, config: FaultConfig, key: tuple[streams.Part, ...], targets: Iterable[int]) -> None:
        self.config = config
        self.kind = config.kind
        self.key = key
        self.targets = tuple(targets)
        self._among = frozenset(self.targets)
        self._starts: dict[int, list[float]] = {}

    def is_active(self, target: int, at_s: float) -> bool:
        """Whether the fault holds on a target at this instant."""
        return target in self._among and self._end(target, at_s) is not None

    def next_change(self, target: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which it begins or ends there; infinity if never."""
        if target not in self._among:
            return math.inf
        end_at_s = self._end(target, at_s)
        if end_at_s is not None:
            return end_at_s
        starts = self._starts_past(target, at_s)
        return starts[bisect_right(starts, at_s)]

    def next_start(self, target: int, at_s: float) -> float:
        """The first instant, ``at_s`` or later, at which it holds there; infinity if never."""
        return at_s if self.is_active(target, at_s) else self.next_change(target, at_s)

    def windows(self, target: int, until_s: float) -> Iterator[tuple[float, float]]:
        """The windows that begin up to an instant, whole."""
        for start_at_s in self._starts_past(target, until_s):
            if start_at_s > until_s:
                return
            yield start_at_s, start_at_s + self.config.length_s

    def _end(self, target: int, at_s: float) -> float | None:
        """The end of the window that holds at this instant; None if there is none."""
        starts = self._starts_past(target, at_s)
        number = bisect_right(starts, at_s)
        if not number:
            return None
        end_at_s = starts[number - 1] + self.config.length_s
        return end_at_s if at_s < end_at_s else None

    def _starts_past(self, target: int, at_s: float) -> list[float]:
        """A target's starts from 0 on, the last of them after ``at_s``; always added up in the same order."""
        if at_s < 0 or not math.isfinite(at_s):
            raise ValueError(f"virtual time is {at_s}; must be finite and not negative")
        starts = self._starts.get(target)
        if starts is None:
            first_s = self._gap_s(target, 0) if self.config.hazard is not None else self.config.start_at_s
            starts = self._starts[target] = [first_s]
        while starts[-1] <= at_s:
            if self.config.hazard is None:
                starts.append(math.inf)
            else:
                starts.append(starts[-1] + self.config.length_s + self._gap_s(target, len(starts)))
        return starts

    def _gap_s(self, target: int, number: int) -> float:
        hazard = self.config.hazard
        return streams.exponential(1 / hazard, *self.key, target, number) if hazard else math.inf


class AnyOf:
    """Several faults of one kind as one: a device has it while any of them holds."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self.schedules = schedules

    @cached_property
    def _by_client(self) -> Mapping[int, list[Schedule]]:
        mine: dict[int, list[Schedule]] = {}
        for one in self.schedules:
            for target in one.targets:
                mine.setdefault(target, []).append(one)
        return mine

    def is_active(self, client_id: int, at_s: float) -> bool:
        """Whether any of them holds at this instant."""
        return any(one.is_active(client_id, at_s) for one in self._by_client.get(client_id, ()))

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the device gets it or is rid of it; infinity if never."""
        mine = self._by_client.get(client_id, ())
        active = self.is_active(client_id, at_s)
        for _ in range(MOST_CHANGES if mine else 0):
            changes = [one.next_change(client_id, at_s) for one in mine]
            if any(
                end == math.inf and one.is_active(client_id, at_s)
                for one, end in zip(mine, changes, strict=True)
            ):
                return math.inf
            at_s = min(changes)
            if at_s == math.inf or self.is_active(client_id, at_s) != active:
                return at_s
        return math.inf


def targets_of(
    config: FaultConfig, key: tuple[streams.Part, ...], classes_of_clients: Sequence[str], place: int
) -> list[int]:
    """Whom a fault strikes: the server's link, the named clients, or the classes' devices, perhaps a share of them.

    A share f of n devices are the ``ceil(f n)`` with the smallest draws, so that a larger share strikes the same and more.
    """
    if isinstance(config, OnLinks) and config.server_link:
        return [SERVER_ID]
    num_clients = len(classes_of_clients)
    for client_id in config.clients or ():
        if client_id >= num_clients:
            raise ScenarioError(
                f"faults.{place}.clients names client {client_id}, "
                f"but there are {num_clients} clients; must be 0 to {num_clients - 1}"
            ).at("faults", place, "clients")
    if config.clients is not None:
        return sorted(config.clients)
    known = sorted(set(classes_of_clients))
    for name in config.classes or ():
        if name not in known:
            raise ScenarioError(
                f"faults.{place}.classes names {name!r}, but no client is one; must be one of {', '.join(known)}"
            ).at("faults", place, "classes")
    wanted = frozenset(config.classes if config.classes is not None else known)
    devices = [client_id for client_id, name in enumerate(classes_of_clients) if name in wanted]
    if config.share is None:
        return devices
    count = math.ceil(config.share * len(devices) * (1 - 1e-12))
    return sorted(sorted(devices, key=lambda client_id: streams.uniform(*key, "struck", client_id))[:count])
