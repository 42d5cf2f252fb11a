"""An asyncio event loop on SimPy's virtual time: protocols are plain asyncio, nobody writes ``if virtual``.

``VirtualLoop.time()`` is the SimPy clock and its idle step is ``env.step()``. There is one queue of time: a
timer is an entry of SimPy's own heap at its absolute instant, never recomputed as now + delay, so it cannot
drift from the events around it or round to nothing at large times. The order at one instant is fixed:

1. all ready callbacks (``call_soon``), first in, first out, before the clock may move;
2. SimPy events and ``loop.at`` callbacks, by SimPy priority, first come, first served;
3. asyncio timers (``sleep``, ``timeout``), likewise: a reply at the deadline's own instant is in time.

Tasks and futures hash by creation number instead of memory address, so the sets that asyncio keeps and
returns iterate in one order in every process. The loop holds its tasks strongly, so that it does not matter
when the garbage collector runs.

What differs from the ordinary loop on purpose: an exception in a callback stops the run (there it is logged),
and ``forbidden.py`` lists what is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import simpy

from fedsim.config.units import format_seconds
from fedsim.errors import Deadlock, LimitExceeded, OutOfTime
from fedsim.sim.deadlock import describe_waits, summarise_waits
from fedsim.sim.forbidden import forbid, forbid_as_completed, forbid_real_time
from fedsim.sim.handles import RUN_TIMER, NumberedFuture, NumberedTask, Ready, Timer
from fedsim.sim.timeline import TIMER, Callback, Scheduled, Timeline

__all__ = ["MAX_EVENTS", "Scheduled", "VirtualLoop", "run"]

T = TypeVar("T")

MAX_EVENTS = 10**10
"""Default limit on steps: hours of real time, so that no run hangs for ever."""

_MIN_SWEPT_TASKS = 1024
_CLEANUP_STEPS = 10**6
_STEPS_BETWEEN_LOOKS = 1000  # at the real time, where it is limited


@forbid_real_time
class VirtualLoop(asyncio.BaseEventLoop):
    """An asyncio event loop whose time is the clock of a SimPy environment.

    Args:
        env: The environment to run on; a new one that starts at 0 if not given.
        max_virtual_s: Limit on the clock (s); ``LimitExceeded`` comes after the last event of that instant.
        max_events: Limit on steps, where an event of the queue and a ready callback count one each.
        until_wall_s: Limit on real time, as an instant of ``time.monotonic()``, which is looked at every thousand steps or so.

    Attributes:
        env: The SimPy environment; processes, stores and resources on it live in the same time.
        timeline: Its queue of time, which the simulated world talks to directly.
        interrupted: Whether SIGINT has called the run off.
    """

    _ready: deque[Any]
    _stopping: bool
    _closed: bool
    _debug: bool
    _thread_id: int | None
    if TYPE_CHECKING:

        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _check_callback(self, callback: object, method: str) -> None: ...

    def __init__(
        self,
        env: simpy.Environment | None = None,
        *,
        max_virtual_s: float = math.inf,
        max_events: int = MAX_EVENTS,
        until_wall_s: float = math.inf,
    ) -> None:
        super().__init__()
        self.env: Any = simpy.Environment(0.0) if env is None else env
        self.interrupted = False
        self.timeline = Timeline(self.env)
        # Events of the simulated world, as its own code schedules them.
        self.at = self.timeline.at
        self.after = self.timeline.after
        self._max_events = max_events
        self._until_wall_s = until_wall_s
        self._task_numbers = itertools.count(1)
        self._future_numbers = itertools.count(1)
        self._tasks: list[NumberedTask] = []
        self._max_tasks = _MIN_SWEPT_TASKS
        self._main: asyncio.Future[Any] | None = None
        self._owner_thread = threading.get_ident()
        if max_virtual_s < math.inf:
            self.timeline.limit(max_virtual_s, self._on_limit, max_virtual_s)

    # --- time ---

    def time(self) -> float:
        """The virtual time in seconds."""
        return self.timeline.now_s

    @property
    def num_steps(self) -> int:
        """Steps done so far."""
        return self.timeline.num_steps

    def call_soon(  # type: ignore[override]
        self, callback: Callback, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call ``callback`` at this instant, after what is ready already."""
        if self._closed or self._debug:
            return super().call_soon(callback, *args, context=context)
        handle = Ready(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callback, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Like ``call_soon``, from the loop's own thread only.

        Raises:
            RuntimeError: the caller is in another thread, whose progress virtual time knows nothing of.
        """
        if threading.get_ident() != (self._thread_id or self._owner_thread):
            forbid("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callback, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` after ``delay`` virtual seconds, after all events of that instant."""
        return self.call_at(self.timeline.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callback, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at the instant ``when``, after all events of that instant; never if infinite.

        Raises:
            ValueError: ``when`` is NaN.
        """
        if self._closed or self._debug:
            self._check_closed()
            self._check_callback(callback, "call_at")
        timer = Timer(when, callback, args, self, context)
        now = self.timeline.now_s
        if not when > now:  # SimPy would turn the clock back to an entry of the past
            if when != when:
                raise ValueError("the instant of a timer must be a number, not NaN")
            when = now
        if when == math.inf:
            timer.callbacks = None
        else:
            timer.callbacks = RUN_TIMER
            self.timeline.push(when, TIMER, timer)
        return timer

    def as_future(self, event: simpy.Event) -> asyncio.Future[Any]:
        """A future with the outcome of a SimPy event, to await it in a coroutine.

        A failed event raises its exception at the await and does not stop the run; it does when nobody waits
        any more (the future was cancelled).
        """
        future = self.create_future()
        if event.callbacks is None:
            _settle(future, event)
        else:
            event.callbacks.append(lambda happened: _settle(future, happened))
        return future

    def _on_limit(self, max_virtual_s: float) -> NoReturn:
        limit = f"{format_seconds(max_virtual_s)} of virtual time (limits.virtual)"
        raise LimitExceeded(f"the limit of {limit} was met; {summarise_waits(self._unfinished_tasks())}")

    # --- tasks and futures ---

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return NumberedFuture(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Start a task.

        Raises:
            RuntimeError: ``asyncio.as_completed`` was given bare coroutines, whose order nobody can repeat.
        """
        self._check_closed()
        forbid_as_completed(sys._getframe(1))
        if context is not None:
            options["context"] = context
        if self.get_task_factory() is not None:
            return super().create_task(coro, name=name, **options)
        task = NumberedTask(next(self._task_numbers), coro, self, name, options)
        self._tasks.append(task)
        if len(self._tasks) > self._max_tasks:
            self._tasks = self._unfinished_tasks()
            self._max_tasks = _MIN_SWEPT_TASKS + 2 * len(self._tasks)
        return task

    def _unfinished_tasks(self) -> list[NumberedTask]:
        return [task for task in self._tasks if not task.done()]

    # --- running ---

    def run_until_complete(self, future: Awaitable[T]) -> T:  # type: ignore[override]
        """Run until ``future`` is done and return its result; it is the main task, told of a deadlock."""
        self._check_closed()
        self._check_running()
        main: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)
        outer, self._main = self._main, main
        try:
            return super().run_until_complete(main)
        except BaseException:
            if main.done() and not main.cancelled():
                main.exception()  # the caller gets it: asyncio need not log it as never retrieved
            raise
        finally:
            self._main = outer

    def _run_once(self) -> None:
        """Run until ``stop``: one event of the queue after another, and all ready callbacks in between."""
        timeline = self.timeline
        ours: tuple[type, ...] = (Scheduled, Timer) if type(self.env) is simpy.Environment else ()
        failure: BaseException | None = None
        try:
            while not timeline.run(self, self._ready, ours, pause := self._next_pause()):
                if pause < timeline.num_steps <= self._max_events:
                    if time.monotonic() >= self._until_wall_s:
                        raise OutOfTime(f"the real time was over at {format_seconds(timeline.now_s)}")
                    continue
                if timeline.num_steps > self._max_events:
                    limit = f"{self._max_events} steps (limits.events) was met at {format_seconds(timeline.now_s)}"
                    raise LimitExceeded(f"the limit of {limit}; {summarise_waits(self._unfinished_tasks())}")
                timeline.num_steps += 1
                self._raise_deadlock()
        except BaseException as bug:
            timeline.stands_still = True
            failure = _original(bug)
            if failure is bug:
                raise
        if failure is not None:
            raise failure

    def _next_pause(self) -> int:
        """The number of steps after which something is looked at beside them: a limit, or the real time."""
        if self._until_wall_s == math.inf:
            return self._max_events
        return min(self._max_events, self.timeline.num_steps + _STEPS_BETWEEN_LOOKS)

    def _raise_deadlock(self) -> None:
        """Raise ``Deadlock`` at the await that the main task hangs on, else out of the loop."""
        tasks = self._unfinished_tasks()
        timeline = self.timeline
        why = f"{timeline.num_idle - timeline.num_cancelled} daemon events are left"
        if timeline.stands_still:
            why = "the clock stands still after an error"
        error = Deadlock(
            f"at {timeline.now_s:g} s {len(tasks)} tasks wait and nothing can wake them ({why}):\n"
            + describe_waits(tasks)
        )
        awaited = _innermost_future(self._main)
        if awaited is None or isinstance(awaited, asyncio.Task) or awaited.done():
            raise error
        awaited.set_exception(error)

    # --- end ---

    def cancel_leftovers(self) -> None:
        """Cancel unfinished tasks, wait for them and close async generators.

        After an error the clock stands still, and a task that waits for time in its clean-up is abandoned;
        so are tasks that wait for each other in a circle, always: asyncio cannot cancel those. Clean-up has steps of
        its own, or a run that met its limit could not cancel anything.
        """
        after_error = self.timeline.stands_still
        self._max_events = max(self._max_events, self.num_steps + _CLEANUP_STEPS)
        self._until_wall_s = math.inf
        unfinished = self._unfinished_tasks()
        leftovers = [task for task in unfinished if _innermost_future(task) is not None]
        for task in leftovers:
            task.cancel()
        try:
            if leftovers:
                self.run_until_complete(asyncio.wait(leftovers))
            self.run_until_complete(self.shutdown_asyncgens())
        except Deadlock:
            if not self.timeline.stands_still:
                raise
        except LimitExceeded:
            if not after_error:
                raise
        finally:
            for task in self._unfinished_tasks():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        for task in unfinished:
            if task.done() and not task.cancelled() and task.exception() is not None:
                failure = {"message": "a leftover task failed", "exception": task.exception(), "task": task}
                self.call_exception_handler(failure)

    def close(self) -> None:
        """Close the loop and take its timers off SimPy's heap; events of the simulated world stay there."""
        if not self._closed and not self.is_running():
            self.timeline.drop(Timer)
            self._tasks.clear()
        super().close()


def run(
    main: Coroutine[Any, Any, T] | Callable[[VirtualLoop], Coroutine[Any, Any, T]],
    *,
    env: simpy.Environment | None = None,
    max_virtual_s: float = math.inf,
    max_events: int = MAX_EVENTS,
    until_wall_s: float = math.inf,
) -> T:
    """Run a coroutine to its end on virtual time, as ``asyncio.run`` does on real time.

    Leftover tasks are cancelled and async generators closed; after an error the clock stands still meanwhile.
    The first SIGINT cancels the main task between two events, so that it can drain and save, and the run ends
    in ``KeyboardInterrupt`` unless the main task returns; a second SIGINT raises it at once.

    Args:
        main: A coroutine, or a function of the loop that builds a world on ``loop.env`` and returns one.
        env: The SimPy environment; a new one if not given.
        max_virtual_s: Limit on the clock (s).
        max_events: Limit on steps (events of the queue and ready callbacks).
        until_wall_s: Limit on real time, as an instant of ``time.monotonic()``.

    Raises:
        Deadlock: the main task waits and no event can ever wake it.
        LimitExceeded: a limit was met; `OutOfTime` that of real time.
        KeyboardInterrupt: SIGINT.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("clock.run cannot be called while another event loop is running in this thread")
    loop = VirtualLoop(env, max_virtual_s=max_virtual_s, max_events=max_events, until_wall_s=until_wall_s)
    try:
        coroutine = main(loop) if callable(main) else main
        task = loop.create_task(coroutine, name="main")
        try:
            with _interruptible(loop, task):
                return loop.run_until_complete(task)
        except BaseException as error:
            loop.timeline.stands_still = True
            _unmask(error, interrupted=loop.interrupted)
            raise
        finally:
            loop.cancel_leftovers()
    finally:
        loop.close()


def _unmask(error: BaseException, *, interrupted: bool) -> None:
    """Raise ``KeyboardInterrupt`` or a bare ``Deadlock`` where a run's error is one of them in disguise."""
    if interrupted and isinstance(error, asyncio.CancelledError):
        raise KeyboardInterrupt from None
    if isinstance(error, BaseExceptionGroup) and error.split(Deadlock)[1] is None:
        inner: BaseException = error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        raise Deadlock(*inner.args) from error


@contextlib.contextmanager
def _interruptible(loop: VirtualLoop, task: asyncio.Task[Any]) -> Iterator[None]:
    """Turn the first SIGINT (or SIGTERM) into a cancellation of ``task`` between two events; a second quits at once.

    SIGTERM only where somebody has asked for it to raise KeyboardInterrupt, as the command line does.
    """

    def on_signal(_signum: int, _frame: FrameType | None) -> None:
        if loop.interrupted:
            raise KeyboardInterrupt
        loop.interrupted = True
        loop.call_soon(task.cancel)

    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if in_main_thread and signal.getsignal(number) is signal.default_int_handler
    ]
    for number in ours:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.default_int_handler)


def _innermost_future(future: asyncio.Future[Any] | None) -> asyncio.Future[Any] | None:
    """What a task waits for in the end, through the tasks it awaits; None if they go in a circle."""
    seen = set()
    while isinstance(future, asyncio.Task) and future._fut_waiter is not None:  # type: ignore[attr-defined]
        if future in seen:
            return None
        seen.add(future)
        future = future._fut_waiter  # type: ignore[attr-defined]
    return future


def _settle(future: asyncio.Future[Any], event: Any) -> None:
    if future.done():
        return
    if event._ok:
        future.set_result(event._value)
    else:
        event._defused = True
        future.set_exception(event._value)


def _original(bug: BaseException) -> BaseException:
    """The exception that a SimPy event failed with, where SimPy raises a copy without its traceback."""
    cause = bug.__cause__
    return cause if cause is not None and type(cause) is type(bug) and cause.args == bug.args else bug
