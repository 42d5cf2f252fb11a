"""One message on its way: the leg of a request in one direction, and messages that travel beside a request."""

from __future__ import annotations

from collections.abc import Callable

from fedsim import streams
from fedsim.devices.cost import radio_energy_j
from fedsim.devices.device import Device
from fedsim.network import wire
from fedsim.network.link import Flow
from fedsim.network.transport import NO_HANDSHAKE, Handshake
from fedsim.records import Direction, Fate, Purpose, Transfer
from fedsim.world import World


class Leg:
    """One message on its way in one direction: the flow on the link, then the one-way delay.

    With ``connection: per_request`` the bytes that open the connection travel with the first message of each direction and
    are charged to ``setup``; their round trips pass before the first byte goes down. A message beside a request uses the
    request's connection.
    """

    __slots__ = ("_access", "_flow", "_handshake", "_key", "_plan", "_setup_bytes", "_world", "device", "direction", "end_at_s",
                 "message", "sent_bytes", "start_at_s")  # fmt: skip

    def __init__(
        self,
        world: World,
        device: Device,
        direction: Direction,
        message: wire.Message,
        key: tuple[streams.Part, ...],
        handshake: Handshake,
    ) -> None:
        self._world = world
        self._key = (world.seed, *key, direction)
        self._plan = world.transport.plan(world.sizes.message_bytes(message), self._key)
        self._handshake = handshake
        self._setup_bytes = handshake.down_bytes if direction == "down" else handshake.up_bytes
        self._access = world.access[direction]
        self._flow: Flow | None = None
        self.device = device
        self.direction: Direction = direction
        self.message = message
        self.start_at_s = world.loop.time()
        self.end_at_s: float | None = None
        self.sent_bytes = 0

    def start(self, sent: Callable[[], None] | None, delivered: Callable[[], None]) -> None:
        """Put the message on the link; call ``sent`` when its last byte has left, ``delivered`` a delay later."""
        transport, profile = self._world.transport, self.device.profile

        def finished(_: Flow) -> None:
            self.end_at_s = self._world.loop.time()
            self.sent_bytes = self._plan.total_bytes + self._setup_bytes
            if sent is not None:
                sent()
            self._world.loop.at(self.end_at_s + transport.one_way_s(profile, self._key), delivered)

        def go() -> None:
            if self.end_at_s is None:
                total_bytes = self._plan.total_bytes + self._setup_bytes
                self._flow = self._access.start(self.device.client_id, profile, total_bytes, finished)

        wait_s = transport.wait_s(self._plan, profile, self._rate_bytes_per_s)
        if self.direction == "down" and self._handshake.round_trips:
            wait_s += self._handshake.round_trips * (profile.rtt_s + transport.config.extra_rtt)
        if wait_s:
            self._world.loop.at(self.start_at_s + wait_s, go)
        else:
            go()

    def _rate_bytes_per_s(self) -> float:
        return self._access.rate_bytes_per_s(self.device.client_id, self.device.profile)

    def stop(self) -> None:
        """Cut the flow if it still runs; what was sent stays charged."""
        if self.end_at_s is None:
            self.sent_bytes = round(self._access.cut(self._flow)) if self._flow is not None else 0
            self.end_at_s = self._world.loop.time()

    def charge(self, request_id: int, fate: Fate, *, arrived: bool) -> None:
        """Write the transfer into the books: the message, what was sent again, and what opened the connection.

        A message that was not sent whole is one row: the bytes sent so far, whatever they were for, as ``cut``.
        ``message_bytes``, the encoded length of the whole message, stands in the message's own row only.
        """
        purpose, message_bytes = self.message.purpose, self._plan.message_bytes
        if self.sent_bytes < self._plan.total_bytes + self._setup_bytes:
            self._log(request_id, purpose, "cut", self.sent_bytes, message_bytes)
            return
        counts = arrived and self.direction == "up"
        paper_bytes = self._world.sizes.paper_bytes(self.message) if counts else 0
        self._log(request_id, purpose, fate, self._plan.wire_bytes, message_bytes, paper_bytes)
        if self._plan.retransmitted_bytes:
            self._log(request_id, purpose, "retransmitted", self._plan.retransmitted_bytes)
        if self._setup_bytes:
            self._log(request_id, "setup", fate, self._setup_bytes)

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
        up_bytes, down_bytes = (wire_bytes, 0) if self.direction == "up" else (0, wire_bytes)
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
                energy_j=radio_energy_j(self.device.profile, up_bytes, down_bytes),
            )
        )


class Errand:
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
        key: tuple[streams.Part, ...],
        arrived: Callable[[], Fate],
    ) -> None:
        self._under_way = world.under_way
        self._device = device
        self._request_id = request_id
        self._task_key = (request_id, key[-1])
        self._arrived = arrived
        self._leg = Leg(world, device, direction, message, key, NO_HANDSHAKE)
        self._is_over = False

    def begin(self) -> None:
        """Send it, if the device is there."""
        if self._device.is_online:
            self._under_way.num_errands += 1
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
        self._under_way.errand_ended()
