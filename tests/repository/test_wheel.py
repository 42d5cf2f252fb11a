"""What a user installs: one top-level name, and in it all that an installed fedsim needs, whatever lies beside it."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
# A small pool keeps it to seconds: the scenario's own is drawn as a figure with 8,000 nodes.
SMALL = (
    "fidelity=timing",
    "stop={updates: 1}",
    "protocol.update.groups_per_update=4",
    "protocol.update.in_flight=4",
    "tasks.sizes={pool: 40}",
)
PAIR = """\
name: pair
base: tiny.yaml
seeds: [0]
variants: [{name: two}, {name: three, set: {clients.phone: 3}}]
"""
TINY = """\
name: tiny
fidelity: timing
stop: {updates: 1}
protocol: {name: fedgrpo, update: {groups_per_update: 4, in_flight: 4}}
tasks: {sizes: {pool: 40}}
clients: {phone: 2}
"""


def done(*command: str | Path, cwd: Path) -> str:
    """What a command printed, which must end well, in an environment that names no other place for modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def built(source: Path, target: Path) -> Path:
    """The wheel of a folder or a source distribution, made with what is installed and without a network."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(target))
    done(*PIP, "wheel", *options, source, cwd=target)
    (wheel,) = target.glob("*.whl")
    return wheel


def packed(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what a checkout is built from, so that no build folder is left in it."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("fedsim", "scenarios"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unwanted)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return built(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """A virtual environment with the wheel, and with what this one has installed, but for editable installs."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    done(*PIP, "--python", interpreter, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(
        "\n".join(site.getsitepackages())
    )  # their own .pth files are not read
    return interpreter


@pytest.fixture
def here(tmp_path):
    """A user's folder whose own packages have names of this repository's."""
    for name in ("analysis", "scenarios"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the package of a user')\n")
    return tmp_path


def test_a_wheel_has_one_top_level_name_and_all_modules_scenarios_and_presets(wheel):
    names = packed(wheel)
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fedsim").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    scenarios = ROOT / "scenarios"
    shipped = [path for path in scenarios.rglob("*") if path.suffix in {".yaml", ".jsonl", ".md"}]
    wanted |= {f"fedsim/scenario/shipped/{path.relative_to(scenarios).as_posix()}" for path in shipped}
    assert {
        "fedsim/py.typed",
        "fedsim/sim/presets/devices.yaml",
        "fedsim/scenario/shipped/paper/base.yaml",
        "fedsim/scenario/shipped/data/skills.jsonl",
    } <= wanted
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert len({name.partition("/")[0] for name in names}) == 2


@pytest.mark.slow
def test_a_wheel_of_the_source_distribution_is_the_same(source, wheel, tmp_path):
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done(sys.executable, "-c", code, tmp_path, cwd=source)
    (distribution,) = tmp_path.glob("*.tar.gz")
    assert packed(built(distribution, tmp_path)) == packed(wheel)


@pytest.mark.slow
def test_an_installed_fedsim_runs_checks_lists_and_compares_beside_packages_of_the_same_names(python, here):
    def fedsim(*words):
        return done(python, "-m", "fedsim", *words, cwd=here)

    found = done(python, "-c", "import fedsim; print(fedsim.__file__)", cwd=here)
    assert Path(found.strip()).is_relative_to(python.parents[1])
    listed = set(fedsim("list").split())
    assert {"quickstart", "evidence", "stragglers", "paper/figure2", "edge-server"} <= listed
    assert "name: quickstart" in fedsim("check", "quickstart")
    changes = [word for change in SMALL for word in ("--set", change)]
    fedsim("run", "quickstart", "--out", "run", "--quiet", "--no-figures", *changes)
    assert (here / "run" / "summary.json").is_file()
    (here / "tiny.yaml").write_text(TINY)
    (here / "pair.yaml").write_text(PAIR)
    fedsim("compare", "pair.yaml", "--out", "pair", "--processes", "1", "--quiet")
    assert len(list((here / "pair" / "runs").glob("*/summary.json"))) == 2
    assert {".png", ".svg", ".html"} <= {path.suffix for path in (here / "pair" / "figures").iterdir()}
