"""Tasks that are given up: the laws they claim, and luck that is nested."""

import asyncio
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.dropout import Dropout, Hazard

PHASES = ("down", "queue", "compute", "up")


def dropout(seed=0, scores=None, **keys):
    return Dropout(DropoutConfig.model_validate(keys), seed, scores)


def test_a_task_is_given_up_with_the_probability_asked_for_at_a_uniform_share():
    some, n = dropout(per_task=0.3), 5000
    shares = [some.gives_up_at((k, "Candidates", 9)) for k in range(n)]
    given_up = [share for share in shares if share is not None]
    assert abs(len(given_up) / n - 0.3) < 3.3 * math.sqrt(0.21 / n)
    assert all(0 < share < 1 for share in given_up)
    assert abs(statistics.fmean(given_up) - 0.5) < 3.3 * math.sqrt(1 / 12 / len(given_up))
    assert some.gives_up_at((5, "Candidates", 9)) == shares[5]


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.0, 1.5]), st.booleans())
def test_raising_the_dropout_only_adds_to_the_tasks_given_up(one, other, spread, scored):
    scores = [-1.0, 0.0, 1.0] if scored else None
    few, many = (dropout(1, scores, per_task=p, spread=spread) for p in sorted((one, other)))
    keys = [(client_id, n) for client_id in range(3) for n in range(40)]
    lost = {key: few.gives_up_at(key) for key in keys}
    more = {key: many.gives_up_at(key) for key in keys}
    assert all(share is None or more[key] == share for key, share in lost.items())


def test_survival_under_one_hazard_is_exponential_in_time():
    some, n = dropout(hazard="36 /h"), 5000
    assert [some.hazard_per_s(phase) for phase in PHASES] == pytest.approx([0.01] * 4)
    times_s = [some.endurance((k,)) / some.hazard_per_s("compute") for k in range(n)]
    survived = sum(time_s > 50 for time_s in times_s) / n
    p = math.exp(-0.5)
    assert abs(survived - p) < 3.3 * math.sqrt(p * (1 - p) / n)


def test_a_hazard_can_differ_by_phase_and_a_queue_counts_as_computation():
    some = dropout(hazard={"download": "1 /s", "compute": "2 /s", "upload": "3 /s"})
    assert [some.hazard_per_s(phase) for phase in PHASES] == [1.0, 2.0, 2.0, 3.0]
    assert some.hazard_per_s("done") == 0.0
    # Phases of 0.2, 0.1 and 0.1 s use up 0.2 + 0.2 + 0.3 = 0.7 of an Exp(1) endurance.
    n = 5000
    survived = sum(some.endurance((k, "Candidates")) > 0.7 for k in range(n)) / n
    assert abs(survived - math.exp(-0.7)) < 3.3 * math.sqrt(0.25 / n)


async def test_an_endurance_is_spent_at_the_rate_of_each_phase_and_rests_at_rate_0():
    """Of 1, 4 s at 0.1 take 0.4; the 0.6 that are left last 3 s at 0.2."""
    loop, failed_at_s = asyncio.get_running_loop(), []
    hazard = Hazard(loop.timeline, 1.0, lambda: failed_at_s.append(loop.time()))
    hazard.set_rate(0.1)
    await asyncio.sleep(4)
    hazard.set_rate(0.0)
    await asyncio.sleep(100)
    assert failed_at_s == []
    hazard.set_rate(0.2)
    await asyncio.sleep(50)
    assert failed_at_s == [pytest.approx(107)]


def test_without_dropout_nothing_is_ever_given_up():
    assert dropout().gives_up_at((0, 1)) is None
    assert not dropout().has_hazard
    assert dropout(hazard={"upload": "1 /h"}).has_hazard
    assert all(dropout(per_task=1.0).gives_up_at((k,)) is not None for k in range(20))


def test_a_device_s_own_risk_is_the_share_of_its_tasks_that_it_gives_up():
    some = dropout(4, per_task=0.3, spread=1.5)
    risks = [some.per_task_of(client_id) for client_id in range(8)]
    assert max(risks) - min(risks) > 0.2
    for client_id, risk in enumerate(risks):
        n = 2000
        lost = sum(some.gives_up_at((client_id, "Candidates", k)) is not None for k in range(n)) / n
        assert abs(lost - risk) < 3.9 * math.sqrt(risk * (1 - risk) / n)


def test_scores_say_who_gives_up_most_with_the_mean_kept():
    some = dropout(0, [1.0, -1.0, 0.0], per_task=0.3, spread=2.0)
    risks = [some.per_task_of(client_id) for client_id in range(3)]
    assert risks[1] < risks[2] < risks[0]
    assert statistics.fmean(risks) == pytest.approx(0.3, abs=1e-12)


def test_a_device_s_risk_does_not_depend_on_how_many_others_there_are():
    a, b = dropout(per_task=0.2, spread=1.0), dropout(per_task=0.2, spread=1.0)
    for client_id in range(5):
        a.per_task_of(client_id)
    assert a.per_task_of(5) == b.per_task_of(5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"per_task": 1.5}, "less than or equal to 1"),
        ({"spread": -1.0}, "greater than or equal to 0"),
        ({"hazard": 0.5}, "has no unit"),
        ({"hazard": "-1 /s"}, "zero or more"),
        ({"hazard": {"compute": "1 s"}}, "unknown unit"),
        ({"hazard": {"queue": "1 /s"}}, "queue"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        DropoutConfig.model_validate(keys)


def test_one_hazard_is_the_same_as_that_rate_in_every_phase():
    one = DropoutConfig.model_validate({"hazard": "2 /h"})
    assert one == DropoutConfig.model_validate(
        {"hazard": dict.fromkeys(("download", "compute", "upload"), "2 /h")}
    )
    assert DropoutConfig.model_validate_json(one.model_dump_json()) == one
