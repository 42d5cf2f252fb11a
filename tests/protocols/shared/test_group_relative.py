"""The shared machinery (shared/group_relative.py, learner.py, rollouts.py): schedules, versions, staleness, batches.

``central_grpo`` plays it alone where no client is needed; its judge takes no virtual time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from fedsim.errors import FederationError
from fedsim.models.interfaces import Candidate, CandidateGroup, Draw
from fedsim.protocols.shared import learner
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.rollouts import QuestionStream, Rollouts
from fedsim.protocols.shared.update_schedules import ScheduleConfig
from fedsim.records.rows import Compute
from tests.samples.fakes import FakeEvaluator, FakePolicy, device, play, settings, stage, task_data

DATA = task_data(num_clients=4, pool=50)


async def scheduled(update, *, updates=12, seconds=(1.0, 2.0, 3.0, 5.0), policy=None, **keys):
    """FedGRPO with one expert per question, on four devices of different speed that know equally much."""
    config = settings("fedgrpo", num_experts=1, num_neighbours=4, update=update, **keys)
    return await play(
        config,
        [FakeEvaluator("ab")] * 4,
        data=DATA,
        policy=policy,
        profiles=[device(value) for value in seconds],
        stop=StopConfig(updates=updates),
    )


# ------------------------------------------------------------------------------------------------------ group schedule


async def test_the_optimiser_steps_as_soon_as_enough_groups_are_final_and_only_then_the_version_rises():
    ran = await scheduled({"groups_per_update": 4, "in_flight": 8})
    trained = [row for row in ran.groups if row.fate == "trained"]
    assert [row.num_groups for row in ran.updates] == [4] * 12
    assert [row.policy_version for row in ran.updates] == list(range(1, 13))
    for index, update in enumerate(ran.updates):
        batch = trained[4 * index : 4 * index + 4]
        last_at_s = max(row.completed_at_s for row in batch)
        # The step starts when its last group is final or the accelerator is free, and takes 0.25 s.
        assert update.at_s - 0.25 >= last_at_s - 1e-9
        # No group can have been sampled by a version that did not exist yet.
        assert all(row.policy_version <= index for row in batch)
    steps = [row for row in ran.log.of(Compute) if row.kind == "update"]
    assert [row.end_at_s for row in steps] == [row.at_s for row in ran.updates]


async def test_staleness_on_record_is_the_number_of_versions_a_group_is_behind_when_it_is_trained():
    policy = FakePolicy()
    ran = await scheduled({"groups_per_update": 3, "in_flight": 9}, policy=policy)
    for step, update in zip(policy.steps, ran.updates, strict=True):
        behind = [step.version - version for version in step.sampled_at]
        assert update.staleness_mean == pytest.approx(np.mean(behind))
        assert update.staleness_max == max(behind)


@pytest.mark.parametrize(("in_flight", "expected"), [(4, 1.0), (8, 2.0), (16, 4.0)])
async def test_mean_staleness_is_about_in_flight_over_groups_per_update(in_flight, expected):
    """Little's law, in versions: of what is under way, a quarter is trained with every step."""
    update = {"groups_per_update": 4, "in_flight": in_flight, "max_staleness": 100}
    ran = await scheduled(update, updates=150, seconds=(1.0, 1.0, 1.0, 1.0))
    assert ScheduleConfig(**update).expected_staleness == expected
    steady = [row.staleness_mean for row in ran.updates[30:]]
    assert np.mean(steady) == pytest.approx(expected, abs=0.4)


async def test_groups_beyond_max_staleness_are_dropped_counted_and_forgotten():
    """One device of four needs forty times as long: what it scores is versions behind when it comes."""
    policy = FakePolicy()
    ran = await scheduled(
        {"groups_per_update": 2, "in_flight": 8, "max_staleness": 2},
        updates=60,
        seconds=(1.0, 1.0, 1.0, 40.0),
        policy=policy,
    )
    fates = Counter(row.fate for row in ran.groups)
    assert fates["too_stale"] >= 1
    stale = [row for row in ran.groups if row.fate == "too_stale"]
    assert policy.forgotten == [row.draw for row in stale]
    assert max(row.staleness_max for row in ran.updates) == 2  # max_staleness itself is not too stale
    trained = {draw for step in policy.steps for draw in step.draws}
    assert trained.isdisjoint(row.draw for row in stale)
    assert all(row.num_answered == 1 for row in stale)  # their rewards came, and stand on record


