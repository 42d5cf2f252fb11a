"""The losses, against digits worked by hand, against autograd and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsim.rl.advantages import advantages
from fedsim.rl.losses import (
    clipped_surrogate,
    is_clipped,
    k3_kl,
    masked_mean,
    token_entropy,
)


def _surrogate(ratio: float, advantage: float) -> float:
    value = clipped_surrogate(
        torch.tensor([[math.log(ratio)]]).double(),
        torch.zeros(1, 1).double(),
        torch.tensor([advantage]),
        0.2,
        0.3,
    )
    return float(value)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, 2.0),
        (1.1, 2.0, 2.2),
        (1.5, 2.0, 2.6),  # a gain is cut at 1.3
        (0.5, 2.0, 1.0),  # a loss is not cut: the pessimistic branch
        (0.9, -1.0, -0.9),
        (0.5, -1.0, -0.8),  # cut at 0.8
        (1.5, -1.0, -1.5),
    ],
)
def test_clipped_surrogate_has_the_values_worked_by_hand(ratio, advantage, expected):
    assert _surrogate(ratio, advantage) == pytest.approx(expected)


@given(st.floats(0.3, 3.0), st.floats(-3, 3, allow_subnormal=False))
def test_is_clipped_says_where_the_gradient_is_zero(ratio, advantage):
    log_probs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    behaviour, gains = torch.zeros(1, 1, dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    clipped_surrogate(log_probs, behaviour, gains, 0.2, 0.3).sum().backward()
    edge = min(abs(ratio - 1.3), abs(ratio - 0.8)) < 1e-9
    if advantage and not edge:
        clipped = bool(is_clipped(log_probs.detach(), behaviour, gains, 0.2, 0.3))
        assert clipped == (float(log_probs.grad) == 0.0)


def test_at_the_behaviour_policy_the_surrogate_gradient_is_that_of_reinforce():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 5, (3, 4, 1))
    gains = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    log_probs = logits.log_softmax(-1).gather(-1, tokens).squeeze(-1)
    (clipped,) = torch.autograd.grad(
        clipped_surrogate(log_probs, log_probs.detach(), gains, 0.2, 0.3).sum(), logits, retain_graph=True
    )
    (reinforce,) = torch.autograd.grad((log_probs * gains[:, None]).sum(), logits)
    torch.testing.assert_close(clipped, reinforce)


@pytest.mark.parametrize(
    "loss", [lambda x, y: clipped_surrogate(x, y, torch.tensor([1.0, -2.0]).double(), 0.2, 0.3), k3_kl]
)
def test_gradients_agree_with_finite_differences(loss):
    torch.manual_seed(1)
    log_probs = (-torch.rand(2, 3, dtype=torch.float64)).requires_grad_()
    other = (log_probs.detach() + 0.05 * torch.randn(2, 3, dtype=torch.float64)).requires_grad_(False)
    assert torch.autograd.gradcheck(lambda x: loss(x, other), (log_probs,))


def test_k3_is_zero_for_equal_policies_and_positive_otherwise():
    same = torch.log(torch.tensor([[0.2, 0.7]]))
    assert torch.equal(k3_kl(same, same), torch.zeros(1, 2))
    assert float(k3_kl(torch.tensor([0.0]), torch.tensor([math.log(2.0)]))) == pytest.approx(
        2 - math.log(2) - 1
    )


def test_k3_is_an_unbiased_estimate_of_the_divergence():
    torch.manual_seed(2)
    policy, reference = torch.randn(6).double().log_softmax(0), torch.randn(6).double().log_softmax(0)
    exact = float((policy.exp() * (policy - reference)).sum())
    assert float((policy.exp() * k3_kl(policy, reference)).sum()) == pytest.approx(exact)


def test_entropy_of_a_uniform_distribution_is_the_log_of_its_size():
    assert float(token_entropy(torch.zeros(8))) == pytest.approx(math.log(8))
    assert float(token_entropy(torch.tensor([0.0, 1e4]))) == pytest.approx(0.0)


def test_masked_mean_divides_by_the_given_count():
    values, mask = torch.tensor([[1.0, 2.0], [4.0, 8.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert float(masked_mean(values, mask, 4.0)) == pytest.approx(7 / 4)


def test_literal_grouping_has_no_gradient_where_candidates_has_one():
    torch.manual_seed(3)
    rewards = np.random.default_rng(3).random((2, 8))
    logits = torch.randn(8, 3, 5, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 5, (8, 3, 1))

    def gradient_norm(grouping):
        log_probs = logits.log_softmax(-1).gather(-1, tokens).squeeze(-1)
        gains = torch.from_numpy(advantages(rewards, grouping=grouping))
        surrogate = clipped_surrogate(log_probs, log_probs.detach(), gains, 0.2, 0.3)
        (gradient,) = torch.autograd.grad(masked_mean(surrogate, torch.ones_like(log_probs), 24.0), logits)
        return float(gradient.norm())

    assert gradient_norm("literal") < 1e-9 * gradient_norm("candidates")
