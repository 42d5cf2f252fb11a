"""Faults on purpose: crashes, hangs, partitions, slow links, and replies that are doubled, late or wrong.

Everything is a pure function of (seed, client, virtual time), as availability is: whoever wants to know asks, and an idle
device costs nothing. A fault that comes ``at`` an instant lasts from then on for its length; one with a ``hazard`` lambda is
an alternating renewal process per target, healthy for an exponential time of mean 1/lambda and struck for d:

    share of time struck -> lambda d / (1 + lambda d),    starts by t -> t lambda / (1 + lambda d)

At time 0 nobody is struck. Targets are struck independently of each other, the server's link as one target. Where several
faults overlap, a device is crashed (hung) while any of them lasts, and factors of links multiply. Of the faults of replies,
the first in the scenario that strikes a reply is the one that happens.

Draws are keyed by the fault's kind and its place among those of its kind, so that a fault more in the scenario changes no
other's luck; a higher hazard brings every n-th strike forward, a larger share or probability strikes the same and more.

Left out: faults with a common cause other than the server's link (see ``availability.outage``), and devices that break more
often the older they are.

References:
    Cox, Renewal Theory (1962), chapter 7 (alternating renewal processes).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from fedsim.records.rows import SERVER_ID, Direction
from fedsim.sim import streams
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices.presence import Availability
from fedsim.sim.faults.config import (
    REWARD_KINDS,
    CorruptRewardConfig,
    CrashConfig,
    Directions,
    FaultConfig,
    HangConfig,
    LateReplyConfig,
    OnLinks,
    OnReplies,
    PartitionConfig,
    SlowLinkConfig,
    WrongLengthConfig,
)
from fedsim.sim.faults.replies import ReplyFault
from fedsim.sim.faults.windows import MOST_CHANGES, AnyOf, Schedule, targets_of
from fedsim.sim.network import wire
from fedsim.sim.network.config import ServerLinkConfig


class CapacityLink(Protocol):
    """A link whose capacity can be changed (`fedsim.sim.network.link.SharedLink`)."""

    def set_capacity(self, capacity_bytes_per_s: float) -> None:
        """Change the rate of the link from now on; 0 stalls it."""


@dataclass(frozen=True, slots=True)
class Window:
    """One interval [start, end) in which a fault held; ``client_id`` is -1 for the server's link."""

    kind: str
    client_id: int
    start_at_s: float
    end_at_s: float


