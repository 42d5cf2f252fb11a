"""What TCP's congestion control costs a message, in closed form: slow start, and the rate that losses allow.

Slow start. A flow begins with the initial window w (RFC 6928: ten segments) and sends twice as much in every round trip,
until a window fills its round trip, ``w 2^i >= r RTT``, or the message is out. While a window is too small the sender sends
it in ``w 2^i / r`` and waits for the rest of the round trip. A message of n bytes at rate r is late by

    D = P RTT - w (2^P - 1) / r,    P = min(Q, K - 1)

with Q the number of windows below r RTT and K the number of windows that cover n (the smallest with ``w (2^K - 1) >= n``). So
a message that fits the initial window is not late. Every message begins anew: an idle connection goes back to its initial
window (RFC 5681, section 4.1).

Losses. With probability p that a segment is lost, TCP Reno's rate stays near

    B = MSS / (RTT sqrt(2 b p / 3) + T0 min(1, 3 sqrt(3 b p / 8)) p (1 + 32 p^2))

(Padhye et al., eq. 30), with b = 1 segment per acknowledgement and T0 = max(4 RTT, 1 s), as RFC 5348 recommends. Of the
published formulas it is the one that has time-outs in it, and was compared with measurements up to p of some tenths; the
simpler 1.22 MSS / (RTT sqrt p) (Mathis et al. 1997) is its limit for small p. It is about long flows: short ones are mostly
over before their window matters, and B then underrates them.

Left out: sharing during slow start (r is the client's own access rate when the message starts), losses that end slow start
early, CUBIC and BBR (which keep more of a fast or lossy link), and a receiver's window.

References:
    RFC 6928 (initial window), RFC 5681 (congestion control), RFC 5348 section 3.1 (b and T0); Kurose and Ross, Computer
    Networking (2003), section 3.7.2 (latency with a static and a growing window); Padhye, Firoiu, Towsley and Kurose,
    Modeling TCP throughput, SIGCOMM (1998); Mathis, Semke, Mahdavi and Ott, ACM CCR 27 (1997).
"""

from __future__ import annotations

import math

LEAST_WINDOW_SEGMENTS = 2
"""No initial window is smaller."""

_WINDOW_SEGMENTS, _WINDOW_BYTES = 10, 14_600


def initial_window_segments(segment_payload_bytes: int) -> float:
    """RFC 6928's initial window in segments: ``min(10 MSS, max(2 MSS, 14600)) / MSS``."""
    mss = segment_payload_bytes
    return min(_WINDOW_SEGMENTS * mss, max(LEAST_WINDOW_SEGMENTS * mss, _WINDOW_BYTES)) / mss


def slow_start_s(num_bytes: float, window_bytes: float, rate_bytes_per_s: float, rtt_s: float) -> float:
    """How much later than at its full rate a message is out because its window has to grow (D above), seconds.

    Args:
        num_bytes: what is sent, headers included.
        window_bytes: the initial window, headers included.
        rate_bytes_per_s: the rate that the flow grows into; a stalled link (0) has nothing to grow into.
        rtt_s: the round trip, seconds.

    >>> slow_start_s(70.0, window_bytes=10.0, rate_bytes_per_s=100.0, rtt_s=1.0)  # windows 10, 20, 40: two waits
    1.7
    """
    if num_bytes <= window_bytes or not rate_bytes_per_s:
        return 0.0
    growing = math.ceil(math.log2(max(rate_bytes_per_s * rtt_s / window_bytes, 1.0)))
    covering = math.ceil(math.log2(num_bytes / window_bytes + 1))
    waits = min(growing, covering - 1)
    return waits * rtt_s - window_bytes * (2.0**waits - 1) / rate_bytes_per_s


def loss_limited_segments_per_s(loss: float, rtt_s: float) -> float:
    """The rate that losses allow a long flow (B / MSS above), segments a second; infinite without loss."""
    if not loss:
        return math.inf
    timeout_s = max(4 * rtt_s, 1.0)
    timeouts = min(1.0, 3 * math.sqrt(3 * loss / 8)) * loss * (1 + 32 * loss * loss)
    return 1 / (rtt_s * math.sqrt(2 * loss / 3) + timeout_s * timeouts)
