"""What stands before the first virtual second: help, a check, and the fixed cost of a run in timing fidelity.

Each is timed in a fresh process, and the middle of several is taken; `fedsim check` must print its estimate and a run its
summary. The fixed cost is that of a run of one update of the quick start's federation, less what an interpreter takes to
start, and once more as the second run of one process, without the imports, as in a sweep's workers.

Modules are compiled before, as they are for whoever uses the command twice: where PYTHONDONTWRITEBYTECODE is set, every
process compiles all of fedsim again.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.ledger import Claim, report

ROUNDS = 5
SCENARIOS = Path(__file__).resolve().parent.parent / "scenarios"
QUICKSTART = str(SCENARIOS / "quickstart.yaml")
ONE_UPDATE = (
    "fidelity=timing",
    "stop.updates=1",
    "protocol.update.groups_per_update=2",
    "protocol.update.in_flight=2",
)

TWO_RUNS = """
import sys, time
from pathlib import Path
from fedsim.experiment import run as experiment
from fedsim.scenario.read import read_scenario
for number in range(2):
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    settings = read_scenario(sys.argv[1], sys.argv[3:])
    ran = experiment.run(settings, out=Path(sys.argv[2]) / str(number))
    took_s, took_cpu_s = time.perf_counter() - begun_s, time.process_time() - begun_cpu_s
    assert ran.summary["updates"] == 1, ran.summary
print(took_s, took_cpu_s)
"""

IMPORTS = {
    "typer": "import typer",
    "pydantic": "from pydantic import BaseModel, Field, TypeAdapter",
    "numpy": "import numpy.random",
    "asyncio, SimPy, PyYAML and msgspec": "import asyncio, simpy, yaml, msgspec",
    "fedsim": "import fedsim.cli, fedsim.experiment.run, fedsim.experiment.request_times, fedsim.protocols.fedgrpo",
    "the scenario's validators and the presets": "import fedsim.scenario.read as it; it.read_scenario(sys.argv[1])",
    "polars": "import polars",
}
ONE_BY_ONE = """
import gc, sys, time
gc.disable()
for statement in sys.argv[2:]:
    begun_s = time.process_time()
    exec(statement)
    print(time.process_time() - begun_s)
"""


class Spent(NamedTuple):
    """Seconds of a process: of the clock, and of the processor (its children's too)."""

    wall_s: float
    cpu_s: float


def spent_on(command: Sequence[str], told: str = "") -> Spent:
    """What a fresh process takes, which must succeed and print this."""
    begun_s, begun_cpu_s = time.perf_counter(), _children_s()
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    spent = Spent(time.perf_counter() - begun_s, _children_s() - begun_cpu_s)
    assert told in ran.stdout, (command, ran.stdout[-500:])
    return spent


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_run() -> Spent:
    """What a process takes that runs one update and writes its folder, without figures."""
    with TemporaryDirectory() as folder:
        sets = [word for key in ONE_UPDATE for word in ("--set", key)]
        out = f"{folder}/run"
        return spent_on(["-m", "fedsim", "run", QUICKSTART, *sets, "--out", out, "--no-figures", "-q"], out)


def second_run() -> Spent:
    """What the same run takes where another went before in the process."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TWO_RUNS, QUICKSTART, folder, *ONE_UPDATE]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return Spent(*map(float, told.split()))


def imports_s() -> list[float]:
    """Processor seconds of the imports of a run, in their order, each without what came before."""
    command = [sys.executable, "-c", ONE_BY_ONE, QUICKSTART, *IMPORTS.values()]
    return [float(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.split()]


def main() -> int:
    """Time all of them in turn, after a round that compiles the modules."""
    interpreter, shown, checked, ran, again = (list[Spent]() for _ in range(5))
    imported: list[list[float]] = []
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with TemporaryDirectory() as compiled:
        os.environ["PYTHONPYCACHEPREFIX"] = compiled
        for _ in range(1 + ROUNDS):
            interpreter.append(spent_on(["-c", "pass"]))
            shown.append(spent_on(["-m", "fedsim", "--help"], "compare"))
            checked.append(spent_on(["-m", "fedsim", "check", QUICKSTART], "# estimate"))
            ran.append(one_run())
            again.append(second_run())
            imported.append(imports_s())
    start_s = statistics.median(spent.wall_s for spent in interpreter[1:])

    def claim(what: str, spent: list[Spent], at_most_s: float | None, less_s: float = 0.0) -> Claim:
        took_s = [one.wall_s - less_s for one in spent[1:]]
        cpu_s = statistics.median(one.cpu_s for one in spent[1:])
        note = f"{ROUNDS} processes, {min(took_s):.2f} to {max(took_s):.2f}; of the processor {cpu_s:.2f} s"
        return Claim(what, statistics.median(took_s), at_most_s, "at most", "s", note)

    claims = [
        claim("an interpreter that does nothing", interpreter, None),
        claim("fedsim --help", shown, 0.3),
        claim("fedsim check scenarios/quickstart.yaml", checked, 1.0),
        claim("a timing run of one update, less the interpreter", ran, 0.3, start_s),
        claim("the same as the second run of a process", again, 0.3),
    ]
    parts = zip(IMPORTS, zip(*imported[1:], strict=True), strict=True)
    listed = ", ".join(f"{what} {1000 * statistics.median(took_s):.0f} ms" for what, took_s in parts)
    facts = {"Imports of that run": f"{listed}; processor time, each without what came before."}
    return report("startup", "Start-up", claims, facts)


if __name__ == "__main__":
    raise SystemExit(main())
