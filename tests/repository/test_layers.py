"""What is imported when: a scenario is checked, and a timing run is made, without any heavy package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "reasoning_gym", "peft", "accelerate"}
TIMING = """
from fedsim.experiment import run as experiment; from fedsim.scenario.read import scenario_from
settings = scenario_from({
    "name": "t", "fidelity": "timing", "stop": {"updates": 2}, "clients": {"phone": 3},
    "protocol": {"name": "fedgrpo", "update": {"groups_per_update": 4, "in_flight": 4}},
    "tasks": {"sizes": {"pool": 20}},
})
"""


def imported_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running the code."""
    return {name.partition(".")[0] for name in modules_after(code)}


def modules_after(code: str) -> set[str]:
    """Every module that a fresh interpreter has loaded after running the code."""
    ending = "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code + ending], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_neither_torch_nor_transformers_nor_reasoning_gym_is_imported_by_a_check_an_estimate_or_a_timing_run():
    code = """
import tempfile
import fedsim.cli, fedsim.scenario.read, fedsim.sweeps.compare.run
import fedsim.models.timing.stand_ins, fedsim.protocols.shared.monitor
from fedsim import protocols
from fedsim.experiment.forecast.estimate import estimate
for name in protocols.PROTOCOLS: protocols.load(name)
estimate(settings)
experiment.run(settings, out=tempfile.mkdtemp() + "/run")
"""
    assert imported_by(TIMING + code) & HEAVY == set()


COMMAND = "from fedsim import cli\nassert cli.main({!r}) == 0"


def test_checking_a_scenario_imports_nothing_that_only_reads_or_writes_results():
    modules = modules_after(COMMAND.format(["check", "scenarios/quickstart.yaml"]))
    assert (
        modules & {"fedsim.experiment.run", "fedsim.experiment.journal", "fedsim.records.run", "numpy.ma"}
        == set()
    )
    checked = {name.partition(".")[0] for name in modules}
    assert checked & (HEAVY | {"polars", "networkx", "scipy", "matplotlib", "rich"}) == set()
    assert {"numpy", "pydantic", "simpy"} <= checked  # it did play


def test_a_timing_run_without_figures_imports_polars_and_no_other_large_package(tmp_path):
    words = ["--set", "fidelity=timing", "--set", "stop.updates=1", "--set", "tasks.sizes.pool=200"]
    words += [
        "--set",
        "protocol.update.groups_per_update=2",
        "--no-figures",
        "-q",
        "--out",
        str(tmp_path / "run"),
    ]
    ran = imported_by(COMMAND.format(["run", "scenarios/quickstart.yaml", *words]))
    assert ran & (HEAVY | {"networkx", "scipy", "matplotlib", "rich"}) == set()
    assert "polars" in ran
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("word", ["scenarios/quickstart.yaml", "scenarios/paper/probe.yaml", "no_such_file"])
def test_garbage_is_looked_for_again_once_a_command_has_started(word):
    code = f"import gc\nfrom fedsim import cli\ncli.main(['check', {word!r}])\n"
    code += "assert gc.isenabled()\nassert gc.get_freeze_count() > 10_000"
    assert "fedsim" in imported_by(code)


def test_the_check_above_would_see_such_an_import():
    assert "reasoning_gym" in imported_by(
        "import sys, types; sys.modules['reasoning_gym'] = types.ModuleType('x')"
    )


def test_importing_fedsim_itself_costs_next_to_nothing():
    assert imported_by("import fedsim") & (HEAVY | {"numpy", "pydantic", "polars", "simpy"}) == set()


def test_the_seven_rows_of_the_house_are_not_climbed():
    """Protocols see roles, records and the federation, and never models' code, tasks' generation or the experiment."""
    code = "from fedsim import protocols\nfor name in protocols.PROTOCOLS: protocols.load(name)\nimport sys"
    code += "\nprint(*[name for name in sys.modules if name.startswith('fedsim.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    above = {
        "fedsim.experiment.run",
        "fedsim.sweeps.compare.run",
        "fedsim.cli",
        "fedsim.records.run",
        "fedsim.models.real.policy",
    }
    assert loaded & (above | {"fedsim.tasks.dataset", "fedsim.models.real.bundle"}) == set()
