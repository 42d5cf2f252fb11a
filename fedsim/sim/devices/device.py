"""One device at run time: what is under way on it, who holds its processor, and the one event that sees it leave.

An idle device has no process and no event; it asks its availability only while something is under way.

When a device leaves, what is under way is cut (``on_cut: abort``), or put to sleep until it is back (``suspend``): its
transfers stand still, the computation keeps what is done, the queue keeps its order, and what was in the air waits at the
door. A device that will never come back, or has crashed, is cut in both cases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from fedsim.sim.devices.presence import Availability
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.timeline import Timeline


class Task(Protocol):
    """Anything under way on a device."""

    def device_left(self, cause: str) -> None:
        """The device goes away this instant, and what is under way ends."""

    def suspend(self) -> None:
        """The device goes away this instant, and will go on where it stopped."""

    def resume(self) -> None:
        """The device is back."""

    def start_compute(self) -> None:
        """The processor is yours."""


class Pausable(Protocol):
    """One direction of the access links (`fedsim.sim.network.rates.AccessLinks`)."""

    def pause(self, client_id: int) -> None:
        """The client's transfers stand still."""

    def resume(self, client_id: int) -> None:
        """They go on."""


class Crashes(Protocol):
    """When devices lie dead (`fedsim.sim.faults.plan.Faults`)."""

    def cause(self, client_id: int, at_s: float) -> str | None:
        """Why a fault keeps the client away at this instant, or None."""

    def next_crash(self, client_id: int, at_s: float) -> float:
        """The first instant, ``at_s`` or later, at which the client lies dead; infinity if never."""


class Device:
    """Run-time state of one device: tasks under way, and a processor that serves first come first served.

    Attributes:
        state: what the client knows (its model, its answers); handlers get nothing else.
        ready: whether it has what it needs to work, such as a base model that has to be sent to it first.
        is_suspended: whether it is away with its work asleep.

    Args:
        client_id: its number.
        profile: its hardware.
        state: what the client knows.
        timeline: the clock.
        availability: when it is there.
        links: the ways that stand still while it is away (``on_cut: suspend``); None: what is under way is cut.
        crashes: the faults that keep devices away and lose their work.
    """

    __slots__ = (
        "_active",
        "_at_door",
        "_availability",
        "_crashes",
        "_holder",
        "_links",
        "_queue",
        "_timeline",
        "_watched",
        "client_id",
        "is_suspended",
        "profile",
        "ready",
        "state",
    )

    def __init__(
        self,
        client_id: int,
        profile: DeviceProfile,
        state: Any,
        timeline: Timeline,
        availability: Availability,
        links: Sequence[Pausable] | None = None,
        crashes: Crashes | None = None,
    ) -> None:
        self.client_id = client_id
        self.profile = profile
        self.state = state
        self.ready = True
        self._timeline = timeline
        self._availability = availability
        self._links = links
        self._crashes = crashes
        self._active: dict[Hashable, Task] = {}
        # Made when something has to wait: most devices never have a queue.
        self._at_door: list[Callable[[], None]] | None = None
        self._queue: deque[Task] | None = None
        self._holder: Task | None = None
        self._watched = False
        self.is_suspended = False

    @property
    def is_connected(self) -> bool:
        """Whether the device is there at this virtual instant, ready or not."""
        return self._availability.is_on(self.client_id, self._timeline.now_s)

    @property
    def is_online(self) -> bool:
        """Whether the device is there at this virtual instant and can be asked for work."""
        return self.ready and self._availability.is_on(self.client_id, self._timeline.now_s)

    @property
    def why_away(self) -> str | None:
        """The fault that keeps the device away at this instant; None where there is none."""
        return (
            self._crashes.cause(self.client_id, self._timeline.now_s) if self._crashes is not None else None
        )

    def enter(self, key: Hashable, task: Task) -> None:
        """A task begins; from now on the device's leaving cuts it."""
        self._active[key] = task
        self._watch()

    def leave(self, key: Hashable) -> bool:
        """A task has ended, or its reply is in the air: the device no longer matters to it. Was it under way?"""
        return self._active.pop(key, None) is not None

    def enqueue(self, task: Task) -> None:
        """Wait for the processor; ``start_compute`` is called when it is free, perhaps at once."""
        if self._holder is None and not self._queue and not self.is_suspended:
            self._holder = task
            task.start_compute()
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(task)
        self._start_next()

    def release(self, task: Task) -> None:
        """Give the processor, or the place in its queue, back."""
        if self._holder is task:
            self._holder = None
            self._start_next()
        elif self._queue and task in self._queue:
            self._queue.remove(task)

    def wait_at_door(self, callback: Callable[[], None]) -> None:
        """Call this when the device is back: a message from the air reached a device that is away."""
        if self._at_door is None:
            self._at_door = []
        self._at_door.append(callback)

    def cut_all(self, cause: str) -> None:
        """End everything under way, in the order of entry."""
        self._queue = self._at_door = None
        self._holder = None
        leaving, self._active = list(self._active.values()), {}
        for task in leaving:
            task.device_left(cause)

    def _start_next(self) -> None:
        if self._holder is None and self._queue and not self.is_suspended:
            self._holder = self._queue.popleft()
            self._holder.start_compute()

    def _watch(self) -> None:
        if self._watched:
            return
        leaves_at_s = self._availability.next_change(self.client_id, self._timeline.now_s)
        if leaves_at_s < float("inf"):
            self._watched = True
            self._timeline.at(leaves_at_s, self._left, daemon=not self._ends_work(leaves_at_s))

    def _ends_work(self, leaves_at_s: float) -> bool:
        """Whether this absence, or a crash some time, ends what is under way: then a run may wait for it.

        Coming and going alone ends nothing that sleeps meanwhile, or work that hangs for good would never be found out.
        """
        if self._links is None or self._availability.next_change(self.client_id, leaves_at_s) == float("inf"):
            return True
        crashes = self._crashes
        return crashes is not None and crashes.next_crash(self.client_id, self._timeline.now_s) < float("inf")

    def _left(self) -> None:
        self._watched = False
        if self.is_connected:  # sessions that touch
            if self._active:
                self._watch()
        elif self._active and not self._sleep_on():
            self.cut_all(self.why_away or "device left")

    def _sleep_on(self) -> bool:
        """Put the work to sleep, or let it sleep on, until the next change; false where that is not to be."""
        if self._links is None or self.why_away is not None:
            return False
        now_s = self._timeline.now_s
        back_at_s = self._availability.next_change(self.client_id, now_s)
        if self._crashes is not None:  # a crash while it is away loses the work too
            back_at_s = min(back_at_s, self._crashes.next_crash(self.client_id, now_s))
        if back_at_s == float("inf"):
            return False
        if not self.is_suspended:
            self.is_suspended = True
            for link in self._links:
                link.pause(self.client_id)
            for task in list(self._active.values()):
                task.suspend()
        self._timeline.at(back_at_s, self._back)
        return True

    def _back(self) -> None:
        if not self.is_connected:  # one reason to be away ended, another goes on
            if not self._sleep_on():
                self._wake()
                self.cut_all(self.why_away or "device left")
            return
        self._wake()
        for task in list(self._active.values()):
            task.resume()
        at_door, self._at_door = self._at_door, None
        for callback in at_door or ():
            callback()
        self._start_next()
        if self._active:
            self._watch()

    def _wake(self) -> None:
        self.is_suspended = False
        assert self._links is not None
        for link in self._links:
            link.resume(self.client_id)
