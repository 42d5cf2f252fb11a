"""Sessions with a daily cycle: the share of devices there follows the convolution that the model states."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.availability_config import AvailabilityConfig
from fedsim.sim.devices.cycles import Hourly, SkewedCosine
from fedsim.sim.devices.sessions import Daily

SETTINGS = TypeAdapter(AvailabilityConfig)
DAY_S = 86_400.0
PLAIN = {
    "kind": "daily",
    "mean_on": "2 h",
    "peak_share": 0.8,
    "low_share": 0.2,
    "peak_at": "6 h",
    "phase_spread": "0 s",
}


def daily(seed=0, **keys):
    return Daily(SETTINGS.validate_python(PLAIN | keys), seed)


def cycle(**keys):
    return SkewedCosine(SETTINGS.validate_python(PLAIN | keys), 0)


def test_a_cycle_worked_by_hand():
    # Peak at 6 h, low at 18 h, half way at 0 h and 12 h: 0.8 / 0.8, 0.2 / 0.8, 0.5 / 0.8.
    levels = [cycle().level(0, hour * 3600.0) for hour in (6, 18, 0, 12, 30)]
    assert levels == pytest.approx([1.0, 0.25, 0.625, 0.625, 1.0])


def test_skew_makes_the_rise_steep_and_the_fall_slow():
    # skew 1/2: the fall takes 3/4 of the day, from 6 h to 24 h; the rise the 6 h that are left.
    steep = cycle(skew=0.5)
    levels = [steep.level(0, hour * 3600.0) for hour in (6, 15, 24, 27, 30)]
    assert levels == pytest.approx([1.0, 0.625, 0.25, 0.625, 1.0])


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.9, 0.9), st.floats(0.0, 0.8))
def test_the_mean_of_a_cycle_does_not_depend_on_its_skew(skew, low):
    skewed = cycle(skew=skew, low_share=low)
    n = 2000
    mean = statistics.fmean(skewed.level(0, DAY_S * (i + 0.5) / n) for i in range(n))
    assert mean == pytest.approx(skewed.mean, abs=1e-4)
    assert skewed.mean == pytest.approx(0.5 * (0.8 + low) / 0.8)


@pytest.mark.parametrize("hour", [0, 6, 9, 18, 54])
def test_the_share_of_devices_there_is_the_cycle_smoothed_by_the_sessions(hour):
    # Exponential sessions: P(on at t) = (peak + low) / 2 + (peak - low) / 2 cos(w (t - 6 h) - atan(w m)) / sqrt(1 + (w m)^2).
    n, source, w = 8000, daily(seed=2), 2 * math.pi / DAY_S
    wm = w * 7200.0
    swing = math.cos(w * (hour - 6) * 3600.0 - math.atan(wm)) / math.sqrt(1 + wm * wm)
    p = 0.5 + 0.3 * swing
    share = sum(source.is_on(client_id, hour * 3600.0) for client_id in range(n)) / n
    assert abs(share - p) < 3.5 * math.sqrt(p * (1 - p) / n)


@pytest.mark.parametrize("keys", [{}, {"distribution": "weibull", "shape": 0.7}, {"skew": 0.6}])
def test_over_whole_days_a_device_is_there_for_the_mean_of_peak_and_low(keys):
    n, days = 400, 4
    source = daily(seed=5, **keys)
    shares = [
        math.fsum(b - a for a, b in source.intervals(k, 0.0, days * DAY_S)) / (days * DAY_S) for k in range(n)
    ]
    half_width = 3.4 * statistics.stdev(shares) / math.sqrt(n)
    assert source.share_of(0) == pytest.approx(0.5)
    assert abs(statistics.fmean(shares) - 0.5) < half_width < 0.04


def test_devices_have_their_own_peaks_around_the_common_one():
    n, spread = 3000, cycle(phase_spread="2 h")
    peaks_s = [spread.peak_at_s(client_id) for client_id in range(n)]
    assert abs(statistics.fmean(peaks_s) - 6 * 3600) < 3.3 * 7200 / math.sqrt(n)
    assert statistics.stdev(peaks_s) == pytest.approx(7200, rel=3.3 / math.sqrt(2 * n))


def test_with_equal_peak_and_low_nothing_is_left_out():
    flat = daily(low_share=0.8, seed=3)
    sessions = availability(
        SETTINGS.validate_python({"kind": "sessions", "mean_on": "2 h", "mean_off": "0.5 h"}), 3
    )
    for client_id in range(20):
        mine, theirs = flat.intervals(client_id, 0, 5e5), sessions.intervals(client_id, 0, 5e5)
        assert sum(mine, ()) == pytest.approx(sum(theirs, ()))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), st.floats(0, 4e5))
def test_a_thinned_state_holds_until_the_next_change_and_flips_there(client_id, at_s):
    source = daily(low_share=0.0)
    change_s = source.next_change(client_id, at_s)
    assert change_s > at_s
    assert source.is_on(client_id, math.nextafter(change_s, 0)) == source.is_on(client_id, at_s)
    assert source.is_on(client_id, change_s) != source.is_on(client_id, at_s)


def test_a_spread_differs_devices_and_keeps_the_mean():
    source, n = daily(spread=1.0), 3000
    shares = [source.share_of(client_id) for client_id in range(n)]
    assert abs(statistics.fmean(shares) - 0.5) < 3.3 * statistics.stdev(shares) / math.sqrt(n)
    assert statistics.stdev(shares) > 0.05


def test_hours_repeat_and_start_where_they_are_told():
    hours = Hourly([0.1, 0.2, 0.4, *[0.1] * 21], starts_at_s=3600.0)
    assert [hours.level(0, at_s) for at_s in (0.0, 3599.0, 3600.0, 23 * 3600.0, -3600.0)] == [
        0.5,
        0.5,
        1.0,
        0.25,
        0.25,
    ]
    assert hours.mean == pytest.approx((0.5 + 1.0 + 22 * 0.25) / 24)
