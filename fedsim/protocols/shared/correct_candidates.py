"""Which candidates of every draw are right, in about one byte a candidate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

_PAGE_DRAWS = 1024


class CorrectCandidates(Mapping[int, Sequence[bool]]):
    """A mapping from draws to a mark per candidate ``[G]``, for as many draws as there are; all groups have one size.

    A page holds 1,024 draws that follow one another, each as a 1 (it is there) and its G marks.

    Raises:
        ValueError: a group of another size than the first.
    """

    __slots__ = ("_num", "_pages", "_size")

    def __init__(self) -> None:
        self._num = 0
        self._size = 0
        self._pages: dict[int, bytearray] = defaultdict(self._page)

    def put(self, draw: int, marks: Sequence[bool]) -> None:
        """Set the marks of a draw."""
        self._size = self._size or len(marks)
        if len(marks) != self._size:
            raise ValueError(f"a group of {len(marks)} candidates among groups of {self._size}")
        page, start = self._pages[draw // _PAGE_DRAWS], self._start(draw)
        self._num += not page[start]
        page[start : start + self._size + 1] = bytes([1, *marks])

    def __getitem__(self, draw: int) -> Sequence[bool]:
        page, start = self._pages.get(draw // _PAGE_DRAWS), self._start(draw)
        if page is None or not page[start]:
            raise KeyError(draw)
        return [bool(mark) for mark in page[start + 1 : start + 1 + self._size]]

    def __iter__(self) -> Iterator[int]:
        for number, page in self._pages.items():
            places = range(0, len(page), self._size + 1)
            yield from (number * _PAGE_DRAWS + place for place, start in enumerate(places) if page[start])

    def __len__(self) -> int:
        return self._num

    def _start(self, draw: int) -> int:
        return draw % _PAGE_DRAWS * (self._size + 1)

    def _page(self) -> bytearray:
        return bytearray(_PAGE_DRAWS * (self._size + 1))
