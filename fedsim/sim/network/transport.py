"""From a message to what crosses the wire, and how long a byte is under way.

``tcp``: the message is cut into TLS records of at most 16 KiB, each longer by 22 bytes (5 header, 1 content
type, 16 authentication tag), and the stream into segments of 1448 bytes payload and 52 bytes of header:

    stream_bytes = message_bytes + 22 ceil(message_bytes / 16384)
    wire_bytes   = stream_bytes + 52 ceil(stream_bytes / 1448)

Each sending of a segment is lost with probability p, independently, so a segment is sent 1/(1 - p) times on average; repeats
are counted apart. They go in rounds: of k_0 = n segments k_1 ~ Bin(k_0, p) are lost, any k_1 of them alike, and sent again, of
these k_2 ~ Bin(k_1, p), until none is. What slow start and the first round of losses do to the rate is in
`fedsim.sim.network.tcp`; each further round is noticed by a time-out. Waits for repeats pass before the bytes flow.
Connections are open before the run (``keep_alive``, as a fleet behind NAT needs anyway) or opened by the device for each
request (``per_request``: one round trip for TCP, one for TLS 1.3). A handshake's bytes go up, then down, in each round trip,
over the same links as all others, and none of the message goes before them.

Left out: pure acknowledgements (about 2% of the bytes, the other way) and link-layer framing.

References:
    RFC 9293 (TCP), RFC 7323 (timestamps), RFC 8446 section 5.2 (TLS 1.3 records), RFC 6928 (initial window).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fedsim.sim import streams
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.network import tcp
from fedsim.sim.network.config import NetworkConfig

TLS_RECORD_BYTES = 16_384
# Bytes up and down of each round trip, headers included. TCP: SYN, SYN-ACK. TLS 1.3 with a certificate chain of about
# 2.5 kB: ACK and ClientHello up, with the client's Finished; ServerHello ... Finished down.
HANDSHAKE_ROUNDS = ((60, 60), (52 + (52 + 322) + (52 + 80), 3 * 52 + 2_900))


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """What one message puts on the wire.

    Attributes:
        message_bytes: encoded length.
        num_segments: segments when nothing is lost; 0 for ``ideal``.
        wire_bytes: message, records and headers, every segment once.
        retransmitted_bytes: segments sent again, headers included.
        loss_rounds: how often in a row something had to be sent again.
        lost: which segments (0, 1, ...) were lost at their first sending, ascending; at most ``tcp.MOST_LOSSES``.
    """

    message_bytes: int
    num_segments: int
    wire_bytes: int
    retransmitted_bytes: int
    loss_rounds: int = 0
    lost: tuple[int, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Everything that crosses the link."""
        return self.wire_bytes + self.retransmitted_bytes


@dataclass(frozen=True, slots=True)
class Handshake:
    """Opening a connection: what goes up, and then down, in each round trip before the first byte of a message may go.

    Attributes:
        rounds: (bytes up, bytes down) of each round trip, in order.
    """

    rounds: tuple[tuple[int, int], ...] = ()

    @property
    def up_bytes(self) -> int:
        """All that goes from the device to the server."""
        return sum(up_bytes for up_bytes, _ in self.rounds)

    @property
    def down_bytes(self) -> int:
        """All that goes from the server to the device."""
        return sum(down_bytes for _, down_bytes in self.rounds)

    @property
    def round_trips(self) -> int:
        """How often it waits for the other side."""
        return len(self.rounds)


_ONE_WAY = streams.joined("one-way")
NO_HANDSHAKE = Handshake()
_HANDSHAKE = Handshake(HANDSHAKE_ROUNDS)


