"""The wheel carries what an installed fedsim needs: figures, scenarios, presets and its types."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, so that no build folder is left in it; None of pip's network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("fedsim", "scenarios"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--no-index", "--wheel-dir", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (built,) = target.glob("*.whl")
    return built


def test_every_module_scenario_and_preset_of_the_checkout_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("fedsim", "scenarios")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"fedsim/py.typed", "fedsim/sim/presets/devices.yaml", "scenarios/quickstart.yaml"} <= wanted
    assert wanted - packed == set()
    assert not [name for name in packed if name.startswith(("analysis/", "tests/", "docs/", "benchmarks/"))]


def test_fedsim_from_the_wheel_lists_its_scenarios_and_makes_a_timing_run_with_figures(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    prelude = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from fedsim.cli import main; "

    def fedsim(*arguments):
        command = [sys.executable, "-P", "-c", prelude + f"sys.exit(main({list(arguments)!r}))"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    listed = fedsim("list")
    assert listed.returncode == 0, listed.stderr
    assert "quickstart" in listed.stdout and "edge-server" in listed.stdout
    # A small pool keeps it to seconds: the scenario's own is drawn as a figure with 8,000 nodes.
    changes = (
        "fidelity=timing",
        "stop={updates: 1}",
        "protocol.update.groups_per_update=4",
        "protocol.update.in_flight=4",
    )
    settings = [word for change in (*changes, "tasks.sizes={pool: 40}") for word in ("--set", change)]
    ran = fedsim("run", "quickstart", "--out", "run", "--quiet", *settings)
    assert ran.returncode == 0, ran.stderr
    figures = {path.suffix for path in (tmp_path / "run" / "figures").iterdir()}
    assert {".png", ".svg", ".html"} <= figures
