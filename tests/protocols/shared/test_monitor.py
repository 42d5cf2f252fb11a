"""The books of learning (monitor.py): what a group, an update and an evaluation leave on record, and when a run stops."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.models.interfaces import Candidate, CandidateGroup, Draw, RatioStats, UpdateStats
from fedsim.protocols.shared import monitor
from fedsim.protocols.shared.monitor import CorrectCandidates, EvaluationConfig, Monitor, StopConfig
from fedsim.records.log import RecordLog
from fedsim.records.rows import Evaluation, Group, Outcome, Ratio, Transfer, Update
from tests.samples.fakes import FakePolicy, question, task_data

NAN = math.nan
STATS = UpdateStats(loss=0.5, entropy=1.5, clip_fraction=0.25, grad_norm=2.0)


class Shown:
    """A progress phase that remembers what it was told."""

    def __init__(self):
        self.figures = []

    def advance(self, n=1, **stats):
        self.figures.append((n, stats))


def a_monitor(*, accuracy=(), evaluation=None, shown=None, **stop):
    return Monitor(
        log=RecordLog(),
        now_s=lambda: 12.5,
        policy=FakePolicy(accuracy=accuracy),
        data=task_data(num_clients=1),
        stop=StopConfig(**(stop or {"updates": 100})),
        evaluation=evaluation or EvaluationConfig(),
        phase=shown or Shown(),
    )


def a_group(draw=0, texts=("7", "8", "7", "9")):
    candidates = tuple(Candidate(text, 2, False) for text in texts)
    return CandidateGroup(Draw(draw, question("a", 7)), 3, candidates)


def book(monitor, rewards, *, num_experts=2, fate="trained", draw=0):
    monitor.group(
        a_group(draw),
        dispatched_at_s=1.0,
        completed_at_s=2.0,
        rewards=np.array(rewards, dtype=float).reshape(-1, 4),
        num_experts=num_experts,
        fate=fate,
    )
    return monitor.log.of(Group)[-1]


def test_a_groups_record_worked_by_hand():
    row = book(a_monitor(), [[1, 0, 1, 0], [0.2, 0.4, 0.2, 0.4]])
    assert (row.draw, row.question_id, row.domain, row.policy_version) == (0, 7, "a", 3)
    assert (row.dispatched_at_s, row.completed_at_s, row.fate) == (1.0, 2.0, "trained")
    assert (row.num_experts, row.num_answered) == (2, 2)
    assert row.reward_mean == pytest.approx(0.4)
    assert row.reward_std == pytest.approx((0.5 + 0.1) / 2)  # each expert's own deviation, then their mean
    assert row.correct == 0.5  # two of four equal the truth
    assert not row.zero_variance


def test_a_candidate_with_any_accepted_answer_is_right():
    monitor = a_monitor()
    asked = replace(question("a", 7), accepted=("8", "seven"))
    group = CandidateGroup(Draw(0, asked), 3, a_group().candidates)
    monitor.group(
        group, dispatched_at_s=1.0, completed_at_s=2.0, rewards=np.ones((1, 4)), num_experts=1, fate="trained"
    )
    assert monitor.log.of(Group)[-1].correct == 0.75


def test_what_did_not_come_is_in_no_mean():
    row = book(a_monitor(), [[NAN] * 4, [0.2, NAN, 0.2, 0.8]])
    assert (row.num_experts, row.num_answered) == (2, 1)
    assert row.reward_mean == pytest.approx(0.4)
    assert row.reward_std == pytest.approx(np.std([0.2, 0.2, 0.8]))


@pytest.mark.parametrize("rewards", [[], [[NAN] * 4]])
def test_a_group_that_nobody_scored_has_zeros_and_warns_about_nothing(rewards):
    row = book(a_monitor(), rewards, fate="no_rewards")
    assert (row.num_answered, row.reward_mean, row.reward_std, row.zero_variance) == (0, 0.0, 0.0, True)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=4))
def test_a_group_without_spread_is_marked_whatever_its_rewards(rewards):
    row = book(a_monitor(), rewards)
    assert row.zero_variance == all(np.std(scores) == 0 for scores in rewards)
    assert min(map(min, rewards)) - 1e-9 <= row.reward_mean <= max(map(max, rewards)) + 1e-9


def test_which_candidates_are_right_is_kept_by_draw_for_the_summary_only():
    monitor = a_monitor()
    book(monitor, [[1, 0, 1, 0]], draw=5)
    assert monitor.correct == {5: [True, False, True, False]}


def test_an_update_has_the_mean_reward_of_the_groups_since_the_last_one():
    monitor = a_monitor()
    book(monitor, [[1, 1, 1, 1]], draw=0)
    book(monitor, [[0, 0, 0, 0]], draw=1)
    book(monitor, [[NAN] * 4], draw=2)
    monitor.updated(STATS, [0, 2, 1], num_candidates=12, zero_variance=0.25)
    book(monitor, [[0, 0, 0, 1]], draw=3)
    monitor.updated(STATS, [], num_candidates=4, zero_variance=0.0)
    first, second = monitor.log.of(Update)
    assert (first.reward_mean, second.reward_mean) == (0.5, 0.25)
    assert (first.num_groups, first.staleness_mean, first.staleness_max) == (3, 1.0, 2)
    assert (second.num_groups, second.staleness_mean, second.staleness_max) == (0, 0.0, 0)
    assert (first.at_s, first.loss, first.entropy, first.grad_norm) == (12.5, 0.5, 1.5, 2.0)
    assert (first.num_candidates, first.zero_variance_share) == (12, 0.25)


# ------------------------------------------------------------------------------------------------------ looking


def looked(monitor):
    return [(row.split, row.policy_version) for row in monitor.log.of(Evaluation)]


def update(monitor, times=1):
    for _ in range(times):
        monitor.policy.version += 1
        monitor.updated(STATS, [0], 4, 0.0)


def test_the_policy_is_looked_at_before_every_few_updates_and_at_the_end():
    monitor = a_monitor(accuracy=[0.1, 0.2], evaluation=EvaluationConfig(every_updates=2))
    monitor.start()
    update(monitor, 5)
    monitor.finish()
    validation = [version for split, version in looked(monitor) if split == "validation"]
    test = [version for split, version in looked(monitor) if split == "test"]
    assert (validation, test) == ([0, 2, 4, 5], [0, 5])


def test_no_version_is_looked_at_twice():
    monitor = a_monitor(evaluation=EvaluationConfig(every_updates=2))
    monitor.start()
    update(monitor, 2)
    monitor.finish()
    assert looked(monitor) == [("validation", 0), ("test", 0), ("validation", 2), ("test", 2)]


def test_test_questions_are_not_touched_when_the_scenario_says_so():
    monitor = a_monitor(evaluation=EvaluationConfig(test=False))
    monitor.start()
    update(monitor)
    monitor.finish()
    assert {split for split, _ in looked(monitor)} == {"validation"}


def test_extra_sets_of_questions_are_looked_at_when_the_test_questions_are():
    for test, reported in ((True, ["test", "never_asked", "reworded"]), (False, [])):
        monitor = a_monitor(accuracy=[0.1, 0.2], evaluation=EvaluationConfig(every_updates=1, test=test))
        looks = {"never_asked": (question("a", 902),), "reworded": (question("a", 903), question("a", 904))}
        monitor.data = replace(monitor.data, looks=looks)
        monitor.start()
        update(monitor, 2)
        monitor.finish()
        assert looked(monitor) == [
            *((split, 0) for split in ["validation", *reported]),
            ("validation", 1),
            ("validation", 2),
            *((split, 2) for split in reported),
        ]
        counts = [row.num_questions for row in monitor.log.of(Evaluation) if row.split == "reworded"]
        assert counts == [2, 2][: 2 * test]
        assert monitor.by_domain.keys() == ({0, 2} if test else set())


def test_accuracy_per_domain_is_kept_for_the_test_questions_by_version():
    monitor = a_monitor(accuracy=[0.1, 0.2])
    monitor.start()
    update(monitor)
    monitor.finish()
    assert monitor.by_domain == {0: {"a": 0.1}, 1: {"a": 0.2}}


# ------------------------------------------------------------------------------------------------------ stopping


def transfer(wire_bytes):
    return Transfer(
        request_id=0, client_id=0, direction="up", purpose="reward", fate="useful", start_at_s=0.0,
        end_at_s=1.0, message_bytes=wire_bytes, wire_bytes=wire_bytes, paper_bytes=0,
    )  # fmt: skip


def outcome(status="ok"):
    return Outcome(
        request_id=0, client_id=0, device_class="phone", purpose="question", subject=0, sent_at_s=0.0,
        ended_at_s=1.0, status=status, phase="done", cause="",
    )  # fmt: skip


def test_the_run_stops_at_the_update_that_was_asked_for():
    monitor = a_monitor(updates=2)
    update(monitor)
    assert not monitor.stopped.is_set()
    update(monitor)
    assert (monitor.stopped.is_set(), monitor.stopped_by) == (True, "updates")


def test_the_run_stops_when_the_validation_accuracy_is_reached_at_a_look():
    monitor = Monitor(
        log=RecordLog(),
        now_s=lambda: 0.0,
        policy=FakePolicy(accuracy=[0.1, 0.2, 0.5, 0.9]),
        data=task_data(num_clients=1),
        stop=StopConfig(accuracy=0.5),
        evaluation=EvaluationConfig(every_updates=2),
        phase=Shown(),
    )
    monitor.start()
    update(monitor)
    assert not monitor.stopped.is_set()
    update(monitor)
    assert monitor.stopped_by == "accuracy"


def test_bytes_of_both_directions_count_and_stop_the_run_when_a_request_ends():
    monitor = a_monitor(wire_bytes="1 kB")
    monitor.log.add(transfer(600))
    monitor.request_ended(outcome())
    assert not monitor.stopped.is_set()
    monitor.log.add(transfer(400))
    monitor.request_ended(outcome())
    assert monitor.stopped_by == "wire_bytes"


def test_real_time_can_stop_a_run_too():
    monitor = a_monitor(wall="1 ms")
    monitor._started_at_wall_s -= 1.0
    update(monitor)
    assert monitor.stopped_by == "wall"


def test_the_first_condition_that_is_met_is_the_one_that_is_named():
    monitor = a_monitor(updates=1, wire_bytes="1 B")
    update(monitor)
    monitor.log.add(transfer(10))
    monitor.request_ended(outcome())
    assert monitor.stopped_by == "updates"


async def test_who_pauses_when_the_run_is_over_goes_no_further_and_before_it_goes_on():
    monitor = a_monitor(updates=1)
    await monitor.pause_if_over()
    update(monitor)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1e9):
            await monitor.pause_if_over()


@pytest.mark.parametrize(
    "stop", [{"updates": 0}, {"accuracy": 0.0}, {"accuracy": 1.1}, {"virtual": 30}, {"wire_bytes": 5}]
)
def test_a_stop_condition_that_makes_no_sense_or_has_no_unit_is_refused(stop):
    with pytest.raises(ValidationError):
        StopConfig(**stop)


def test_the_live_view_is_told_time_reward_losses_and_bytes():
    shown = Shown()
    monitor = a_monitor(shown=shown, accuracy=[0.25])
    monitor.start()
    book(monitor, [[1, 0, 1, 0]])
    monitor.log.add(transfer(600))
    for status in ("ok", "dropped", "cut", "late"):
        monitor.request_ended(outcome(status))
    update(monitor)
    assert shown.figures == [
        (
            1,
            {
                "virtual_s": 12.5,
                "accuracy": 0.25,
                "reward": 0.5,
                "in_flight": 0,
                "dropped": 2,
                "wire_bytes": 600,
            },
        )
    ]


def test_an_update_leaves_a_row_for_each_staleness_that_was_measured_and_none_otherwise():
    monitor = a_monitor()
    monitor.updated(STATS, [0, 2], num_candidates=8, zero_variance=0.0)
    assert monitor.log.of(Ratio) == []
    parts = tuple(RatioStats(age, 10 + age, 1.0, 0.9, 0.0, 0.1, 0.01) for age in (0, 2))
    monitor.updated(UpdateStats(0.5, 1.5, 0.25, 2.0, parts), [0, 2], num_candidates=8, zero_variance=0.0)
    assert [(row.staleness, row.num_tokens, row.effective_share) for row in monitor.log.of(Ratio)] == [
        (0, 10, 0.9),
        (2, 12, 0.9),
    ]


@given(st.integers(1, 5), st.integers(1, 16), st.integers(0, 2**32), st.booleans())
def test_mean_and_spread_have_the_bits_of_numpys_functions_that_look_for_nan(experts, candidates, seed, gaps):
    rng = np.random.default_rng(seed)
    rewards = rng.random((experts, candidates)) ** 3
    if gaps:
        rewards[:, 1:][rng.random((experts, candidates - 1)) < 0.3] = np.nan
    expected = float(np.nanmean(rewards)), float(np.nanmean(np.nanstd(rewards, axis=1)))
    assert monitor._mean_and_spread(rewards) == expected


def test_where_no_reward_came_mean_and_spread_are_zero():
    assert monitor._mean_and_spread(np.empty((0, 8))) == (0.0, 0.0)


@given(st.dictionaries(st.integers(0, 5000), st.lists(st.booleans(), min_size=3, max_size=3)))
def test_marks_are_a_mapping_from_draws(expected):
    marks = CorrectCandidates()
    for draw, right in expected.items():
        marks.put(draw, [not one for one in right])
        marks.put(draw, right)
    assert marks == expected
    assert len(marks) == len(expected)
    assert marks.get(6000) is None


def test_groups_of_two_sizes_are_refused():
    marks = CorrectCandidates()
    marks.put(0, [True, False])
    with pytest.raises(ValueError, match="a group of 3 candidates among groups of 2"):
        marks.put(1, [True, False, True])
