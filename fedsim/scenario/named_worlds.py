"""Named worlds: settings of network, availability, dropout and slow-downs that a scenario takes by one word.

``world: middle`` fills in what the scenario (and its ``--set``) does not say itself, key by key, when the scenario is read:

* a key that the scenario has wins, and mappings are merged at every depth;
* a list (``slowdowns``) is one value: the scenario's own replaces the world's;
* a section whose ``kind`` is another than the world's is the scenario's alone, since its keys mean something else.

The word itself is spent: a resolved scenario says every number, and stays what it was when a later version has other worlds.
The numbers and their sources are in ``presets/worlds.yaml``.
"""

from __future__ import annotations

import copy
from functools import cache
from importlib.resources import files
from typing import Any

from fedsim.config.validation import nearest
from fedsim.config.yaml import Document, Path, parse
from fedsim.errors import ScenarioError

NO_WORLD = "none"
_FILE = "worlds.yaml"


def world_names() -> tuple[str, ...]:
    """Every named world, mildest first."""
    return tuple(_presets().data)


def world_descriptions() -> dict[str, str]:
    """What each named world is like, in a line."""
    return {name: keys["about"] for name, keys in _presets().data.items()}


def world_settings(name: str) -> dict[str, Any]:
    """The keys that a named world sets, as a scenario file would; a copy of its own."""
    keys = copy.deepcopy(_presets().data[name])
    del keys["about"]
    return dict(keys)


def expand(document: Document) -> None:
    """Fill in what the scenario's world sets and the scenario does not, in place; the key ``world`` is gone afterwards.

    An error in what was filled in names the world and its line.

    Raises:
        ScenarioError: there is no such world.
    """
    name = document.data.pop("world", None)
    if name in (None, NO_WORLD):
        return
    if name not in world_names():
        allowed = (NO_WORLD, *world_names())
        hint = nearest(str(name), allowed)
        raise ScenarioError(
            f"{document.origin(('world',))}: world is {name!r}; must be one of {', '.join(allowed)}{hint}"
        )
    _fill(document, document.data, world_settings(name), name, ())


def _fill(document: Document, own: dict[str, Any], preset: dict[str, Any], name: str, path: Path) -> None:
    for key, value in preset.items():
        here = (*path, key)
        if key not in own:
            own[key] = value
            _note_origins(document, name, here)
        elif isinstance(own[key], dict) and isinstance(value, dict) and not _another_kind(own[key], value):
            _fill(document, own[key], value, name, here)


def _another_kind(own: dict[str, Any], preset: dict[str, Any]) -> bool:
    return "kind" in own and own["kind"] != preset.get("kind")


def _note_origins(document: Document, name: str, path: Path) -> None:
    """Say of a key that was filled in, and of all below it, where it comes from."""
    for known, origin in _presets().origins.items():
        if known[: len(path) + 1] == (name, *path):
            document.origins[known[1:]] = f"world {name} ({origin})"


@cache
def _presets() -> Document:
    return parse((files("fedsim.sim.presets") / _FILE).read_bytes(), _FILE)
