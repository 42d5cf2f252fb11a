"""Probabilities that differ between devices: the mean is kept, the spread is what it says."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim.devices.odds import Odds, location


def test_a_location_worked_by_hand():
    # Scores +1 and -1, spread 2: by symmetry the mean is 1/2 at a = 0. With one score the mean is its own probability.
    assert location(0.5, 2.0, (1.0, -1.0)) == pytest.approx(0.0, abs=1e-12)
    assert location(0.2, 2.0, (1.0,)) == pytest.approx(math.log(0.2 / 0.8) - 2.0)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.01, 0.99), st.floats(0.0, 5.0), st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.data()
)
def test_given_scores_keep_the_mean_exactly_and_order_the_probabilities(mean, spread, scores, data):
    odds = Odds(mean, spread, 0, "test", scores)
    values = [odds.of(client_id) for client_id in range(len(scores))]
    assert statistics.fmean(values) == pytest.approx(mean, abs=1e-12)
    a, b = (data.draw(st.integers(0, len(scores) - 1)) for _ in range(2))
    assert (values[a] <= values[b]) or scores[a] > scores[b] or spread == 0


@pytest.mark.parametrize(("mean", "spread"), [(0.1, 0.5), (0.3, 1.5), (0.7, 4.0)])
def test_drawn_odds_have_the_mean_and_the_spread_asked_for(mean, spread):
    # 99.9% intervals: of a mean of n values, and of a normal standard deviation (relative error 1 / sqrt(2 n)).
    n, odds = 6000, Odds(mean, spread, 3, "test")
    values = [odds.of(client_id) for client_id in range(n)]
    assert abs(statistics.fmean(values) - mean) < 3.3 * statistics.stdev(values) / math.sqrt(n)
    logits = [math.log(value / (1 - value)) for value in values]
    assert statistics.stdev(logits) == pytest.approx(spread, rel=3.3 / math.sqrt(2 * n))


def test_the_mean_over_the_law_is_that_of_a_fine_quantile_grid():
    n, normal = 20_000, statistics.NormalDist()
    a = location(0.2, 3.0)
    grid = (normal.inv_cdf((i + 0.5) / n) for i in range(n))
    assert statistics.fmean(1 / (1 + math.exp(-(a + 3.0 * z))) for z in grid) == pytest.approx(0.2, abs=1e-5)


def test_without_a_spread_everybody_has_the_mean_and_nothing_is_drawn():
    assert {Odds(0.3, 0.0, seed, "test").of(7) for seed in range(5)} == {0.3}
    assert Odds(0.0, 2.0, 0, "test").of(7) == 0.0
    assert Odds(1.0, 2.0, 0, "test").of(7) == 1.0


@given(st.floats(0.01, 0.98), st.floats(0.001, 0.01), st.floats(0.0, 5.0), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_higher_mean_raises_every_probability(mean, more, spread, client_id):
    assert Odds(mean, spread, 1, "test").of(client_id) < Odds(mean + more, spread, 1, "test").of(client_id)
