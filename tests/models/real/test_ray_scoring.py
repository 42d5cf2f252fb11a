"""Where clients' models score (placement.py, ray_scoring.py): the same bits by actors on Ray, others in bf16 or on a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedsim.errors import ModelFileError
from fedsim.models.real.evaluator import ModelEvaluator
from fedsim.models.real.placement import PlacedEvaluator, Placement
from fedsim.models.real.ray_scoring import scoring
from fedsim.processes.ray_cluster import ON_RAY
from fedsim.progress import SilentProgress
from fedsim.scenario.read import scenario_from
from tests.samples.real_runs import tiny
from tests.samples.tiny_models import language, questions

ROOT = Path(__file__).resolve().parents[3]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CANDIDATES = ["3", "12", "tac"]


def compute(**keys):
    return scenario_from(tiny(compute=keys)).compute


def test_by_default_the_evaluators_are_left_as_they_are():
    evaluators = [ModelEvaluator(language(), 4)]
    assert compute().model_dump() | {"threads": 1} == compute().model_dump()
    (same,) = scoring(evaluators, compute(), 4, SilentProgress())
    assert same is evaluators[0]
    (same,) = scoring(evaluators, compute(gpu_share=0.5), 4, SilentProgress())
    assert same is evaluators[0]


def test_a_run_that_ray_performs_scores_in_its_own_process(monkeypatch):
    monkeypatch.setenv(ON_RAY, "1")
    evaluators = [ModelEvaluator(language(), 4)]
    (same,) = scoring(evaluators, compute(scorers=2), 4, SilentProgress())
    assert same is evaluators[0]


def test_bf16_scores_are_near_those_in_float32_and_not_the_same():
    plain = ModelEvaluator(language(), 4)
    (rough,) = scoring([ModelEvaluator(language(), 4)], compute(autocast="bf16"), 4, SilentProgress())
    texts = [question.text for question in questions()[:10]]
    found = [[evaluator.likelihood(text, CANDIDATES) for text in texts] for evaluator in (plain, rough)]
    assert found[0] != found[1]
    assert torch.allclose(torch.tensor(found[0]), torch.tensor(found[1]), atol=0.05)
    assert all(0 <= score <= 1 for scores in found[1] for score in scores)
    assert rough.count_tokens("12") == plain.count_tokens("12")
    assert len(rough.answers(texts)) == 10 and rough.language.network is not plain.language.network


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_the_processor():
    with pytest.raises(ModelFileError, match=r"compute\.device is cuda, but torch finds no GPU here"):
        scoring([ModelEvaluator(language(), 4)], compute(device="cuda"), 4, SilentProgress())
    evaluators = [ModelEvaluator(language(), 4)]
    assert scoring(evaluators, compute(device="auto"), 4, SilentProgress()) == evaluators


@needs_gpu
@pytest.mark.parametrize("autocast", ["none", "bf16"])
def test_scores_on_a_gpu_are_near_those_of_the_processor(autocast):
    plain = ModelEvaluator(language(), 4)
    placed = PlacedEvaluator(ModelEvaluator(language(), 4), Placement("cuda", autocast, 0.5))
    texts = [question.text for question in questions()[:10]]
    found = [[evaluator.likelihood(text, CANDIDATES) for text in texts] for evaluator in (plain, placed)]
    tolerance = 1e-4 if autocast == "none" else 0.05
    assert torch.allclose(torch.tensor(found[0]), torch.tensor(found[1]), atol=tolerance)
    if autocast == "none":
        assert placed.answers(texts) == plain.answers(texts)
    assert next(placed.language.network.parameters()).is_cuda


def started(script: str, *arguments: str, env: dict[str, str]) -> dict:
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=570
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_ray
@pytest.mark.timeout(600)
@pytest.mark.slow
def test_actors_on_ray_score_bit_for_bit_as_this_process_also_after_one_has_died(tmp_path):
    """Half a minute alone; every process of Ray imports torch, so it takes minutes on a busy machine."""
    env = {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    found = started("-m", "tests.models.real.scoring_on_ray", env=env)
    assert 0 < found.pop("bf16 differs by") < 0.5
    assert found == {
        "equal": True,
        "equal after a death": True,
        "two models differ": True,
        "models held": 2,
        "tokens": True,
        "still connected": False,
    }


@needs_ray
@pytest.mark.slow
def test_a_run_with_scorers_has_the_records_of_one_without(tmp_path):
    env = {"HOME": str(tmp_path), "FEDSIM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    hashes = []
    for scorers in (0, 2):
        scenario = tmp_path / f"{scorers}.yaml"
        scenario.write_text(json.dumps(tiny(compute={"scorers": scorers})))
        command = ["run", str(scenario), "--out", str(tmp_path / f"out-{scorers}"), "--no-figures", "-q"]
        done = subprocess.run(
            [sys.executable, "-m", "fedsim", *command], cwd=ROOT, env=os.environ | env, capture_output=True, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / f"out-{scorers}" / "summary.json").read_text())
        hashes.append(summary["records_sha256"])
    assert hashes[0] == hashes[1]
