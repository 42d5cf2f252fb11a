"""Sums of floats that come in pieces, with the same digits whatever the pieces and their order."""

from __future__ import annotations

import math
from collections.abc import Iterable

_MOST_PARTS = 256


class ExactSum:
    """The correctly rounded sum of everything that was added, as ``math.fsum`` over all of it at once would give.

    What was added is kept as a short list of floats with exactly the same sum: of each piece its rounded sum, the rounded sum
    of what that leaves, and so on until nothing is left (an error-free transformation; Shewchuk, 1997).
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, values: Iterable[float]) -> None:
        """Add a piece."""
        self._parts += _expansion([*values])
        if len(self._parts) > _MOST_PARTS:
            self._parts = _expansion(self._parts)

    def join(self, other: ExactSum) -> None:
        """Add everything that was added to another sum."""
        self.add(other._parts)

    def value(self) -> float:
        """The sum so far; 0.0 of nothing."""
        return math.fsum(self._parts)


def _expansion(values: list[float]) -> list[float]:
    """A few floats whose exact sum is that of ``values``."""
    if len(values) < 2:
        return values
    parts: list[float] = []
    rest = values
    while (part := math.fsum(rest)) != 0.0:
        parts.append(part)
        if not math.isfinite(part):
            break
        rest = [*rest, -part]
    return parts
