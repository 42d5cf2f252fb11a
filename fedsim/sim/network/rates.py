"""How fast clients' access links are: a function of (seed, client, direction, virtual time), whatever runs over them.

Time is cut into slots of ``rate_period`` T. In slot n, ``[nT, (n+1)T)``, a client's link runs at its nominal rate times

    f_n = exp(sigma z_n - sigma^2 / 2)

with sigma the link's jitter and z_n the level of the slot (`fedsim.sim.ar1`), of memory ``rate_memory`` and keyed by (seed,
direction, client): a stationary AR(1) process of standard normals. So f_n is lognormal with mean 1. Nothing is carried from
slot to slot: any order of asking gives the same numbers, and two protocols that ask the same client at the same instant
find the same link. A link without jitter draws nothing.

What else slows a link (a partition, a link made slow by a fault) multiplies it: `LinkFactors` are functions of (client,
direction, virtual time) as well, and a factor of 0 stalls the client's transfers until it changes.

Left out: links that share a cause (two phones behind one access point), and a period of its own for each client: all links
change at the same instants, each by its own draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from fedsim.records.rows import Direction
from fedsim.sim.ar1 import AR1, slot_at
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.link import Flow, SharedLink
from fedsim.sim.network.tcp import Pace
from fedsim.sim.timeline import Scheduled, Timeline


class LinkFactors(Protocol):
    """What multiplies clients' access rates; pure functions, so that any order of asking gives the same numbers."""

    def factor(self, client_id: int, direction: Direction, at_s: float) -> float:
        """The factor (0 or more) at an instant; it holds until ``next_change``."""

    def next_change(self, client_id: int, at_s: float) -> float:
        """The first instant after ``at_s`` at which a factor of the client may change; infinity if none does."""


class AccessRates:
    """The rate of every client's access link at every instant (see the module's docstring).

    Attributes:
        factors: what multiplies the rates; None = nothing.
    """

    def __init__(self, config: NetworkConfig, seed: int, factors: LinkFactors | None = None) -> None:
        self.factors = factors
        self._period_s = config.rate_period
        self._seed = seed
        self._levels = AR1(config.rate_memory)

    def slot(self, at_s: float) -> int:
        """The slot n with ``n T <= at_s < (n + 1) T``, in floating point."""
        return slot_at(at_s, self._period_s)

    def next_change(self, at_s: float) -> float:
        """The first instant after ``at_s`` at which rates change: the end of its slot."""
        return (self.slot(at_s) + 1) * self._period_s

    def level(self, client_id: int, direction: Direction, at_s: float) -> float:
        """The state z at an instant: standard normal over clients and time."""
        return self._levels.level((self._seed, "access", direction, client_id), slot_at(at_s, self._period_s))

    def bytes_per_s(self, profile: DeviceProfile, client_id: int, direction: Direction, at_s: float) -> float:
        """The access link's rate at an instant, bytes/s: nominal rate times f, times the client's factor."""
        if direction == "up":
            rate_bytes_per_s, sigma = profile.up_bytes_per_s, profile.up_jitter
        else:
            rate_bytes_per_s, sigma = profile.down_bytes_per_s, profile.down_jitter
        if sigma:
            level = self.level(client_id, direction, at_s)
            rate_bytes_per_s *= math.exp(sigma * level - 0.5 * sigma * sigma)
        if self.factors is not None:
            rate_bytes_per_s *= self.factors.factor(client_id, direction, at_s)
        return rate_bytes_per_s