class Transport:
    """Overhead, delay and loss of messages, by the network's settings; pure functions of message and key.

    ``key`` is the stream key of one transfer: the seed first, then what tells it from every other, direction
    included; the same key gives the same draw. How fast the bytes go is `fedsim.sim.network.rates`.

    Attributes:
        config: the network's settings.
        extra_rtt_s: round-trip time beyond the access link, seconds.
        handshake: what every request pays to open its connection; nothing for ``ideal`` and ``keep_alive``.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.extra_rtt_s = config.extra_rtt
        self._is_ideal = config.transport == "ideal"
        is_open = self._is_ideal or config.connection == "keep_alive"
        self.handshake = NO_HANDSHAKE if is_open else _HANDSHAKE
        self._window_segments = (
            tcp.initial_window_segments(config.segment_payload) if config.slow_start else math.inf
        )
        self._lossless: dict[int, TransferPlan] = {}

    def num_segments(self, message_bytes: int) -> int:
        """TCP segments of a message; an empty one needs none."""
        return _ceil_div(self._stream_bytes(message_bytes), self.config.segment_payload)

    def wire_bytes(self, message_bytes: int) -> int:
        """Bytes on the wire when nothing is lost.

        Raises:
            ValueError: ``message_bytes`` is negative.
        """
        if message_bytes < 0:
            raise ValueError(f"a message of {message_bytes} bytes; must not be negative")
        if self._is_ideal:
            return message_bytes
        headers = self.num_segments(message_bytes) * self.config.segment_header
        return self._stream_bytes(message_bytes) + headers

    def plan(self, message_bytes: int, key: tuple[streams.Part, ...]) -> TransferPlan:
        """The transfer of one message, with its retransmissions drawn.

        Repeats are negative binomial: ``num_segments`` segments, each sent until one sending arrives, drawn round by
        round. All segments count as equally long.
        """
        plan = self._lossless.get(message_bytes)
        if plan is None:
            num_segments = 0 if self._is_ideal else self.num_segments(message_bytes)
            plan = TransferPlan(message_bytes, num_segments, self.wire_bytes(message_bytes), 0)
            self._lossless[message_bytes] = plan
        if not self.config.loss or not plan.num_segments:
            return plan
        repeats, losses = 0, [plan.num_segments]
        generator = streams.generator(*key, "retransmissions")
        while lost := int(generator.binomial(losses[-1], self.config.loss)):
            repeats += lost
            losses.append(lost)
        if not repeats:
            return plan
        if losses[1] < tcp.MOST_LOSSES:
            first = np.sort(generator.choice(plan.num_segments, losses[1], replace=False))
        else:  # gaps between losses of an endless message
            first = generator.geometric(self.config.loss, tcp.MOST_LOSSES).cumsum() - 1
        return replace(
            plan,
            retransmitted_bytes=round(repeats * plan.wire_bytes / plan.num_segments),
            loss_rounds=len(losses) - 1,
            lost=tuple(first[first < plan.num_segments].tolist()),
        )

    def pace(
        self, plan: TransferPlan, profile: DeviceProfile, rate_bytes_per_s: Callable[[], float]
    ) -> tuple[float, tcp.Pace | None]:
        """What passes before a message's bytes flow, seconds; and how its window paces them, None where it does not.

        The rate is that of the client's access link now; it is asked for only where it matters.
        """
        if plan.num_segments <= self._window_segments and not plan.lost:
            return 0.0, None  # most messages; none of ``ideal`` has segments
        rtt_s = profile.rtt_s + self.extra_rtt_s
        pace, wait_s = tcp.paced(
            plan.total_bytes,
            plan.num_segments,
            self.config.segment_payload + self.config.segment_header,
            plan.lost,
            self._window_segments,
            rate_bytes_per_s(),
            rtt_s,
            self.config.congestion,
        )
        return wait_s + max(plan.loss_rounds - 1, 0) * (rtt_s + tcp.TIMEOUT_MARGIN_S), pace

    def one_way_s(self, profile: DeviceProfile, key: tuple[streams.Part, ...]) -> float:
        """Delay of the last byte: ``(rtt + extra_rtt) / 2`` times a lognormal draw of mean 1."""
        delay_s = 0.5 * (profile.rtt_s + self.extra_rtt_s)
        return delay_s * streams.lognormal(profile.rtt_jitter, *key, _ONE_WAY)

    def _stream_bytes(self, message_bytes: int) -> int:
        return message_bytes + self.config.tls_record * _ceil_div(message_bytes, TLS_RECORD_BYTES)


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
