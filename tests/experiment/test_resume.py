"""``fedsim resume``: what is refused and why, and a run that was interrupted goes on to the same end."""

from __future__ import annotations

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

import fedsim
from fedsim.cli import main
from fedsim.errors import RunFolderError
from fedsim.experiment.journal import OLD_SPOOL, SPOOL
from fedsim.experiment.resume import resume
from fedsim.records.run import load
from fedsim.records.run_folder import RunFolder
from fedsim.scenario.read import scenario_from

ROOT = Path(__file__).parents[2]
TIMING = {
    "name": "short",
    "fidelity": "timing",
    "stop": {"updates": 30},
    "protocol": {"name": "fedgrpo", "update": {"groups_per_update": 8, "in_flight": 16}},
    "clients": {"phone": 4, "laptop": 2},
    "availability": {"kind": "sessions", "mean_on": "2 min", "mean_off": "30 s"},
}


def changed(folder: Path, **entries: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory):
    return fedsim.run(scenario_from(TIMING), out=tmp_path_factory.mktemp("finished") / "run").folder


@pytest.fixture
def finished(finished_once, tmp_path):
    """A finished run that the test may spoil."""
    return Path(shutil.copytree(finished_once, tmp_path / "run"))


def test_a_finished_run_says_so_and_ends_well(finished, capsys):
    assert main(["resume", str(finished)]) == 0
    assert capsys.readouterr().out == f"{finished} has finished; there is nothing to resume\n"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"status": "failed", "error": "Deadlock: all wait"}, "the run failed, and would fail again .Deadlock: all wait"),
        ({"code": "another"}, "cannot go on to the same end here: fedsim's code differs"),
        ({"versions": {"python": "2.7"}}, "python was 2.7, here it is"),
        ({"platform": {"system": "Plan 9"}}, "its machine's system differ"),
        ({"scenario": None}, "the run ended before it began"),
        ({"format_version": 99}, "has run format 99, newer than"),
    ],
)  # fmt: skip
def test_what_cannot_go_on_is_refused_in_one_line(finished, capsys, entries, said):
    changed(finished, **({"status": "running"} | entries))
    assert main(["resume", str(finished)]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert len(errors.splitlines()) == 1
    with pytest.raises(RunFolderError, match=said):
        resume(finished)


def test_two_processes_do_not_work_on_one_run(finished, capsys):
    changed(finished, status="running")
    held = RunFolder.reopen(finished)
    child = subprocess.run(
        [sys.executable, "-m", "fedsim", "resume", str(finished)], cwd=ROOT, capture_output=True, text=True
    )
    assert (child.returncode, child.stdout) == (2, "")
    assert child.stderr == f"{finished}: another process is at work in it; wait for it to end\n"
    held.lock.release()
    assert resume(finished).manifest["status"] == "finished"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A scenario that takes a while, and a run of it that nobody ended."""
    folder = tmp_path_factory.mktemp("unbroken")
    scenario = folder / "scenario.yaml"
    scenario.write_text(scenario_from(TIMING | {"stop": {"updates": 90}}).to_yaml())
    assert main(["run", str(scenario), "--out", str(folder / "whole"), "--no-figures", "-q"]) == 0
    return scenario, folder / "whole"


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_run_ended_by_a_signal_goes_on_to_the_same_end(tmp_path, unbroken, number):
    scenario, whole = unbroken
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "fedsim", "run", str(scenario), "--out", str(out), "--no-figures", "-q"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while not ((out / SPOOL).exists() and (out / SPOOL).stat().st_size > 20_000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        errors = process.communicate()[1]
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert errors == f"fedsim: interrupted; to go on: fedsim resume {out}\n"
        assert load(out).manifest["status"] == "interrupted"
    assert main(["resume", str(out), "--no-figures", "-q"]) == 0
    ours, theirs = load(out), load(whole)
    assert ours.summary | {"wall_s": 0} == theirs.summary | {"wall_s": 0}
    assert ours.metrics.equals(theirs.metrics, null_equal=True)
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_record_that_does_not_come_again_is_named(finished, tmp_path):
    log_path = finished / SPOOL
    from fedsim.records.log import RecordLog
    from fedsim.records.rows import Update

    changed(finished, status="running")
    rows = load(finished).updates.row(0, named=True)
    log = RecordLog(log_path)  # an earlier life that began otherwise
    log.add(Update(**rows))
    log.close()
    with pytest.raises(RunFolderError, match=r"the run does not repeat: record 0 differs: it was Update"):
        resume(finished)
    assert (finished / OLD_SPOOL).exists()


def no_file_above(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_leaves_a_run_that_can_go_on(tmp_path):
    scenario, out = tmp_path / "scenario.yaml", tmp_path / "run"
    protocol = {"name": "fedgrpo", "update": {"groups_per_update": 24, "in_flight": 48}}
    scenario.write_text(scenario_from(TIMING | {"protocol": protocol}).to_yaml())
    done = subprocess.run(
        [sys.executable, "-m", "fedsim", "run", str(scenario), "--out", str(out), "--no-figures", "-q"],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=lambda: no_file_above(200_000),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{out / SPOOL}: cannot write it: File too large\n"
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    assert resume(out).manifest["status"] == "finished"
