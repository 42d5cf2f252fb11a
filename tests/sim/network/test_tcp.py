"""Slow start and the windows that losses leave: digits by hand, closed forms, laws, and a packet simulator's times."""

import asyncio
import csv
import dataclasses
import math
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import TransferCut
from fedsim.federation.handlers import Subject
from fedsim.sim import clock
from fedsim.sim.network import tcp, wire
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.rates import AccessLinks, AccessRates
from fedsim.sim.network.transport import TransferPlan, Transport
from tests.samples.worlds import ROUND, Timetable, ask, small_world

NS3 = Path(__file__).parents[2] / "oracles" / "ns3"
SIXTH = dataclasses.replace(ROUND, rtt_s=0.1, up_bytes_per_s=1.5e6, down_bytes_per_s=1.5e6)


def plan_of(wire_bytes, rounds=0, lost=()):
    return TransferPlan(wire_bytes, -(-wire_bytes // 1500), wire_bytes, 0, rounds, lost)


def paced(num_bytes, rate_bytes_per_s, rtt_s, lost=(), congestion="cubic", window=10.0):
    """Seconds alone on a path, in segments of one byte; the wait included."""
    pace, wait_s = tcp.paced(num_bytes, num_bytes, 1.0, lost, window, rate_bytes_per_s, rtt_s, congestion)
    return wait_s + (
        num_bytes / rate_bytes_per_s if pace is None else pace.seconds(num_bytes, rate_bytes_per_s)
    )


def round_by_round_s(num_bytes, window_bytes, rate_bytes_per_s, rtt_s):
    """Play slow start window by window, each sent in one go; seconds until the last byte is out."""
    now_s, sent_bytes = 0.0, 0.0
    while window_bytes < rate_bytes_per_s * rtt_s and sent_bytes + window_bytes < num_bytes:
        now_s, sent_bytes, window_bytes = now_s + rtt_s, sent_bytes + window_bytes, 2 * window_bytes
    return now_s + (num_bytes - sent_bytes) / rate_bytes_per_s


# --------------------------------------------------------------------------------------------------- slow start


def test_slow_start_is_late_by_what_every_window_leaves_of_its_round_trip():
    # 100 bytes/s, 1 s: the windows 10, 20, 40 leave 0.9, 0.8 and 0.6 s, then 80 of 100 leave 0.2 s; from 160 on none waits.
    late = {
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
    assert {n: round(paced(n, 100.0, 1.0) - n / 100, 9) for n in late} == late


@given(
    st.integers(1, 10**8),
    st.sampled_from([2.0, 10.0]),
    st.floats(1e2, 1e9),
    st.sampled_from([0.0, 0.01, 0.3, 2.0]),
)
def test_rounds_that_double_are_what_playing_the_windows_gives(num_bytes, window, rate_bytes_per_s, rtt_s):
    played_s = round_by_round_s(num_bytes, window, rate_bytes_per_s, rtt_s)
    assert paced(num_bytes, rate_bytes_per_s, rtt_s, window=window) == pytest.approx(
        played_s, rel=1e-9, abs=1e-6
    )


def test_the_initial_window_is_ten_segments_of_usual_size():
    assert tcp.initial_window_segments(1448) == 10.0
    assert tcp.initial_window_segments(4000) * 4000 == 14_600
    assert tcp.initial_window_segments(9000) == 2.0


def test_a_message_that_fits_the_initial_window_and_the_ideal_transport_are_not_paced():
    transport, rate = Transport(NetworkConfig()), lambda: pytest.fail("nobody needs the rate")
    assert transport.pace(plan_of(15_000), SIXTH, rate) == (0.0, None)
    assert Transport(NetworkConfig(slow_start=False)).pace(plan_of(10**7), SIXTH, rate) == (0.0, None)
    ideal = Transport(NetworkConfig(transport="ideal"))
    assert ideal.pace(ideal.plan(10**7, (1,)), SIXTH, rate) == (0.0, None)


def test_a_long_message_is_paced_until_the_window_fills_the_round_trip():
    # 150 kB a round trip of 0.1 s: windows of 15, 30, 60, 120 kB are too small.
    _, pace = Transport(NetworkConfig()).pace(plan_of(9_000_000), SIXTH, lambda: 1.5e6)
    assert [pace.cap_bytes_per_s(n) for n in range(5)] == [150e3, 300e3, 600e3, 1200e3, math.inf]
    assert pace.seconds(9_000_000, 1.5e6) == pytest.approx(6.0 + 4 * 0.1 - 0.150)
    _, farther = Transport(NetworkConfig(extra_rtt="100 ms")).pace(plan_of(9_000_000), SIXTH, lambda: 1.5e6)
    assert farther.seconds(9_000_000, 1.5e6) == pytest.approx(6.0 + 5 * 0.2 - 0.310)


def test_a_stalled_link_has_no_slow_start():
    assert Transport(NetworkConfig()).pace(plan_of(10**7), SIXTH, lambda: 0.0) == (0.0, None)


def test_a_path_that_is_slower_than_the_access_link_does_not_notice_the_windows_that_it_fills():
    _, pace = Transport(NetworkConfig()).pace(plan_of(9_000_000), SIXTH, lambda: 1.5e6)
    # At 300 kB/s a window of 30 kB fills the round trip: only the first one is too small.
    assert pace.seconds(9_000_000, 300e3) == pytest.approx(0.1 + (9_000_000 - 15_000) / 300e3)


async def test_a_requests_download_is_late_by_slow_start():
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


def test_a_lone_segment_that_is_lost_waits_for_a_time_out_and_for_one_more_each_time_it_is_lost_again():
    transport = Transport(NetworkConfig(loss=0.1))
    wait_s, pace = transport.pace(plan_of(1500, rounds=3, lost=(0,)), SIXTH, lambda: 1.5e6)
    assert (wait_s, pace) == (pytest.approx(3 * (0.1 + 0.2)), None)


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


def test_windows_after_a_loss_played_by_hand():
    # A path that never fills. Segment 4 is lost: 5 are out, then a window of 10 + 4 until it is missed, a round trip later.
    # Reno: (14 - 2) / 2 = 6 in the round trip of recovery and the next one, then 7, 8; of the next 9 five are left.
    assert paced(51, 1e9, 1.0, (4,), "reno") == pytest.approx(1 + 1 + 1 + 1 + 1 + 5 / 9, rel=1e-6)
    # CUBIC: .7 x 14 = 9.8 twice, then .53 more each round trip until W_max: 10.33 (the cubic is below: 14 - .4 (2.19 - 2)^3).
    cubic = [9.8, 9.8, max(9.8 + 0.9 / 1.7, 14 + 0.4 * (2 - (4.2 / 0.4) ** (1 / 3)) ** 3)]
    num_segments = 5 + 14 + 20 + 12
    last = (num_segments - 5 - 14 - cubic[0] - cubic[1]) / cubic[2]
    assert paced(num_segments, 1e9, 1.0, (4,)) == pytest.approx(3 + last, rel=1e-6)


def test_a_loss_at_the_very_end_waits_for_a_time_out_and_one_before_it_for_a_round_trip():
    # 10 segments go at once; the last three of them have nobody behind them that could tell of a loss.
    assert paced(10, 1e9, 1.0, (9,)) == pytest.approx(1.2, rel=1e-6)
    assert paced(10, 1e9, 1.0, (7,)) == pytest.approx(1.2, rel=1e-6)
    assert paced(10, 1e9, 1.0, (6,)) == pytest.approx(1.0, rel=1e-6)


def test_a_window_that_stays_wide_enough_for_its_path_loses_nothing():
    # 5 segments fill the path; the queue takes the rest: after each loss the window is still far above 5.
    assert paced(1000, 50.0, 0.1, (500,), "reno") == pytest.approx(20.0)


@given(
    st.integers(11, 400),
    st.integers(0, 399),
    st.floats(20, 1e4),
    st.floats(0.01, 1),
    st.sampled_from(["cubic", "reno"]),
)
def test_a_loss_never_speeds_a_message_up(num_segments, position, rate, rtt_s, congestion):
    lost = (position % num_segments,)
    assert paced(num_segments, rate, rtt_s, lost, congestion) >= paced(num_segments, rate, rtt_s) * (1 - 2e-3)


def test_which_segments_are_lost_first_is_any_set_of_their_number():
    # Position of the only lost one of 20 segments: uniform. Chi-square with 19 degrees: 43.8 is its 99.9% quantile.
    transport = Transport(NetworkConfig(loss=0.05))
    plans = [transport.plan(20 * 1448 - 44, (k,)) for k in range(9000)]
    only = [plan.lost[0] for plan in plans if len(plan.lost) == 1]
    expected = len(only) / 20
    assert sum((only.count(n) - expected) ** 2 / expected for n in range(20)) < 43.8
    assert all(list(plan.lost) == sorted(set(plan.lost)) for plan in plans)


@pytest.mark.parametrize("congestion", ["cubic", "reno"])
def test_a_very_long_message_goes_on_at_the_mean_rate_of_its_first_losses(monkeypatch, congestion):
    # 100 MB with about 2,100 losses: all of them played, or the first 300 and the rest at their mean rate (two seeds: 12%).
    config = NetworkConfig(loss=0.03, congestion=congestion)
    transport, seconds = Transport(config), []
    for most in (4096, 300):
        monkeypatch.setattr(tcp, "MOST_LOSSES", most)
        plans = [transport.plan(100_000_000, (draw, "long")) for draw in range(2)]
        assert all((len(plan.lost) == most) == (most == 300) for plan in plans)
        paces = [transport.pace(plan, SIXTH, lambda: 1.25e7)[1] for plan in plans]
        seconds.append(
            statistics.fmean(
                pace.seconds(plan.total_bytes, 1.25e7) for plan, pace in zip(plans, paces, strict=True)
            )
        )
    assert seconds[1] == pytest.approx(seconds[0], rel=0.12)


def test_a_model_of_14_gb_on_the_worst_link_is_planned_at_once():
    transport = Transport(NetworkConfig(loss=0.5))
    plan = transport.plan(14 * 10**9, (0,))
    _, pace = transport.pace(plan, SIXTH, lambda: 1.25e7)
    assert len(plan.lost) == tcp.MOST_LOSSES and plan.retransmitted_bytes > 13 * 10**9
    assert 0 < pace.bytes_per_s < 1.25e7


# ---------------------------------------------------------------------------------------------- a packet simulator


def reference(name):
    return list(csv.DictReader((NS3 / name).read_text().splitlines()))


def mean_s(row):
    """The mean seconds of the message of a row of ns-3's table, over as many draws of losses as settle it."""
    num_bytes, rtt_s, rate = (
        int(row["bytes"]),
        float(row["rtt_ms"]) / 1e3,
        float(row["access_mbit"]) * 1e6 / 8,
    )
    config = NetworkConfig(loss=float(row["loss"]), congestion=row["congestion"], tls_record=0)
    transport, profile = Transport(config), dataclasses.replace(ROUND, rtt_s=rtt_s)
    seconds = []
    for draw in range(400 if num_bytes < 500_000 else 200 if num_bytes < 4_000_000 else 60):
        plan = transport.plan(num_bytes, (draw,))
        wait_s, pace = transport.pace(plan, profile, lambda: rate)
        flows_s = plan.total_bytes / rate if pace is None else pace.seconds(plan.total_bytes, rate)
        seconds.append(wait_s + flows_s + rtt_s / 2)
    return statistics.fmean(seconds)


def test_messages_take_what_they_take_in_ns3_when_segments_are_lost():
    rows = [row for row in reference("tcp.csv") if row["congestion"] in ("cubic", "reno")]
    errors = {tuple(row.values()): abs(mean_s(row) / float(row["mean_s"]) - 1) for row in rows}
    assert len(errors) >= 100
    assert statistics.median(errors.values()) < 0.05
    assert {row: error for row, error in errors.items() if error > 0.35} == {}


@pytest.mark.parametrize("row", reference("shared.csv"), ids=lambda row: f"{row['senders']} senders")
def test_messages_that_start_together_take_what_they_take_in_ns3(row):
    """Slow start ends at what the shared link grants, not at the access rate: within 6% of packets."""
    num_bytes, rtt_s = int(row["bytes"]), float(row["rtt_ms"]) / 1e3
    config = NetworkConfig(tls_record=0)
    transport = Transport(config)
    up_bytes_per_s = float(row["access_mbit"]) * 1e6 / 8
    profile = dataclasses.replace(ROUND, rtt_s=rtt_s, up_bytes_per_s=up_bytes_per_s, up_jitter=0.0)

    async def main():
        loop = asyncio.get_running_loop()
        link = SharedLink(loop.timeline, float(row["server_mbit"]) * 1e6 / 8)
        access = AccessLinks(loop.timeline, link, AccessRates(config, 0), "up")
        done = [loop.create_future() for _ in range(int(row["senders"]))]
        for client_id, future in enumerate(done):
            plan = transport.plan(num_bytes, (client_id,))
            _, pace = transport.pace(plan, profile, lambda: up_bytes_per_s)
            access.start(
                client_id,
                profile,
                plan.total_bytes,
                lambda _, future=future: future.set_result(loop.time()),
                pace,
            )
        return await asyncio.gather(*done)

    ended_s = clock.run(main())
    assert len(ended_s) == int(row["senders"])
    assert statistics.fmean(ended_s) + rtt_s / 2 == pytest.approx(float(row["mean_s"]), rel=0.06)
    assert max(ended_s) + rtt_s / 2 == pytest.approx(float(row["last_s"]), rel=0.06)


async def test_a_device_that_leaves_while_the_window_grows_has_been_sent_what_the_windows_let_out():
    profile = dataclasses.replace(SIXTH, rtt_s=1.0, down_bytes_per_s=60_000.0)
    away_from = Timetable({0: [(0.0, 1.0), (50.0, 60.0)]})
    network = NetworkConfig(server_link="unlimited")
    world = small_world([profile], network=network, availability=away_from)
    question = wire.Candidates(ask().draw, ask().question, ("x" * 80_000,))
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(question, Subject())
    (down,) = world.transfers(direction="down")
    assert (down.end_at_s, down.wire_bytes, down.fate) == (1.0, 15_000, "cut")  # one window
    await world.settle()
