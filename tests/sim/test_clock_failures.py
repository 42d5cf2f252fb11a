import asyncio
import contextlib
import math
import threading
from pathlib import Path

import pytest
import simpy

from fedsim.errors import Deadlock, LimitExceeded
from fedsim.sim import clock
from fedsim.sim.clock import VirtualLoop


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


# --- a bug stops the run ---------------------------------------------------------------------------------


def fail_on_purpose():
    raise ZeroDivisionError("a bug in a callback")


@pytest.mark.parametrize("how", ["at", "call_later", "call_soon", "process", "daemon"])
def test_an_exception_in_a_callback_stops_the_run_with_its_own_traceback(how):
    cleaned = []

    def process(env):
        yield env.timeout(1)
        fail_on_purpose()

    async def main(loop):
        if how == "at":
            loop.after(1, fail_on_purpose)
        elif how == "daemon":
            loop.after(1, fail_on_purpose, daemon=True)
        elif how == "call_later":
            loop.call_later(1, fail_on_purpose)
        elif how == "call_soon":
            await asyncio.sleep(1)
            loop.call_soon(fail_on_purpose)
        else:
            loop.env.process(process(loop.env))
        try:
            await asyncio.sleep(100)
        finally:
            cleaned.append(loop.time())
            await asyncio.sleep(50)
            cleaned.append("the clock moved")

    env = simpy.Environment()
    with pytest.raises(ZeroDivisionError, match="a bug in a callback") as caught:
        clock.run(main, env=env)
    assert caught.traceback[-1].name == "fail_on_purpose"
    assert cleaned == [1]
    assert env.now == 1


def test_a_simpy_process_that_fails_shows_the_traceback_of_the_process():
    async def main(loop):
        def process(env):
            yield env.timeout(1)
            raise Deadlock("positional")

        loop.env.process(process(loop.env))
        await asyncio.sleep(2)

    with pytest.raises(Deadlock, match="positional") as caught:
        clock.run(main)
    assert caught.traceback[-1].name == "process"


def test_a_failing_main_task_stops_the_clock_and_cancels_the_others():
    ended = []

    async def other(loop):
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(loop.time())

    async def main(loop):
        loop.at(3, ended.append, "an event after the end")
        task = asyncio.create_task(other(loop))
        await asyncio.sleep(2)
        assert not task.done()
        raise LookupError("protocol bug")

    with pytest.raises(LookupError, match="protocol bug"):
        clock.run(main)
    assert ended == [2]


# --- deadlock, daemons, limits ---------------------------------------------------------------------------


async def hang(queue):
    return await queue.get()  # HANG


def hang_line() -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith("# HANG"))


def test_a_deadlock_is_raised_at_the_main_tasks_await_and_says_who_waits_for_what_where():
    where = []

    async def main():
        queue = asyncio.Queue()
        await asyncio.sleep(12.5)
        client = asyncio.create_task(hang(queue), name="client 3")
        try:
            await asyncio.Event().wait()
        except Deadlock:
            where.append("main")
            raise
        finally:
            assert not client.done()

    with pytest.raises(Deadlock) as caught:
        clock.run(main())
    text = str(caught.value)
    assert where == ["main"]
    assert "at 12.5 s 2 tasks wait" in text
    assert f"client 3: hang at {__file__}:{hang_line()} waits for Queue.get" in text
    assert "main: test_a_deadlock" in text
    assert "waits for Event.wait" in text


def test_a_deadlock_names_the_task_that_another_one_waits_for():
    async def main():
        await asyncio.create_task(hang(asyncio.Queue()), name="inner")

    with pytest.raises(Deadlock, match=r"main: .* waits for inner\n  inner: hang at .* waits for Queue\.get"):
        clock.run(main())


@pytest.mark.parametrize("main_is_in_the_circle", [True, False])
def test_tasks_that_wait_for_each_other_in_a_circle_are_a_deadlock(main_is_in_the_circle):
    async def main():
        tasks = {}

        async def wait_for(name):
            await asyncio.sleep(1)
            await tasks[name]

        tasks["a"] = asyncio.create_task(wait_for("b"), name="a")
        tasks["b"] = asyncio.create_task(wait_for("a"), name="b")
        await (tasks["a"] if main_is_in_the_circle else asyncio.wait([tasks["a"]]))

    with pytest.raises(Deadlock, match=r"(?s) a: .* waits for b\n.* b: .* waits for a"):
        clock.run(main())


