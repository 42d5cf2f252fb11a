"""Worker processes that take a share of a run's sampling, scoring, gradients and evaluation, so that a second core works too.

A run computes on one core: torch with one thread, since threads change bits. What can be computed in parts (``work_parts.py``)
is shared out between this process and its workers and joined before the call returns, at the same virtual instant. Scores that
were announced are begun by a worker at once and joined when they are due. A part has the same bits wherever it is done, so no
record knows of it. Optimiser steps stay here.

A worker is started before this process imports torch, and nobody waits for it: until it has imported torch itself, and after it
has died, everything is done here. Frames on pipes carry msgpack and weights as they lie in memory, never pickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedsim.processes.children import HEADER

if TYPE_CHECKING:
    from torch import Tensor

    from fedsim.models.real.run_worker import Hold
    from fedsim.models.real.work_parts import P

R = TypeVar("R")

_PATIENCE = 20.0  # times as long as a share took here
_PIECE = 1 << 20


class LostError(Exception):
    """A worker has died, or does not answer."""


class Workers:
    """The worker processes of one run; implements `fedsim.models.real.work_parts.Sharing`.

    Args:
        number: how many.
        threads: torch threads of each.
        note: told in a line when one is lost; the run goes on without it.

    Attributes:
        patience_s: a worker that says nothing for so long is given up, and not before it took many times a share done here.
        worth_sharing_s: what takes less, by the last share of its kind, is done here: a tiny model's parts cost more to send.
        num_done: parts that workers have done.
    """

    def __init__(self, number: int, threads: int, note: Callable[[str], None]) -> None:
        self._processes = [_Process(threads) for _ in range(number)]
        self._note = note
        self.patience_s = 60.0
        self.worth_sharing_s = 0.005
        self.num_done = 0
        self._last_s: dict[
            type, float
        ] = {}  # real seconds per row of the last share done here, by kind of part
        self._hold: Callable[[], Hold] | None = None
        self._end = weakref.finalize(self, _close, list(self._processes))

    def hold(self, describe: Callable[[], Hold]) -> None:
        """Work for these networks from now on: they are sent to each worker as soon as it has imported torch."""
        self._hold = describe

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process in self._processes]

    @property
    def num_processes(self) -> int:
        """This process, and the workers that are ready."""
        return 1 + len(self._ready())

    def install(self, weights: Sequence[Tensor]) -> None:
        """Make these the live policy's weights for the parts to come."""
        ready = self._ready()
        if not ready:
            return
        import numpy as np

        from fedsim.models.real.run_worker import Weights
        from fedsim.models.real.work_parts import encoded

        content = np.concatenate([weight.detach().numpy().ravel() for weight in weights]).tobytes()
        for process in ready:
            if process.weights != content:
                self._unless_lost(process, _Process.send, encoded(Weights(content)), self.patience_s)
                process.weights = content

    def begun(self, part: P, here: Callable[[P], R]) -> Callable[[], R]:
        """Have a worker begin a part, and return what awaits the result; without a worker ``here`` does it when asked."""
        ready = self._ready()
        if not ready:
            return partial(here, part)
        shared = self._given(part, min(ready, key=lambda process: process.num_under_way))
        return partial(self._joined, shared, here, self.patience_s)

    def shared(self, parts: Sequence[P], here: Callable[[P], R]) -> list[R]:
        """What comes of the parts, in their order: some by ``here``, some by workers; the share of one that dies is redone."""
        ready = self._ready() if len(parts) > 1 else []
        if not ready:
            return [here(part) for part in parts]
        from fedsim.models.real.work_parts import shared_out, size

        kind, sizes = type(parts[0]), [size(part) for part in parts]
        if self._last_s.get(kind, math.inf) * sum(sizes) < self.worth_sharing_s:
            return [here(part) for part in parts]
        own, *others = shared_out(sizes, [0.0, *(self._load(process, kind) for process in ready)])
        try:
            given = {
                place: self._given(parts[place], process)
                for process, places in zip(ready, others, strict=False)
                for place in places
            }
            started_at_wall_s = time.monotonic()
            found = {place: here(parts[place]) for place in own}
            took_s = time.monotonic() - started_at_wall_s
            self._last_s[kind] = took_s / max(1, sum(sizes[place] for place in own))
            patience_s = max(self.patience_s, _PATIENCE * took_s)
            found |= {place: self._joined(shared, here, patience_s) for place, shared in given.items()}
        except BaseException:
            self.close()  # nobody will ask for what they still answer
            raise
        return [found[place] for place in range(len(parts))]

    def _load(self, process: _Process, kind: type) -> float:
        """What a worker has still to do, in rows of this kind, by how long rows took here."""
        from fedsim.models.real.work_parts import size

        self._unless_lost(process, _Process.listen, self.patience_s)
        each_s = self._last_s.get(kind)
        if not each_s:
            return 0.0
        return sum(self._last_s.get(type(part), 0.0) * size(part) for part in process.under_way()) / each_s

    def close(self) -> None:
        """End the workers; done when nobody needs them any more, at the latest."""
        self._processes.clear()
        self._end()

    def _ready(self) -> list[_Process]:
        """Workers that hold the networks."""
        if self._hold is None:
            return []
        for process in list(self._processes):
            if not process.is_ready:
                self._unless_lost(process, self._prepare)
        return [process for process in self._processes if process.is_ready]

    def _prepare(self, process: _Process) -> None:
        from fedsim.models.real.work_parts import encoded

        assert self._hold is not None
        if process.has_imported(self.patience_s):
            process.send(encoded(self._hold()), self.patience_s)
            process.is_ready = True

    def _given(self, part: Any, process: _Process) -> _SharedPart:
        shared = _SharedPart(part, process)
        self._unless_lost(process, _Process.begin, shared, self.patience_s)
        return shared

    def _joined(self, shared: _SharedPart, here: Callable[[Any], R], patience_s: float) -> R:
        """What came of a part: from its worker, or from ``here`` where that is lost."""
        if not shared.is_done:
            self._unless_lost(shared.process, _Process.finish, shared, patience_s)
        if not shared.is_done:
            return here(shared.part)
        self.num_done += 1
        result: R = shared.result
        return result

    def _unless_lost(self, process: _Process, do: Callable[..., None], *arguments: Any) -> None:
        """Do something with a worker, and go on without it once it is lost."""
        if process not in self._processes:
            return
        try:
            do(process, *arguments)
        except LostError:
            self._processes.remove(process)
            self._note(f"a worker process is lost ({process.last_words()}); this process does its share")


