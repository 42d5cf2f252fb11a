"""One device at run time: what is under way on it, who holds its processor, and the one event that sees it leave.

An idle device has no process and no event; it asks its availability only while something is under way.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from fedsim.clock import VirtualLoop
from fedsim.devices.availability import Availability
from fedsim.devices.profile import DeviceProfile


class Task(Protocol):
    """Anything under way on a device."""

    def device_left(self) -> None:
        """The device goes away this instant."""

    def start_compute(self) -> None:
        """The processor is yours."""


class Device:
    """Run-time state of one device: tasks under way, and a processor that serves first come first served.

    Attributes:
        state: what the client knows (its model, its answers); handlers get nothing else.
        ready: whether it has what it needs to work, such as a base model that has to be sent to it first.
    """

    __slots__ = (
        "_active",
        "_availability",
        "_holder",
        "_loop",
        "_queue",
        "_watched",
        "client_id",
        "profile",
        "ready",
        "state",
    )

    def __init__(
        self,
        client_id: int,
        profile: DeviceProfile,
        state: Any,
        loop: VirtualLoop,
        availability: Availability,
    ) -> None:
        self.client_id = client_id
        self.profile = profile
        self.state = state
        self.ready = True
        self._loop = loop
        self._availability = availability
        self._active: dict[int, Task] = {}
        self._queue: deque[Task] = deque()
        self._holder: Task | None = None
        self._watched = False

    @property
    def is_connected(self) -> bool:
        """Whether the device is there at this virtual instant, ready or not."""
        return self._availability.is_on(self.client_id, self._loop.time())

    @property
    def is_online(self) -> bool:
        """Whether the device is there at this virtual instant and can be asked for work."""
        return self.ready and self.is_connected

    @property
    def num_active(self) -> int:
        """How many tasks are under way on the device."""
        return len(self._active)

    def enter(self, key: int, task: Task) -> None:
        """A task begins; from now on the device's leaving cuts it."""
        self._active[key] = task
        self._watch()

    def leave(self, key: int) -> bool:
        """A task has ended, or its reply is in the air: the device no longer matters to it. Was it under way?"""
        return self._active.pop(key, None) is not None

    def enqueue(self, task: Task) -> None:
        """Wait for the processor; ``start_compute`` is called when it is free, perhaps at once."""
        self._queue.append(task)
        self._start_next()

    def release(self, task: Task) -> None:
        """Give the processor, or the place in its queue, back."""
        if self._holder is task:
            self._holder = None
            self._start_next()
        elif task in self._queue:
            self._queue.remove(task)

    def _start_next(self) -> None:
        if self._holder is None and self._queue:
            self._holder = self._queue.popleft()
            self._holder.start_compute()

    def _watch(self) -> None:
        if self._watched:
            return
        leaves_at_s = self._availability.next_change(self.client_id, self._loop.time())
        if leaves_at_s < float("inf"):
            self._watched = True
            self._loop.at(leaves_at_s, self._left, daemon=True)

    def _left(self) -> None:
        self._watched = False
        if self.is_connected:  # sessions that touch
            if self._active:
                self._watch()
            return
        self._queue.clear()
        self._holder = None
        leaving, self._active = list(self._active.values()), {}
        for task in leaving:
            task.device_left()
