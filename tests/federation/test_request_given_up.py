"""Requests that the server no longer waits for: late, over-selected, or cancelled; digits as in ``tests/samples/worlds.py``."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from fedsim.federation.handlers import Subject
from fedsim.sim import clock
from fedsim.sim.network.config import NetworkConfig
from tests.samples.worlds import INSTANT, ROUND, SmallWorld, ask, leaves, small_world


async def test_after_the_deadline_the_device_goes_on_and_its_bytes_are_late() -> None:
    world = small_world()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.0):
            await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 4.0 and not world.outcomes
    await world.settle()
    assert world.loop.time() == 9.0
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase, outcome.ended_at_s) == ("late", "done", 9.0)
    assert world.bytes(fate="late") == world.bytes() == [100, 50]
    assert [row.paper_bytes for row in world.transfers()] == [0, 32]  # it arrived: the paper's account has it
    assert [row.at_s for row in world.rewards] == [9.0]
    assert [row.cut for row in world.computes] == [False]


async def test_a_reply_at_the_deadlines_own_instant_is_in_time() -> None:
    world = small_world()
    async with asyncio.timeout(9.0):
        await world.federation.clients[0].request(ask(2.0))
    assert [row.status for row in world.outcomes] == ["ok"]


async def test_a_reply_just_after_the_deadline_is_late() -> None:
    world = small_world()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(math.nextafter(9.0, 0.0)):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [(row.status, row.ended_at_s) for row in world.outcomes] == [("late", 9.0)]


async def test_a_late_request_whose_device_leaves_is_dropped_not_late() -> None:
    world = small_world(availability=leaves(3.0))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [(row.status, row.phase, row.ended_at_s) for row in world.outcomes] == [
        ("dropped", "compute", 3.0)
    ]


async def test_an_over_selected_reply_carries_that_fate() -> None:
    world = small_world()
    await _give_up(world, "over_selected", after_s=2.0)
    await world.settle()
    assert [row.status for row in world.outcomes] == ["over_selected"]
    assert world.bytes(fate="over_selected") == [100, 50]


async def test_a_cancel_message_that_arrives_during_the_computation_stops_it() -> None:
    world = small_world()
    await _give_up(world, "cancel", after_s=2.0)
    await world.settle()
    arrives_at_s = 2.0 + 13 / 100 + 0.5
    assert world.loop.time() == pytest.approx(arrives_at_s)
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase, outcome.cause) == (
        "cancelled",
        "compute",
        "cancelled by the server",
    )
    (compute,) = world.computes
    assert compute.cut and compute.end_at_s == pytest.approx(arrives_at_s)
    assert world.bytes(purpose="cancel", fate="useful") == [13]
    assert world.bytes(purpose="question", fate="late") == [100]
    assert not world.transfers(direction="up") and not world.rewards


async def test_a_cancelled_request_frees_the_processor_and_its_place_in_the_queue() -> None:
    world = small_world()
    client = world.federation.clients[0]
    requests = [  # all arrive at 3.5
        asyncio.ensure_future(client.request(ask(8.0), Subject(attempt=n))) for n in range(3)
    ]
    await asyncio.sleep(5.0)
    requests[1].cancel("cancel")  # waits in the queue
    await asyncio.sleep(1.0)
    requests[0].cancel("cancel")  # is computed
    await requests[2]
    await world.settle()
    freed_at_s = 6.0 + 13 / 100 + 0.5
    spans = [(row.request_id, row.start_at_s, row.end_at_s, row.cut) for row in world.computes]
    assert spans == [
        (0, 3.5, pytest.approx(freed_at_s), True),
        (2, pytest.approx(freed_at_s), pytest.approx(freed_at_s + 8.0), False),
    ]
    assert [(row.request_id, row.status, row.phase) for row in world.outcomes] == [
        (1, "cancelled", "queue"),
        (0, "cancelled", "compute"),
        (2, "ok", "done"),
    ]


async def test_a_cancel_message_that_overtakes_its_question_cuts_it() -> None:
    slow = replace(ROUND, down_bytes_per_s=10.0)  # the question alone takes 10 s
    world = small_world([slow])
    await _give_up(world, "cancel", after_s=1.0)
    await world.settle()
    # From 1.0 on both share 10 bytes/s: 13 bytes take 2.6 s, then 0.5 s of delay: 10 + 13 + 5 bytes are down by then.
    assert world.loop.time() == pytest.approx(4.1)
    assert world.bytes(purpose="question", fate="cut") == [28]
    assert [(row.status, row.phase) for row in world.outcomes] == [("cancelled", "down")]


async def test_a_cancel_message_is_too_late_when_the_reply_is_on_its_way() -> None:
    world = small_world()
    await _give_up(world, "cancel", after_s=3.25)  # arrives at 3.88; the reply goes up from 3.5 on
    await world.settle()
    assert [(row.status, row.ended_at_s) for row in world.outcomes] == [("late", 9.0)]
    assert world.bytes(purpose="cancel", fate="late") == [13]
    assert world.bytes(direction="up", fate="late") == [50]


async def test_the_end_of_a_run_waits_for_a_cancel_message_that_outlives_its_request() -> None:
    world = small_world()
    await _give_up(world, "cancel", after_s=8.75)  # the reply arrives at 9.0, the cancel message at 9.38
    await world.settle()
    assert world.loop.time() == pytest.approx(8.75 + 13 / 100 + 0.5)
    assert [(row.status, row.ended_at_s) for row in world.outcomes] == [("late", 9.0)]
    assert world.bytes(purpose="cancel", fate="late") == [13]


async def test_no_cancel_message_goes_to_a_device_that_has_left() -> None:
    world = small_world(availability=leaves(8.6))  # its reply is in the air until 9.0
    await _give_up(world, "cancel", after_s=8.75)
    await world.settle()
    assert world.loop.time() == 9.0
    assert not world.transfers(purpose="cancel")
    assert [row.status for row in world.outcomes] == ["late"]


async def test_a_cancel_message_is_cut_when_the_device_leaves() -> None:
    world = small_world(availability=leaves(2.125))
    await _give_up(world, "cancel", after_s=2.0)  # 12.5 of its 13 bytes are down
    await world.settle()
    assert world.bytes(purpose="cancel") == world.bytes(purpose="cancel", fate="cut") == [12]
    assert [(row.status, row.phase) for row in world.outcomes] == [("dropped", "compute")]


async def test_a_cancel_message_in_the_air_is_cut_whole_when_the_device_leaves() -> None:
    world = small_world(availability=leaves(2.25))
    await _give_up(world, "cancel", after_s=2.0)
    await world.settle()
    assert world.bytes(purpose="cancel", fate="cut") == [13]


async def test_a_cancel_message_uses_the_connection_of_its_request() -> None:
    network = NetworkConfig(server_link="unlimited", transport="tcp", connection="per_request")  # type: ignore[arg-type]
    world = small_world([INSTANT], network=network)
    await _give_up(world, "cancel", after_s=1.0)
    await world.settle()
    assert [row.status for row in world.outcomes] == ["cancelled"]
    assert world.bytes(purpose="cancel", fate="useful") == [13 + 22 + 52]
    assert world.bytes(purpose="setup") == [3116, 618]


def test_the_draws_of_a_cancel_message_do_not_depend_on_the_requests_of_others() -> None:
    profile = replace(ROUND, down_jitter=0.5, rtt_jitter=0.5)

    async def stopped_after_s(before: int) -> float:
        world = small_world([profile, ROUND])
        for attempt in range(before):
            await world.federation.clients[1].request(ask(), Subject(attempt=attempt))
        await asyncio.sleep(1000.0 - world.loop.time())
        await _give_up(world, "cancel", after_s=1.0, seconds=50.0)
        await world.settle()
        return world.outcomes[-1].ended_at_s

    assert clock.run(stopped_after_s(0)) == clock.run(stopped_after_s(2))


async def _give_up(world: SmallWorld, how: str, *, after_s: float, seconds: float = 2.0) -> None:
    """Ask client 0, and give the request up after a time."""
    request = asyncio.ensure_future(world.federation.clients[0].request(ask(seconds)))
    await asyncio.sleep(after_s)
    request.cancel(how)
    with pytest.raises(asyncio.CancelledError):
        await request
