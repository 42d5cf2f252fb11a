"""Ending well: a signal to end as an event, and children that end with everything they have started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType

_GRACE_S = 10.0  # how long a child that was told to end may take


@contextlib.contextmanager
def asked_to_end() -> Iterator[threading.Event]:
    """An event that is set by a signal to end, so that no child is left behind by an exception between two lines."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_children(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End children with everything they have started: each has a process group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
        until_s = time.monotonic() + _GRACE_S
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until_s - time.monotonic()))
