"""The server's accelerator: one job at a time, first come first served, whoever is cancelled."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim import clock
from fedsim.sim.devices.cost import Work
from tests.samples.worlds import SmallWorld, small_world


async def test_the_server_computes_one_job_at_a_time_in_the_order_of_asking() -> None:
    world = small_world()
    await asyncio.gather(
        *(world.federation.server.compute(Work(s, 0.0), "update", n) for n, s in enumerate((3, 1, 2)))
    )
    spans = [(row.request_id, row.start_at_s, row.end_at_s, row.cut) for row in world.computes]
    assert spans == [(0, 0.0, 3.0, False), (1, 3.0, 4.0, False), (2, 4.0, 6.0, False)]
    assert {(row.client_id, row.kind) for row in world.computes} == {(-1, "update")}


async def test_nobody_barges_in_between_two_jobs() -> None:
    world = small_world()
    server = world.federation.server

    async def arrive(number: int, at_s: float) -> None:
        await asyncio.sleep(at_s)
        await server.compute(Work(2.0, 0.0), "job", number)

    await asyncio.gather(arrive(0, 0.0), arrive(1, 1.0), arrive(2, 2.0))
    assert [(row.request_id, row.start_at_s) for row in world.computes] == [(0, 0.0), (1, 2.0), (2, 4.0)]


async def test_a_running_job_and_those_that_wait_can_all_be_cancelled_at_one_instant() -> None:
    world = small_world()
    server = world.federation.server
    jobs = [asyncio.ensure_future(server.compute(Work(2.0, 0.0), "job", n)) for n in range(3)]
    await asyncio.sleep(1.0)
    for job in jobs:
        job.cancel()
    ends = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 3
    await server.compute(Work(2.0, 0.0), "job", 3)
    spans = [(row.request_id, row.start_at_s, row.end_at_s, row.cut) for row in world.computes]
    assert spans == [(0, 0.0, 1.0, True), (3, 1.0, 3.0, False)]


async def test_a_job_cancelled_while_it_waits_is_skipped() -> None:
    world = small_world()
    server = world.federation.server
    jobs = [asyncio.ensure_future(server.compute(Work(2.0, 0.0), "job", n)) for n in range(3)]
    await asyncio.sleep(1.0)
    jobs[1].cancel()
    await asyncio.wait(jobs)
    assert [(row.request_id, row.start_at_s) for row in world.computes] == [(0, 0.0), (2, 2.0)]


async def test_a_running_job_that_is_cancelled_is_cut_and_hands_over_at_once() -> None:
    world = small_world()
    server = world.federation.server
    jobs = [asyncio.ensure_future(server.compute(Work(2.0, 0.0), "job", n)) for n in range(2)]
    await asyncio.sleep(0.5)
    jobs[0].cancel()
    await asyncio.wait(jobs)
    rows = [(row.request_id, row.start_at_s, row.end_at_s, row.flop, row.cut) for row in world.computes]
    assert rows == [(0, 0.0, 0.5, 0.5, True), (1, 0.5, 2.5, 2.0, False)]


@pytest.mark.parametrize("num_behind", [0, 1, 3])
async def test_a_job_cancelled_at_the_instant_of_its_turn_passes_the_turn_on(num_behind: int) -> None:
    world = small_world()
    server = world.federation.server

    async def first_job() -> None:
        await server.compute(Work(2.0, 0.0), "job", 0)
        second.cancel()  # in the step that handed over to it, before it has woken up

    first = asyncio.ensure_future(first_job())
    second = asyncio.ensure_future(server.compute(Work(2.0, 0.0), "job", 1))
    behind = [asyncio.ensure_future(server.compute(Work(1.0, 0.0), "job", 2 + n)) for n in range(num_behind)]
    await asyncio.wait([first, second, *behind])
    assert second.cancelled()
    await server.compute(Work(1.0, 0.0), "job", 9)
    starts = [(row.request_id, row.start_at_s) for row in world.computes]
    expected = [(0, 0.0), *((2 + n, 2.0 + n) for n in range(num_behind)), (9, 2.0 + num_behind)]
    assert starts == expected


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6), st.integers(0, 4), st.none() | st.integers(0, 8), st.none() | st.integers(0, 7)
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=100, deadline=None)
def test_the_server_never_stalls_whoever_is_cancelled_and_when(
    jobs: list[tuple[int, int, int | None, int | None]],
) -> None:
    """Jobs (asked at, length, cancelled at, whom it cancels at its end) on whole seconds, so that instants coincide."""

    async def main() -> SmallWorld:
        world = small_world()
        tasks: list[asyncio.Task[None]] = []

        async def job(number: int, at_s: int, length_s: int, victim: int | None) -> None:
            await asyncio.sleep(at_s)
            try:
                await world.federation.server.compute(Work(float(length_s), 0.0), "job", number)
            finally:
                if victim is not None and victim < len(tasks):
                    tasks[victim].cancel()

        for number, (at_s, length_s, cancelled_at_s, victim) in enumerate(jobs):
            tasks.append(asyncio.ensure_future(job(number, at_s, length_s, victim)))
            if cancelled_at_s is not None:
                world.loop.call_at(cancelled_at_s, tasks[-1].cancel)
        await asyncio.wait(tasks)
        await world.federation.server.compute(Work(1.0, 0.0), "last")
        return world

    world = clock.run(main())
    rows = world.computes
    assert all(before.end_at_s <= after.start_at_s for before, after in pairwise(rows))
    assert rows[-1].kind == "last" and not rows[-1].cut