async def test_max_staleness_0_trains_on_policy_and_still_goes_on():
    ran = await scheduled({"groups_per_update": 2, "in_flight": 8, "max_staleness": 0}, updates=10)
    assert {row.staleness_max for row in ran.updates} == {0}
    assert Counter(row.fate for row in ran.groups)["too_stale"] > 0


async def test_every_draw_is_trained_once_dropped_once_or_still_under_way():
    policy = FakePolicy()
    ran = await scheduled(
        {"groups_per_update": 2, "in_flight": 8, "max_staleness": 1}, updates=40, policy=policy
    )
    trained = [draw for step in policy.steps for draw in step.draws]
    assert len(trained) == len(set(trained))
    final = [row.draw for row in ran.groups]
    assert len(final) == len(set(final))
    under_way = set(range(max(final))) - set(final)
    assert len(under_way) <= 8 + 2  # in flight, or waiting for their batch to be full


async def test_never_more_questions_are_under_way_than_in_flight_says():
    ran = await scheduled({"groups_per_update": 4, "in_flight": 6}, updates=20)
    spans = [(row.sent_at_s, row.ended_at_s) for row in ran.outcomes if row.purpose == "question"]
    changes = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
    running = np.cumsum([change for _, change in changes])
    assert running.max() == 6


# ---------------------------------------------------------------------------------------------------- barrier schedule


async def test_under_a_barrier_nothing_is_stale_and_every_round_waits_for_its_slowest():
    policy = FakePolicy()
    ran = await scheduled({"schedule": "barrier", "groups_per_update": 6}, policy=policy)
    assert {row.staleness_max for row in ran.updates} == {0}
    assert [row.num_groups for row in ran.updates] == [6] * 12
    assert [step.draws for step in policy.steps] == [tuple(range(6 * i, 6 * i + 6)) for i in range(12)]
    for before, after in pairwise(ran.updates):
        batch = [row for row in ran.groups if row.policy_version == after.policy_version - 1]
        assert min(row.dispatched_at_s for row in batch) >= before.at_s
        assert max(row.completed_at_s for row in batch) == pytest.approx(after.at_s - 0.25)


async def test_as_rewards_arrive_is_faster_than_rounds_on_the_same_devices_when_nothing_is_too_stale():
    rounds = await scheduled({"schedule": "barrier", "groups_per_update": 8}, updates=20)
    update = {"groups_per_update": 8, "in_flight": 8, "max_staleness": 1000}
    arriving = await scheduled(update, updates=20)
    assert arriving.took_s < rounds.took_s


async def test_with_as_many_in_flight_as_per_update_the_first_step_equals_the_barriers_and_later_ones_lag_by_one():
    """The next questions are sampled while the step is computed: that is what a barrier forbids."""
    group, barrier = FakePolicy(), FakePolicy()
    same = (1.0, 1.0, 1.0, 1.0)
    await scheduled({"groups_per_update": 4, "in_flight": 4}, seconds=same, policy=group)
    await scheduled({"schedule": "barrier", "groups_per_update": 4}, seconds=same, policy=barrier)
    assert sorted(group.steps[0].draws) == sorted(barrier.steps[0].draws)
    assert set(group.steps[0].sampled_at) == {0}
    assert {step.version - version for step in group.steps[3:] for version in step.sampled_at} <= {0, 1, 2}
    assert any(step.version > version for step in group.steps for version in step.sampled_at)


async def test_a_round_without_any_reward_makes_no_step():
    """Every fake score of an unknown question is NaN: no update, and the hopeless limit ends the run."""
    config = settings("fedgrpo", num_experts=1, update={"schedule": "barrier", "groups_per_update": 500})
    policy = FakePolicy()
    with pytest.raises(FederationError, match="2000 question groups in a row"):
        await play(
            config,
            [FakeEvaluator("ab", lambda q, c: float("nan"))],
            policy=policy,
            data=task_data(num_clients=1),
        )
    assert policy.steps == []


async def test_a_run_without_a_group_to_learn_from_says_which_rule_lost_how_many(monkeypatch):
    """One of two experts never scores a1xx: under drop_group every group of domain a is left out for it."""
    monkeypatch.setattr(learner, "HOPELESS_GROUPS", 12)
    config = settings("fedgrpo", num_experts=2, competence_floor=0.0, stragglers={"missing": "drop_group"})
    broken = FakeEvaluator("ab", lambda q, c: float("nan"))
    with pytest.raises(FederationError) as caught:
        await play(config, [FakeEvaluator("ab"), broken], data=task_data(num_clients=2))
    assert str(caught.value).startswith(
        "12 question groups in a row could not be learned from: 12 lacked a reward and were left out "
        "(protocol.stragglers.missing: drop_group, where one is enough); see "
    )


