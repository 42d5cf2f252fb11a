"""How fast clients' access links are: a function of (seed, client, direction, virtual time), whatever runs over them.

Time is cut into slots of ``rate_period`` T. In slot n, ``[nT, (n+1)T)``, a client's link runs at its nominal rate times

    f_n = exp(sigma z_n - sigma^2 / 2),    z_n = c sum_{j=0}^{J-1} a^j e_{n-j},    c^2 = (1 - a^2) / (1 - a^{2J})

with e_n independent standard normal draws keyed by (seed, direction, client, n), a = ``rate_memory`` and sigma the link's
jitter. So f_n is lognormal with mean 1, and z_n is the stationary AR(1) process ``z_n = a z_{n-1} + sqrt(1 - a^2) e_n``
written as a moving average and cut where ``a^J`` falls below 1e-3: corr(z_n, z_{n+h}) lies below a^h by less than
``a^(2J - h)``, so by less than 1e-3 at every lag. Nothing is carried from slot to slot, so that any order of asking gives
the same numbers, and two protocols that ask the same client at the same instant find the same link. A link without jitter
draws nothing.

Left out: links that share a cause (two phones behind one access point), and a period of its own for each client: all links
change at the same instants, each by its own draw.

References:
    Brockwell and Davis, Time Series: Theory and Methods (1991), section 3.1 (the causal AR(1) process as an infinite
    moving average).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from operator import mul
from statistics import NormalDist

from fedsim import streams
from fedsim.clock import VirtualLoop
from fedsim.devices.profile import DeviceProfile
from fedsim.network.config import NetworkConfig
from fedsim.network.link import Flow, SharedLink
from fedsim.records import Direction

TRUNCATION = 1e-3
"""Weight at which the moving average is cut."""

_BLOCK = 16
_WORDS = struct.Struct(f"<{_BLOCK}I")
_NORMAL = NormalDist()
_REMEMBERED_SLOTS, _REMEMBERED_BLOCKS = 1 << 14, 1 << 15


class AccessRates:
    """The rate of every client's access link at every instant (see the module's docstring)."""

    def __init__(self, config: NetworkConfig, seed: int) -> None:
        memory = config.rate_memory
        self._period_s = config.rate_period
        self._seed = seed
        self._length = max(1, math.ceil(math.log(TRUNCATION) / math.log(memory))) if memory else 1
        weights = [memory**age for age in range(self._length)]
        scale = math.sqrt(math.fsum(map(mul, weights, weights)))
        self._weights = [weight / scale for weight in reversed(weights)]  # the oldest slot first
        # Pure functions of their arguments: what is remembered changes no number.
        self._level = lru_cache(_REMEMBERED_SLOTS)(self._level_of)
        self._block = lru_cache(_REMEMBERED_BLOCKS)(self._block_of)

    def slot(self, at_s: float) -> int:
        """The slot n with ``n T <= at_s < (n + 1) T``, in floating point."""
        number = math.floor(at_s / self._period_s)
        if number * self._period_s > at_s:
            return number - 1
        return number + 1 if (number + 1) * self._period_s <= at_s else number

    def next_change(self, at_s: float) -> float:
        """The first instant after ``at_s`` at which rates change: the end of its slot."""
        return (self.slot(at_s) + 1) * self._period_s

    def level(self, client_id: int, direction: Direction, at_s: float) -> float:
        """The state z at an instant: standard normal over clients and time."""
        return self._level(client_id, direction, self.slot(at_s))

    def bytes_per_s(self, profile: DeviceProfile, client_id: int, direction: Direction, at_s: float) -> float:
        """The access link's rate at an instant, bytes/s: nominal rate times f."""
        if direction == "up":
            rate_bytes_per_s, sigma = profile.up_bytes_per_s, profile.up_jitter
        else:
            rate_bytes_per_s, sigma = profile.down_bytes_per_s, profile.down_jitter
        if not sigma:
            return rate_bytes_per_s
        return rate_bytes_per_s * math.exp(
            sigma * self.level(client_id, direction, at_s) - 0.5 * sigma * sigma
        )

    def _level_of(self, client_id: int, direction: Direction, slot: int) -> float:
        oldest = slot - self._length + 1
        first = oldest // _BLOCK
        draws: list[float] = []
        for block in range(first, slot // _BLOCK + 1):
            draws += self._block(client_id, direction, block)
        return math.fsum(map(mul, self._weights, draws[oldest - first * _BLOCK :]))

    def _block_of(self, client_id: int, direction: Direction, block: int) -> tuple[float, ...]:
        """The draws e of 16 slots from one hash: 32 bits each, so that none lies beyond 6.4 deviations."""
        raw = streams.digest(self._seed, "access", direction, client_id, block, size=_WORDS.size)
        return tuple([_NORMAL.inv_cdf((word + 0.5) / 2**32) for word in _WORDS.unpack(raw)])


class AccessLinks:
    """All clients' access links in one direction, in front of the server's link.

    A flow that runs across the end of a slot is re-rated there. There is one event per slot while anything is sent over a
    link with jitter, and none otherwise.
    """

    __slots__ = ("_direction", "_link", "_loop", "_profiles", "_rates", "_waits")

    def __init__(self, loop: VirtualLoop, link: SharedLink, rates: AccessRates, direction: Direction) -> None:
        self._loop = loop
        self._link = link
        self._rates = rates
        self._direction: Direction = direction
        self._profiles: dict[int, DeviceProfile] = {}  # of clients that sent something, with jitter
        self._waits = False

    def start(
        self, client_id: int, profile: DeviceProfile, wire_bytes: float, on_done: Callable[[Flow], object]
    ) -> Flow:
        """Start a transfer at the rate of this instant; see ``SharedLink.start``."""
        now_s = self._loop.time()
        rate_bytes_per_s = self._rates.bytes_per_s(profile, client_id, self._direction, now_s)
        if profile.up_jitter if self._direction == "up" else profile.down_jitter:
            self._profiles[client_id] = profile
            self._await_change(now_s)
        return self._link.start(client_id, wire_bytes, rate_bytes_per_s, on_done)

    def cut(self, flow: Flow) -> float:
        """Stop a transfer and return the bytes it has sent; see ``SharedLink.cut``."""
        return self._link.cut(flow)

    def _await_change(self, now_s: float) -> None:
        if not self._waits:
            self._waits = True
            self._loop.at(self._rates.next_change(now_s), self._change, daemon=True)

    def _change(self) -> None:
        self._waits = False
        now_s = self._loop.time()
        running = [client_id for client_id in self._link.client_ids if client_id in self._profiles]
        if running:
            self._link.set_accesses(
                {
                    client_id: self._rates.bytes_per_s(
                        self._profiles[client_id], client_id, self._direction, now_s
                    )
                    for client_id in running
                }
            )
            self._await_change(now_s)
