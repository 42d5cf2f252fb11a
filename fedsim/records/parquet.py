"""Records as tables: one Parquet file per kind, written in pieces, so that no long run has to fit into memory.

polars is imported on first use.
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin, get_type_hints

from fedsim.records.log import Chunk
from fedsim.records.rows import (
    RECORD_TYPES,
    Compute,
    Evaluation,
    Fault,
    Group,
    Member,
    Outcome,
    Presence,
    Ratio,
    Record,
    Reward,
    Transfer,
    Update,
)
from fedsim.records.run_folder import write_atomically

if TYPE_CHECKING:
    import polars as pl

FILES: dict[type[Record], str] = {
    Transfer: "transfers",
    Compute: "computes",
    Outcome: "outcomes",
    Reward: "rewards",
    Group: "groups",
    Update: "updates",
    Evaluation: "evaluations",
    Presence: "presence",
    Member: "members",
    Fault: "faults",
    Ratio: "ratios",
}
"""The file (and the frame) of each kind of record."""

BATCH_ROWS = 16_384
"""Rows of one kind that wait in memory before they go to the disk."""

COMPRESSION: Literal["zstd"] = "zstd"


class Tables:
    """Writes the rows of a log, which come in pieces, to one Parquet file per kind; whole files or none.

    A kind of more than a batch goes to part files first, which are joined at the end: a Parquet file that was cut short cannot
    be read at all.

    Args:
        folder: where the files go; used as a context manager, it leaves no part file there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[type[Record], list[Record]] = {kind: [] for kind in FILES}
        self._parts: dict[type[Record], list[Path]] = {kind: [] for kind in FILES}

    def __enter__(self) -> Self:
        return self

    def add(self, chunk: Chunk) -> None:
        """Take the next rows."""
        for kind, waiting in self._rows.items():
            waiting += chunk.of(kind)
            if len(waiting) >= BATCH_ROWS:
                self._write_part(kind)

    def finish(self) -> None:
        """Write the files."""
        for kind in RECORD_TYPES:
            target = self._folder / f"{FILES[kind]}.parquet"
            if not self._parts[kind]:
                write_parquet(target, frame(kind, self._rows[kind]))
                continue
            self._write_part(kind)
            _join(self._parts[kind], target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the folder may have vanished, which is why we are here
            for path in self._folder.glob(f".*.{os.getpid()}.part"):
                path.unlink(missing_ok=True)

    def _write_part(self, kind: type[Record]) -> None:
        parts = self._parts[kind]
        path = self._folder / f".{FILES[kind]}.{len(parts):06}.{os.getpid()}.part"
        parts.append(path)
        buffer = io.BytesIO()
        frame(kind, self._rows[kind]).write_parquet(buffer, compression=COMPRESSION)
        path.write_bytes(buffer.getbuffer())
        self._rows[kind] = []


def frame(kind: type[Record], rows: list[Any]) -> pl.DataFrame:
    """One kind of record as a polars frame; typed columns also where there are no rows."""
    import polars as pl

    types = columns(kind)
    return pl.DataFrame({name: [getattr(row, name) for row in rows] for name in types}, schema=types)


def columns(kind: type[Record]) -> dict[str, Any]:
    """Column types of one kind of record, from its annotations."""
    import polars as pl

    hints = get_type_hints(kind)
    types: dict[str, Any] = {}
    for name in kind.__struct_fields__:
        origin = get_origin(hints[name])
        if origin is tuple:
            types[name] = pl.List(get_args(hints[name])[0])
        else:
            types[name] = str if origin is Literal else hints[name]
    return types


def write_parquet(path: Path, table: pl.DataFrame) -> None:
    """Write a table, whole or not at all."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression=COMPRESSION)
    write_atomically(path, buffer.getvalue())


def _join(parts: list[Path], target: Path) -> None:
    """Write the rows of several files to one, in order, a piece at a time."""
    import polars as pl

    whole = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        pl.scan_parquet(parts, glob=False).sink_parquet(whole, compression=COMPRESSION)
    except pl.exceptions.ComputeError as error:  # polars says so of a full disk
        raise OSError(str(error)) from error
    with whole.open("rb") as stream:
        os.fsync(stream.fileno())
    whole.replace(target)
