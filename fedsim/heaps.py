"""``heapq`` for tuples that begin with a number, as fast when compiled as the numbers allow.

The order is that of the tuples, no two of which are equal, so whatever is taken out comes in the same order as from ``heapq``,
and both may work on one heap. Interpreted, the names below are ``heapq``'s own functions; compiled (`fedsim.compiling`),
comparing two floats is cheaper than asking two tuples.
"""

from __future__ import annotations

import heapq
from typing import Any, Final, TypeVar

E = TypeVar("E", bound=tuple[Any, ...])


def heappush(heap: list[E], entry: E) -> None:
    """Add an entry."""
    heap.append(entry)
    rise(heap, len(heap) - 1)


def heappop(heap: list[E]) -> E:
    """Take the smallest entry out; there must be one."""
    last = heap.pop()
    if not heap:
        return last
    first = heap[0]
    heap[0] = last
    sink(heap)
    return first


def rise(heap: list[E], place: int) -> None:
    """Move an entry towards the front until its parent is smaller."""
    entry = heap[place]
    key: float = entry[0]
    while place > 0:
        above = (place - 1) >> 1
        parent = heap[above]
        parent_key: float = parent[0]
        if parent_key < key or (parent_key == key and parent < entry):
            break
        heap[place] = parent
        place = above
    heap[place] = entry


def sink(heap: list[E]) -> None:
    """Move the first entry back to where it belongs: down the smaller children to the end, then up."""
    length = len(heap)
    entry = heap[0]
    place, child = 0, 1
    while child < length:
        left = heap[child]
        other = child + 1
        if other < length:
            right = heap[other]
            left_key: float = left[0]
            right_key: float = right[0]
            if not (left_key < right_key or (left_key == right_key and left < right)):
                left, child = right, other
        heap[place] = left
        place = child
        child = 2 * place + 1
    heap[place] = entry
    rise(heap, place)


OWN: Final = (heappush, heappop)
"""The two that are written here, also where ``heapq`` stands in for them."""

if __file__.endswith(".py"):
    globals().update(heappush=heapq.heappush, heappop=heapq.heappop)
