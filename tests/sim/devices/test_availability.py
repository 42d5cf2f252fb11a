"""On/off sessions: purity, stationarity, and the laws they claim."""

import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.availability_config import AvailabilityConfig
from fedsim.sim.devices.presence import AlwaysOn, next_on
from fedsim.sim.devices.sessions import Sessions

SETTINGS = TypeAdapter(AvailabilityConfig)
EXPONENTIAL = {"kind": "sessions", "mean_on": "20 min", "mean_off": "10 min"}
HEAVY = EXPONENTIAL | {"distribution": "weibull", "shape": 0.6}
STEADY = EXPONENTIAL | {"distribution": "weibull", "shape": 4.0}


def sessions(raw, seed=0):
    return Sessions(SETTINGS.validate_python(raw), seed)


def test_always_on_never_changes():
    source = availability(SETTINGS.validate_python({"kind": "always"}), 0)
    assert isinstance(source, AlwaysOn)
    assert source.is_on(3, 1e9)
    assert source.next_change(3, 1e9) == math.inf
    assert source.intervals(3, 5.0, 9.0) == [(5.0, 9.0)]
    assert source.intervals(3, 9.0, 9.0) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6)), min_size=1, max_size=30), st.randoms())
def test_answers_do_not_depend_on_the_order_of_questions(questions, shuffler):
    source = sessions(HEAVY)
    expected = {q: (source.is_on(*q), source.next_change(*q)) for q in questions}
    shuffler.shuffle(questions)
    fresh = sessions(HEAVY)
    assert all((fresh.is_on(*q), fresh.next_change(*q)) == expected[q] for q in questions)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.floats(0, 1e6))
def test_the_state_holds_until_the_next_change_and_flips_there(client_id, at_s):
    source = sessions(EXPONENTIAL)
    change_s = source.next_change(client_id, at_s)
    assert change_s > at_s
    assert source.is_on(client_id, math.nextafter(change_s, 0)) == source.is_on(client_id, at_s)
    assert source.is_on(client_id, change_s) != source.is_on(client_id, at_s)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1))
def test_intervals_of_a_span_are_those_of_its_two_parts(client_id, start_s, length_s, share):
    source = sessions(EXPONENTIAL)
    end_s, middle_s = start_s + length_s, start_s + share * length_s
    whole = source.intervals(client_id, start_s, end_s)
    parts = source.intervals(client_id, start_s, middle_s) + source.intervals(client_id, middle_s, end_s)
    assert math.fsum(b - a for a, b in whole) == pytest.approx(math.fsum(b - a for a, b in parts), abs=1e-6)
    assert all(start_s <= a < b <= end_s and source.is_on(client_id, a) for a, b in whole)
    assert all(left[1] < right[0] for left, right in pairwise(whole))


def test_a_client_has_its_own_sessions_whoever_else_is_asked():
    alone, crowded = sessions(EXPONENTIAL), sessions(EXPONENTIAL)
    for other in range(100):
        crowded.intervals(other, 0.0, 1e5)
    assert alone.intervals(7, 0.0, 1e5) == crowded.intervals(7, 0.0, 1e5)
    assert sessions(EXPONENTIAL, seed=1).intervals(7, 0.0, 1e5) != alone.intervals(7, 0.0, 1e5)


def test_next_on_is_now_for_a_client_that_is_there():
    source = sessions(EXPONENTIAL)
    for client_id in range(20):
        at_s = next_on(source, client_id, 500.0)
        assert source.is_on(client_id, at_s)
        assert at_s == 500.0 or not source.is_on(client_id, 500.0)


@pytest.mark.parametrize("raw", [EXPONENTIAL, HEAVY, STEADY], ids=["exponential", "heavy", "steady"])
@pytest.mark.parametrize("at_s", [0.0, 400.0, 5000.0])
def test_the_share_of_clients_there_is_the_same_at_every_instant(raw, at_s):
    # Stationary: n independent clients, share mean_on / (mean_on + mean_off) = 2/3, binomial 99.9% interval.
    n, source = 6000, sessions(raw, seed=11)
    share = sum(source.is_on(client_id, at_s) for client_id in range(n)) / n
    assert abs(share - 2 / 3) < 3.3 * math.sqrt(2 / 9 / n)


@pytest.mark.parametrize("raw", [EXPONENTIAL, HEAVY, STEADY], ids=["exponential", "heavy", "steady"])
def test_the_share_of_time_there_is_the_ratio_of_the_means(raw):
    span_s, source = 50_000.0, sessions(raw, seed=4)
    shares = [math.fsum(b - a for a, b in source.intervals(k, 0.0, span_s)) / span_s for k in range(400)]
    half_width = 3.3 * statistics.stdev(shares) / math.sqrt(len(shares))
    assert abs(statistics.fmean(shares) - 2 / 3) < half_width < 0.04


