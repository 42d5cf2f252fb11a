"""A server in a hurry asks for what there is: partial rewards; digits as in ``tests/samples/worlds.py``."""

from __future__ import annotations

import asyncio
import math

import pytest

from fedsim.errors import ClientDropped
from fedsim.federation.handlers import Handler, HandlerResult, Hurry, Subject
from fedsim.protocols.shared.boundary import first_scored, refused_rewards
from fedsim.sim.network import wire
from tests.samples.worlds import HANDLERS, SmallWorld, Timetable, ask, leaves, score, small_world, work

PARTIAL = {wire.Candidates: Handler(score, work, wire.Rewards, accept=refused_rewards, partial=first_scored)}
HURRY_TAKES_S = 13 / 100 + 0.5  # 13 bytes at 100 bytes/s, and 0.5 s in the air


async def hurried(world: SmallWorld, at_s: float, seconds: float = 2.0) -> wire.Message:
    """Ask client 0, be in a hurry at an instant, and return the reply."""
    hurry = Hurry()
    request = asyncio.ensure_future(world.federation.clients[0].request(ask(seconds), hurry=hurry))
    await asyncio.sleep(at_s)
    hurry.now()
    try:
        return await request
    finally:
        await world.settle()


async def test_a_hurried_device_stops_and_sends_the_scores_that_it_has() -> None:
    world = small_world(handlers=PARTIAL)
    reply = await hurried(world, at_s=1.5 + 1.125 - HURRY_TAKES_S)  # it hears of it after 1.125 of 2 seconds
    assert reply == wire.PartialRewards(wire.pack_id(0), (0.0, 0.25))  # floor(0.5625 of 4)
    (compute,) = world.computes
    assert (compute.start_at_s, compute.end_at_s, compute.cut) == (1.5, pytest.approx(2.625), False)
    assert compute.flop == pytest.approx(2.0 * 0.5625)  # what it did of the task's 2 FLOP
    up = world.transfers(direction="up")
    assert [(row.purpose, row.fate, row.wire_bytes, row.paper_bytes) for row in up] == [
        ("reward", "useful", 32, 16)
    ]
    assert world.loop.time() == pytest.approx(2.625 + 3.2 + 0.5)
    assert world.bytes(purpose="control", fate="useful") == [13]
    assert [(row.status, row.phase) for row in world.outcomes] == [("ok", "done")]
    assert [row.rewards for row in world.rewards] == [(0.0, 0.25)]


async def test_a_device_that_has_scored_nothing_yet_gives_up_and_says_so_in_the_records() -> None:
    world = small_world(handlers=PARTIAL)
    with pytest.raises(ClientDropped):
        await hurried(world, at_s=1.25)  # heard at 1.88: 0.38 of 2 s are less than one of four candidates
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase) == ("cancelled", "compute")
    assert outcome.cause == "nothing done when the server was in a hurry"
    assert [row.cut for row in world.computes] == [True]
    assert world.bytes(purpose="question", fate="late") == [100]


async def test_a_question_still_on_its_way_or_in_the_queue_is_called_off() -> None:
    world = small_world(handlers=PARTIAL)
    hurry, client = Hurry(), world.federation.clients[0]
    requests = [
        asyncio.ensure_future(client.request(ask(8.0), Subject(attempt=n), hurry if n else None))
        for n in range(2)
    ]
    await asyncio.sleep(5.0)  # both arrived at 2.5; the second waits for the first
    hurry.now()
    with pytest.raises(ClientDropped) as caught:
        await requests[1]
    assert caught.value.phase == "queue"
    await requests[0]
    await world.settle()
    assert [(row.request_id, row.status) for row in world.outcomes] == [(1, "cancelled"), (0, "ok")]


async def test_a_hurry_that_comes_when_the_reply_is_on_its_way_changes_nothing() -> None:
    world = small_world(handlers=PARTIAL)
    reply = await hurried(world, at_s=3.0)  # heard at 3.63; the reply goes up from 3.5 on
    assert type(reply) is wire.Rewards and world.outcomes[0].ended_at_s == 9.0
    assert world.bytes(purpose="control", fate="late") == [13]


async def test_a_hurry_heard_at_the_instant_at_which_the_computation_ends_gets_the_whole_reply() -> None:
    world = small_world(handlers=PARTIAL)
    hurry = Hurry()
    request = asyncio.ensure_future(world.federation.clients[0].request(ask(4.0), hurry=hurry))
    await asyncio.sleep(5.5 - HURRY_TAKES_S)
    hurry.now()
    assert type(await request) is wire.Rewards
    await world.settle()


async def test_nobody_is_hurried_whose_reply_cannot_be_shortened() -> None:
    world = small_world(handlers=HANDLERS)
    reply = await hurried(world, at_s=2.0)
    assert type(reply) is wire.Rewards and not world.transfers(purpose="control")


async def test_no_hurry_goes_to_a_device_that_was_given_up_or_has_ended() -> None:
    world = small_world(handlers=PARTIAL)
    hurry, client = Hurry(), world.federation.clients[0]
    request = asyncio.ensure_future(client.request(ask(2.0), hurry=hurry))
    await asyncio.sleep(2.0)
    request.cancel("late")
    await asyncio.sleep(0)
    hurry.now()
    await client.request(ask(2.0), Subject(attempt=1), hurry)
    hurry.now()
    await world.settle()
    assert not world.transfers(purpose="control")
    assert [row.status for row in world.outcomes] == ["late", "ok"]


async def test_a_hurry_is_cut_when_its_device_leaves() -> None:
    world = small_world(handlers=PARTIAL, availability=leaves(2.125))
    with pytest.raises(ClientDropped):
        await hurried(world, at_s=2.0)  # 12.5 of its 13 bytes are down
    assert world.bytes(purpose="control", fate="cut") == [12]


async def test_work_that_slept_counts_for_a_partial_reply() -> None:
    away = Timetable({0: [(0.0, 2.5), (10.0, 99.0)]})
    world = small_world(handlers=PARTIAL, availability=away, on_cut="suspend")
    reply = await hurried(world, at_s=10.0)  # 1 s before the absence, 0.63 s after it, of 2 s
    assert isinstance(reply, wire.PartialRewards) and len(reply.rewards) == math.floor(4 * 1.63 / 2)
    assert sum(row.flop for row in world.computes) == pytest.approx(1.63)
    assert [(row.start_at_s, row.end_at_s) for row in world.computes] == [
        (1.5, 2.5),
        (10.0, pytest.approx(10.63)),
    ]


async def test_everybody_hurries_in_the_order_of_asking_and_once() -> None:
    heard: list[int] = []
    hurry = Hurry()
    for number in range(3):
        hurry.listen(lambda number=number: heard.append(number))  # type: ignore[misc]
    hurry.now()
    hurry.now()
    assert heard == [0, 1, 2]


@pytest.mark.parametrize(
    ("share", "scored"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.5, 2), (0.74, 2), (0.99, 3)]
)
def test_candidates_are_scored_one_after_the_other(share: float, scored: int) -> None:
    reply = first_scored(HandlerResult(wire.Rewards(wire.pack_id(1), (0.1, 0.2, 0.3, 0.4)), "ME"), share)
    if not scored:
        assert reply is None
    else:
        assert reply == HandlerResult(
            wire.PartialRewards(wire.pack_id(1), (0.1, 0.2, 0.3, 0.4)[:scored]), "ME"
        )


def test_only_rewards_can_be_shortened() -> None:
    assert first_scored(HandlerResult(wire.Competence(wire.pack_id(1), 0.5)), 0.9) is None
