"""Items that are made when somebody first asks for them: what a federation holds of clients that nobody asks costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence whose items are made by index when first asked for, and kept.

    Args:
        length: how many items there are.
        make: of an index in ``range(length)``: the item.
    """

    __slots__ = ("_length", "_made", "_make")

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self._length = length
        self._make = make
        self._made: dict[int, T] = {}

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """An item, or a list of them.

        Raises:
            IndexError: there is none at this index.
        """
        if type(index) is int and 0 <= index < self._length:
            made = self._made.get(index)
            return self._at(index) if made is None else made
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(f"{index} is not one of the {self._length} items")
        return self._at(index % self._length)

    def __iter__(self) -> Iterator[T]:
        for place in range(self._length):
            yield self[place]

    def made(self) -> list[T]:
        """The items that were asked for so far, by index."""
        return [self._made[place] for place in sorted(self._made)]

    def made_at(self, index: int) -> T | None:
        """The item at an index if it was asked for, else None."""
        return self._made.get(index)

    def _at(self, place: int) -> T:
        if place not in self._made:
            self._made[place] = self._make(place)
        return self._made[place]
