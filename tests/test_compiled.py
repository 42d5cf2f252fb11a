"""Modules that were compiled give the records of those that are written, and are used only where they fit them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim import compiled, compiling

ROOT = Path(__file__).parents[1]

# One of everything that a request goes through: losses, handshakes, hazards, faults, absences that cut or suspend, edges.
PROGRAM = """
import sys, tempfile
from pathlib import Path
from fedsim import compiled
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, compiled._Finder)]
if sys.argv[1] != "-":
    compiled.use_if_built(Path(sys.argv[1]))
import fedsim.request
from fedsim import experiment
from fedsim.scenario import read_scenario
print(compiled.in_use(), Path(fedsim.request.__file__).suffix == ".py")
for number, case in enumerate(open(sys.argv[2]).read().split("\\n")):
    name, *sets = case.split()
    with tempfile.TemporaryDirectory() as folder:
        ran = experiment.run(read_scenario(name, sets), out=Path(folder) / "run")
        print(ran.summary["records_sha256"], ran.summary["requests"])
"""
CASES = """\
quickstart fidelity=timing stop.updates=4 world=severe
middle fidelity=timing stop.updates=4 availability.on_cut=suspend network.loss=0.02 network.connection=per_request
faults fidelity=timing stop.updates=4
middle fidelity=timing stop.updates=4 dropout.hazard=4/h"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compiling.build(folder, optimisation=0)
    return folder


def play(folder: Path | str, tmp_path: Path) -> list[str]:
    """What the program prints that runs the cases with the compiled modules in a folder (``-``: with none)."""
    (tmp_path / "cases.txt").write_text(CASES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", compiled.SWITCH: "1"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "cases.txt")],
        env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert not ran.returncode, ran.stderr[-2000:]
    return ran.stdout.splitlines()


def test_compiled_modules_give_the_same_records(built, tmp_path):
    head, *rows = play(built, tmp_path)
    assert head == "True False"
    plain_head, *plain_rows = play("-", tmp_path)
    assert plain_head == "False True"
    assert len(rows) == CASES.count("\n") + 1
    assert rows == plain_rows


def test_every_module_was_built_and_knows_its_sources(built):
    digest, *names = (built / compiled.LIST).read_text().split()
    assert digest == compiled.fingerprint()
    assert set(compiled.MODULES) < set(names)
    assert all((built / f"{name}{compiled.SUFFIX}").is_file() for name in names)


@pytest.mark.parametrize("why", ["another source", "switched off", "nothing there"])
def test_they_are_passed_over_where_they_do_not_fit(why, built, tmp_path, monkeypatch):
    folder = tmp_path
    if why != "nothing there":
        digest, *names = (built / compiled.LIST).read_text().split()
        digest = digest if why == "switched off" else "0" * len(digest)
        (folder / compiled.LIST).write_text("\n".join([digest, *names]))
    monkeypatch.setenv(compiled.SWITCH, "0" if why == "switched off" else "1")
    finders = list(sys.meta_path)
    compiled.use_if_built(folder)
    assert sys.meta_path == finders


def test_the_fingerprint_changes_with_any_source(tmp_path, monkeypatch):
    before = compiled.fingerprint()
    changed = tmp_path / "leg.py"
    changed.write_bytes(compiled.source_of("fedsim.leg").read_bytes() + b"\n")
    source_of = compiled.source_of
    monkeypatch.setattr(
        compiled, "source_of", lambda name: changed if name == "fedsim.leg" else source_of(name)
    )
    assert compiled.fingerprint() != before


def test_a_compiler_that_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    monkeypatch.setattr(compiled, "MODULES", ("fedsim.hazard",))
    monkeypatch.setattr(compiling, "MODULES", ("fedsim.hazard",))
    with pytest.raises(compiling.CompileError, match=r"could not be compiled: .*no-compiler") as caught:
        compiling.build(tmp_path / "folder")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "folder").exists()
