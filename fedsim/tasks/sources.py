"""Rows of an own file or folder as they stand there: JSON lines, a JSON list, CSV, Parquet, or a Hugging Face data set.

Nothing here knows what a row means (`fedsim.tasks.files` does), and no code of a data set is run. A folder is what
``save_to_disk`` of the ``datasets`` library writes, or a snapshot of a data set from the hub: Parquet, JSON-lines or CSV files
named after their splits. Only files within the folder are read, whatever links say; in a snapshot of the hub's cache links lead
to the blobs beside it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.config.files import decoded, json_decoder, not_json, parse_json, read_bytes, read_json, why
from fedsim.config.limits import MAX_DATA_BYTES, MAX_DATA_FILES, MAX_DATA_ROWS, MAX_LINE_CHARS
from fedsim.errors import DataFileError

_ROWS_AT_ONCE = 10_000
_TABLES = (".parquet", ".arrow")
_BLANKS = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]{1,40})?")
_KINDS = (".parquet", ".jsonl", ".csv")
"""Files of a snapshot: those of the first kind that is there."""
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands."""

    file: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file}: {self.unit} {self.number}"
        )

    def beside(self, other: Place) -> str:
        """The place as a message about another one names it."""
        return f"{self.unit} {self.number}" if self.file == other.file else str(self)


