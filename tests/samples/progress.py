"""Something that happens in the middle of a run, at the same place every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedsim.progress import SilentProgress


class AtUpdate(SilentProgress):
    """Does something when a run has made so many updates (from 1)."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._left = number
        self._act = act

    def advance(self, n: int = 1, **stats: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()

    def phase(self, name: str, total: int | None = None) -> Any:
        phase: Any = super().phase(name, total)
        if name == "federation":
            phase.advance = self.advance
        return phase
