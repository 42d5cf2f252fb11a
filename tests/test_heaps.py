"""The heap that is compiled with the links and the queue of time, against ``heapq``."""

from __future__ import annotations

import heapq
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedsim import heaps

KEYS = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2, float("inf")]), st.booleans()), max_size=60)


def in_order(push: Any, pop: Any, keys: list[tuple[float, bool]]) -> list[Any]:
    """What comes out of a heap into which each key goes, and out of which one comes wherever the flag says so."""
    heap: list[Any] = []
    out = []
    for number, (key, takes) in enumerate(keys):
        push(heap, (key, number, object()))
        if takes:
            out.append(pop(heap)[:2])
    return out + [pop(heap)[:2] for _ in range(len(heap))]


@given(KEYS)
def test_entries_come_out_in_the_order_of_heapq(keys):
    assert in_order(*heaps.OWN, keys) == in_order(heapq.heappush, heapq.heappop, keys)


@given(KEYS)
def test_both_work_on_one_heap(keys):
    push, pop = heaps.OWN
    plain = in_order(heapq.heappush, heapq.heappop, keys)
    assert in_order(heapq.heappush, pop, keys) == plain
    assert in_order(push, heapq.heappop, keys) == plain


def test_interpreted_it_is_heapq_itself():
    is_written = heaps.__file__.endswith(".py")
    assert (heaps.heappush, heaps.heappop) == ((heapq.heappush, heapq.heappop) if is_written else heaps.OWN)
