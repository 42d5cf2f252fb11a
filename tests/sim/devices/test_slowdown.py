from __future__ import annotations

import json
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fedsim.errors import ScenarioError
from fedsim.sim.devices.slowdown import Slowdowns
from fedsim.sim.devices.slowdown_config import SlowdownConfig

SETTINGS = TypeAdapter(tuple[SlowdownConfig, ...])
FIXED = {"kind": "fixed", "share": 0.3, "factor": 4.0}
PARETO = {"kind": "pareto", "shape": 2.5}
LOGNORMAL = {"kind": "lognormal", "sigma": 0.6}
ON_OFF = {"kind": "on_off", "factor": 5.0, "mean_fast": "60 s", "mean_slow": "20 s"}
BACKGROUND = {"kind": "background", "mean_load": 0.3, "period": "10 s", "memory": 0.8}
EVERY_LAW = (FIXED, PARETO, LOGNORMAL, ON_OFF, BACKGROUND)


class Hung:
    """Every client hangs in the given intervals [start, end)."""

    def __init__(self, *intervals):
        self._intervals = intervals

    def is_hung(self, client_id, at_s):
        return any(start <= at_s < end for start, end in self._intervals)

    def next_hang_change(self, client_id, at_s):
        edges = [edge for interval in self._intervals for edge in interval if edge > at_s]
        return min(edges, default=math.inf)


def slow(*laws, num_clients=2000, seed=0, classes=None, hangs=None):
    names = classes or ["phone"] * num_clients
    return Slowdowns(SETTINGS.validate_json(json.dumps(laws)), seed, names, hangs)


def seconds(source, client_id, nominal_s=1.0, start_s=0.0, task=0):
    return source.finish_at_s(client_id, (client_id, "question", task), start_s, nominal_s) - start_s


def within(observed, expected, n, confidence=3.3):
    """Whether a share of n independent draws is the expected one, at 99.9%."""
    return abs(observed - expected) < confidence * math.sqrt(expected * (1 - expected) / n)


# Worked by hand.


def test_without_laws_a_task_takes_its_nominal_time():
    source = slow()
    assert source.finish_at_s(3, (3, "x"), 7.25, 1.5) == 8.75
    assert source.progress_s(3, (3, "x"), 7.25, 8.0) == 0.75
    assert source.next_change(3, 0.0) == math.inf
    assert source.mean_factor(3) == 1.0


def test_spells_after_the_horizon_are_not_looked_for():
    source = Slowdowns([], 0, ["phone"], Hung((3.0, 5.0), (100.0, 200.0)), horizon_s=50.0)
    assert source.finish_at_s(0, (0, "x"), 0.0, 60.0) == 62.0  # what began before it is exact
    assert (
        source.finish_at_s(0, (0, "x"), 0.0, 120.0) == 122.0
    )  # and not 222: later than anybody can see in any case
    assert source.progress_s(0, (0, "x"), 0.0, 50.0) == 48.0


def test_a_device_that_is_slow_for_good_takes_its_factor_longer():
    source = slow({"kind": "fixed", "share": 1.0, "factor": 4.0})
    assert source.finish_at_s(0, (0, "x"), 10.0, 2.0) == 18.0
    assert source.progress_s(0, (0, "x"), 10.0, 14.0) == 1.0


def test_a_device_that_hangs_does_nothing_meanwhile_and_goes_on():
    source = slow(hangs=Hung((3.0, 5.0), (6.0, 6.5)))
    assert source.finish_at_s(0, (0, "x"), 0.0, 2.0) == 2.0
    assert source.finish_at_s(0, (0, "x"), 0.0, 3.0) == 3.0
    assert source.finish_at_s(0, (0, "x"), 0.0, 5.0) == 7.5
    assert source.finish_at_s(0, (0, "x"), 4.0, 0.5) == 5.5
    assert source.progress_s(0, (0, "x"), 0.0, 4.0) == 3.0
    assert source.speed(0, 3.0) == 0.0