@pytest.mark.parametrize("missing", ["mask", "zero", "drop_group"])
async def test_a_missing_reward_is_masked_counts_as_zero_or_costs_the_group(missing):
    """One expert said 1, nothing and 0 of three candidates."""
    config = settings("fedgrpo", num_experts=1, divide_by_std=False)
    on = stage(config, [FakeEvaluator()], data=DATA)

    async def judge(group):
        return learner.Judgement(np.array([[1.0, np.nan, 0.0]]), num_experts=1, missing=missing)

    judging = learner.Learner(on.federation, config, on.state, judge, DATA.pool)
    final = await judging.judged(CandidateGroup(Draw(0, DATA.pool[0]), 0, (Candidate("7", 2, False),) * 3))
    expected = {"mask": [0.5, np.nan, -0.5], "zero": [2 / 3, -1 / 3, -1 / 3]}
    if missing == "drop_group":
        assert final is None
    else:
        np.testing.assert_allclose(final.advantages, expected[missing])


async def test_groups_lost_now_and_then_in_a_long_run_do_not_end_it():
    """Of 3001 groups one teaches something, the middle one: 1500 lost groups in a row are no reason to give up."""
    config = settings("fedgrpo", num_experts=1)
    on = stage(config, [FakeEvaluator()], data=DATA)
    scores = {1500: np.array([[0.0, 1.0]])}

    async def judge(group):
        return learner.Judgement(scores.get(group.draw.index, np.full((1, 2), np.nan)), num_experts=1)

    judging = learner.Learner(on.federation, config, on.state, judge, DATA.pool)
    candidates = (Candidate("7", 2, False), Candidate("8", 2, False))
    draws = [Draw(index, DATA.pool[index % len(DATA.pool)]) for index in range(3001)]
    finals = [await judging.judged(CandidateGroup(draw, 0, candidates)) for draw in draws]
    assert [final.group.draw.index for final in finals if final is not None] == [1500]
    assert 1500 < learner.HOPELESS_GROUPS < 3000
    assert Counter(row.fate for row in on.groups) == {"no_rewards": 3000}


# ----------------------------------------------------------------------------------------- what the records say


async def test_groups_without_spread_are_trained_on_record_and_their_share_is_reported():
    """Every candidate is right: no group can teach anything."""
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer] * 4)
    config = settings("central_grpo", update={"groups_per_update": 3, "in_flight": 3})
    ran = await play(config, [FakeEvaluator()], policy=policy, stop=StopConfig(updates=2))
    assert {row.zero_variance_share for row in ran.updates} == {1.0}
    assert all(row.zero_variance and row.correct == 1.0 for row in ran.groups)
    assert {value for step in policy.steps for row in step.advantages for value in row} == {0.0}


async def test_an_update_has_the_number_of_its_candidates_and_what_the_policy_measured():
    config = settings("central_grpo", update={"groups_per_update": 3, "in_flight": 3})
    ran = await play(config, [FakeEvaluator()], stop=StopConfig(updates=1))
    (row,) = ran.updates
    assert (row.num_candidates, row.loss, row.entropy, row.clip_fraction, row.grad_norm) == (
        12, 0.5, 1.5, 0.25, 2.0,
    )  # fmt: skip


async def test_inner_passes_multiply_the_servers_work():
    one = settings("central_grpo", update={"groups_per_update": 2, "in_flight": 2})
    three = settings("central_grpo", inner_passes=3, update={"groups_per_update": 2, "in_flight": 2})
    work = []
    for config in (one, three):
        ran = await play(config, [FakeEvaluator()])
        work.append(next(row.flop for row in ran.log.of(Compute) if row.kind == "update"))
    assert work[1] == 3 * work[0]


async def test_a_constrained_step_costs_one_forward_more_than_an_unconstrained_one():
    """Training is three forwards, so four of them are a third more."""
    update = {"groups_per_update": 2, "in_flight": 2}
    work = []
    for keys in ({}, {"loss": "disco_constrained"}):
        ran = await play(
            settings("central_grpo", grouping="candidates", update=update, **keys), [FakeEvaluator()]
        )
        work.append(next(row.flop for row in ran.log.of(Compute) if row.kind == "update"))
    assert work[1] == pytest.approx(work[0] * 4 / 3)


# ------------------------------------------------------------------------------------------------------------ sampling


