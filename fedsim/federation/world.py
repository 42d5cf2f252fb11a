"""What surrounds a request: the books, the links, and what is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from fedsim.errors import PluginError
from fedsim.federation.billed_sizes import AsEncoded, Sizes
from fedsim.federation.handlers import Handler
from fedsim.records.log import RecordLog
from fedsim.records.rows import Direction, Outcome
from fedsim.sim import streams
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.devices.presence import Availability
from fedsim.sim.network import wire
from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.rates import AccessLinks, AccessRates, LinkFactors
from fedsim.sim.network.transport import Transport
from fedsim.sim.timeline import Timeline

if TYPE_CHECKING:
    from fedsim.sim.faults.plan import Faults


class Slowdowns(Protocol):
    """How devices compute more slowly than their profile says (`fedsim.sim.devices.slowdown`)."""

    def finish_at_s(
        self, client_id: int, key: tuple[streams.Part, ...], start_at_s: float, nominal_s: float
    ) -> float:
        """When a computation of so many nominal seconds ends if it starts now; infinity if it never does."""

    def progress_s(
        self, client_id: int, key: tuple[streams.Part, ...], start_at_s: float, end_at_s: float
    ) -> float:
        """Nominal seconds that are done between two instants."""


class Endable(Protocol):
    """A request, or a message beside one."""

    def device_left(self, cause: str) -> None:
        """It ends this instant."""


class UnderWay:
    """Requests that have not ended, and messages beside them, which may outlive them; a run awaits the last of them."""

    __slots__ = ("_none_left", "_requests", "_side_messages")

    def __init__(self) -> None:
        self._requests: dict[Endable, None] = {}  # by age
        self._side_messages: dict[Endable, None] = {}
        self._none_left = asyncio.Event()

    @property
    def num_requests(self) -> int:
        """How many requests have not ended."""
        return len(self._requests)

    def request_began(self, request: Endable) -> None:
        """One request more."""
        self._requests[request] = None

    def request_ended(self, request: Endable) -> None:
        """One request less."""
        del self._requests[request]
        self._tell()

    def side_message_began(self, side_message: Endable) -> None:
        """One message beside a request more."""
        self._side_messages[side_message] = None

    def side_message_ended(self, side_message: Endable) -> None:
        """One message beside a request less."""
        del self._side_messages[side_message]
        self._tell()

    def end_all(self, cause: str) -> None:
        """End everything at this instant, messages in the air too, the oldest first."""
        for one in [*self._requests, *self._side_messages]:
            one.device_left(cause)

    async def none_left(self) -> None:
        """Sleep until every byte has been charged."""
        while self._requests or self._side_messages:
            self._none_left.clear()
            await self._none_left.wait()

    def _tell(self) -> None:
        if not (self._requests or self._side_messages):
            self._none_left.set()


@dataclass(frozen=True)
class World:
    """Everything around the devices: time, links, availability, and the books.

    ``measures`` is False where stand-ins for models make the scores up: how many came is on record then, and no number.
    """

    seed: int
    loop: VirtualLoop
    log: RecordLog
    downlink: SharedLink
    uplink: SharedLink
    transport: Transport
    availability: Availability
    dropout: Dropout
    handlers: Mapping[type[wire.Message], Handler]
    sizes: Sizes = field(default_factory=AsEncoded)
    on_end: list[Callable[[Outcome], None]] = field(default_factory=list)
    under_way: UnderWay = field(default_factory=UnderWay)
    on_cut: Literal["abort", "suspend"] = "abort"
    slowdowns: Slowdowns | None = None
    factors: LinkFactors | None = None
    faults: Faults | None = None
    measures: bool = True
    timeline: Timeline = field(init=False)
    rates: AccessRates = field(init=False)
    access: Mapping[Direction, AccessLinks] = field(init=False)

    def __post_init__(self) -> None:
        """Add how fast every client's access link is at every instant, and the ways onto the server's link."""
        timeline = self.loop.timeline
        object.__setattr__(self, "timeline", timeline)
        rates = AccessRates(self.transport.config, self.seed, self.factors)
        object.__setattr__(self, "rates", rates)
        access = {
            "down": AccessLinks(timeline, self.downlink, rates, "down"),
            "up": AccessLinks(timeline, self.uplink, rates, "up"),
        }
        object.__setattr__(self, "access", access)

    def handler_of(self, message: wire.Message) -> Handler:
        """The clients' half for a message; ``PluginError`` if there is none."""
        if handler := self.handlers.get(type(message)):
            return handler
        known = ", ".join(sorted(kind.__name__ for kind in self.handlers))
        raise PluginError(
            f"the server sends a {type(message).__name__}, which no handler takes; these settings have handlers of {known}"
        )
