"""Accounting: the closed form at hand-worked points, sigma as its inverse, and DP-SGD between its two limits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedsim.privacy.accounting import (
    dp_sgd_epsilon,
    dp_sgd_noise_multiplier,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_sigma,
)

epsilons = st.floats(0.05, 20.0)
deltas = st.floats(1e-9, 1e-2)


@pytest.mark.parametrize(
    ("epsilon", "mu", "delta"),
    [
        # At epsilon 0 it is the total variation distance 2 Phi(mu / 2) - 1; Phi(1/2) = .691462, Phi(1) = .841345.
        (0.0, 1.0, 0.382925),
        (0.0, 2.0, 0.682689),
        # Phi(-1/2) - e Phi(-3/2) = .308538 - 2.718282 * .066807
        (1.0, 1.0, 0.126937),
        # Phi(0) - e^2 Phi(-2) = .5 - 7.389056 * .022750
        (2.0, 2.0, 0.331898),
    ],
)
def test_delta_of_the_gaussian_mechanism_is_the_closed_form(epsilon, mu, delta):
    assert gaussian_delta(epsilon, mu) == pytest.approx(delta, abs=2e-6)


def test_no_noise_reveals_everything_and_endless_noise_nothing():
    assert gaussian_delta(3.0, math.inf) == 1.0
    assert gaussian_delta(3.0, 0.0) == 0.0
    assert gaussian_epsilon(1e-5, math.inf) == math.inf
    assert gaussian_epsilon(1e-5, 0.0) == 0.0
    assert dp_sgd_epsilon(1e-5, 0.1, 10, 0.0) == math.inf


def test_an_infinite_epsilon_asks_for_no_noise():
    assert gaussian_sigma(math.inf, 1e-5, 5) == 0.0
    assert dp_sgd_noise_multiplier(math.inf, 1e-5, 0.1, 100) == 0.0


@settings(max_examples=60, deadline=None)
@given(epsilons, deltas, st.integers(1, 20), st.floats(0.1, 5.0))
def test_sigma_gives_exactly_the_delta_asked_for(epsilon, delta, num_releases, sensitivity):
    sigma = gaussian_sigma(epsilon, delta, num_releases, sensitivity)
    mu = math.sqrt(num_releases) * sensitivity / sigma
    assert gaussian_delta(epsilon, mu) == pytest.approx(delta, rel=1e-6)
    assert gaussian_epsilon(delta, mu) == pytest.approx(epsilon, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(epsilons, deltas, st.integers(1, 20))
def test_four_times_as_many_releases_or_twice_the_sensitivity_need_twice_the_noise(epsilon, delta, times):
    once = gaussian_sigma(epsilon, delta, times)
    assert gaussian_sigma(epsilon, delta, 4 * times) == pytest.approx(2 * once)
    assert gaussian_sigma(epsilon, delta, times, 2.0) == pytest.approx(2 * once)


def test_the_closed_form_needs_less_noise_than_the_classical_bound():
    """sigma = sqrt(2 ln(1.25 / delta)) / epsilon holds for epsilon < 1 (Dwork and Roth, theorem A.1)."""
    for epsilon in (0.1, 0.5, 0.9):
        classical = math.sqrt(2 * math.log(1.25 / 1e-5)) / epsilon
        assert 0.5 * classical < gaussian_sigma(epsilon, 1e-5, 1) < classical


def test_delta_is_the_largest_gap_between_two_gaussians():
    """P[N(mu, 1) in S] - e^epsilon P[N(0, 1) in S] over half lines S, the best sets by Neyman and Pearson."""
    for epsilon, mu in ((0.5, 1.0), (2.0, 1.5), (8.0, 3.0)):
        cuts = [-8 + 0.001 * i for i in range(16_000)]
        gaps = norm.sf(cuts, loc=mu) - math.exp(epsilon) * norm.sf(cuts)
        assert gaussian_delta(epsilon, mu) == pytest.approx(max(gaps), rel=1e-4)


def test_full_batches_are_plain_gaussian_releases():
    assert dp_sgd_noise_multiplier(2.0, 1e-5, 1.0, 50) == pytest.approx(gaussian_sigma(2.0, 1e-5, 50))


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(1.0, 0.05, 100), (10.0, 0.05, 100), (1.0, 0.5, 20)])
def test_sampling_amplifies_privacy_and_the_budget_is_kept(epsilon, rate, steps):
    noise = dp_sgd_noise_multiplier(epsilon, 1e-5, rate, steps)
    assert 0.0 < noise < gaussian_sigma(epsilon, 1e-5, steps)
    spent = dp_sgd_epsilon(1e-5, rate, steps, noise)
    assert spent <= epsilon
    assert spent == pytest.approx(epsilon, rel=1e-3)
    # A little less noise would not do.
    assert dp_sgd_epsilon(1e-5, rate, steps, 0.98 * noise) > epsilon


def test_the_renyi_bound_lies_less_than_15_percent_above_the_tightest_known_accountant():
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    bound = dp_sgd_epsilon(1e-5, 0.1, 50, 2.0)
    tight = PLDAccountant(value_discretization_interval=1e-3)
    tight.compose(SelfComposedDpEvent(PoissonSampledDpEvent(0.1, GaussianDpEvent(2.0)), 50))
    epsilon = tight.get_epsilon(1e-5)
    assert epsilon < bound < 1.15 * epsilon


def test_more_steps_or_a_higher_rate_cost_more_noise():
    noise = [
        dp_sgd_noise_multiplier(1.0, 1e-5, rate, steps) for rate, steps in ((0.1, 50), (0.1, 200), (0.3, 200))
    ]
    assert noise == sorted(noise)
    assert noise[0] < noise[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1e-5, 1), "epsilon is 0.0; must be > 0"),
        ((1.0, 0.0, 1), r"delta is 0.0; must be in \(0, 1\)"),
        ((1.0, 1e-5, 0), "0 releases or steps; must be at least 1"),
    ],
)
def test_impossible_budgets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gaussian_sigma(*arguments)


def test_a_sampling_rate_is_a_probability():
    with pytest.raises(ValueError, match=r"sampling_rate is 1\.5"):
        dp_sgd_noise_multiplier(1.0, 1e-5, 1.5, 10)
