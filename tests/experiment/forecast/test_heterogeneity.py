from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.experiment.forecast.heterogeneity import Heterogeneity, expected_reply_s, heterogeneity

FloatArray = npt.NDArray[np.float64]


def same(num_clients: int, value: float) -> FloatArray:
    return np.full(num_clients, value)


def measured(request_s: object, there: object = None, gives_up: object = None) -> Heterogeneity:
    requests = np.array(request_s, dtype=np.float64)
    num_clients = len(requests)
    found = heterogeneity(
        requests,
        same(num_clients, 1.0) if there is None else np.array(there, dtype=np.float64),
        same(num_clients, 0.0) if gives_up is None else np.array(gives_up, dtype=np.float64),
    )
    assert found is not None
    return found


def test_devices_that_are_all_alike_have_the_index_zero() -> None:
    found = measured([[2.0, 2.0]] * 3, [0.5] * 3, [0.1] * 3)
    assert found.index == found.device == found.state == found.luck == 0.0
    assert found.p90_over_p10 == 1.0
    assert found.correlation is None


def test_two_speeds_by_a_factor_of_e_squared_have_the_index_one() -> None:
    # ln T is 0 for half of the devices and 2 for the other half: mean 1, standard deviation 1.
    found = measured([[1.0, 1.0], [math.e**2, math.e**2]])
    assert found.index == pytest.approx(1.0)
    assert found.device == pytest.approx(1.0)
    assert found.state == found.luck == 0.0


def test_absence_counts_like_slowness() -> None:
    slow = measured([[1.0, 1.0], [4.0, 4.0]])
    absent = measured([[1.0, 1.0], [1.0, 1.0]], [1.0, 0.25])
    quits = measured([[1.0, 1.0], [1.0, 1.0]], None, [0.0, 0.75])
    assert slow.index == pytest.approx(absent.index)
    assert slow.index == pytest.approx(quits.index)
    assert (slow.device, slow.state) == pytest.approx((math.log(2), 0.0))
    assert (absent.device, absent.state) == pytest.approx((0.0, math.log(2)))


def test_slowness_and_absence_add_up_where_the_slow_are_the_absent_and_cancel_where_the_fast_are() -> None:
    together = measured([[1.0, 1.0], [4.0, 4.0]], [1.0, 0.25])
    opposed = measured([[1.0, 1.0], [4.0, 4.0]], [0.25, 1.0])
    assert (together.index, together.correlation) == pytest.approx((2 * math.log(2), 1.0))
    assert (opposed.index, opposed.correlation) == pytest.approx((0.0, -1.0), abs=1e-12)


def test_the_index_is_the_population_standard_deviation_of_devices_and_luck_drawn_independently() -> None:
    # ln T = a_k + e with sd(a) = 0.8, sd(e) = 0.6: H = 1. With K = 4000 and N = 16 the standard error of the variance between
    # devices is 0.64 sqrt(2 / 4000) = 0.015; four of them, halved for the root of a number near 1, are 0.03.
    generator = np.random.default_rng(5)
    log_s = 0.8 * generator.normal(size=(4000, 1)) + 0.6 * generator.normal(size=(4000, 16))
    found = measured(np.exp(log_s))
    assert found.index == pytest.approx(1.0, abs=0.03)
    assert found.device == pytest.approx(0.8, abs=0.04)
    assert found.luck == pytest.approx(0.6, abs=0.01)  # 0.6 sqrt(1 / (2 x 60000)) = 0.002


def test_luck_alone_is_not_taken_for_a_difference_between_devices() -> None:
    generator = np.random.default_rng(6)
    found = measured(np.exp(generator.normal(size=(2000, 4))))
    # Uncorrected, the means of four draws would differ by 0.5. Their variance is 0.25 within 4 x 0.25 sqrt(2 / 2000) = 0.03.
    assert found.device < math.sqrt(0.045)


@given(st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_the_unit_of_time_does_not_matter(factor: float, seed: int) -> None:
    requests = np.exp(np.random.default_rng(seed).normal(size=(5, 3)))
    one, other = measured(requests), measured(factor * requests)
    assert one.index == pytest.approx(other.index, abs=1e-9)
    assert one.p90_over_p10 == pytest.approx(other.p90_over_p10)


def test_the_expected_time_to_a_reply_is_the_mean_time_over_presence_and_success() -> None:
    found = expected_reply_s(np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([0.5, 1.0]), np.array([0.0, 0.5]))
    assert found.tolist() == [4.0, 10.0]


def test_a_client_that_can_never_reply_is_counted_and_left_out() -> None:
    found = heterogeneity(
        np.array([[1.0, 1.0], [1.0, 1.0], [1.0, math.inf], [1.0, 1.0]]),
        np.array([1.0, 0.0, 1.0, 1.0]),
        np.array([0.0, 0.0, 0.0, 1.0]),
        num_excluded=2,
    )
    assert found is not None
    assert (found.num_clients, found.num_never, found.index) == (1, 5, 0.0)
    assert heterogeneity(np.ones((1, 2)), np.zeros(1), np.zeros(1)) is None


def test_one_draw_a_client_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        heterogeneity(np.ones((2, 1)), np.ones(2), np.zeros(2))
