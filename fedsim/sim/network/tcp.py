"""What TCP's congestion control costs a message: slow start, and the windows that losses leave.

Slow start. A flow begins with the initial window w (RFC 6928: ten segments) and sends twice as much in every round trip,
until a window fills its round trip, ``w 2^i >= r RTT``, or the message is out. A window that is too small caps the flow's
rate at ``w 2^i / RTT`` for a round trip; what is left when the next window would be large enough goes at full rate. So a
message of n bytes, alone on a path of rate r, is late by

    D = P RTT - w (2^P - 1) / r,    P = min(Q, K - 1)

with Q the number of windows below r RTT and K the number of windows that cover n (the smallest with ``w (2^K - 1) >= n``). A
message that fits the initial window is not late. Every message begins anew: an idle connection goes back to its initial
window (RFC 5681, section 4.1). A flow that others leave less than ``w 2^i / RTT`` does not notice its window.

Losses. Which segments are lost at their first sending is drawn (`fedsim.sim.network.transport`). Until the first of them the
window grows as above; from there on the windows are played, one after the other. A lost segment is missed one round trip after
it went out, in which one more window goes out; what is lost of these counts as the same event. Then the window W falls, stays
so for a round trip of recovery, and grows until the next loss:

    reno    (W - 2) / 2;  1 more a round trip                                                              RFC 5681
    cubic   0.7 W;  max(0.4 (t - K)^3 + W_max, W_est),  K = ((W_max - 0.7 W) / 0.4)^(1/3)                  RFC 9438, 4.2
            W_est: 0.7 W, then 3 (1 - 0.7) / (1 + 0.7) = 0.53 more a round trip, and 1 from W on           RFC 9438, 4.3
            W_max: W at the loss, or 0.85 W where W did not reach the one before it                        RFC 9438, 4.7

with t the seconds since recovery (two segments less under Reno: three have arrived behind the lost one when it is missed).
With ``cubic`` the first window grows by a twentieth a round trip once it fills its path (HyStart, RFC 9406). A window of three
segments or fewer, or a loss that fewer than three segments follow, is noticed by a time-out only: RTT + 0.2 s, as in Linux. The
rest of the message then goes at the mean rate that these windows have on the access link alone.

Compared with ns-3, a packet simulator, in docs/world.md. Left out: queues that overflow, BBR, a receiver's window, tail loss
probes, and what concurrent messages of one client change in each other's windows (the widest counts for all of them).

References:
    RFC 6928 (initial window), RFC 5681 (congestion control), RFC 9438 (CUBIC), RFC 9406 (HyStart++); Kurose and Ross, Computer
    Networking (2003), section 3.7.2 (latency with a static and a growing window); Cardwell, Savage and Anderson, Modeling TCP
    latency, INFOCOM (2000) (slow start until the first loss, then what losses allow).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Congestion = Literal["cubic", "reno"]

LEAST_WINDOW_SEGMENTS = 2
"""No initial window is smaller."""

TIMEOUT_MARGIN_S = 0.2
"""A time-out comes so much later than a round trip (Linux: the larger of this and four deviations of it)."""

MOST_LOSSES = 4096
"""So many losses of a message are played; a longer one goes on at the mean rate that it has by then."""

_WINDOW_SEGMENTS, _WINDOW_BYTES = 10, 14_600
_REORDERED = 3  # segments that must arrive after a lost one before it is missed
_CUBIC_BETA, _CUBIC_C = 0.7, 0.4
_FULL_PATH_GROWTH = 1.05


@dataclass(frozen=True, slots=True)
class Pace:
    """The most that one message may send, as its window grows: for a client's connection, in wire bytes.

    Attributes:
        num_rounds: round trips in which the window is too small.
        window_bytes: of the first of them; each next one has twice as much.
        rtt_s: how long each takes, seconds.
        bytes_per_s: the cap after them: what losses leave, infinite without losses.
    """

    num_rounds: int
    window_bytes: float
    rtt_s: float
    bytes_per_s: float = math.inf

    def cap_bytes_per_s(self, round_index: int) -> float:
        """The cap in a round (0, 1, ...), and after the last of them."""
        if round_index >= self.num_rounds:
            return self.bytes_per_s
        return self.window_bytes * 2.0**round_index / self.rtt_s

    def seconds(self, num_bytes: float, rate_bytes_per_s: float) -> float:
        """How long a message takes alone on a path of this rate, which may be slower than the one it was made for."""
        now_s = 0.0
        for index in range(self.num_rounds):
            in_round = min(self.cap_bytes_per_s(index), rate_bytes_per_s) * self.rtt_s
            if in_round >= num_bytes:
                break
            now_s, num_bytes = now_s + self.rtt_s, num_bytes - in_round
        return now_s + num_bytes / min(rate_bytes_per_s, self.bytes_per_s)


def initial_window_segments(segment_payload_bytes: int) -> float:
    """RFC 6928's initial window in segments: ``min(10 MSS, max(2 MSS, 14600)) / MSS``."""
    mss = segment_payload_bytes
    return min(_WINDOW_SEGMENTS * mss, max(LEAST_WINDOW_SEGMENTS * mss, _WINDOW_BYTES)) / mss


def slow_start_rounds(size: float, window: float, rate_per_s: float, rtt_s: float) -> int:
    """In how many round trips the window is too small (P above).

    Args:
        size: what is sent, in any unit (bytes with headers, segments).
        window: the initial window, in that unit.
        rate_per_s: the rate that the flow grows into; a stalled link (0) has nothing to grow into.
        rtt_s: the round trip, seconds.

    >>> slow_start_rounds(70, window=10, rate_per_s=100, rtt_s=1.0)  # 10 and 20; the 40 that are left fit the next window
    2
    """
    if size <= window or not rate_per_s:
        return 0
    growing = math.ceil(math.log2(max(rate_per_s * rtt_s / window, 1.0)))
    covering = math.ceil(math.log2(size / window + 1))
    return min(growing, covering - 1)


