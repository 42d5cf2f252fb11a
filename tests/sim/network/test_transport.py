"""What a message costs on the wire: headers, records, handshakes, retransmissions, delays."""

import dataclasses
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.sim.devices.config import ServerConfig
from fedsim.sim.devices.population import server_profile
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.transport import Transport

PROFILE = dataclasses.replace(
    server_profile(ServerConfig()), up_bytes_per_s=100.0, down_bytes_per_s=400.0, rtt_s=0.08
)
TCP = Transport(NetworkConfig())
IDEAL = Transport(NetworkConfig(transport="ideal"))


@pytest.mark.parametrize(
    ("message_bytes", "segments", "wire_bytes"),
    [
        (0, 0, 0),
        (1, 1, 1 + 22 + 52),
        (1426, 1, 1448 + 52),  # 1426 + 22 fill one segment
        (1427, 2, 1449 + 104),
        (16384, 12, 16406 + 12 * 52),  # one full record
        (16385, 12, 16385 + 44 + 12 * 52),  # a second record begins
    ],
)
def test_tcp_adds_a_header_per_segment_and_tls_bytes_per_record(message_bytes, segments, wire_bytes):
    assert TCP.num_segments(message_bytes) == segments
    assert TCP.wire_bytes(message_bytes) == wire_bytes


def test_ideal_transport_carries_the_message_and_nothing_else():
    assert IDEAL.wire_bytes(12345) == 12345
    assert IDEAL.plan(12345, (1,)).total_bytes == 12345
    assert IDEAL.handshake.up_bytes == IDEAL.handshake.round_trips == 0


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_wire_bytes_grow_with_the_message_and_never_fall_below_it(a, b):
    small, large = sorted((a, b))
    assert small <= TCP.wire_bytes(small) <= TCP.wire_bytes(large)
    assert TCP.wire_bytes(small + large) <= TCP.wire_bytes(small) + TCP.wire_bytes(large)


def test_handshakes_are_paid_only_by_connections_opened_for_each_request():
    assert TCP.handshake.down_bytes == 0
    opened = Transport(NetworkConfig(connection="per_request")).handshake
    assert opened.round_trips == 2
    assert (opened.up_bytes, opened.down_bytes) == (618, 3116)
    assert opened.rounds[0] == (60, 60)  # TCP, before TLS


def test_nothing_is_retransmitted_without_loss():
    assert TCP.plan(10**6, (1, "x")).retransmitted_bytes == 0


def test_expected_retransmissions_are_those_of_a_geometric_law():
    # Each of 100 segments is sent 1 / (1 - p) times on average: 100 p / (1 - p) repeats, variance 100 p / (1
    # - p)^2.
    loss, runs, message_bytes = 0.2, 2000, 100 * 1448 - 9 * 22
    transport = Transport(NetworkConfig(loss=loss))
    plans = [transport.plan(message_bytes, (k,)) for k in range(runs)]
    assert plans[0].num_segments == 100
    repeats = [plan.retransmitted_bytes / 1500 for plan in plans]
    expected, sigma = 100 * loss / (1 - loss), math.sqrt(100 * loss) / (1 - loss)
    assert abs(statistics.fmean(repeats) - expected) < 3.3 * sigma / math.sqrt(runs)
    assert statistics.stdev(repeats) == pytest.approx(sigma, rel=0.08)


def test_a_draw_depends_on_its_key_alone():
    lossy = Transport(NetworkConfig(loss=0.1))
    first = [lossy.plan(10**5, (k, "up")) for k in range(20)]
    assert [lossy.plan(10**5, (k, "up")) for k in reversed(range(20))] == first[::-1]
    assert len({plan.retransmitted_bytes for plan in first}) > 3


def test_one_way_delay_without_jitter_is_half_the_round_trips():
    assert TCP.one_way_s(PROFILE, (1,)) == 0.04
    farther = Transport(NetworkConfig(extra_rtt="20 ms"))
    assert farther.one_way_s(PROFILE, (1,)) == pytest.approx(0.05)


def test_jittered_delays_keep_their_mean():
    shaky = dataclasses.replace(PROFILE, rtt_jitter=0.3)
    n = 4000
    delays = [TCP.one_way_s(shaky, (k,)) for k in range(n)]
    assert abs(statistics.fmean(delays) - 0.04) < 3.3 * statistics.stdev(delays) / math.sqrt(n)
    assert statistics.stdev(math.log(delay) for delay in delays) == pytest.approx(0.3, rel=0.05)


def test_one_rate_for_the_server_link_means_both_directions():
    link = NetworkConfig.model_validate({"server_link": "80 Mbit/s"}).server_link
    assert (link.up, link.down) == (1e7, 1e7)
    link = NetworkConfig.model_validate({"server_link": {"up": "8 Mbit/s", "down": "unlimited"}}).server_link
    assert (link.up, link.down) == (1e6, math.inf)


def test_a_resolved_network_is_a_network_again():
    config = NetworkConfig.model_validate({"server_link": "unlimited", "extra_rtt": "15 ms"})
    assert NetworkConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("wrong", "where"),
    [({"server_link": 5}, "server_link"), ({"loss": 0.9}, "loss"), ({"transport": "udp"}, "transport")],
)
def test_wrong_settings_are_refused_where_they_stand(wrong, where):
    with pytest.raises(ValidationError) as error:
        NetworkConfig.model_validate(wrong)
    assert error.value.errors()[0]["loc"][0] == where