class AccessLinks:
    """All clients' access links in one direction, in front of the server's link.

    A flow that runs across the end of a slot, or across a change of its client's factor, is re-rated there. There is one
    event per slot while anything is sent over a link with jitter, one per client with running flows whose factor can change,
    and none otherwise. A device that is away can be paused: its flows keep what they have sent and stall until it is resumed.

    A message that its window paces (`fedsim.sim.network.tcp`) caps the rate of its client's connection, with one event for each
    round trip in which the window grows. All messages of a client in one direction share the connection: of several caps the
    widest holds.
    """

    def __init__(
        self, timeline: Timeline, link: SharedLink, rates: AccessRates, direction: Direction
    ) -> None:
        self._timeline = timeline
        self._link = link
        self._rates = rates
        self._direction = direction
        self._profiles: dict[int, DeviceProfile] = {}  # of clients that sent something
        self._paused: set[int] = set()
        self._factor_changes: dict[
            int, Scheduled
        ] = {}  # of clients with running flows, while factors can change
        self._waits = False
        self._caps: dict[int, dict[Flow, float]] = {}  # of clients with paced flows

    def start(
        self,
        client_id: int,
        profile: DeviceProfile,
        wire_bytes: float,
        on_done: Callable[[Flow], object],
        pace: Pace | None = None,
    ) -> Flow:
        """Start a transfer at the rate of this instant, 0 while the client is paused; see ``SharedLink.start``."""
        self._profiles[client_id] = profile
        if pace is not None:
            return self._start_paced(client_id, wire_bytes, on_done, pace)
        rate_bytes_per_s = self._rate_now(client_id)
        flow = self._link.start(client_id, wire_bytes, rate_bytes_per_s, on_done)
        if not self._waits or self._rates.factors is not None:
            self._watch(client_id, rate_bytes_per_s)
        return flow

    def cut(self, flow: Flow) -> float:
        """Stop a transfer and return the bytes it has sent; see ``SharedLink.cut``."""
        sent_bytes = self._link.cut(flow)
        if flow.client_id in self._caps:
            self._unpace(flow)
        if not self._link.has_flows(flow.client_id):
            self._forget_factor(flow.client_id)
        return sent_bytes

    def pause(self, client_id: int) -> None:
        """The device is away from this instant: its transfers stall, also those that start meanwhile."""
        self._paused.add(client_id)
        self._forget_factor(client_id)
        self._link.set_access(client_id, 0.0)

    def resume(self, client_id: int) -> None:
        """The device is back: its transfers go on at the rate of this instant."""
        self._paused.discard(client_id)
        if self._link.has_flows(client_id):
            rate_bytes_per_s = self._rate_now(client_id)
            self._link.set_access(client_id, rate_bytes_per_s)
            self._watch(client_id, rate_bytes_per_s)

    def rate_bytes_per_s(self, client_id: int, profile: DeviceProfile) -> float:
        """The rate of a client's access link at this instant, whether it is paused or not."""
        return self._rates.bytes_per_s(profile, client_id, self._direction, self._timeline.now_s)

    def _start_paced(
        self, client_id: int, wire_bytes: float, on_done: Callable[[Flow], object], pace: Pace
    ) -> Flow:
        def done(flow: Flow) -> None:
            self._unpace(flow)
            on_done(flow)

        flow = self._link.start(
            client_id, wire_bytes, self._rate_now(client_id, pace.cap_bytes_per_s(0)), done
        )
        self._widen(flow, pace, 0)
        return flow

    def _widen(self, flow: Flow, pace: Pace, round_index: int) -> None:
        """A round trip of a paced flow begins, in which its window is wider than before."""
        if not flow.is_open:
            return
        client_id = flow.client_id
        self._caps.setdefault(client_id, {})[flow] = pace.cap_bytes_per_s(round_index)
        rate_bytes_per_s = self._rate_now(client_id)
        if round_index:
            self._link.set_access(client_id, rate_bytes_per_s)
        self._watch(client_id, rate_bytes_per_s)
        if round_index < pace.num_rounds:
            self._timeline.after(pace.rtt_s, self._widen, flow, pace, round_index + 1, daemon=True)

    def _unpace(self, flow: Flow) -> None:
        """A flow has ended: if it was paced, what else its client sends goes at its own pace."""
        client_id = flow.client_id
        caps = self._caps.get(client_id, {})
        if caps.pop(flow, None) is None:
            return
        if not caps:
            del self._caps[client_id]
        if self._link.has_flows(client_id):
            self._link.set_access(client_id, self._rate_now(client_id))

    def _rate_now(self, client_id: int, cap_bytes_per_s: float = 0.0) -> float:
        """The client's rate at this instant; with one paced flow more, if its cap is given."""
        if client_id in self._paused:
            return 0.0
        rate_bytes_per_s = self.rate_bytes_per_s(client_id, self._profiles[client_id])
        if caps := self._caps.get(client_id):
            cap_bytes_per_s = max(cap_bytes_per_s, *caps.values())
        return min(rate_bytes_per_s, cap_bytes_per_s) if cap_bytes_per_s else rate_bytes_per_s

    def _varies(self, client_id: int) -> bool:
        profile = self._profiles[client_id]
        jitter = profile.up_jitter if self._direction == "up" else profile.down_jitter
        return jitter > 0 and client_id not in self._paused

    def _watch(self, client_id: int, rate_bytes_per_s: float) -> None:
        """See to it that the client's running flows are re-rated in time."""
        if not self._waits and self._varies(client_id):
            self._waits = True
            self._timeline.at(self._rates.next_change(self._timeline.now_s), self._slot_ended, daemon=True)
        factors = self._rates.factors
        if factors is None or client_id in self._paused:
            return
        self._forget_factor(client_id)
        change_at_s = factors.next_change(client_id, self._timeline.now_s)
        if change_at_s < math.inf:
            # A stalled flow has no event of its own: then the change is what the run waits for, no daemon.
            self._factor_changes[client_id] = self._timeline.at(
                change_at_s, self._factor_changed, client_id, daemon=rate_bytes_per_s > 0
            )

    def _forget_factor(self, client_id: int) -> None:
        if (change := self._factor_changes.pop(client_id, None)) is not None:
            change.cancel()

    def _factor_changed(self, client_id: int) -> None:
        del self._factor_changes[client_id]
        if self._link.has_flows(client_id):
            rate_bytes_per_s = self._rate_now(client_id)
            self._link.set_access(client_id, rate_bytes_per_s)
            self._watch(client_id, rate_bytes_per_s)

    def _slot_ended(self) -> None:
        self._waits = False
        varying = [client_id for client_id in self._link.client_ids if self._varies(client_id)]
        if varying:
            self._link.set_accesses({client_id: self._rate_now(client_id) for client_id in varying})
            self._waits = True
            self._timeline.at(self._rates.next_change(self._timeline.now_s), self._slot_ended, daemon=True)
