"""The life of one client request: down, queue, compute, up, with every byte and second recorded.

    begin -> downlink -> one-way delay -> queue -> compute -> uplink -> one-way delay -> reply
    cut by the device leaving: |---------------------------------------|  (a reply in the air still arrives)

A request is a chain of event callbacks rather than a process per phase. It ends exactly once, with an ``Outcome``;
nothing fails inside SimPy. Whoever awaits it gets the reply or a named ``RequestError``. When nobody waits any more (a
deadline passed), the device does not know: it goes on, and its bytes are charged as ``late``.

A broken connection is visible to the server at once, as with TCP keep-alive; a server that must find out by a timeout is
a scenario's deadline.

Bytes take the fate of their request, in both directions: a question whose reply came late is ``late`` too, and one whose
device gave up during the computation is ``cut``, although it had arrived. A message that is still being sent when its request
ends is charged with the part that was sent, as ``cut``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from fedsim import streams
from fedsim.clock import Scheduled
from fedsim.devices.cost import Work, compute_energy_j, compute_jitter, duration_s, radio_energy_j
from fedsim.devices.device import Device
from fedsim.devices.faults import fails_after_s, gives_up_at
from fedsim.errors import ClientDropped, ClientOffline, RequestError, TransferCut
from fedsim.network import wire
from fedsim.network.link import Flow
from fedsim.network.transport import NO_HANDSHAKE, Handshake
from fedsim.records import (
    Compute,
    Direction,
    Fate,
    Outcome,
    Phase,
    Purpose,
    Reward,
    Status,
    Transfer,
)
from fedsim.world import Handler, Reply, Subject, UnderWay, World

__all__ = ["Exchange", "Handler", "Reply", "Subject", "UnderWay", "World"]


class _Leg:
    """One message on its way in one direction: the flow on the link, then the one-way delay.

    With ``connection: per_request`` the bytes that open the connection travel with the first message of each direction and
    are charged to ``setup``; their round trips pass before the first byte goes down. A cancel message uses the connection of
    the request that it calls off.
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

        if self.direction == "down" and self._handshake.round_trips:
            round_trip_s = profile.rtt_s + transport.config.extra_rtt
            self._world.loop.at(self.start_at_s + self._handshake.round_trips * round_trip_s, go)
        else:
            go()

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


