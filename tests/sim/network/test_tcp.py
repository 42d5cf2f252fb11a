"""Slow start, waits for retransmissions and the rate that losses allow: digits by hand, closed forms, and laws."""

import dataclasses
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import TransferCut
from fedsim.federation.handlers import Subject
from fedsim.sim.network import tcp, wire
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.rates import AccessRates
from fedsim.sim.network.transport import TransferPlan, Transport
from tests.samples.worlds import ROUND, Timetable, ask, small_world

SIXTH = dataclasses.replace(ROUND, rtt_s=0.1, up_bytes_per_s=1.5e6, down_bytes_per_s=1.5e6)


def plan_of(wire_bytes, rounds=0):
    return TransferPlan(wire_bytes, -(-wire_bytes // 1500), wire_bytes, 0, rounds)


def round_by_round_s(num_bytes, window_bytes, rate_bytes_per_s, rtt_s):
    """Play slow start window by window; how much later than at the full rate the last byte is out."""
    now_s, sent_bytes = 0.0, 0.0
    while window_bytes < rate_bytes_per_s * rtt_s and sent_bytes + window_bytes < num_bytes:
        now_s, sent_bytes, window_bytes = now_s + rtt_s, sent_bytes + window_bytes, 2 * window_bytes
    return now_s + (num_bytes - sent_bytes) / rate_bytes_per_s - num_bytes / rate_bytes_per_s


# --------------------------------------------------------------------------------------------------- slow start


def test_slow_start_waits_for_what_every_window_leaves_of_its_round_trip():
    # 100 bytes/s, 1 s: the windows 10, 20, 40 leave 0.9, 0.8 and 0.6 s, then 80 of 100 leave 0.2 s; from 160 on none waits.
    waits = {
        10: 0.0,
        11: 0.9,
        30: 0.9,
        31: 1.7,
        70: 1.7,
        71: 2.3,
        150: 2.3,
        151: 2.5,
        310: 2.5,
        311: 2.5,
        10**6: 2.5,
    }
    assert {n: round(tcp.slow_start_s(n, 10.0, 100.0, 1.0), 12) for n in waits} == waits


@given(
    st.floats(0, 1e8),
    st.sampled_from([1500.0, 15_000.0]),
    st.floats(1e2, 1e9),
    st.sampled_from([0.0, 0.01, 0.3, 2.0]),
)
def test_the_closed_form_is_what_playing_the_windows_gives(num_bytes, window_bytes, rate_bytes_per_s, rtt_s):
    played_s = round_by_round_s(num_bytes, window_bytes, rate_bytes_per_s, rtt_s)
    closed_s = tcp.slow_start_s(num_bytes, window_bytes, rate_bytes_per_s, rtt_s)
    assert closed_s == pytest.approx(played_s, rel=1e-9, abs=1e-6)


def test_the_initial_window_is_ten_segments_of_usual_size():
    assert tcp.initial_window_segments(1448) == 10.0
    assert tcp.initial_window_segments(4000) * 4000 == 14_600
    assert tcp.initial_window_segments(9000) == 2.0


def test_a_message_that_fits_the_initial_window_and_the_ideal_transport_do_not_wait():
    transport, rate = Transport(NetworkConfig()), lambda: pytest.fail("nobody needs the rate")
    assert transport.wait_s(plan_of(15_000), SIXTH, rate) == 0.0
    assert Transport(NetworkConfig(slow_start=False)).wait_s(plan_of(10**7), SIXTH, rate) == 0.0
    ideal = Transport(NetworkConfig(transport="ideal"))
    assert ideal.wait_s(ideal.plan(10**7, (1,)), SIXTH, rate) == 0.0


def test_a_long_message_waits_until_the_window_fills_the_round_trip():
    # 150 kB a round trip of 0.1 s: windows of 15, 30, 60, 120 kB take 10, 20, 40, 80 ms of it.
    expected_s = 4 * 0.1 - 0.150
    assert Transport(NetworkConfig()).wait_s(plan_of(10**7), SIXTH, lambda: 1.5e6) == pytest.approx(
        expected_s
    )
    farther = Transport(NetworkConfig(extra_rtt="100 ms"))  # a fifth window of 240 kB is too small as well
    assert farther.wait_s(plan_of(10**7), SIXTH, lambda: 1.5e6) == pytest.approx(5 * 0.2 - 0.310)


def test_a_stalled_link_has_no_slow_start():
    assert Transport(NetworkConfig()).wait_s(plan_of(10**7), SIXTH, lambda: 0.0) == 0.0


async def test_a_requests_download_takes_slow_start_then_its_bytes_at_the_full_rate():
    profile = dataclasses.replace(SIXTH, rtt_s=1.0, down_bytes_per_s=60_000.0)
    world = small_world([profile], network=NetworkConfig(server_link="unlimited"))
    question = wire.Candidates(ask().draw, ask().question, ("x" * 80_000,))
    await world.federation.clients[0].request(question, Subject())
    (down,) = world.transfers(direction="down")
    # 15 and 30 kB leave 0.75 and 0.5 s of a second; a window of 60 kB fills it.
    assert 45_000 < down.wire_bytes < 105_000
    assert down.end_at_s - down.start_at_s == pytest.approx(1.25 + down.wire_bytes / 60_000)
    await world.settle()


# --------------------------------------------------------------------------------------------------------- losses


def test_every_round_of_repeats_waits_one_round_trip():
    transport = Transport(NetworkConfig(loss=0.1))
    assert transport.wait_s(plan_of(1500, rounds=3), SIXTH, lambda: 1.5e6) == pytest.approx(0.3)


def test_the_mean_number_of_loss_rounds_is_that_of_the_largest_of_geometric_draws():
    # Rounds = the largest of n geometric numbers of repeats: P(rounds <= r) = (1 - p^{r+1})^n, so
    # E = sum_{r>=0} 1 - (1 - p^{r+1})^n. Bound: 3.3 standard errors.
    loss, num_segments, runs = 0.3, 50, 3000
    transport = Transport(NetworkConfig(loss=loss))
    message_bytes = num_segments * 1448 - 5 * 22
    rounds = [transport.plan(message_bytes, (k,)).loss_rounds for k in range(runs)]
    assert transport.num_segments(message_bytes) == num_segments
    expected = math.fsum(1 - (1 - loss ** (r + 1)) ** num_segments for r in range(60))
    assert abs(statistics.fmean(rounds) - expected) < 3.3 * statistics.stdev(rounds) / math.sqrt(runs)


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.4])
def test_repeats_over_all_rounds_are_negative_binomial(loss):
    # n segments: mean n p / (1 - p), P(no repeat) = (1 - p)^n. Bounds: 3.5 standard errors.
    num_segments, runs = 8, 4000
    transport = Transport(NetworkConfig(loss=loss))
    plans = [transport.plan(num_segments * 1448 - 22, (k, "law")) for k in range(runs)]
    repeats = [round(plan.retransmitted_bytes / 1500) for plan in plans]
    deviation = math.sqrt(num_segments * loss) / (1 - loss)
    assert abs(statistics.fmean(repeats) - num_segments * loss / (1 - loss)) < 3.5 * deviation / math.sqrt(
        runs
    )
    none = (1 - loss) ** num_segments
    share = statistics.fmean(count == 0 for count in repeats)
    assert abs(share - none) < 3.5 * math.sqrt(none * (1 - none) / runs)
    assert all((plan.loss_rounds == 0) == (plan.retransmitted_bytes == 0) for plan in plans)


