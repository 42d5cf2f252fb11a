"""Does a run's memory grow with its events? Peaks of whole processes, for 100,000 requests and for ten times as many.

Each run is a process of its own, with figures, results and the check of the books: FedPETuning in timing fidelity, a round of
1,000 clients after the other. FedGRPO, whose server does more for each request, is measured for a tenth of those.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fedsim
from benchmarks.ledger import Claim, report

ROOT = Path(__file__).resolve().parent.parent
WORLD: dict[str, Any] = {
    "name": "memory",
    "fidelity": "timing",
    "limits": {"events": 10**10, "virtual": "100000 d"},
    "tasks": {
        "domains": ["chain_sum", "products"],
        "sizes": {"public": 0, "private": 3000, "auxiliary": 20, "pool": 400, "validation": 1, "test": 1},
    },
    "dropout": {"per_task": 0.02},
}
ROUNDS = {
    "protocol": {
        "name": "fedpetuning",
        "clients_per_round": 1000,
        "stragglers": {"policy": "deadline", "deadline": "600 s"},
    },
    "clients": {"phone": 600, "laptop": 300, "edge-server": 100},
}
GROUPS = {
    "protocol": {
        "name": "fedgrpo",
        "num_experts": 3,
        "num_neighbours": 5,
        "update": {"schedule": "group", "groups_per_update": 96, "in_flight": 128},
        "stragglers": {"policy": "deadline", "deadline": "60 s", "missing": "mask"},
    },
    "clients": {"phone": 6, "laptop": 4, "edge-server": 2},
}


def measured(kind: str, num_updates: int) -> dict[str, float]:
    """Requests and peak memory of one run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", kind, str(num_updates)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def one(kind: str, num_updates: int) -> None:
    """Run, and print what it took."""
    scenario = fedsim.scenario_from(
        WORLD | (ROUNDS if kind == "rounds" else GROUPS) | {"stop": {"updates": num_updates}}
    )
    with tempfile.TemporaryDirectory() as folder:
        run = fedsim.run(scenario, out=Path(folder) / "run")
        fedsim.draw(run)
        num_requests = run.summary["requests"]["total"]
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"requests": num_requests, "peak_mib": peak_bytes / 2**20}))


def main(scale: int = 1) -> int:
    """Measure, and report."""
    claims = [
        *_claims("rounds", 230 // scale, "FedPETuning, rounds of 1,000 clients"),
        *_claims("groups", 35 // scale, "FedGRPO, schedule group"),
    ]
    return report("memory", "Memory of a long run", claims)


def _claims(kind: str, num_updates: int, note: str) -> list[Claim]:
    """A run against one with ten times the updates."""
    few, many = measured(kind, num_updates), measured(kind, 10 * num_updates)
    with_many = f"peak memory with {many['requests']:,.0f} requests"
    ratio = many["peak_mib"] / few["peak_mib"]
    return [
        Claim(f"{with_many} over that with {few['requests']:,.0f}", ratio, 1.3, "at most", note=note),
        Claim(with_many, many["peak_mib"], unit="MiB"),
    ]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one(sys.argv[1], int(sys.argv[2]))
    else:
        raise SystemExit(main(*map(int, sys.argv[1:])))
