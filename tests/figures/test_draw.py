"""`draw` and ``fedsim figures`` (fedsim/figures/draw.py): whatever fedsim left in a folder is drawn, when it is asked for."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fedsim
from fedsim.cli import main
from fedsim.errors import RunFolderError
from fedsim.records.run_folder import RunFolder
from fedsim.sweeps.compare import run as sweep
from fedsim.sweeps.stress import run as stress
from tests.samples.comparison import many, write
from tests.samples.run import sample_run

ROOT = Path(__file__).parents[2]
TIMING = """\
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, update: {groups_per_update: 8, in_flight: 16}}
tasks: {domains: [gcd], sizes: {public: 50, private: 60, auxiliary: 20, pool: 60, validation: 20, test: 20}}
clients: {phone: 3, laptop: 1}
"""
GRID = "name: hand\nbase: {}\naxes: {{dropout: {{key: dropout.per_task, levels: [0, 0.5]}}}}\nseeds: [0]\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return sample_run(tmp_path_factory.mktemp("drawn") / "run", num_updates=3)


def names(folder):
    return {path.name for path in (folder / "figures").iterdir()}


def test_a_run_and_its_folder_are_drawn_alike(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "copy")
    written = fedsim.draw(run)
    assert written[-1] == run.folder / "figures" / "index.html"
    assert {path.name for path in written} == names(run.folder) >= {"learning.png", "traffic.svg"}
    assert [path.read_bytes() for path in fedsim.draw(str(tmp_path / "copy"))] == [
        path.read_bytes() for path in written
    ]


@pytest.mark.slow
def test_the_command_draws_runs_comparisons_and_sweeps(run, tmp_path, capsys):
    comparison, scenario, grid = tmp_path / "comparison", tmp_path / "tiny.yaml", tmp_path / "grid.yaml"
    write(comparison, many(2), seeds=(0,))
    (comparison / sweep.MARKER).touch()
    scenario.write_text(TIMING)
    grid.write_text(GRID.format(scenario))
    made = tmp_path / "sweep"
    command = ["stress", str(grid), "--out", str(made), "-q", "--processes", "1"]
    assert main([*command, "--no-figures"]) == 0
    assert (made / stress.MARKER).exists() and not (made / "figures").exists()
    capsys.readouterr()
    folders = [run.folder, comparison, made]
    assert main(["figures", *map(str, folders), "-q"]) == 0
    assert capsys.readouterr() == (
        "".join(f"{folder / 'figures' / 'index.html'}\n" for folder in folders),
        "",
    )
    assert {"learning.png", "partition.svg", "index.html"} <= names(run.folder)
    assert {"compare_bytes.png", "compare_front.svg", "index.html"} <= names(comparison)
    assert {"stress_time.png", "stress_bytes.svg", "index.html"} <= names(made)
    drawn = (made / "figures" / "stress_time.png").read_bytes()
    assert main(command) == 0
    assert (made / "figures" / "stress_time.png").read_bytes() == drawn, "the sweep draws the same"


def test_a_folder_that_is_nothing_to_draw_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / sweep.MARKER).touch()
    for folder, reason in (
        (tmp_path, "is not a run folder"),
        (tmp_path / "nowhere", "is not a run folder"),
        (tmp_path / "begun", "not a finished comparison"),
        (RunFolder.create(tmp_path / "going", "going", 0).path, "the run has not ended yet"),
    ):
        assert main(["figures", str(folder), "-q"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line and str(folder) in line
        assert not (folder / "figures").exists()


def test_nothing_is_drawn_where_one_of_several_folders_is_wrong(run, tmp_path, capsys):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.rmtree(folder / "figures", ignore_errors=True)
    assert main(["figures", str(folder), str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1, "no progress before the mistake"
    assert not (folder / "figures").exists()


def test_a_run_that_failed_is_drawn_if_it_has_records(run, tmp_path):
    folder = tmp_path / "failed"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("figures", "confidence_graph*"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"status": "failed"}))
    assert {path.stem for path in fedsim.draw(folder)} > {"learning", "traffic"}
    (folder / "summary.json").unlink()
    with pytest.raises(RunFolderError, match=r"summary\.json is missing; the run failed before writing it"):
        fedsim.draw(folder)


def test_a_place_that_cannot_be_written_is_named(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("figures"))
    (folder / "figures").write_text("in the way")
    with pytest.raises(RunFolderError, match=rf"{folder / 'figures'}.*: (File exists|Not a directory)"):
        fedsim.draw(folder)


def test_a_run_has_finished_before_its_figures_are_drawn(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TIMING)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "fedsim", "run", str(tmp_path / "tiny.yaml"), "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("figures: started"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1].endswith(
        f"interrupted; what was run is kept; to draw it: fedsim figures {out}"
    )
    assert "Traceback" not in rest
    assert fedsim.load(out).manifest["status"] == "finished"
    assert main(["figures", str(out), "-q"]) == 0
    assert (out / "figures" / "index.html").exists()
