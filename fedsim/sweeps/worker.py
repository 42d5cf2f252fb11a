"""A process that runs one scenario after the other: ``python -m fedsim.sweeps.worker``, orders on stdin, reports on stdout.

An order is a line of JSON, ``{"scenario": file, "out": folder, "cache_dir": folder or null}``; its report is a line

    {"status": "finished" | "failed" | "refused", "reason": one line or "", "wall_s": real seconds}

* ``failed``: the run went wrong inside the simulated world (nobody left to ask, a deadlock, a limit), which is a result.
* ``refused``: the scenario asks for what cannot be, found before the run began.

Anything else (a bug, books that do not balance, a file that cannot be read) ends the process with its traceback.

A run that takes a tenth of a second would otherwise spend most of its time importing. The process ends when stdin ends, at
once if a run is under way: it never outlives whoever gave the orders. Records are those of ``fedsim run``.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError, InputError, InvariantViolation, RequestError, ScenarioError


def perform(order: dict[str, Any]) -> dict[str, Any]:
    """Run one order's scenario into its folder, and report how it ended.

    Raises:
        InputError, RequestError, InvariantViolation: the run is no result: a file cannot be read, or there is a bug.
    """
    from fedsim.config.yaml import parse
    from fedsim.experiment import run as experiment
    from fedsim.scenario.read import scenario_from

    started_at_wall_s = time.perf_counter()
    status, reason = "finished", ""
    try:
        path = Path(order["scenario"])
        # Without the lines of a file that nobody wrote: what is refused is told by its key.
        scenario = scenario_from(parse(path.read_bytes(), str(path)).data, path.parent)
        experiment.run(scenario, out=order["out"], cache_dir=order.get("cache_dir"))
    except ScenarioError as error:
        status, reason = "refused", str(error)
    except (InputError, RequestError, InvariantViolation):
        raise
    except FedsimError as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
    wall_s = time.perf_counter() - started_at_wall_s
    return {"status": status, "reason": " ".join(reason.split()), "wall_s": wall_s}


class Orders:
    """Orders as they come in, read by a thread, so that the end of stdin is seen during a run too."""

    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = 0
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next order; None when there will be no more."""
        line = self._waiting.get()
        return None if line is None else json.loads(line)

    def done(self) -> None:
        """One order has its report."""
        with self._lock:
            self._open -= 1

    def _listen(self) -> None:
        for line in self._stream:
            with self._lock:
                self._open += 1
            self._waiting.put(line)
        with self._lock:
            if self._open:  # nobody is left to read the report
                os._exit(1)
        self._waiting.put(None)


def main() -> int:
    """Take orders until stdin ends."""
    # Reports have the real stdout to themselves: whatever else is printed goes to stderr. Orders are read unbuffered: a
    # thread that waits in a buffered stdin holds a lock over which the interpreter's end would stumble.
    with (
        os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as reports,
        open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream,
    ):
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        orders = Orders(stream)
        while (order := orders.next()) is not None:
            report = perform(order)
            orders.done()
            reports.write(json.dumps(report) + "\n")
            reports.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
