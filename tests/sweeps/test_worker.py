"""Lasting worker processes (worker.py): the same records as `fedsim run`, endings as reports."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.errors import LostError
from fedsim.experiment import run as experiment
from fedsim.processes.children import Child
from fedsim.scenario.read import read_scenario
from fedsim.sweeps.worker import perform

ROOT = Path(__file__).resolve().parents[2]

BASE = """\
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, group_size: 4, num_experts: 2, update: {groups_per_update: 4, in_flight: 6}}
tasks: {domains: [gcd, products], sizes: {public: 0, private: 60, auxiliary: 10, pool: 30, validation: 1, test: 1}}
clients: {phone: 3, laptop: 1}
dropout: {per_task: 0.2}
"""


@pytest.fixture
def worker(tmp_path):
    with contextlib.closing(Child(tmp_path / "worker.log")) as child:
        yield child


@pytest.fixture
def order(worker, tmp_path):
    def ordered(text, out):
        scenario = tmp_path / f"{out}.yaml"
        scenario.write_text(text)
        worker.ask(perform, {"scenario": scenario, "out": tmp_path / out, "cache_dir": None})

    return ordered


def test_records_are_those_of_fedsim_run_whichever_run_of_the_process_it_is(worker, order, tmp_path):
    texts = {"a": BASE, "b": BASE.replace("tiny", "other").replace("updates: 2", "updates: 3"), "c": BASE}
    for out, text in texts.items():
        order(text, out)
        assert worker.answer()["status"] == "finished"
    (tmp_path / "alone.yaml").write_text(BASE)
    command = ["run", str(tmp_path / "alone.yaml"), "--out", str(tmp_path / "alone"), "--no-figures", "-q"]
    subprocess.run([sys.executable, "-m", "fedsim", *command], cwd=ROOT, check=True, capture_output=True)
    files = sorted(path.name for path in (tmp_path / "alone" / "records").iterdir())
    for out in ("a", "c"):
        for name in files:
            assert (tmp_path / out / "records" / name).read_bytes() == (
                tmp_path / "alone" / "records" / name
            ).read_bytes()
    hashes = {
        out: json.loads((tmp_path / out / "summary.json").read_text())["records_sha256"]
        for out in (*texts, "alone")
    }
    assert hashes["a"] == hashes["c"] == hashes["alone"] != hashes["b"]


def test_a_run_that_fails_inside_is_a_report_and_the_next_one_is_run(worker, order):
    order(BASE + "limits: {events: 10}\n", "short")
    told = worker.answer()
    assert told["status"] == "failed" and told["reason"].startswith("LimitExceeded: ") and told["wall_s"] > 0
    order(BASE.replace("num_experts: 2", "num_experts: 9"), "crowded")
    told = worker.answer()
    assert told["status"] == "refused" and "num_experts is 9" in told["reason"]
    order(BASE, "fine")
    assert worker.answer() | {"wall_s": 0} == {"status": "finished", "reason": "", "wall_s": 0}


def test_what_is_no_result_ends_the_process_with_its_traceback(worker, order, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "stranger").write_text("x")
    order(BASE, "taken")
    with pytest.raises(LostError, match=r"^ended \(1\): fedsim\.errors\.RunFolderError: "):
        worker.answer()
    assert (tmp_path / "worker.log").read_text().startswith("Traceback")


def test_a_worker_sees_the_same_scenario_that_a_sweep_has_resolved(tmp_path):
    """Orders go by file: what a resolved scenario is written as must read back as itself."""
    (tmp_path / "base.yaml").write_text(BASE)
    planned = read_scenario(tmp_path / "base.yaml", ["dropout.per_task=0.123456789012"], 3).anchored()
    (tmp_path / "order.yaml").write_text(planned.to_yaml())
    read = read_scenario(tmp_path / "order.yaml")
    assert read.resolved() == planned.resolved()
    finished = experiment.run(read, out=tmp_path / "run")
    assert finished.manifest["scenario"]["dropout"]["per_task"] == planned.resolved()["dropout"]["per_task"]
