"""Length handling and the decoupled surrogate: digits by hand, relations between losses, gradients of naive formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.rl.losses import (
    behaviour_weight,
    clipped_surrogate,
    decoupled_surrogate,
    effective_sample_share,
    length_weights,
)
from tests.oracles.length_means import batch_normalised_mean, fixed_length_mean, sequence_mean, token_mean

VALUES = torch.tensor([[1.0, 3.0], [10.0, 99.0]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=8)


def _answers(sizes):
    """Random values of answers of these lengths, with garbage where padded."""
    generator = torch.Generator().manual_seed(sum(sizes))
    values = torch.randn(len(sizes), max(sizes), generator=generator, dtype=torch.float64)
    mask = (torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]).double()
    return values, mask


def test_the_four_means_of_two_answers_have_the_values_worked_by_hand():
    assert float(sequence_mean(VALUES, MASK)) == pytest.approx((2 + 10) / 2)
    assert float(token_mean(VALUES, MASK)) == pytest.approx(14 / 3)
    assert float(fixed_length_mean(VALUES, MASK, 5)) == pytest.approx(14 / 10)
    assert float(batch_normalised_mean(VALUES, MASK, [[0], [1]])) == pytest.approx(6.0)
    assert float(batch_normalised_mean(VALUES, MASK, [[0, 1]])) == pytest.approx(14 / 3)


def test_what_is_sampled_longer_is_punished_less_per_token_unless_the_length_is_fixed():
    """A wrong answer of 2 tokens and one of 8, A = -1: GRPO's gradient per token is a quarter, Dr. GRPO's the same."""
    sizes = [2, 8]
    _, mask = _answers(sizes)
    for mean, ratio in ((sequence_mean, 4.0), (lambda v, m: fixed_length_mean(v, m, 8), 1.0)):
        values = torch.full((2, 8), -1.0, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(mean(values, mask), values)
        assert float(gradient[0, 0] / gradient[1, 0]) == pytest.approx(ratio)


@settings(deadline=None)
@given(lengths)
def test_batches_of_one_answer_are_grpo_and_one_batch_is_the_token_mean(sizes):
    values, mask = _answers(sizes)
    alone = [[row] for row in range(len(sizes))]
    torch.testing.assert_close(batch_normalised_mean(values, mask, alone), sequence_mean(values, mask))
    whole = [list(range(len(sizes)))]
    torch.testing.assert_close(batch_normalised_mean(values, mask, whole), token_mean(values, mask))


def test_the_token_mean_of_dapo_is_taken_question_by_question():
    values = torch.tensor([[1.0, 1.0, 1.0], [4.0, 0.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(token_mean(values, mask)) == 7 / 4, "over the update"
    assert float(batch_normalised_mean(values, mask, [[0], [1]])) == (3 / 3 + 4 / 1) / 2, (
        "DAPO eq. 8, two questions"
    )


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 8))
def test_answers_of_one_length_make_all_means_one_but_for_the_fixed_budget(length, count):
    values, mask = _answers([length] * count)
    torch.testing.assert_close(sequence_mean(values, mask), token_mean(values, mask))
    torch.testing.assert_close(
        fixed_length_mean(values, mask, 2 * length), token_mean(values, mask) / 2, rtol=1e-9, atol=1e-12
    )


@settings(deadline=None)
@given(lengths, st.integers(1, 4))
def test_weights_per_candidate_give_the_means_of_the_whole_update(sizes, groups_per_batch):
    values, mask = _answers(sizes)
    batches = [row // groups_per_batch for row in range(len(sizes))]
    rows = [[row for row, batch in enumerate(batches) if batch == one] for one in sorted(set(batches))]
    means = {
        ("grpo", "tokens"): token_mean(values, mask),
        ("grpo", "sequences"): sequence_mean(values, mask),
        ("dr_grpo", "tokens"): fixed_length_mean(values, mask, 9),
        ("bnpo", "tokens"): batch_normalised_mean(values, mask, rows),
    }
    for (loss, loss_mean), expected in means.items():
        shares, count = length_weights(sizes, loss, loss_mean, 9, batches)
        summed = (values * mask).sum(-1) @ torch.tensor(shares, dtype=torch.float64)
        torch.testing.assert_close(summed / count, expected, rtol=1e-9, atol=1e-12)


# ----------------------------------------------------------------------------------------------- the decoupled surrogate


def _decoupled(ratio, behaviour_ratio, gain, cap=2.0):
    """rho = ratio around the start of the update, pi_start / pi_behaviour = behaviour_ratio."""
    start = torch.zeros(1, 1, dtype=torch.float64)
    live = torch.full((1, 1), math.log(ratio), dtype=torch.float64)
    behaviour = torch.full((1, 1), -math.log(behaviour_ratio), dtype=torch.float64)
    gains = torch.tensor([gain], dtype=torch.float64)
    return float(decoupled_surrogate(live, start, behaviour, gains, 0.2, 0.3, cap))


@pytest.mark.parametrize(
    ("ratio", "behaviour_ratio", "gain", "expected"),
    [
        (1.0, 1.5, 2.0, 3.0),  # w = 1.5
        (1.0, 5.0, 2.0, 4.0),  # w is cut at 2
        (1.0, 0.1, 2.0, 0.2),  # never from below
        (1.5, 0.5, 2.0, 1.3),  # rho is cut at 1.3, then weighed by 1/2
        (0.5, 0.5, -1.0, -0.4),
    ],
)
def test_decoupled_surrogate_has_the_values_worked_by_hand(ratio, behaviour_ratio, gain, expected):
    assert _decoupled(ratio, behaviour_ratio, gain) == pytest.approx(expected)


def test_a_stale_token_that_has_moved_keeps_its_gradient_under_decoupled_and_loses_it_under_clipped():
    behaviour = torch.zeros(1, 1, dtype=torch.float64)
    start = torch.full((1, 1), math.log(1.6), dtype=torch.float64)  # others' steps have made it likelier
    gains = torch.ones(1, dtype=torch.float64)
    live = start.clone().requires_grad_()
    (silenced,) = torch.autograd.grad(clipped_surrogate(live, behaviour, gains, 0.2, 0.3).sum(), live)
    (corrected,) = torch.autograd.grad(
        decoupled_surrogate(live, start, behaviour, gains, 0.2, 0.3, 2.0).sum(), live
    )
    assert float(silenced) == 0.0
    assert float(corrected) == pytest.approx(1.6)


@settings(deadline=None)
@given(st.floats(0.3, 3.0), st.floats(-3, 3))
def test_on_policy_the_decoupled_surrogate_is_the_clipped_one(ratio, gain):
    live = torch.tensor([[math.log(ratio)]], dtype=torch.float64)
    sampled, gains = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([gain], dtype=torch.float64)
    assert torch.equal(
        decoupled_surrogate(live, sampled, sampled, gains, 0.2, 0.3, 2.0),
        clipped_surrogate(live, sampled, gains, 0.2, 0.3),
    )


def test_decoupled_gradient_is_that_of_the_naive_formula_and_agrees_with_finite_differences():
    torch.manual_seed(4)
    start = -torch.rand(3, 4, dtype=torch.float64)
    behaviour = start + 0.6 * torch.randn(3, 4, dtype=torch.float64)
    live = (start + 0.1 * torch.randn(3, 4, dtype=torch.float64)).requires_grad_()
    gains = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: decoupled_surrogate(x, start, behaviour, gains, 0.2, 0.3, 1.5), (live,)
    )
    (fast,) = torch.autograd.grad(
        decoupled_surrogate(live, start, behaviour, gains, 0.2, 0.3, 1.5).sum(), live
    )
    naive = 0.0
    for i in range(3):
        for t in range(4):
            ratio = (live[i, t] - start[i, t]).exp()
            weight = min(math.exp(start[i, t] - behaviour[i, t]), 1.5)
            cut = min(max(float(ratio.detach()), 0.8), 1.3)
            is_cut = cut * float(gains[i]) < float(ratio.detach() * gains[i])
            naive = naive + weight * (cut if is_cut else ratio) * gains[i]
    (slow,) = torch.autograd.grad(naive, live)
    torch.testing.assert_close(fast, slow)


def test_the_behaviour_weight_corrects_the_mean_of_another_policys_samples_when_it_is_not_cut():
    torch.manual_seed(5)
    start, behaviour = torch.randn(6).double().log_softmax(0), torch.randn(6).double().log_softmax(0)
    reward = torch.randn(6).double()
    exact = float((start.exp() * reward).sum())
    corrected = float((behaviour.exp() * behaviour_weight(start, behaviour, math.inf) * reward).sum())
    cut = float((behaviour.exp() * behaviour_weight(start, behaviour, 1.0) * reward).sum())
    assert corrected == pytest.approx(exact)
    assert cut != pytest.approx(exact)


def test_effective_share_is_one_on_policy_and_counts_what_dominates():
    ones, ratios = torch.ones(4), torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert effective_sample_share(ones, ones) == 1.0
    assert effective_sample_share(ratios, ones) == pytest.approx(0.25)
    assert effective_sample_share(torch.tensor([3.0, 1.0]), torch.ones(2)) == pytest.approx(0.8)
    assert effective_sample_share(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0])) == pytest.approx(
        36 / 48
    )


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.floats(0.1, 10))
def test_effective_share_lies_in_0_1_and_ignores_a_common_factor(ratios, factor):
    tensor, ones = torch.tensor(ratios, dtype=torch.float64), torch.ones(len(ratios), dtype=torch.float64)
    share = effective_sample_share(tensor, ones)
    assert 1 / len(ratios) - 1e-9 <= share <= 1 + 1e-9
    assert effective_sample_share(tensor * factor, ones) == pytest.approx(share)
