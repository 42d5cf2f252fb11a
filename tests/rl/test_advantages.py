"""Group-relative advantages: digits by hand, and what must hold for any rewards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsim.rl.advantages import GROUPINGS, advantages, with_format_reward
from fedsim.rl.fusion import mean_of_answered

NAN = float("nan")
READINGS = ("candidates", "per_expert", "joint")

values = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0]))
sparse = st.one_of(values, st.just(NAN))
shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
partial_rewards = hnp.arrays(np.float64, shapes, elements=sparse)
full_rewards = hnp.arrays(np.float64, shapes, elements=values)


def test_one_expert_of_two_right_candidates_in_four_gets_plus_and_minus_one():
    assert advantages(np.array([[1.0, 1.0, 0.0, 0.0]]), epsilon=0.0) == pytest.approx([1, 1, -1, -1])
    assert advantages(np.array([[1.0, 1.0, 0.0, 0.0]]), epsilon=0.5) == pytest.approx([0.5, 0.5, -0.5, -0.5])


def test_candidates_standardises_the_mean_over_experts():
    rewards = np.array([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])  # means 1, 1/4, 0; mean 5/12, std sqrt(26)/12
    expected = np.array([7.0, -2.0, -5.0]) / np.sqrt(26.0)
    assert advantages(rewards, grouping="candidates", epsilon=0.0) == pytest.approx(expected)


def test_per_expert_gives_a_quiet_expert_the_same_voice_as_a_loud_one():
    rewards = np.array([[1.0, 0.0], [0.50, 0.51]])
    assert advantages(rewards, grouping="per_expert", epsilon=0.0) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert advantages(rewards, grouping="candidates", epsilon=0.0) == pytest.approx([1.0, -1.0])


def test_joint_standardises_over_all_pairs():
    rewards = np.array([[1.0, 0.0], [3.0, 2.0]])  # mean 1.5, std sqrt(1.25); means over experts +-0.5
    expected = np.array([0.5, -0.5]) / np.sqrt(1.25)
    assert advantages(rewards, grouping="joint", epsilon=0.0) == pytest.approx(expected)


def test_joint_with_disjoint_candidates_per_expert_keeps_their_difference():
    rewards = np.array([[1.0, NAN], [NAN, 0.0]])
    assert advantages(rewards, grouping="joint", epsilon=0.0) == pytest.approx([1.0, -1.0])
    assert np.isnan(advantages(rewards, grouping="per_expert")).all()


def test_without_division_only_the_mean_is_taken_off():
    rewards = np.array([[1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    expected = [7 / 12, -2 / 12, -5 / 12]
    for grouping in READINGS:
        assert advantages(rewards, grouping=grouping, divide_by_std=False) == pytest.approx(expected)


def test_a_missing_score_is_masked_and_never_counted_as_zero():
    rewards = np.array([[0.9, NAN, 0.1], [0.9, 0.9, 0.1]])
    assert mean_of_answered(rewards) == pytest.approx([0.9, 0.9, 0.1])
    result = advantages(rewards, grouping="candidates", epsilon=0.0)
    assert result == pytest.approx([np.sqrt(0.5), np.sqrt(0.5), -np.sqrt(2.0)])


def test_per_expert_with_a_partial_reply_is_recentred():
    rewards = np.array([[1.0, 0.0, NAN], [1.0, 0.0, 0.0]])
    # expert 0: 1, -1; expert 1: sqrt 2, -1/sqrt 2 twice; averages, then less their mean
    averages = np.array([(1 + 2**0.5) / 2, (-1 - 0.5**0.5) / 2, -(0.5**0.5)])
    expected = averages - averages.mean()
    assert advantages(rewards, epsilon=0.0) == pytest.approx(expected)


def test_unscored_candidates_are_nan_and_scored_ones_still_sum_to_zero():
    result = advantages(np.array([[0.2, NAN, 0.8], [0.1, NAN, NAN]]))
    assert np.isnan(result).tolist() == [False, True, False]
    assert np.nansum(result) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("grouping", READINGS)
def test_a_group_with_a_single_scored_candidate_teaches_nothing(grouping):
    assert np.isnan(advantages(np.array([[NAN, 0.7, NAN]]), grouping=grouping)).all()


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_no_expert_at_all_leaves_every_candidate_unscored(grouping):
    assert np.isnan(advantages(np.empty((0, 4)), grouping=grouping)).all()
    assert advantages(np.empty((2, 0)), grouping=grouping).shape == (0,)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.7])
def test_equal_rewards_give_exactly_zero_even_where_their_mean_rounds(grouping, value):
    result = advantages(np.full((3, 7), value), grouping=grouping, epsilon=0.0)
    assert (result == 0.0).all()


def test_a_flat_expert_contributes_zero_and_halves_the_other():
    one = advantages(np.array([[1.0, 0.0]]), epsilon=0.0)
    two = advantages(np.array([[1.0, 0.0], [0.5, 0.5]]), epsilon=0.0)
    assert two == pytest.approx(one / 2)


def test_literal_reading_is_zero_up_to_rounding_while_the_others_are_not():
    rewards = np.array([[0.9, 0.2, 0.4], [0.8, 0.1, 0.7], [0.3, 0.0, 0.5]])
    assert np.abs(advantages(rewards, grouping="literal")).max() < 1e-12
    assert all(np.abs(advantages(rewards, grouping=grouping)).max() > 0.5 for grouping in READINGS)


def test_format_reward_is_added_to_scores_that_are_there_only():
    rewards = with_format_reward(np.array([[1.0, NAN], [0.0, 0.5]]), np.array([1.0, 0.0]), weight=0.25)
    np.testing.assert_array_equal(rewards, [[1.25, NAN], [0.25, 0.5]])


@pytest.mark.parametrize(
    ("rewards", "settings", "message"),
    [
        ([1.0, 2.0], {}, r"must be \[M, G\]"),
        ([[1.0, float("inf")]], {}, "infinity"),
        ([[1.0, 0.0]], {"epsilon": -1.0}, "epsilon is -1.0"),
        ([[1.0, 0.0]], {"epsilon": NAN}, "epsilon is nan"),
        ([[1.0, 0.0]], {"grouping": "group"}, "must be one of candidates"),
    ],
)
def test_senseless_input_is_refused_with_its_reason(rewards, settings, message):
    with pytest.raises(ValueError, match=message):
        advantages(np.array(rewards), **settings)


def test_format_reward_of_another_shape_or_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be"):
        with_format_reward(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        with_format_reward(np.zeros((2, 3)), np.array([0.0, NAN, 1.0]))


@given(partial_rewards, st.sampled_from(GROUPINGS), st.booleans())
def test_advantages_sum_to_zero_over_the_scored_candidates(rewards, grouping, divide):
    result = advantages(rewards, grouping=grouping, divide_by_std=divide)
    assert result.shape == rewards.shape[1:]
    assert abs(np.nansum(result)) < 1e-9
    assert not np.isinf(result).any()


@given(partial_rewards, st.sampled_from(GROUPINGS))
def test_nobody_scored_means_nan(rewards, grouping):
    result = advantages(rewards, grouping=grouping)
    unscored = np.isnan(rewards).all(axis=0)
    assert np.isnan(result[unscored]).all()


@given(partial_rewards.filter(lambda rewards: len(rewards) == 1), st.booleans())
def test_with_one_expert_three_readings_are_one(rewards, divide):
    first, *others = [advantages(rewards, grouping=grouping, divide_by_std=divide) for grouping in READINGS]
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-9)


@given(full_rewards)
def test_without_division_full_replies_make_three_readings_one(rewards):
    first, *others = [advantages(rewards, grouping=grouping, divide_by_std=False) for grouping in READINGS]
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-12)


@given(full_rewards, st.sampled_from(READINGS))
def test_asking_every_expert_twice_changes_nothing(rewards, grouping):
    once, twice = (
        advantages(rewards, grouping=grouping),
        advantages(np.tile(rewards, (2, 1)), grouping=grouping),
    )
    np.testing.assert_allclose(twice, once, atol=1e-9)


@given(partial_rewards, st.sampled_from(READINGS), st.randoms(use_true_random=False))
def test_the_order_of_experts_and_candidates_does_not_matter(rewards, grouping, random):
    experts, candidates = (random.sample(range(n), n) for n in rewards.shape)
    shuffled = advantages(rewards[experts][:, candidates], grouping=grouping)
    np.testing.assert_allclose(shuffled, advantages(rewards, grouping=grouping)[candidates], atol=1e-9)


steps = hnp.arrays(np.float64, shapes, elements=st.integers(0, 8).map(lambda n: n / 8))


@given(steps, st.integers(-4, 4), st.sampled_from([0.5, 2.0, 4.0]))
def test_per_expert_ignores_each_experts_own_scale_and_offset(rewards, offset, scale):
    moved = rewards.copy()
    moved[0] = moved[0] * scale + offset
    np.testing.assert_allclose(advantages(moved, epsilon=0.0), advantages(rewards, epsilon=0.0), atol=1e-9)


@given(partial_rewards)
def test_literal_reading_never_teaches(rewards):
    result = advantages(rewards, grouping="literal")
    assert (np.abs(np.nan_to_num(result)) < 1e-9).all()
