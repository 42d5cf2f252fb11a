import asyncio
import contextvars
import gc
import math
import time

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim import clock
from fedsim.sim.clock import VirtualLoop

VIRTUAL_AND_ORDINARY = pytest.mark.asyncio(loop_factories=["virtual", "ordinary"])


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def now_s() -> float:
    return asyncio.get_running_loop().time()


# --- time ------------------------------------------------------------------------------------------------


async def test_an_hour_of_virtual_time_takes_no_real_time():
    started = time.perf_counter()
    await asyncio.sleep(3600)
    assert now_s() == 3600
    assert time.perf_counter() - started < 1


async def test_the_clock_of_asyncio_is_the_clock_of_simpy():
    loop = virtual_loop()
    seen = []

    def process(env):
        yield env.timeout(2.5)
        seen.append((env.now, loop.time()))

    loop.env.process(process(loop.env))
    await asyncio.sleep(3)
    assert seen == [(2.5, 2.5)]
    assert loop.env.now == 3


def test_a_run_starts_at_the_time_of_a_given_environment():
    async def main():
        await asyncio.sleep(1.5)
        return now_s()

    env = simpy.Environment(initial_time=100)
    assert clock.run(main(), env=env) == 101.5
    assert env.now == 101.5


async def test_timers_of_one_instant_fire_first_come_first_served_after_simpy_events_and_ready_callbacks():
    loop = virtual_loop()
    log = []
    for name in "abc":
        loop.call_at(5, log.append, f"timer {name}")
    loop.at(5, log.append, "event")
    loop.env.timeout(5).callbacks.append(lambda _: log.append("simpy"))
    loop.at(5, lambda: loop.call_soon(log.append, "soon"))
    loop.at(5, log.append, "event after soon")
    await asyncio.sleep(6)
    assert log == ["event", "simpy", "soon", "event after soon", "timer a", "timer b", "timer c"]


async def test_an_event_scheduled_by_a_timer_for_its_own_instant_comes_before_the_next_timer():
    loop = virtual_loop()
    log = []
    loop.call_at(1, lambda: loop.after(0, log.append, "event"))
    loop.call_at(1, log.append, "second timer")
    await asyncio.sleep(2)
    assert log == ["event", "second timer"]


async def test_a_reply_at_the_deadlines_own_instant_is_in_time():
    loop = virtual_loop()
    reply = loop.create_future()
    async with asyncio.timeout(30):  # its timer is on the queue before the reply is
        loop.at(30, reply.set_result, "reply")
        assert await reply == "reply"
    assert now_s() == 30


async def test_a_reply_after_the_deadline_is_late():
    loop = virtual_loop()
    reply = loop.create_future()
    loop.at(math.nextafter(30, 31), reply.set_result, "reply")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(30):
            await reply
    assert now_s() == 30


async def test_tiny_delays_at_large_times_neither_hang_nor_go_back():
    await asyncio.sleep(1e6)
    before = now_s()
    for _ in range(1000):
        await asyncio.sleep(1e-12)  # less than the spacing of floats there
    assert now_s() == before
    await asyncio.sleep(1e-9)
    assert now_s() >= before
    async with asyncio.timeout(1e-3):
        await asyncio.sleep(1e-4)
    assert now_s() == pytest.approx(1e6 + 1e-4 + 1e-9, abs=1e-9)


async def test_a_timer_fires_at_exactly_the_instant_it_was_given():
    loop = virtual_loop()
    await asyncio.sleep(16384.1)
    when = 16385 + 1e-10
    seen = []
    loop.call_at(when, lambda: seen.append(loop.time()))
    await asyncio.sleep(10)
    assert seen == [when]


async def test_a_timer_of_the_past_fires_now_and_does_not_turn_the_clock_back():
    loop = virtual_loop()
    await asyncio.sleep(10)
    seen = []
    loop.call_at(3, lambda: seen.append(loop.time()))
    loop.call_later(-5, lambda: seen.append(loop.time()))
    await asyncio.sleep(1)
    assert seen == [10, 10]


async def test_an_event_of_the_past_or_at_nan_is_refused():
    loop = virtual_loop()
    await asyncio.sleep(10)
    with pytest.raises(ValueError, match=r"at 9\.5 s: it is 10 s already"):
        loop.at(9.5, print)
    with pytest.raises(ValueError, match="nan"):
        loop.at(math.nan, print)
    with pytest.raises(ValueError, match="NaN"):
        loop.call_at(math.nan, print)