def test_a_device_that_hangs_for_good_never_ends():
    source = slow(ON_OFF, hangs=Hung((3.0, math.inf)))
    assert source.finish_at_s(0, (0, "x"), 0.0, 4.0) == math.inf
    assert source.finish_at_s(0, (0, "x"), 5.0, 0.0) == math.inf
    assert source.progress_s(0, (0, "x"), 3.0, 1e6) == 0.0


def test_laws_multiply():
    source = slow(
        {"kind": "fixed", "share": 1.0, "factor": 4.0}, {"kind": "fixed", "share": 1.0, "factor": 2.0}
    )
    assert seconds(source, 0, 3.0) == 24.0
    alone, both = slow(PARETO), slow(PARETO, {"kind": "fixed", "share": 1.0, "factor": 2.0})
    assert seconds(both, 5, 1.0, task=9) == pytest.approx(2 * seconds(alone, 5, 1.0, task=9), rel=1e-12)


def test_a_law_of_some_classes_concerns_no_others():
    source = slow({"kind": "fixed", "share": 1.0, "factor": 4.0, "classes": ["phone"]},
                  ON_OFF | {"classes": ["tablet"]}, classes=["laptop", "phone", "tablet"])  # fmt: skip
    assert [seconds(source, k) for k in (0, 1)] == [1.0, 4.0]
    assert [source.next_change(k, 0.0) < math.inf for k in range(3)] == [False, False, True]


def test_progress_backwards_or_without_end_is_refused():
    source = slow(ON_OFF)
    for end_s in (4.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="must end later"):
            source.progress_s(0, (0, "x"), 5.0, end_s)


# Both directions of one integral.


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(EVERY_LAW), max_size=4),
    st.integers(0, 50),
    st.floats(0, 1e4),
    st.floats(1e-3, 500),
)
def test_what_is_done_until_the_end_is_the_whole_task(laws, client_id, start_s, nominal_s):
    source, key = slow(*laws, num_clients=60), (client_id, "question", 1)
    end_s = source.finish_at_s(client_id, key, start_s, nominal_s)
    assert start_s < end_s < math.inf
    assert source.progress_s(client_id, key, start_s, end_s) == pytest.approx(nominal_s, rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(EVERY_LAW), max_size=4), st.floats(0, 1e3), st.floats(0, 1))
def test_a_task_that_pauses_for_no_time_ends_when_it_would_have_ended(laws, start_s, share):
    source, key = slow(*laws, hangs=Hung((40.0, 55.0))), (7, "question", 1)
    end_s = source.finish_at_s(7, key, start_s, 100.0)
    pause_s = start_s + share * (end_s - start_s)
    left_s = max(0.0, 100.0 - source.progress_s(7, key, start_s, pause_s))
    assert source.finish_at_s(7, key, pause_s, left_s) == pytest.approx(end_s, rel=1e-9, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2e4)), min_size=1, max_size=20), st.randoms())
def test_answers_do_not_depend_on_the_order_of_questions(questions, shuffler):
    source = slow(*EVERY_LAW, num_clients=4)
    expected = {
        q: (source.speed(*q), source.next_change(*q), seconds(source, q[0], 3.0, q[1])) for q in questions
    }
    shuffler.shuffle(questions)
    fresh = slow(*EVERY_LAW, num_clients=4)
    for q in questions:
        assert (fresh.speed(*q), fresh.next_change(*q), seconds(fresh, q[0], 3.0, q[1])) == expected[q]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(0, 1e5))
def test_the_speed_holds_until_the_next_change(client_id, at_s):
    source = slow(ON_OFF, BACKGROUND, num_clients=60)
    change_s = source.next_change(client_id, at_s)
    assert change_s > at_s
    assert source.speed(client_id, math.nextafter(change_s, 0)) == source.speed(client_id, at_s)


# Whose luck it is.


