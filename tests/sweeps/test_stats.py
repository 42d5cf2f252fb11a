"""Quantiles of few heavy-tailed numbers (fedsim/sweeps/stats.py): order statistics, censored values last."""

from __future__ import annotations

import pytest

from fedsim.sweeps.stats import percentile, quantiles, show_quantiles

DEADLINE, QUORUM = [7.4, 171.0, 8.5], [15.0, 16.0, 14.0]  # minutes


def minutes(value):
    return f"{value:g} min"


def test_one_slow_seed_of_three_turns_the_order_of_the_means_and_not_that_of_the_medians():
    assert sum(DEADLINE) / 3 > 4 * sum(QUORUM) / 3
    assert (percentile(DEADLINE, 50), percentile(QUORUM, 50)) == (8.5, 15.0)
    assert (percentile(DEADLINE, 90), percentile(QUORUM, 90)) == (171.0, 16.0)


@pytest.mark.parametrize(
    ("count", "median", "p90"),
    [(1, 1, 1), (2, 1, 2), (4, 2, 4), (9, 5, 9), (10, 5, 9), (19, 10, 18), (20, 10, 18), (21, 11, 19)],
)
def test_of_n_values_the_ceil_of_the_share_times_n_th_is_taken(count, median, p90):
    assert quantiles([float(value) for value in range(count, 0, -1)]) == {"median": median, "p90": p90}


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1.0, None, 3.0], "3 min (-)"),
        ([1.0, None, None], "-"),
        ([None, 2.0], "2 min (-)"),
        ([None, 1.0, *[2.0] * 8], "2 min"),  # the ninth of ten is reached
        ([], "-"),
        (DEADLINE, "8.5 min (171 min)"),
        ([4.0], "4 min"),
    ],
)
def test_a_run_that_did_not_finish_counts_as_more_than_any_other_and_is_never_averaged(values, shown):
    assert show_quantiles(values, minutes) == shown