async def test_an_event_at_infinity_never_happens():
    loop = virtual_loop()
    event = loop.at(math.inf, pytest.fail, "happened")
    assert not event.pending
    event.cancel()
    forever = asyncio.create_task(asyncio.sleep(math.inf))
    await asyncio.sleep(1e9)
    assert not forever.done()


async def test_call_soon_is_first_in_first_out_and_a_cancelled_handle_is_skipped():
    loop = virtual_loop()
    log = []
    loop.call_soon(log.append, 1)
    loop.call_soon(log.append, 2).cancel()
    loop.call_soon(log.append, 3)
    await asyncio.sleep(0)
    assert log == [1, 3]


async def test_a_cancelled_event_does_not_happen_and_a_second_cancel_changes_nothing():
    loop = virtual_loop()
    log = []
    event = loop.after(1, log.append, "no")
    kept = loop.after(1, log.append, "yes")
    event.cancel()
    event.cancel()
    assert not event.pending
    assert kept.pending
    await asyncio.sleep(2)
    kept.cancel()
    assert log == ["yes"]
    assert not kept.pending


async def test_a_hundred_thousand_cancelled_timeouts_do_not_grow_the_queue():
    loop = virtual_loop()
    largest = 0
    for _ in range(100_000):
        async with asyncio.timeout(3600):
            pass
        largest = max(largest, len(loop.env._queue))
    assert largest < 200
    assert now_s() == 0


async def test_compaction_keeps_the_order_of_what_is_left():
    loop = virtual_loop()
    log = []
    kept = []
    for index in range(1000):
        event = loop.at(1 + index % 7, log.append, (1 + index % 7, index))
        if index % 5:
            event.cancel()
        else:
            kept.append((1 + index % 7, index))
    assert len(loop.env._queue) < 500
    await asyncio.sleep(10)
    assert log == sorted(kept)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0, 1e-9, 20000.0]), min_size=1, max_size=6),
        min_size=1,
        max_size=8,
    )
)
def test_random_programs_of_sleeps_log_what_a_sorted_list_of_instants_says(programs):
    log = []

    async def sleeper(number, delays):
        for delay in delays:
            await asyncio.sleep(delay)
            log.append((now_s(), number))

    async def main():
        async with asyncio.TaskGroup() as group:
            for number, delays in enumerate(programs):
                group.create_task(sleeper(number, [d for d in delays if d > 0]))

    clock.run(main())
    # Independent reference: a list sorted by (instant, order of request), stepped by hand.
    reference, waiting, requests = [], [], 0
    todo = [[d for d in delays if d > 0] for delays in programs]
    for number, delays in enumerate(todo):
        if delays:
            waiting.append((delays.pop(0), requests, number))
            requests += 1
    while waiting:
        waiting.sort()
        at_s, _, number = waiting.pop(0)
        reference.append((at_s, number))
        if todo[number]:
            waiting.append((at_s + todo[number].pop(0), requests, number))
            requests += 1
    assert log == reference


def test_the_number_of_steps_of_a_program_is_known():
    async def main():
        await asyncio.sleep(1)

    loop = VirtualLoop()
    loop.run_until_complete(main())
    loop.close()
    assert loop.num_steps == 4  # task starts, timer, task wakes, the loop's own done callback


# --- asyncio's own tools ---------------------------------------------------------------------------------


@VIRTUAL_AND_ORDINARY
async def test_the_same_coroutine_runs_on_virtual_and_on_real_time():
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    lock = asyncio.Lock()
    seen = asyncio.Event()
    got = []

    async def produce():
        for index in range(3):
            async with lock:
                await queue.put(index)
            await asyncio.sleep(0.001)
        seen.set()

    async def consume():
        while len(got) < 3:
            got.append(await queue.get())

    started = now_s()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(produce())
        group.create_task(consume())
    await asyncio.wait_for(seen.wait(), 1)
    assert got == [0, 1, 2]
    assert await asyncio.gather(asyncio.sleep(0.002, "a"), asyncio.sleep(0.001, "b")) == ["a", "b"]
    assert 0.0045 < now_s() - started < 5


