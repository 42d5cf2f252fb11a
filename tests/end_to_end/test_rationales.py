"""Whole runs whose candidates carry worked steps: what is taught, sent, scored and read, with tiny real models."""

from __future__ import annotations

import re

import polars as pl
import pytest

from fedsim.experiment import run as experiment
from fedsim.scenario.read import scenario_from
from tests.samples.real_runs import tiny

SCRATCH = {
    "preset": "scratch-250k", "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "steps": 150,
    "batch_size": 32, "muon_learning_rate": 0.02,
}  # fmt: skip
DOMAIN = {"min_terms": 2, "max_terms": 3, "max_term": 2, "max_total": 9}
BUDGET = {"max_new_tokens": 32, "learning_rate": 1e-3, "warmup_updates": 1}


def ran(tmp_path, models_cache, **protocol):
    tasks = {
        "domains": {"worked_sums": DOMAIN},
        "sizes": {"public": 200, "private": 200, "auxiliary": 10, "pool": 40, "validation": 10, "test": 10},
        "partition": {"kind": "iid"},
    }
    scenario = tiny(
        tasks=tasks, models={"server": SCRATCH, "clients": SCRATCH}, protocol=protocol | BUDGET, clients={"laptop": 2},
        availability={"kind": "always"}, stop={"updates": 2}, evaluation={"every_updates": 2, "samples": 0},
    )  # fmt: skip
    return experiment.run(scenario_from(scenario), out=tmp_path / "run", cache_dir=models_cache)


@pytest.mark.parametrize("score", [pytest.param("answer_likelihood", marks=pytest.mark.slow), "agreement"])
def test_candidates_go_down_with_their_steps_and_are_scored_by_their_answers(tmp_path, models_cache, score):
    rounds = {"schedule": "barrier", "groups_per_update": 6}
    found = ran(tmp_path, models_cache, name="fedgrpo", model_score=score, num_neighbours=4, update=rounds)
    assert set(found.rewards["evaluator"]) == {f"ME {score}"}
    rewards = found.rewards["rewards"].explode()
    assert rewards.is_between(0, 1).all() and (score != "agreement" or rewards.is_in([0.0, 1.0]).all())
    assert rewards.max() > 0
    down = found.transfers.filter((pl.col("direction") == "down") & (pl.col("purpose") == "question"))
    # A question and eight candidates of two or three steps: "3 + 1 = 4 ; 4 - 2 = 2 ; #### 2".
    assert down["message_bytes"].mean() > 8 * len("3 + 1 = 4 ; 4 - 2 = 2 ; #### 2")
    assert found.summary["accuracy"]["greedy"]["initial"] > 0


def test_distilled_answers_are_whole_solutions_and_pooled_rows_are_rewarded_by_the_answers_in_them(
    tmp_path, models_cache
):
    distilled = ran(
        tmp_path / "distil", models_cache, name="distil", num_neighbours=4, questions_per_update=6
    )
    up = distilled.transfers.filter((pl.col("direction") == "up") & (pl.col("purpose") == "answer"))
    assert up["message_bytes"].mean() > len("3 + 1 = 4 ; 4 - 2 = 2 ; #### 2")
    rounds = {"schedule": "barrier", "groups_per_update": 6}
    pooled = ran(tmp_path / "pooled", models_cache, name="central_pooled", objective="grpo", update=rounds)
    assert pooled.groups["correct"].max() > 0, "the truth is read from what came up as text"
    assert (pooled.groups["correct"] == pooled.groups["reward_mean"]).all()


def test_models_write_steps_before_their_answer(tmp_path, models_cache):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ran(tmp_path, models_cache, name="zero_shot")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "policy")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy")
    asked = tokenizer("Add up step by step: 3 + 2 - 1", return_tensors="pt")["input_ids"]
    written = network.generate(asked, max_new_tokens=32, do_sample=False)[0, asked.shape[1] :]
    text = tokenizer.decode(written, skip_special_tokens=True)
    assert re.fullmatch(r"(\d+ [+-] \d+ = \d+ ; ){2}#### \d+", text), text
