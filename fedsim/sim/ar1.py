"""Levels with memory: stationary standard normal numbers, one for each slot of time, as functions of a key.

The level of slot n is

    z_n = c sum_{j=0}^{J-1} a^j e_{n-j},    c^2 = (1 - a^2) / (1 - a^{2J})

with e_n independent standard normal draws keyed by (key, n) and a the memory. That is the stationary AR(1) process
``z_n = a z_{n-1} + sqrt(1 - a^2) e_n`` written as a moving average and cut where ``a^J`` falls below 1e-3: corr(z_n, z_{n+h})
lies below a^h by less than 1e-3 at every lag. Nothing is carried from slot to slot: any order of asking gives the same numbers.

References:
    Brockwell and Davis, Time Series: Theory and Methods (1991), section 3.1 (the causal AR(1) process as an infinite
    moving average).
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable
from functools import lru_cache
from operator import mul

from fedsim.sim import streams

TRUNCATION = 1e-3
"""Weight at which the moving average is cut."""

_BLOCK = 16
_TWO_32 = float(2**32)
_WORDS = struct.Struct(f"<{_BLOCK}I")
_REMEMBERED_BYTES = 1 << 24


def slot_at(at_s: float, period_s: float) -> int:
    """The slot n with ``n T <= at_s < (n + 1) T`` for a period T, in floating point."""
    number = math.floor(at_s / period_s)
    if number * period_s > at_s:
        return number - 1
    return number + 1 if (number + 1) * period_s <= at_s else number


class _Track:
    """What is remembered of one key: its level in the slot last asked for, and the draws of the blocks around.

    Attributes:
        key: the key's encoding.
        slot: the slot last asked for, and ``level``, its level; None before the first.
        first: number of the first block remembered.
        draws: the draws e of these blocks.
    """

    __slots__ = ("draws", "first", "key", "level", "slot")

    def __init__(self, key: streams.Joined) -> None:
        self.key = key
        self.slot: int | None = None
        self.level = 0.0
        self.first = 0
        self.draws = array("d")


class AR1:
    """Levels of many keys with one memory a in [0, 1); 0 means independent from slot to slot."""

    def __init__(self, memory: float) -> None:
        self._length = max(1, math.ceil(math.log(TRUNCATION) / math.log(memory))) if memory else 1
        weights = [memory**age for age in range(self._length)]
        scale = math.sqrt(math.fsum(map(mul, weights, weights)))
        self._weights = [weight / scale for weight in reversed(weights)]  # the oldest slot first
        # Pure functions of their arguments: what is remembered, and of how many keys, changes no number.
        self._track = lru_cache(_REMEMBERED_BYTES // (8 * self._length + 32 * _BLOCK) + 1)(_track_of)

    def level(self, key: tuple[streams.Part, ...], slot: int) -> float:
        """The level z of a slot, standard normal over keys and over slots."""
        track: _Track = self._track(key)
        if track.slot != slot:
            oldest = slot - self._length + 1
            first = oldest // _BLOCK
            _move(track, first, slot // _BLOCK + 1)
            draws = track.draws[oldest - first * _BLOCK : slot + 1 - first * _BLOCK]
            track.slot, track.level = slot, math.fsum(map(mul, self._weights, draws))
        return track.level


def _track_of(key: tuple[streams.Part, ...]) -> _Track:
    return _Track(streams.joined(*key))


def _move(track: _Track, first: int, end: int) -> None:
    """Remember the draws of blocks ``first`` to ``end - 1``, and make those that are not known from before."""
    draws, was_first = track.draws, track.first
    was_end = was_first + len(draws) // _BLOCK
    if was_first == first and was_end == end:
        return
    is_known = was_first <= first < was_end
    draws = draws[(first - was_first) * _BLOCK : (end - was_first) * _BLOCK] if is_known else array("d")
    for block in range(first + len(draws) // _BLOCK, end):
        draws.extend(_drawn(track.key, block))
    track.first, track.draws = first, draws


def _drawn(key: streams.Joined, block: int) -> Iterable[float]:
    """The draws e of 16 slots from one hash: 32 bits each, so that none lies beyond 6.4 deviations."""
    words: tuple[int, ...] = _WORDS.unpack(streams.digest(key, block, size=_WORDS.size))
    return [streams.standard_normal((word + 0.5) / _TWO_32) for word in words]