async def test_what_waits_when_the_accelerator_becomes_free_is_one_batch():
    """Eight slots start at once: one sampling job. Later ones wait behind the step and are sampled together."""
    config = settings("central_grpo", update={"groups_per_update": 8, "in_flight": 8})
    ran = await play(config, [FakeEvaluator()], stop=StopConfig(updates=3))
    jobs = [row for row in ran.log.of(Compute) if not row.cut]
    assert [row.kind for row in jobs] == ["sample", "update"] * 3


async def test_whoever_asks_at_the_same_instant_joins_the_batch_though_it_comes_a_step_later():
    on = stage(settings("central_grpo"), [FakeEvaluator()], data=DATA)
    rollouts = Rollouts(on.federation, on.state, DATA.pool, block=4)

    async def a_step_later():
        await asyncio.sleep(0)
        return await rollouts.next()

    serving = asyncio.create_task(rollouts.serve())
    await asyncio.gather(rollouts.next(), a_step_later())
    serving.cancel()
    await on.federation.drain()
    assert [row.kind for row in on.log.of(Compute)] == ["sample"]


async def test_a_batch_that_waits_for_the_accelerator_is_sampled_from_the_policy_that_is_live_when_it_begins():
    """The questions asked while a step is computed are sampled by the version that the step makes."""
    config = settings("central_grpo", update={"groups_per_update": 8, "in_flight": 8, "max_staleness": 0})
    ran = await play(config, [FakeEvaluator()], stop=StopConfig(updates=5))
    assert {row.fate for row in ran.groups} == {"trained"}
    assert {row.staleness_max for row in ran.updates} == {0}


async def test_how_far_ahead_is_really_sampled_changes_no_record():
    """``block`` is groups_per_update; a policy asked for one draw at a time gives the same records."""

    class OneByOne(FakePolicy):
        def sample(self, draws):
            return [group for draw in reversed(draws) for group in super(OneByOne, self).sample([draw])][::-1]

    policies = FakePolicy(), OneByOne()
    runs = [await scheduled({"groups_per_update": 5, "in_flight": 7}, policy=policy) for policy in policies]
    assert policies[0].steps == policies[1].steps
    assert runs[0].took_s == pytest.approx(runs[1].took_s)


def test_a_new_version_samples_ahead_what_its_last_two_predecessors_were_asked_for():
    policy = SimpleNamespace(version=0, sizes=[])

    def sample(draws):
        policy.sizes.append(len(draws))
        return [CandidateGroup(draw, policy.version, ()) for draw in draws]

    policy.sample = sample
    rollouts = Rollouts(None, SimpleNamespace(seed=1, policy=policy), DATA.pool, block=16)

    def sizes_when_asked_for(num):
        policy.sizes.clear()
        for _ in range(num):
            (group,) = rollouts._sample([rollouts._stream.next()])
            assert group.policy_version == policy.version
        policy.version += 1
        return policy.sizes[:]

    assert sizes_when_asked_for(20) == [16, 8]  # nothing is known yet: a block, then small steps
    assert sizes_when_asked_for(20) == [20]
    assert sizes_when_asked_for(10) == [20]
    assert sizes_when_asked_for(10) == [20]  # its last two predecessors: 20 and 10
    assert sizes_when_asked_for(40) == [10, 8, 8, 8, 8]
    assert sizes_when_asked_for(1) == [24]  # half as much again as a block at most


async def test_every_group_is_sampled_by_the_version_that_its_record_names():
    policy = FakePolicy()
    ran = await scheduled({"groups_per_update": 3, "in_flight": 9}, policy=policy)
    sampled = set(policy.sampled)
    assert all((row.policy_version, row.draw) in sampled for row in ran.groups)


def test_the_order_of_questions_is_a_function_of_the_seed_and_peeking_does_not_move_it():
    questions = DATA.pool
    stream, same, other = (
        QuestionStream(questions, 1),
        QuestionStream(questions, 1),
        QuestionStream(questions, 2),
    )
    ahead = stream.peek(120)
    drawn = [stream.next() for _ in range(121)]
    assert drawn[120] == ahead
    assert drawn == [same.next() for _ in range(121)]
    assert drawn != [other.next() for _ in range(121)]
    assert drawn[0] == Draw(0, drawn[0].question)
    assert Counter(draw.question for draw in drawn[:50]) == dict.fromkeys(questions, 1)


def test_a_stream_without_questions_is_refused():
    with pytest.raises(FederationError, match="no question"):
        QuestionStream((), 0)
