"""Faults on purpose and the server's boundary, seen by one request; digits as in ``tests/samples/worlds.py``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from fedsim.errors import ClientDropped, ClientOffline, Deadlock, ReplyRejected, TransferCut
from fedsim.federation.handlers import Handler, Subject
from fedsim.protocols.shared.boundary import first_scored, refused_rewards
from fedsim.records.rows import Fault
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.faults.config import FaultConfig
from fedsim.sim.network import wire
from tests.samples.worlds import ROUND, SmallWorld, Timetable, ask, score, small_world, work

CHECKED: Mapping[type[wire.Message], Handler] = {
    wire.Candidates: Handler(score, work, wire.Rewards, accept=refused_rewards, partial=first_scored)
}
_CONFIG: TypeAdapter[Any] = TypeAdapter(FaultConfig)


def struck(kind: str, **keys: Any) -> SmallWorld:
    """One device with checked replies and one fault; ``world`` keys go to the world."""
    world = keys.pop("world", {})
    keys = {name: f"{value} s" if isinstance(value, float) else value for name, value in keys.items()}
    config = _CONFIG.validate_json(json.dumps({"kind": kind, **keys}))
    return small_world(handlers=CHECKED, faults=[config], **world)


def fault_rows(world: SmallWorld) -> list[tuple[str, int, float, float]]:
    return [(row.kind, row.request_id, row.start_at_s, row.end_at_s) for row in world.log.of(Fault)]


# The server's boundary.


@pytest.mark.parametrize(
    ("kind", "keys", "why"),
    [
        ("wrong_length", {"by": -1}, "3 rewards for 4 candidates"),
        ("wrong_length", {"by": 2}, "6 rewards for 4 candidates"),
        ("non_finite_reward", {}, " is nan, not in [0, 1]"),
    ],
)
async def test_a_reply_that_cannot_be_right_is_refused_and_charged_as_rejected(
    kind: str, keys: dict[str, Any], why: str
) -> None:
    world = struck(kind, world={"seed": 3}, **keys)
    with pytest.raises(ReplyRejected) as caught:
        await world.federation.clients[0].request(ask(2.0))
    assert caught.value.reason.endswith(why)
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase) == ("failed", "done")
    assert outcome.cause == f"rejected: {caught.value.reason} (fault: {kind})"
    assert {row.fate for row in world.transfers()} == {"rejected"} and len(world.transfers()) == 2
    assert not world.rewards
    assert fault_rows(world) == [(kind, 0, 3.5, 3.5)]
    await world.settle()


async def test_a_handler_that_breaks_its_own_protocol_is_refused_without_any_fault() -> None:
    handlers = {
        wire.Candidates: Handler(score, work, wire.Rewards, accept=lambda asked, reply: "no such thing")
    }
    world = small_world(handlers=handlers)
    with pytest.raises(ReplyRejected, match="no such thing"):
        await world.federation.clients[0].request(ask(2.0))
    assert [(row.status, row.cause) for row in world.outcomes] == [("failed", "rejected: no such thing")]
    await world.settle()


async def test_a_reply_that_nobody_waits_for_is_not_looked_at() -> None:
    world = struck("wrong_length")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(4.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [row.status for row in world.outcomes] == ["late"]


@pytest.mark.parametrize(
    ("kind", "num_rows"), [("wrong_length", 0), ("non_finite_reward", 0), ("late_reply", 1)]
)
async def test_rewards_that_come_too_late_are_on_record_only_if_the_server_could_have_used_them(
    kind: str, num_rows: int
) -> None:
    keys = {"delay": 5.0} if kind == "late_reply" else {}
    world = struck(kind, **keys)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [row.status for row in world.outcomes] == ["late"]
    assert len(world.rewards) == num_rows


async def test_a_corrupted_reward_within_range_cannot_be_told_and_is_on_record() -> None:
    world = struck("corrupt_reward", how="inverted")
    reply = await world.federation.clients[0].request(ask(2.0))
    assert isinstance(reply, wire.Rewards) and reply.rewards == (1.0, 0.75, 0.5, 0.0)
    assert fault_rows(world) == [("corrupt_reward", 0, 3.5, 3.5)]
    assert [row.status for row in world.outcomes] == ["ok"]


# Replies that come twice, or late.


async def test_a_doubled_reply_travels_twice_and_the_second_copy_is_charged_as_duplicate() -> None:
    world = struck("duplicate_reply")
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 9.0
    await world.settle()
    assert world.loop.time() == 14.0  # the copy follows the reply: up 8.5 .. 13.5, and 0.5 s in the air
    up = [
        (row.fate, row.wire_bytes, row.paper_bytes, row.end_at_s) for row in world.transfers(direction="up")
    ]
    assert up == [("useful", 50, 32, 8.5), ("duplicate", 50, 0, 13.5)]
    assert [row.status for row in world.outcomes] == ["ok"]
    assert len(world.rewards) == 1


async def test_a_second_copy_is_cut_when_its_device_leaves() -> None:
    world = struck("duplicate_reply", world={"availability": Timetable({0: [(0.0, 10.5)]})})
    await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert world.bytes(direction="up", fate="cut") == [20]
    assert [row.status for row in world.outcomes] == ["ok"]


async def test_a_reply_held_back_comes_late_and_says_why() -> None:
    world = struck("late_reply", delay=10.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(12.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [(row.status, row.cause, row.ended_at_s) for row in world.outcomes] == [
        ("late", "fault: late_reply", 19.0)
    ]
    assert fault_rows(world) == [("late_reply", 0, 3.5, 13.5)]
    assert [(row.start_at_s, row.end_at_s) for row in world.transfers(direction="up")] == [(13.5, 18.5)]


async def test_a_device_that_leaves_while_its_reply_is_held_back_has_sent_none_of_it() -> None:
    world = struck("late_reply", delay=10.0, world={"availability": Timetable({0: [(0.0, 6.0)]})})
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(ask(2.0))
    await asyncio.sleep(50.0)
    assert world.bytes() == [100]
    await world.settle()


# Devices that crash or hang, and links.


@pytest.mark.parametrize("on_cut", ["abort", "suspend"])
async def test_a_crash_loses_the_work_also_where_absences_do_not(on_cut: str) -> None:
    world = struck("crash", at=2.0, **{"for": 3.0}, world={"on_cut": on_cut})
    with pytest.raises(ClientDropped):
        await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 2.0
    with pytest.raises(ClientOffline):
        await world.federation.clients[0].request(ask(2.0), Subject(attempt=1))
    await asyncio.sleep(3.0)
    await world.federation.clients[0].request(ask(2.0), Subject(attempt=2))
    assert [(row.status, row.phase, row.cause) for row in world.outcomes] == [
        ("dropped", "compute", "fault: crash"),
        ("offline", "down", "fault: crash"),
        ("ok", "done", ""),
    ]
    await world.settle()


async def test_a_crash_while_the_device_sleeps_loses_what_slept() -> None:
    away = Timetable({0: [(0.0, 2.0), (20.0, 99.0)]})
    world = struck("crash", at=5.0, **{"for": 1.0}, world={"on_cut": "suspend", "availability": away})
    with pytest.raises(ClientDropped):
        await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 5.0
    assert [row.cause for row in world.outcomes] == ["fault: crash"]
    assert [(row.start_at_s, row.end_at_s, row.cut) for row in world.computes] == [(1.5, 2.0, True)]
    await world.settle()


async def test_a_hang_holds_the_computation_up_and_is_named_when_the_reply_is_late() -> None:
    world = struck("hang", at=2.0, **{"for": 10.0})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(9.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [(row.start_at_s, row.end_at_s) for row in world.computes] == [(1.5, 13.5)]
    assert [(row.status, row.cause) for row in world.outcomes] == [("late", "fault: hang")]


async def test_a_hang_that_comes_after_the_deadline_is_not_to_blame() -> None:
    world = struck("hang", at=3.0, **{"for": 10.0})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    assert [(row.status, row.cause) for row in world.outcomes] == [("late", "nobody waited any more")]


async def test_a_partition_holds_the_bytes_up_until_it_ends() -> None:
    world = struck("partition", at=0.5, **{"for": 4.0})
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 13.0 and world.bytes(fate="useful") == [100, 50]
    await world.settle()


@pytest.mark.parametrize("server_link", [False, True])
@pytest.mark.parametrize(("kind", "phase"), [("hang", "compute"), ("partition", "up")])
async def test_what_can_never_end_is_ended_with_the_run_and_named(
    kind: str, phase: str, server_link: bool
) -> None:
    if kind == "hang" and server_link:
        return
    keys = {"server_link": True} if server_link else {}
    world = struck(kind, at=2.0 if kind == "hang" else 3.75, **keys)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(9.0):
            await world.federation.clients[0].request(ask(2.0))
    await world.settle()  # does not wait for ever
    (outcome,) = world.outcomes
    assert (outcome.phase, outcome.cause) == (phase, f"fault: {kind}")
    assert outcome.status == ("dropped" if kind == "hang" else "cut")


async def test_who_waits_for_what_can_never_come_is_told_so() -> None:
    world = struck("hang", at=2.0)
    with pytest.raises(Deadlock):
        await world.federation.clients[0].request(ask(2.0))


async def test_a_partition_of_the_servers_link_that_ends_is_no_deadlock() -> None:
    world = struck("partition", at=0.5, server_link=True, **{"for": 4.0})
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 13.0
    await world.settle()


async def test_a_device_may_leave_while_its_transfer_stands_still_and_nothing_else_happens() -> None:
    world = struck("partition", at=0.5, world={"availability": Timetable({0: [(0.0, 100.0)]})})
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 100.0
    assert world.bytes(fate="cut") == [50]
    await world.settle()


async def test_a_fault_of_one_device_leaves_the_other_alone() -> None:
    world = struck("hang", at=0.0, clients=[0], world={"profiles": [ROUND, ROUND]})
    await world.federation.clients[1].request(ask(2.0))
    assert world.loop.time() == 9.0
    await world.settle()


# A fault beside another end.


@pytest.mark.parametrize(
    ("kind", "keys", "leaves_at_s", "cause"),
    [
        ("hang", {"at": 2.0}, 5.0, "device left (during fault: hang)"),
        ("hang", {"at": 2.0, "for": 1.0}, 3.25, "device left"),
        ("hang", {"at": 4.0}, 3.25, "device left"),
        ("partition", {"at": 4.0}, 5.0, "device left (during fault: partition)"),
        ("late_reply", {"delay": "9 s"}, 5.0, "device left (during fault: late_reply)"),
        ("late_reply", {"delay": "1 s"}, 6.0, "device left"),
        ("crash", {"at": 3.0}, 5.0, "fault: crash"),
    ],
    ids=["holds", "is over", "is to come", "link", "delay holds", "delay is over", "ends it"],
)
async def test_a_request_that_ends_while_a_fault_holds_bears_both(
    kind: str, keys: dict[str, Any], leaves_at_s: float, cause: str
) -> None:
    """Compute 1.5 .. 3.5, up 3.5 .. 8.5 without the fault."""
    world = struck(kind, world={"availability": Timetable({0: [(0.0, leaves_at_s)]})}, **keys)
    with pytest.raises((ClientDropped, TransferCut)):
        await world.federation.clients[0].request(ask(2.0))
    await world.settle()
    (outcome,) = world.outcomes
    assert outcome.cause == cause
    assert outcome.ended_at_s == (3.0 if kind == "crash" else leaves_at_s)


async def test_a_hazard_that_strikes_during_a_hang_says_so() -> None:
    dropout = DropoutConfig.model_validate({"hazard": {"compute": "1 /s"}})
    world = struck("hang", at=1.0, world={"dropout": dropout})
    with pytest.raises(ClientDropped):
        await world.federation.clients[0].request(ask(2.0))
    assert [(row.status, row.cause) for row in world.outcomes] == [("dropped", "hazard (during fault: hang)")]
