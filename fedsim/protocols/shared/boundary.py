"""What may leave a client at all, what a server refuses at its boundary, and what a client sends of an unfinished score.

Each wire variant declares its boundary (``BOUNDARIES``), and ``guarded`` holds a client's half to it: a reply of another
kind, to another draw, or with more or fewer numbers than were asked for is a bug that stops the run before anything is sent.
A number is eight bytes, which a client that wants to leak can fill as it likes; only randomised response leaves it one bit
(`fedsim.privacy.rewards`).

A reply that cannot be right (too many rewards, a number that is not finite, a reward outside [0, 1], another draw's) is
refused whole, with its reason: nothing is cut to length, clipped or guessed. What looks right but is false (a corrupted reward
within [0, 1]) cannot be told here and is learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from fedsim.errors import InvariantViolation
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.protocols.shared.state import ClientState
from fedsim.sim.network import wire

WireVariant = Literal["scores_up", "answers_up"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """What may leave a client under one wire variant.

    Attributes:
        variant: its name.
        replies: the kinds of message that may go up, for each kind that came down.
        is_private: whether every one of them carries registered scalars and nothing else.
        description: the same for people.
    """

    variant: WireVariant
    replies: Mapping[type[wire.Message], tuple[type[wire.Message], ...]]
    is_private: bool
    description: str

    def holds(self, handlers: Mapping[type[wire.Message], Handler]) -> bool:
        """Whether these handlers let nothing else out: a third party's protocol may have another in mind by the same name."""
        replies = [(handler.replies, self.replies.get(kind, ())) for kind, handler in handlers.items()]
        return all(issubclass(kind, allowed) for kind, allowed in replies)


_PROBES: Mapping[type[wire.Message], tuple[type[wire.Message], ...]] = {
    wire.ProbeExemplars: (wire.ProbeBits,),
    wire.ProbeNeighbours: (wire.Competence,),
}

BOUNDARIES: Mapping[WireVariant, Boundary] = {
    "scores_up": Boundary(
        "scores_up",
        {**_PROBES, wire.Candidates: (wire.Rewards, wire.PartialRewards)},
        True,
        "scalars only: one number per candidate, one bit per exemplar (or one number per probe)",
    ),
    "answers_up": Boundary(
        "answers_up",
        {**_PROBES, wire.QuestionOnly: (wire.FinalAnswer,)},
        False,
        "NOT private: the client's own answers leave it as text, trusted ones included",
    ),
}
"""What each wire variant lets out of a client."""


def guarded(
    handlers: Mapping[type[wire.Message], Handler], boundary: Boundary
) -> dict[type[wire.Message], Handler]:
    """The handlers that this boundary has room for: each adds the client's noise, and is held to what it may reply."""
    return {
        kind: replace(handler, run=_Guarded(handler, boundary))
        for kind, handler in handlers.items()
        if kind in boundary.replies
    }


class _Guarded:
    """A handler's ``run`` behind a boundary."""

    __slots__ = ("_boundary", "_handler")

    def __init__(self, handler: Handler, boundary: Boundary) -> None:
        self._handler = handler
        self._boundary = boundary

    def __call__(self, client: ClientState, message: Any) -> HandlerResult:
        reply = self._handler.run(client, message)
        if client.noise is not None:
            protected = client.noise.protected(message, reply.message, reply.evaluator)
            reply = msgspec.structs.replace(reply, message=protected)
        escaping = escaped(self._boundary, message, reply.message)
        if escaping is not None:
            raise InvariantViolation(f"client {client.client_id} under {self._boundary.variant}: {escaping}")
        return reply


def escaped(boundary: Boundary, message: Any, reply: Any) -> str | None:
    """Why this reply must not leave a client; None if it may.

    Whether its numbers make sense is the server's question (``refused_rewards``), not this one's.
    """
    if type(reply) not in boundary.replies.get(type(message), ()):
        return f"{_another_kind(reply)} in reply to a {type(message).__name__}"
    return _misfit(message, reply)


def refused_rewards(message: wire.Candidates, reply: wire.Message) -> str | None:
    """Why these are no rewards of these candidates: one for each, or (partial) for the first of them, all in [0, 1]."""
    if not isinstance(reply, wire.Rewards):
        return _another_kind(reply)
    outside = (_outside_unit(f"reward {place}", reward) for place, reward in enumerate(reply.rewards))
    return _misfit(message, reply) or next(filter(None, outside), None)


def refused_answer(message: wire.QuestionOnly, reply: wire.Message) -> str | None:
    """Why this is no answer to this question."""
    return _misfit(message, reply) if isinstance(reply, wire.FinalAnswer) else _another_kind(reply)


def refused_bits(message: wire.ProbeExemplars, reply: wire.Message) -> str | None:
    """Why these are not one bit for each exemplar."""
    return _misfit(message, reply) if isinstance(reply, wire.ProbeBits) else _another_kind(reply)


def refused_competence(message: wire.ProbeNeighbours, reply: wire.Message) -> str | None:
    """Why this is no share of right answers."""
    if not isinstance(reply, wire.Competence):
        return _another_kind(reply)
    return _misfit(message, reply) or _outside_unit("competence", reply.competence)


def first_scored(reply: HandlerResult, share_done: float) -> HandlerResult | None:
    """The rewards of the first ``floor(share_done G)`` of G candidates; None where that is none of them.

    A device scores its candidates one after the other, each taking an equal part of the whole computation.
    """
    if not isinstance(reply.message, wire.Rewards):
        return None
    num_scored = math.floor(share_done * len(reply.message.rewards))
    if not num_scored:
        return None
    return HandlerResult(
        wire.PartialRewards(reply.message.draw, reply.message.rewards[:num_scored]), reply.evaluator
    )


def _another_kind(reply: wire.Message) -> str:
    return f"a message of type {type(reply).__name__}"


def _misfit(message: Any, reply: Any) -> str | None:
    """Why a reply of the right kind is not to this message: more or fewer numbers than were asked for, or another draw's."""
    if isinstance(reply, wire.Rewards):
        asked, came = len(message.candidates), len(reply.rewards)
        is_partial = isinstance(reply, wire.PartialRewards)
        if not 0 < came < asked if is_partial else came != asked:
            return f"{came} {'partial ' if is_partial else ''}rewards for {asked} candidates"
    if isinstance(reply, wire.ProbeBits) and len(reply.bits) != -(-len(message.questions) // 8):
        return f"{len(reply.bits)} bytes of bits for {len(message.questions)} exemplars"
    if message.draw != reply.draw:
        return f"a reply to draw {wire.unpack_id(reply.draw)} instead of {wire.unpack_id(message.draw)}"
    return None


def _outside_unit(what: str, number: float) -> str | None:
    return (
        None if 0.0 <= number <= 1.0 else f"{what} is {number:g}, not in [0, 1]"
    )  # not a number is outside too
