"""What asyncio puts on the queue of time and in the ready queue: handles, timers, tasks and futures.

They are separate from the loop in ``clock.py`` only by topic: these classes are its hot path, so their
constructors set the base classes' slots themselves instead of calling up.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import Any

from fedsim.sim.timeline import Callback, Callbacks

Loop = Any
"""The loop in ``clock.py``, which imports this module."""


class Ready(asyncio.Handle):
    """A handle without the debugging extras of its base class, which a third of ``call_soon`` goes into."""

    __slots__ = ()

    def __init__(self, callback: Callback, args: Any, loop: Loop, context: Context | None) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class Timer(asyncio.TimerHandle):
    """A timer of asyncio that is also an entry of SimPy's heap: SimPy reads ``callbacks`` and ``_ok``."""

    __slots__ = ("callbacks",)
    _ok = True
    _loop: Loop
    callbacks: Callbacks | None

    def __init__(
        self, when: float, callback: Callback, args: Any, loop: Loop, context: Context | None
    ) -> None:
        self._when = when
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        """Never call the callback; without effect when it has run."""
        if self.callbacks is RUN_TIMER:
            self._loop.timeline.forget(self)
        self._cancelled = True
        self._callback, self._args = _do_nothing, ()


def _do_nothing() -> None:
    pass


def _run_timer(timer: Any) -> None:
    timer._context.run(timer._callback, *timer._args)


RUN_TIMER: Callbacks = (_run_timer,)


class NumberedFuture(asyncio.Future[Any]):
    """A future that hashes by the order in which futures were first hashed."""

    __slots__ = ("_number",)
    _number: int

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            loop: Loop = self.get_loop()
            self._number = next(loop._future_numbers)
            return self._number


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes by its creation number."""

    __slots__ = ("_number",)

    def __init__(self, number: int, coro: Any, loop: Loop, name: str | None, options: Any) -> None:
        self._number = number  # before the base class, which already puts the task into a set
        name = f"Task-{number}" if name is None else name
        super().__init__(coro, loop=loop, name=name, **options)

    def __hash__(self) -> int:
        return self._number