def _close(processes: Sequence[_Process]) -> None:
    for process in processes:
        process.close()


@dataclass(slots=True, eq=False)
class _SharedPart:
    """A part that a worker was given, and what came of it."""

    part: Any
    process: _Process
    is_done: bool = False
    result: Any = None


class _Process:
    """One worker and its pipes."""

    def __init__(self, threads: int) -> None:
        # The worker imports this very package, also where it is not installed.
        home = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        numbers = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker
        self._child = subprocess.Popen(
            [sys.executable, "-m", "fedsim.models.real.run_worker", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **numbers, "PYTHONPATH": path},
            bufsize=0,
            process_group=0,  # Ctrl-C is for the run, which ends its workers
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        os.set_blocking(self._stdin.fileno(), False)
        with contextlib.suppress(AttributeError, OSError):  # not on every system, nor beyond a user's limit
            # Weights then wait for a few turns of the worker only.
            fcntl.fcntl(self._stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIECE)
        self._heard = bytearray()
        self._under_way: deque[_SharedPart] = deque()
        self.is_ready = False
        self.weights = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def has_imported(self, patience_s: float) -> bool:
        """Whether the empty frame has come that says so.

        Raises:
            LostError: the worker has died.
        """
        readable, _, _ = select.select([self._stdout], [], [], 0)
        return bool(readable) and not self.receive(patience_s)

    @property
    def num_under_way(self) -> int:
        """Parts that it has not answered yet."""
        return len(self._under_way)

    def begin(self, shared: _SharedPart, patience_s: float) -> None:
        """Give it a part.

        Raises:
            LostError: it has died, or does not take it.
        """
        from fedsim.models.real.work_parts import encoded

        self.send(encoded(shared.part), patience_s)
        self._under_way.append(shared)

    def finish(self, shared: _SharedPart, patience_s: float) -> None:
        """Await what came of a part, and of those that it was given before.

        Raises:
            LostError: it has died, or does not answer.
        """
        from fedsim.models.real.work_parts import decoded, result_of

        while not shared.is_done:
            content = self.receive(patience_s)
            first = self._under_way.popleft()
            first.result = decoded(result_of(first.part), content)
            first.is_done = True

    def listen(self, patience_s: float) -> None:
        """Take up what it has answered already.

        Raises:
            LostError: it has died.
        """
        while self._under_way and select.select([self._stdout], [], [], 0)[0]:
            self.finish(self._under_way[0], patience_s)

    def under_way(self) -> list[Any]:
        """The parts that it has not answered yet."""
        return [shared.part for shared in self._under_way]

    def send(self, content: bytes, patience_s: float) -> None:
        """Send a frame; the worker takes it at once, whatever it is doing.

        Raises:
            LostError: it does not.
        """
        left = memoryview(HEADER.pack(len(content)) + content)
        while left:
            _, writable, _ = select.select([], [self._stdin], [], patience_s)
            if not writable:
                raise LostError
            try:
                left = left[os.write(self._stdin.fileno(), left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise LostError from None

    def receive(self, patience_s: float) -> bytes:
        """Await a frame.

        Raises:
            LostError: none comes.
        """
        header = self._take(HEADER.size, patience_s)
        return self._take(HEADER.unpack(header)[0], patience_s)

    def _take(self, count: int, patience_s: float) -> bytes:
        while len(self._heard) < count:
            readable, _, _ = select.select([self._stdout], [], [], patience_s)
            piece = os.read(self._stdout.fileno(), _PIECE) if readable else b""
            if not piece:
                raise LostError
            self._heard += piece
        taken = bytes(self._heard[:count])
        del self._heard[:count]
        return taken

    def last_words(self) -> str:
        """End the worker, and say how it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1.0)
        code = self._child.poll()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        how = "it does not answer" if code is None else f"exit status {code}"
        return f"{how}: {lines[-1]}" if lines else how

    def close(self) -> None:
        """End it, whatever it is doing; harmless when called twice."""
        self._child.kill()
        self._child.wait()
        for stream in (self._stdin, self._stdout, self._errors):
            stream.close()
