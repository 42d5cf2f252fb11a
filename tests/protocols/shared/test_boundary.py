"""What a server refuses at its boundary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, get_origin, get_type_hints

import pytest

from fedsim.errors import InvariantViolation
from fedsim.federation.billed_sizes import TokenizerCounts
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.protocols import fedgrpo
from fedsim.protocols.shared.boundary import (
    BOUNDARIES,
    guarded,
    refused_answer,
    refused_bits,
    refused_competence,
    refused_rewards,
)
from fedsim.protocols.shared.state import ClientState
from fedsim.sim.devices.cost import NO_WORK
from fedsim.sim.network import wire
from fedsim.sim.network.wire import Id
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import SPEC, FakeEvaluator, Stage, play, settings, task_data

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


# ------------------------------------------------------------------------------------------- what may leave at all


def client(**keys: Any) -> ClientState:
    return ClientState(
        0, FakeEvaluator("a"), SPEC, {"a7": "secret"}, AnswerRule(), TokenizerCounts(len), **keys
    )


def uplink_of(stage: Stage) -> list[wire.Message]:
    """What went up, read back from its bytes."""
    return [wire.decode(wire.encode(row.reply)) for row in stage.told]


async def test_under_scores_up_nothing_but_registered_scalars_leaves_a_client() -> None:
    """Every message is of a declared kind, and no byte of it depends on anything but its numbers and the server's own draw."""
    data = task_data(num_clients=2, trusted=[{100 + i: f"secret{i}" for i in range(6)}, {}])
    config = settings("fedgrpo", num_neighbours=4)
    ran = await play(config, [FakeEvaluator("a"), FakeEvaluator("ab")], data=data)
    allowed = {kind for kinds in BOUNDARIES["scores_up"].replies.values() for kind in kinds}
    sent = uplink_of(ran)
    assert {type(message) for message in sent} == {wire.ProbeBits, wire.Rewards}
    for message in sent:
        assert type(message) in allowed
        assert b"secret" not in wire.encode(message)


def test_a_private_boundary_holds_kinds_of_message_that_can_carry_scalars_alone() -> None:
    assert BOUNDARIES["scores_up"].is_private
    assert not BOUNDARIES["answers_up"].is_private
    numbers = {Id, float, tuple[float, ...], bytes}  # the bits, whose length is checked
    for boundary in BOUNDARIES.values():
        for kinds in boundary.replies.values():
            for kind in kinds:
                fields = set(get_type_hints(kind, include_extras=True).values()) - {ClassVar}
                own = {hint for hint in fields if get_origin(hint) is not ClassVar}
                assert (own <= numbers) == kind.scalars_only
                if boundary.is_private:
                    assert kind.scalars_only


def test_no_handler_stands_outside_its_boundary() -> None:
    assert set(fedgrpo.handlers_for(settings("fedgrpo"))) == set(BOUNDARIES["scores_up"].replies)
    assert set(fedgrpo.handlers_for(settings("fedgrpo", wire="answers_up"))) == set(
        BOUNDARIES["answers_up"].replies
    )


@pytest.mark.parametrize(
    ("asked", "reply", "why"),
    [
        (ASKED, wire.FinalAnswer(DRAW, "secret"), "FinalAnswer in reply to a Candidates"),
        (ASKED, wire.Rewards(OTHER, (0.0,) * 3), "a reply to draw 4 instead of 3"),
        (ASKED, wire.Rewards(DRAW, (0.0,) * 4), "4 rewards for 3 candidates"),
        (ASKED, wire.ProbeBits(DRAW, b"secret"), "ProbeBits in reply to a Candidates"),
        (EXEMPLARS, wire.ProbeBits(DRAW, b"secret"), "6 bytes of bits for 9 exemplars"),
    ],
)
def test_a_client_that_would_let_out_anything_else_stops_the_run_before_it_is_sent(
    asked: wire.Message, reply: wire.Message, why: str
) -> None:
    leaky = Handler(lambda _, message: HandlerResult(reply), lambda *_: NO_WORK, type(reply))
    held = guarded({type(asked): leaky}, BOUNDARIES["scores_up"])[type(asked)]
    with pytest.raises(InvariantViolation, match=why):
        held.run(client(), asked)


def test_under_answers_up_a_trusted_answer_does_leave_as_text() -> None:
    handler = fedgrpo.handlers_for(settings("fedgrpo", wire="answers_up"))[wire.QuestionOnly]
    assert handler.run(client(), wire.QuestionOnly(DRAW, "a7")).message == wire.FinalAnswer(DRAW, "secret")
