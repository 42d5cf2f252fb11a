"""What a server refuses at its boundary."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from fedsim.network import wire
from fedsim.protocols import fedgrpo
from fedsim.protocols.boundary import refused_answer, refused_bits, refused_competence, refused_rewards

DRAW, OTHER = wire.pack_id(3), wire.pack_id(4)
ASKED = wire.Candidates(DRAW, "q", ("a", "b", "c"))
EXEMPLARS = wire.ProbeExemplars(DRAW, tuple("q" * 9), tuple("a" * 9))
NEIGHBOURS = wire.ProbeNeighbours(DRAW, ("q",), ("a",))
QUESTION = wire.QuestionOnly(DRAW, "q")


@pytest.mark.parametrize(
    ("check", "asked", "reply"),
    [
        (refused_rewards, ASKED, wire.Rewards(DRAW, (0.0, 0.5, 1.0))),
        (refused_rewards, ASKED, wire.PartialRewards(DRAW, (0.0, 0.5))),
        (refused_answer, QUESTION, wire.FinalAnswer(DRAW, "a")),
        (refused_bits, EXEMPLARS, wire.ProbeBits(DRAW, b"\x01\x80")),
        (refused_competence, NEIGHBOURS, wire.Competence(DRAW, 0.25)),
    ],
)
def test_a_good_reply_is_accepted(
    check: Callable[[wire.Message, wire.Message], str | None], asked: wire.Message, reply: wire.Message
) -> None:
    assert check(asked, reply) is None


@pytest.mark.parametrize(
    ("check", "asked", "reply", "why"),
    [
        (refused_rewards, ASKED, wire.Rewards(DRAW, (0.0, 0.5)), "2 rewards for 3 candidates"),
        (refused_rewards, ASKED, wire.Rewards(DRAW, (0.0,) * 4), "4 rewards for 3 candidates"),
        (refused_rewards, ASKED, wire.Rewards(DRAW, ()), "0 rewards for 3 candidates"),
        (refused_rewards, ASKED, wire.PartialRewards(DRAW, (0.0,) * 3), "3 partial rewards for 3 candidates"),
        (refused_rewards, ASKED, wire.PartialRewards(DRAW, ()), "0 partial rewards for 3 candidates"),
        (refused_rewards, ASKED, wire.Rewards(DRAW, (0.0, math.nan, 1.0)), "reward 1 is nan, not in [0, 1]"),
        (refused_rewards, ASKED, wire.Rewards(DRAW, (0.0, 0.0, math.inf)), "reward 2 is inf, not in [0, 1]"),
        (refused_rewards, ASKED, wire.Rewards(DRAW, (-0.5, 0.0, 1.0)), "reward 0 is -0.5, not in [0, 1]"),
        (refused_rewards, ASKED, wire.Rewards(OTHER, (0.0, 0.5, 1.0)), "a reply to draw 4 instead of 3"),
        (refused_rewards, ASKED, wire.FinalAnswer(DRAW, "a"), "a message of type FinalAnswer"),
        (refused_answer, QUESTION, wire.Rewards(DRAW, (0.0,)), "a message of type Rewards"),
        (refused_answer, QUESTION, wire.FinalAnswer(OTHER, "a"), "a reply to draw 4 instead of 3"),
        (refused_bits, EXEMPLARS, wire.ProbeBits(DRAW, b"\x01"), "1 bytes of bits for 9 exemplars"),
        (refused_bits, EXEMPLARS, wire.ProbeBits(OTHER, b"12"), "a reply to draw 4 instead of 3"),
        (refused_bits, EXEMPLARS, wire.Competence(DRAW, 0.5), "a message of type Competence"),
        (refused_competence, NEIGHBOURS, wire.Competence(DRAW, 1.5), "competence is 1.5, not in [0, 1]"),
        (refused_competence, NEIGHBOURS, wire.Competence(DRAW, math.nan), "competence is nan, not in [0, 1]"),
        (refused_competence, NEIGHBOURS, wire.ProbeBits(DRAW, b""), "a message of type ProbeBits"),
    ],
)
def test_a_reply_that_cannot_be_right_is_refused_with_its_reason(
    check: Callable[[wire.Message, wire.Message], str | None],
    asked: wire.Message,
    reply: wire.Message,
    why: str,
) -> None:
    assert check(asked, reply) == why


def test_every_message_that_fedgrpo_sends_has_its_replies_checked() -> None:
    assert all(handler.accept is not None for handler in fedgrpo.HANDLERS.values())
    assert fedgrpo.HANDLERS[wire.Candidates].partial is not None
    assert fedgrpo.HANDLERS[wire.QuestionOnly].partial is None  # half an answer is none