class Exchange:
    """One message to one device and what comes back."""

    __slots__ = (
        "_abandoned", "_compute_from_s", "_device", "_ended", "_failure", "_handler", "_legs", "_message", "_phase", "_reply",
        "_sent_at_s", "_subject", "_work", "_world", "future", "request_id",
    )  # fmt: skip

    def __init__(
        self, world: World, device: Device, request_id: int, message: wire.Message, subject: Subject
    ) -> None:
        self.request_id = request_id
        self.future: asyncio.Future[wire.Message] = world.loop.create_future()
        self._world = world
        self._device = device
        self._message = message
        self._handler = world.handlers[type(message)]
        self._subject = subject
        self._phase: Phase = "down"
        self._sent_at_s = world.loop.time()
        self._compute_from_s = 0.0
        self._work: Work | None = None
        self._legs: list[_Leg] = []
        self._reply: Reply | None = None
        self._abandoned: str | None = None
        self._failure: Scheduled | None = None
        self._ended = False

    # The way of a request.

    def begin(self) -> None:
        """Send the message, unless the device is away."""
        self._world.under_way.num_requests += 1
        device = self._device
        if not (device.is_connected if isinstance(self._message, wire.BaseModel) else device.is_online):
            self._end(
                "offline", "device was away when asked" if device.ready else "device has no base model yet"
            )
            return
        self._device.enter(self.request_id, self)
        if self._handler.expect is not None:
            self._handler.expect(self._device.state, self._message)
        fails_s = fails_after_s(self._world.dropout, self._world.seed, *self.key)
        if fails_s < math.inf:
            self._failure = self._world.loop.at(
                self._sent_at_s + fails_s, self._give_up, "hazard", daemon=True
            )
        self._send("down", self._message, None, self._downloaded)

    def _downloaded(self) -> None:
        if not self._ended:
            self._phase = "queue"
            self._device.enqueue(self)

    def start_compute(self) -> None:
        """Hold the processor for as long as the cost model says, or until the task is given up."""
        self._phase = "compute"
        self._compute_from_s = self._world.loop.time()
        self._work = self._handler.work(self._device.state, self._message)
        profile = self._device.profile
        seconds = duration_s(profile, self._work, compute_jitter(profile, self._world.seed, *self.key))
        share = gives_up_at(self._world.dropout, self._world.seed, *self.key)
        if share is None:
            self._world.loop.at(self._compute_from_s + seconds, self._computed)
        else:
            self._world.loop.at(self._compute_from_s + seconds * share, self._give_up, "task dropout")

    def _computed(self) -> None:
        if self._ended:
            return
        self._log_compute(cut=False)
        self._phase = "up"
        self._device.release(self)
        self._reply = self._handler.run(self._device.state, self._message)
        self._send("up", self._reply.message, self._in_the_air, self._arrived)

    def _in_the_air(self) -> None:
        self._device.leave(self.request_id)

    def _arrived(self) -> None:
        self._phase = "done"
        if self._abandoned is None:
            self._end("ok", "")
        else:
            self._end(
                "over_selected" if self._abandoned == "over_selected" else "late", "nobody waited any more"
            )

    # The ways it can go wrong.

    def abandon(self, reason: str) -> None:
        """The server no longer waits: ``late``, ``over_selected``, or ``cancel``, which sends a message to stop.

        The reply's bytes will carry that fate (``late`` for ``cancel``), unless the cancel message comes in time.
        """
        if self._ended:
            return
        self._abandoned = reason
        self.future.cancel()
        if reason == "cancel":
            _Cancellation(self._world, self._device, self).begin()

    def cancelled(self) -> bool:
        """A cancel message arrived: stop, and return true, unless the reply is on its way or the request has ended.

        A reply that is being sent is finished: it is in the socket's buffer, out of the protocol's reach.
        """
        if self._ended or self._phase in ("up", "done"):
            return False
        self._end("cancelled", "cancelled by the server")
        return True

    def device_left(self) -> None:
        """The device goes away this instant."""
        self._end("cut" if self._phase in ("down", "up") else "dropped", "device left")

    def _give_up(self, cause: str) -> None:
        in_the_air = self._legs[-1].direction == "up" and self._legs[-1].end_at_s is not None
        if not self._ended and not in_the_air:
            self._end("dropped", cause)

    # Shared steps.

    @property
    def key(self) -> tuple[streams.Part, ...]:
        """What tells this request's draws from every other's; the same in every protocol, whatever else happens in the run."""
        subject = self._subject
        round_index = subject.draw if subject.question_id < 0 else -1
        return (
            self._device.client_id,
            self._message.purpose,
            subject.question_id,
            round_index,
            subject.attempt,
        )

    def _send(
        self,
        direction: Direction,
        message: wire.Message,
        sent: Callable[[], None] | None,
        delivered: Callable[[], None],
    ) -> None:
        leg = _Leg(self._world, self._device, direction, message, self.key, self._world.transport.handshake)
        self._legs.append(leg)
        leg.start(sent, delivered)

    def _log_compute(self, *, cut: bool) -> None:
        """Put the computation on record; FLOP and bytes are those of the whole task, also when it was cut."""
        assert self._work is not None
        now_s = self._world.loop.time()
        self._world.log.add(
            Compute(
                request_id=self.request_id,
                client_id=self._device.client_id,
                kind=self._message.purpose,
                start_at_s=self._compute_from_s,
                end_at_s=now_s,
                flop=self._work.flop,
                memory_bytes=self._work.memory_bytes,
                energy_j=compute_energy_j(self._device.profile, now_s - self._compute_from_s),
                cut=cut,
            )
        )

    def _end(self, status: Status, cause: str) -> None:
        self._ended = True
        if self._failure is not None:
            self._failure.cancel()
        if self._phase == "compute":
            self._log_compute(cut=True)
        if self._phase in ("queue", "compute"):
            self._device.release(self)
        self._device.leave(self.request_id)
        for leg in self._legs:
            leg.stop()
            leg.charge(self.request_id, _FATE[status], arrived=self._phase == "done")
        self._log_reward()
        outcome = Outcome(
            request_id=self.request_id,
            client_id=self._device.client_id,
            device_class=self._device.profile.device_class,
            purpose=self._message.purpose,
            subject=self._subject.draw,
            question_id=self._subject.question_id,
            attempt=self._subject.attempt,
            sent_at_s=self._sent_at_s,
            ended_at_s=self._world.loop.time(),
            status=status,
            phase=self._phase,
            cause=cause,
        )
        self._world.log.add(outcome)
        if not self.future.done():
            if status == "ok":
                assert self._reply is not None
                self.future.set_result(self._reply.message)
            else:
                self.future.set_exception(_error(status, self._phase))
        self._world.under_way.request_ended()
        for callback in self._world.on_end:
            callback(outcome)

    def _log_reward(self) -> None:
        if (
            self._phase == "done"
            and self._reply is not None
            and isinstance(self._reply.message, wire.Rewards)
        ):
            self._world.log.add(
                Reward(
                    request_id=self.request_id,
                    client_id=self._device.client_id,
                    draw=self._subject.draw,
                    question_id=self._subject.question_id,
                    evaluator=self._reply.evaluator,
                    rewards=self._reply.message.rewards,
                    at_s=self._world.loop.time(),
                )
            )


class _Cancellation:
    """A message that tells a device to stop; its bytes are charged to the request that it calls off."""

    __slots__ = ("_device", "_exchange", "_leg", "_world")

    def __init__(self, world: World, device: Device, exchange: Exchange) -> None:
        self._world = world
        self._device = device
        self._exchange = exchange
        message = wire.Cancel(draw=wire.pack_id(exchange.request_id))
        self._leg = _Leg(world, device, "down", message, (*exchange.key, "Cancel"), NO_HANDSHAKE)

    def begin(self) -> None:
        """Send it, if the device is there to hear it."""
        if self._device.is_online:
            self._world.under_way.num_cancels += 1
            self._device.enter(self._task_key, self)
            self._leg.start(None, self._arrived)

    def start_compute(self) -> None:
        """A cancel message needs no processor."""

    def device_left(self) -> None:
        """The device goes away before the message arrived."""
        self._leg.stop()
        self._charge("cut", arrived=False)

    def _arrived(self) -> None:
        if not self._device.leave(self._task_key):
            return  # charged as cut already
        stopped = self._exchange.cancelled()
        self._charge("useful" if stopped else "late", arrived=True)

    def _charge(self, fate: Fate, *, arrived: bool) -> None:
        self._leg.charge(self._exchange.request_id, fate, arrived=arrived)
        self._world.under_way.cancel_ended()

    @property
    def _task_key(self) -> int:
        return -1 - self._exchange.request_id


_FATE: dict[Status, Fate] = {
    "ok": "useful",
    "late": "late",
    "dropped": "cut",
    "cut": "cut",
    "offline": "cut",
    "cancelled": "late",
    "over_selected": "over_selected",
    "failed": "late",
}


def _error(status: Status, phase: Phase) -> RequestError:
    if status == "offline":
        return ClientOffline()
    if status == "cut":
        return TransferCut(phase)
    return ClientDropped(phase)
