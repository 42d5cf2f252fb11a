"""A million devices as arrays, a federation of them of which three are asked, and a round of 131,072 clients.

Each is measured in a process of its own, whose largest resident memory the kernel tells; the interpreter and the libraries are
part of it. What is claimed to be done is asserted: the devices' counts, that few profiles and states were made, and that every
client of the round answered, with its rows. The round is that of pooled training, in which everybody is asked once: a message
down, queue, compute, rows up, and the server's step on what came.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ledger import Claim, report
from fedsim.experiment import checks
from fedsim.experiment import run as experiment
from fedsim.experiment.components import load_components
from fedsim.experiment.simulation import Simulation
from fedsim.progress import SilentProgress
from fedsim.records import invariants
from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Member, Outcome, Transfer, Update
from fedsim.scenario.read import read_scenario
from fedsim.scenario.schema import Scenario
from fedsim.sim.devices import population
from fedsim.sim.devices.config import ClientsConfig
from fedsim.sim.lazy import LazySequence

NUM_DEVICES = 1_000_000
NUM_ASKED = 131_072
GIB = 2**30


def classes_of(num_clients: int) -> dict[str, int]:
    """Half of them phones, a quarter each laptops and edge servers."""
    half, quarter = num_clients // 2, num_clients // 4
    return {"phone": half, "laptop": quarter, "edge-server": num_clients - half - quarter}


def devices() -> dict[str, float]:
    """Draw a million devices from presets."""
    begun = time.perf_counter()
    drawn = population.draw(ClientsConfig.model_validate(classes_of(NUM_DEVICES)), 0)
    took_s = time.perf_counter() - begun
    assert drawn.counts == classes_of(NUM_DEVICES)
    speeds = drawn.columns["peak_flop_per_s"]
    assert len(speeds) == NUM_DEVICES and 0 < speeds.min() < speeds.max()
    return {"seconds": took_s}


def idle() -> dict[str, float]:
    """A round that asks 3 of a million clients: what is built, and the round."""
    return _round(NUM_DEVICES, 3, "{name: fedpetuning, clients_per_round: 3, local_epochs: 1}")


def round_of_many() -> dict[str, float]:
    """A round that asks 131,072 clients, all that there are."""
    return _round(NUM_ASKED, NUM_ASKED, "{name: central_pooled}")


def _round(num_clients: int, num_asked: int, protocol: str) -> dict[str, float]:
    """One round of a protocol up to its first update, from reading the scenario's devices to the last byte."""
    scenario = _scenario(num_clients, protocol)
    begun = time.perf_counter()
    prepared, log, silent = checks.refuse_early(scenario), RecordLog(), SilentProgress()
    components = load_components(prepared, silent)
    simulation = Simulation(prepared, components, log, silent.phase("federation"))
    ending = experiment.simulate(simulation)
    took_s = time.perf_counter() - begun
    statuses = Counter(row.status for row in log.of(Outcome))
    assert statuses == {"ok": num_asked}, statuses
    assert ending.stopped_by == "updates" and len(log.of(Update)) == 1
    assert len(log.of(Member)) == num_clients
    assert len(log.of(Transfer)) == 2 * num_asked
    assert sum(row.client_id >= 0 for row in log.of(Compute)) == num_asked
    profiles, states = simulation.profiles, simulation.states
    assert isinstance(profiles, LazySequence) and isinstance(states, LazySequence)
    assert len(profiles.made()) == len(states.made()) == num_asked
    invariants.check(log, simulation.federation.carried_bytes)
    return {"seconds": took_s}


def _scenario(num_clients: int, protocol: str) -> Scenario:
    classes = ", ".join(f"{name}: {count}" for name, count in classes_of(num_clients).items())
    text = f"""
name: population
fidelity: timing
stop: {{updates: 1}}
protocol: {protocol}
tasks:
  domains: [gcd]
  sizes: {{public: 0, private_per_client: 1, auxiliary: 1, pool: 1, validation: 1, test: 1}}
  partition: {{kind: iid}}
clients: {{{classes}}}
network: {{server_link: 100 Gbit/s}}
"""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "population.yaml"
        path.write_text(text)
        return read_scenario(path)


MEASURED: Mapping[str, Callable[[], dict[str, float]]] = {
    "devices": devices, "idle": idle, "round": round_of_many,
}  # fmt: skip


def in_a_process(name: str) -> dict[str, Any]:
    """Measure one in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_population", name]
    told: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )
    return told


def main() -> int:
    """Measure all of them."""
    if len(sys.argv) > 1:
        measured = MEASURED[sys.argv[1]]()
        peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(measured | {"bytes": peak_bytes}))
        return 0
    claims = []
    for name, what, seconds, gib in (
        ("devices", "1,000,000 devices from presets", 15.0, 1.0),
        ("idle", "a round with 3 of 1,000,000 clients", None, None),
        ("round", "a round with 131,072 clients", 20.0, 2.0),
    ):
        told = in_a_process(name)
        claims += [
            Claim(what, told["seconds"], seconds, "at most", "s", "one process"),
            Claim(f"{what}: largest resident memory", told["bytes"] / GIB, gib, "at most", "GiB"),
        ]
    return report("population", "Population", claims)


if __name__ == "__main__":
    raise SystemExit(main())
