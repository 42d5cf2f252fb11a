"""What a request is about, how a client handles it, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from fedsim.errors import PluginError
from fedsim.sim.devices.cost import Work
from fedsim.sim.network import wire


class Subject(msgspec.Struct, frozen=True, gc=False):
    """What a request is about: a question, which time it is asked, and the draw that asks; or a round and its try.

    Client, the message's purpose, question and attempt are the key of all random draws of a request: a client that is asked
    the same has the same luck in every protocol, whatever else happens in the run. ``attempt`` counts the times that a
    client is asked the same in one run: the epoch of the stream of questions (``Draw.epoch``), the try of a probe or of a
    round. ``draw`` is for the records alone, except where a request is about no question: then it is the round, and a part
    of the key. No two requests of a run may agree in their keys (``fedsim.records.invariants``).
    """

    draw: int = -1
    question_id: int = -1
    attempt: int = 0


class HandlerResult(msgspec.Struct, frozen=True, gc=False):
    """What a client's handler produced: the message that travels, and notes that only the simulator sees.

    Attributes:
        message: what travels.
        evaluator: how it was come by, for the records.
        delay_s: how long the device holds it back on purpose before it sends it.
    """

    message: wire.Message
    evaluator: str = ""
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Handler:
    """A client's half of a protocol, for one message type.

    Attributes:
        run: pure function of (client state, message) to the reply; sees nothing of the server.
        work: what the computation costs a device, from token counts alone.
        replies: the type of message that ``run`` replies with, derived ones included.
        expect: announces the computation before it is due, so that real work can be batched.
        accept: the server's check of a reply at its boundary, from (message, reply): why it is refused, or None.
        partial: what can be said after a share in (0, 1) of the computation: a shorter reply, or None for nothing yet.
    """

    run: Callable[[Any, Any], HandlerResult]
    work: Callable[[Any, Any], Work]
    replies: type[wire.Message]
    expect: Callable[[Any, Any], None] | None = None
    accept: Callable[[Any, Any], str | None] | None = None
    partial: Callable[[HandlerResult, float], HandlerResult | None] | None = None

    def reply(self, state: Any, message: wire.Message) -> HandlerResult:
        """What a client with this state replies; ``PluginError`` if it is not what the handler says."""
        made = self.run(state, message)
        if not (isinstance(made, HandlerResult) and isinstance(made.message, self.replies)):
            said = made.message if isinstance(made, HandlerResult) else made
            raise PluginError(
                f"the handler of {type(message).__name__} must return a HandlerResult with a {self.replies.__name__}, "
                f"as its `replies` says; it returned {type(said).__name__}"
            )
        return made

    def cost(self, state: Any, message: wire.Message) -> Work:
        """What the computation costs a client with this state; ``PluginError`` if the handler gives no work."""
        work = self.work(state, message)
        if not isinstance(work, Work):
            raise PluginError(
                f"`work` of the handler of {type(message).__name__} must return a Work, not {type(work).__name__}"
            )
        return work


class Hurry:
    """A server's word to everybody it waits for: send what you have.

    A straggler policy makes one for each collection and calls ``now()``; requests that were given it listen.
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def listen(self, callback: Callable[[], None]) -> None:
        """Call this when the policy is in a hurry."""
        self._listeners.append(callback)

    def now(self) -> None:
        """Tell everybody who listens, once, in the order of asking."""
        listeners, self._listeners = self._listeners, []
        for callback in listeners:
            callback()
