"""How long the server waits, and what becomes of what it no longer waits for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedsim.clock import VirtualLoop
from fedsim.errors import ClientDropped
from fedsim.network import wire
from fedsim.protocols.fedgrpo import Config, ask
from fedsim.roles import Candidate, Draw, Group
from fedsim.stragglers import StragglerConfig, collect
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import Question
from tests.worlds import ROUND, SmallWorld, Timetable, leaves, small_world
from tests.worlds import ask as question

WAIT_ALL = StragglerConfig()


def deadline(text: str, **keys: Any) -> StragglerConfig:
    return StragglerConfig(policy="deadline", deadline=text, **keys)  # type: ignore[arg-type]


def requests(world: SmallWorld, *seconds: float) -> dict[int, Coroutine[Any, Any, wire.Message]]:
    """Client k is asked for a computation of so many seconds; its reply comes 7 s after that (``tests/worlds.py``)."""
    return {k: world.federation.clients[k].request(question(s)) for k, s in enumerate(seconds)}


async def test_wait_all_waits_for_the_last_and_leaves_out_who_failed() -> None:
    world = small_world([ROUND] * 3, availability=leaves(3.0, client_id=1))
    replies = await collect(requests(world, 2.0, 4.0, 13.0), WAIT_ALL)
    assert list(replies) == [0, 2] and world.loop.time() == 20.0
    assert [(row.client_id, row.status) for row in world.outcomes] == [(1, "dropped"), (0, "ok"), (2, "ok")]
    await world.settle()


async def test_nobody_asked_is_nothing_to_wait_for() -> None:
    assert await collect({}, deadline("5 s")) == {}


async def test_a_deadline_returns_early_when_everybody_has_answered() -> None:
    world = small_world([ROUND] * 2)
    assert list(await collect(requests(world, 2.0, 3.0), deadline("30 s"))) == [0, 1]
    assert world.loop.time() == 10.0


async def test_a_reply_at_the_deadlines_own_instant_counts() -> None:
    world = small_world([ROUND] * 3)
    replies = await collect(requests(world, 2.0, 3.0, 3.125), deadline("10 s"))
    assert list(replies) == [0, 1] and world.loop.time() == 10.0
    await world.settle()
    assert [(row.client_id, row.status) for row in world.outcomes] == [(0, "ok"), (1, "ok"), (2, "late")]


async def test_an_abandoned_device_goes_on_and_its_bytes_are_late() -> None:
    world = small_world([ROUND] * 2)
    replies = await collect(requests(world, 2.0, 20.0), deadline("10 s"))
    assert list(replies) == [0]
    await world.settle()
    assert world.loop.time() == 27.0
    assert world.bytes(client_id=1, fate="late") == world.bytes(client_id=1) == [100, 50]
    assert world.bytes(purpose="cancel") == []


async def test_a_cancelled_device_stops_when_the_message_arrives() -> None:
    world = small_world([ROUND] * 2)
    replies = await collect(requests(world, 2.0, 20.0), deadline("10 s", on_deadline="cancel"))
    assert list(replies) == [0] and world.loop.time() == 10.0
    await world.settle()
    assert world.loop.time() == pytest.approx(10.0 + 0.13 + 0.5)
    assert [(row.client_id, row.status) for row in world.outcomes] == [(0, "ok"), (1, "cancelled")]
    assert world.bytes(client_id=1, direction="up") == []
    assert world.bytes(purpose="cancel", fate="useful") == [13]


async def test_replies_come_in_the_order_of_asking_not_of_arrival() -> None:
    world = small_world([ROUND] * 4)
    assert list(await collect(requests(world, 4.0, 3.0, 2.0, 1.0), WAIT_ALL)) == [0, 1, 2, 3]


async def test_a_bug_in_a_request_propagates_and_is_not_taken_for_a_dropout() -> None:
    async def broken() -> int:
        raise ZeroDivisionError

    async def dropped() -> int:
        raise ClientDropped("compute")

    with pytest.raises(ZeroDivisionError):
        await collect({0: dropped(), 1: broken()}, WAIT_ALL)


async def test_a_cancelled_wait_gives_up_what_is_under_way_and_reports_nothing_unretrieved() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    world = small_world([ROUND] * 3, availability=Timetable({1: []}))
    waiting = asyncio.ensure_future(
        collect(requests(world, 2.0, 2.0, 20.0), deadline("30 s", on_deadline="cancel"))
    )
    await asyncio.sleep(12.0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await world.settle()
    del waiting
    gc.collect()
    await asyncio.sleep(0)
    assert reports == []
    statuses = [(row.client_id, row.status) for row in world.outcomes]
    assert statuses == [(1, "offline"), (0, "ok"), (2, "late")]
    assert world.bytes(purpose="cancel") == []


async def test_a_bug_is_not_hidden_by_a_cancellation() -> None:
    async def broken() -> int:
        raise ZeroDivisionError

    async def slow() -> int:
        await asyncio.sleep(10.0)
        return 1

    waiting = asyncio.ensure_future(collect({0: broken(), 1: slow()}, WAIT_ALL))
    await asyncio.sleep(5.0)
    waiting.cancel()
    with pytest.raises(ZeroDivisionError):
        await waiting


@pytest.mark.parametrize(
    "keys", [{"policy": "deadline"}, {"deadline": "3 s"}, {"policy": "wait_all", "deadline": "3 s"}]
)
def test_a_deadline_and_its_policy_belong_together(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="policy deadline needs a deadline"):
        StragglerConfig(**keys)


@pytest.mark.parametrize("text", ["0 s", "-1 s"])
def test_a_deadline_is_positive(text: str) -> None:
    with pytest.raises(ValidationError):
        deadline(text)


GROUP = Group(
    Draw(5, Question(question_id=9, domain="sums", text="2".ljust(76), answer="4")),
    0,
    tuple(Candidate(text, 1, False) for text in "abcd"),
)
SCORES = [0.0, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("missing", ["mask", "zero", "drop_group"])
async def test_a_reward_that_did_not_come_is_not_a_number_until_learning_decides(missing: str) -> None:
    world = small_world([ROUND] * 2, availability=leaves(3.0, client_id=1))
    judgement = await ask(
        world.federation, Config(stragglers=deadline("20 s", missing=missing)), GROUP, (0, 1), AnswerRule()
    )
    np.testing.assert_array_equal(judgement.rewards, [SCORES, [np.nan] * 4])
    assert (judgement.missing, judgement.num_experts) == (missing, 2)
    await world.settle()


async def test_a_late_reward_is_recorded_but_not_used() -> None:
    world = small_world([ROUND])
    judgement = await ask(world.federation, Config(stragglers=deadline("8 s")), GROUP, (0,), AnswerRule())
    assert np.isnan(judgement.rewards).all() and not world.rewards
    await world.settle()
    (reward,) = world.rewards
    assert (reward.rewards, reward.at_s, reward.question_id) == (tuple(SCORES), 9.0, 9)
    assert [row.status for row in world.outcomes] == ["late"]