@VIRTUAL_AND_ORDINARY
async def test_a_failing_sibling_cancels_its_task_group_and_the_group_names_the_cause():
    ended = []

    async def patient():
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("patient")

    async def failing():
        await asyncio.sleep(0.001)
        raise ValueError("bad reply")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(patient())
            group.create_task(failing())
    assert [str(error) for error in caught.value.exceptions] == ["bad reply"]
    assert ended == ["patient"]


async def test_a_quorum_returns_when_the_first_replies_are_in():
    async def client(delay):
        await asyncio.sleep(delay)
        return delay

    waiting = {asyncio.create_task(client(d)) for d in (5.0, 1.0, 3.0, 2.0)}
    replies = []
    while len(replies) < 3:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        replies += [task.result() for task in done]
    assert replies == [1.0, 2.0, 3.0]
    assert now_s() == 3
    [late] = waiting
    late.cancel()


async def test_wait_with_a_timeout_returns_at_the_timeout():
    task = asyncio.create_task(asyncio.sleep(9))
    done, pending = await asyncio.wait([task], timeout=4)
    assert (done, pending, now_s()) == (set(), {task}, 4)
    task.cancel()


async def test_time_does_not_pass_while_anything_is_ready():
    loop = virtual_loop()
    loop.at(0, lambda: None)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert now_s() == 0


async def test_a_context_variable_is_the_callers_in_a_timer_and_in_a_task():
    who = contextvars.ContextVar("who", default="nobody")
    seen = []
    who.set("a")
    virtual_loop().call_later(1, lambda: seen.append(who.get()))
    who.set("b")
    virtual_loop().call_soon(lambda: seen.append(who.get()))
    await asyncio.sleep(2)
    assert seen == ["b", "a"]


# --- SimPy events in coroutines --------------------------------------------------------------------------


async def test_a_coroutine_awaits_a_simpy_event_and_gets_its_value():
    loop = virtual_loop()
    assert await loop.as_future(loop.env.timeout(7, value="seven")) == "seven"
    assert now_s() == 7


async def test_a_processed_simpy_event_is_done_at_once():
    loop = virtual_loop()
    event = loop.env.timeout(1, value="one")
    await asyncio.sleep(2)
    assert await loop.as_future(event) == "one"
    assert now_s() == 2


async def test_a_failed_simpy_event_raises_its_exception_at_the_await_and_the_run_goes_on():
    loop = virtual_loop()
    event = loop.env.event()
    loop.after(1, event.fail, KeyError("lost"))
    with pytest.raises(KeyError, match="lost"):
        await loop.as_future(event)
    await asyncio.sleep(1)
    assert now_s() == 2


async def test_processes_and_tasks_share_a_simpy_store():
    loop = virtual_loop()
    store = simpy.Store(loop.env)

    def producer(env):
        for item in range(3):
            yield env.timeout(2)
            yield store.put(item)

    loop.env.process(producer(loop.env))
    got = [(await loop.as_future(store.get()), now_s()) for _ in range(3)]
    assert got == [(0, 2), (1, 4), (2, 6)]


# --- run -------------------------------------------------------------------------------------------------


def test_run_returns_the_result_cancels_leftovers_and_closes_async_generators():
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append("generator")

    async def leftover():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            closed.append("task")

    kept = []

    async def main():
        kept.append(asyncio.create_task(leftover()))
        kept.append(numbers())
        await anext(kept[1])
        await asyncio.sleep(1)
        return 42

    assert clock.run(main()) == 42
    assert closed == ["task", "generator"]
    assert kept[0].cancelled()


def test_events_of_the_world_stay_on_the_environment_after_the_run():
    log = []

    async def main(loop):
        loop.at(5, log.append, "drained")
        loop.call_at(5, log.append, "timer of a closed loop")
        await asyncio.sleep(1)

    env = simpy.Environment()
    clock.run(main, env=env)
    env.run()
    assert log == ["drained"]
    assert env.now == 5


def test_run_inside_a_running_loop_is_refused():
    async def main():
        inner = asyncio.sleep(1)
        try:
            clock.run(inner)
        finally:
            inner.close()

    with pytest.raises(RuntimeError, match="another event loop is running"):
        clock.run(main())


def test_a_background_task_nobody_holds_is_kept_alive_by_the_loop():
    log = []

    async def background():
        await asyncio.Event().wait()

    async def main():
        asyncio.create_task(background()).add_done_callback(lambda _: log.append(now_s()))
        await asyncio.sleep(1)
        gc.collect()
        await asyncio.sleep(1)

    clock.run(main())
    assert log == [2]
