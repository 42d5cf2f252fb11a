"""One scenario and seed give one set of records: in other processes, with other hash seeds, under load, with others there."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fedsim.experiment import run as experiment
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.records.rows import Compute
from fedsim.scenario.read import scenario_from
from fedsim.sim.clock import run as run_on_virtual_time
from fedsim.sim.devices.config import DropoutConfig
from tests.samples import real_runs
from tests.samples.fakes import FakeEvaluator, device, play, settings, task_data
from tests.samples.worlds import Timetable

ROOT = Path(__file__).resolve().parents[2]

TIMING = {
    "name": "again", "seed": 5, "fidelity": "timing", "stop": {"updates": 8},
    "protocol": {
        "name": "fedgrpo",
        "update": {"groups_per_update": 8, "in_flight": 24},
        "stragglers": {"policy": "deadline", "deadline": "120 ms", "on_deadline": "cancel"},
    },
    "tasks": {"sizes": {"pool": 80, "private": 800}, "answers": {"coverage": 0.3}},
    "clients": {"phone": 6, "tablet": 2, "laptop": 3},
    "network": {"loss": 0.01, "connection": "per_request", "server_link": "20 Mbit/s"},
    "availability": {"kind": "sessions", "mean_on": "2 s", "mean_off": "1 s"},
    "dropout": {"per_task": 0.05, "hazard": "60 /h"},
}  # fmt: skip
AGAIN = """
import json, sys
from fedsim.experiment import run as experiment
from fedsim.scenario.read import scenario_from
print(experiment.run(scenario_from(json.loads(sys.argv[1])), out=sys.argv[2]).summary["records_sha256"])
"""


def started(*arguments: str, hash_seed: int) -> subprocess.Popen[str]:
    """A fresh interpreter."""
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def last_line(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return printed.splitlines()[-1]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, models_cache, real):
    """A timing run and the real one in processes with other hash seeds, which work at the same time."""
    out = tmp_path_factory.mktemp("elsewhere")
    timing = started("-c", AGAIN, json.dumps(TIMING), str(out / "timing"), hash_seed=4242)
    again = started("-m", "tests.samples.real_runs", str(out / "tiny"), str(models_cache), hash_seed=77)
    return last_line(timing), json.loads(last_line(again))


def test_a_timing_run_repeats_bit_for_bit_in_another_process_and_under_load(tmp_path, elsewhere):
    first = experiment.run(scenario_from(TIMING), out=tmp_path / "run").summary
    assert elsewhere[0] == first["records_sha256"]
    # A run in which nothing ever goes wrong would prove little.
    assert all(first["requests"][status] > 0 for status in ("ok", "dropped", "late", "cancelled"))


# ------------------------------------------------------------------------------------------------ real, tiny models


@pytest.fixture(scope="module")
def real(tmp_path_factory, models_cache):
    """A real run: its folder, and what came of it."""
    out = tmp_path_factory.mktemp("real") / "tiny"
    return out, real_runs.run(real_runs.tiny(), out, models_cache)


def test_a_real_run_learns_something_and_leaves_a_policy_that_transformers_loads(real):
    out, found = real
    assert found["num_weights"] > 10_000 and found["vocabulary"] > 20
    assert all(math.isfinite(value) for value in found["losses"])
    assert max(found["grad_norms"]) > 0
    assert found["policy_sha256"] != found["model_hashes"]["server"]
    assert set(found["model_hashes"]) == {"server", "client-0", "client-1", "client-2"}
    greedy = found["accuracy"]["greedy"]
    assert 0 <= greedy["initial"] <= 1 and 0 <= greedy["final"] <= 1
    assert set(found["accuracy"]["by_domain"]) == {"chain_sum", "gcd"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["model_hashes"] == found["model_hashes"]


def test_both_kinds_of_evaluation_happen_in_a_real_run(real):
    assert real[1]["evaluators"] == ["AE", "ME likelihood"]


def test_a_real_run_repeats_bit_for_bit_with_cached_models_in_another_process_and_under_load(real, elsewhere):
    assert elsewhere[1] == real[1]


def test_real_fedgrpo_with_one_perfect_client_ends_with_the_weights_of_central_grpo(tmp_path, models_cache):
    federated, central = (
        real_runs.run(real_runs.perfect(name), tmp_path / name, models_cache)
        for name in ("fedgrpo", "central_grpo")
    )
    assert federated["policy_sha256"] == central["policy_sha256"]
    assert federated["losses"] == central["losses"]
    assert federated["evaluators"] == ["AE"]
    assert any(norm > 0 for norm in central["grad_norms"])  # and something was learned


# ---------------------------------------------------------------------------------------- others change nobody's draws


NOISY = replace(
    device(1.0),
    compute_jitter=0.4,
    up_jitter=0.5,
    down_jitter=0.5,
    rtt_jitter=0.3,
    rtt_s=0.05,
    up_bytes_per_s=2_000.0,
    down_bytes_per_s=20_000.0,
    peak_flop_per_s=50_000.0,
)


def story(num_clients: int):
    """What clients 0 and 1 did, of whom one is asked per question; a third, who knows nothing, comes at 20 s."""
    ran = run_on_virtual_time(
        lambda loop: play(
            settings(
                "fedgrpo",
                num_experts=1,
                num_neighbours=4,
                update={"groups_per_update": 2, "in_flight": 4},
                stragglers={"policy": "deadline", "deadline": "10 s"},
            ),
            [FakeEvaluator("ab"), FakeEvaluator("ab"), FakeEvaluator("")][:num_clients],
            data=task_data(num_clients=num_clients, pool=20),
            profiles=[NOISY] * num_clients,
            availability=Timetable({2: [(20.0, math.inf)]}),
            dropout=DropoutConfig(per_task=0.1),
            stop=StopConfig(updates=20),
            seed=4,
        )
    )
    asked = [row for row in ran.outcomes if row.client_id < 2]
    worked = [row for row in ran.log.of(Compute) if row.client_id < 2]
    return ran, [
        (row.client_id, row.purpose, row.subject, row.sent_at_s, row.ended_at_s, row.status) for row in asked
    ] + [(row.client_id, row.kind, row.start_at_s, row.end_at_s, row.cut) for row in worked]


def test_a_client_that_is_never_chosen_changes_nobody_elses_draws():
    alone, without = story(2)
    crowd, with_third = story(3)
    assert {row.client_id for row in crowd.outcomes if row.purpose == "probe"} == {0, 1, 2}  # it was there
    assert {row.client_id for row in crowd.outcomes if row.purpose == "question"} == {
        0,
        1,
    }  # and never chosen
    assert with_third == without
    assert crowd.policy.steps == alone.policy.steps
    durations = {
        round(row.end_at_s - row.start_at_s, 6) for row in crowd.log.of(Compute) if row.client_id == 0
    }
    assert len(durations) > 10  # the draws differ from each other


def test_the_same_stage_gives_the_same_records_again_and_another_seed_others():
    hashes = []
    for seed in (1, 1, 2):
        main = partial(
            play,
            settings("fedgrpo", num_experts=1, update={"groups_per_update": 2, "in_flight": 4}),
            [FakeEvaluator("ab")] * 3,
            profiles=[NOISY] * 3,
            stop=StopConfig(updates=5),
            seed=seed,
        )
        hashes.append(run_on_virtual_time(lambda loop, main=main: main()).log.sha256())
    assert hashes[0] == hashes[1] != hashes[2]