class Faults:
    """All faults of a run (see the module's docstring)."""

    def __init__(self, configs: Sequence[FaultConfig], seed: int, classes_of_clients: Sequence[str]) -> None:
        """Read the settings; nothing is drawn but who is struck.

        Raises:
            ScenarioError: a client or a device class that there is not, or nobody to strike.
        """
        numbers: dict[str, int] = {}
        schedules = []
        for place, config in enumerate(configs):
            number = numbers[config.kind] = numbers.get(config.kind, -1) + 1
            key = (seed, "fault", config.kind, number)
            schedules.append(Schedule(config, key, targets_of(config, key, classes_of_clients, place)))
        self._all = tuple(schedules)
        self._crashes = AnyOf([one for one in schedules if isinstance(one.config, CrashConfig)])
        self._hangs = AnyOf([one for one in schedules if isinstance(one.config, HangConfig)])
        self._links = [one for one in schedules if isinstance(one.config, OnLinks)]
        self._replies = [one for one in schedules if isinstance(one.config, OnReplies)]

    # Crashes.

    @property
    def has_crashes(self) -> bool:
        """Whether any device can crash."""
        return bool(self._crashes.schedules)

    def is_crashed(self, client_id: int, at_s: float) -> bool:
        """Whether the device lies dead at this instant."""
        return self._crashes.is_active(client_id, at_s)

    def next_crash_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the device dies or is back; infinity if never."""
        return self._crashes.next_change(client_id, at_s)

    def next_crash(self, client_id: int, at_s: float) -> float:
        """The first instant, ``at_s`` or later, at which the device lies dead; infinity if never."""
        return at_s if self.is_crashed(client_id, at_s) else self.next_crash_change(client_id, at_s)

    def cause(self, client_id: int, at_s: float) -> str | None:
        """Why a fault keeps the device away at this instant: ``fault: crash``, or None."""
        return "fault: crash" if self.is_crashed(client_id, at_s) else None

    # Hangs.

    @property
    def has_hangs(self) -> bool:
        """Whether any device can hang."""
        return bool(self._hangs.schedules)

    def is_hung(self, client_id: int, at_s: float) -> bool:
        """Whether the device computes nothing at this instant."""
        return self._hangs.is_active(client_id, at_s)

    def next_hang_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the device begins or ceases to hang; infinity if never."""
        return self._hangs.next_change(client_id, at_s)

    # Links.

    @property
    def has_link_faults(self) -> bool:
        """Whether any device's access link can be cut off or slowed down."""
        return any(not _server(one) for one in self._links)

    def factor(self, client_id: int, direction: Direction, at_s: float) -> float:
        """What is left of the rate of the client's access link at this instant, in [0, 1]."""
        return _factor(self._links, client_id, direction, at_s)

    def next_change(self, client_id: int, at_s: float) -> float:
        """An instant after ``at_s`` before which neither of the client's factors changes; infinity if they never do."""
        return _next_change(self._links, client_id, at_s)

    def arm(
        self, loop: VirtualLoop, downlink: CapacityLink, uplink: CapacityLink, rates: ServerLinkConfig
    ) -> None:
        """Let the faults of the server's link set its capacity, from now on.

        Their events are daemons, but for the end of a partition: stalled transfers have no event of their own, and wait for it.
        A hang without end has an event at its beginning, so that a run that gets stuck in it does so then and not before.

        Args:
            loop: the virtual clock.
            downlink: the server's link towards the clients.
            uplink: the server's link from the clients.
            rates: its capacities without faults.
        """
        links: dict[Direction, tuple[CapacityLink, float]] = {
            "down": (downlink, rates.down),
            "up": (uplink, rates.up),
        }
        for direction, (link, nominal_bytes_per_s) in links.items():
            mine = [one for one in self._links if _server(one) and _touches(one, direction)]
            if mine:
                _ServerLink(loop, link, nominal_bytes_per_s, direction, mine).turn()
        for one in self._hangs.schedules:
            if one.config.hazard is None and one.config.lasts_s is None:
                loop.at(max(one.config.start_at_s, loop.time()), _nothing)

    # Replies.

    def reply(
        self, client_id: int, at_s: float, *key: streams.Part, message: wire.Message | None = None
    ) -> ReplyFault | None:
        """What happens to the reply that a device is about to send, if anything.

        Args:
            client_id: the device.
            at_s: the instant at which the reply would be sent.
            key: what tells the request from every other one.
            message: the reply; faults that cannot strike it (of rewards, where it has none) are passed over.
        """
        for one in self._replies:
            config = one.config
            assert isinstance(config, OnReplies)
            if not one.is_active(client_id, at_s):
                continue
            if message is not None and one.kind in REWARD_KINDS and not getattr(message, "rewards", None):
                continue
            if streams.uniform(*one.key, "reply", client_id, *key) < config.probability:
                return ReplyFault(
                    kind=one.kind,
                    delay_s=config.delay if isinstance(config, LateReplyConfig) else 0.0,
                    how=config.how if isinstance(config, CorruptRewardConfig) else "",
                    by=config.by if isinstance(config, WrongLengthConfig) else 0,
                    luck=streams.integer(*one.key, "luck", client_id, *key),
                )
        return None

    # For the records.

    def windows(self, until_s: float) -> list[Window]:
        """Every crash, hang, partition and slow link up to an instant, cut there, by start; replies are struck one by one."""
        found = [
            Window(one.kind, target, start_at_s, min(end_at_s, until_s))
            for one in self._all
            if not isinstance(one.config, OnReplies)
            for target in one.targets
            for start_at_s, end_at_s in one.windows(target, until_s)
        ]
        return sorted(found, key=lambda window: (window.start_at_s, window.end_at_s))

    def names(self, client_id: int, start_at_s: float, end_at_s: float) -> tuple[str, ...]:
        """Kinds of the crashes, hangs and faults of its own or the server's link that a client met in a span."""
        met = (
            one.kind
            for one in self._all
            if not isinstance(one.config, OnReplies)
            and one.next_start(SERVER_ID if _server(one) else client_id, start_at_s) <= end_at_s
        )
        return tuple(dict.fromkeys(met))


