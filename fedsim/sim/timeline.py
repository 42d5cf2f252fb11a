"""The queue of time of a run: SimPy's own heap, what stands on it, and the loop that takes it off.

``fedsim.sim.clock.VirtualLoop`` is the asyncio side of it; the simulated world (links, devices, requests) talks to the timeline
directly. Both share one heap with every SimPy process on the same environment.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar

Callback = Callable[..., object]
Callbacks = tuple[Callable[[Any], object], ...]

EVENT = 1
TIMER = 2
LIMIT = 3
"""Priorities at one instant; SimPy's own are 0 (urgent) and 1 (normal)."""

_MIN_COMPACTED = 64


class Scheduled:
    """A callback on the queue of time, made by ``Timeline.at``; ``cancel`` takes it off again.

    It is an entry of SimPy's heap as well: SimPy reads ``callbacks`` and ``_ok``.
    """

    __slots__ = ("_args", "_callback", "_timeline", "callbacks", "when_s")
    _ok: ClassVar[bool] = True

    def __init__(
        self,
        when_s: float,
        callback: Callback,
        args: tuple[Any, ...],
        timeline: Timeline,
        callbacks: Callbacks | None,
    ) -> None:
        self.when_s = when_s
        self._callback = callback
        self._args = args
        self._timeline = timeline
        self.callbacks = callbacks

    @property
    def pending(self) -> bool:
        """Whether the callback is still on the queue."""
        return self.callbacks is not None and self.callbacks is not self._timeline.forgotten

    def cancel(self) -> None:
        """Never call the callback; without effect when it has run or was cancelled before."""
        if self.pending:
            self._timeline.forget(self)
            self._args = ()

    def run(self) -> None:
        """Call it."""
        if self._args:
            self._callback(*self._args)
        else:
            self._callback()


RUN_EVENT: Callbacks = (Scheduled.run,)


class Timeline:
    """Instants and what happens at them.

    Args:
        env: the SimPy environment whose clock and heap it is.

    Attributes:
        now_s: the virtual time, seconds.
        heap: SimPy's heap of (instant, priority, number, entry).
        num_cancelled: cancelled entries that are still on the heap.
        num_idle: entries on the heap that wake nobody: the cancelled ones and the daemons.
        num_steps: events and ready callbacks so far.
        stands_still: whether no event happens any more, as after an error.
        forgotten: the ``callbacks`` of a cancelled entry.
        run_daemon: the ``callbacks`` of an event that nobody waits for.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self.now_s: float = float(env._now)
        self.heap: list[tuple[float, int, int, Any]] = env._queue
        self._next_id: Iterator[int] = env._eid
        self.num_cancelled = 0
        self.num_idle = 0
        self.num_steps = 0
        self.stands_still = False
        self.forgotten: Callbacks = (self._on_forgotten,)
        self.run_daemon: Callbacks = (self._on_daemon,)

    def time(self) -> float:
        """The virtual time in seconds."""
        return self.now_s

    def at(self, when_s: float, callback: Callback, *args: Any, daemon: bool = False) -> Scheduled:
        """Schedule ``callback(*args)`` as an event of the simulated world at an absolute instant.

        This is the fast path (no context, future or SimPy object). Events run before the timers of their
        instant. An exception in ``callback`` is a bug: it stops the run with its own traceback.

        Args:
            when_s: Virtual time (s), not before now; infinity means never.
            callback: What to call.
            *args: Its arguments.
            daemon: Nobody waits for this event: when only daemon events are left, that is a deadlock.

        Raises:
            ValueError: ``when_s`` lies in the past or is NaN.
        """
        if not self.now_s <= when_s < math.inf:
            if when_s == math.inf:
                return Scheduled(when_s, callback, args, self, None)
            raise ValueError(f"an event cannot be scheduled at {when_s} s: it is {self.now_s:g} s already")
        event = Scheduled(when_s, callback, args, self, RUN_EVENT)
        if daemon:
            event.callbacks = self.run_daemon
            self.num_idle += 1
        heappush(self.heap, (when_s, EVENT, next(self._next_id), event))
        return event

    def after(self, delay_s: float, callback: Callback, *args: Any, daemon: bool = False) -> Scheduled:
        """Schedule ``callback(*args)`` like ``at``, ``delay_s`` seconds from now (zero or more)."""
        return self.at(self.now_s + delay_s, callback, *args, daemon=daemon)

    def push(self, when_s: float, priority: int, entry: Any) -> None:
        """Put an entry of another kind on the heap: one with ``callbacks``, as SimPy's events have."""
        heappush(self.heap, (when_s, priority, next(self._next_id), entry))

    def limit(self, when_s: float, callback: Callback, *args: Any) -> None:
        """Schedule what comes after all else at an instant, and what nobody waits for."""
        self.push(when_s, LIMIT, Scheduled(when_s, callback, args, self, self.run_daemon))
        self.num_idle += 1

    def forget(self, entry: Any) -> None:
        """An entry was cancelled: it stays on the heap, until too many of its kind do."""
        if entry.callbacks is not self.run_daemon:
            self.num_idle += 1
        entry.callbacks = self.forgotten
        self.num_cancelled += 1
        if self.num_cancelled > _MIN_COMPACTED and 2 * self.num_cancelled > len(self.heap):
            forgotten = self.forgotten
            self.heap[:] = [item for item in self.heap if item[3].callbacks is not forgotten]
            heapify(self.heap)
            self.num_idle -= self.num_cancelled
            self.num_cancelled = 0

    def drop(self, kind: type) -> None:
        """Take all entries of a kind off the heap."""
        self.heap[:] = [item for item in self.heap if not isinstance(item[3], kind)]
        heapify(self.heap)

    def run(self, loop: Any, ready: deque[Any], ours: tuple[type, ...], max_steps: int) -> bool:
        """Take one event after another off the heap, and run all ready callbacks in between.

        Args:
            loop: the asyncio loop; returns when its ``_stopping`` is set.
            ready: its ready queue.
            ours: types of entries that cannot fail and have one callback; any other is a step of SimPy's.
            max_steps: limit on ``num_steps``.

        Returns:
            whether it was stopped: false when the limit was met or nothing on the heap wakes anybody.
        """
        env, heap, popleft = self._env, self.heap, ready.popleft
        self.now_s = env._now
        while True:
            num_ready = len(ready)
            if num_ready:
                for _ in range(num_ready):
                    handle = popleft()
                    if not handle._cancelled:
                        handle._context.run(handle._callback, *handle._args)
                self.num_steps += num_ready
            if loop._stopping:
                return True
            if self.num_steps > max_steps:
                return False
            if ready:
                continue
            if len(heap) <= self.num_idle or self.stands_still:
                return False
            self.num_steps += 1
            entry = heap[0][3]
            if type(entry) not in ours:
                self.now_s = heap[0][0]
                env.step()
                continue
            env._now = self.now_s = heappop(heap)[0]  # ``step``, for one of ours
            callbacks, entry.callbacks = entry.callbacks, None
            callbacks[0](entry)

    def _on_forgotten(self, _entry: object) -> None:
        self.num_cancelled -= 1
        self.num_idle -= 1

    def _on_daemon(self, event: Scheduled) -> None:
        self.num_idle -= 1
        event.run()
