"""The inverse normal distribution as it is written here, as the standard library has it, and by what is known of it."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedsim import normals, streams

INSIDE = st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(INSIDE)
@example(math.ulp(0.0))
@example(2.0**-54)
@example(0.075)
@example(0.925)
@example(math.exp(-25.0))  # where the tail's two formulas meet
@example(1 - 2.0**-53)
def test_our_steps_give_the_bits_of_the_library_s(p):
    assert normals.standard_normal(p) == NormalDist().inv_cdf(p)
    assert normals.ppnd16(p) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-15, abs=0)
    if normals.ppnd16(0.01) == NormalDist().inv_cdf(0.01):  # no product and sum were rounded at once
        assert normals.ppnd16(p) == NormalDist().inv_cdf(p)


def test_many_at_once_are_those_of_one_after_another():
    draws = [streams.uniform(7, key) for key in range(1000)]
    assert normals.standard_normals(draws) == [normals.standard_normal(draw) for draw in draws]
    assert normals.standard_normals(draws) == [streams.normal(7, key) for key in range(1000)]


def test_known_points():
    assert normals.standard_normal(0.5) == 0.0
    assert normals.standard_normal(0.975) == pytest.approx(1.959963984540054, abs=1e-15)
    assert normals.standard_normal(1e-20) == pytest.approx(-9.262340089798408, rel=1e-15)
