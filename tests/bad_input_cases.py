"""Reading the cases of ``tests/bad_inputs`` and building the files that a case gives to the program.

A case is a YAML file: ``command`` (the command line), what stderr must hold (``expected`` literally, or ``pattern`` as a
regular expression for all of the line) and ``files``: a path below the working directory for each recipe. A recipe is a
text, or a mapping whose keys are steps, done in the order of `_STEPS`; ``tests/bad_inputs/README.md`` describes them.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "bad_inputs"
GOOD = FOLDER / "good"
KEYS = {"command", "expected", "pattern", "files", "why", "torch"}


@dataclass(frozen=True)
class Case:
    """One bad input: what is given to ``fedsim``, and the line that it must answer."""

    name: str
    command: tuple[str, ...]
    expected: re.Pattern[str]
    files: Mapping[str, Any]
    torch: bool

    def build(self, folder: Path, made: Mapping[str, Path]) -> None:
        """Write the case's files below ``folder``; ``made`` are good folders that a test has made, by name."""
        for name, recipe in self.files.items():
            _build(folder / name, {"text": recipe} if isinstance(recipe, str) else recipe, made)


def read_case(path: Path) -> Case:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = set(data) - KEYS
    assert not unknown, f"{path}: {unknown} are no keys of a case"
    assert ("expected" in data) != ("pattern" in data), f"{path}: give one of expected and pattern"
    pattern = data["pattern"] if "pattern" in data else re.escape(data["expected"])
    command = data["command"]
    return Case(
        name=path.relative_to(FOLDER).with_suffix("").as_posix(),
        command=tuple(shlex.split(command) if isinstance(command, str) else command),
        expected=re.compile(pattern),
        files=data.get("files", {}),
        torch=data.get("torch", False),
    )


def read_cases() -> list[Case]:
    """Every case, by folder and name."""
    return [read_case(path) for path in sorted(FOLDER.glob("*/*.yaml")) if path.parent != GOOD]


def _build(path: Path, recipe: Mapping[str, Any], made: Mapping[str, Path]) -> None:
    unknown = set(recipe) - set(_STEPS)
    assert not unknown, f"{path.name}: {unknown} are no steps of a recipe"
    path.parent.mkdir(parents=True, exist_ok=True)
    for step, act in _STEPS.items():
        if step in recipe:
            act(path, recipe[step], made)


def _good(path: Path, name: str, made: Mapping[str, Path]) -> None:
    source = made.get(name, GOOD / name)
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copyfile(source, path)


def _folder(path: Path, wanted: bool, made: Mapping[str, Path]) -> None:
    assert wanted
    path.mkdir()


def _link(path: Path, target: str, made: Mapping[str, Path]) -> None:
    path.symlink_to(target)


def _text(path: Path, text: str, made: Mapping[str, Path]) -> None:
    path.write_bytes(text.encode())


def _bytes(path: Path, pieces: str, made: Mapping[str, Path]) -> None:
    path.write_bytes(bytes.fromhex(pieces))


def _repeat(path: Path, pieces: list[Any], made: Mapping[str, Path]) -> None:
    texts = [piece if isinstance(piece, str) else piece[1] * piece[0] for piece in pieces]
    path.write_bytes("".join(texts).encode())


def _replace(path: Path, pairs: Mapping[str, str], made: Mapping[str, Path]) -> None:
    content = path.read_bytes().decode()
    for old, new in pairs.items():
        assert content.count(old) == 1, f"{path.name} holds {old!r} {content.count(old)} times, not once"
        content = content.replace(old, new)
    path.write_bytes(content.encode())


def _add(path: Path, text: str, made: Mapping[str, Path]) -> None:
    with path.open("ab") as stream:
        stream.write(text.encode())


def _json(path: Path, entries: Mapping[str, Any], made: Mapping[str, Path]) -> None:
    """Set entries of a JSON object by path; null for a key takes it away."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for key, value in entries.items():
        *way, last = key.split(".")
        place = data
        for step in way:
            place = place[step]
        place[last] = value
    path.write_text(json.dumps(data), encoding="utf-8")


def _without(path: Path, keys: list[str], made: Mapping[str, Path]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        del data[key]
    path.write_text(json.dumps(data), encoding="utf-8")


def _encoding(path: Path, name: str, made: Mapping[str, Path]) -> None:
    path.write_bytes(path.read_bytes().decode().encode(name))


def _cut(path: Path, num_bytes: int, made: Mapping[str, Path]) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])


def _size(path: Path, num_bytes: int, made: Mapping[str, Path]) -> None:
    """Make the file this long, without writing what is added (a hole)."""
    with path.open("ab") as stream:
        stream.truncate(num_bytes)


def _delete(path: Path, wanted: bool, made: Mapping[str, Path]) -> None:
    assert wanted
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


_STEPS: Mapping[str, Callable[[Path, Any, Mapping[str, Path]], None]] = {
    "folder": _folder,
    "link": _link,
    "good": _good,
    "text": _text,
    "hex": _bytes,
    "repeat": _repeat,
    "replace": _replace,
    "add": _add,
    "json": _json,
    "without": _without,
    "encoding": _encoding,
    "cut": _cut,
    "size": _size,
    "delete": _delete,
}
