"""Tiny runs with real models; `python -m tests.samples.real_runs OUT CACHE` performs one in a process of its own."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

SMALL = {"max_new_tokens": 4, "learning_rate": 1e-3, "warmup_updates": 1}
LOCAL = {"local_steps": 2, "local_batch_size": 8, "max_new_tokens": 4}
OTHERS: dict[str, dict[str, Any]] = {
    "rounds": {"name": "fedpetuning", **LOCAL},
    "client_centric": {"name": "fedpetuning", **LOCAL, "schedule": {"kind": "client_centric", "buffer": 2}},
    "fedavg": {"name": "fedpetuning", **LOCAL, "module": "full"},
    "synthetic": {
        "name": "dpsda_fl", "objective": "sft",
        "synthesis": {
            "mechanism": "none", "epsilon": "inf", "rows_per_client": 20, "generator": {"steps": 20, "max_tokens": 48},
            "tuning": {"steps": 2},
        },
    },
    "dp_sft": {"name": "dp_sft"},
    "self_reward": {"name": "self_reward", **SMALL, "update": {"groups_per_update": 6, "in_flight": 12}},
    "buffer": {
        "name": "fedgrpo", "num_neighbours": 8, **SMALL, "fusion": "reliability", "grouping": "candidates",
        "update": {"schedule": "buffer", "buffer": 6, "in_flight": 12, "max_staleness": 1, "on_stale": "resample"},
    },
}  # fmt: skip
"""Tiny runs whose state is another: adapters in the server's memory, moments of many clients, synthetic rows, trust."""


def tiny(**keys: Any) -> dict[str, Any]:
    """A scenario with three clients, models of a few thousand weights and three updates."""
    scratch = {
        "preset": "scratch-250k",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "steps": 150,
        "batch_size": 32,
    }
    return {
        "name": "tiny",
        "stop": {"updates": 3},
        "protocol": {
            "name": "fedgrpo",
            "num_neighbours": 8,
            "max_new_tokens": 4,
            "learning_rate": 1e-3,
            "warmup_updates": 1,
            "update": {"groups_per_update": 6, "in_flight": 12},
            "stragglers": {"policy": "deadline", "deadline": "30 s"},
        },
        "tasks": {
            "domains": ["chain_sum", "gcd"],
            "sizes": {
                "public": 200, "private": 300, "auxiliary": 20, "pool": 60, "validation": 20, "test": 20,
            },
            "answers": {"coverage": 0.3},
        },
        "models": {"server": scratch, "clients": scratch | {"steps": 20}},
        "evaluation": {"every_updates": 2},
        "clients": {"phone": 2, "laptop": 1},
        "availability": {"kind": "sessions", "mean_on": "20 min", "mean_off": "10 min"},
    } | keys  # fmt: skip


def perfect(name: str) -> dict[str, Any]:
    """One client that owns the answer to every question; or the truth itself (``central_grpo``)."""
    scenario = tiny(clients={"laptop": 1}, availability={"kind": "always"})
    scenario["tasks"]["answers"] = {"coverage": 1.0}
    scenario["protocol"] = {
        "name": name,
        "max_new_tokens": 4,
        "learning_rate": 1e-3,
        "warmup_updates": 1,
        "grouping": "candidates",
        "update": {"schedule": "barrier", "groups_per_update": 8},
    }
    if name == "fedgrpo":
        scenario["protocol"] |= {"num_experts": 1, "num_neighbours": 8}
    return scenario


def run(scenario: dict[str, Any], out: Path, cache: Path) -> dict[str, Any]:
    """Run it, and load the policy that it left with ``transformers``."""
    from fedsim.experiment import run as experiment
    from fedsim.scenario.read import scenario_from

    ran = experiment.run(scenario_from(scenario), out=out, cache_dir=cache)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(out / "policy")
    tokenizer = AutoTokenizer.from_pretrained(out / "policy")
    return {
        "records_sha256": ran.summary["records_sha256"],
        "model_hashes": ran.manifest["model_hashes"],
        "policy_sha256": hashlib.sha256((out / "policy" / "model.safetensors").read_bytes()).hexdigest(),
        "num_weights": network.num_parameters(),
        "vocabulary": len(tokenizer),
        "accuracy": ran.summary["accuracy"],
        "losses": ran.updates["loss"].to_list(),
        "grad_norms": ran.updates["grad_norm"].to_list(),
        "evaluators": sorted(set(ran.rewards["evaluator"])),
    }


if __name__ == "__main__":
    print(json.dumps(run(tiny(), Path(sys.argv[1]), Path(sys.argv[2]))))
