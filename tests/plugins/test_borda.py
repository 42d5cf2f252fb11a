"""A third party's protocol, with messages and purposes of its own, goes every way that fedsim's own protocols go."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import tomllib
from collections import Counter, deque
from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.experiment.forecast.device_table import population_table
from fedsim.figures.compare.report import COMPARISON_FIGURES
from fedsim.figures.compare.runs import read
from fedsim.figures.devices.figure import population_figure
from fedsim.figures.run.report import FIGURES
from fedsim.figures.run.traffic import traffic
from fedsim.figures.stress.report import STRESS_FIGURES
from fedsim.figures.stress.runs import read_sweep
from fedsim.progress import SilentProgress
from fedsim.records.run import load
from fedsim.records.run_folder import read_manifest
from fedsim.scenario.read import read_scenario
from fedsim.sweeps.compare.file import open_comparison
from fedsim.sweeps.compare.run import RUNS, Finished
from fedsim.sweeps.stress.endings import EveryEnding
from fedsim.sweeps.stress.file import open_stress
from fedsim.sweeps.worker import perform
from fedsim.sweeps.workers import perform_missing, unfinished
from tests.samples.plugins import installed

BORDA = Path(__file__).parent / "borda"
SCENARIO = BORDA / "borda.yaml"
VARIANTS = "variants: [{name: two}, {name: three, set: {protocol.num_voters: 3}}]"
KILLED = """
import os, signal, sys
from fedsim import read_scenario, run
from fedsim.progress import SilentProgress

class Killer(SilentProgress):
    def phase(self, name, total=None):
        self.updates_left = 30
        return self
    def advance(self, n=1, **stats):
        self.updates_left -= n
        if not self.updates_left:
            os.kill(os.getpid(), signal.SIGKILL)
    def __enter__(self): return self
    def __exit__(self, *error): pass

run(read_scenario(sys.argv[1]), out=sys.argv[2], progress=Killer())
"""
AXES = "axes: {voters: {key: protocol.num_voters, levels: [1, 3]}}"


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    """What pip would leave of it, and a path to its file (an editable checkout)."""
    project = tomllib.loads((BORDA / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("site")
    with installed(
        site, project["entry-points"]["fedsim.protocols"], project["name"], project["version"], BORDA
    ):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(["run", str(SCENARIO), "--out", str(out), "--no-figures", "-q"]) == 0
    return load(out)


class ThisProcess:
    """A pool of workers that performs a run when it is given."""

    def __init__(self, store):
        self.store, self.done = store, deque()

    def has_room(self):
        return not self.done

    def at_work(self):
        return bool(self.done)

    def give(self, planned):
        scenario = self.store / f"{planned.key}.yaml"
        scenario.write_text(planned.scenario.to_yaml())
        out = unfinished(planned, self.store)
        self.done.append((planned, perform({"scenario": str(scenario), "out": str(out)})))

    def reports(self):
        yield self.done.popleft()

    def close(self):
        pass


def many(folder, plan, kind, opened, rules):
    """A comparison or a sweep: its runs, performed here, then the command, which finds them and writes the tables."""
    path, out = folder / "many.yaml", folder / "out"
    (folder / "short.yaml").write_text(SCENARIO.read_text().replace("updates: 40", "updates: 3"))
    path.write_text(f"name: many\nbase: short.yaml\nseeds: [0]\n{plan}\n")
    (out / RUNS).mkdir(parents=True)
    perform_missing(opened(path).runs(), out / RUNS, ThisProcess, rules, SilentProgress())
    assert main([kind, str(path), "--out", str(out), "--no-figures", "-q"]) == 0
    return out


def test_check_lists_its_settings_and_estimates_its_bytes(capsys):
    assert main(["check", str(SCENARIO)]) == 0
    printed = capsys.readouterr().out
    assert "num_voters: 2" in printed and "wire" in printed


def test_every_byte_has_a_purpose_and_the_summary_says_what_leaves(run):
    assert run.manifest["purposes"] == {
        "ballot": None, "ranking": "rankings", "setup": None, "cancel": None, "control": None,
    }  # fmt: skip
    assert [*run.manifest["plugins"]] == ["fedsim-borda"]
    sizes = run.summary["bytes"]
    assert {name for name, size in sizes["by_purpose"].items() if size} == {"ballot", "ranking"}
    assert sum(sizes["by_purpose"].values()) == sum(sizes["wire"].values())
    assert run.summary["leaves"] == ["rankings"] and run.summary["privacy"] is None
    sent = run.transfers.filter(fate="useful", direction="up")
    assert {*sent["paper_bytes"]} == {4}, "a byte for each of four candidates"
    assert run.summary["updates"] == 40 and run.summary["requests"]["ok"] > 300


def test_a_run_that_was_killed_goes_on_to_the_same_end(run, tmp_path):
    out = tmp_path / "run"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(SCENARIO), str(out)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert read_manifest(out)["status"] == "running"
    assert main(["resume", str(out), "--no-figures", "-q"]) == 0
    assert load(out).summary | {"wall_s": 0} == run.summary | {"wall_s": 0}


def test_verify_repeats_it(run, capsys):
    assert main(["verify", str(run.folder), "-q"]) == 0
    assert "although" not in capsys.readouterr().out


def test_every_figure_of_a_run_can_be_drawn_and_its_bars_sum_to_their_totals(run):
    drawn = {spec.name: spec.draw(run) is not None for spec in FIGURES}
    assert drawn == {
        "learning": False, "device_timeline": True, "traffic": True, "confidence_graph": False, "partition": True,
    }  # fmt: skip
    shares = traffic(run).axes[2]
    assert [text.get_text() for text in shares.get_legend().get_texts()] == ["ballot", "ranking"]
    totals = Counter()
    for bar in shares.patches:
        totals[round(bar.get_y() + bar.get_height() / 2)] += bar.get_width()
    assert totals == pytest.approx({0: 100, 1: 100, 2: 100})
    assert population_figure(population_table(read_scenario(SCENARIO))) is not None


def test_it_can_be_compared(tmp_path):
    out = many(tmp_path, VARIANTS, "compare", open_comparison, Finished())
    variants = json.loads((out / "comparison.json").read_text())["variants"]
    assert [(one["name"], one["protocol"], one["leaves"]) for one in variants] == [
        ("two", "borda", ["rankings"]), ("three", "borda", ["rankings"]),
    ]  # fmt: skip
    assert "rankings" in (out / "comparison.md").read_text()
    comparison = read(out)
    assert {spec.name for spec in COMPARISON_FIGURES if spec.draw(comparison)} == {
        "compare_bytes"
    }  # nothing was learnt


def test_it_can_be_stressed(tmp_path):
    out = many(tmp_path, AXES, "stress", open_stress, EveryEnding())
    with (out / "stress.csv").open(newline="") as table:
        one, three = csv.DictReader(table)
    assert (int(one["rewards_wanted"]), int(three["rewards_wanted"])) == (
        int(one["groups"]), 3 * int(three["groups"]),
    )  # fmt: skip
    sweep = read_sweep(out)
    assert sum(spec.draw(sweep) is not None for spec in STRESS_FIGURES) > 1
