"""`fedsim stress` end to end (stress.py, workers.py): kept, resumed, interrupted, and runs that go wrong are cells."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from fedsim.cli import main
from fedsim.scenario.read import read_scenario
from fedsim.sweeps.compare.run import LOCK
from fedsim.sweeps.stress.file import open_stress, points
from fedsim.sweeps.worker import perform

ROOT = Path(__file__).resolve().parents[3]

BASE = """\
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, group_size: 4, num_experts: 2, update: {groups_per_update: 4, in_flight: 6}}
tasks: {domains: [gcd, products], sizes: {public: 0, private: 60, auxiliary: 10, pool: 30, validation: 1, test: 1}}
clients: {phone: 3, laptop: 1}
"""
GRID = """\
name: grid
base: base.yaml
seeds: [0, 1]
axes:
  dropout: {key: dropout.per_task, levels: [0, 0.5]}
  policy:
    levels:
      - {name: wait_all}
      - {name: deadline, set: {protocol.stragglers: {policy: deadline, deadline: 2 min}}}
"""
STUCK = "      - {name: stuck, set: {limits.events: 40}}\n"
ENDLESS = "      - {name: endless, set: {stop.updates: 100000000}}\n"


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def written(text, name="grid.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


def stress(path, out, *more):
    return main(
        ["stress", str(path), "--out", str(out), "--quiet", "--processes", "1", "--no-figures", *more]
    )


def rows(out, name="stress.csv"):
    with (out / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def kept(out):
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/*/ending.json")}


def test_a_sweep_writes_a_row_per_run_a_point_per_setting_and_why(write, tmp_path, capsys):
    path, out = write(GRID), tmp_path / "out"
    assert stress(path, out, "--processes", "2") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(out) and "## What each policy pays" in printed
    found = rows(out)
    assert [(row["dropout"], row["policy"], row["seed"]) for row in found] == [
        (dropout, policy, seed)
        for dropout in ("0", "0.5")
        for policy in ("wait_all", "deadline")
        for seed in ("0", "1")
    ]
    assert {row["status"] for row in found} == {"finished"}
    for row in found:
        assert float(row["time_s"]) == float(row["virtual_s"]) > 0
        summary = json.loads((out / row["folder"] / "summary.json").read_text())
        assert row["records_sha256"] == summary["records_sha256"]
        assert int(row["requests_ok"]) == summary["requests"]["ok"]
    document = json.loads((out / "stress.json").read_text())
    assert [point["statuses"] for point in document["points"]] == [{"finished": 2}] * 4
    assert document["layout"] == {"x": "dropout", "y": "policy", "panels": None}
    lost = rows(out, "why.csv")
    assert {row["cause"] for row in lost if row["dropout"] == "0.5"} == {"task dropout"}
    assert not [row for row in lost if row["dropout"] == "0"]
    assert sum(int(row["groups"]) for row in rows(out, "domains.csv")) == sum(
        int(row["groups"]) for row in found
    )


def test_a_second_start_repeats_nothing_and_writes_the_same_tables(write, tmp_path):
    path, out = write(GRID), tmp_path / "out"
    assert stress(path, out) == 0
    before, tables = (
        kept(out),
        {name: (out / name).read_bytes() for name in ("stress.csv", "stress.json", "why.csv")},
    )
    assert len(before) == 8
    assert stress(path, out) == 0
    assert kept(out) == before
    assert {name: (out / name).read_bytes() for name in tables} == tables

    torn = out / "runs" / next(iter(before))
    (torn / "ending.json").unlink()
    assert stress(path, out) == 0
    after = kept(out)
    assert after.keys() == before.keys()
    assert [key for key in after if after[key] != before[key]] == [torn.name]
    assert [row["records_sha256"] for row in rows(out)] == [
        line["records_sha256"] for line in csv.DictReader(tables["stress.csv"].decode().splitlines())
    ]


def test_a_run_that_fails_inside_is_a_cell_that_says_why_and_the_others_go_on(write, tmp_path, capsys):
    out = tmp_path / "out"
    assert stress(write(GRID + STUCK), out, "--seeds", "4") == 0
    found = {(row["dropout"], row["policy"]): row for row in rows(out)}
    assert {key for key, row in found.items() if row["status"] == "failed"} == {
        ("0", "stuck"),
        ("0.5", "stuck"),
    }
    stuck = found["0", "stuck"]
    assert stuck["reason"].startswith("LimitExceeded") and stuck["time_s"] == ""
    printed = capsys.readouterr().out
    assert "| 1 | failed | LimitExceeded: " in printed and "| 0 | stuck | 1 of 1 | failed | (1) |" in printed
    before = kept(out)
    assert stress(write(GRID + STUCK), out, "--seeds", "4") == 0
    assert kept(out) == before and len(before) == 6


def test_a_run_that_its_limit_of_virtual_time_ends_has_no_time_to_finish(write, tmp_path):
    short = GRID.replace("[0, 1]", "[0]").replace("axes:", "set: {stop.virtual: 50 ms}\naxes:")
    out = tmp_path / "out"
    assert stress(write(short), out) == 0
    assert {(row["status"], row["time_s"], row["virtual_s"]) for row in rows(out)} == {
        ("out_of_time", "", "0.05")
    }
    assert json.loads((out / "stress.json").read_text())["points"][0]["out_of_time_s"] == 0.05


def test_a_sweep_in_which_every_run_is_refused_is_refused(write, tmp_path, capsys):
    crowded = GRID.replace("axes:", "set: {protocol.num_experts: 40}\naxes:")
    assert stress(write(crowded), tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "every run was refused" in line and "num_experts is 40" in line


def test_a_file_that_is_spoiled_after_a_sweep_was_planned_is_refused_before_anything_runs(
    write, tmp_path, capsys
):
    (tmp_path / "base.yaml").write_text(BASE.replace("{phone: 3, laptop: 1}", "{file: devices.csv}"))
    devices = write("class\nphone\nphone\nlaptop\n", "devices.csv")
    path, out = write(GRID.replace("[0, 1]", "[0]")), tmp_path / "out"
    assert stress(path, out) == 0
    shutil.rmtree(out / "runs")
    devices.write_text("class\nphune\n")
    assert stress(path, out) == 2  # seen before anything runs
    error = capsys.readouterr().err.splitlines()[-1]
    assert "phune" in error and not list((out / "runs").glob("*"))


def test_a_run_that_breaks_ends_the_sweep_and_names_its_log(write, tmp_path):
    """A disk that is full (here: a limit on the size of files) is no result."""
    path = write(GRID.replace("axes:", "set: {stop.updates: 300}\naxes:"))
    done = subprocess.run(
        [sys.executable, "-m", "fedsim", "stress", str(path), "--out", str(tmp_path / "out"), "--quiet", "--no-figures"],
        cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert "broke: " in error and "File too large" in error and "worker-" in error


@pytest.mark.slow  # an interrupted comparison is like it
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_keeps_what_is_finished_and_leaves_no_process(write, tmp_path, number):
    path, out = write(GRID.replace("[0, 1]", "[0]") + ENDLESS), tmp_path / "out"
    command = ["stress", str(path), "--out", str(out), "--processes", "2", "--quiet", "--no-figures"]
    with subprocess.Popen(
        [sys.executable, "-m", "fedsim", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for _ in range(600):
            if len(kept(out)) >= 2 and list(out.glob("runs/*.unfinished/partition.csv")):
                break
            time.sleep(0.1)
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "fedsim: interrupted\n")
    assert len(listed) == 2 and not any(Path(f"/proc/{child}").exists() for child in listed)
    before = kept(out)
    assert 2 <= len(before) <= 4
    assert stress(write(GRID.replace("[0, 1]", "[0]")), out) == 0
    assert len(rows(out)) == 4 and before.items() <= kept(out).items()


def test_workers_die_with_a_sweep_that_is_killed(write, tmp_path):
    path, out = write(GRID.replace("[0, 1]", "[0]") + ENDLESS), tmp_path / "out"
    command = ["stress", str(path), "--out", str(out), "--processes", "1", "--quiet", "--no-figures"]
    with subprocess.Popen([sys.executable, "-m", "fedsim", *command], cwd=ROOT) as process:
        for _ in range(600):
            if len(kept(out)) == 2 and list(out.glob("runs/*.unfinished/partition.csv")):
                break
            time.sleep(0.1)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)
    os.kill(int(child), signal.SIGKILL)
    pytest.fail("a worker outlived its sweep by 20 s")


def test_a_folder_belongs_to_one_sweep_at_a_time_and_to_no_comparison(write, tmp_path, capsys):
    path, out = write(GRID), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    with FileLock(out / LOCK).acquire(timeout=0):
        assert stress(path, out) == 2
    assert "another sweep is running in it" in capsys.readouterr().err
    (out / "comparison.yaml").write_text("name: x\n")
    assert stress(path, out) == 2
    assert "is not a sweep" in capsys.readouterr().err


def test_check_runs_nothing_and_says_how_many_runs_there_are(write, tmp_path, capsys):
    path, out = write(GRID), tmp_path / "out"
    assert stress(path, out, "--check", "--seeds", "0,1,2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"grid: 12 runs, 0 kept in {out}, 12 to do"
    assert "  dropout: 0, 0.5" in lines and "  seeds: 0, 1, 2" in lines
    assert any(line.startswith("  dropout 0.5, policy deadline, seed 2: updates 2") for line in lines)
    assert not out.exists()
    assert stress(path, out, "--seeds", "0") == 0
    capsys.readouterr()
    assert stress(path, out, "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"grid: 8 runs, 4 kept in {out}, 4 to do"
    assert any(line.startswith("real time about ") for line in lines)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.startswith("grid: 8 runs, 0 kept")


@pytest.mark.parametrize("policy", open_stress("stragglers").stress.axes["policy"].names)
def test_every_policy_of_stragglers_ends_in_the_severe_world_at_nine_tenths_dropout(policy, tmp_path):
    opened = open_stress("stragglers")
    wanted = {"dropout": "0.9", "world": "severe", "policy": policy}
    (assignments,) = [
        [one.assignment for _, own in point.values() for one in own]
        for point in points(opened.stress)
        if {axis: name for axis, (name, _) in point.items()} == wanted
    ]
    scenario = read_scenario(opened.base, [*assignments, "stop.updates=1"], seed=0)
    (tmp_path / "one.yaml").write_text(scenario.to_yaml())
    told = perform({"scenario": str(tmp_path / "one.yaml"), "out": str(tmp_path / "run")})
    assert told["status"] == "finished", told["reason"]