def paced(
    num_bytes: float,
    num_segments: int,
    segment_bytes: float,
    lost: Sequence[int],
    window_segments: float,
    rate_bytes_per_s: float,
    rtt_s: float,
    congestion: Congestion,
) -> tuple[Pace | None, float]:
    """How windows pace a message on a path of this rate, and how long the repeat of its end is waited for.

    Args:
        num_bytes: what crosses the link, headers and repeats included.
        num_segments: the message's segments.
        segment_bytes: of a full one, headers included.
        lost: which of them (0, 1, ...) are lost at their first sending, ascending; the first ``MOST_LOSSES`` of them.
        window_segments: the initial window; infinite for one that is wide from the start.
        rate_bytes_per_s: the path's rate, wire bytes a second.
        rtt_s: the round trip, seconds.
        congestion: whose windows.

    Returns:
        The pace, None where no window is too small; and seconds that pass beside it.
    """
    if not (num_segments and rate_bytes_per_s and rtt_s):
        return None, 0.0
    if not lost:
        window_bytes = window_segments * segment_bytes
        num_rounds = slow_start_rounds(num_bytes, window_bytes, rate_bytes_per_s, rtt_s)
        return (Pace(num_rounds, window_bytes, rtt_s) if num_rounds else None), 0.0
    mean_bytes = num_bytes / num_segments
    window_bytes, rate_per_s = window_segments * mean_bytes, rate_bytes_per_s / mean_bytes
    num_rounds = slow_start_rounds(lost[0] + 1, window_segments, rate_per_s, rtt_s)
    num_played = num_segments if len(lost) < MOST_LOSSES else lost[-1] + 1
    out_s, wait_s = _play(num_played, lost, window_segments, rate_per_s, rtt_s, congestion)
    out_s *= num_segments / num_played
    left_bytes = num_bytes - (window_bytes * (2.0**num_rounds - 1) if num_rounds else 0.0)
    mean_bytes_per_s = left_bytes / (out_s - num_rounds * rtt_s)
    cap_bytes_per_s = mean_bytes_per_s if mean_bytes_per_s < 0.999 * rate_bytes_per_s else math.inf
    is_paced = num_rounds or cap_bytes_per_s < math.inf
    return (Pace(num_rounds, window_bytes, rtt_s, cap_bytes_per_s) if is_paced else None), wait_s


def _play(
    num_segments: int,
    lost: Sequence[int],
    initial_window: float,
    rate_per_s: float,
    rtt_s: float,
    congestion: Congestion,
) -> tuple[float, float]:
    """Seconds until all segments have gone out once, and seconds until what is missing at the end is sent again."""
    beta = 0.5 if congestion == "reno" else _CUBIC_BETA
    path, index = rate_per_s * rtt_s, 0
    sent = lost[0] + 1.0
    now_s = _slow_start_s(sent, initial_window, rate_per_s, rtt_s)
    least_s = _slow_start_s(num_segments, initial_window, rate_per_s, rtt_s)
    window = (
        initial_window + lost[0] if initial_window < math.inf else max(path, float(LEAST_WINDOW_SEGMENTS))
    )
    if congestion == "cubic" and window > path > initial_window:
        window = min(window, path * _FULL_PATH_GROWTH ** min((sent - path) / path, 100))
    highest = 0.0
    while True:
        # A lost segment has just gone out.
        round_s, left = max(rtt_s, window / rate_per_s), num_segments - sent
        if left <= window:
            out_s = max(now_s + round_s * left / window, least_s)
            missed_s = rtt_s if left >= _REORDERED else rtt_s + TIMEOUT_MARGIN_S
            return out_s, max(now_s + missed_s - out_s, 0.0)
        sent += window
        now_s += round_s if window > _REORDERED else round_s + TIMEOUT_MARGIN_S
        while index < len(lost) and lost[index] < sent:
            index += 1
        reached = window
        highest = window * (1 + beta) / 2 if window < highest and congestion == "cubic" else window
        in_flight = window - (0 if congestion == "cubic" else 2)
        window = max(beta * in_flight, LEAST_WINDOW_SEGMENTS)
        friendly, since_s, recovers = window, 0.0, True
        k_s = (max(highest - window, 0.0) / _CUBIC_C) ** (1 / 3)
        end = lost[index] + 1 if index < len(lost) else num_segments
        while True:
            round_s = max(rtt_s, window / rate_per_s)
            if end - sent <= window:
                now_s += round_s * (end - sent) / window
                sent = float(end)
                break
            sent, now_s = sent + window, now_s + round_s
            if recovers:
                recovers = False
            elif congestion == "reno":
                window += 1
            else:
                since_s += round_s
                friendly += 3 * (1 - beta) / (1 + beta) if friendly < reached else 1.0
                window = max(friendly, min(_CUBIC_C * (since_s + rtt_s - k_s) ** 3 + highest, 1.5 * window))
        if index == len(lost):
            return max(now_s, least_s), 0.0


def _slow_start_s(size: float, window: float, rate_per_s: float, rtt_s: float) -> float:
    """Seconds until a flow without losses is out (size / rate + D above)."""
    num_rounds = slow_start_rounds(size, window, rate_per_s, rtt_s)
    return num_rounds * rtt_s + (size - window * (2.0**num_rounds - 1) if num_rounds else size) / rate_per_s
