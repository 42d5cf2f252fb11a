"""A stress sweep in timing fidelity and a comparison of real models: two worker processes against one.

The whole command is timed, as a person would start it: reading and checking, worker processes, runs, tables and figures. The
records of every run are asserted to be equal, and how many runs were under way at a time. The real models are trained before,
untimed, as every comparison but the first finds them.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.ledger import Claim, Paired, report, wall_s
from fedsim.config.csv_files import read_csv_records
from fedsim.processes.cores import num_cores

ROUNDS = 2
BOUND = 1.7

TIMED = """\
name: timed
fidelity: timing
stop: {updates: 80}
protocol: {name: fedgrpo, group_size: 8, num_experts: 2, update: {groups_per_update: 16, in_flight: 24}}
tasks: {domains: [gcd, products], sizes: {public: 0, private: 600, auxiliary: 20, pool: 300, validation: 1, test: 1}}
clients: {phone: 12, laptop: 4}
"""
SWEEP = """\
name: sweep
base: timed.yaml
seeds: [0, 1]
axes:
  dropout: {key: dropout.per_task, levels: [0, 0.1, 0.3]}
  policy:
    levels:
      - {name: wait_all}
      - {name: deadline, set: {protocol.stragglers: {policy: deadline, deadline: 2 min}}}
"""
REAL = """\
name: real
stop: {updates: 15}
protocol: {name: fedgrpo, num_neighbours: 8, max_new_tokens: 4, update: {groups_per_update: 24, in_flight: 32}}
tasks:
  domains: [chain_sum, gcd]
  sizes: {public: 200, private: 300, auxiliary: 20, pool: 200, validation: 100, test: 100}
models:
  server: {preset: scratch-250k, hidden_size: 32, intermediate_size: 64, num_heads: 2, steps: 150, batch_size: 32}
  clients: {preset: scratch-250k, hidden_size: 32, intermediate_size: 64, num_heads: 2, steps: 20, batch_size: 32}
clients: {phone: 2, laptop: 1}
"""
COMPARISON = """\
name: comparison
base: real.yaml
seeds: [0]
variants:
  - {name: mild, set: {protocol.kl_weight: 0.07}}
  - {name: plain}
  - {name: light, set: {protocol.kl_weight: 0.01}}
  - {name: heavy, set: {protocol.kl_weight: 0.2}}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A command over a file, and how its runs' records are found."""

    command: str
    file: str
    hashes: Callable[[Path], dict[str, str]]


def swept(out: Path) -> dict[str, str]:
    """Hash of the records by run."""
    rows = read_csv_records((out / "stress.csv").read_bytes())
    return {row["folder"]: row["records_sha256"] for row in rows}


def compared(out: Path) -> dict[str, str]:
    """Likewise."""
    found = {}
    for run in json.loads((out / "comparison.json").read_text())["runs"]:
        summary = json.loads((out / run["folder"] / "summary.json").read_text())
        found[run["folder"]] = summary["records_sha256"]
    return found


KINDS = {
    "stress, timing": Kind("stress", "sweep.yaml", swept),
    "compare, real": Kind("compare", "comparison.yaml", compared),
}


def started(kind: Kind, folder: Path, out: Path, processes: int) -> None:
    """Run the command to its end."""
    command = [sys.executable, "-m", "fedsim", kind.command, str(folder / kind.file), "--out", str(out)]
    done = subprocess.run(
        [*command, "--processes", str(processes), "--quiet"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)


def children_cpu_s() -> float:
    """CPU seconds of all commands so far, their worker processes included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def busy_at_a_time(out: Path) -> float:
    """Mean number of runs under way: their own real seconds over those from the first's start to the last's end."""
    ends = []
    for path in sorted(out.glob("runs/*/manifest.json")):
        manifest = json.loads(path.read_text())
        ends.append(tuple(_instant_s(manifest[key]) for key in ("started_at", "finished_at")))
    span_s = max(end for _, end in ends) - min(start for start, _ in ends)
    return sum(end - start for start, end in ends) / span_s


def _instant_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measured(name: str, kind: Kind, folder: Path) -> tuple[list[Claim], str]:
    """The claims about one kind, and where its time goes."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    cpu: dict[int, list[float]] = {1: [], 2: []}
    hashes: dict[int, dict[str, str]] = {}
    at_a_time: dict[int, list[float]] = {1: [], 2: []}
    out = folder / "out"
    for round_index in range(ROUNDS):
        for processes in (1, 2) if round_index % 2 == 0 else (2, 1):
            out = folder / f"{kind.command}-{round_index}-{processes}"
            before_s = children_cpu_s()
            seconds[processes].append(
                wall_s(lambda out=out, processes=processes: started(kind, folder, out, processes))
            )
            cpu[processes].append(children_cpu_s() - before_s)
            hashes[processes] = kind.hashes(out)
            at_a_time[processes].append(busy_at_a_time(out))
    if hashes[1] != hashes[2] or len(hashes[1]) < 4:
        raise AssertionError(f"the records of one process and of two differ: {hashes}")
    before_s = children_cpu_s()
    serial_s = wall_s(
        lambda: started(kind, folder, out, 2)
    )  # everything is kept: reading, tables and figures
    serial_cpu_s = children_cpu_s() - before_s
    if kind.hashes(out) != hashes[1]:
        raise AssertionError("a second start changed a run")
    # What two cores of our own would take: the parent alone, then everything else on both.
    own_cores_s = serial_cpu_s + (statistics.median(cpu[2]) - serial_cpu_s) / 2
    pairs = Paired(tuple(seconds[1]), tuple(seconds[2]))
    claims = [
        Claim(f"{name}: 1 process over 2", pairs.ratio, BOUND, note=f"{len(hashes[1])} runs, whole command; {pairs.spread}"),
        Claim(
            f"{name}: the same by CPU time", statistics.median(cpu[1]) / own_cores_s,
            note="what two idle cores would give: all CPU seconds with 1 over (the parent's + half of the rest) with 2",
        ),
        Claim(f"{name}: runs under way, of 2", statistics.median(at_a_time[2]), unit="", note="from first start to last end"),
    ]  # fmt: skip
    where = (
        f"{statistics.median(seconds[1]):.1f} s with one process, {statistics.median(seconds[2]):.1f} s with two; of both "
        f"{serial_s:.1f} s are the parent's own (imports, reading and checking, tables, figures), during which no run works; "
        f"CPU seconds: {statistics.median(cpu[1]):.1f}, {statistics.median(cpu[2]):.1f} and {serial_cpu_s:.1f}"
    )
    return claims, where


def main() -> int:
    """Measure both kinds."""
    claims: list[Claim] = []
    facts: dict[str, str] = {}
    with TemporaryDirectory() as made:
        folder = Path(made)
        for name, text in (("timed", TIMED), ("sweep", SWEEP), ("real", REAL), ("comparison", COMPARISON)):
            (folder / f"{name}.yaml").write_text(text)
        started(KINDS["compare, real"], folder, folder / "trained", 2)
        for name, kind in KINDS.items():
            begun_s, load = time.perf_counter(), os.getloadavg()[0]
            found, where = measured(name, kind, folder)
            claims += found
            facts[f"Where the time of {name} goes"] = (
                f"{where}; load {load:.1f} before, {os.getloadavg()[0]:.1f} after {time.perf_counter() - begun_s:.0f} s"
            )
    facts["Cores"] = (
        f"{num_cores()}; runs at a time times threads of a run never exceed them (tests/processes/test_cores.py)"
    )
    return report("sweeps", "Sweeps on two cores", claims, facts)


if __name__ == "__main__":
    raise SystemExit(main())
