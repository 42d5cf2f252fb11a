"""What a protocol sees of the world: clients to ask, a server that computes, and time that passes by awaiting.

    reply = await client.request(message)         sends down, computes there, sends up; every byte is on record
    await federation.server.compute(work, "update")   the server's own work takes virtual time
    await federation.any_online(client_ids)       sleeps until one of these devices is there

A protocol does no book-keeping, so it cannot forget a byte. It is ordinary asyncio: on the virtual loop a deadline costs
nothing, on a real loop it would be a real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedsim.errors import Deadlock, FederationError, FedsimError, RequestError
from fedsim.federation.handlers import Hurry, Subject
from fedsim.federation.request import NEVER_ENDS, RUN_FAILED, Request
from fedsim.federation.server import Server
from fedsim.federation.world import World
from fedsim.records.rows import Presence
from fedsim.sim.devices.device import Device
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.lazy import LazySequence
from fedsim.sim.network import wire

Answer = wire.Message | RequestError


class Client:
    """One client as the server sees it: an id, whether it is there, and a way to ask."""

    __slots__ = ("_device", "_federation")

    def __init__(self, device: Device, federation: Federation) -> None:
        self._device = device
        self._federation = federation

    @property
    def client_id(self) -> int:
        """The client's number, 0 to K - 1."""
        return self._device.client_id

    @property
    def device_class(self) -> str:
        """The preset that the device was drawn from."""
        return self._device.profile.device_class

    @property
    def is_online(self) -> bool:
        """Whether the device is connected at this instant, with all that it needs to work."""
        return self._device.is_online

    def anticipate(self, message: wire.Message) -> None:
        """Hint that this message will probably be sent, so that real work can be batched; no byte, no second, no record."""
        self._federation.anticipate(self._device, message)

    async def request(
        self,
        message: wire.Message,
        subject: Subject = Subject(),  # noqa: B008
        hurry: Hurry | None = None,
    ) -> wire.Message:
        """Send a message and await the reply.

        Args:
            message: what is sent.
            subject: what it is about; the key of the request's random draws.
            hurry: whose word to send what there is this request listens to; the reply may then be a partial one.

        Raises:
            ClientOffline: the device was away when asked.
            ClientDropped: it left, or gave up, while the task waited or was computed; carries the phase.
            TransferCut: it left during a transfer; carries the direction.
            ReplyRejected: the server does not accept the reply; carries the reason.
            FederationError: the run has ended.

        Whoever cancels this await gives the request up, and may say how: ``task.cancel("late")`` (the default; the device
        goes on and its reply comes late), ``"over_selected"`` likewise, or ``"cancel"``, which tells the device to stop.
        """
        request = self._federation.begin(self._device, message, subject)
        if hurry is not None:
            hurry.listen(request.hurry)
        try:
            return await request.future
        except asyncio.CancelledError as cancelled:
            reason = cancelled.args[0] if cancelled.args else "late"
            request.abandon(reason if reason in ("late", "cancel", "over_selected") else "late")
            raise

    async def online(self) -> None:
        """Sleep until the device is there.

        Raises:
            FederationError: it is away and will never come back.
        """
        await self._federation.client_online(self.client_id)


