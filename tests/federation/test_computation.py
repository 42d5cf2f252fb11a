"""What a computation puts on record when it does not end: only the work that was done; digits as in ``samples/worlds.py``."""

from __future__ import annotations

import asyncio

import pytest

from fedsim.errors import ClientDropped
from fedsim.federation.handlers import Handler
from fedsim.federation.world import Slowdowns
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import Work
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.faults.config import HangConfig
from fedsim.sim.network import wire
from tests.federation.test_request_suspend import HalfSpeed
from tests.samples.worlds import HANDLERS, ROUND, SmallWorld, Timetable, ask, leaves, score, small_world, work

KEY = (0, "question", -1, -1, 0)


def rows_of(world: SmallWorld) -> list[tuple[float, float, float, bool]]:
    return [(row.start_at_s, row.end_at_s, row.flop, row.cut) for row in world.computes]


async def drop(world: SmallWorld, seconds: float = 2.0) -> None:
    with pytest.raises(ClientDropped):
        await world.federation.clients[0].request(ask(seconds))
    await world.settle()


async def test_a_device_that_leaves_has_done_the_share_of_the_work_for_which_it_computed() -> None:
    def both(state: object, message: object) -> Work:
        return Work(8.0, 4.0)  # 8 s of arithmetic; the memory waits for it

    handlers = {kind: Handler(score, both, wire.Rewards) for kind in HANDLERS}
    world = small_world(availability=leaves(3.5), handlers=handlers)
    await drop(world)
    (row,) = world.computes
    assert (row.start_at_s, row.end_at_s, row.cut) == (1.5, 3.5, True)
    assert (row.flop, row.memory_bytes, row.energy_j) == (2.0, 1.0, 6.0)


async def test_a_task_that_is_given_up_has_cost_its_work_up_to_there() -> None:
    dropout = DropoutConfig(per_task=0.5)
    seed = next(s for s in range(99) if Dropout(dropout, s).gives_up_at(KEY) is not None)
    share = Dropout(dropout, seed).gives_up_at(KEY)
    assert share is not None
    world = small_world(dropout=dropout, seed=seed)
    await drop(world)
    (row,) = world.computes
    assert row.cut and row.flop == pytest.approx(2.0 * share)
    assert row.end_at_s - row.start_at_s == pytest.approx(2.0 * share)


async def test_a_task_that_fails_by_a_hazard_has_cost_its_work_up_to_there() -> None:
    dropout = DropoutConfig(hazard="0.2 /s")  # type: ignore[arg-type]
    seed = next(s for s in range(999) if 2.0 < Dropout(dropout, s).endurance(KEY) / 0.2 < 9.0)
    world = small_world(dropout=dropout, seed=seed)
    await drop(world, seconds=9.0)
    (row,) = world.computes
    assert row.flop == pytest.approx(row.end_at_s - row.start_at_s) and 0.0 < row.flop < 9.0


@pytest.mark.parametrize(
    ("there", "rows"),
    [
        # Half a second, an absence, a second, and gone for good.
        ([(0.0, 2.0), (5.0, 6.0)], [(1.5, 2.0, 0.5, True), (5.0, 6.0, 1.0, True)]),
        # The last row has done nothing: it comes back and leaves in the same breath, but for 2^-10 s.
        ([(0.0, 2.0), (5.0, 5.0 + 2**-10)], [(1.5, 2.0, 0.5, True), (5.0, 5.0 + 2**-10, 2**-10, True)]),
    ],
)
async def test_stretches_of_a_computation_that_slept_and_was_cut_hold_the_work_of_their_seconds(
    there: list[tuple[float, float]], rows: list[tuple[float, float, float, bool]]
) -> None:
    world = small_world(availability=Timetable({0: there}), on_cut="suspend")
    await drop(world)
    assert rows_of(world) == rows


@pytest.mark.parametrize(("slowdowns", "flop"), [(None, 1.0), (HalfSpeed(), 0.5)])
async def test_a_slow_device_that_is_cut_has_done_less_in_the_same_time(
    slowdowns: Slowdowns | None, flop: float
) -> None:
    world = small_world(availability=leaves(2.5), slowdowns=slowdowns)
    await drop(world)
    assert rows_of(world) == [(1.5, 2.5, flop, True)]


async def test_a_device_that_hung_has_done_what_it_did_before() -> None:
    hang = HangConfig.model_validate({"kind": "hang", "at": "2 s"})
    world = small_world(availability=leaves(50.0), faults=[hang])
    await drop(world)
    assert rows_of(world) == [(1.5, 50.0, 0.5, True)]


async def test_a_server_job_that_is_cut_has_cost_its_share() -> None:
    world = small_world()
    job = asyncio.ensure_future(world.federation.server.compute(Work(4.0, 2.0), "job"))
    await asyncio.sleep(1.0)
    job.cancel()
    await asyncio.wait([job])
    (row,) = world.computes
    assert (row.flop, row.memory_bytes, row.end_at_s, row.cut) == (1.0, 0.5, 1.0, True)


async def test_work_that_ends_is_on_record_whole() -> None:
    world = small_world()
    await world.federation.clients[0].request(ask(2.0))
    assert rows_of(world) == [(1.5, 3.5, 2.0, False)]
    assert world.computes[0].flop == work(None, ask(2.0)).flop * ROUND.peak_flop_per_s