@pytest.mark.parametrize(("raw", "cv"), [(EXPONENTIAL, 1.0), (HEAVY, 1.7581), (STEADY, 0.2805)])
def test_session_lengths_have_the_mean_and_spread_of_their_law(raw, cv):
    # c.v. of a Weibull: sqrt(Gamma(1 + 2/k) / Gamma(1 + 1/k)^2 - 1).
    source, lengths = sessions(raw, seed=2), []
    for client_id in range(300):
        inner = source.intervals(client_id, 0.0, 60_000.0)[1:-1]
        lengths += [b - a for a, b in inner[:12]]
    n, mean = len(lengths), statistics.fmean(lengths)
    assert abs(mean - 1200) < 3.6 * 1200 * cv / math.sqrt(n)
    assert statistics.stdev(lengths) / mean == pytest.approx(cv, rel=0.12)


def test_residual_of_a_heavy_tailed_session_is_longer_than_a_session():
    # E[residual] = E[X^2] / (2 E[X]) = mean (1 + cv^2) / 2 = 2.045 means at shape 0.6.
    source = sessions(HEAVY, seed=3)
    on = [k for k in range(12_000) if source.is_on(k, 0.0)]
    residuals = [source.next_change(k, 0.0) for k in on]
    mean = statistics.fmean(residuals)
    assert abs(mean - 1200 * 2.0455) < 3.3 * statistics.stdev(residuals) / math.sqrt(len(residuals))


def test_time_before_zero_or_without_end_is_refused():
    source = sessions(EXPONENTIAL)
    for at_s in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="virtual time"):
            source.is_on(0, at_s)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (EXPONENTIAL | {"shape": 2.0}, "shape belongs to distribution: weibull"),
        (EXPONENTIAL | {"distribution": "weibull"}, "shape belongs to distribution: weibull"),
        (EXPONENTIAL | {"on_cut": "pause"}, "abort"),
        (EXPONENTIAL | {"spread": 6.0}, "less than or equal to 5"),
        ({"kind": "always", "spread": 1.0}, "always there do not differ"),
        ({"kind": "phones", "spread": 1.0}, "differ by themselves"),
        ({"kind": "daily", "mean_on": "1 h", "peak_share": 0.2, "low_share": 0.3}, "at most peak_share"),
        (EXPONENTIAL | {"mean_on": 5}, "has no unit"),
        (EXPONENTIAL | {"mean_off": "0 s"}, "greater than zero"),
        ({"kind": "sometimes"}, "sometimes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(raw, message):
    with pytest.raises(ValidationError, match=message):
        SETTINGS.validate_python(raw)


def test_a_spread_keeps_the_mean_share_and_the_length_of_sessions():
    # E[share] = 2/3 by construction; sessions keep their mean of 20 min whatever the device's share of time.
    source, n = sessions(EXPONENTIAL | {"spread": 1.5}, seed=5), 4000
    shares = [source.share_of(client_id) for client_id in range(n)]
    assert abs(statistics.fmean(shares) - 2 / 3) < 3.3 * statistics.stdev(shares) / math.sqrt(n)
    logits = [math.log(share / (1 - share)) for share in shares]
    assert statistics.stdev(logits) == pytest.approx(1.5, rel=3.3 / math.sqrt(2 * n))
    for rare in (True, False):
        some = sorted(range(n), key=shares.__getitem__, reverse=not rare)[:60]
        lengths = [
            b - a
            for client_id in some
            for a, b in source.intervals(client_id, 0.0, 40 * 1200.0 / shares[client_id])[1:21]
        ]
        assert abs(statistics.fmean(lengths) - 1200) < 3.6 * 1200 / math.sqrt(len(lengths))


def test_a_device_is_there_for_its_own_share_of_the_time():
    source = sessions(EXPONENTIAL | {"spread": 1.0}, seed=5)
    for client_id in range(5):
        share, span_s = source.share_of(client_id), 4e6
        there_s = math.fsum(b - a for a, b in source.intervals(client_id, 0.0, span_s))
        # Variance of an exponential on/off process' share: 2 f (1 - f) tau / T with 1/tau = 1/mean_on + 1/mean_off.
        tau_s = 1200 * (1 - share)
        assert abs(there_s / span_s - share) < 3.9 * math.sqrt(2 * share * (1 - share) * tau_s / span_s)


def test_given_scores_order_the_shares_of_time():
    scores = [0.5, -1.2, 0.0, 1.2, -0.5]
    raw = SETTINGS.validate_python(EXPONENTIAL | {"spread": 2.0})
    shares = [availability(raw, 0, scores=scores).share_of(client_id) for client_id in range(5)]
    assert sorted(range(5), key=shares.__getitem__) == [3, 0, 2, 4, 1]
    assert statistics.fmean(shares) == pytest.approx(2 / 3, abs=1e-12)


def test_without_a_spread_sessions_are_what_they_were_before_there_was_one():
    source = sessions(EXPONENTIAL)
    assert source.is_on(0, 0.0)
    assert source.next_change(0, 0.0) == pytest.approx(681.2468980961421, rel=1e-12)
