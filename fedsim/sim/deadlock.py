"""Who waits for what: the text of a ``Deadlock``, and of a limit that was met."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_ASYNCIO_FOLDER = str(Path(asyncio.__file__).parent)
_MAX_LISTED = 20
_MAX_SUMMARISED = 3


def describe_waits(tasks: Sequence[asyncio.Task[Any]]) -> str:
    """One indented line per task, at most twenty, and how many more there are."""
    lines = [f"  {describe_wait(task)}" for task in tasks[:_MAX_LISTED]]
    if len(tasks) > _MAX_LISTED:
        lines.append(f"  ... and {len(tasks) - _MAX_LISTED} more")
    return "\n".join(lines)


def summarise_waits(tasks: Sequence[asyncio.Task[Any]]) -> str:
    """One line with at most three tasks, and how many more there are."""
    shown = [describe_wait(task) for task in tasks[:_MAX_SUMMARISED]]
    if len(tasks) > _MAX_SUMMARISED:
        shown.append(f"and {len(tasks) - _MAX_SUMMARISED} more")
    return f"{len(tasks)} tasks under way: {'; '.join(shown)}" if shown else "no task was under way"


def describe_wait(task: asyncio.Task[Any]) -> str:
    """``name: coroutine at file:line waits for what``, at the innermost await outside asyncio's own files."""
    where, what = "a coroutine", "a future"
    for name, frame in _await_chain(task.get_coro()):
        if frame.f_code.co_filename.startswith(_ASYNCIO_FOLDER):
            what = name
            break
        where = f"{name} at {frame.f_code.co_filename}:{frame.f_lineno}"
    waiter = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task):
        what = waiter.get_name()
    return f"{task.get_name()}: {where} waits for {what}"


def _await_chain(awaitable: Any) -> Iterator[tuple[str, FrameType]]:
    """Follow the awaits of a suspended coroutine inwards: qualified name and frame of each level."""
    while awaitable is not None:
        for prefix, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                yield awaitable.__qualname__, frame
                awaitable = getattr(awaitable, inner)
                break
        else:
            return
