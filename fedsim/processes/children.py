"""Child processes: how they are started, spoken to, found lost, and ended with everything that they have started.

A child calls the functions that it is asked for, one at a time, and sends back what they return, pickled: it runs this very
code. Its parent's end, be it by SIGKILL, is the end of the pipe between them, which a thread of the child awaits: so it is
seen in the middle of a call too, and ends the child with its whole process group. A child's own children have groups of
their own, and see its end in the same way.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import FrameType
from typing import Any

from fedsim.errors import LostError

_GRACE_S = 10.0  # how long a child that has nothing to do may take to end
_TAIL_BYTES = 4096
_to_parent: Connection | None = None


class Child:
    """A process of this Python, with the paths of this one to import from, in a process group of its own.

    Args:
        log: where what it prints is kept; None: only its end is, for as long as the child is.
        variables: more of its environment.
    """

    def __init__(self, log: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
        self._is_asked = False
        self._printed = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115 - closed by `end`
        self._pipe, theirs = Pipe()
        found = f"import sys; sys.path[:] = {[*map(str, sys.path)]}"
        code = f"{found}; from fedsim.processes import children; children.serve({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._printed,
                env=os.environ | (variables or {}),
                pass_fds=[theirs.fileno()],
                process_group=0,
            )

    def ask(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called there; that the child is lost is said by `answer`."""
        self._is_asked = True
        with contextlib.suppress(ConnectionError):
            self._pipe.send((function, arguments))

    def answer(self, heard: Callable[..., None] | None = None) -> Any:
        """What the function returned; what it says until then (`say`) is passed on to ``heard``.

        Raises:
            LostError: the child ended first, and with it what it had started.
        """
        while True:
            try:
                is_last, what = self._pipe.recv()
            except (EOFError, OSError):
                raise self._lost() from None
            if is_last:
                self._is_asked = False
                return what
            if heard is not None:
                heard(*what)

    def printed(self) -> str:
        """The end of what it has printed."""
        size = os.fstat(self._printed.fileno()).st_size
        tail = os.pread(self._printed.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return tail.decode(errors="replace").strip()

    def close(self) -> None:
        """As `end`."""
        end([self])

    def _lost(self) -> LostError:
        self._kill()
        code = self._process.wait()
        return LostError(signal.Signals(-code).name if code < 0 else str(code), self.printed())

    def _kill(self) -> None:
        """End its group, whose number is no other's as long as nobody has waited for the child, be it dead or not."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _leave(self) -> None:
        if self._is_asked:
            self._kill()
        else:
            self._pipe.close()

    def _await_end(self) -> None:
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._pipe.close()
        self._printed.close()


def ready(children: Iterable[Child], timeout_s: float) -> list[Child]:
    """Those who have an answer, or are lost; waits for the first of them, but no longer than this."""
    by_pipe = {child._pipe: child for child in children}
    due = wait([*by_pipe], timeout_s)
    return [child for pipe, child in by_pipe.items() if pipe in due]


def end(children: Iterable[Child]) -> None:
    """End children: one without a task ends by itself, any other at once, with everything that it has started."""
    everybody = list(children)
    for child in everybody:
        child._leave()
    for child in everybody:
        child._await_end()


def serve(pipe: int) -> None:
    """What a child does: call what it is asked for until its parent closes the pipe, or is gone."""
    global _to_parent
    # The pipe itself stays open to the very end of the process, whatever Python closes before: so its end is the child's.
    os.set_inheritable(pipe, False)
    parent = _to_parent = Connection(os.dup(pipe))
    asked: queue.Queue[bytes | None] = queue.Queue()

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                asked.put(parent.recv_bytes())
        if asked.unfinished_tasks:
            os.killpg(0, signal.SIGKILL)
        asked.put(None)

    threading.Thread(target=listen, name="parent", daemon=True).start()
    while (request := asked.get()) is not None:
        function, arguments = pickle.loads(request)  # noqa: S301 - of its parent
        answer = function(*arguments)
        asked.task_done()  # before the answer is out: who has it may close the pipe, and nothing is cut short by that
        parent.send((True, answer))


def say(*what: Any) -> None:
    """Tell the parent something in the middle of a call that a child was asked for; see `Child.answer`."""
    assert _to_parent is not None, "not in a child"
    _to_parent.send((False, what))


@contextlib.contextmanager
def asked_to_end() -> Iterator[threading.Event]:
    """An event that is set by a signal to end, so that no child is left behind by an exception between two lines."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
