"""How long the server waits, what becomes of what it no longer waits for, and what learning makes of silence."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.errors import ClientDropped
from fedsim.federation.stragglers.policies import StragglerConfig, Stragglers
from fedsim.models.interfaces import Candidate, CandidateGroup, Draw
from fedsim.protocols.fedgrpo import Config, ask, judged
from fedsim.protocols.shared.learner import Judgement
from fedsim.sim import clock
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import Question
from tests.samples.worlds import ROUND, SmallWorld, Timetable, leaves, small_world
from tests.samples.worlds import ask as question

WAIT_ALL = StragglerConfig()


def deadline(text: str, **keys: Any) -> StragglerConfig:
    return StragglerConfig(policy="deadline", deadline=text, **keys)  # type: ignore[arg-type]


async def collect(world: SmallWorld, config: StragglerConfig, *seconds: float) -> dict[int, wire.Message]:
    """Client k is asked for a computation of so many seconds; its reply comes 7 s after that (``tests/samples/worlds.py``)."""
    return await Stragglers(config, world.loop.time).collect(
        lambda k, _: world.federation.clients[k].request(question(seconds[k])), range(len(seconds))
    )


async def collect_of(*asking: Callable[[], Coroutine[Any, Any, int]]) -> dict[int, int]:
    """Wait for all of these."""
    return await Stragglers(WAIT_ALL, asyncio.get_running_loop().time).collect(
        lambda k, _: asking[k](), range(len(asking))
    )


async def test_wait_all_waits_for_the_last_and_leaves_out_who_failed() -> None:
    world = small_world([ROUND] * 3, availability=leaves(3.0, client_id=1))
    replies = await collect(world, WAIT_ALL, 2.0, 4.0, 13.0)
    assert list(replies) == [0, 2] and world.loop.time() == 20.0
    assert [(row.client_id, row.status) for row in world.outcomes] == [(1, "dropped"), (0, "ok"), (2, "ok")]
    await world.settle()


async def test_nobody_asked_is_nothing_to_wait_for() -> None:
    assert await collect(small_world(), deadline("5 s")) == {}


async def test_a_deadline_returns_early_when_everybody_has_answered() -> None:
    world = small_world([ROUND] * 2)
    assert list(await collect(world, deadline("30 s"), 2.0, 3.0)) == [0, 1]
    assert world.loop.time() == 10.0


async def test_a_reply_at_the_deadlines_own_instant_counts() -> None:
    world = small_world([ROUND] * 3)
    replies = await collect(world, deadline("10 s"), 2.0, 3.0, 3.125)
    assert list(replies) == [0, 1] and world.loop.time() == 10.0
    await world.settle()
    assert [(row.client_id, row.status) for row in world.outcomes] == [(0, "ok"), (1, "ok"), (2, "late")]


async def test_an_abandoned_device_goes_on_and_its_bytes_are_late() -> None:
    world = small_world([ROUND] * 2)
    replies = await collect(world, deadline("10 s"), 2.0, 20.0)
    assert list(replies) == [0]
    await world.settle()
    assert world.loop.time() == 27.0
    assert world.bytes(client_id=1, fate="late") == world.bytes(client_id=1) == [100, 50]
    assert world.bytes(purpose="cancel") == []


async def test_a_cancelled_device_stops_when_the_message_arrives() -> None:
    world = small_world([ROUND] * 2)
    replies = await collect(world, deadline("10 s", on_deadline="cancel"), 2.0, 20.0)
    assert list(replies) == [0] and world.loop.time() == 10.0
    await world.settle()
    assert world.loop.time() == pytest.approx(10.0 + 0.13 + 0.5)
    assert [(row.client_id, row.status) for row in world.outcomes] == [(0, "ok"), (1, "cancelled")]
    assert world.bytes(client_id=1, direction="up") == []
    assert world.bytes(purpose="cancel", fate="useful") == [13]


async def test_replies_come_in_the_order_of_asking_not_of_arrival() -> None:
    world = small_world([ROUND] * 4)
    assert list(await collect(world, WAIT_ALL, 4.0, 3.0, 2.0, 1.0)) == [0, 1, 2, 3]


async def test_a_bug_in_a_request_propagates_and_is_not_taken_for_a_dropout() -> None:
    async def broken() -> int:
        raise ZeroDivisionError

    async def dropped() -> int:
        raise ClientDropped("compute")

    with pytest.raises(ZeroDivisionError):
        await collect_of(dropped, broken)


async def test_a_cancelled_wait_gives_up_what_is_under_way_and_reports_nothing_unretrieved() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    reports: list[object] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    world = small_world([ROUND] * 3, availability=Timetable({1: []}))
    waiting = asyncio.ensure_future(collect(world, deadline("30 s", on_deadline="cancel"), 2.0, 2.0, 20.0))
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

    waiting = asyncio.ensure_future(collect_of(broken, slow))
    await asyncio.sleep(5.0)
    waiting.cancel()
    with pytest.raises(ZeroDivisionError):
        await waiting


@pytest.mark.parametrize("text", ["0 s", "-1 s"])
def test_a_deadline_is_positive(text: str) -> None:
    with pytest.raises(ValidationError):
        deadline(text)


GROUP = CandidateGroup(
    Draw(5, Question(question_id=9, domain="sums", text="2".ljust(76), answer="4")),
    0,
    tuple(Candidate(text, 1, False) for text in "abcd"),
)
SCORES = [0.0, 0.25, 0.5, 1.0]


async def judge(world: SmallWorld, config: Config, chosen: Sequence[int]) -> Judgement:
    """What FedGRPO makes of the group when these are asked."""
    stragglers = Stragglers(config.stragglers, world.loop.time)
    replies = await ask(world.federation, config, stragglers, GROUP, chosen)
    return judged(config, GROUP, chosen, replies, AnswerRule())


@pytest.mark.parametrize("missing", ["mask", "zero", "drop_group"])
async def test_a_reward_that_did_not_come_is_not_a_number_until_learning_decides(missing: str) -> None:
    world = small_world([ROUND] * 2, availability=leaves(3.0, client_id=1))
    judgement = await judge(world, Config(stragglers=deadline("20 s", missing=missing)), (0, 1))
    np.testing.assert_array_equal(judgement.rewards, [SCORES, [np.nan] * 4])
    assert (judgement.missing, judgement.num_experts) == (missing, 2)
    await world.settle()


async def test_a_late_reward_is_recorded_but_not_used() -> None:
    world = small_world([ROUND])
    judgement = await judge(world, Config(stragglers=deadline("8 s"), num_experts=1), (0,))
    assert np.isnan(judgement.rewards).all() and not world.rewards
    await world.settle()
    (reward,) = world.rewards
    assert (reward.rewards, reward.at_s, reward.question_id) == (tuple(SCORES), 9.0, 9)
    assert [row.status for row in world.outcomes] == ["late"]


async def by_two_lines(world: SmallWorld, config: StragglerConfig, seconds: Sequence[float]) -> list[int]:
    """The reference: one wait with a timeout, and what is still out is cancelled in the order of asking."""
    tasks = [
        asyncio.ensure_future(world.federation.clients[k].request(question(s))) for k, s in enumerate(seconds)
    ]
    done, _ = await asyncio.wait(tasks, timeout=config.deadline)
    for task in tasks:
        if task not in done:
            task.cancel("cancel" if config.on_deadline == "cancel" else "late")
    return [k for k, task in enumerate(tasks) if task in done and task.exception() is None]


@given(
    st.lists(st.floats(0, 12), min_size=1, max_size=6),
    st.sampled_from([None, "7500 ms", "10 s", "13 s"]),
    st.sampled_from(["abandon", "cancel"]),
    st.lists(st.floats(0, 20), min_size=6, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_waiting_for_all_and_the_deadline_leave_the_same_records_as_one_wait_with_a_timeout(
    seconds: list[float], limit: str | None, on_deadline: str, leaves_at_s: list[float]
) -> None:
    config = WAIT_ALL if limit is None else deadline(limit, on_deadline=on_deadline)
    stay = Timetable({k: [(0.0, at_s)] for k, at_s in enumerate(leaves_at_s) if k % 2})

    async def play(*, reference: bool) -> tuple[list[int], float, str]:
        world = small_world([ROUND] * len(seconds), availability=stay)
        how = by_two_lines(world, config, seconds) if reference else collect(world, config, *seconds)
        answered = list(await how)
        ended_at_s = world.loop.time()
        await world.settle()
        return answered, ended_at_s, world.log.sha256()

    assert clock.run(play(reference=False)) == clock.run(play(reference=True))
