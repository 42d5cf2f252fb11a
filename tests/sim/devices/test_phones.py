"""Measured smartphones: the tables' own means and quantiles come out again."""

import math
import statistics

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.availability_config import PhonesConfig
from fedsim.sim.devices.phones import (
    MEAN_GAP_S,
    MEAN_SESSION_S,
    gap_lengths,
    hourly_starts,
    session_lengths,
    shares,
    table,
)
from fedsim.sim.devices.session_lengths import Exponential, Tabulated, Weibull

STEADY = PhonesConfig(kind="phones", by_hour=False)


def test_a_table_worked_by_hand():
    # Q rises from 0 to 2 on the first half and stays 2: mean 0.5 + 1 = 1.5. Half of the biased mass is 0.75 = 0.5 + 2 * 0.125.
    table = Tabulated([(0.0, 0.0), (0.5, 2.0), (1.0, 2.0)])
    assert table.mean == 1.5
    assert [table.value(p) for p in (0.25, 0.5, 0.9)] == [1.0, 2.0, 2.0]
    assert table.full(0.25) == pytest.approx(1 / 1.5)
    # draw 1/12 wants the area 1/8: 2 x^2 = 1/8 at x = 1/4, where Q is 1.
    age, residual = table.met(1 / 12, 0.25)
    assert (age, residual) == pytest.approx((0.75 / 1.5, 0.25 / 1.5))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=2, max_size=8), st.floats(0.001, 0.999))
def test_a_length_biased_draw_leaves_its_share_of_the_mean_below(increments, draw):
    values = [sum(increments[: i + 1]) + 0.1 for i in range(len(increments))]
    last = len(values) - 1
    table = Tabulated([(i / last, value) for i, value in enumerate(values)])
    p = table._biased_p(draw)
    n = 4000
    area = math.fsum(table.value(p * (i + 0.5) / n) for i in range(n)) * p / n
    assert area == pytest.approx(draw * table.mean, rel=1e-4)


def test_sessions_and_gaps_have_the_measured_means_and_quantiles():
    assert session_lengths().mean == pytest.approx(MEAN_SESSION_S, rel=0.002)
    assert gap_lengths().mean == pytest.approx(MEAN_GAP_S, rel=0.002)
    assert shares().mean == pytest.approx(0.095, abs=0.0005)
    assert [session_lengths().value(p) for p in (0.5, 0.9, 0.99)] == pytest.approx([138, 4178.2, 30181.7])
    assert [gap_lengths().value(p) for p in (0.05, 0.5, 0.95)] == pytest.approx([1, 476, 66280.4])


def test_exponential_sessions_of_the_measured_mean_are_ten_times_as_long_in_the_median_and_weibull_ones_are_near():
    exponential, weibull = (MEAN_SESSION_S * law.full(0.5) for law in (Exponential(), Weibull(0.35)))
    assert exponential / session_lengths().value(0.5) == pytest.approx(9.7, abs=0.05)
    assert weibull == pytest.approx(session_lengths().value(0.5), rel=0.05)


def test_devices_have_the_measured_shares_of_time():
    n, source = 4000, availability(STEADY, 1)
    drawn = sorted(source.share_of(client_id) for client_id in range(n))
    assert abs(statistics.fmean(drawn) - 0.0951) < 3.3 * statistics.stdev(drawn) / math.sqrt(n)
    assert shares().mean == pytest.approx(0.0951, abs=1e-4)
    # The measured 25%, 50% and 75% quantiles, by binomial 99.9% intervals of how many lie below.
    for p, quantile in ((0.25, 0.01307), (0.5, 0.05474), (0.75, 0.13123)):
        below = sum(share < shares().value(p) for share in drawn) / n
        assert shares().value(p) == pytest.approx(quantile, rel=0.05)
        assert abs(below - p) < 3.3 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("by_hour", [False, True])
def test_a_device_is_there_for_its_own_share_of_the_time(by_hour):
    # Over 350 days, among devices that are often there (the tails are heavy: many cycles are needed).
    source, span_s = availability(PhonesConfig(kind="phones", by_hour=by_hour), 1), 3e7
    often = [k for k in range(120) if 0.15 < source.share_of(k) < 0.6][:12]
    ratios = [
        math.fsum(b - a for a, b in source.intervals(k, 0.0, span_s)) / span_s / source.share_of(k)
        for k in often
    ]
    assert len(often) == 12
    assert abs(statistics.fmean(ratios) - 1) < 4 * statistics.stdev(ratios) / math.sqrt(12) < 0.15


