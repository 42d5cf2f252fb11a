"""What stands before the first virtual second: help, a check, and the fixed cost of a run in timing fidelity.

Each is timed in a fresh process, and the middle of several is taken; `fedsim check` must print its estimate and a run its
summary. The fixed cost is that of a run of one update of the quick start's federation, less what an interpreter takes to
start, and once more as the second run of one process, without the imports, as in a sweep's workers.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

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
from fedsim import experiment
from fedsim.scenario import read_scenario
for number in range(2):
    begun = time.perf_counter()
    settings = read_scenario(sys.argv[1], sys.argv[3:])
    ran = experiment.run(settings, out=Path(sys.argv[2]) / str(number), figures=False)
    took_s = time.perf_counter() - begun
    assert ran.summary["updates"] == 1, ran.summary
print(took_s)
"""


def seconds_of(command: Sequence[str], told: str = "") -> float:
    """Real seconds of a fresh process, which must succeed and print this."""
    begun = time.perf_counter()
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - begun
    assert told in ran.stdout, (command, ran.stdout[-500:])
    return took_s


def one_run_s() -> float:
    """Real seconds of a process that runs one update and writes its folder, without figures."""
    with TemporaryDirectory() as folder:
        sets = [word for key in ONE_UPDATE for word in ("--set", key)]
        out = f"{folder}/run"
        return seconds_of(["-m", "fedsim", "run", QUICKSTART, *sets, "--out", out, "--no-figures", "-q"], out)


def second_run_s() -> float:
    """Real seconds of the same run where another went before in the process."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TWO_RUNS, QUICKSTART, folder, *ONE_UPDATE]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> int:
    """Time all of them in turn."""
    interpreter, shown, checked, ran, again = (list[float]() for _ in range(5))
    for _ in range(ROUNDS):
        interpreter.append(seconds_of(["-c", "pass"]))
        shown.append(seconds_of(["-m", "fedsim", "--help"], "compare"))
        checked.append(seconds_of(["-m", "fedsim", "check", QUICKSTART], "# estimate"))
        ran.append(one_run_s())
        again.append(second_run_s())
    start_s = statistics.median(interpreter)

    def claim(what: str, took_s: list[float], at_most_s: float | None, less_s: float = 0.0) -> Claim:
        spread = f"{ROUNDS} processes, {min(took_s) - less_s:.2f} to {max(took_s) - less_s:.2f}"
        return Claim(what, statistics.median(took_s) - less_s, at_most_s, "at most", "s", spread)

    claims = [
        claim("an interpreter that does nothing", interpreter, None),
        claim("fedsim --help", shown, 0.3),
        claim("fedsim check scenarios/quickstart.yaml", checked, 1.0),
        claim("a timing run of one update, less the interpreter", ran, 0.3, start_s),
        claim("the same as the second run of a process", again, 0.3),
    ]
    return report("startup", "Start-up", claims)


if __name__ == "__main__":
    raise SystemExit(main())