@pytest.mark.parametrize("how", ["gather", "wait", "group", "timeout at infinity", "shield", "future"])
def test_a_deadlock_under_any_tool_of_asyncio_ends_the_run_as_a_deadlock(how):
    async def main(loop):
        queue = asyncio.Queue()
        if how == "gather":
            await asyncio.gather(hang(queue), hang(queue))
        elif how == "wait":
            await asyncio.wait([asyncio.create_task(hang(queue))])
        elif how == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(hang(queue))
                await queue.get()
        elif how == "shield":
            await asyncio.shield(hang(queue))
        elif how == "future":
            await loop.create_future()
        else:
            async with asyncio.timeout(math.inf):
                await queue.get()

    with pytest.raises(Deadlock, match="nothing can wake them"):
        clock.run(main)


def test_only_daemon_events_left_is_a_deadlock_and_does_not_let_them_run_for_ever():
    ticks = []

    async def main(loop):
        def tick():
            ticks.append(loop.time())
            loop.after(1, tick, daemon=True)

        loop.after(1, tick, daemon=True)
        await asyncio.sleep(3.5)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 3\.5 s 1 tasks wait .*1 daemon events are left"):
        clock.run(main)
    assert ticks == [1, 2, 3]


def test_a_daemon_may_still_wake_a_task_before_other_events_run_out():
    async def main(loop):
        woken = asyncio.Event()
        loop.at(5, woken.set, daemon=True)
        loop.at(6, lambda: None)
        await woken.wait()
        return loop.time()

    assert clock.run(main) == 5


def test_cancelled_entries_and_daemons_are_counted_right_in_any_order():
    async def main(loop):
        daemons = [loop.at(t, lambda: None, daemon=True) for t in (1, 2, 3)]
        events = [loop.at(t, lambda: None) for t in (1, 2, 3)]
        daemons[0].cancel()
        events[2].cancel()
        events[2].cancel()
        await asyncio.sleep(2)
        daemons[2].cancel()
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 2 s .*0 daemon events"):
        clock.run(main)


def test_a_deadlock_is_seen_after_the_queue_was_compacted_several_times():
    async def main(loop):
        for round_index in range(4):
            live = loop.after(1, lambda: None)
            for event in [loop.after(2, lambda: None, daemon=index % 2 == 0) for index in range(200)]:
                event.cancel()
            await asyncio.sleep(1)
            assert not live.pending
            assert loop.time() == round_index + 1
        loop.after(1, lambda: None, daemon=True)
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 4 s 1 tasks wait .*1 daemon events"):
        clock.run(main)


def test_a_main_task_that_handles_its_deadlock_goes_on():
    async def main():
        try:
            await asyncio.Event().wait()
        except Deadlock:
            await asyncio.sleep(2)
            return asyncio.get_running_loop().time()

    assert clock.run(main()) == 2


def test_a_leftover_task_that_will_not_end_is_a_deadlock_too():
    async def stubborn():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def main():
        task = asyncio.create_task(stubborn(), name="stubborn")
        await asyncio.sleep(1)
        return task

    with pytest.raises(Deadlock, match=r"stubborn: .*waits for Event\.wait"):
        clock.run(main())


def test_a_deadlock_of_many_tasks_lists_the_first_and_counts_the_rest():
    async def main():
        queue = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(hang(queue))

    with pytest.raises(Deadlock) as caught:
        clock.run(main())
    assert str(caught.value).count("\n") == 21
    assert str(caught.value).endswith("... and 81 more")


def test_a_run_past_its_virtual_time_ends_at_that_instant():
    seen = []

    async def main(loop):
        loop.at(10, seen.append, "at the limit")
        await asyncio.sleep(10)
        seen.append("timer at the limit")
        await asyncio.sleep(0.001)
        seen.append("after the limit")

    env = simpy.Environment()
    with pytest.raises(
        LimitExceeded, match=r"^the limit of 10\.0 s of virtual time \(limits\.virtual\) was met; 1 tasks"
    ):
        clock.run(main, env=env, max_virtual_s=10)
    assert seen == ["at the limit", "timer at the limit"]
    assert env.now == 10


