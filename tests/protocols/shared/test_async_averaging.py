"""Averaging without rounds (shared/async_averaging.py): who trains when, from which version, and what is made of it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import FederationError
from fedsim.experiment import run as experiment
from fedsim.models.client_training_config import num_steps
from fedsim.protocols.shared.async_averaging import next_in_line
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.server_optimizers import AveragingConfig, Moments, adaptive_step
from fedsim.records.rows import Compute
from fedsim.scenario.read import scenario_from
from fedsim.sim import streams
from fedsim.sim.devices.config import DropoutConfig
from tests.protocols.test_fedpetuning import rounds, value
from tests.samples.fakes import device, settings
from tests.samples.worlds import Timetable

UNEVEN = [device(1.0), device(2.5), device(70.0)]


async def without_rounds(updates=1, *, keys=None, schedule=None, **world):
    """Client k adds k + 1; the server's step takes 0.25 s."""
    chosen = {"kind": "buffered", "buffer": 2} | (schedule or {})
    return await rounds(updates, keys={"number_type": "float32", "schedule": chosen, **(keys or {})}, **world)


# ------------------------------------------------------------------------------------------------------- by hand


async def test_three_steps_of_a_buffer_of_two_by_hand():
    """Client 0 takes 1 s, client 1 takes 2.5 s, client 2 takes for ever.

    Client 0 comes at 1 and 2: step one, done at 2.25. Client 1 comes at 2.5, a version behind, client 0 at 3.25: step two, done
    at 3.5. Client 0 again at 4.5, client 1 (from version 1) at 5: step three.
    """
    ran, trainer = await without_rounds(3, profiles=UNEVEN)
    stale = 2 / np.sqrt(2)
    assert [value(weights) for weights in trainer.installed] == pytest.approx(
        [1.0, 1.0 + (stale + 1) / 2, 1.0 + (stale + 1)], rel=1e-6
    )
    assert [row.at_s for row in ran.updates] == pytest.approx([2.25, 3.5, 5.25])
    assert [(row.staleness_mean, row.staleness_max) for row in ran.updates] == [(0, 0), (0.5, 1), (0.5, 1)]
    assert [(row.num_groups, row.num_candidates) for row in ran.updates] == [(2, 6), (2, 4), (2, 4)]
    report = ran.state.artefacts["averaging"]()
    assert report["merged_by_client"] == {"0": 4, "1": 2} and report["merged_by_staleness"] == {
        "0": 4,
        "1": 2,
    }
    assert (report["merged"], report["dropped_too_stale"], report["left_in_buffer"]) == (6, 0, 0)


async def test_modules_beyond_max_staleness_are_dropped_and_counted():
    ran, trainer = await without_rounds(3, profiles=UNEVEN, schedule={"max_staleness": 0})
    assert {row.staleness_max for row in ran.updates} == {0}
    report = ran.state.artefacts["averaging"]()
    assert report["dropped_by_client"] == {"1": 2} and report["merged_by_client"] == {"0": 6}
    assert [value(weights) for weights in trainer.installed] == [1.0, 2.0, 3.0]


async def test_modules_of_max_staleness_itself_are_merged():
    """The steps by hand above have modules one version behind."""
    ran, _ = await without_rounds(3, profiles=UNEVEN, schedule={"max_staleness": 1})
    report = ran.state.artefacts["averaging"]()
    assert (report["merged_by_staleness"], report["dropped_too_stale"]) == ({"0": 4, "1": 2}, 0)


async def test_the_first_step_of_a_buffer_of_everybody_is_that_of_a_round():
    _, synchronous = await rounds(1, keys={"number_type": "float32"})
    _, buffered = await without_rounds(1, schedule={"buffer": 3})
    assert value(buffered.installed[0]) == pytest.approx(value(synchronous.installed[0]))


async def test_rows_may_weigh_the_differences():
    _, trainer = await without_rounds(1, schedule={"buffer": 3}, keys={"weighting": "samples"})
    assert value(trainer.installed[0]) == pytest.approx((3 * 1 + 1 * 2 + 4 * 3) / 8)


async def test_client_centric_installs_the_adaptive_step():
    _, trainer = await without_rounds(
        2, schedule={"kind": "client_centric", "buffer": 1, "in_flight": 1}, rows=(1,)
    )
    config = AveragingConfig(kind="client_centric")
    weights, moments = {"w": np.zeros(1, np.float32)}, Moments.zero({"w": np.zeros(1, np.float32)})
    for installed in trainer.installed:
        after, moments = adaptive_step(weights, {"w": np.ones(1)}, moments, 0.01, config)
        weights = {"w": after["w"].astype(np.float32)}
        assert value(installed) == pytest.approx(float(weights["w"][0]), rel=1e-5)