def test_at_any_instant_as_many_devices_are_there_as_the_shares_say():
    n, source = 6000, availability(STEADY, 7)
    for at_s in (0.0, 100_000.0):
        there = sum(source.is_on(client_id, at_s) for client_id in range(n)) / n
        assert abs(there - 0.0951) < 3.5 * math.sqrt(0.0951 * 0.9049 / n)


def smoothing() -> npt.NDArray[np.float64]:
    """K [24, 24]: the share of presence in hour j whose session began in an hour i of the day, for stationary sessions.

    With G(a) the integral of the distribution of a session's age, that is the mean of ``L a - L^2 / 2`` over sessions
    shorter than a and of ``a^2 / 2`` over the others, over E[L], and T an hour: sessions that began in the d-th hour before
    have the share ``(G((d + 1) T) - 2 G(d T) + G((d - 1) T)) / T``.
    """
    lengths = np.array([session_lengths().value((i + 0.5) / 50_000) for i in range(50_000)])
    ends = np.arange(0.0, lengths.max() + 7200, 3600)
    ages = [np.where(lengths < a, lengths * a - lengths**2 / 2, a * a / 2).mean() for a in ends]
    shares_before = np.diff([0.0, *ages], 2) / lengths.mean() / 3600  # G(-T) = 0
    by_hour = np.bincount(np.arange(len(shares_before)) % 24, shares_before)
    return np.array([[by_hour[(j - i) % 24] for i in range(24)] for j in range(24)])


def hourly_shares() -> npt.NDArray[np.float64]:
    """Mean availability by hour of the trace's clock [24], from the table itself."""
    return np.array([float(row["available_fraction"]) for row in table("availability_by_hour.csv")])


def test_sessions_start_when_the_measured_presence_needs_them():
    kernel, measured, kept = smoothing(), hourly_shares(), np.array(hourly_starts())
    assert kernel.sum() == pytest.approx(24, rel=1e-3)
    starts = np.linalg.solve(kernel, measured)
    assert starts.min() > 0  # no hour would need fewer than none
    assert kept == pytest.approx(starts / starts.max(), abs=0.002)
    assert kernel @ kept / (kernel @ kept).mean() == pytest.approx(measured / measured.mean(), rel=0.003)
    # Thinned by the measured presence itself it would be late and flat.
    flat = kernel @ measured
    assert (flat.max() / flat.min() < 1.75) and (measured.max() / measured.min() > 2.1)


def test_presence_by_hour_is_the_measured_one_in_swing_and_phase():
    n, days, source = 2000, 4, availability(PhonesConfig(kind="phones"), 7)
    there = np.zeros((24, 2 * days))
    for hour in range(24):
        for sample in range(2 * days):
            at_s = (hour + 0.25 + 0.5 * (sample % 2) + 24 * (sample // 2)) * 3600.0
            there[hour, sample] = sum(source.is_on(k, at_s) for k in range(n)) / n
    seen, measured = there.mean(axis=1), hourly_shares()
    seen /= seen.mean()  # which users were drawn moves the level of all hours alike
    measured /= measured.mean()
    assert np.abs(seen - measured).max() < 0.1
    assert seen.max() / seen.min() == pytest.approx(measured.max() / measured.min(), rel=0.1)
    wave = np.exp(-2j * np.pi * np.arange(24) / 24)
    ratio = (seen @ wave) / (
        measured @ wave
    )  # of the day's first harmonic: how much of the swing, and how late
    assert abs(ratio) == pytest.approx(1, abs=0.1)
    assert abs(np.angle(ratio)) * 24 / (2 * np.pi) < 0.25  # hours


def test_a_device_that_is_hardly_ever_there_has_no_end_of_work_to_be_asked():
    source = availability(STEADY, 1)
    rare = min(range(300), key=source.share_of)
    assert source.share_of(rare) < 1e-3
    assert len(source.intervals(rare, 0.0, 1e6)) < 5


def test_scores_give_the_owners_the_smallest_shares():
    source = availability(STEADY, 1, scores=[-1.0, 2.0, 0.0])
    by_score = [source.share_of(client_id) for client_id in range(3)]
    assert by_score[2] == pytest.approx(0.05474)
    assert by_score[1] < 0.001 < by_score[2] < by_score[0]