@dataclass(frozen=True, slots=True)
class Item:
    """One row.

    Attributes:
        values: what stands there, by key.
        split: the split of its folder that the row is in; None: the folder, or the file, has none.
        only_texts: every value is a text, as in CSV.
    """

    place: Place
    values: Mapping[str, Any] = field(repr=False)
    split: str | None = None
    only_texts: bool = False


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a folder: its path within the folder, and the split whose rows it holds."""

    path: Path
    split: str | None = None


def items(path: Path) -> Iterator[Item]:
    """The rows of a file or folder, in its order.

    Raises:
        DataFileError: it cannot be read, is too large, is not of its kind, or a folder holds no data set, several, or a file
            that is a link out of it.
    """
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):  # a null byte, a link in a circle: told where the file is read
        is_folder = False
    if not is_folder:
        yield from _items_of(path, None)
        return
    try:
        found = data_files(path)
    except DataFileError as error:
        raise error.at("tasks", "file") from None
    for data in found:
        yield from _items_of(path / data.path, data.split)


def data_files(folder: Path) -> list[DataFile]:
    """The files of a data set's folder that hold its rows.

    Raises:
        DataFileError: as for `items`.
    """
    if (folder / _SAVED_SPLITS).exists():
        splits = _listed(folder / _SAVED_SPLITS, "splits")
        found = [data for split in splits for data in _saved(folder, Path(_plain(split, folder)), split)]
    elif (folder / _SAVED).exists():
        found = _saved(folder, Path(), None)
    else:
        found = _snapshot(folder)
    if len(found) > MAX_DATA_FILES:
        raise DataFileError(f"{folder}: has {len(found):,} files of rows; at most {MAX_DATA_FILES:,}")
    for data in found:
        _refuse_leaving(folder, data.path)
    num_bytes = sum(path.stat().st_size for data in found if (path := folder / data.path).exists())
    if num_bytes > MAX_DATA_BYTES:
        raise DataFileError(
            f"{folder}: its files have {num_bytes:,} bytes; must have at most {MAX_DATA_BYTES:,}"
        )
    return found


def kept_files(folder: Path) -> list[Path]:
    """What of a data set's folder is read, relative to it: files of rows, and those that list them.

    Raises:
        DataFileError: as for `items`.
    """
    found = [data.path for data in data_files(folder)]
    lists = {Path(_SAVED_SPLITS), *(path.parent / _SAVED for path in found)}
    return [*found, *sorted(path for path in lists if (folder / path).is_file())]


# ------------------------------------------------------------------------------------------------------------ folders


def _saved(folder: Path, part: Path, split: str | None) -> list[DataFile]:
    """What ``Dataset.save_to_disk`` wrote."""
    state = folder / part / _SAVED
    _refuse_leaving(folder, part / _SAVED)
    names = [
        entry.get("filename") if isinstance(entry, dict) else entry for entry in _listed(state, "_data_files")
    ]
    return [DataFile(part / _plain(name, state), split) for name in names]


def _listed(path: Path, key: str) -> list[Any]:
    value = read_json(path, DataFileError)
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list) or not found:
        raise DataFileError(f"{path}: has no list {key!r}; save the data set again with save_to_disk")
    return found


def _snapshot(folder: Path) -> list[DataFile]:
    """Files named after their splits, in the folder itself, in its ``data``, or in its only other folder that has any."""
    below = {path.name: _rows_in(folder, Path(path.name)) for path in _entries(folder) if path.is_dir()}
    for found in (_rows_in(folder, Path()), below.get("data", [])):
        if found:
            return found
    held = {name: found for name, found in below.items() if found}
    if len(held) == 1:
        return next(iter(held.values()))
    if held:
        raise DataFileError(f"{folder}: holds several data sets; name the folder of one: {', '.join(held)}")
    raise DataFileError(
        f"{folder}: holds no data set; needs what save_to_disk of datasets writes, or {', '.join(_KINDS)} files"
    )


def _rows_in(folder: Path, part: Path) -> list[DataFile]:
    names = [path.name for path in _entries(folder / part) if not path.is_dir()]
    for kind in _KINDS:
        found = [name for name in names if name.endswith(kind)]
        if found:
            return [
                DataFile(part / _plain(name, folder / part), _split_of(name.removesuffix(kind)))
                for name in found
            ]
    return []


def _split_of(stem: str) -> str:
    shard = _SHARD.fullmatch(stem)
    return stem if shard is None else shard.group(1)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataFileError(f"{folder}: cannot be read: {why(error)}") from None


def _plain(name: Any, where: Path) -> str:
    if not isinstance(name, str) or _PLAIN.fullmatch(name) is None:
        raise DataFileError(
            f"{where}: names the file {name!r:.60}; a name of a-z, 0-9, '.', '-' and '_' is needed"
        )
    return name


def _refuse_leaving(folder: Path, part: Path) -> None:
    try:
        root, target = folder.resolve(), (folder / part).resolve()
    except (OSError, RuntimeError) as error:
        raise DataFileError(f"{folder / part}: cannot be read: {why(error)}") from None
    of_the_hub = root.parent.name == "snapshots" and root.parent.parent.name.startswith("datasets--")
    if not target.is_relative_to(root.parent.parent if of_the_hub else root):
        raise DataFileError(
            f"{folder / part}: is a link out of {folder}, which is not followed; copy the file there"
        )


# -------------------------------------------------------------------------------------------------------------- files


def _items_of(path: Path, split: str | None) -> Iterator[Item]:
    kind = path.suffix.lower()
    try:
        content = read_bytes(path, MAX_DATA_BYTES, DataFileError)
        text = "" if kind in _TABLES else decoded(content, str(path), DataFileError)
    except DataFileError as error:
        raise error.at("tasks", "file") from None
    if kind in _TABLES:
        yield from _table_rows(content, path, split)
    elif kind == ".csv":
        yield from _csv_rows(text, path, split)
    elif kind == ".json" and text.lstrip(" \t\n\r").startswith("["):
        yield from _json_list(text, path, split)
    else:
        yield from _json_lines(text, path, split)


def _json_lines(content: str, path: Path, split: str | None) -> Iterator[Item]:
    for number, text in enumerate(io.StringIO(content, newline="\n"), start=1):
        if len(text) > MAX_LINE_CHARS:
            raise DataFileError(f"{path}:{number}: the line has more than {MAX_LINE_CHARS:,} characters")
        if not text.strip():
            continue
        try:
            value = parse_json(text, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            raise DataFileError(f"{path}:{number}: {not_json(error)}") from None
        except ValueError as error:
            raise DataFileError(f"{path}:{number}: not JSON: {error}") from None
        yield Item(Place(str(path), number), _object(value, f"{path}:{number}"), split)


def _json_list(text: str, path: Path, split: str | None) -> Iterator[Item]:
    """The objects of a list, each with the line where it begins."""
    decoder = json_decoder(object_pairs_hook=_unique_keys)
    line, counted, at = 1, 0, text.index("[") + 1
    first = True
    while True:
        at = _after_blanks(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]" and first:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DataFileError(f"{path}:{error.lineno}: {not_json(error)}") from None
        except RecursionError:
            raise DataFileError(f"{path}:{line}: not JSON: it is nested too deeply") from None
        except ValueError as error:
            raise DataFileError(f"{path}:{line}: not JSON: {error}") from None
        if end - at > MAX_LINE_CHARS:
            raise DataFileError(f"{path}:{line}: the object has more than {MAX_LINE_CHARS:,} characters")
        yield Item(Place(str(path), line), _object(value, f"{path}:{line}"), split)
        at, first = _after_blanks(text, end), False
        if text[at : at + 1] != ",":
            break
        at += 1
    if text[at : at + 1] != "]" or _after_blanks(text, at + 1) < len(text):
        line += text.count("\n", counted, at)
        raise DataFileError(
            f"{path}:{line}: not JSON: the list must go on with ',' or end with ']', and the file with it"
        )


def _after_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    assert blanks is not None
    return blanks.end()


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DataFileError(
            f'{where}: holds {value!s:.60}; must be an object, e.g. {{"question": "1 + 1", "answer": "2"}}'
        )
    return value


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    item: dict[str, object] = {}
    for key, value in pairs:
        if key in item:
            raise ValueError(f"the key {key!r:.60} stands twice")
        item[key] = value
    return item


def _csv_rows(text: str, path: Path, split: str | None) -> Iterator[Item]:
    """Cells of a table with a head; an empty one counts as not given."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] = []
    begins = 1
    try:
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not cells:
                continue
            if not head:
                head = [name.strip() for name in cells]
                if len(set(head)) < len(head):
                    raise DataFileError(f"{path}:{line}: a column's name stands twice in the head")
                continue
            if len(cells) != len(head):
                raise DataFileError(f"{path}:{line}: has {len(cells)} cells; the head has {len(head)}")
            values = {name: cell for name, cell in zip(head, cells, strict=True) if cell.strip()}
            yield Item(Place(str(path), line), values, split, only_texts=True)
    except csv.Error as error:
        raise DataFileError(f"{path}:{begins}: not CSV: {error}") from None


