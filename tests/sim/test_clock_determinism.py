"""Runs are the same in every process, and Ctrl-C does not corrupt them."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fedsim.sim import clock, streams

ROOT = Path(__file__).parents[2]

SIBLINGS = """
    import asyncio, sys
    from fedsim.sim import clock

    garbage = [object() for _ in range(int(sys.argv[1]) * 997)]  # another memory layout in every process
    log = []

    class Client:
        async def answer(self, number):
            try:
                await asyncio.sleep(1 + number % 3)
                await asyncio.sleep(100)
            finally:
                log.append(number)

    async def reply(number, ready):
        await ready.wait()
        return number

    async def main(loop):
        # 1. a task group cancels forty siblings
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(Client().answer(number))
                await asyncio.sleep(2.5)
                raise ValueError
        except* ValueError:
            pass
        # 2. a quorum over forty tasks that answer at one instant
        ready = asyncio.Event()
        loop.after(5, ready.set)
        done, _ = await asyncio.wait({asyncio.create_task(reply(n, ready)) for n in range(40)},
                                     return_when=asyncio.FIRST_COMPLETED)
        log.extend(task.result() for task in done)
        # 3. the same over bare futures, in a set of the test's own
        futures = {loop.create_future() for _ in range(40)}
        for number, future in enumerate(futures):
            loop.after(1, future.set_result, number)
        done, _ = await asyncio.wait(futures)
        log.extend(future.result() for future in done)
        # 4. leftovers that the end of the run cancels
        kept.extend(asyncio.create_task(Client().answer(100 + number)) for number in range(40))
        await asyncio.sleep(0.5)

    kept = []
    clock.run(main)
    print(log)
"""

INTERRUPTED = """
    import asyncio, sys, time
    from fedsim.sim import clock

    async def main(loop):
        def tick():
            time.sleep(0.002)
            loop.after(1, tick)
        tick()
        print("running", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            before = loop.time()
            await asyncio.sleep(3)  # drain: the clock still runs
            print("saved", loop.time() - before, loop.interrupted, flush=True)
            {ending}

    try:
        print("result", clock.run(main))
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)
"""


def environment(hash_seed: int) -> dict[str, str]:
    return os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}


def start(program: str, *arguments: str, hash_seed: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env=environment(hash_seed),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    return out


@pytest.mark.parametrize("num_processes", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_forty_cancelled_siblings_and_a_quorum_have_one_outcome_in_all_processes(num_processes):
    outcomes = set()
    for batch in range(0, num_processes, 4):
        processes = [start(SIBLINGS, str(n), hash_seed=n) for n in range(batch, batch + 4)]
        outcomes |= {outcome(process) for process in processes}
    assert len(outcomes) == 1
    [log] = outcomes
    assert len(log.split(",")) == 160


def test_sets_of_tasks_iterate_in_an_order_that_the_program_alone_decides():
    async def main():
        tasks = {asyncio.create_task(asyncio.sleep(0), name=str(n)) for n in range(8)}
        await asyncio.sleep(1)
        return [task.get_name() for task in tasks]

    orders = {tuple(clock.run(main())) for _ in range(20)}
    assert len(orders) == 1


def test_task_names_are_the_same_in_a_second_run_of_one_process():
    async def main():
        async with asyncio.TaskGroup() as group:
            return [group.create_task(asyncio.sleep(0)).get_name() for _ in range(3)]

    assert clock.run(main()) == clock.run(main()) == ["Task-2", "Task-3", "Task-4"]


def interrupt(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("ending", "last_line"),
    [("pass", "KeyboardInterrupt"), ("return 'what there is'", "result what there is")],
)
def test_sigint_lets_the_main_task_drain_and_save_and_then_ends_the_run(ending, last_line):
    process = start(INTERRUPTED.replace("{ending}", ending))
    interrupt(process)
    assert outcome(process).splitlines() == ["saved 3.0 True", last_line]


def test_a_second_sigint_quits_at_once_even_in_the_middle_of_an_event():
    program = INTERRUPTED.replace("time.sleep(0.002)", "time.sleep(30 if loop.time() else 0)")
    process = start(program.replace("{ending}", "pass"))
    started = time.monotonic()
    interrupt(process)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert outcome(process).splitlines() == ["KeyboardInterrupt"]
    assert time.monotonic() - started < 15


def test_an_interrupt_handler_of_the_callers_own_is_left_alone():
    before = signal.getsignal(signal.SIGINT)
    received = []
    signal.signal(signal.SIGINT, lambda *_: received.append(True))
    try:

        async def main():
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(1)
            return "went on"

        assert clock.run(main()) == "went on"
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [True]


def test_the_interrupt_handler_is_back_in_place_after_a_run():
    before = signal.getsignal(signal.SIGINT)
    clock.run(asyncio.sleep(1))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_single_server_queue_has_the_mean_wait_of_theory():
    """M/M/1: mean time in system is 1 / (mu - lambda); batch means over independent replications."""
    arrivals_per_s, served_per_s, num_jobs, num_runs = 0.5, 1.0, 4000, 12

    async def replication(seed):
        server, stays = asyncio.Lock(), []

        async def job(index):
            came_at_s = asyncio.get_running_loop().time()
            async with server:
                await asyncio.sleep(streams.exponential(1 / served_per_s, seed, "service", index))
            stays.append(asyncio.get_running_loop().time() - came_at_s)

        async with asyncio.TaskGroup() as group:
            for index in range(num_jobs):
                await asyncio.sleep(streams.exponential(1 / arrivals_per_s, seed, "gap", index))
                group.create_task(job(index))
        return sum(stays[num_jobs // 10 :]) / (num_jobs - num_jobs // 10)

    means = [clock.run(replication(seed)) for seed in range(num_runs)]
    mean = sum(means) / num_runs
    deviation = math.sqrt(sum((m - mean) ** 2 for m in means) / (num_runs - 1))
    half_width = 4.44 * deviation / math.sqrt(num_runs)  # Student t, 11 degrees of freedom, 99.9 %
    assert half_width < 0.4
    assert abs(mean - 1 / (served_per_s - arrivals_per_s)) < half_width
