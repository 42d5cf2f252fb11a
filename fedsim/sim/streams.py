"""Random draws as functions: a draw depends on what it is for, never on when it is made.

``uniform(seed, entity, purpose, n)`` is a keyed hash (blake2b) of its arguments, so adding a client or
reordering unrelated events changes nobody else's draws, and a draw costs about a microsecond where building
a generator object costs fifteen. ``generator`` builds a numpy generator for the few places that need many
draws at once. Key parts are integers, strings or bytes; ``1`` and ``"1"`` are different parts.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from statistics import NormalDist
from typing import Any

import numpy as np


class Joined:
    """Key parts that were encoded once (`joined`); as a part of a key it stands for all of them, in their order.

    Attributes:
        raw: their encoding.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Joined) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)


Part = int | str | bytes | Joined

_TWO_52 = float(2**52)
_MOST_REMEMBERED = 1 << 16

standard_normal = NormalDist().inv_cdf
"""The point below which a standard normal variable lies with probability p in (0, 1).

The standard library's, by Wichura's algorithm AS 241 (Applied Statistics 37, 1988), since scipy is slow to import.
"""


def joined(*parts: Part) -> Joined:
    """These parts as one, for a key that many draws begin or end with.

    >>> digest(1, joined("a", 2)) == digest(1, "a", 2)
    True
    """
    return Joined(_encoded(parts))


def digest(*parts: Part, size: int = 8) -> bytes:
    """Hash key parts to ``size`` bytes; typed and length-prefixed, so keys cannot collide by joining."""
    return blake2b(_encoded(parts), digest_size=size).digest()


def _encoded(parts: tuple[Part, ...]) -> bytes:
    key = b""
    for part in parts:  # by the very type: this line runs millions of times in a run
        if isinstance(part, Joined):
            key += part.raw
        elif type(part) is int or type(part) is str:
            key += _plain(part)
        else:
            key += _other(part)
    return key


_plain_parts: dict[int | str, bytes] = {}


def _plain(part: Any) -> bytes:
    """An int or str, never of a subclass: what is remembered must not be mistaken for what only equals it, as True does 1."""
    encoded = _plain_parts.get(part)
    if encoded is None:
        if len(_plain_parts) >= _MOST_REMEMBERED:
            _plain_parts.clear()
        encoded = _plain_parts[part] = _other(part)
    return encoded


def _other(part: object) -> bytes:
    """A part of any kind, also of a subclass of int, str or bytes such as an enum's."""
    if isinstance(part, bool) or not isinstance(part, (int, str, bytes)):
        raise TypeError(f"a stream key part is int, str or bytes, not {type(part).__name__}")
    if isinstance(part, int):
        tag, raw = b"i", b"%d" % part
    elif isinstance(part, str):
        tag, raw = b"s", part.encode()
    else:
        tag, raw = b"b", part
    return tag + len(raw).to_bytes(4, "big") + raw


def integer(*parts: Part) -> int:
    """A 63-bit non-negative integer for this key, e.g. to seed a library that wants one."""
    return int.from_bytes(digest(*parts), "big") >> 1


def uniform(*parts: Part) -> float:
    """A uniform draw in the open interval (0, 1) for this key, from the first 52 of 64 bits."""
    # Not 53: half-way points stay exact, so that the largest draw does not round to 1.
    return ((int.from_bytes(digest(*parts), "big") >> 12) + 0.5) / _TWO_52


def normal(*parts: Part) -> float:
    """A standard normal draw for this key (inverse transform of ``uniform``)."""
    return standard_normal(uniform(*parts))


def lognormal(sigma: float, *parts: Part) -> float:
    """A lognormal factor with mean 1: ``exp(sigma z - sigma^2 / 2)``; 1 exactly when ``sigma`` is 0."""
    if not sigma:
        return 1.0
    return math.exp(sigma * standard_normal(uniform(*parts)) - 0.5 * sigma * sigma)


def exponential(mean: float, *parts: Part) -> float:
    """An exponential draw with the given mean."""
    return -mean * math.log(uniform(*parts))


def generator(*parts: Part) -> np.random.Generator:
    """A numpy generator seeded by this key, for bulk draws."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest(*parts, size=16), "big")))
