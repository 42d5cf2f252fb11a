"""When Python looks for circles of garbage: not while modules are imported, and seldom during a run."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

THRESHOLDS = {"real": (100_000, 10, 10), "timing": (500_000, 10, 10)}
"""How often it looks, by fidelity and generation.

Seldom at the young objects, of which a run makes millions: only requests that are given up leave circles, some ten objects
each. In real fidelity a circle may hold an array.
"""


@contextlib.contextmanager
def unsought(*, for_good: bool = True) -> Iterator[None]:
    """Look for none while modules are imported, and leave it on or off as it was.

    Args:
        for_good: what is there now stays, and need not be looked through later either. For the start of a command: in a process
            that has made runs before, their garbage would stay as well.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        if was_enabled:
            gc.enable()
