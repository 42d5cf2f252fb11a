"""The routed mixture of rewards (rl/reward_router.py): softmax, calibration, Bradley-Terry by autograd-free checks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsim.rl.reward_router import calibration, fitted, loss_and_gradient, shares
from fedsim.sim import streams

NAN = float("nan")


def test_an_untrained_router_counts_everybody_alike():
    np.testing.assert_allclose(shares(np.zeros((4, 3)), np.array([1.0, 0.0, 0.0])), 0.25)


def test_shares_are_a_softmax_of_the_embeddings_products():
    router = np.array([[math.log(3.0), 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(shares(router, np.array([1.0, 0.0])), [0.75, 0.25])
    np.testing.assert_allclose(shares(router, np.array([1.0, 0.0]), temperature=0.5), [0.9, 0.1])
    np.testing.assert_allclose(shares(router, np.eye(2)), [[0.75, 0.25], [0.5, 0.5]])


def test_calibration_is_each_clients_mean_and_deviation_over_what_it_scored():
    found = calibration(np.array([[0.0, 1.0, NAN], [0.4, 0.4, 0.4], [NAN, NAN, NAN]]))
    np.testing.assert_allclose(found.means, [0.5, 0.4, 0.0])
    np.testing.assert_allclose(found.deviations, [0.5, 1.0, 1.0])
    np.testing.assert_allclose(
        found.applied(np.array([[0.5, 0.7], [1.0, NAN]]), [2, 0]), [[0.5, 0.7], [1.0, NAN]]
    )


def naive_loss(router, embeddings, margins, penalty, temperature):
    total = 0.0
    for phi, margin in zip(embeddings, margins, strict=True):
        powers = {
            k: math.exp(float(router[k] @ phi) / temperature)
            for k in range(len(router))
            if not math.isnan(margin[k])
        }
        fused = sum(power * margin[k] for k, power in powers.items()) / sum(powers.values())
        total -= math.log(1.0 / (1.0 + math.exp(-fused)))
    return total / len(embeddings) + 0.5 * penalty * float((router**2).sum())


def test_the_loss_is_the_formula_and_its_gradient_the_slope_by_finite_differences():
    rng = streams.generator("router test")
    router, embeddings = rng.normal(size=(3, 4)), rng.normal(size=(6, 4))
    margins = rng.normal(size=(6, 3))
    margins[0, 1] = margins[3, 0] = margins[3, 2] = NAN
    loss, gradient = loss_and_gradient(router, embeddings, margins, 0.1, 0.7)
    assert loss == pytest.approx(naive_loss(router, embeddings, margins, 0.1, 0.7))
    for index in np.ndindex(router.shape):
        step = np.zeros_like(router)
        step[index] = 1e-5
        slope = (
            naive_loss(router + step, embeddings, margins, 0.1, 0.7)
            - naive_loss(router - step, embeddings, margins, 0.1, 0.7)
        ) / 2e-5
        assert gradient[index] == pytest.approx(slope, abs=1e-8)


def test_a_trained_router_believes_the_expert_of_each_domain():
    """Client 0 knows the first axis, client 1 the second, client 2 is always wrong."""
    embeddings = np.repeat(np.eye(2), 10, axis=0)
    margins = np.array([[2.0, 0.0, -2.0]] * 10 + [[0.0, 2.0, -2.0]] * 10)
    router = fitted(embeddings, margins)
    first, second = shares(router, np.eye(2))
    assert first[0] > 0.9 > 0.1 > first[2]
    assert second[1] > 0.9 > 0.1 > second[2]
    assert (router == fitted(embeddings, margins)).all()


def test_pairs_that_nobody_scored_teach_nothing():
    embeddings = np.eye(2)
    assert not fitted(embeddings, np.full((2, 3), NAN)).any()
    whole = np.array([[1.0, -1.0], [NAN, NAN]])
    np.testing.assert_array_equal(fitted(embeddings, whole), fitted(embeddings[:1], whole[:1]))
