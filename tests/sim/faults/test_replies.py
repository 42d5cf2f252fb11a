"""Faults of replies: which one strikes, and what it makes of a message."""

import json
import math
import struct

import pytest
from pydantic import TypeAdapter

from fedsim.sim.faults.config import FaultConfig
from fedsim.sim.faults.plan import Faults
from fedsim.sim.faults.replies import ReplyFault
from fedsim.sim.network import wire

SETTINGS = TypeAdapter(list[FaultConfig])
CLASSES = ("phone", "phone", "laptop", "phone", "laptop", "phone")
MORNING = {"kind": "crash", "at": "10 s", "for": "5 s"}
OFTEN = {"kind": "crash", "hazard": "6 /min", "for": "5 s"}
REWARDS = wire.Rewards(wire.pack_id(7), (0.0, 0.25, 0.5, 1.0))


def faults(*raw, seed=0, classes=CLASSES):
    return Faults(SETTINGS.validate_json(json.dumps(raw)), seed, classes)


def test_a_reply_is_struck_inside_the_window_and_by_the_first_fault_that_can():
    source = faults(
        {"kind": "wrong_length", "at": "10 s", "for": "5 s"},
        {"kind": "duplicate_reply", "clients": [0]},
    )
    assert source.reply(0, 9.0, 0, "question", 4).kind == "duplicate_reply"
    assert source.reply(0, 10.0, 0, "question", 4).kind == "wrong_length"
    assert source.reply(1, 9.0, 1, "question", 4) is None


def test_a_reply_without_rewards_passes_by_faults_of_rewards():
    source = faults({"kind": "wrong_length"}, {"kind": "late_reply", "delay": "3 s"})
    bits = wire.ProbeBits(wire.pack_id(1), b"\x01")
    assert source.reply(0, 1.0, 0, "probe", message=bits) == ReplyFault(
        kind="late_reply", delay_s=3.0, luck=source.reply(0, 1.0, 0, "probe", message=bits).luck
    )
    assert source.reply(0, 1.0, 0, "probe", message=REWARDS).kind == "wrong_length"


def test_replies_are_struck_with_their_probability_and_a_higher_one_strikes_the_same_and_more():
    """Probability .3, 2,000 replies: 600, within four standard errors."""
    few, more = (
        {n for n in range(2000) if faults_of_replies.reply(0, 0.0, 0, "question", n) is not None}
        for faults_of_replies in (faults({"kind": "duplicate_reply", "probability": p}) for p in (0.3, 0.6))
    )
    assert abs(len(few) - 600) < 4 * math.sqrt(2000 * 0.3 * 0.7)
    assert few < more


def test_inverted_rewards_prefer_what_was_worst():
    changed = ReplyFault("corrupt_reward", how="inverted").apply(REWARDS)
    assert changed == wire.Rewards(REWARDS.draw, (1.0, 0.75, 0.5, 0.0))


def test_random_rewards_are_drawn_anew_for_every_reply():
    first, again, other = (
        ReplyFault("corrupt_reward", how="random", luck=luck).apply(REWARDS) for luck in (1, 1, 2)
    )
    assert first == again != other
    assert len(first.rewards) == 4
    assert all(0 < reward < 1 for reward in first.rewards)


def test_a_flipped_bit_changes_one_reward_and_flipping_it_again_mends_it():
    """Any of the 64 bits: the sign as well as the last of the fraction."""
    turned = set()
    for luck in range(500):
        fault = ReplyFault("corrupt_reward", how="bit_flip", luck=luck)
        changed = fault.apply(REWARDS)
        bits = [
            struct.unpack("<2Q", struct.pack("<2d", a, b))
            for a, b in zip(changed.rewards, REWARDS.rewards, strict=True)
        ]
        (difference,) = [now ^ then for now, then in bits if now != then]
        assert difference.bit_count() == 1
        turned.add(difference.bit_length() - 1)
        assert fault.apply(changed) == REWARDS
    assert turned == set(range(64))


def test_a_non_finite_reward_is_one_nan_at_any_place():
    places = set()
    for luck in range(100):
        rewards = ReplyFault("non_finite_reward", luck=luck).apply(REWARDS).rewards
        assert [math.isnan(reward) for reward in rewards].count(True) == 1
        places.add([math.isnan(reward) for reward in rewards].index(True))
    assert places == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("by", "expected"),
    [(-1, (0.0, 0.25, 0.5)), (-9, ()), (2, (0.0, 0.25, 0.5, 1.0, 1.0, 1.0))],
)
def test_a_wrong_length_drops_the_last_rewards_or_repeats_the_last(by, expected):
    assert ReplyFault("wrong_length", by=by).apply(REWARDS).rewards == expected


@pytest.mark.parametrize("kind", ["duplicate_reply", "late_reply", "wrong_length"])
def test_a_message_that_a_fault_does_not_change_is_the_same_object(kind):
    message = REWARDS if kind != "wrong_length" else wire.ProbeBits(wire.pack_id(1), b"\x01")
    fault = ReplyFault(kind, by=-1)
    assert fault.apply(message) is message
    assert fault.cause == f"fault: {kind}"
