"""DISCO's scaling: its constants and closed form, and that a prompt weight cannot cancel without anybody noticing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from fedsim.protocols.shared.monitor import StopConfig
from fedsim.rl.advantages import advantages
from fedsim.rl.scaling import (
    ScalingConfig,
    difficulty_weight,
    domain_shares,
    domain_weight,
    prompt_weight,
    scaled_advantages,
)
from tests.samples.fakes import FakeEvaluator, FakePolicy, play, settings, task_data

NAN = float("nan")
READINGS = ("candidates", "per_expert", "joint")
rewards_of = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.just(NAN)),
)


@pytest.mark.parametrize(
    ("version", "head", "tail"),
    [("log", 0.847, 2.565), ("log_squared", 0.718, 6.579), ("inverse", 1.333, 12.0)],
)
def test_domain_weights_have_the_constants_of_the_authors_code(version, head, tail):
    assert domain_weight(0.75, version) == pytest.approx(head, abs=5e-4)
    assert domain_weight(1 / 12, version) == pytest.approx(tail, abs=5e-4)


def test_a_share_outside_0_1_is_refused():
    for share in (0.0, 1.5, NAN):
        with pytest.raises(ValueError, match="share is"):
            domain_weight(share, "log")


def test_shares_are_those_of_the_training_questions():
    assert domain_shares(["a", "b", "a", "a"]) == {"a": 0.75, "b": 0.25}


def test_difficulty_is_the_inverse_mean_reward_capped_at_the_number_of_candidates():
    assert difficulty_weight(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(4.0, abs=1e-3)
    assert difficulty_weight(np.array([1.0, 1.0, NAN, NAN])) == pytest.approx(1.0, abs=1e-4)
    assert difficulty_weight(np.array([1e-3, 0.0, 0.0, 0.0])) == 4.0  # soft rewards: 4,000 without the cap
    assert difficulty_weight(np.array([-0.5, 0.0])) == 2.0
    assert difficulty_weight(np.array([NAN, NAN])) == 1.0


@pytest.mark.parametrize("num_right", [1, 3, 7])
def test_binary_rewards_give_the_closed_form_of_the_paper(num_right):
    """Right: w_dom (1 - SC) / SC; wrong: -w_dom."""
    rewards = np.array([[1.0] * num_right + [0.0] * (8 - num_right)])
    config = ScalingConfig(domain="log", difficulty=True, order="before")
    weight = prompt_weight(config, rewards, 1 / 12)
    signal = scaled_advantages(rewards, weight, "before", divide_by_std=False)
    consistency, of_domain = num_right / 8, math.log(13)
    expected = [of_domain * (1 - consistency) / consistency] * num_right + [-of_domain] * (8 - num_right)
    assert signal.prompt_weight == 1.0
    assert signal.weighted == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_and_all_wrong_groups_stay_at_zero(value):
    rewards = np.full((1, 8), value)
    config = ScalingConfig(domain="inverse", difficulty=True, order="before")
    signal = scaled_advantages(rewards, prompt_weight(config, rewards, 0.1), "before", divide_by_std=False)
    assert (signal.weighted == 0).all()


@tried(deadline=None)
@given(rewards_of, st.sampled_from(READINGS), st.sampled_from(["before", "after"]))
def test_unit_weights_are_grpo_without_division_bit_for_bit(rewards, grouping, order):
    signal = scaled_advantages(rewards, 1.0, order, grouping=grouping, divide_by_std=False)
    plain = advantages(rewards, grouping=grouping, divide_by_std=False)
    np.testing.assert_array_equal(signal.weighted, plain)


@tried(deadline=None)
@given(rewards_of, st.sampled_from(READINGS), st.floats(0.1, 20))
def test_without_division_both_orders_are_the_weight_times_grpo(rewards, grouping, weight):
    plain = weight * advantages(rewards, grouping=grouping, divide_by_std=False)
    for order in ("before", "after"):
        signal = scaled_advantages(rewards, weight, order, grouping=grouping, divide_by_std=False)
        np.testing.assert_allclose(signal.weighted, plain, atol=1e-9)


@tried(deadline=None)
@given(rewards_of, st.sampled_from(READINGS), st.sampled_from([0.25, 7.3, 12.0]))
def test_with_division_a_weight_applied_before_cancels_and_one_applied_after_does_not(
    rewards, grouping, weight
):
    plain = advantages(rewards, grouping=grouping, epsilon=0.0)
    before = scaled_advantages(rewards, weight, "before", grouping=grouping, epsilon=0.0)
    after = scaled_advantages(rewards, weight, "after", grouping=grouping, epsilon=0.0)
    np.testing.assert_allclose(before.weighted, plain, atol=1e-9)
    np.testing.assert_allclose(after.weighted, weight * plain, atol=1e-9)
    assert (before.prompt_weight, after.prompt_weight) == (1.0, weight)


@pytest.mark.parametrize("weight", [0.0, -1.0, NAN, math.inf])
def test_a_weight_that_is_no_positive_number_is_refused(weight):
    with pytest.raises(ValueError, match="weight is"):
        scaled_advantages(np.ones((1, 2)), weight, "after")


# ------------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scaling": {"domain": "log"}}, "needs its order"),
        ({"scaling": {"difficulty": True, "order": "before"}}, "cancels when rewards are divided"),
        ({"scaling": {"domain": "log", "order": "after"}, "grouping": "literal"}, "nothing to scale"),
        ({"loss": "dr_grpo", "loss_mean": "sequences"}, "choice of loss grpo"),
        ({"loss": "disco_constrained", "ratio": "decoupled"}, "clips nothing"),
        ({"loss": "disco_constrained", "kl_weight": 0.1}, "kl_weight must be 0"),
        ({"loss": "disco_constrained", "format_weight": 0.1}, "format_weight must be 0"),
        ({"loss": "disco_constrained", "grouping": "joint"}, "standardises nothing"),
        ({"loss": "disco_constrained", "scaling": {"difficulty": True, "order": "after"}}, "weight 1"),
    ],
)
def test_settings_in_which_something_would_silently_do_nothing_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        settings("fedgrpo", **keys)


async def _trained(**keys):
    policy = FakePolicy()
    config = settings("central_grpo", update={"groups_per_update": 8, "in_flight": 8}, **keys)
    data = task_data(num_clients=1, domains=("a", "b", "c"), pool=16)  # six of a, five of b, five of c
    ran = await play(config, [FakeEvaluator()], policy=policy, data=data, stop=StopConfig(updates=2))
    domains = {row.draw: row.domain for row in ran.groups}
    return {
        draw: (domains[draw], np.array(row))
        for step in policy.steps
        for draw, row in zip(step.draws, step.advantages, strict=True)
    }


async def test_the_policy_is_trained_on_weighted_advantages():
    plain = await _trained(divide_by_std=False)
    for order in ("before", "after"):
        scaled = await _trained(divide_by_std=False, scaling={"domain": "inverse", "order": order})
        for draw, (domain, gains) in scaled.items():
            expected = (16 / 6 if domain == "a" else 16 / 5) * plain[draw][1]
            assert gains == pytest.approx(expected)


async def test_difficulty_alone_weighs_by_the_mean_reward():
    plain = await _trained()
    scaled = await _trained(scaling={"difficulty": True, "order": "after"})
    weights = {
        round(float(gains[np.nonzero(gains)][0] / plain[draw][1][np.nonzero(gains)][0]), 2)
        for draw, (_, gains) in scaled.items()
        if gains.any()
    }
    assert weights <= {4.0, 2.0, 1.33} and len(weights) >= 2


async def test_disco_constrained_trains_on_labels():
    for _, gains in (await _trained(loss="disco_constrained")).values():
        assert set(gains) in ({0.0}, {1.0, -1.0})
