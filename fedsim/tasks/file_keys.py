"""Our keys in a file that calls them otherwise: ``tasks.keys`` and ``tasks.splits``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsim.errors import DataFileError
from fedsim.tasks.config import ROW_KEYS, SPLITS, TasksConfig
from fedsim.tasks.sources import Item, Place

_NEEDED = ("question", "answer")
_ABSENT = object()


class FileKeys:
    """Reads rows under our keys, and remembers which names of the settings it has met.

    Without ``tasks.keys`` a row may hold our keys alone. With it, a key of ours that is not mapped is read under its own name,
    unless that name is mapped to another one; all other keys of the file are ignored.
    """

    def __init__(self, config: TasksConfig) -> None:
        self._keys = config.keys
        self._splits = config.splits
        mapped: dict[str, str] = {str(key): path for key, path in (config.keys or {}).items()}
        taken = {name for path in mapped.values() for name in (path, path.partition(".")[0])}
        self._paths: dict[str, str] = {key: key for key in ROW_KEYS if key not in taken} | mapped
        self._met: set[str] = set()
        self._met_splits: set[str] = set()

    def values(self, item: Item) -> dict[str, Any]:
        """What a row holds under our keys; null counts as not given where a key may be left out.

        Raises:
            DataFileError: an unknown key, or no question or answer.
        """
        if self._keys is None:
            for key in item.values:
                if key not in ROW_KEYS:
                    raise DataFileError(
                        f"{item.place}: unknown key {key!r:.60}; must be one of {', '.join(ROW_KEYS)}"
                    )
        found = {key: _value(item.values, path) for key, path in self._paths.items()}
        self._met |= {key for key, value in found.items() if value is not _ABSENT}
        for key in _NEEDED:
            if found.get(key, _ABSENT) is _ABSENT:
                raise DataFileError(f"{item.place}: {self._missing(key, item)}")
        found = {
            key: value
            for key, value in found.items()
            if value is not _ABSENT and (value is not None or key in _NEEDED)
        }
        if item.only_texts and "client" in found:
            found["client"] = [
                int(word) if word.isascii() and word.isdigit() else word for word in found["client"].split()
            ]
        return self._with_split(found, item)

    def refuse_unmet(self, first: Place) -> None:
        """Refuse settings that name what no row had; ``first`` is the place of the first row.

        Raises:
            DataFileError: a key or a split that no row has.
        """
        for key, path in (self._keys or {}).items():
            if key not in self._met:
                raise DataFileError(f"{first}: neither this row nor any other has {path!r:.60}").at(
                    "tasks", "keys", key
                )
        for name in self._splits:
            if name not in self._met_splits:
                known = ", ".join(sorted(self._met_splits)) or "none"
                raise DataFileError(
                    f"{first}: neither this row nor any other is in split {name!r:.60}; splits are: {known:.200}"
                ).at("tasks", "splits", name)

    def _missing(self, key: str, item: Item) -> str:
        path = self._paths.get(key, key)
        if self._keys is None:
            return f"{key} is missing; a {item.place.unit} must have question and answer"
        return f"{key} is missing: the {item.place.unit} has no {path!r:.60}; it has {', '.join(map(str, item.values)):.200}"

    def _with_split(self, found: dict[str, Any], item: Item) -> dict[str, Any]:
        """A row's own split goes before that of its folder, of which only our names count by themselves."""
        said = found.pop("split", None)
        split = item.split if said is None else said
        if isinstance(split, str):
            self._met_splits.add(split)
        if isinstance(split, str) and split in self._splits:
            split = self._splits[split]
        elif said is None and split not in SPLITS:
            split = None
        return found if split is None else found | {"split": split}


def _value(values: Mapping[str, Any], path: str) -> Any:
    """What stands at a path of keys and places in lists; a key that holds the dots itself goes first."""
    if path in values:
        return values[path]
    found: Any = values
    for part in path.split("."):
        if isinstance(found, Mapping) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isascii() and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        else:
            return _ABSENT
    return found
