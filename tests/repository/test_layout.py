"""The layout that docs/design.md describes: one order of layers, small files and packages, lists of files that are there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fedsim"
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "analysis").rglob("*.py")])
MOST_LINES = 500
MOST_FILES = 15
# Packages that are wider than that, and how wide they may be.
WIDE = {
    "fedsim/models/real": 31,
    "fedsim/sim/devices": 22,
    "fedsim/protocols/shared": 17,
}
TESTS = ROOT / "tests"
APART = ("end_to_end", "mutants", "oracles", "plugins", "repository", "samples")
# Tests of what several modules of their package do together.
SEVERAL = {
    "cli/test_commands.py", "config/test_lines.py", "config/test_longest_time.py", "experiment/replay/test_kills.py",
    "experiment/replay/test_kills_of_others.py", "federation/stragglers/test_spares.py",
    "federation/stragglers/test_theory.py", "federation/test_base_model.py", "figures/test_edges.py",
    "protocols/test_controls.py", "scenario/test_settings.py", "scenario/test_shipped_async.py",
    "scenario/test_shipped_paper.py", "sim/devices/test_published_speeds.py", "sim/network/test_theory.py",
}  # fmt: skip
SOURCES = re.compile("_DETERMINING_SOURCES|_(PACKAGES_)?WITHOUT_RESULTS")


def layers() -> list[str]:
    """Packages and modules in the root, highest first, as the contract orders them; without those that are yet to come."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [contract for contract in settings["contracts"] if contract["type"] == "layers"]
    there = re.sub(r"\([\w.]+\)", "", "|".join(contract["layers"]))
    return re.findall(r"fedsim\.(\w+)", there)


def test_the_root_holds_the_layers_of_the_contract_and_the_public_face():
    there = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    wanted = {name if (PACKAGE / name).is_dir() else f"{name}.py" for name in layers()}
    assert there == wanted | {"__init__.py", "__main__.py", "py.typed"}


def test_the_layers_of_the_design_have_the_order_of_the_contract():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    table = page.partition("\n## Layers\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)(?:/|\.py)` \|", table, re.M) == layers()[::-1]


def test_every_file_of_the_readers_way_is_there():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    way = page.partition("\n### A reader's way")[2].partition("\n## ")[0]
    steps = re.findall(r"^\d+\. `([\w./]+)`", way, re.M)
    assert len(steps) == 10
    assert [step for step in steps if not (ROOT / step).exists()] == []


def test_no_file_is_too_long():
    assert [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES] == []


def test_no_package_is_too_wide():
    folders = {path.parent.relative_to(ROOT).as_posix(): path.parent for path in FILES}
    found = {name: len(list(folder.glob("*.py"))) - 1 for name, folder in folders.items()}
    assert {name: number for name, number in found.items() if number > WIDE.get(name, MOST_FILES)} == {}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_a_package_opens_with_a_list_of_all_its_files(path):
    if path.parent == PACKAGE:
        return
    text = path.read_text(encoding="utf-8")
    names = {other.stem for other in path.parent.glob("*.py")} | {
        other.parent.name for other in path.parent.glob("*/__init__.py")
    }
    assert {name for name in names - {"__init__"} if not re.search(rf"\b{name}\b", text)} == set()


def lists_of_sources() -> list[tuple[Path, str]]:
    """Every name in a list of source files, with the file that has the list."""
    found = []
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and SOURCES.fullmatch(node.targets[0].id)
            ):
                found += [(path, name) for name in ast.literal_eval(node.value)]
    return found


def test_every_file_in_a_list_of_sources_is_there():
    lists = lists_of_sources()
    assert len({path for path, _ in lists}) >= 4
    assert [
        (path, name)
        for path, name in lists
        if not ((path.parent / name).exists() or (PACKAGE / name).exists())
    ] == []


def modules_beside(folder: Path) -> set[str]:
    """What a test file in a folder of tests may be named by: modules and packages of the folder that it mirrors, and itself."""
    place = folder.relative_to(TESTS)
    home = ROOT / place if place.parts[:1] == ("analysis",) else PACKAGE / place
    packages = {path.parent.name for path in home.glob("*/__init__.py")}
    return {path.stem for path in home.glob("*.py")} | packages | ({home.name} if home.is_dir() else set())


def test_tests_mirror_the_package():
    others = {
        path.relative_to(TESTS).as_posix()
        for path in TESTS.rglob("test_*.py")
        if path.relative_to(TESTS).parts[0] not in APART
        and not any(
            re.fullmatch(rf"test_{re.escape(name)}(_\w+)?", path.stem) for name in modules_beside(path.parent)
        )
    }
    assert others == SEVERAL
