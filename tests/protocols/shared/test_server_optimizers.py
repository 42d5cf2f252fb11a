"""The steps of a server that averages without rounds (shared/server_optimizers.py), as pure functions of arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsim.protocols.shared.aggregation import client_shares, factor_mean
from fedsim.protocols.shared.server_optimizers import (
    AveragingConfig,
    Moments,
    adaptive_step,
    delayed_rate,
    difference,
    mean_difference,
    plain_step,
    staleness_weight,
)

NUMBERS = st.floats(-8, 8, width=32)
ADAPTIVE = AveragingConfig(kind="client_centric", beta1=0.5, beta2=0.75, server_epsilon=0.5)


def module(*numbers):
    return {"w": np.array(numbers, np.float32)}


@given(start=arrays(np.float32, 3, elements=NUMBERS), after=arrays(np.float32, (4, 3), elements=NUMBERS))
def test_a_fresh_buffer_at_rate_1_is_the_average_of_the_modules(start, after):
    before, modules = {"w": start}, [{"w": row} for row in after]
    for shares in (client_shares("uniform", [1] * 4), client_shares("samples", [3, 1, 4, 2])):
        weights = shares * staleness_weight(0, 0.5)
        mean = mean_difference([difference(one, before) for one in modules], weights)
        stepped = plain_step(before, mean, 1.0)
        assert stepped["w"] == pytest.approx(factor_mean(modules, shares)["w"], abs=1e-5)


@given(staleness=st.integers(0, 200), exponent=st.floats(0, 3))
def test_a_difference_counts_less_the_staler_it_is_and_all_count_alike_at_exponent_0(staleness, exponent):
    weight = staleness_weight(staleness, exponent)
    assert 0 < weight <= 1
    assert staleness_weight(staleness + 1, exponent) <= weight
    assert staleness_weight(staleness, 0.0) == 1.0
    assert staleness_weight(0, exponent) == 1.0


def test_a_stale_difference_makes_the_step_smaller_by_hand():
    mean = mean_difference([module(2.0), module(4.0)], np.array([0.5, 0.5 * staleness_weight(3, 0.5)]))
    assert mean["w"] == pytest.approx([1.0 + 1.0])
    assert plain_step(module(10.0), mean, 0.25)["w"] == pytest.approx([10.5])


def test_two_adaptive_steps_by_hand():
    first, moments = adaptive_step(
        module(1.0), {"w": np.array([2.0])}, Moments.zero(module(1.0)), 0.1, ADAPTIVE
    )
    # m = 1, v = 0.25 * 4 = 1, V = 1: 1 + 0.1 * 1 / (1 + 0.5)
    assert first["w"] == pytest.approx([1 + 0.1 / 1.5])
    second, moments = adaptive_step(first, {"w": np.array([-1.0])}, moments, 0.1, ADAPTIVE)
    # m = 0.5 - 0.5 = 0, v = 0.75 + 0.25 = 1
    assert second["w"] == pytest.approx(first["w"])
    _, moments = adaptive_step(second, {"w": np.array([0.0])}, moments, 0.1, ADAPTIVE)
    assert (moments.square["w"], moments.largest["w"]) == (pytest.approx([0.75]), pytest.approx([1.0]))


@given(arrays(np.float64, (6, 2), elements=st.floats(-4, 4)))
def test_an_adaptive_step_is_bounded_and_its_largest_square_never_falls(steps):
    """|m| <= max |D| and sqrt(V) >= 0, so no number moves by more than rate max |D| / epsilon."""
    weights, moments = module(0.0, 0.0), Moments.zero(module(0.0, 0.0))
    for row in steps:
        after, following = adaptive_step(weights, {"w": row}, moments, 0.1, ADAPTIVE)
        assert np.all(following.largest["w"] >= moments.largest["w"])
        assert np.all(np.abs(after["w"] - weights["w"]) <= 0.1 * np.abs(steps).max() / 0.5 + 1e-12)
        weights, moments = after, following


@pytest.mark.parametrize(
    ("worst", "threshold", "expected"), [(0, 0, 0.5), (1, 0, 0.5), (4, 4, 0.5), (5, 4, 0.1), (10, 0, 0.05)]
)
def test_the_rate_yields_to_delay_beyond_the_threshold_by_hand(worst, threshold, expected):
    assert delayed_rate(0.5, worst, threshold) == pytest.approx(expected)


def test_every_kind_gets_its_defaults_and_refuses_the_others_keys():
    assert AveragingConfig().model_dump(exclude_none=True) == {"kind": "rounds"}
    assert AveragingConfig(kind="buffered").model_dump(exclude_none=True) == {
        "kind": "buffered", "buffer": 5, "server_learning_rate": 1.0, "staleness_exponent": 0.5,
    }  # fmt: skip
    assert AveragingConfig(kind="client_centric").model_dump(exclude_none=True) == {
        "kind": "client_centric", "buffer": 5, "server_learning_rate": 0.01, "beta1": 0.9, "beta2": 0.99,
        "server_epsilon": 1e-3, "delay_threshold": 4,
    }  # fmt: skip
    for keys, wrong in (
        ({"buffer": 4}, "buffer"),
        ({"kind": "buffered", "beta1": 0.5}, "beta1"),
        ({"kind": "client_centric", "staleness_exponent": 1.0}, "staleness_exponent"),
    ):
        with pytest.raises(ValueError, match=f"schedule.{wrong} is not read by kind"):
            AveragingConfig(**keys)