def test_a_slow_down_more_changes_no_other_ones_luck():
    alone, among = slow(PARETO, ON_OFF), slow(FIXED, LOGNORMAL, BACKGROUND, PARETO, ON_OFF)
    fixed, lognormal, background = slow(FIXED), slow(LOGNORMAL), slow(BACKGROUND)
    for k in range(20):
        key = (k, "question", 4)
        others = fixed.task_factor(k, key) * lognormal.task_factor(k, key)
        assert among.task_factor(k, key) == pytest.approx(others * alone.task_factor(k, key), rel=1e-12)
        assert among.speed(k, 99.0) == pytest.approx(background.speed(k, 99.0) * alone.speed(k, 99.0))


def test_two_laws_of_one_kind_have_luck_of_their_own():
    source = slow(PARETO, PARETO)
    squares = [slow(PARETO).task_factor(k, (k,)) ** 2 for k in range(20)]
    assert all(source.task_factor(k, (k,)) != pytest.approx(squares[k]) for k in range(20))


def test_a_client_more_changes_nobody_elses_luck():
    few, many = slow(*EVERY_LAW, num_clients=5), slow(*EVERY_LAW, num_clients=50)
    assert [seconds(few, k, 30.0) for k in range(5)] == [seconds(many, k, 30.0) for k in range(5)]
    assert seconds(slow(*EVERY_LAW, seed=1), 3, 30.0) != seconds(few, 3, 30.0)


def test_a_higher_share_only_adds_slow_devices_and_a_heavier_tail_only_slows_tasks():
    few, many = slow(FIXED), slow(FIXED | {"share": 0.6})
    light, heavy = slow(PARETO), slow(PARETO | {"shape": 1.2})
    for k in range(300):
        assert seconds(few, k) <= seconds(many, k)
        assert seconds(light, k) < seconds(heavy, k)


# Closed forms, at 99.9% each.


def test_the_share_of_slow_devices_is_the_one_asked_for():
    factors = [seconds(slow_devices, k) for slow_devices in [slow(FIXED)] for k in range(2000)]
    assert set(factors) == {1.0, 4.0}
    assert within(factors.count(4.0) / 2000, 0.3, 2000)
    again = slow(FIXED)
    assert all(seconds(again, k, task=5) == factors[k] for k in range(50))


@pytest.mark.parametrize("times", [1.5, 3.0, 6.0])
def test_a_pareto_tail_is_a_power_of_the_factor(times):
    n, source = 6000, slow(PARETO)
    factors = [source.task_factor(0, (0, "x", task)) for task in range(n)]
    assert min(factors) >= 1.0
    assert within(sum(factor > times for factor in factors) / n, times**-2.5, n)


def test_a_pareto_mean_is_shape_over_shape_minus_one():
    # Shape 4: variance a / ((a - 1)^2 (a - 2)) = 2 / 9.
    n, source = 20_000, slow({"kind": "pareto", "shape": 4.0})
    mean = statistics.fmean(source.task_factor(0, (0, task)) for task in range(n))
    assert abs(mean - 4 / 3) < 3.3 * math.sqrt(2 / 9 / n)
    assert source.mean_factor(0) == pytest.approx(4 / 3)
    assert slow({"kind": "pareto", "shape": 1.0}).mean_factor(0) == math.inf


def test_a_lognormal_factor_has_mean_one_and_the_spread_asked_for():
    n, source = 10_000, slow(LOGNORMAL)
    factors = [source.task_factor(0, (0, task)) for task in range(n)]
    assert abs(statistics.fmean(factors) - 1) < 3.3 * math.sqrt((math.exp(0.36) - 1) / n)
    logs = [math.log(factor) for factor in factors]
    assert abs(statistics.fmean(logs) + 0.18) < 3.3 * 0.6 / math.sqrt(n)
    assert abs(statistics.stdev(logs) - 0.6) < 3.3 * 0.6 / math.sqrt(2 * n)


@pytest.mark.parametrize("at_s", [0.0, 33.0, 1000.0])
def test_the_share_of_slow_spells_is_the_same_at_every_instant(at_s):
    n, source = 4000, slow(ON_OFF, num_clients=4000)
    slow_now = sum(source.speed(k, at_s) == 0.2 for k in range(n)) / n
    assert within(slow_now, 20 / 80, n)


