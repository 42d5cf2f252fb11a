"""What a server refuses at its boundary, and what a client sends of an unfinished score.

A reply that cannot be right (too many rewards, a number that is not finite, a reward outside [0, 1], another draw's) is
refused whole, with its reason: nothing is cut to length, clipped or guessed. What looks right but is false (a corrupted reward
within [0, 1]) cannot be told here and is learned from.
"""

from __future__ import annotations

import math

from fedsim.network import wire
from fedsim.world import Reply


def refused_rewards(message: wire.Candidates, reply: wire.Message) -> str | None:
    """Why these are no rewards of these candidates: one for each, or (partial) for the first of them, all in [0, 1]."""
    if not isinstance(reply, wire.Rewards | wire.PartialRewards):
        return _another_kind(reply)
    asked, came = len(message.candidates), len(reply.rewards)
    if isinstance(reply, wire.PartialRewards):
        if not 0 < came < asked:
            return f"{came} partial rewards for {asked} candidates"
    elif came != asked:
        return f"{came} rewards for {asked} candidates"
    outside = (_outside_unit(f"reward {place}", reward) for place, reward in enumerate(reply.rewards))
    return _another_draw(message.draw, reply.draw) or next(filter(None, outside), None)


def refused_answer(message: wire.QuestionOnly, reply: wire.Message) -> str | None:
    """Why this is no answer to this question."""
    if not isinstance(reply, wire.FinalAnswer):
        return _another_kind(reply)
    return _another_draw(message.draw, reply.draw)


def refused_bits(message: wire.ProbeExemplars, reply: wire.Message) -> str | None:
    """Why these are not one bit for each exemplar."""
    if not isinstance(reply, wire.ProbeBits):
        return _another_kind(reply)
    needed = -(-len(message.questions) // 8)
    if len(reply.bits) != needed:
        return f"{len(reply.bits)} bytes of bits for {len(message.questions)} exemplars"
    return _another_draw(message.draw, reply.draw)


def refused_competence(message: wire.ProbeNeighbours, reply: wire.Message) -> str | None:
    """Why this is no share of right answers."""
    if not isinstance(reply, wire.Competence):
        return _another_kind(reply)
    return _another_draw(message.draw, reply.draw) or _outside_unit("competence", reply.competence)


def first_scored(reply: Reply, share_done: float) -> Reply | None:
    """The rewards of the first ``floor(share_done G)`` of G candidates; None where that is none of them.

    A device scores its candidates one after the other, each taking an equal part of the whole computation.
    """
    if not isinstance(reply.message, wire.Rewards):
        return None
    num_scored = math.floor(share_done * len(reply.message.rewards))
    if not num_scored:
        return None
    return Reply(wire.PartialRewards(reply.message.draw, reply.message.rewards[:num_scored]), reply.evaluator)


def _another_kind(reply: wire.Message) -> str:
    return f"a message of type {type(reply).__name__}"


def _another_draw(asked: bytes, came: bytes) -> str | None:
    if asked == came:
        return None
    return f"a reply to draw {wire.unpack_id(came)} instead of {wire.unpack_id(asked)}"


def _outside_unit(what: str, number: float) -> str | None:
    return (
        None if 0.0 <= number <= 1.0 else f"{what} is {number:g}, not in [0, 1]"
    )  # not a number is outside too
