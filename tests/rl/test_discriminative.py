"""DisCO's objective: the published double expectation, its gradient in closed form, its constraint and its labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.rl.advantages import advantages, discriminative_labels
from fedsim.rl.discriminative import (
    batch_objective,
    discriminative_objective,
    divergence_from_old,
    likelihood_ratio_score,
    log_likelihood_score,
    squared_hinge,
)

NAN = float("nan")
labelled = st.lists(
    st.tuples(st.floats(-5, 5), st.booleans(), st.integers(1, 3)), min_size=2, max_size=8
).filter(lambda rows: len({right for _, right, _ in rows}) == 2)


def _tensors(rows):
    scores = torch.tensor([score for score, _, _ in rows], dtype=torch.float64, requires_grad=True)
    right = torch.tensor([right for _, right, _ in rows])
    return scores, right, torch.tensor([float(count) for _, _, count in rows], dtype=torch.float64)


def _published(scores, right, counts, tau):
    """-E_pos tau log E_neg exp((s_neg - s_pos) / tau), term by term, each candidate as often as it was sampled."""
    every = [(scores[i], bool(right[i])) for i in range(len(scores)) for _ in range(int(counts[i]))]
    positive, negative = (
        [s for s, is_right in every if is_right],
        [s for s, is_right in every if not is_right],
    )
    terms = [
        -tau * (sum(((wrong - good) / tau).exp() for wrong in negative) / len(negative)).log()
        for good in positive
    ]
    return sum(terms) / len(positive)


@settings(deadline=None)
@given(labelled, st.sampled_from([0.5, 1.0, 10.0]))
def test_value_and_gradient_are_those_of_the_published_double_expectation(rows, tau):
    scores, right, counts = _tensors(rows)
    fast, slow = (
        discriminative_objective(scores, right, ~right, counts, tau),
        _published(scores, right, counts, tau),
    )
    torch.testing.assert_close(fast, slow)
    (one,), (other,) = torch.autograd.grad(fast, scores), torch.autograd.grad(slow, scores)
    torch.testing.assert_close(one, other)


@settings(deadline=None)
@given(labelled, st.sampled_from([0.5, 1.0, 10.0]))
def test_right_answers_get_equal_parts_and_wrong_ones_a_softmax_of_their_scores(rows, tau):
    scores, right, counts = _tensors(rows)
    (gradient,) = torch.autograd.grad(discriminative_objective(scores, right, ~right, counts, tau), scores)
    torch.testing.assert_close(gradient[right], (counts[right] / counts[right].sum()))
    softmax = (scores[~right] / tau + counts[~right].log()).softmax(0)
    torch.testing.assert_close(gradient[~right], -softmax.detach())


def test_gradient_agrees_with_finite_differences():
    scores = torch.tensor([0.3, -1.0, 0.7, 0.1], dtype=torch.float64, requires_grad=True)
    right, counts = torch.tensor([True, False, False, True]), torch.tensor([1.0, 2.0, 1.0, 1.0]).double()
    for tau in (None, 0.5, 10.0):
        assert torch.autograd.gradcheck(
            lambda x, tau=tau: discriminative_objective(x, right, ~right, counts, tau), (scores,)
        )


@settings(deadline=None)
@given(labelled, st.floats(-3, 3))
def test_a_constant_added_to_all_scores_changes_nothing(rows, constant):
    scores, right, counts = _tensors(rows)
    moved = discriminative_objective(scores + constant, right, ~right, counts, 1.0)
    torch.testing.assert_close(moved, discriminative_objective(scores, right, ~right, counts, 1.0))


def test_a_large_tau_is_the_objective_without_emphasis():
    scores, right, counts = _tensors([(0.5, True, 1), (-2.0, False, 1), (1.0, False, 2)])
    scores = scores.detach()
    plain = discriminative_objective(scores, right, ~right, counts, None)
    assert float(plain) == pytest.approx(0.5 - 0.0)
    assert float(discriminative_objective(scores, right, ~right, counts, 1e7)) == pytest.approx(
        float(plain), abs=1e-6
    )


def test_one_kind_of_answer_alone_adds_exactly_zero_and_has_no_gradient():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    all_right, ones = torch.tensor([True, True]), torch.ones(2)
    for positive, negative in ((all_right, ~all_right), (~all_right, all_right)):
        value = discriminative_objective(scores, positive, negative, ones, 1.0)
        (gradient,) = torch.autograd.grad(value, scores)
        assert float(value.detach()) == 0.0 and not gradient.any()


def test_a_batch_is_the_sum_of_its_questions_and_mixes_none_of_them():
    scores = torch.tensor([1.0, 0.0, 5.0, 3.0, 9.0])
    gains = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0])  # the last one is neither right nor wrong
    value = batch_objective(scores, gains, torch.ones(5), [7, 7, 3, 3, 3], None)
    assert float(value) == pytest.approx((1 - 0) + (5 - 3))


@pytest.mark.parametrize("p", [1 / 8, 1 / 4, 1 / 2, 7 / 8])
def test_a_question_counts_root_p_1_p_under_grpo_p_1_p_without_division_and_1_here(p):
    """The gap between the mean score of right and of wrong answers, times what each loss makes of it."""
    num_right = round(8 * p)
    rewards = np.array([[1.0] * num_right + [0.0] * (8 - num_right)])
    scores = np.linspace(-1, 1, 8)
    gap = scores[:num_right].mean() - scores[num_right:].mean()
    standardised = advantages(rewards, epsilon=0.0) @ scores / 8
    centred = advantages(rewards, divide_by_std=False) @ scores / 8
    right = torch.tensor(rewards[0] > 0)
    disco = discriminative_objective(torch.tensor(scores), right, ~right, torch.ones(8).double(), None)
    assert standardised == pytest.approx(math.sqrt(p * (1 - p)) * gap)
    assert centred == pytest.approx(p * (1 - p) * gap)
    assert float(disco) == pytest.approx(gap)


def test_scores_are_means_over_an_answers_own_tokens():
    log_probs, mask = torch.log(torch.tensor([[0.5, 0.25], [0.5, 0.9]])), torch.tensor([[1.0, 1], [1, 0]])
    assert log_likelihood_score(log_probs, mask).tolist() == pytest.approx(
        [math.log(0.125) / 2, math.log(0.5)]
    )
    old = torch.log(torch.tensor([[0.25, 0.25], [0.5, 0.1]]))
    assert likelihood_ratio_score(log_probs, old, mask).tolist() == pytest.approx([1.5, 1.0])


def test_the_hinge_is_zero_below_delta_and_its_slope_is_its_derivative():
    assert squared_hinge(1e-4, 1e-4, 1e3) == (0.0, 0.0)
    assert squared_hinge(-1.0, 0.0, 1e3) == (0.0, 0.0)
    value, slope = squared_hinge(0.3, 0.1, 50.0)
    step = 1e-6
    numeric = (squared_hinge(0.3 + step, 0.1, 50.0)[0] - squared_hinge(0.3 - step, 0.1, 50.0)[0]) / (2 * step)
    assert value == pytest.approx(2.0)
    assert slope == pytest.approx(numeric)


def test_the_divergence_is_unbiased_for_tokens_of_the_old_policy():
    torch.manual_seed(6)
    old, live = torch.randn(6).double().log_softmax(0), torch.randn(6).double().log_softmax(0)
    exact = float((old.exp() * (old - live)).sum())
    assert float(divergence_from_old(live, old, old.exp(), 1.0)) == pytest.approx(exact)


# --------------------------------------------------------------------------------------------------------------- labels


def test_a_half_vote_is_no_label_where_others_are_clear():
    rewards = np.array([[1.0, 1.0, 0.0, NAN], [1.0, 0.0, 0.0, NAN]])
    np.testing.assert_array_equal(discriminative_labels(rewards), [1.0, NAN, -1.0, NAN])


def test_weights_break_a_tie():
    rewards = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_array_equal(
        discriminative_labels(rewards, weights=np.array([0.9, 0.3])), [1.0, 1.0, -1.0]
    )


@pytest.mark.parametrize(
    "rewards", [[[1.0, 0.9, 0.5]], [[0.1, 0.5, 0.0]], [[0.5, 0.5, 0.5]]], ids=["right", "wrong", "ties"]
)
def test_a_group_of_one_kind_teaches_nothing_but_was_scored(rewards):
    assert discriminative_labels(np.array(rewards)).tolist() == [0.0, 0.0, 0.0]


def test_the_threshold_moves_what_is_right():
    rewards = np.array([[0.2, 0.6, 0.9]])
    assert discriminative_labels(rewards, threshold=0.7).tolist() == [-1.0, -1.0, 1.0]
    assert discriminative_labels(rewards, threshold=0.3).tolist() == [-1.0, 1.0, 1.0]