async def test_the_stalest_module_of_a_buffer_decides_how_much_the_client_centric_rate_yields():
    """Client 0 (adds 1, takes 1 s) fills two buffers; client 1 (adds 2, takes 4.6 s) comes third, two versions behind."""
    schedule = {"kind": "client_centric", "delay_threshold": 1}
    ran, trainer = await without_rounds(
        3, profiles=[device(1.0), device(4.6)], schedule=schedule, rows=(1, 1)
    )
    assert [(row.staleness_mean, row.staleness_max) for row in ran.updates] == [(0, 0), (0, 0), (1, 2)]
    config = AveragingConfig(kind="client_centric")
    weights, moments = {"w": np.zeros(1, np.float32)}, Moments.zero({"w": np.zeros(1, np.float32)})
    for installed, mean, rate in zip(trainer.installed, (1.0, 1.0, 1.5), (0.01, 0.01, 0.005), strict=True):
        after, moments = adaptive_step(weights, {"w": np.full(1, mean)}, moments, rate, config)
        weights = {"w": after["w"].astype(np.float32)}
        assert value(installed) == pytest.approx(float(weights["w"][0]), rel=1e-5)


async def test_the_difference_is_taken_from_what_the_client_was_really_sent():
    """0.1 is rounded in float16: a client that adds one has made the difference of one, wherever it started."""
    _, trainer = await without_rounds(
        1, schedule={"buffer": 1, "in_flight": 1}, rows=(1,), start=0.1, keys={"number_type": "float16"}
    )
    sent = float(np.float16(0.1))
    back = float(np.float16(np.float32(sent) + np.float32(1)))
    assert value(trainer.installed[0]) == pytest.approx(0.1 + back - sent, rel=1e-6)


# ------------------------------------------------------------------------------------------------- who trains when


async def test_as_many_clients_train_at_once_as_wanted_and_none_twice_at_once():
    ran, _ = await without_rounds(30, rows=(1,) * 6, schedule={"in_flight": 2})
    changes = sorted(
        [(row.sent_at_s, 1) for row in ran.outcomes] + [(row.ended_at_s, -1) for row in ran.outcomes]
    )
    running = np.cumsum([change for _, change in changes])
    assert running.max() == 2
    for client_id in range(6):
        mine = [row for row in ran.outcomes if row.client_id == client_id]
        assert all(before.ended_at_s <= after.sent_at_s for before, after in pairwise(mine))
    assert len({row.client_id for row in ran.outcomes}) == 6


async def test_nobody_waits_for_the_slow_ones():
    asynchronous, _ = await without_rounds(4, profiles=UNEVEN)
    synchronous, _ = await rounds(4, profiles=UNEVEN)
    assert asynchronous.took_s < synchronous.took_s / 40


async def test_a_client_that_comes_is_taken_at_once_and_one_that_never_comes_holds_nobody_up():
    ran, _ = await without_rounds(
        12, availability=Timetable({1: [(3.5, 1e6)], 2: []}), profiles=[device(1.0)] * 3
    )
    sent = {
        client_id: [row.sent_at_s for row in ran.outcomes if row.client_id == client_id]
        for client_id in range(3)
    }
    assert sent[0][0] == 0.0 and sent[1][0] == 3.5 and sent[2] == []


async def test_a_lost_client_makes_room_for_another():
    ran, trainer = await without_rounds(
        2, availability=Timetable({0: [(0.0, 0.5)]}), schedule={"in_flight": 1, "buffer": 1}, rows=(1, 1, 1)
    )
    assert all(row.client_id != 0 or row.status == "dropped" for row in ran.outcomes)
    assert len(trainer.installed) == 2


async def test_a_module_after_the_deadline_is_late_and_its_client_is_asked_again():
    ran, _ = await without_rounds(
        4, profiles=UNEVEN, keys={"stragglers": {"policy": "deadline", "deadline": "2 s"}}
    )
    statuses = Counter((row.client_id, row.status) for row in ran.outcomes)
    assert statuses[0, "ok"] == 8 and statuses[1, "late"] >= 1 and statuses[1, "ok"] == 0


async def test_nobody_who_ever_comes_is_an_error():
    with pytest.raises(FederationError, match="will ever be online"):
        await without_rounds(rows=(1,), availability=Timetable({0: []}))


async def test_tasks_that_nobody_ever_finishes_end_the_run_with_an_error():
    with pytest.raises(FederationError, match="300 local trainings in a row brought no module"):
        await without_rounds(dropout=DropoutConfig(per_task=1.0))


async def test_tasks_lost_now_and_then_in_a_long_run_do_not_end_it():
    """Half of all tasks are given up: more than a hundred of the one client's in all, but never so many in a row."""
    ran, _ = await without_rounds(150, rows=(1,), schedule={"buffer": 1}, dropout=DropoutConfig(per_task=0.5))
    assert Counter(row.status for row in ran.outcomes)["dropped"] > 100
    assert len(ran.updates) == 150


