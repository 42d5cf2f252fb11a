"""A device alone: its processor, its queue, and the one event that sees it leave."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices.device import Device
from fedsim.sim.devices.presence import AlwaysOn, Availability
from tests.samples.worlds import ROUND, Timetable


class Note:
    """A task that notes what happens to it."""

    def __init__(self, name: str, story: list[str], then: Callable[[], None] | None = None) -> None:
        self.name = name
        self.story = story
        self.then = then

    def start_compute(self) -> None:
        self.story.append(f"{self.name} computes")

    def suspend(self) -> None:
        self.story.append(f"{self.name} sleeps")

    def resume(self) -> None:
        self.story.append(f"{self.name} wakes")

    def device_left(self, cause: str) -> None:
        self.story.append(f"{self.name} is cut")
        if self.then is not None:
            self.then()


def make_device(availability: Availability | None = None) -> tuple[Device, VirtualLoop]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return Device(0, ROUND, None, loop.timeline, availability or AlwaysOn()), loop


async def test_the_processor_serves_one_task_at_a_time_in_the_order_of_arrival() -> None:
    device, _ = make_device()
    story: list[str] = []
    a, b, c = (Note(name, story) for name in "abc")
    for task in (a, b, c):
        device.enqueue(task)
    assert story == ["a computes"]
    device.release(a)
    assert story == ["a computes", "b computes"]
    device.release(b)
    device.release(c)
    assert story == ["a computes", "b computes", "c computes"]
    device.enqueue(a)
    assert story[-1] == "a computes"


async def test_a_task_that_gives_up_its_place_in_the_queue_is_never_started() -> None:
    device, _ = make_device()
    story: list[str] = []
    a, b, c = (Note(name, story) for name in "abc")
    for task in (a, b, c):
        device.enqueue(task)
    device.release(b)
    assert story == ["a computes"]
    device.release(a)
    assert story == ["a computes", "c computes"]


async def test_releasing_what_was_never_held_changes_nothing() -> None:
    device, _ = make_device()
    story: list[str] = []
    a, b = Note("a", story), Note("b", story)
    device.enqueue(a)
    device.release(b)
    device.enqueue(b)
    assert story == ["a computes"]


async def test_a_leaving_device_cuts_every_task_in_the_order_of_entry_and_starts_none() -> None:
    device, _ = make_device(Timetable({0: [(0.0, 5.0)]}))
    story: list[str] = []
    tasks = [Note(name, story) for name in "abc"]
    tasks[0].then = lambda: device.release(tasks[0])  # what a request does when it ends
    for key, task in enumerate(tasks):
        device.enter(key, task)
        device.enqueue(task)
    await asyncio.sleep(5.0)
    assert story == ["a computes", "a is cut", "b is cut", "c is cut"]
    assert not device.is_online


async def test_a_task_that_has_ended_is_not_cut() -> None:
    device, _ = make_device(Timetable({0: [(0.0, 5.0)]}))
    story: list[str] = []
    device.enter(1, Note("a", story))
    assert device.leave(1) and not device.leave(1)
    await asyncio.sleep(6.0)
    assert story == []


async def test_sessions_that_touch_cut_nothing_and_the_watch_goes_on() -> None:
    device, _ = make_device(Timetable({0: [(0.0, 5.0), (5.0, 8.0)]}))
    story: list[str] = []
    device.enter(1, Note("a", story))
    await asyncio.sleep(7.0)
    assert story == [] and device.is_online
    await asyncio.sleep(1.0)
    assert story == ["a is cut"]


async def test_a_device_that_came_back_is_watched_again() -> None:
    device, _ = make_device(Timetable({0: [(0.0, 2.0), (3.0, 4.0)]}))
    story: list[str] = []
    device.enter(1, Note("a", story))
    await asyncio.sleep(3.5)
    device.enter(2, Note("b", story))
    await asyncio.sleep(0.5)
    assert story == ["a is cut", "b is cut"]


async def test_an_idle_device_has_no_event_and_a_busy_one_has_one() -> None:
    device, loop = make_device(Timetable({0: [(0.0, 5.0)]}))
    assert loop.env.peek() == math.inf
    device.enter(1, Note("a", []))
    device.enter(2, Note("b", []))
    assert loop.env.peek() == 5.0
    assert len(loop.env._queue) == 1


async def test_a_device_that_never_leaves_needs_no_event() -> None:
    device, loop = make_device()
    device.enter(1, Note("a", []))
    assert loop.env.peek() == math.inf