def test_the_loss_limited_rate_is_the_published_formula():
    # p = 0.06, RTT 0.5 s, T0 2 s: sqrt(0.04) = 0.2 and 3 sqrt(0.0225) = 0.45; 1 + 32 p^2 = 1.1152.
    assert tcp.loss_limited_segments_per_s(0.06, 0.5) == pytest.approx(1 / (0.1 + 2 * 0.45 * 0.06 * 1.1152))
    assert tcp.loss_limited_segments_per_s(0.0, 0.5) == math.inf


def test_for_small_losses_it_becomes_the_square_root_law():
    # Mathis et al.: sqrt(3 / 2) / (RTT sqrt p); the time-outs' share vanishes as p falls.
    ratios = [
        tcp.loss_limited_segments_per_s(loss, 0.1) * 0.1 * math.sqrt(loss) / math.sqrt(1.5)
        for loss in (1e-2, 1e-4, 1e-6)
    ]
    assert ratios == sorted(ratios)
    assert 0.75 < ratios[0] < 0.99 < ratios[1] < 1.0


@given(st.floats(1e-6, 0.5), st.floats(1e-6, 0.5), st.floats(0.001, 2), st.floats(0.001, 2))
def test_more_losses_and_longer_round_trips_never_speed_tcp_up(loss_a, loss_b, rtt_a, rtt_b):
    (few, many), (near, far) = sorted((loss_a, loss_b)), sorted((rtt_a, rtt_b))
    assert tcp.loss_limited_segments_per_s(few, near) >= tcp.loss_limited_segments_per_s(many, far)


def test_an_access_link_with_losses_is_at_most_as_fast_as_one_connection():
    lossy = AccessRates(NetworkConfig(loss=0.02), 0)
    allowed = tcp.loss_limited_segments_per_s(0.02, SIXTH.rtt_s) * 1500
    assert 0 < allowed < SIXTH.up_bytes_per_s
    assert lossy.bytes_per_s(SIXTH, 0, "up", 0.0) == allowed
    slow = dataclasses.replace(SIXTH, up_bytes_per_s=500.0)
    assert lossy.bytes_per_s(slow, 0, "up", 0.0) == 500.0
    ideal = AccessRates(NetworkConfig(loss=0.02, transport="ideal"), 0)
    assert ideal.bytes_per_s(SIXTH, 0, "up", 0.0) == SIXTH.up_bytes_per_s


async def test_a_device_that_leaves_while_the_window_grows_has_been_sent_nothing():
    profile = dataclasses.replace(SIXTH, rtt_s=1.0, down_bytes_per_s=60_000.0)
    away_from = Timetable({0: [(0.0, 1.0), (50.0, 60.0)]})
    network = NetworkConfig(server_link="unlimited")
    world = small_world([profile], network=network, availability=away_from)
    question = wire.Candidates(ask().draw, ask().question, ("x" * 80_000,))
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(question, Subject())
    (down,) = world.transfers(direction="down")
    assert (down.end_at_s, down.wire_bytes, down.fate) == (1.0, 0, "cut")
    await world.settle()
