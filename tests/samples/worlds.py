"""Small worlds with round digits, for tests of requests: no torch, no scenario, nothing drawn unless asked for.

The question of ``ask(seconds)`` is 100 bytes long and says how long its computation takes; the reply is 50 bytes. On
``ROUND``, a device with 100 bytes/s down, 10 bytes/s up and 0.5 s one way, the request of ``ask(2)`` sent at 0 goes:

    down 0 .. 1, in the air .. 1.5, compute .. 3.5, up .. 8.5, in the air .. 9
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.federation.world import Slowdowns, World
from fedsim.records.invariants import check
from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Outcome, Reward, Transfer
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices import slowdown as laws
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import Work
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.devices.presence import AlwaysOn, Availability
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.faults.config import FaultConfig
from fedsim.sim.faults.plan import Faults, WithCrashes
from fedsim.sim.network import wire
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.transport import Transport

QUESTION_BYTES, REPLY_BYTES, CANCEL_BYTES = 100, 50, 13
NO_DROPOUT = DropoutConfig()
IDEAL = NetworkConfig(server_link="unlimited", transport="ideal")  # type: ignore[arg-type]

ROUND = DeviceProfile(
    device_class="round",
    peak_flop_per_s=1.0,
    memory_bytes_per_s=1.0,
    compute_efficiency=1.0,
    memory_efficiency=1.0,
    memory_bytes=1e9,
    step_overhead_s=0.0,
    overhead_s=0.0,
    compute_jitter=0.0,
    up_bytes_per_s=10.0,
    down_bytes_per_s=100.0,
    rtt_s=1.0,
    up_jitter=0.0,
    down_jitter=0.0,
    rtt_jitter=0.0,
    power_active_w=3.0,
    power_idle_w=0.0,
    radio_up_j_per_byte=0.0,
    radio_down_j_per_byte=0.0,
)
INSTANT = replace(ROUND, device_class="instant", up_bytes_per_s=2.0**50, down_bytes_per_s=2.0**50, rtt_s=0.0)


def ask(seconds: float = 2.0, draw: int = 0) -> wire.Candidates:
    """A question of 100 bytes whose computation takes so many seconds at 1 FLOP/s, with four candidates."""
    return wire.Candidates(wire.pack_id(draw), f"{seconds:.17g}".ljust(76), ("a", "b", "c", "d"))


def score(state: Any, message: wire.Candidates) -> HandlerResult:
    """Four fixed scores: 50 bytes."""
    return HandlerResult(wire.Rewards(message.draw, (0.0, 0.25, 0.5, 1.0)), evaluator="ME")


def work(state: Any, message: wire.Candidates) -> Work:
    """As many FLOP as the question says."""
    return Work(float(message.question), 0.0)


HANDLERS: Mapping[type[wire.Message], Handler] = {wire.Candidates: Handler(score, work, wire.Rewards)}


class Timetable:
    """Clients that are there in the given intervals [start, end); a client that is not named is always there."""

    def __init__(self, intervals: Mapping[int, Sequence[tuple[float, float]]]) -> None:
        self._of = intervals

    def is_on(self, client_id: int, at_s: float) -> bool:
        return client_id not in self._of or any(start <= at_s < end for start, end in self._of[client_id])

    def next_change(self, client_id: int, at_s: float) -> float:
        return min((at for at in chain(*self._of.get(client_id, ())) if at > at_s), default=math.inf)

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        mine = self._of.get(client_id, [(start_at_s, end_at_s)])
        cut = [(max(start, start_at_s), min(end, end_at_s)) for start, end in mine]
        return [(start, end) for start, end in cut if start < end]


def leaves(at_s: float, client_id: int = 0) -> Timetable:
    """The client is there from 0 on, leaves at this instant and never comes back."""
    return Timetable({client_id: [(0.0, at_s)]})


@dataclass(frozen=True)
class SmallWorld:
    """A federation and its books."""

    loop: VirtualLoop
    federation: Federation
    log: RecordLog

    @property
    def outcomes(self) -> list[Outcome]:
        return self.log.of(Outcome)

    @property
    def computes(self) -> list[Compute]:
        return self.log.of(Compute)

    @property
    def rewards(self) -> list[Reward]:
        return self.log.of(Reward)

    def bytes(self, **columns: object) -> list[int]:
        """Wire bytes of the transfers whose columns have these values, in order."""
        return [row.wire_bytes for row in self.transfers(**columns)]

    def transfers(self, **columns: object) -> list[Transfer]:
        """The transfers whose columns have these values, in order."""
        rows = self.log.of(Transfer)
        return [row for row in rows if all(getattr(row, name) == value for name, value in columns.items())]

    async def settle(self) -> None:
        """Drain, and check that the books balance."""
        await self.federation.drain()
        check(self.log, self.federation.carried_bytes)


def small_world(
    profiles: Sequence[DeviceProfile] = (ROUND,),
    *,
    availability: Availability | None = None,
    network: NetworkConfig = IDEAL,
    dropout: DropoutConfig = NO_DROPOUT,
    handlers: Mapping[type[wire.Message], Handler] = HANDLERS,
    states: Sequence[Any] | None = None,
    server: DeviceProfile = ROUND,
    seed: int = 0,
    on_cut: Literal["abort", "suspend"] = "abort",
    slowdowns: Slowdowns | None = None,
    faults: Sequence[FaultConfig] = (),
) -> SmallWorld:
    """A world on the running virtual loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    log = RecordLog()
    availability = availability or AlwaysOn()
    struck = None
    if faults:
        classes = [profile.device_class for profile in profiles]
        struck = Faults(faults, seed, classes)
        availability = WithCrashes(availability, struck)
        slowdowns = slowdowns or laws.Slowdowns([], seed, classes, struck)
    world = World(
        seed=seed,
        loop=loop,
        log=log,
        downlink=SharedLink(loop.timeline, network.server_link.down),
        uplink=SharedLink(loop.timeline, network.server_link.up),
        transport=Transport(network),
        availability=availability,
        dropout=Dropout(dropout, seed),
        handlers=handlers,
        on_cut=on_cut,
        slowdowns=slowdowns,
        factors=struck,
        faults=struck,
    )
    if struck is not None:
        struck.arm(loop, world.downlink, world.uplink, network.server_link)
    federation = Federation(world, profiles, states or [None] * len(profiles), server)
    return SmallWorld(loop, federation, log)
