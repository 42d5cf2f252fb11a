"""Schedules of reward-based protocols (shared/update_schedules.py): the buffer between rounds and as-they-come, resampling."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fedsim.errors import FederationError
from fedsim.experiment import run as experiment
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.rollouts import FIRST_AGAIN
from fedsim.protocols.shared.update_schedules import ScheduleConfig
from fedsim.records.rows import Group
from fedsim.scenario.read import scenario_from
from fedsim.sim.clock import run as run_on_virtual_time
from fedsim.sim.devices.config import DropoutConfig
from tests.samples.fakes import FakeEvaluator, FakePolicy, device, play, settings, task_data
from tests.samples.worlds import Timetable

ONE_SLOW = (1.0, 1.0, 1.0, 40.0)


async def scheduled(update, *, updates=12, seconds=(1.0, 2.0, 3.0, 5.0), policy=None, keys=None, **world):
    """FedGRPO with one expert per question, on four devices of different speed that know equally much."""
    config = settings("fedgrpo", num_experts=1, num_neighbours=4, update=update, **(keys or {}))
    return await play(
        config,
        [FakeEvaluator("ab")] * len(seconds),
        **{
            "data": task_data(num_clients=len(seconds), pool=50),
            "policy": policy,
            "profiles": [device(value) for value in seconds],
            "stop": StopConfig(updates=updates),
        }
        | world,
    )


# ------------------------------------------------------------------------------------------- buffer(cohort) is barrier


def alone(update, **world):
    """As ``scheduled``, on a clock of its own."""

    async def main(_):
        return await scheduled(update, **world)

    return run_on_virtual_time(main)


def test_a_buffer_of_the_round_with_max_staleness_0_reproduces_the_barrier():
    """Same groups, same batches in the same order, same instants; losses and absences included."""
    hard = {
        "dropout": DropoutConfig(per_task=0.2),
        "availability": Timetable({3: [(0.0, 20.0), (33.0, 35.0), (50.0, 1e6)]}),
    }
    runs, policies = [], (FakePolicy(), FakePolicy())
    for policy, update in zip(
        policies,
        (
            {"schedule": "barrier", "groups_per_update": 6},
            {"schedule": "buffer", "buffer": 6, "in_flight": 6, "max_staleness": 0},
        ),
        strict=True,
    ):
        runs.append(alone(update, updates=20, policy=policy, **hard))
    assert {row.fate for row in runs[0].groups} > {"trained"}  # some groups came back without rewards
    assert policies[0].steps == policies[1].steps
    assert runs[0].took_s == runs[1].took_s
    assert runs[0].log.sha256() == runs[1].log.sha256()


def timing(update, **protocol):
    return scenario_from(
        {
            "name": "t",
            "fidelity": "timing",
            "seed": 5,
            "stop": {"updates": 8},
            "clients": {"phone": 5, "laptop": 3},
            "availability": {"kind": "sessions", "mean_on": "60 s", "mean_off": "15 s"},
            "dropout": {"per_task": 0.1},
            "protocol": {"name": "fedgrpo", **protocol, "update": update},
            "tasks": {"sizes": {"private": 200, "pool": 60}},
        }
    )


@pytest.mark.parametrize(
    "protocol",
    [
        {"stragglers": {"policy": "wait_all"}},
        {"stragglers": {"policy": "deadline", "deadline": "4 s", "missing": "drop_group"}},
        {"stragglers": {"policy": "over_select", "extra": 1}},
        {"wire": "answers_up"},
        {"name": "central_grpo"},
        {"name": "self_reward"},
        {"name": "central_pooled", "objective": "grpo"},
        {"name": "dpsda_fl", "objective": "grpo"},
    ],
    ids=str,
)
def test_whole_runs_of_every_reward_based_protocol_have_the_same_record_bytes(protocol, tmp_path):
    updates = (
        {"schedule": "barrier", "groups_per_update": 7},
        {"schedule": "buffer", "groups_per_update": 7, "max_staleness": 0},
        {"schedule": "buffer", "groups_per_update": 7, "max_staleness": 1, "in_flight": 14},
    )
    hashes = [
        experiment.run(timing(update, **protocol), out=tmp_path / f"{number}").summary["records_sha256"]
        for number, update in enumerate(updates)
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


# ------------------------------------------------------------------------------------------------- what a buffer allows


@hypothesis_settings(max_examples=12, deadline=None)
@given(
    size=st.integers(1, 5),
    in_flight=st.integers(1, 12),
    max_staleness=st.integers(0, 3),
    slow=st.floats(1.0, 9.0),
)
def test_no_question_is_asked_that_could_only_be_trained_too_late(size, in_flight, max_staleness, slow):
    """The k-th question waits until k < n (b + 1 + max_staleness), and never more than in_flight are under way."""
    update = {
        "schedule": "buffer", "buffer": size, "in_flight": in_flight, "max_staleness": max_staleness,
    }  # fmt: skip
    ran = alone(update, seconds=(1.0, 1.5, 2.0, slow))
    completed_at_s = sorted(row.completed_at_s for row in ran.groups)
    for row in ran.groups:
        emptied = bisect_right(completed_at_s, row.dispatched_at_s) // size  # at most
        assert row.draw < size * (emptied + 1 + max_staleness)
    assert all(row.staleness_max <= max_staleness for row in ran.updates)
    changes = sorted(
        change for row in ran.groups for change in ((row.dispatched_at_s, 1), (row.completed_at_s, -1))
    )
    under_way = most = 0
    for _, change in changes:
        under_way += change
        most = max(most, under_way)
    assert most <= ScheduleConfig(**update).most_asked


async def test_where_nobody_overtakes_a_buffer_drops_nothing_and_as_rewards_arrive_drops_much():
    """One device, first come, first served: twelve questions under way are six steps of two."""
    same = (1.0,)
    update = {"groups_per_update": 2, "in_flight": 12, "max_staleness": 2}
    arriving = await scheduled({"schedule": "group", **update}, updates=30, seconds=same)
    buffered = await scheduled({"schedule": "buffer", **update}, updates=30, seconds=same)
    assert Counter(row.fate for row in arriving.groups)["too_stale"] > 10
    assert {row.fate for row in buffered.groups} == {"trained"}
    assert max(row.staleness_max for row in buffered.updates) == 2


async def test_one_version_of_slack_is_faster_than_rounds_on_devices_of_different_speed():
    rounds = await scheduled({"schedule": "barrier", "groups_per_update": 8}, updates=20)
    slack = await scheduled({"schedule": "buffer", "buffer": 8, "max_staleness": 1}, updates=20)
    assert slack.took_s < 0.8 * rounds.took_s


async def test_a_straggler_that_others_overtook_is_too_stale_for_its_buffer_and_holds_nobody_up():
    policy = FakePolicy()
    ran = await scheduled(
        {"schedule": "buffer", "buffer": 2, "max_staleness": 3, "in_flight": 8},
        updates=60,
        seconds=ONE_SLOW,
        policy=policy,
    )
    stale = [row for row in ran.groups if row.fate == "too_stale"]
    assert stale and policy.forgotten == [row.draw for row in stale]
    assert {len(step.draws) for step in policy.steps} == {1, 2}  # its place in the buffer stays empty
    assert all(list(step.draws) == sorted(step.draws) for step in policy.steps)


async def test_buffers_in_which_nobody_has_a_reward_make_no_step_and_end_the_run():
    with pytest.raises(FederationError, match="2000 question groups in a row"):
        await scheduled(
            {"schedule": "buffer", "buffer": 500, "max_staleness": 0, "in_flight": 500},
            dropout=DropoutConfig(per_task=1.0),
            keys={"experts": "random"},
        )


# ------------------------------------------------------------------------------------------------------------ resampling


@pytest.mark.parametrize("schedule", ["group", "buffer"])
async def test_questions_of_groups_too_stale_are_sampled_again_from_the_live_policy(schedule):
    policy = FakePolicy()
    ran = await scheduled(
        {
            "schedule": schedule, "groups_per_update": 2, "in_flight": 8, "max_staleness": 2, "on_stale": "resample",
        },
        updates=60,
        seconds=ONE_SLOW,
        policy=policy,
    )  # fmt: skip
    stale = [row for row in ran.groups if row.fate == "too_stale"]
    again = {row.draw - FIRST_AGAIN: row for row in ran.groups if row.draw >= FIRST_AGAIN}
    assert stale and again
    for number, row in again.items():
        assert row.question_id == stale[number].question_id
        assert row.dispatched_at_s >= stale[number].completed_at_s
        assert row.policy_version > stale[number].policy_version
    assert len(ran.groups) == len({row.draw for row in ran.groups})
    assert max(row.staleness_max for row in ran.updates) <= 2
    assert {row.fate for row in again.values()} >= {"trained"}


async def test_dropped_questions_come_again_only_when_their_turn_comes():
    ran = await scheduled(
        {"groups_per_update": 2, "in_flight": 8, "max_staleness": 2}, updates=60, seconds=ONE_SLOW
    )
    assert any(row.fate == "too_stale" for row in ran.groups)
    assert all(row.draw < FIRST_AGAIN for row in ran.groups)


async def test_how_far_ahead_is_really_sampled_changes_no_record_when_questions_come_again():
    class OneByOne(FakePolicy):
        def sample(self, draws):
            return [group for draw in draws for group in super(OneByOne, self).sample([draw])]

    update = {"groups_per_update": 2, "in_flight": 8, "max_staleness": 1, "on_stale": "resample"}
    policies = FakePolicy(), OneByOne()
    runs = [await scheduled(update, updates=30, policy=policy, seconds=ONE_SLOW) for policy in policies]
    assert any(row.draw >= FIRST_AGAIN for row in runs[0].groups)
    assert policies[0].steps == policies[1].steps
    assert runs[0].log.of(Group)[:20] != [] and len(runs[0].groups) == len(runs[1].groups)


# -------------------------------------------------------------------------------------------------------------- settings


def test_a_buffer_under_another_schedule_is_refused():
    with pytest.raises(ValueError, match="buffer belongs to schedule buffer"):
        ScheduleConfig(schedule="group", buffer=8)


@pytest.mark.parametrize(
    ("keys", "per_step", "most_asked", "staleness"),
    [
        ({"schedule": "barrier", "groups_per_update": 10}, 10, 10, 0.0),
        ({"schedule": "group", "groups_per_update": 10, "in_flight": 25}, 10, 25, 2.5),
        ({"schedule": "buffer", "groups_per_update": 10, "in_flight": 25}, 10, 25, 2.5),
        ({"schedule": "buffer", "buffer": 5, "in_flight": 25, "max_staleness": 2}, 5, 15, 2.0),
        ({"schedule": "buffer", "buffer": 5, "in_flight": 25, "max_staleness": 0}, 5, 5, 0.0),
    ],
)
def test_what_a_schedule_allows_and_expects_by_hand(keys, per_step, most_asked, staleness):
    config = ScheduleConfig(**keys)
    assert (config.groups_per_step, config.most_asked, config.expected_staleness) == (
        per_step, most_asked, staleness,
    )  # fmt: skip


async def test_cancelling_the_run_ends_every_question_that_is_under_way():
    ran = await scheduled({"schedule": "buffer", "buffer": 2, "in_flight": 8, "max_staleness": 3}, updates=3)
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not any(name.startswith("question ") for name in names)
    assert len(ran.updates) == 3
