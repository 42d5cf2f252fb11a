"""Whole runs on models that come with weights: a folder with a small Llama stands for a pretrained one."""

import json
from copy import deepcopy

import pytest

import fedsim
from fedsim.errors import ScenarioError
from fedsim.experiment.verify import verify
from fedsim.models.real.weights import save_model
from fedsim.scenario.read import scenario_from
from tests.samples.tiny_models import questions, tokenizer, trained_network

LORA = {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"], "layers": [1, 1]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a model, and questions whose splits and owners are named."""
    folder = tmp_path_factory.mktemp("ready")
    save_model(deepcopy(trained_network()), tokenizer(), folder / "model")
    splits = ["private"] * 5 + ["auxiliary", "pool", "pool", "validation", "test"]
    with (folder / "own.jsonl").open("w") as lines:
        for number, question in enumerate(questions()):
            split = splits[number % 10]
            row = {
                "question": question.text,
                "answer": question.answer,
                "domain": question.domain,
                "split": split,
            }
            if split == "private":
                row["client"] = number % 3
            lines.write(json.dumps(row) + "\n")
    return folder


def scenario(world, **keys):
    ready = {"path": str(world / "model"), "lora": LORA}
    data = {
        "name": "ready",
        "fidelity": "real",
        "stop": {"updates": 3},
        "protocol": {
            "name": "fedgrpo", "num_experts": 2, "num_neighbours": 4, "max_new_tokens": 4, "learning_rate": 1e-2,
            "update": {"schedule": "barrier", "groups_per_update": 6},
        },
        "tasks": {"file": str(world / "own.jsonl"), "match": "caseless"},
        "models": {"server": ready, "clients": ready | {"tuning": {"steps": 4, "batch_size": 8}}},
        "clients": {"phone": 2, "laptop": 1},
        "evaluation": {"every_updates": 2, "samples": 0, "test": True},
    }  # fmt: skip
    return scenario_from(data | keys)


def run(world, tmp_path, out="run", **keys):
    return fedsim.run(scenario(world, **keys), out=tmp_path / out, cache_dir=world / "cache")


def test_a_run_learns_from_clients_with_adapters_of_their_own_and_repeats(world, tmp_path):
    first = run(world, tmp_path)
    hashes = first.manifest["model_hashes"]
    assert len(set(hashes.values())) == 4
    assert first.summary["updates"] == 3 and "warnings" not in first.summary
    assert first.summary["accuracy"]["greedy"]["initial"] is not None
    verify(first.folder, cache_dir=world / "cache")
    again = run(world, tmp_path, "again")
    assert again.summary["records_sha256"] == first.summary["records_sha256"]


def test_clients_that_are_all_the_same_model_are_told(world, tmp_path):
    ready = {"path": str(world / "model")}
    done = run(world, tmp_path, models={"server": ready | {"lora": LORA}, "clients": ready})
    assert done.summary["warnings"] == [
        "all 3 clients have the same model, so that it does not matter who scores; give models.clients lora, or a "
        "path with {client}"
    ]


def test_candidates_that_are_all_cut_off_are_told(world, tmp_path):
    given = scenario(world).resolved()["protocol"] | {"max_new_tokens": 1}
    done = run(world, tmp_path, protocol=given)
    assert done.summary["warnings"][0].startswith("all candidates of all 18 groups were cut off")


def test_rows_of_answers_and_supervised_steps_work_with_adapters_too(world, tmp_path):
    for protocol in ({"name": "distil"}, {"name": "dp_sft"}, {"name": "self_reward", "reward": "majority"}):
        done = run(world, tmp_path, protocol["name"], protocol=protocol | {"max_new_tokens": 4})
        assert done.summary["updates"] == 3


def test_what_scoring_elsewhere_would_lose_is_refused_by_name(world):
    with pytest.raises(
        ScenarioError, match=r"compute\.scorers is 2, but clients with lora score beside the server"
    ):
        scenario(world, compute={"scorers": 2})
    ready = {"path": str(world / "model")}
    tasks = {"file": str(world / "own.jsonl"), "answer_prefix": " "}
    with pytest.raises(
        ScenarioError, match=r"compute\.scorers is 2, but scorers know no tasks\.answer_prefix"
    ):
        scenario(world, compute={"scorers": 2}, tasks=tasks, models={"server": ready, "clients": ready})
