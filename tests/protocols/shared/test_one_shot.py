"""Asking everybody once: each when it is there, again after a failure, and what a deadline and absence do."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from fedsim.errors import FederationError
from fedsim.protocols.shared.one_shot import GatheringConfig, gather
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.network import wire
from tests.protocols.test_central_pooled import ROWS, owners
from tests.samples.fakes import FakeEvaluator, Stage, device, settings, stage
from tests.samples.worlds import NO_DROPOUT, Timetable

REQUEST = wire.RowsRequest(wire.pack_id(0))


def world(*, intervals=None, dropout=NO_DROPOUT, seconds=(1.0, 1.0, 1.0)) -> Stage:
    return stage(
        settings("central_pooled"),
        [FakeEvaluator()] * 3,
        data=owners(ROWS),
        availability=Timetable(intervals or {}),
        dropout=dropout,
        profiles=[device(one) for one in seconds],
    )


async def gathered(on: Stage, **keys) -> dict[int, wire.Message]:
    replies = await gather(on.federation, REQUEST, GatheringConfig(**keys))
    on.ended_at_s = asyncio.get_running_loop().time()
    await on.federation.drain()
    return replies


async def test_everybody_is_asked_at_once_and_answers_come_by_client():
    on = world(seconds=(3.0, 1.0, 2.0))
    replies = await gathered(on)
    assert list(replies) == [0, 1, 2]
    assert [len(reply.questions) for reply in replies.values()] == [5, 0, 3]
    assert on.took_s == pytest.approx(3.0)


async def test_a_client_that_is_away_is_asked_when_it_comes():
    on = world(intervals={2: [(10.0, 100.0)]})
    assert list(await gathered(on)) == [0, 1, 2]
    assert {row.client_id: row.sent_at_s for row in on.outcomes}[2] == 10.0
    assert {row.status for row in on.outcomes} == {"ok"}


async def test_a_client_that_never_comes_is_left_out():
    on = world(intervals={2: []})
    assert list(await gathered(on)) == [0, 1]
    assert {row.client_id for row in on.outcomes} == {0, 1}


async def test_a_client_that_leaves_is_asked_again_from_the_start():
    on = world(intervals={2: [(0.0, 4.0), (10.0, 100.0)]}, seconds=(1.0, 1.0, 5.0))
    assert list(await gathered(on)) == [0, 1, 2]
    ended = [(row.sent_at_s, row.status) for row in on.outcomes if row.client_id == 2]
    assert ended == [(0.0, "dropped"), (10.0, "ok")]


async def test_a_client_that_always_fails_is_given_up_after_so_many_attempts():
    on = world(intervals={2: [(float(t), t + 0.5) for t in range(100)]})
    assert list(await gathered(on, attempts=4)) == [0, 1]
    assert [row.status for row in on.outcomes if row.client_id == 2] == ["dropped"] * 4


async def test_nobody_who_answers_is_an_error():
    with pytest.raises(FederationError, match="no client answered"):
        await gathered(world(dropout=DropoutConfig(per_task=1.0)), attempts=3)


async def test_those_who_are_still_out_at_the_deadline_are_given_up_as_late():
    on = world(intervals={1: [(9.0, 99.0)]}, seconds=(1.0, 1.0, 6.0))
    assert list(await gathered(on, stragglers={"policy": "deadline", "deadline": "5 s"})) == [0]
    # Client 1 was away all the time: nothing was ever sent to it.
    assert {row.client_id: row.status for row in on.outcomes} == {0: "ok", 2: "late"}


async def test_a_quorum_is_content_with_the_first_so_many_and_a_lost_client_is_none_of_them():
    on = world(intervals={0: []}, seconds=(1.0, 4.0, 2.0))
    assert list(await gathered(on, stragglers={"policy": "quorum", "quorum": 1, "grace": "1 s"})) == [2]
    assert on.took_s == pytest.approx(3.0)
    assert {row.client_id: row.status for row in on.outcomes} == {2: "ok", 1: "late"}


@pytest.mark.parametrize(
    ("stragglers", "reason"),
    [
        ({"missing": "zero"}, "missing must be mask"),
        ({"policy": "adaptive"}, "needs a history, but everybody is asked once"),
        ({"policy": "hedged", "hedge_after": "1 s"}, "clients that were not asked yet"),
        (
            {"policy": "deadline", "deadline": "1 s", "partial": True, "partial_grace": "1 s"},
            "partial is for rewards",
        ),
    ],
)
def test_what_cannot_work_when_everybody_is_asked_once_is_refused(stragglers, reason):
    with pytest.raises(ValidationError, match=reason):
        GatheringConfig(stragglers=stragglers)


async def test_cancelling_the_gathering_gives_every_request_up_as_late():
    on = world(seconds=(10.0, 10.0, 10.0))
    task = asyncio.create_task(gather(on.federation, REQUEST, GatheringConfig()))
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await on.federation.drain()
    assert {row.status for row in on.outcomes} == {"late"}