def _table_rows(content: bytes, path: Path, split: str | None) -> Iterator[Item]:
    """Rows of a Parquet file, or of an Arrow stream as ``datasets`` writes it, a piece at a time."""
    import polars as pl

    stream, number = io.BytesIO(content), 0
    try:
        if path.suffix.lower() == ".parquet":
            table = pl.scan_parquet(stream)
        elif content.startswith(b"ARROW1"):
            table = pl.scan_ipc(stream)
        else:
            table = pl.read_ipc_stream(stream).lazy()
        num_rows = int(table.select(pl.len()).collect().item())
        if num_rows > MAX_DATA_ROWS:
            raise DataFileError(f"{path}: has {num_rows:,} rows; must have at most {MAX_DATA_ROWS:,}")
        for start in range(0, num_rows, _ROWS_AT_ONCE):
            for values in table.slice(start, _ROWS_AT_ONCE).collect().iter_rows(named=True):
                number += 1
                yield Item(Place(str(path), number, "row"), values, split)
    except (pl.exceptions.PolarsError, OSError, ValueError):
        kind = "a Parquet file" if path.suffix.lower() == ".parquet" else "an Arrow table"
        torn = DataFileError(f"{path}: cannot be read as {kind}: it is none, or damaged")
        raise torn.at("tasks", "file") from None
