"""The life of one client request: down, queue, compute, up, with every byte and second recorded.

    begin -> downlink -> one-way delay -> queue -> compute -> uplink -> one-way delay -> accepted or refused -> reply
    cut by the device leaving: |---------------------------------------|  (a reply in the air still arrives)

A request is a chain of event callbacks rather than a process per phase. It ends exactly once, with an ``Outcome``;
nothing fails inside SimPy. Whoever awaits it gets the reply or a named ``RequestError``. When nobody waits any more (a
deadline passed), the device does not know: it goes on, and its bytes are charged as ``late``.

A broken connection is visible to the server at once, as with TCP keep-alive; a server that must find out by a timeout is
a scenario's deadline. Where work is suspended instead of cut while a device is away (``on_cut: suspend``), transfers and
the computation stand still and go on where they stopped, and hazards do not strike; delays in the air pass.

A server in a hurry may ask for what there is (``hurry``): the computation stops, and the reply holds the part that is done.
Faults on purpose (`fedsim.sim.faults.plan`) may double, delay or falsify a reply; the server's own check at its boundary
(``Handler.accept``) then refuses what cannot be right.

Bytes take the fate of their request, in both directions: a question whose reply came late is ``late`` too, and one whose
device gave up during the computation is ``cut``, although it had arrived. A message that is still being sent when its request
ends is charged with the part that was sent, as ``cut``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from fedsim.errors import ClientDropped, ClientOffline, ReplyRejected, RequestError, TransferCut
from fedsim.federation.computation import Computation
from fedsim.federation.handlers import HandlerResult, Subject
from fedsim.federation.transfers import Leg, SideMessage
from fedsim.federation.world import World
from fedsim.records.rows import FATE_OF_STATUS, Direction, Fate, Fault, Outcome, Phase, Reward, Status
from fedsim.sim import streams
from fedsim.sim.devices.device import Device
from fedsim.sim.devices.dropout import Hazard
from fedsim.sim.network import wire

if TYPE_CHECKING:
    from fedsim.sim.faults.replies import ReplyFault


NEVER_ENDS = "could never have ended"
"""Cause of a request that was under way when nothing could happen any more."""

RUN_FAILED = "the run failed"
"""Cause of a request that was under way when the run ended in an error."""


class Request:
    """One message to one device and what comes back."""

    __slots__ = (
        "_abandoned", "_abandoned_at_s", "_computation", "_device", "_down", "_ended", "_handler", "_hazard", "_message",
        "_phase", "_reply", "_reply_fault", "_root", "_sent_at_s", "_subject", "_up", "_world", "future", "key", "request_id",
    )  # fmt: skip

    def __init__(
        self, world: World, device: Device, request_id: int, message: wire.Message, subject: Subject
    ) -> None:
        self._handler = world.handler_of(message)
        self.request_id = request_id
        self.future: asyncio.Future[wire.Message] = world.loop.create_future()
        round_index = subject.draw if subject.question_id < 0 else -1
        # What tells this request's draws from every other's; the same in every protocol, whatever else happens in the run.
        about = streams.joined(message.purpose, subject.question_id, round_index, subject.attempt)
        self.key: tuple[streams.Part, ...] = (device.client_id, about)
        self._root = streams.joined(world.seed, device.client_id, about)
        self._world = world
        self._device = device
        self._message = message
        self._subject = subject
        self._phase: Phase = "down"
        self._sent_at_s = world.timeline.now_s
        self._down: Leg | None = None
        self._up: Leg | None = None
        self._reply: HandlerResult | None = None
        self._reply_fault: ReplyFault | None = None
        self._abandoned: str | None = None
        self._ended = False
        self._computation: Computation | None = None
        self._hazard: Hazard | None = None

    # The way of a request.

    def begin(self) -> None:
        """Send the message, unless the device is away."""
        self._world.under_way.request_began(self)
        device, dropout = self._device, self._world.dropout
        if not device.is_online and not (device.is_connected and isinstance(self._message, wire.BaseModel)):
            away = device.why_away or "device was away when asked"
            self._end("offline", away if device.ready else "device has no base model yet")
            return
        device.enter(self.request_id, self)
        if self._handler.expect is not None:
            self._handler.expect(device.state, self._message)
        if dropout.has_hazard:
            self._hazard = Hazard(self._world.timeline, dropout.endurance(self.key), self._failed)
            self._hazard.set_rate(dropout.hazard_per_s("down"))
        self._send("down", self._message, None, self._downloaded)

    def _downloaded(self) -> None:
        if self._ended:
            return
        if self._device.is_suspended:
            self._device.wait_at_door(self._downloaded)
            return
        self._enter("queue")
        self._device.enqueue(self)

    def start_compute(self) -> None:
        """Hold the processor for as long as the cost model says, or until the task is given up."""
        self._enter("compute")
        self._computation = Computation(
            self._world,
            self._device,
            self.request_id,
            self._message.purpose,
            self.key,
            self._handler.cost(self._device.state, self._message),
            self._computed,
            self._given_up,
        )

    def _computed(self) -> None:
        assert self._computation is not None
        self._computation.close(cut=False)
        self._answer(self._handler.reply(self._device.state, self._message))

    def _answer(self, reply: HandlerResult) -> None:
        """Send a reply, or what a fault makes of it."""
        self._enter("up")
        self._computation = None
        self._device.release(self)
        self._reply = reply
        world, held_s = self._world, reply.delay_s
        if world.faults is not None:
            client_id, now_s = self._device.client_id, world.timeline.now_s
            fault = world.faults.reply(client_id, now_s, *self.key, message=reply.message)
            if fault is not None:
                self._reply_fault = fault
                self._reply = msgspec.structs.replace(reply, message=fault.apply(reply.message))
                world.log.add(Fault(
                    kind=fault.kind, client_id=client_id, request_id=self.request_id,
                    start_at_s=now_s, end_at_s=now_s + fault.delay_s,
                ))  # fmt: skip
                held_s += fault.delay_s
        if held_s:
            world.timeline.at(world.timeline.now_s + held_s, self._upload)
        else:
            self._upload()

    def _upload(self) -> None:
        if not self._ended:
            assert self._reply is not None
            self._send("up", self._reply.message, self._in_the_air, self._arrived)

    def _in_the_air(self) -> None:
        self._device.leave(self.request_id)
        if self._hazard is not None:
            self._hazard.set_rate(0.0)
        if self._reply_fault is not None and self._reply_fault.kind == "duplicate_reply":
            assert self._up is not None
            self._side_message("up", self._up.message, "duplicate", lambda: "duplicate")

    def _arrived(self) -> None:
        self._phase = "done"
        if self._abandoned is not None:
            self._end(
                "over_selected" if self._abandoned == "over_selected" else "late", "nobody waited any more"
            )
            return
        refused = self._refusal()
        if refused is None:
            self._end("ok", "")
        else:
            self._end("failed", f"rejected: {refused}")

    def _refusal(self) -> str | None:
        """Why the server refuses the reply that arrived; None if it does not."""
        if self._handler.accept is None or self._reply is None:
            return None
        return self._handler.accept(self._message, self._reply.message)

    # The ways it can go wrong.

    def abandon(self, reason: str) -> None:
        """The server no longer waits: ``late``, ``over_selected``, or ``cancel``, which sends a message to stop.

        The reply's bytes will carry that fate (``late`` for ``cancel``), unless the cancel message comes in time.
        """
        if self._ended:
            return
        self._abandoned = reason
        self._abandoned_at_s = self._world.timeline.now_s
        self.future.cancel()
        if reason == "cancel":
            self._side_message(
                "down", wire.Cancel(draw=wire.pack_id(self.request_id)), "Cancel", self._cancelled
            )

    def _cancelled(self) -> Fate:
        """A cancel message arrived: stop, unless the reply is on its way or the request has ended.

        A reply that is being sent is finished: it is in the socket's buffer, out of the protocol's reach.
        """
        if self._ended or self._phase in ("up", "done"):
            return "late"
        self._end("cancelled", "cancelled by the server")
        return "useful"

    def hurry(self) -> None:
        """The server wants what there is by now: tell the device, if replies of this kind can be shortened."""
        if not self._ended and self._abandoned is None and self._handler.partial is not None:
            self._side_message("down", wire.Hurry(draw=wire.pack_id(self.request_id)), "Hurry", self._hurried)

    def _hurried(self) -> Fate:
        """The server's hurry arrived: send what is done of a computation; where nothing is, the request is over."""
        if self._ended or self._phase in ("up", "done"):
            return "late"
        reply, computation = None, self._computation
        if computation is not None:
            assert self._handler.partial is not None
            computation.stand_still()
            share = computation.share_done
            if share == 1.0:  # it ends at this very instant
                computation.go_on()
                return "late"
            reply = self._handler.partial(self._handler.reply(self._device.state, self._message), share)
        if computation is None or reply is None:
            self._end("cancelled", "nothing done when the server was in a hurry")
        else:
            computation.close(cut=False, share=share)
            self._answer(reply)
        return "useful"

    def device_left(self, cause: str) -> None:
        """The device goes away this instant."""
        self._end("cut" if self._phase in ("down", "up") else "dropped", cause)

    def suspend(self) -> None:
        """The device goes away and will be back: the computation stands still, and so does the hazard."""
        if self._hazard is not None:
            self._hazard.set_rate(0.0)
        if self._phase == "compute" and self._computation is not None:
            self._computation.stand_still()

    def resume(self) -> None:
        """The device is back: go on with what is left."""
        if self._hazard is not None:
            self._hazard.set_rate(self._world.dropout.hazard_per_s(self._phase))
        if self._phase == "compute" and self._computation is not None:
            self._computation.go_on()

    def _given_up(self) -> None:
        self._end("dropped", "task dropout")

    def _failed(self) -> None:
        self._end("dropped", "hazard")

    # Shared steps.

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if self._hazard is not None:
            self._hazard.set_rate(self._world.dropout.hazard_per_s(phase))

    def _send(
        self,
        direction: Direction,
        message: wire.Message,
        sent: Callable[[], None] | None,
        delivered: Callable[[], None],
    ) -> None:
        world = self._world
        leg = Leg(world, self._device, direction, message, self._root, world.transport.handshake)
        if direction == "down":
            self._down = leg
        else:
            self._up = leg
        leg.start(sent, delivered)

    def _side_message(
        self, direction: Direction, message: wire.Message, name: str, arrived: Callable[[], Fate]
    ) -> None:
        side_message = SideMessage(
            self._world, self._device, direction, message, self.request_id, self._root, name, arrived
        )
        side_message.begin()

    def _end(self, status: Status, cause: str) -> None:
        self._ended = True
        if self._hazard is not None:
            self._hazard.set_rate(0.0)
            self._hazard = None  # it knows us: no circle is left for the garbage collector
        if self._phase == "compute" and self._computation is not None:
            self._computation.close(cut=True)
            self._computation = None
        if self._phase in ("queue", "compute"):
            self._device.release(self)
        self._device.leave(self.request_id)
        for leg in (self._down, self._up):
            if leg is not None:
                leg.stop()
                leg.charge(self.request_id, FATE_OF_STATUS[status], arrived=self._phase == "done")
        if status != "failed":
            self._log_reward(status)
        outcome = Outcome(
            request_id=self.request_id,
            client_id=self._device.client_id,
            device_class=self._device.profile.device_class,
            purpose=self._message.purpose,
            subject=self._subject.draw,
            question_id=self._subject.question_id,
            attempt=self._subject.attempt,
            sent_at_s=self._sent_at_s,
            ended_at_s=self._world.timeline.now_s,
            status=status,
            phase=self._phase,
            cause=cause if self._world.faults is None else self._blame(status, cause),
        )
        self._down = self._up = None
        self._world.log.add(outcome)
        if not self.future.done() and not self._world.loop.is_closed():
            if status == "ok":
                assert self._reply is not None
                self.future.set_result(self._reply.message)
            else:
                self.future.set_exception(_error(status, self._phase, cause))
        self._world.under_way.request_ended(self)
        for callback in self._world.on_end:
            callback(outcome)

    def _blame(self, status: Status, cause: str) -> str:
        """The cause, with the faults on purpose that made the request late, never end, or unacceptable.

        A request that ended for another reason while a fault held bears both: ``device left (during fault: hang)``.
        """
        faults = self._world.faults
        assert faults is not None
        if status == "failed" and self._reply_fault is not None:
            return f"{cause} (fault: {self._reply_fault.kind})"
        if cause.startswith("fault: ") or status not in ("late", "cancelled", "dropped", "cut"):
            return cause
        now_s = self._world.timeline.now_s
        from_s, until_s = now_s, now_s  # a request that was cut short: what holds now
        is_late = status in ("late", "cancelled")
        if is_late:
            from_s, until_s = self._sent_at_s, now_s if self._abandoned is None else self._abandoned_at_s
        kinds = [kind for kind in faults.names(self._device.client_id, from_s, until_s) if kind != "crash"]
        delayed = self._reply_fault is not None and self._reply_fault.delay_s > 0
        if delayed and (is_late or self._up is None):
            assert self._reply_fault is not None
            kinds.append(self._reply_fault.kind)
        if not kinds:
            return cause
        named = f"fault: {', '.join(kinds)}"
        return named if is_late or cause in (NEVER_ENDS, RUN_FAILED) else f"{cause} (during {named})"

    def _log_reward(self, status: Status) -> None:
        """Put rewards that arrived on record, also those that came too late, unless the server would refuse them."""
        if self._phase != "done" or self._reply is None:
            return
        message = self._reply.message
        if isinstance(message, wire.Rewards) and (status == "ok" or self._refusal() is None):
            self._world.log.add(
                Reward(
                    request_id=self.request_id,
                    client_id=self._device.client_id,
                    draw=self._subject.draw,
                    question_id=self._subject.question_id,
                    evaluator=self._reply.evaluator,
                    rewards=self._recorded(message.rewards),
                    at_s=self._world.timeline.now_s,
                )
            )

    def _recorded(self, rewards: tuple[float, ...]) -> tuple[float, ...]:
        return rewards if self._world.measures else (math.nan,) * len(rewards)


def _error(status: Status, phase: Phase, cause: str) -> RequestError:
    if status == "offline":
        return ClientOffline()
    if status == "cut":
        return TransferCut(phase)
    if status == "failed":
        return ReplyRejected(cause.removeprefix("rejected: "))
    return ClientDropped(phase)