def test_a_limit_that_is_met_says_in_one_line_who_was_under_way():
    async def sleeper():
        await asyncio.sleep(1e9)

    async def main(loop):
        await asyncio.gather(*(loop.create_task(sleeper(), name=f"sleeper {number}") for number in range(6)))

    with pytest.raises(LimitExceeded) as caught:
        clock.run(main, max_virtual_s=30 * 86_400)
    text = str(caught.value)
    assert text.startswith(
        "the limit of 30 days of virtual time (limits.virtual) was met; 7 tasks under way: main: "
    )
    assert "; sleeper 0: " in text and "waits for sleep" in text and text.endswith("; and 4 more")
    assert "\n" not in text


def test_a_limit_on_virtual_time_alone_keeps_no_deadlock_from_showing():
    with pytest.raises(Deadlock, match="at 0 s"):
        clock.run(asyncio.Event().wait(), max_virtual_s=10)


@pytest.mark.parametrize("delay_s", [0, 1e-3])
def test_an_endless_loop_meets_the_limit_on_events(delay_s):
    async def main():
        while True:
            await asyncio.sleep(delay_s)

    with pytest.raises(
        LimitExceeded, match=r"limit of 1000 steps \(limits\.events\) was met at .*main: .*main at "
    ):
        clock.run(main(), max_events=1000)


# --- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: asyncio.to_thread(print),
        lambda loop: asyncio.open_connection("localhost", 80),
        lambda loop: asyncio.start_server(print, "localhost", 0),
        lambda loop: asyncio.create_subprocess_exec("true"),
        lambda loop: loop.getaddrinfo("localhost", 80),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.add_signal_handler(2, print),
    ],
)
async def test_what_happens_in_real_time_is_refused_by_name(operation):
    with pytest.raises(RuntimeError, match=r"loop\.\w+ is refused on the virtual-time loop"):
        await operation(virtual_loop())


async def test_call_soon_threadsafe_is_refused_from_another_thread_and_allowed_from_its_own():
    loop = virtual_loop()
    errors, log = [], []

    def other_thread():
        try:
            loop.call_soon_threadsafe(log.append, "other")
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    loop.call_soon_threadsafe(log.append, "own")
    await asyncio.sleep(0)
    assert log == ["own"]
    assert len(errors) == 1
    assert "another thread is refused" in errors[0]


async def test_as_completed_takes_tasks_in_order_of_completion_and_refuses_bare_coroutines():
    tasks = [asyncio.create_task(asyncio.sleep(d, d)) for d in (3, 1, 2)]
    assert [await reply for reply in asyncio.as_completed(tasks)] == [1, 2, 3]
    coroutines = [asyncio.sleep(1), asyncio.sleep(2)]
    with pytest.raises(RuntimeError, match="memory addresses"):
        for reply in asyncio.as_completed(coroutines):
            await reply
    for coroutine in coroutines:
        coroutine.close()


def test_debug_mode_works_and_refuses_a_coroutine_as_a_callback():
    async def main(loop):
        loop.set_debug(True)
        await asyncio.sleep(1)
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            loop.call_later(1, asyncio.sleep)
        with pytest.raises(TypeError, match="callable"):
            loop.call_soon(3)
        return loop.time()

    assert clock.run(main) == 1


def test_a_closed_loop_takes_no_callback():
    loop = VirtualLoop()
    loop.close()
    for call in (loop.call_soon, lambda callback: loop.call_later(1, callback)):
        with pytest.raises(RuntimeError, match="closed"):
            call(print)


def test_tasks_that_clean_up_for_ever_after_a_limit_are_given_up_in_the_end(monkeypatch):
    monkeypatch.setattr(clock, "_CLEANUP_STEPS", 1000)
    steps = 0

    async def stubborn():
        nonlocal steps
        while True:
            steps += 1
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    async def main():
        await stubborn()

    with pytest.raises(LimitExceeded, match="100 steps"):
        clock.run(main(), max_events=100)
    assert 900 < steps < 2000


def test_a_clean_up_that_meets_the_limit_after_a_run_that_did_not_is_an_error(monkeypatch):
    monkeypatch.setattr(clock, "_CLEANUP_STEPS", 1000)

    async def stubborn():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    async def main():
        asyncio.get_running_loop().create_task(stubborn())
        await asyncio.sleep(0)

    with pytest.raises(LimitExceeded):
        clock.run(main(), max_events=100)