class Federation:
    """The clients, the server's accelerator, and the state of the run as a protocol may see it.

    Attributes:
        device_classes: [K] the preset that each device was drawn from.
    """

    def __init__(
        self,
        world: World,
        profiles: Sequence[DeviceProfile],
        states: Sequence[Any],
        server_profile: DeviceProfile,
        classes: Sequence[str] | None = None,
    ) -> None:
        """Make a federation in which nobody is asked yet; a device comes to be when its client is first looked at.

        Args:
            world: what is around the devices.
            profiles: [K] each device.
            states: [K] what each client knows.
            server_profile: the server's accelerator.
            classes: [K] the presets that devices were drawn from; default as their profiles say.

        Raises:
            FederationError: there are no clients.
        """
        if not profiles:
            raise FederationError("the federation has no clients")
        if len(states) != len(profiles):
            raise ValueError(f"{len(profiles)} profiles and {len(states)} states; must be equally many")
        self._world = world
        links = (world.access["down"], world.access["up"]) if world.on_cut == "suspend" else None
        self._devices = LazySequence(
            len(profiles),
            lambda id_: Device(
                id_, profiles[id_], states[id_], world.timeline, world.availability, links, world.faults
            ),
        )
        self.device_classes = classes or LazySequence(len(profiles), lambda id_: profiles[id_].device_class)
        self.clients: Sequence[Client] = LazySequence(
            len(profiles), lambda id_: Client(self._devices[id_], self)
        )
        self.server = Server(world, server_profile)
        self._num_requests = 0
        self._closed = False
        self._fetching: dict[int, asyncio.Task[None]] = {}
        self._sleepers: set[asyncio.Future[None]] = set()

    def __iter__(self) -> Iterator[Client]:
        return iter(self.clients)

    def now_s(self) -> float:
        """Virtual time."""
        return self._world.loop.time()

    @property
    def num_open_requests(self) -> int:
        """Requests under way now."""
        return self._world.under_way.num_requests

    def online(self) -> list[int]:
        """Ids of the clients that are there now, ascending."""
        is_on, now_s = self._world.availability.is_on, self.now_s()
        ids = range(len(self.clients))
        return [client_id for client_id in ids if self._is_ready(client_id) and is_on(client_id, now_s)]

    async def client_online(self, client_id: int) -> None:
        """Sleep until this client is there; ``FederationError`` if it never will be."""
        while not self._is_online(client_id):
            change_at_s = self._next_change(client_id)
            if change_at_s == float("inf") and client_id not in self._fetching:
                raise FederationError(f"client {client_id} is away and will never come back")
            await self._sleep_until(change_at_s)

    async def any_online(self, client_ids: Sequence[int]) -> None:
        """Sleep until one of these clients is there; ``FederationError`` if none ever will be."""
        while not any(map(self._is_online, client_ids)):
            change_at_s = min(map(self._next_change, client_ids), default=float("inf"))
            if change_at_s == float("inf") and not any(id_ in self._fetching for id_ in client_ids):
                raise FederationError(
                    f"none of the {len(client_ids)} clients that could be asked will ever be online"
                )
            await self._sleep_until(change_at_s)

    async def broadcast(
        self,
        message: wire.Message,
        client_ids: Sequence[int],
        subject: Subject = Subject(),  # noqa: B008
    ) -> dict[int, Answer]:
        """Ask several clients the same, and await them all; each entry is a reply or the error that ended it."""
        replies = await asyncio.gather(
            *(self.clients[client_id].request(message, subject) for client_id in client_ids),
            return_exceptions=True,
        )
        answers: dict[int, Answer] = {}
        for client_id, reply in zip(client_ids, replies, strict=True):
            if isinstance(reply, BaseException) and not isinstance(reply, RequestError):
                raise reply
            answers[client_id] = reply
        return answers

    def anticipate(self, device: Device, message: wire.Message) -> None:
        """Announce a computation that a device will probably be asked for (``Client.anticipate``)."""
        handler = self._world.handler_of(message)
        if handler.expect is not None:
            handler.expect(device.state, message)

    # For the experiment that owns the federation.

    def ship(self, num_bytes: int) -> None:
        """From now on a client must download a base model of so many bytes before it can be asked for anything else.

        It does so when it is there; a download that is cut starts again, and its bytes are charged as cut. A client that
        was cut ``_MOST_DOWNLOADS`` times is given up.
        """
        for device in self._devices:
            device.ready = False
            self._fetching[device.client_id] = asyncio.ensure_future(self._fetch(device, num_bytes))

    async def _fetch(self, device: Device, num_bytes: int) -> None:
        message = wire.BaseModel(wire.pack_id(num_bytes))
        try:
            for attempt in range(_MOST_DOWNLOADS):
                while not device.is_connected:
                    change_at_s = self._world.availability.next_change(device.client_id, self.now_s())
                    if change_at_s == float("inf"):
                        return
                    await self._sleep_until(change_at_s)
                request = self.begin(device, message, Subject(attempt=attempt))
                try:
                    await request.future
                except RequestError:
                    continue
                except asyncio.CancelledError:
                    request.abandon("late")
                    raise
                device.ready = True
                return
        finally:
            del self._fetching[device.client_id]
            self._wake()

    def begin(self, device: Device, message: wire.Message, subject: Subject) -> Request:
        """Start a request (``Client.request`` awaits it)."""
        if self._closed:
            raise FederationError("the run has ended; no new request starts")
        request = Request(self._world, device, self._num_requests, message, subject)
        self._num_requests += 1
        request.begin()
        return request

    async def drain(self) -> None:
        """No new request starts; await the end of what is under way, messages beside it too, so that every byte is charged.

        What can never end (a device that hangs for good, a link that is cut off for good) is ended when all else has.
        """
        self._closed = True
        fetching = list(self._fetching.values())
        for task in fetching:
            task.cancel()
        if fetching:
            await asyncio.wait(fetching)
        try:
            await self._world.under_way.none_left()
        except Deadlock:
            for device in self._devices.made():
                device.cut_all(NEVER_ENDS)
            await self._world.under_way.none_left()

    def close_books(self, error: FedsimError) -> None:
        """Charge what was under way when the run failed: all of it ends at this instant, replies in the air too.

        The clock may stand still already, and the loop may be closed; nobody awaits these requests any more.
        """
        self._closed = True
        cause = NEVER_ENDS if isinstance(error, Deadlock) else RUN_FAILED
        for device in self._devices.made():
            device.cut_all(cause)
        self._world.under_way.end_all(cause)

    def log_presence(self, until_s: float) -> None:
        """Put every device's intervals of presence up to an instant on record."""
        for client_id, device_class in enumerate(self.device_classes):
            for start_at_s, end_at_s in self._world.availability.intervals(client_id, 0.0, until_s):
                self._world.log.add(
                    Presence(
                        client_id=client_id,
                        device_class=device_class,
                        start_at_s=start_at_s,
                        end_at_s=end_at_s,
                    )
                )

    @property
    def carried_bytes(self) -> Mapping[str, float]:
        """What the links themselves counted, per direction: the other side of the books."""
        return {"down": self._world.downlink.carried_bytes, "up": self._world.uplink.carried_bytes}

    def _next_change(self, client_id: int) -> float:
        """When a client may come or go next, as far as the clock knows: infinity where it has no base model (yet)."""
        device = self._devices.made_at(client_id)
        if device is not None and not device.ready:
            return float("inf")
        return self._world.availability.next_change(client_id, self.now_s())

    def _is_online(self, client_id: int) -> bool:
        """``Client.is_online`` without making the client."""
        return self._is_ready(client_id) and self._world.availability.is_on(client_id, self.now_s())

    def _is_ready(self, client_id: int) -> bool:
        """A device is ready unless it was told to fetch a base model."""
        device = self._devices.made_at(client_id)
        return device is None or device.ready

    async def _sleep_until(self, at_s: float) -> None:
        """Sleep until an instant, or until a client has fetched its base model or given it up."""
        woken: asyncio.Future[None] = self._world.loop.create_future()
        wake = self._world.loop.at(at_s, _wake_up, woken) if at_s < float("inf") else None
        self._sleepers.add(woken)
        try:
            await woken
        finally:
            self._sleepers.discard(woken)
            if wake is not None:
                wake.cancel()

    def _wake(self) -> None:
        for sleeper in self._sleepers:
            _wake_up(sleeper)


_MOST_DOWNLOADS = 100


def _wake_up(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
