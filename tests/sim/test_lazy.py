"""Sequences whose items are made when first asked for, and a federation in which idle clients cost nothing."""

from __future__ import annotations

import pytest

from fedsim.sim.clock import run
from fedsim.sim.lazy import LazySequence
from tests.samples.worlds import ROUND, ask, small_world


def test_an_item_is_made_once_and_only_when_it_is_asked_for() -> None:
    asked: list[int] = []

    def make(index: int) -> list[int]:
        asked.append(index)
        return [index]

    items = LazySequence(1_000_000, make)
    assert len(items) == 1_000_000 and not asked and items.made() == []
    assert items[7] is items[7] and items[-1] == [999_999]
    assert asked == [7, 999_999] and items.made() == [[7], [999_999]]
    assert items.made_at(7) == [7] and items.made_at(8) is None


def test_it_reads_like_a_list() -> None:
    items = LazySequence(5, lambda index: index * index)
    assert list(items) == [0, 1, 4, 9, 16] and items[1:3] == [1, 4] and next(reversed(items)) == 16
    assert 9 in items and items and not LazySequence(0, int)
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"{index} is not one of the 5 items"):
            items[index]


def test_of_a_thousand_clients_only_those_that_are_asked_come_to_be() -> None:
    profiles, states = (
        LazySequence(1000, lambda _: ROUND),
        LazySequence(1000, lambda client_id: f"state {client_id}"),
    )

    async def main() -> list[int]:
        world = small_world(profiles, states=states)
        there = world.federation.online()
        await world.federation.broadcast(ask(), [7, 3])
        await world.settle()
        world.federation.log_presence(1.0)
        assert sorted(row.client_id for row in world.outcomes) == [3, 7]
        return there

    assert run(main()) == list(range(1000))
    assert states.made() == ["state 3", "state 7"]
