"""One message on its way: the leg of a request in one direction, and messages that travel beside a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedsim.federation.world import World
from fedsim.records.rows import Direction, Fate, Purpose, Transfer
from fedsim.sim import streams
from fedsim.sim.devices.cost import radio_energy_j
from fedsim.sim.devices.device import Device
from fedsim.sim.network import wire
from fedsim.sim.network.link import Flow
from fedsim.sim.network.tcp import Pace
from fedsim.sim.network.transport import NO_HANDSHAKE, Handshake

_SIDE: Mapping[Direction, streams.Joined] = {"down": streams.joined("down"), "up": streams.joined("up")}


class Leg:
    """One message on its way in one direction: the flow on the link, then the one-way delay.

    With ``connection: per_request`` the first byte of a request's message waits until the connection is open (`Opening`). A
    reply, and a message beside a request, use the request's connection.
    """

    __slots__ = ("_access", "_flow", "_is_whole", "_on_delivered", "_on_sent", "_opening", "_plan", "_root", "_sent_bytes",
                 "_world", "device", "direction", "end_at_s", "message", "start_at_s")  # fmt: skip

    def __init__(
        self,
        world: World,
        device: Device,
        direction: Direction,
        message: wire.Message,
        key: streams.Joined,
        handshake: Handshake,
    ) -> None:
        self._world = world
        self._root = key
        self._plan = world.transport.plan(world.sizes.message_bytes(message), (key, _SIDE[direction]))
        opens = direction == "down" and handshake.rounds
        self._opening = Opening(world, device, handshake) if opens else None
        self._access = world.access[direction]
        self._flow: Flow | None = None
        self.device = device
        self.direction = direction
        self.message = message
        self.start_at_s = world.timeline.now_s
        self.end_at_s: float | None = None
        self._sent_bytes = 0
        self._is_whole = False

    def start(self, sent: Callable[[], None] | None, delivered: Callable[[], None]) -> None:
        """Put the message on the link; call ``sent`` when its last byte has left, ``delivered`` a delay later."""
        self._on_sent, self._on_delivered = sent, delivered
        if self._opening is None:
            self._opened()
        else:
            self._opening.start(self._opened)

    def _opened(self) -> None:
        wait_s, pace = self._world.transport.pace(self._plan, self.device.profile, self._rate_bytes_per_s)
        if wait_s:
            self._world.timeline.after(wait_s, self._flow_on, pace)
        else:
            self._flow_on(pace)

    def _flow_on(self, pace: Pace | None) -> None:
        if self.end_at_s is None:
            device = self.device
            self._flow = self._access.start(
                device.client_id, device.profile, self._plan.total_bytes, self._finished, pace
            )

    def _finished(self, flow: Flow) -> None:
        world, profile = self._world, self.device.profile
        self._flow, self.end_at_s = None, (now_s := world.timeline.now_s)
        self._sent_bytes, self._is_whole = self._plan.total_bytes, True
        if self._on_sent is not None:
            self._on_sent()
        key = (self._root, _SIDE[self.direction])
        world.timeline.at(now_s + world.transport.one_way_s(profile, key), self._on_delivered)

    def _rate_bytes_per_s(self) -> float:
        return self._access.rate_bytes_per_s(self.device.client_id, self.device.profile)

    def stop(self) -> None:
        """Cut the flow if it still runs; what was sent stays charged."""
        if self.end_at_s is None:
            if self._opening is not None:
                self._opening.stop()
            self._sent_bytes = round(self._access.cut(self._flow)) if self._flow is not None else 0
            self.end_at_s = self._world.timeline.now_s

    def charge(self, request_id: int, fate: Fate, *, arrived: bool) -> None:
        """Write the transfer into the books: the message, what was sent again, and what opened the connection.

        A message that was not sent whole is one row: the bytes sent so far, whatever they were for, as ``cut``.
        ``message_bytes``, the encoded length of the whole message, stands in the message's own row only.
        """
        purpose, message_bytes = self.message.purpose, self._plan.message_bytes
        if not self._is_whole:
            self._log(request_id, purpose, "cut", self._sent_bytes, message_bytes)
        else:
            counts = arrived and self.direction == "up"
            paper_bytes = self._world.sizes.paper_bytes(self.message) if counts else 0
            self._log(request_id, purpose, fate, self._plan.wire_bytes, message_bytes, paper_bytes)
            if self._plan.retransmitted_bytes:
                self._log(request_id, purpose, "retransmitted", self._plan.retransmitted_bytes)
        if self._opening is not None:
            self._opening.charge(request_id, fate)

    def _log(
        self,
        request_id: int,
        purpose: Purpose,
        fate: Fate,
        wire_bytes: int,
        message_bytes: int = 0,
        paper_bytes: int = 0,
    ) -> None:
        assert self.end_at_s is not None
        self._world.log.add(
            Transfer(
                request_id=request_id,
                client_id=self.device.client_id,
                direction=self.direction,
                purpose=purpose,
                fate=fate,
                start_at_s=self.start_at_s,
                end_at_s=self.end_at_s,
                message_bytes=message_bytes,
                wire_bytes=wire_bytes,
                paper_bytes=paper_bytes,
                energy_j=_radio_j(self.device, self.direction, wire_bytes),
            )
        )


class Opening:
    """The handshake of a connection: in each round trip bytes go up, and down half a round trip after the last of them.

    They share the links with everything else and are charged to ``setup``, a row for each direction: with the fate of their
    request, or as ``cut`` with what had passed by then if it ended before the last of them was sent.
    """

    __slots__ = ("_device", "_end_at_s", "_flights", "_flow", "_num_flown", "_opened", "_sent_bytes", "_start_at_s",
                 "_world")  # fmt: skip

    def __init__(self, world: World, device: Device, handshake: Handshake) -> None:
        self._world = world
        self._device = device
        self._flights: list[tuple[Direction, int]] = []
        for up_bytes, down_bytes in handshake.rounds:
            self._flights += [("up", up_bytes), ("down", down_bytes)]
        self._num_flown = 0
        self._flow: Flow | None = None
        self._sent_bytes: dict[Direction, int] = {"down": 0, "up": 0}
        self._start_at_s = world.timeline.now_s
        self._end_at_s: float | None = None

    def start(self, opened: Callable[[], None]) -> None:
        """Begin; ``opened`` is called when the last of it has reached the device."""
        self._opened = opened
        self._fly()

    def _fly(self) -> None:
        if self._end_at_s is not None:
            return  # cut
        if self._num_flown == len(self._flights):
            self._end_at_s = self._world.timeline.now_s
            self._opened()
            return
        direction, num_bytes = self._flights[self._num_flown]
        device = self._device
        self._flow = self._world.access[direction].start(
            device.client_id, device.profile, num_bytes, self._flown
        )

    def _flown(self, _: Flow) -> None:
        direction, num_bytes = self._flights[self._num_flown]
        self._sent_bytes[direction] += num_bytes
        self._num_flown += 1
        self._flow = None
        half_rtt_s = 0.5 * (self._device.profile.rtt_s + self._world.transport.extra_rtt_s)
        self._world.timeline.at(self._world.timeline.now_s + half_rtt_s, self._fly)

    def stop(self) -> None:
        """Cut it if it still goes on; what was sent stays charged."""
        if self._end_at_s is not None:
            return
        if self._flow is not None:
            direction = self._flights[self._num_flown][0]
            self._sent_bytes[direction] += round(self._world.access[direction].cut(self._flow))
            self._flow = None
        self._end_at_s = self._world.timeline.now_s

    def charge(self, request_id: int, fate: Fate) -> None:
        """Write both directions into the books."""
        assert self._end_at_s is not None
        for direction, num_bytes in self._sent_bytes.items():
            self._world.log.add(
                Transfer(
                    request_id=request_id,
                    client_id=self._device.client_id,
                    direction=direction,
                    purpose="setup",
                    fate=fate if self._num_flown == len(self._flights) else "cut",
                    start_at_s=self._start_at_s,
                    end_at_s=self._end_at_s,
                    message_bytes=0,
                    wire_bytes=num_bytes,
                    paper_bytes=0,
                    energy_j=_radio_j(self._device, direction, num_bytes),
                )
            )


def _radio_j(device: Device, direction: Direction, wire_bytes: int) -> float:
    if direction == "up":
        return radio_energy_j(device.profile, wire_bytes, 0)
    return radio_energy_j(device.profile, 0, wire_bytes)


class SideMessage:
    """A message beside a request: to cancel it, to hurry it, or a second copy of its reply. It may outlive its request.

    Its bytes are charged to the request when it has arrived, or was cut. ``arrived`` says what it was good for.
    """

    __slots__ = ("_arrived", "_device", "_is_over", "_leg", "_request_id", "_task_key", "_under_way")

    def __init__(
        self,
        world: World,
        device: Device,
        direction: Direction,
        message: wire.Message,
        request_id: int,
        key: streams.Joined,
        name: str,
        arrived: Callable[[], Fate],
    ) -> None:
        self._under_way = world.under_way
        self._device = device
        self._request_id = request_id
        self._task_key = (request_id, name)
        self._arrived = arrived
        self._leg = Leg(world, device, direction, message, streams.joined(key, name), NO_HANDSHAKE)
        self._is_over = False

    def begin(self) -> None:
        """Send it, if the device is there."""
        if self._device.is_online:
            self._under_way.side_message_began(self)
            self._device.enter(self._task_key, self)
            self._leg.start(self._in_the_air if self._leg.direction == "up" else None, self._delivered)

    def start_compute(self) -> None:
        """It needs no processor."""

    def suspend(self) -> None:
        """The links hold it."""

    def resume(self) -> None:
        """The links let it go on."""

    def device_left(self, cause: str) -> None:
        """The device goes away before the message arrived."""
        self._leg.stop()
        self._charge("cut", arrived=False)

    def _in_the_air(self) -> None:
        self._device.leave(self._task_key)

    def _delivered(self) -> None:
        if self._is_over:
            return  # charged as cut already
        if self._leg.direction == "down":
            if self._device.is_suspended:
                self._device.wait_at_door(self._delivered)
                return
            self._device.leave(self._task_key)
        self._charge(self._arrived(), arrived=True)

    def _charge(self, fate: Fate, *, arrived: bool) -> None:
        self._is_over = True
        self._leg.charge(self._request_id, fate, arrived=arrived and fate != "duplicate")
        self._under_way.side_message_ended(self)
