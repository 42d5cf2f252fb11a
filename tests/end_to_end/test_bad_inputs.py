"""Nonsense of every kind gets one clear line, exit code 2, and nothing is written: the cases of ``bad_inputs/``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.cli import main
from tests.end_to_end.bad_input_cases import GOOD, Case, joined, read_cases

CASES = read_cases()
BY_NAME = {case.name: case for case in CASES}
IN_A_PROCESS = (
    "yaml/deep_flow",
    "numbers/seed_int_5000",
    "cli/newline",
    "cli/lone_surrogate",
    "pipes/questions",
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good run folder of the good scenario."""
    folder = tmp_path_factory.mktemp("good")
    arguments = ["run", str(GOOD / "scenario.yaml"), "--out", str(folder / "run"), "--no-figures", "--quiet"]
    assert main(arguments) == 0
    return {"run": folder / "run"}


@pytest.fixture(scope="session")
def made_with_model(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good model folder as well: a Llama of a few thousand random weights."""
    from fedsim.models.real.weights import save_model
    from fedsim.models.real.zoo import scratch_network
    from tests.samples.tiny_models import TINY, tokenizer

    folder = tmp_path_factory.mktemp("good") / "model"
    save_model(scratch_network(TINY, tokenizer(), 1), tokenizer(), folder)
    return made | {"model": folder}


def needs_model(case: Case) -> bool:
    return any(isinstance(recipe, dict) and recipe.get("good") == "model" for recipe in case.files.values())


def everything_under(folder: Path) -> dict[str, tuple[int, int]]:
    """Length and last change of every file, and the folders."""
    found = {}
    for path in folder.rglob("*"):
        facts = path.lstat()
        found[path.relative_to(folder).as_posix()] = (
            (0, 0) if path.is_dir() else (facts.st_size, facts.st_mtime_ns)
        )
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nonsense_is_one_line_and_leaves_nothing_behind(
    case: Case,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    case.build(tmp_path, request.getfixturevalue("made_with_model" if needs_model(case) else "made"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDSIM_CACHE", str(tmp_path / "cache"))
    capfd.readouterr()
    before = everything_under(tmp_path)
    exit_code = main(list(case.command))
    printed = capfd.readouterr()
    assert exit_code == 2, printed
    assert printed.out == ""
    assert printed.err.endswith("\n") and printed.err.count("\n") == 1 and printed.err[:-1].isprintable()
    assert case.answers(printed.err[:-1], tmp_path), f"{printed.err[:-1]}\nshould be\n{case.line}"
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_nonsense_given_to_the_real_command_is_one_line_without_a_traceback(
    name: str, made: dict[str, Path], tmp_path: Path
) -> None:
    case = BY_NAME[name]
    case.build(tmp_path, made)
    before = everything_under(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "fedsim", *(os.fsencode(word) for word in case.command)],
        cwd=tmp_path,
        env=os.environ | {"FEDSIM_CACHE": str(tmp_path / "cache"), "PYTHONUTF8": "1"},
        capture_output=True,
    )
    line = done.stderr.decode()
    assert (done.returncode, done.stdout) == (2, b"")
    assert line.endswith("\n") and line.count("\n") == 1
    assert case.answers(line[:-1], tmp_path), line
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize(
    "name",
    sorted(path.name for path in GOOD.glob("*.yaml") if path.name not in ("comparison.yaml", "sweep.yaml")),
)
def test_what_the_cases_change_is_good_as_it_stands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(GOOD / name)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("command", "name"), [("compare", "comparison.yaml"), ("stress", "sweep.yaml")])
def test_the_good_comparison_and_sweep_resolve(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(GOOD / name), "--check", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""


def test_there_are_many_cases_of_every_kind_and_no_two_give_the_same() -> None:
    kinds: dict[str, int] = {}
    for case in CASES:
        kinds[case.name.partition("/")[0]] = kinds.get(case.name.partition("/")[0], 0) + 1
    assert len(CASES) >= 200
    assert min(kinds.values()) >= 5, kinds
    given = [repr((case.command, case.files)) for case in CASES]
    assert len(set(given)) == len(given)


def test_pieces_of_a_text_are_joined() -> None:
    assert joined("ab") == "ab"
    assert joined(["a", [3, "-"], "b"]) == "a---b"