def test_spells_have_their_mean_lengths():
    source, fast, slow_ = slow(ON_OFF), [], []
    for k in range(150):
        at_s = source.next_change(k, 0.0)
        for _ in range(20):
            end_s = source.next_change(k, at_s)
            (fast if source.speed(k, at_s) == 1.0 else slow_).append(end_s - at_s)
            at_s = end_s
    assert abs(statistics.fmean(fast) - 60) < 3.3 * 60 / math.sqrt(len(fast))
    assert abs(statistics.fmean(slow_) - 20) < 3.3 * 20 / math.sqrt(len(slow_))


@pytest.mark.parametrize("times", [0.2, 0.6, 0.9])
def test_background_load_has_a_power_law_of_mean_load(times):
    # speed = U^(m / (1 - m)), so P(speed <= s) = s^((1 - m) / m); clients are independent.
    n, source = 4000, slow(BACKGROUND, num_clients=4000)
    speeds = [source.speed(k, 1234.0) for k in range(n)]
    assert within(sum(speed <= times for speed in speeds) / n, times ** (7 / 3), n)
    assert abs(statistics.fmean(speeds) - 0.7) < 3.3 * statistics.stdev(speeds) / math.sqrt(n)


def test_background_load_remembers():
    n, source = 3000, slow(BACKGROUND, num_clients=3000)
    at = {lag: [source.speed(k, 100.0 + lag) for k in range(n)] for lag in (0, 5, 10, 400)}
    assert at[5] == at[0]  # the same period
    assert 0.7 < statistics.correlation(at[0], at[10]) < 0.85
    assert abs(statistics.correlation(at[0], at[400])) < 3.3 / math.sqrt(n)


@pytest.mark.parametrize(
    ("laws", "mean"),
    [((ON_OFF,), 1 / (1 - 0.25 * 0.8)), ((BACKGROUND,), 1 / 0.7), ((ON_OFF, BACKGROUND), 1 / 0.8 / 0.7)],
    ids=["on_off", "background", "both"],
)
def test_a_long_task_takes_nominal_time_over_mean_speed(laws, mean):
    # Work done in a long time is the mean speed times it, so the time of long work is the work over it.
    source, nominal_s = slow(*laws, num_clients=120), 4000.0
    times = [seconds(source, k, nominal_s) / nominal_s for k in range(120)]
    assert source.mean_factor(0) == pytest.approx(mean)
    half_width = 3.3 * statistics.stdev(times) / math.sqrt(len(times))
    assert abs(statistics.fmean(times) - mean) < half_width + 0.01 * mean  # 4000 s are not for ever
    assert half_width < 0.05 * mean


def test_a_short_task_takes_the_mean_of_one_over_the_speed():
    # 1 ms of work meets one spell: 3/4 take 1 ms, 1/4 take 5 ms, 2 ms on average.
    n, source = 5000, slow(ON_OFF, num_clients=5000)
    times = [seconds(source, k, 1e-3, start_s=777.0) for k in range(n)]
    assert abs(statistics.fmean(times) - 2e-3) < 3.3 * statistics.stdev(times) / math.sqrt(n)


# What is refused.


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (PARETO | {"shape": 0.9}, "greater than or equal to 1"),
        (FIXED | {"share": 0.0}, "greater than 0"),
        (FIXED | {"factor": 0.5}, "greater than or equal to 1"),
        (ON_OFF | {"mean_slow": 5}, "has no unit"),
        (BACKGROUND | {"mean_load": 1.0}, "less than or equal to 0.9"),
        (PARETO | {"classes": ["fone"]}, "did you mean 'phone'"),
        ({"kind": "slow"}, "slow"),
    ],
)
def test_settings_that_make_no_sense_are_refused(law, message):
    with pytest.raises(ValidationError, match=message):
        SETTINGS.validate_json(json.dumps([law]))


def test_a_slow_class_without_clients_is_refused():
    with pytest.raises(
        ScenarioError, match=r"slowdowns\.0\.classes names 'tablet', of which there is no client"
    ):
        slow(PARETO | {"classes": ["tablet"]}, classes=["phone", "laptop"])
