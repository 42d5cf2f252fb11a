"""Fusing experts' scores (rl/fusion.py): each rule by hand, what all share, and how a rule meets a grouping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsim.rl.advantages import advantages
from fedsim.rl.fusion import (
    WEIGHTED,
    Fusion,
    fused,
    majority_vote,
    mean_of_answered,
    median,
    standardised_mean,
    trimmed_mean,
)

NAN = float("nan")
RULES: tuple[Fusion, ...] = (
    "mean",
    "competence",
    "standardised",
    "median",
    "trimmed_mean",
    "majority_vote",
    "reliability",
    "routed",
)
SCORES = st.sampled_from([NAN, 0.0, 0.125, 0.25, 0.5, 0.75, 1.0])
TABLES = st.tuples(st.integers(1, 6), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=SCORES)
)


def same(one, other):
    np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@given(row=arrays(np.float64, 5, elements=SCORES))
def test_the_fusion_of_one_expert_is_the_identity(rule, row):
    np.testing.assert_array_equal(fused(row[None, :], None, rule), row)
    with_a_silent_one = np.array([np.full(5, NAN), row])
    np.testing.assert_array_equal(fused(with_a_silent_one, None, rule), row)


@given(table=arrays(np.float64, (2, 4), elements=SCORES))
def test_the_median_of_two_is_their_mean(table):
    same(median(table), mean_of_answered(table))


@pytest.mark.parametrize("rule", RULES)
@given(table=TABLES)
def test_only_a_candidate_that_nobody_scored_stays_without_a_number(rule, table):
    np.testing.assert_array_equal(np.isnan(fused(table, None, rule)), np.isnan(table).all(axis=0))


@pytest.mark.parametrize("rule", RULES)
@given(table=TABLES, order=st.randoms(use_true_random=False))
def test_the_order_of_experts_does_not_matter(rule, table, order):
    shuffled = list(range(len(table)))
    order.shuffle(shuffled)
    same(fused(table[shuffled], None, rule), fused(table, None, rule))


@given(table=TABLES)
def test_the_median_is_numpys_median_of_those_who_answered(table):
    kept = ~np.isnan(table).all(axis=0)
    same(median(table)[kept], np.nanmedian(table[:, kept], axis=0) if kept.any() else [])


def test_a_trimmed_mean_cuts_as_many_at_each_end_as_the_share_allows_rounded_down():
    five = np.array([[0.0], [0.1], [0.2], [0.6], [1.0]])
    same(trimmed_mean(five, trim=0.2), [0.3])  # (0.1 + 0.2 + 0.6) / 3
    same(trimmed_mean(five[:4], trim=0.2), [0.225])  # a fifth of four is none
    same(trimmed_mean(np.arange(10.0)[:, None] ** 2, trim=0.3), [(9 + 16 + 25 + 36) / 4])  # 0.3 x 10 is 3
    assert 0.29 * 100 < 29  # for a float; of the squares of 0 .. 99 those of 29 .. 70 are left
    squares = np.arange(100.0)[:, None] ** 2
    same(trimmed_mean(squares, trim=0.29), [(70 * 71 * 141 - 28 * 29 * 57) / 6 / 42])
    silent = np.array([[0.0], [NAN], [0.1], [0.2], [0.6], [1.0]])
    same(trimmed_mean(silent, trim=0.2), [0.3])
    with pytest.raises(ValueError, match=r"trim is 0.6; must be in \[0, 0.5\]"):
        trimmed_mean(five, trim=0.6)


def test_two_of_five_liars_move_the_mean_but_not_the_median_nor_the_vote():
    honest = [[1.0, 0.0, 0.0]] * 3
    table = np.array([*honest, [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    same(mean_of_answered(table), [0.6, 0.4, 0.4])
    same(median(table), [1.0, 0.0, 0.0])
    same(majority_vote(table), [1.0, 0.0, 0.0])
    same(trimmed_mean(table), [2 / 3, 1 / 3, 1 / 3])
    three = np.array([*honest[:2], *[[0.0, 1.0, 1.0]] * 3])
    same(median(three), [0.0, 1.0, 1.0])  # with a majority of liars nothing helps


def test_a_vote_is_about_the_middle_of_each_experts_own_range():
    table = np.array(
        [
            [0.9, 0.8, 0.1],  # approves of the first two
            [0.02, 0.0, 0.001],  # likelihoods: of the first
            [0.5, 0.5, 0.5],  # abstains
            [NAN, 1.0, 0.0],  # of the second
        ]
    )
    same(majority_vote(table), [1.0, 1.0, 0.0])
    same(majority_vote(table[:2]), [1.0, 0.5, 0.0])
    silent = np.array([[NAN, 1.0, 0.0], [1.0, 0.0, 0.0]])  # who says nothing of a candidate is not against it
    same(majority_vote(silent), [1.0, 0.5, 0.0])
    same(majority_vote(np.full((2, 2), 0.3)), [0.5, 0.5])
    same(majority_vote(np.array([[0.0, 0.5, 1.0]])), [0.0, 0.0, 1.0])  # the middle itself is not approved of


@given(table=arrays(np.float64, (3, 4), elements=SCORES), scale=st.sampled_from([0.25, 2.0, 8.0]))
def test_a_vote_does_not_depend_on_an_experts_scale_or_location(table, scale):
    moved = table.copy()
    moved[1] = scale * moved[1] + 0.5
    same(majority_vote(moved), majority_vote(table))


def test_standardised_scores_count_alike_whatever_their_scale():
    """Rows (0, 1) and (0.5, 0.4): opinions (-1, 1) and (1, -1) cancel; location 0.475."""
    table = np.array([[0.0, 1.0], [0.5, 0.4]])
    same(standardised_mean(table), [0.475, 0.475])
    same(mean_of_answered(table), [0.25, 0.7])
    # With weights 3 and 1 the opinion is -1/2 for the first; mean deviation (0.5 + 0.05) / 2.
    same(standardised_mean(table, np.array([3.0, 1.0])), [0.475 - 0.275 / 2, 0.475 + 0.275 / 2])
    constant = np.array([[0.0, 1.0], [0.1, 0.1]])
    same(standardised_mean(constant), [0.3 - 0.125, 0.3 + 0.125])


def test_a_missing_score_is_left_out_and_weights_belong_to_means_alone():
    table = np.array([[0.2, NAN], [0.6, 0.4], [1.0, NAN]])
    same(fused(table, np.array([1.0, 1.0, 2.0]), "reliability"), [0.7, 0.4])
    assert {rule for rule in RULES if rule in WEIGHTED} == {"competence", "reliability", "routed"}
    for rule in ("median", "trimmed_mean", "majority_vote"):
        with pytest.raises(ValueError, match="takes no weights"):
            fused(table, np.ones(3), rule)


def test_where_all_who_answered_weigh_nothing_they_count_alike():
    table = np.array([[0.2, 0.2, NAN], [0.6, 0.6, NAN], [NAN, 1.0, NAN]])
    same(mean_of_answered(table, np.array([0.0, 0.0, 3.0])), [0.4, 1.0, NAN])


def rule_of(name):
    return lambda scores, weights: fused(scores, weights, name)


def test_a_rule_meets_raw_rewards_under_candidates_and_standardised_ones_under_per_expert():
    """A timid expert (0.1, 0.2, 0), a bold one (0, 1, 0) and a shifted one (0.9, 0.8, 0.7): medians differ."""
    rewards = np.array([[0.1, 0.2, 0.0], [0.0, 1.0, 0.0], [0.9, 0.8, 0.7]])
    raw = advantages(rewards, grouping="candidates", fuse=rule_of("median"), divide_by_std=False)
    same(raw, np.array([0.1, 0.8, 0.0]) - 0.3)
    by_expert = advantages(rewards, grouping="per_expert", fuse=rule_of("median"), divide_by_std=False)
    rows = np.array([[0.0, 0.1, -0.1], [-1 / 3, 2 / 3, -1 / 3], [0.1, 0.0, -0.1]])
    middle = np.median(rows, axis=0)
    same(by_expert, middle - middle.mean())


# Two experts whose opinions cancel: both ways are 0 but for rounding, whose signs may differ.
CANCELLING = np.array([[0.0, *[NAN] * 4], [0.75, *[NAN] * 4], [NAN] * 5, [NAN] * 5])


@example(table=CANCELLING)
@given(table=arrays(np.float64, (4, 5), elements=SCORES))
def test_standardised_fusion_of_rewards_orders_candidates_as_standardising_each_expert_does(table):
    """With no epsilon the two ways differ by a positive factor (and where replies are partial, by the centring)."""
    whole = np.nan_to_num(table, nan=0.5)
    fused_first = fused(whole, None, "standardised")
    by_expert = advantages(whole, grouping="per_expert", epsilon=0.0)
    centred = fused_first - fused_first.mean()
    assert centred @ by_expert >= -1e-28  # the product of two rounding errors
    same(centred * np.abs(by_expert).max(), by_expert * np.abs(centred).max())


@given(table=TABLES)
def test_advantages_without_a_rule_are_those_of_the_mean(table):
    for grouping in ("candidates", "per_expert", "joint"):
        np.testing.assert_array_equal(
            advantages(table, grouping=grouping), advantages(table, grouping=grouping, fuse=rule_of("mean"))
        )
