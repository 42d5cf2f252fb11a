"""What a protocol sees: clients and time; and random worlds whose books must balance."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedsim.errors import ClientOffline, Deadlock, FederationError, RequestError, TransferCut
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, Hurry, Subject
from fedsim.federation.stragglers.policies import StragglerConfig, Stragglers
from fedsim.protocols.shared.boundary import first_scored, refused_rewards
from fedsim.records.rows import Fault, Outcome, Presence
from fedsim.sim import clock
from fedsim.sim.devices.availability_config import SessionsConfig
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.presence import AlwaysOn, Availability
from fedsim.sim.devices.sessions import Sessions
from fedsim.sim.faults.config import FaultConfig
from fedsim.sim.network import wire
from fedsim.sim.network.config import NetworkConfig
from tests.samples.worlds import INSTANT, ROUND, SmallWorld, Timetable, ask, leaves, score, small_world, work

# ------------------------------------------------------------------------------------------------------- clients


async def test_clients_are_numbered_and_know_their_class_and_presence() -> None:
    world = small_world([ROUND, INSTANT, ROUND], availability=Timetable({1: [(2.0, 3.0)]}))
    assert [client.client_id for client in world.federation] == [0, 1, 2]
    assert [client.device_class for client in world.federation] == ["round", "instant", "round"]
    assert world.federation.online() == [0, 2]
    await asyncio.sleep(2.0)
    assert world.federation.online() == [0, 1, 2] and world.federation.now_s() == 2.0


async def test_a_federation_without_clients_is_refused() -> None:
    with pytest.raises(FederationError, match="no clients"):
        small_world([])


async def test_a_broadcast_brings_a_reply_or_an_error_for_each() -> None:
    world = small_world([ROUND] * 3, availability=Timetable({1: [], 2: [(0.0, 0.5)]}))
    answers = await world.federation.broadcast(ask(), [2, 0, 1], Subject(draw=4))
    assert list(answers) == [2, 0, 1]
    assert isinstance(answers[0], wire.Rewards)
    assert isinstance(answers[1], ClientOffline) and isinstance(answers[2], TransferCut)
    assert [row.subject for row in world.outcomes] == [4, 4, 4]
    await world.settle()


async def test_a_broadcast_to_nobody_is_empty() -> None:
    assert await small_world().federation.broadcast(ask(), []) == {}


async def test_a_cancelled_broadcast_gives_up_all_its_requests() -> None:
    world = small_world([ROUND] * 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3.0):
            await world.federation.broadcast(ask(), [0, 1])
    await world.settle()
    assert [row.status for row in world.outcomes] == ["late", "late"]


async def test_waiting_for_a_client_ends_when_it_comes() -> None:
    world = small_world(availability=Timetable({0: [(4.0, 5.0)]}))
    await world.federation.client_online(0)
    assert world.loop.time() == 4.0
    await world.federation.client_online(0)
    assert world.loop.time() == 4.0


async def test_waiting_for_a_client_that_never_comes_back_is_an_error() -> None:
    world = small_world(availability=leaves(1.0))
    await asyncio.sleep(2.0)
    with pytest.raises(FederationError, match="client 0 is away and will never come back"):
        await world.federation.clients[0].online()


async def test_waiting_for_anybody_ends_with_the_first_who_comes() -> None:
    world = small_world([ROUND] * 3, availability=Timetable({0: [(9.0, 10.0)], 1: [(4.0, 5.0)], 2: []}))
    await world.federation.any_online([0, 1, 2])
    assert world.loop.time() == 4.0
    await asyncio.sleep(2.0)
    await world.federation.any_online([0, 1, 2])
    assert world.loop.time() == 9.0


@pytest.mark.parametrize("client_ids", [[], [0], [0, 1]])
async def test_waiting_for_nobody_is_an_error_not_a_hang(client_ids: list[int]) -> None:
    world = small_world([ROUND] * 2, availability=Timetable({0: [], 1: [(0.0, 1.0)]}))
    await asyncio.sleep(1.0)
    with pytest.raises(FederationError, match=f"none of the {len(client_ids)} clients"):
        await world.federation.any_online(client_ids)


async def test_a_wait_that_is_given_up_leaves_no_event_behind() -> None:
    world = small_world(availability=Timetable({0: [(1000.0, 1001.0)]}))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await world.federation.client_online(0)
    await asyncio.sleep(0.0)
    with pytest.raises(clock.Deadlock):
        await asyncio.Event().wait()
    assert world.loop.time() == 1.0


async def test_presence_is_put_on_record_up_to_an_instant() -> None:
    world = small_world([ROUND] * 2, availability=Timetable({1: [(1.0, 2.0), (4.0, 9.0)]}))
    world.federation.log_presence(6.0)
    rows = [(row.client_id, row.start_at_s, row.end_at_s) for row in world.log.of(Presence)]
    assert rows == [(0, 0.0, 6.0), (1, 1.0, 2.0), (1, 4.0, 6.0)]


# ---------------------------------------------------------------------------------------------------- end of a run


async def test_after_the_end_no_request_starts_and_everything_under_way_is_charged() -> None:
    world = small_world([ROUND] * 3)
    tasks = [asyncio.ensure_future(client.request(ask(2.0))) for client in world.federation]
    await asyncio.sleep(2.0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert world.federation.num_open_requests == 3 and not world.log.of(Outcome)
    await world.settle()
    assert world.loop.time() == 9.0 and world.federation.num_open_requests == 0
    assert [row.status for row in world.outcomes] == ["late"] * 3
    with pytest.raises(FederationError, match="no new request starts"):
        await world.federation.clients[0].request(ask())
    assert len(world.outcomes) == 3


async def test_draining_an_idle_federation_returns_at_once_and_twice() -> None:
    world = small_world()
    await world.federation.drain()
    await world.federation.drain()
    assert world.loop.time() == 0.0


async def test_draining_waits_for_devices_that_leave() -> None:
    world = small_world(availability=leaves(3.0))
    task = asyncio.ensure_future(world.federation.clients[0].request(ask(50.0)))
    await asyncio.sleep(2.0)
    task.cancel()
    await world.settle()
    assert world.loop.time() == 3.0
    assert [row.status for row in world.outcomes] == ["dropped"]


# ----------------------------------------------------------------------------------------------------- random worlds


@dataclass(frozen=True)
class Request:
    """One request of a random world."""

    client_id: int
    at_s: float
    seconds: float
    deadline_s: float | None
    on_deadline: str
    hurry_s: float | None = None


@dataclass(frozen=True)
class Story:
    """A random world and what is asked in it."""

    num_clients: int
    seed: int
    jitter: float
    sessions: bool
    dropout: DropoutConfig
    network: NetworkConfig
    requests: tuple[Request, ...]
    ends_at_s: float
    on_cut: Literal["abort", "suspend"] = "abort"
    faults: tuple[FaultConfig, ...] = ()


REFUSED_KINDS = ("wrong_length", "non_finite_reward")
HANDLERS = {wire.Candidates: Handler(score, work, wire.Rewards, accept=refused_rewards, partial=first_scored)}
FAULTS: list[FaultConfig] = [
    TypeAdapter(FaultConfig).validate_json(json.dumps(keys))
    for keys in (
        {"kind": "crash", "hazard": "0.05 /s", "for": "3 s"},
        {"kind": "hang", "hazard": "0.05 /s", "for": "4 s"},
        {"kind": "hang", "at": "6 s"},
        {"kind": "partition", "hazard": "0.05 /s", "for": "2 s"},
        {"kind": "partition", "at": "9 s", "clients": [0]},
        {"kind": "slow_link", "at": "2 s", "for": "5 s", "factor": 0.25},
        {"kind": "duplicate_reply", "probability": 0.5},
        {"kind": "late_reply", "probability": 0.5, "delay": "3 s"},
        {"kind": "wrong_length", "probability": 0.5, "by": -1},
        {"kind": "non_finite_reward", "probability": 0.5},
        {"kind": "corrupt_reward", "probability": 0.5, "how": "inverted"},
    )
]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    num_clients = draw(st.integers(1, 4))
    # Whole and half seconds make instants coincide: the ties are where bugs live.
    instants = st.integers(0, 40).map(lambda n: n / 2)
    request = st.builds(
        Request,
        st.integers(0, num_clients - 1),
        instants,
        st.sampled_from([0.0, 0.5, 2.0, 7.0]),
        st.none() | st.sampled_from([0.5, 1.0, 3.0, 9.0]),
        st.sampled_from(["late", "cancel", "over_selected"]),
        st.none() | st.sampled_from([0.5, 2.0, 4.0]),
    )
    rate = st.sampled_from(["unlimited", "800 bit/s", "2 kbit/s"])
    return Story(
        num_clients=num_clients,
        seed=draw(st.integers(0, 2**32)),
        jitter=draw(st.sampled_from([0.0, 0.5])),
        sessions=draw(st.booleans()),
        dropout=DropoutConfig(
            per_task=draw(st.sampled_from([0.0, 0.3])),
            hazard=draw(st.sampled_from(["0 /s", "0.05 /s"])),  # type: ignore[arg-type]
        ),
        network=NetworkConfig(
            server_link={"down": draw(rate), "up": draw(rate)},  # type: ignore[arg-type]
            transport=draw(st.sampled_from(["ideal", "tcp"])),
            connection=draw(st.sampled_from(["keep_alive", "per_request"])),
            loss=draw(st.sampled_from([0.0, 0.3])),
        ),
        requests=tuple(draw(st.lists(request, min_size=1, max_size=12))),
        ends_at_s=draw(st.sampled_from([5.0, 20.0, 10_000.0])),
        on_cut=draw(st.sampled_from(["abort", "suspend"])),
        faults=tuple(draw(st.lists(st.sampled_from(FAULTS), max_size=2, unique_by=id))),
    )


def play(story: Story, num_idle: int = 0) -> SmallWorld:
    """Ask as the story says, end the run at its instant, drain; ``settle`` checks the invariants."""

    async def main() -> SmallWorld:
        jitter = story.jitter
        profile = replace(
            ROUND, compute_jitter=jitter, up_jitter=jitter, down_jitter=jitter, rtt_jitter=jitter
        )
        availability: Availability = AlwaysOn()
        if story.sessions:
            lengths = {"mean_on": "12 s", "mean_off": "5 s"}
            availability = Sessions(SessionsConfig(kind="sessions", **lengths), story.seed)  # type: ignore[arg-type]
        world = small_world(
            [profile] * (story.num_clients + num_idle),
            availability=availability,
            network=story.network,
            dropout=story.dropout,
            handlers=HANDLERS,
            seed=story.seed,
            on_cut=story.on_cut,
            faults=story.faults,
        )
        begun: list[int] = []
        tasks = [
            asyncio.ensure_future(_play_request(world.federation, n, request, begun))
            for n, request in enumerate(story.requests)
        ]
        with contextlib.suppress(Deadlock):  # somebody waits for a device that hangs, or is cut off, for good
            await asyncio.wait(tasks, timeout=story.ends_at_s if story.ends_at_s < 1000.0 else None)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() or task.exception() is None for task in tasks)
        await world.settle()
        assert len(world.outcomes) == len(begun)
        return world

    return clock.run(main(), max_events=200_000)


async def _play_request(federation: Federation, number: int, request: Request, begun: list[int]) -> None:
    await asyncio.sleep(request.at_s)
    begun.append(number)
    subject, hurry = Subject(draw=number, question_id=number), Hurry()
    asked = asyncio.ensure_future(
        federation.clients[request.client_id].request(ask(request.seconds, number), subject, hurry)
    )
    if request.hurry_s is not None:
        asyncio.get_running_loop().call_later(request.hurry_s, hurry.now)
    try:
        done, _ = await asyncio.wait([asked], timeout=request.deadline_s)
    finally:
        asked.cancel(request.on_deadline)
    if done and isinstance(asked.exception(), Exception):
        assert isinstance(asked.exception(), RequestError)


@given(stories())
@settings(max_examples=100, deadline=None)
def test_in_any_world_the_books_balance_and_every_request_has_one_outcome(story: Story) -> None:
    world = play(story)
    ids = [row.request_id for row in world.outcomes]
    begun_as = {row.request_id: row.subject for row in world.outcomes}
    assert len(ids) == len(set(ids))
    assert world.federation.num_open_requests == 0
    status = {row.request_id: row.status for row in world.outcomes}
    phase = {row.request_id: row.phase for row in world.outcomes}
    arrived = {request_id for request_id, one in status.items() if one in ("ok", "late", "over_selected")}
    rewarded = {row.request_id for row in world.rewards}
    refusable = {row.request_id for row in world.log.of(Fault) if row.kind in REFUSED_KINDS}
    assert rewarded <= arrived and arrived - rewarded <= refusable  # a late one may be wrong, too
    arrived |= {request_id for request_id, one in status.items() if one == "failed"}
    assert all(phase[request_id] == "done" for request_id in arrived)
    for row in world.transfers():
        # A fault that makes a reply shorter may leave it without any reward, and so without bytes in the paper's account.
        assert (row.paper_bytes > 0) == (
            row.direction == "up"
            and row.purpose == "reward"
            and row.request_id in arrived
            and row.message_bytes > len(wire.encode(wire.Rewards(wire.pack_id(0), ())))
            and row.fate not in ("duplicate", "cut")
        )
        if row.fate == "useful":
            assert status[row.request_id] == "ok" or row.purpose in ("cancel", "control")
    for row in world.computes:
        finished = row.request_id in arrived or phase[row.request_id] == "up"
        assert row.cut is not finished
    if story.on_cut == "suspend":  # these devices always come back
        assert "device left" not in {row.cause for row in world.outcomes}
    for request_id in {row.request_id for row in world.computes}:
        request = story.requests[begun_as[request_id]]
        flop = math.fsum(row.flop for row in world.computes if row.request_id == request_id)
        was_cut = any(row.cut for row in world.computes if row.request_id == request_id)
        if was_cut or request.hurry_s is not None:
            assert flop <= request.seconds * (1.0 + 1e-9)
        else:
            assert flop == pytest.approx(request.seconds)
    if not story.jitter:  # the devices do 1 FLOP/s
        assert all(row.flop <= row.end_at_s - row.start_at_s + 1e-9 for row in world.computes)
    asked = [row.request_id for row in world.transfers(direction="down") if row.message_bytes == 100]
    assert sorted(asked) == sorted(request_id for request_id in ids if status[request_id] != "offline")


@given(stories())
@settings(max_examples=30, deadline=None)
def test_the_same_world_gives_the_same_records(story: Story) -> None:
    assert play(story).log.sha256() == play(story).log.sha256()


@given(stories(), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_an_idle_client_more_changes_nobodys_records(story: Story, num_idle: int) -> None:
    assert play(story, num_idle).log.sha256() == play(story).log.sha256()


def mixed_story() -> Story:
    requests = [
        Request(n % 4, n / 2, 2.0, (None, 3.0, 9.0)[n % 3], ("late", "cancel")[n % 2]) for n in range(40)
    ]
    network = NetworkConfig(server_link="2 kbit/s", transport="tcp", connection="per_request", loss=0.1)  # type: ignore[arg-type]
    dropout = DropoutConfig(per_task=0.1, hazard="0.01 /s")  # type: ignore[arg-type]
    return Story(4, 7, 0.5, True, dropout, network, tuple(requests), 60.0)


def test_records_are_the_same_in_a_process_with_another_hash_seed() -> None:
    code = (
        "from tests.federation.test_clients import mixed_story, play; print(play(mixed_story()).log.sha256())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "2"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == play(mixed_story()).log.sha256()


async def test_a_mixed_round_by_hand() -> None:
    """Four clients and a deadline of 10 s: in time, late, gone, and away."""
    world = small_world([ROUND] * 4, availability=Timetable({2: [(0.0, 4.5)], 3: []}))
    seconds = {0: 2.0, 1: 6.0, 2: 2.0, 3: 2.0}
    config = StragglerConfig(policy="deadline", deadline="10 s")  # type: ignore[arg-type]
    replies = await Stragglers(config, world.loop.time).collect(
        lambda k, _: world.federation.clients[k].request(ask(seconds[k])), list(seconds)
    )
    assert list(replies) == [0]
    await world.settle()
    assert [(row.client_id, row.status, row.phase, row.ended_at_s) for row in world.outcomes] == [
        (3, "offline", "down", 0.0),
        (2, "cut", "up", 4.5),
        (0, "ok", "done", 9.0),
        (1, "late", "done", 13.0),
    ]
    by_fate = {fate: sum(world.bytes(fate=fate)) for fate in ("useful", "late", "cut")}
    assert by_fate == {"useful": 150, "late": 150, "cut": 110}
    assert sum(row.paper_bytes for row in world.transfers()) == 64
    assert world.federation.carried_bytes == {"down": 300.0, "up": 110.0}