class WithCrashes:
    """An availability in which a crashed device is away."""

    def __init__(self, source: Availability, faults: Faults) -> None:
        self._source = source
        self._faults = faults

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client is there and alive."""
        return not self._faults.is_crashed(client_id, at_s) and self._source.is_on(client_id, at_s)

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which the client comes or goes, dies or is back; infinity if never."""
        on = self.is_on(client_id, at_s)
        for _ in range(MOST_CHANGES):
            crash_s = self._faults.next_crash_change(client_id, at_s)
            source_s = self._source.next_change(client_id, at_s)
            if crash_s == math.inf and self._faults.is_crashed(client_id, at_s):
                return math.inf
            if source_s == math.inf and not self._source.is_on(client_id, at_s):
                return math.inf
            at_s = min(crash_s, source_s)
            if at_s == math.inf or self.is_on(client_id, at_s) != on:
                return at_s
        return math.inf

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        """The client's intervals of presence without those in which it lay dead."""
        alive = []
        for from_s, to_s in self._source.intervals(client_id, start_at_s, end_at_s):
            while from_s < to_s:
                dies_at_s = min(self._faults.next_crash(client_id, from_s), to_s)
                if from_s < dies_at_s:
                    alive.append((from_s, dies_at_s))
                from_s = self._faults.next_crash_change(client_id, dies_at_s) if dies_at_s < to_s else to_s
        return alive

    def cause(self, client_id: int, at_s: float) -> str | None:
        """Why a fault keeps the client away at this instant: ``fault: crash``, or None."""
        return self._faults.cause(client_id, at_s)


class _ServerLink:
    """One direction of the server's link under its faults."""

    def __init__(
        self,
        loop: VirtualLoop,
        link: CapacityLink,
        nominal_bytes_per_s: float,
        direction: Direction,
        schedules: Sequence[Schedule],
    ) -> None:
        self._loop = loop
        self._link = link
        self._nominal_bytes_per_s = nominal_bytes_per_s
        self._direction: Direction = direction
        self._schedules = schedules

    def turn(self) -> None:
        """Set the capacity of this instant, and come back when it changes."""
        now_s = self._loop.time()
        factor = _factor(self._schedules, SERVER_ID, self._direction, now_s)
        self._link.set_capacity(self._nominal_bytes_per_s * factor if factor else 0.0)
        change_at_s = _next_change(self._schedules, SERVER_ID, now_s, self._direction)
        self._loop.at(change_at_s, self.turn, daemon=factor > 0)


def _nothing() -> None:
    """An instant at which the clock stops by."""


def _factor(schedules: Iterable[Schedule], target: int, direction: Direction, at_s: float) -> float:
    """The product of the factors that hold on a target's link in one direction."""
    factor = 1.0
    for one in schedules:
        if _touches(one, direction) and one.is_active(target, at_s):
            assert isinstance(one.config, PartitionConfig | SlowLinkConfig)
            factor *= one.config.factor
    return factor


def _next_change(
    schedules: Sequence[Schedule], target: int, at_s: float, direction: Directions = "both"
) -> float:
    """When a factor of the target may change next; never any more once it is cut off for good."""
    changes = [one.next_change(target, at_s) for one in schedules]
    for one, change_at_s in zip(schedules, changes, strict=True):
        if change_at_s == math.inf and _cuts_off(one, direction) and one.is_active(target, at_s):
            return math.inf
    return min(changes, default=math.inf)


def _cuts_off(schedule: Schedule, direction: Directions) -> bool:
    config = schedule.config
    return isinstance(config, PartitionConfig) and config.direction in ("both", direction)


def _server(schedule: Schedule) -> bool:
    return isinstance(schedule.config, OnLinks) and schedule.config.server_link


def _touches(schedule: Schedule, direction: Direction) -> bool:
    return isinstance(schedule.config, OnLinks) and schedule.config.direction in ("both", direction)