async def test_an_adaptive_step_costs_the_server_ten_flop_and_six_memories_a_number_more():
    """Of two modules: 2 x 2 + 2 FLOP a number plainly and 2 x 2 + 12 by AMSGrad; 4 and 10 numbers in and out of memory."""
    works = []
    for kind in ("buffered", "client_centric"):
        ran, _ = await without_rounds(1, schedule={"kind": kind})
        works.append(next(row for row in ran.log.of(Compute) if row.kind == "update"))
    assert works[1].flop == pytest.approx(works[0].flop * 16 / 6)
    assert works[1].memory_bytes == pytest.approx(works[0].memory_bytes * 10 / 4)


async def test_numbers_that_are_not_finite_are_an_error():
    with pytest.raises(FederationError, match="sent numbers that are not finite"):
        await without_rounds(start=7e4, keys={"number_type": "float16"})


async def test_two_trainings_of_one_client_from_one_version_have_draws_of_their_own():
    ran, trainer = await without_rounds(2, profiles=UNEVEN)
    keys = [(client_id, number) for client_id, number, _ in trainer.tuned]
    assert len(keys) == len(set(keys))
    assert len({(row.client_id, row.subject) for row in ran.outcomes}) == len(ran.outcomes)


def test_the_next_client_is_a_keyed_uniform_draw():
    drawn = Counter(next_in_line(range(5), 1, task) for task in range(3000))
    # 600 each, with a deviation of sqrt(3000 x .2 x .8) = 21.9.
    assert all(abs(drawn[client_id] - 600) < 4 * 21.9 for client_id in range(5))
    for task in range(50):
        chosen = next_in_line(range(5), 1, task)
        others = [client_id for client_id in range(5) if client_id in (chosen, 0)]
        assert next_in_line(others, 1, task) == chosen


# ------------------------------------------------------------------------------------------------ local steps, settings


@given(fewest=st.integers(1, 8), task=st.integers(0, 10**6))
def test_a_client_does_between_the_fewest_and_all_of_its_steps(fewest, task):
    config = settings("fedpetuning", local_steps=8, fewest_local_steps=fewest)
    assert fewest <= num_steps(config, 100, streams.integer("t", task)) <= 8
    assert num_steps(settings("fedpetuning", local_steps=8), 100, task) == 8
    assert num_steps(settings("fedpetuning", local_batch_size=50, fewest_local_steps=fewest), 100, task) <= 2


def test_every_number_of_steps_is_equally_likely():
    config = settings("fedpetuning", local_steps=4, fewest_local_steps=2)
    counts = Counter(num_steps(config, 10, streams.integer("t", task)) for task in range(3000))
    # 1000 each, with a deviation of sqrt(3000 x 1/3 x 2/3) = 25.8.
    assert set(counts) == {2, 3, 4} and all(abs(times - 1000) < 4 * 25.8 for times in counts.values())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"averaging": "product"}, "adds differences, factor by factor"),
        ({"clients_per_round": 2}, "use schedule.in_flight"),
        ({"stragglers": {"policy": "quorum", "quorum": 1, "grace": "1 s"}}, "is for cohorts"),
    ],
)
def test_settings_that_need_rounds_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        settings("fedpetuning", schedule={"kind": "buffered"}, **keys)


@pytest.mark.parametrize("kind", ["buffered", "client_centric"])
def test_the_same_seed_gives_the_same_records_and_another_one_others(kind, tmp_path):
    def scenario(seed):
        return scenario_from(
            {
                "name": "t",
                "fidelity": "timing",
                "seed": seed,
                "world": "middle",
                "stop": {"updates": 6},
                "clients": {"phone": 4, "laptop": 3},
                "protocol": {
                    "name": "fedpetuning", "local_steps": 5, "fewest_local_steps": 1, "local_batch_size": 4,
                    "schedule": {"kind": kind, "buffer": 3, "in_flight": 5, "max_staleness": 6},
                },
                "tasks": {"sizes": {"private": 200, "pool": 20}},
            }
        )  # fmt: skip

    runs = [
        experiment.run(scenario(seed), out=tmp_path / f"{number}") for number, seed in enumerate((3, 3, 4))
    ]
    hashes = [run.summary["records_sha256"] for run in runs]
    assert hashes[0] == hashes[1] != hashes[2]
    assert runs[0].summary["staleness"]["max"] >= 1
    assert (tmp_path / "0" / "averaging.json").exists()


async def test_a_stop_in_the_middle_ends_every_training_slot():
    ran, _ = await without_rounds(100, profiles=UNEVEN, stop=StopConfig(virtual="10 s"))
    assert 5 <= len(ran.updates) <= 10
