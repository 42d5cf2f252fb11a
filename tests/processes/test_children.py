"""Child processes (children.py): started, spoken to, found lost, ended, and never longer there than their parent."""

from __future__ import annotations

import atexit
import contextlib
import operator
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsim.errors import LostError
from fedsim.processes.children import Child, asked_to_end, end, ready, say

A_WHILE_S = 100.0
AT_ONCE_S = 1.0
STARTED = ["sh", "-c", f"echo $$; exec sleep {A_WHILE_S:g}"]  # a command that says its number

# A process with a child that waits and one that works, which has such children too, so many levels deep.
FAMILY = """
import time
from os import getpid
from fedsim.processes.children import Child, say
idle = Child()
idle.ask(getpid)
say(idle.answer())
say(getpid())
if depth:
    busy = Child()
    busy.ask(exec, code, {"code": code, "depth": depth - 1})
    busy.answer(say)
time.sleep(100)
"""


@pytest.fixture
def child():
    with contextlib.closing(Child()) as child:
        yield child


def _answer(child, function, *arguments):
    child.ask(function, *arguments)
    return child.answer()


def _runs(pid):
    """Whether a process still runs (one that nobody has waited for yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _end_at_once(pids):
    until_s = time.monotonic() + AT_ONCE_S
    while left := [pid for pid in pids if _runs(pid)]:
        if time.monotonic() > until_s:
            return left
        time.sleep(0.01)
    return []


def _started_by(child):
    """A process that a child has started and waits for."""
    child.ask(subprocess.call, STARTED)
    while not (said := child.printed()):
        time.sleep(0.01)
    return int(said)


# ------------------------------------------------------------------------------------- start and frame


def test_a_child_is_a_process_in_a_group_of_its_own_that_imports_from_where_this_one_does(child):
    pid = _answer(child, os.getpid)
    assert pid != os.getpid()
    assert _answer(child, os.getpgrp) == pid
    assert _answer(child, eval, "__import__('sys').path") == sys.path


def test_it_has_this_process_environment_and_what_is_added_to_it():
    with contextlib.closing(Child(variables={"FEDSIM_PROCESSES": "7"})) as child:
        found = _answer(child, eval, "dict(__import__('os').environ)")
    assert found == os.environ | {"FEDSIM_PROCESSES": "7"}


def test_messages_of_any_size_come_whole_and_in_order(child):
    piece = os.urandom(1 << 20)
    for times in (0, 1, 4):
        assert _answer(child, operator.mul, piece, times) == piece * times


def test_what_is_said_in_the_middle_of_a_call_comes_before_its_answer(child):
    heard = []
    child.ask(say, "step", 1)
    assert child.answer(lambda *said: heard.append(said)) is None
    assert heard == [("step", 1)]
    child.ask(say, "nobody", "listens")
    assert child.answer() is None


def test_what_it_prints_is_no_message_and_is_kept_in_its_log(tmp_path):
    with contextlib.closing(Child(tmp_path / "log")) as child:
        assert _answer(child, print, "one", "two") is None
        assert _answer(child, os.system, "echo three >&2") == 0
        assert _answer(child, eval, "__import__('sys').stdout.flush()") is None
        assert sorted(child.printed().splitlines()) == ["one two", "three"]
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["one two", "three"]


def test_the_answers_that_are_due_are_told_from_those_that_are_not(child):
    with contextlib.closing(Child()) as other:
        child.ask(time.sleep, A_WHILE_S)
        other.ask(os.getpid)
        assert ready([child, other], A_WHILE_S) == [other]
        other.answer()
        assert ready([child, other], 0.0) == []


# ------------------------------------------------------------------------------------- lose


def test_an_exception_ends_it_and_is_told_with_its_last_line_and_kept_whole(tmp_path):
    with contextlib.closing(Child(tmp_path / "log")) as child:
        child.ask(os.listdir, "/nowhere")
        with pytest.raises(LostError, match=r"^ended \(1\): FileNotFoundError: .*'/nowhere'$") as lost:
            child.answer()
    assert lost.value.printed == (tmp_path / "log").read_text().strip()
    assert lost.value.printed.startswith("Traceback")


def test_a_killed_child_is_told_in_one_line_with_the_signals_name(child):
    child.ask(os.kill, _answer(child, os.getpid), signal.SIGKILL)
    assert ready([child], A_WHILE_S) == [child]
    with pytest.raises(LostError) as lost:
        child.answer()
    assert str(lost.value) == "ended (SIGKILL): it said nothing"


def test_a_child_that_was_lost_while_it_had_nothing_to_do_is_told_with_the_next_answer(child):
    os.kill(_answer(child, os.getpid), signal.SIGTERM)
    for _ in range(2):  # and every time
        child.ask(os.getpid)
        with pytest.raises(LostError, match=r"^ended \(SIGTERM\)"):
            child.answer()


def test_what_a_lost_child_had_started_ends_with_it(child):
    parent = _answer(child, os.getpid)
    grandchild = _started_by(child)
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(LostError):
        child.answer()
    assert not _end_at_once([grandchild])


# ------------------------------------------------------------------------------------- end


def test_a_child_in_the_middle_of_a_call_ends_at_once_with_what_it_has_started(child):
    pids = [_answer(child, os.getpid), _started_by(child)]
    started_s = time.monotonic()
    end([child])
    assert time.monotonic() - started_s < AT_ONCE_S
    assert not _end_at_once(pids)


def test_a_child_that_has_nothing_to_do_ends_by_itself_and_leaves_nothing_undone(tmp_path):
    child = Child(tmp_path / "log")
    _answer(child, atexit.register, print, "the last thing")
    child.close()
    assert (tmp_path / "log").read_text() == "the last thing\n"
    assert child._process.returncode == 0


def test_a_signal_to_end_is_an_event_and_afterwards_what_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with asked_to_end() as asked:
        assert not asked.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(AT_ONCE_S)
    assert signal.getsignal(signal.SIGTERM) is before


# ------------------------------------------------------------------------------------- die with the parent


def test_nobody_outlives_a_parent_that_was_killed_neither_who_works_nor_who_waits_at_any_depth(child):
    class AllAreThereError(Exception):
        pass

    pids = []

    def heard(pid):
        pids.append(pid)
        if len(pids) == 4:
            raise AllAreThereError

    child.ask(exec, FAMILY, {"code": FAMILY, "depth": 1})
    with pytest.raises(AllAreThereError):
        child.answer(heard)
    assert len(set(pids)) == 4 and all(map(_runs, pids))
    os.kill(child._process.pid, signal.SIGKILL)
    assert not _end_at_once(pids)
