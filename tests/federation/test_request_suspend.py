"""``on_cut: suspend``: work under way sleeps while its device is away; digits as in ``tests/samples/worlds.py``."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.errors import ClientDropped, ClientOffline, Deadlock, TransferCut
from fedsim.federation.handlers import Subject
from fedsim.sim import clock
from fedsim.sim.devices.availability_config import SessionsConfig
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.devices.sessions import Sessions
from fedsim.sim.faults.config import HangConfig
from fedsim.sim.streams import Part
from tests.samples.worlds import ROUND, SmallWorld, Timetable, ask, leaves, small_world

KEY = (0, "question", -1, -1, 0)


def sleepy(*absences: tuple[float, float]) -> SmallWorld:
    """One device that is away in these intervals and suspends its work."""
    edges = [0.0, *(edge for absence in absences for edge in absence), 1000.0]
    present = list(zip(edges[::2], edges[1::2], strict=True))
    return small_world(availability=Timetable({0: present}), on_cut="suspend")


@pytest.mark.parametrize(
    ("away", "ends_at_s", "down", "computed", "up"),
    [
        ((0.5, 3.0), 11.5, (0.0, 3.5), [(4.0, 6.0)], (6.0, 11.0)),  # while the question comes down
        ((2.5, 7.5), 14.0, (0.0, 1.0), [(1.5, 2.5), (7.5, 8.5)], (8.5, 13.5)),  # while it computes
        ((4.5, 6.5), 11.0, (0.0, 1.0), [(1.5, 3.5)], (3.5, 10.5)),  # while the reply goes up
        ((1.25, 1.375), 9.0, (0.0, 1.0), [(1.5, 3.5)], (3.5, 8.5)),  # in the air, and back before it arrives
        ((1.25, 4.0), 11.5, (0.0, 1.0), [(4.0, 6.0)], (6.0, 11.0)),  # in the air, and it waits at the door
        (
            (8.75, 20.0),
            9.0,
            (0.0, 1.0),
            [(1.5, 3.5)],
            (3.5, 8.5),
        ),  # the reply in the air arrives all the same
    ],
)
async def test_work_goes_on_where_it_stopped(
    away: tuple[float, float],
    ends_at_s: float,
    down: tuple[float, float],
    computed: list[tuple[float, float]],
    up: tuple[float, float],
) -> None:
    world = sleepy(away)
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == ends_at_s
    assert [(row.start_at_s, row.end_at_s) for row in world.transfers()] == [down, up]
    assert world.bytes(fate="useful") == world.bytes() == [100, 50]
    assert [(row.start_at_s, row.end_at_s) for row in world.computes] == computed
    assert sum(row.flop for row in world.computes) == 2.0
    assert sum(row.energy_j for row in world.computes) == 2.0 * 3.0  # nothing while it sleeps
    assert [(row.status, row.phase) for row in world.outcomes] == [("ok", "done")]
    await world.settle()


async def test_two_absences_in_one_computation_leave_three_stretches_that_share_its_work() -> None:
    world = sleepy((2.0, 5.0), (6.0, 9.0))
    await world.federation.clients[0].request(ask(2.0))
    assert [(row.start_at_s, row.end_at_s, row.flop, row.cut) for row in world.computes] == [
        (1.5, 2.0, 0.5, False),
        (5.0, 6.0, 1.0, False),
        (9.0, 9.5, 0.5, False),
    ]
    assert world.loop.time() == 15.0
    await world.settle()


async def test_the_queue_keeps_its_order_while_the_device_is_away() -> None:
    world = sleepy((4.0, 10.0))
    client = world.federation.clients[0]
    await asyncio.gather(*(client.request(ask(2.0), Subject(attempt=n)) for n in range(3)))
    # Three questions share the downlink until 3.0 and arrive at 3.5: half a second of work is done when it leaves.
    spans = [(row.request_id, row.start_at_s, row.end_at_s) for row in world.computes]
    assert spans == [(0, 3.5, 4.0), (0, 10.0, 11.5), (1, 11.5, 13.5), (2, 13.5, 15.5)]
    await world.settle()


async def test_a_device_that_sleeps_is_not_there_to_be_asked() -> None:
    world = sleepy((2.0, 10.0))
    first = asyncio.ensure_future(world.federation.clients[0].request(ask(2.0)))
    await asyncio.sleep(5.0)
    with pytest.raises(ClientOffline):
        await world.federation.clients[0].request(ask(2.0), Subject(attempt=1))
    await first
    assert [row.status for row in world.outcomes] == ["offline", "ok"]


async def test_a_device_that_never_comes_back_cuts_its_work_when_it_leaves() -> None:
    world = small_world(availability=leaves(2.0), on_cut="suspend")
    with pytest.raises(ClientDropped) as caught:
        await world.federation.clients[0].request(ask(2.0))
    assert caught.value.phase == "compute" and world.loop.time() == 2.0
    assert [(row.status, row.cause) for row in world.outcomes] == [("dropped", "device left")]
    await world.settle()


async def test_work_that_hangs_for_good_is_found_out_although_its_device_comes_and_goes() -> None:
    hang = HangConfig(kind="hang", at="2 s")  # type: ignore[arg-type]
    coming_and_going = Sessions(
        SessionsConfig(kind="sessions", mean_on="5 s", mean_off="5 s"),  # type: ignore[arg-type]
        seed=3,
    )
    world = small_world(availability=coming_and_going, on_cut="suspend", faults=[hang], seed=3)
    await world.federation.clients[0].online()
    with pytest.raises(Deadlock):
        await world.federation.clients[0].request(ask(50.0))
    await world.settle()
    assert [(row.status, row.phase, row.cause) for row in world.outcomes] == [
        ("dropped", "compute", "fault: hang")
    ]


class Gone(Timetable):
    """Away from 4.5 on for one reason, until 6.0 for another, and from then on for good."""

    def __init__(self) -> None:
        super().__init__({0: [(0.0, 4.5)]})

    def next_change(self, client_id: int, at_s: float) -> float:
        return 4.5 if at_s < 4.5 else 6.0 if at_s < 6.0 else math.inf


async def test_a_sleeping_device_that_is_gone_for_good_after_all_cuts_its_work_then() -> None:
    world = small_world(availability=Gone(), on_cut="suspend")
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 6.0
    assert world.bytes(direction="up", fate="cut") == [10]  # 1 s of 10 bytes/s, and nothing while it was away
    await world.settle()


async def test_a_cancel_message_that_reaches_a_sleeping_device_waits_at_its_door() -> None:
    world = sleepy((2.25, 6.0))
    request = asyncio.ensure_future(world.federation.clients[0].request(ask(2.0)))
    await asyncio.sleep(2.0)
    request.cancel("cancel")  # its 13 bytes are down at 2.13 and in the air until 2.63
    await world.settle()
    assert world.loop.time() == 6.0
    assert [(row.status, row.ended_at_s) for row in world.outcomes] == [("cancelled", 6.0)]
    assert [(row.start_at_s, row.end_at_s) for row in world.computes] == [(1.5, 2.25), (6.0, 6.0)]
    assert world.bytes(purpose="cancel", fate="useful") == [13]


async def test_the_hazard_stands_still_while_the_device_sleeps() -> None:
    dropout = DropoutConfig(hazard="0.2 /s")  # type: ignore[arg-type]
    seed = next(s for s in range(999) if 2.0 < Dropout(dropout, s).endurance(KEY) / 0.2 < 3.0)
    fails_s = Dropout(dropout, seed).endurance(KEY) / 0.2
    world = small_world(
        availability=Timetable({0: [(0.0, 2.0), (50.0, 99.0)]}), on_cut="suspend", dropout=dropout, seed=seed
    )
    with pytest.raises(ClientDropped):
        await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == pytest.approx(48.0 + fails_s)
    await world.settle()


class HalfSpeed:
    """Every computation takes twice as long."""

    def finish_at_s(
        self, client_id: int, key: tuple[Part, ...], start_at_s: float, nominal_s: float
    ) -> float:
        return start_at_s + 2 * nominal_s

    def progress_s(self, client_id: int, key: tuple[Part, ...], start_at_s: float, end_at_s: float) -> float:
        return (end_at_s - start_at_s) / 2


async def test_a_slowed_down_computation_keeps_the_work_that_it_did_not_the_time_that_it_took() -> None:
    world = small_world(
        availability=Timetable({0: [(0.0, 2.5), (10.0, 99.0)]}), on_cut="suspend", slowdowns=HalfSpeed()
    )
    await world.federation.clients[0].request(ask(2.0))
    # One second of real time is half a second of work; 1.5 are left and take 3.
    assert [(row.start_at_s, row.end_at_s, row.flop) for row in world.computes] == [
        (1.5, 2.5, 0.5),
        (10.0, 13.0, 1.5),
    ]
    await world.settle()


async def test_a_slow_down_stretches_the_computation_and_nothing_else() -> None:
    world = small_world(slowdowns=HalfSpeed())
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 11.0
    assert [(row.start_at_s, row.end_at_s) for row in world.transfers()] == [(0.0, 1.0), (5.5, 10.5)]


@given(
    st.lists(st.tuples(st.floats(0.125, 4.0), st.floats(0.125, 4.0)), max_size=6),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_sleeping_loses_nothing_and_the_time_asleep_is_all_that_it_costs(
    spells: list[tuple[float, float]], seconds: list[float]
) -> None:
    """Without delays in the air, the last instant is that of the undisturbed world plus the absences before it."""
    present, at_s = [], 0.0
    for on_s, off_s in spells:
        present.append((at_s, at_s + on_s))
        at_s += on_s + off_s
    present.append((at_s, 1e6))

    async def play(timetable: Timetable) -> SmallWorld:
        world = small_world([replace(ROUND, rtt_s=0.0)], availability=timetable, on_cut="suspend")
        client = world.federation.clients[0]
        await asyncio.gather(*(client.request(ask(one), Subject(attempt=n)) for n, one in enumerate(seconds)))
        await world.settle()
        return world

    plain, slept = clock.run(play(Timetable({}))), clock.run(play(Timetable({0: present})))
    assert [row.status for row in slept.outcomes] == ["ok"] * len(seconds)
    assert sum(slept.bytes()) == sum(plain.bytes())
    busy_s = [sum(row.end_at_s - row.start_at_s for row in one.computes) for one in (plain, slept)]
    assert busy_s[0] == pytest.approx(busy_s[1])
    ends_at_s = plain.outcomes[-1].ended_at_s
    for (_, leaves_at_s), (back_at_s, _) in pairwise(present):
        if leaves_at_s < ends_at_s - 1e-9:
            ends_at_s += back_at_s - leaves_at_s
    assert slept.outcomes[-1].ended_at_s == pytest.approx(ends_at_s, abs=1e-6)
