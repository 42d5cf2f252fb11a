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
from functools import lru_cache
from operator import mul
from typing import Final

from fedsim import streams

TRUNCATION = 1e-3
"""Weight at which the moving average is cut."""

_BLOCK = 16
_TWO_32: Final = 4294967296.0
_WORDS = struct.Struct(f"<{_BLOCK}I")
_REMEMBERED_SLOTS, _REMEMBERED_BLOCKS = 1 << 14, 1 << 15


def slot_at(at_s: float, period_s: float) -> int:
    """The slot n with ``n T <= at_s < (n + 1) T`` for a period T, in floating point."""
    number = math.floor(at_s / period_s)
    if number * period_s > at_s:
        return number - 1
    return number + 1 if (number + 1) * period_s <= at_s else number


class Levels:
    """Levels of many keys with one memory a in [0, 1); 0 means independent from slot to slot.

    Attributes:
        level: of (key, slot): the level z of a slot, standard normal over keys and over slots.
    """

    def __init__(self, memory: float) -> None:
        self._length = max(1, math.ceil(math.log(TRUNCATION) / math.log(memory))) if memory else 1
        weights = [memory**age for age in range(self._length)]
        scale = math.sqrt(math.fsum(map(mul, weights, weights)))
        self._weights = [weight / scale for weight in reversed(weights)]  # the oldest slot first
        # Pure functions of their arguments: what is remembered changes no number.
        self.level = lru_cache(_REMEMBERED_SLOTS)(self._level_of)
        self._block = lru_cache(_REMEMBERED_BLOCKS)(self._block_of)

    def _level_of(self, key: tuple[streams.Part, ...], slot: int) -> float:
        oldest = slot - self._length + 1
        first = oldest // _BLOCK
        whole_key, draws = streams.joined(*key), list[float]()
        for block in range(first, slot // _BLOCK + 1):
            draws += self._block(whole_key, block)
        return math.fsum(map(mul, self._weights, draws[oldest - first * _BLOCK :]))

    def _block_of(self, key: streams.Joined, block: int) -> tuple[float, ...]:
        """The draws e of 16 slots from one hash: 32 bits each, so that none lies beyond 6.4 deviations."""
        words: tuple[int, ...] = _WORDS.unpack(streams.digest(key, block, size=_WORDS.size))
        return tuple(streams.standard_normals([(word + 0.5) / _TWO_32 for word in words]))
