"""``fedsim verify``: a run folder repeats anywhere, and what does not repeat is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

import fedsim
from fedsim.cli import main
from fedsim.experiment.verify import Drift, verify
from fedsim.scenario.read import read_scenario, scenario_from
from tests.experiment.test_resume import ROOT, TIMING, changed
from tests.samples.real_runs import tiny


@pytest.fixture(scope="module")
def timing(tmp_path_factory):
    return fedsim.run(scenario_from(TIMING), out=tmp_path_factory.mktemp("timing") / "run").folder


@pytest.fixture(scope="module")
def real(tmp_path_factory, models_cache):
    run = fedsim.run(
        scenario_from(tiny()), out=tmp_path_factory.mktemp("real") / "run", cache_dir=models_cache
    )
    return run.folder, models_cache


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "elsewhere"))


def test_a_run_keeps_the_folder_of_its_data_set_and_repeats_without_the_original(tmp_path):
    data = tmp_path / "ours"
    (data / "data").mkdir(parents=True)
    (data / "README.md").write_text("a card")
    for split, numbers in (("train", range(30)), ("test", range(30, 34))):
        table = pl.DataFrame({"problem": [f"{n} + 1" for n in numbers], "answer": [n + 1 for n in numbers]})
        table.write_parquet(data / "data" / f"{split}-00000-of-00001.parquet")
    sizes = {"public": 2, "private": 9, "auxiliary": 4, "pool": 8, "validation": 3}
    tasks = {"file": str(data), "keys": {"question": "problem"}, "sizes": sizes}
    scenario = scenario_from(TIMING | {"tasks": tasks})
    folder = fedsim.run(scenario, out=tmp_path / "run").folder
    kept = folder / "inputs" / "tasks.file"
    assert sorted(path.name for path in kept.rglob("*") if path.is_file()) == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00001.parquet",
    ]
    shutil.rmtree(data)
    assert verify(folder).differences == ()


def test_a_run_repeats_with_another_hash_seed_and_from_another_folder(timing, tmp_path):
    folder = copied(timing, tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-m", "fedsim", "verify", str(folder)],
        cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (
        0,
        f"{folder} repeats: records, summary and final policy are the same, recomputed\n",
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_first_record_that_differs_is_named(timing, tmp_path, capsys):
    folder = copied(timing, tmp_path)
    path = folder / "records" / "transfers.parquet"
    table = pl.read_parquet(path)
    size = table["wire_bytes"][3]
    number = pl.int_range(pl.len())
    table.with_columns(
        pl.when(number == 3).then(pl.col("wire_bytes") + 1).otherwise(pl.col("wire_bytes"))
    ).write_parquet(path)
    changed_summary(folder, records_sha256="of other records")
    assert main(["verify", str(folder), "-q"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == f"the first record that differs: transfers, row 3: wire_bytes was {size + 1}, now {size}"
    )
    assert lines[-1] == f"{folder} does NOT repeat"


def changed_summary(folder: Path, **entries: object) -> None:
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_number_of_the_summary_that_is_not_what_the_records_give_is_named(timing, tmp_path):
    folder = copied(timing, tmp_path)
    changed_summary(folder, updates=31)
    assert verify(folder).differences == ("summary.updates was 31, now 30",)


def test_files_that_a_scenario_names_travel_in_the_run_folder(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("client,start,end\n0,0,100000\n1,0,100000\n2,5,9\n3,5,9\n4,0,7\n5,0,7\n")
    file = tmp_path / "scenario.yaml"
    file.write_text(
        scenario_from(TIMING | {"availability": {"kind": "trace", "file": "trace.csv"}}).to_yaml()
    )
    run = fedsim.run(read_scenario(file), out=tmp_path / "run")
    trace.unlink()
    assert run.manifest["inputs"] == {
        "availability.file": f"inputs/availability.file/{tmp_path.name}/trace.csv"
    }
    assert verify(run.folder).differences == ()


def test_a_real_run_is_recomputed_to_the_same_tensors(real):
    folder, cache = real
    verdict = verify(folder, cache_dir=cache)
    assert (verdict.how, verdict.differences) == ("recomputed", ())


def test_another_final_policy_is_told(real, tmp_path):
    folder, cache = copied(real[0], tmp_path), real[1]
    weights = folder / "policy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert verify(folder, cache_dir=cache).differences == (
        "policy/model.safetensors: the final policy's tensors are others",
    )


def test_on_another_machine_the_timeline_is_replayed_and_drift_is_told(real, tmp_path):
    folder, cache = copied(real[0], tmp_path), real[1]
    changed(folder, platform={"system": "Plan 9"})
    verdict = verify(folder, cache_dir=cache)
    assert (verdict.how, verdict.why, verdict.differences) == ("replayed", "its machine's system differ", ())
    assert "update: 0 of 3 results differ" in verdict.drift  # here it is the same machine after all
    assert all(" 0 of " in line for line in verdict.drift)


def test_drift_counts_results_that_differ_and_how_far_they_are_apart():
    drift = Drift()
    drift.add("likelihood", [0.5, float("nan")], [0.5, float("nan")])
    drift.add("likelihood", [0.5, 0.25], [0.5, 0.375])
    assert list(drift.lines()) == ["likelihood: 1 of 2 results differ, numbers differ by at most 0.125"]


def test_a_run_without_its_tape_cannot_be_replayed(real, tmp_path, capsys):
    folder = copied(real[0], tmp_path)
    (folder / "tape.bin").unlink()
    assert main(["verify", str(folder), "--how", "replayed", "-q"]) == 2
    assert capsys.readouterr().err == f"{folder} has no tape.bin, so its results cannot be replayed\n"


def test_an_unfinished_run_is_not_verified(timing, tmp_path, capsys):
    folder = copied(timing, tmp_path)
    changed(folder, status="interrupted")
    assert main(["verify", str(folder)]) == 2
    assert capsys.readouterr().err == f"{folder} is interrupted; only a finished run can be verified\n"
