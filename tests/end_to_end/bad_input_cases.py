"""Reading the cases of ``tests/end_to_end/bad_inputs`` and building the files that a case gives to the program.

A case is a YAML file: ``command`` (the command line), the line that stderr must hold (``expected`` is all of it, ``begins``
its beginning, where a long list follows) and ``files``: a path below the working directory for each recipe. A recipe is
a text, or a mapping whose keys are steps, done in the order of `_STEPS`; ``tests/end_to_end/bad_inputs/README.md`` describes
them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

FOLDER = Path(__file__).parent / "bad_inputs"
GOOD = FOLDER / "good"
KEYS = {"command", "expected", "begins", "files"}

Made = Mapping[str, Path]
"""Good folders (a run, a model) that a test has made, by name."""


@dataclass(frozen=True)
class Case:
    """One bad input: what is given to ``fedsim``, and the line that it must answer."""

    name: str
    command: tuple[str, ...]
    line: str
    whole: bool
    files: Mapping[str, Any]

    def build(self, folder: Path, made: Made) -> None:
        """Write the case's files below ``folder``."""
        for name, recipe in self.files.items():
            _build(folder / name, {"text": recipe} if isinstance(recipe, str | list) else recipe, made)

    def answers(self, line: str, folder: Path) -> bool:
        """Whether this is the line that the case expects when it is built in a folder."""
        wanted = self.line.replace("{cwd}", str(folder))
        return line == wanted if self.whole else line.startswith(wanted)


def read_case(path: Path) -> Case:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = set(data) - KEYS
    assert not unknown, f"{path}: {unknown} are no keys of a case"
    assert ("expected" in data) != ("begins" in data), f"{path}: give one of expected and begins"
    command = data["command"]
    return Case(
        name=path.relative_to(FOLDER).with_suffix("").as_posix(),
        command=tuple(shlex.split(command) if isinstance(command, str) else map(joined, command)),
        line=joined(data.get("expected") or data["begins"]),
        whole="expected" in data,
        files=data.get("files", {}),
    )


def joined(pieces: str | list[Any]) -> str:
    """A text, or pieces of one: ``[count, text]`` stands for a text that is repeated."""
    if isinstance(pieces, str):
        return pieces
    return "".join(piece if isinstance(piece, str) else piece[1] * piece[0] for piece in pieces)


def read_cases() -> list[Case]:
    """Every case, by folder and name."""
    return [read_case(path) for path in sorted(FOLDER.glob("*/*.yaml")) if path.parent != GOOD]


def _build(path: Path, recipe: Mapping[str, Any], made: Made) -> None:
    unknown = set(recipe) - set(_STEPS)
    assert not unknown, f"{path.name}: {unknown} are no steps of a recipe"
    path.parent.mkdir(parents=True, exist_ok=True)
    for step, act in _STEPS.items():
        if step in recipe:
            act(path, recipe[step], made)


def _good(path: Path, name: str, made: Made) -> None:
    source = made.get(name, GOOD / name)
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copyfile(source, path)


def _folder(path: Path, wanted: bool, made: Made) -> None:
    assert wanted
    path.mkdir()


def _link(path: Path, target: str, made: Made) -> None:
    path.symlink_to(target)


def _pipe(path: Path, wanted: bool, made: Made) -> None:
    assert wanted
    os.mkfifo(path)


def _text(path: Path, text: str | list[Any], made: Made) -> None:
    path.write_bytes(joined(text).encode())


def _bytes(path: Path, pieces: str, made: Made) -> None:
    path.write_bytes(bytes.fromhex(pieces))


def _replace(path: Path, pairs: Mapping[str, Any], made: Made) -> None:
    content = path.read_bytes().decode()
    for old, new in pairs.items():
        assert content.count(old) == 1, f"{path.name} holds {old!r} {content.count(old)} times, not once"
        content = content.replace(old, joined(new))
    path.write_bytes(content.encode())


def _add(path: Path, text: str, made: Made) -> None:
    with path.open("ab") as stream:
        stream.write(text.encode())


def _json(path: Path, entries: Mapping[str, Any], made: Made) -> None:
    """Set entries of a JSON object, by path."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for key, value in entries.items():
        *way, last = key.split(".")
        place = data
        for step in way:
            place = place[step]
        place[last] = value
    path.write_text(json.dumps(data), encoding="utf-8")


def _without(path: Path, keys: list[str], made: Made) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        del data[key]
    path.write_text(json.dumps(data), encoding="utf-8")


def _tensors(path: Path, changes: Mapping[str, str], made: Made) -> None:
    """Change tensors of a weight file: ``nan`` spoils one number, ``drop`` takes the tensor away, ``add`` adds one."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    for name, change in changes.items():
        if change == "drop":
            del tensors[name]
        elif change == "add":
            tensors[name] = np.zeros(3, dtype=np.float32)
        else:
            assert change == "nan"
            tensors[name].flat[0] = np.nan
    save_file(tensors, path, metadata={"format": "pt"})


def _encoding(path: Path, name: str, made: Made) -> None:
    path.write_bytes(path.read_bytes().decode().encode(name))


def _cut(path: Path, num_bytes: int, made: Made) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])


def _size(path: Path, num_bytes: int, made: Made) -> None:
    """Make the file this long, without writing what is added (a hole)."""
    with path.open("ab") as stream:
        stream.truncate(num_bytes)


def _delete(path: Path, wanted: bool, made: Made) -> None:
    assert wanted
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


_STEPS: Mapping[str, Callable[[Path, Any, Made], None]] = {
    "folder": _folder,
    "link": _link,
    "pipe": _pipe,
    "good": _good,
    "text": _text,
    "hex": _bytes,
    "replace": _replace,
    "add": _add,
    "json": _json,
    "without": _without,
    "tensors": _tensors,
    "encoding": _encoding,
    "cut": _cut,
    "size": _size,
    "delete": _delete,
}
