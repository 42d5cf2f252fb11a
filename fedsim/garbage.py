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
def unsought() -> Iterator[None]:
    """Look for none while modules are imported: what they make stays, and need not be looked through later either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
