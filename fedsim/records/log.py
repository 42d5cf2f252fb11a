"""The log of a run: rows in the order in which they are added, hashed (``records_sha256``), in a file or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from fedsim.errors import RunFolderError
from fedsim.records.frames import FrameWriter, read_frames
from fedsim.records.rows import RECORD_TYPES, AnyRecord, Record, Transfer

R = TypeVar("R", bound=Record)


class Chunk:
    """Some rows of a log that follow one another, by kind.

    Args:
        rows: the rows of each kind, in order; a kind may be missing.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Mapping[type[Record], list[Record]]) -> None:
        self._rows = rows

    def of(self, kind: type[R]) -> list[R]:
        """The rows of one kind, in order (do not change the list)."""
        return self._rows.get(kind, [])  # type: ignore[return-value]


class RecordLog:
    """Append-only rows in the order of virtual time, with a running SHA-256 over their canonical encoding.

    Rows lie in the spool if there is one, and else in memory. A log with a spool holds no more than a chunk of them, however
    long a run is; whoever sums over them walks through ``chunks``.

    Args:
        spool: a file that gets every row, in frames of whole rows, so that a run that was killed leaves them. What it held
            before is lost.
        watch: handed the canonical bytes of whole rows, in order, after they were spooled.

    Attributes:
        wire_bytes: sum of ``wire_bytes`` over the transfers so far.

    Raises:
        RunFolderError: the spool cannot be written.
    """

    def __init__(self, spool: Path | None = None, watch: Callable[[bytes], None] | None = None) -> None:
        self.wire_bytes = 0
        self._rows: dict[type[Record], list[Record]] | None = None
        self._spool: FrameWriter | None = None
        if spool is None:
            self._rows = {kind: [] for kind in RECORD_TYPES}
        else:
            self._spool = FrameWriter(spool, start=_emptied(spool))
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._hash = sha256()
        self._buffer = bytearray()
        self._num_buffered = 0
        self._num_bytes = 0
        self._watch = watch

    @property
    def num_bytes(self) -> int:
        """How many canonical bytes the rows so far have."""
        return self._num_bytes + len(self._buffer)

    def add(self, record: Record) -> None:
        """Append one record."""
        if isinstance(record, Transfer):
            self.wire_bytes += record.wire_bytes
        if self._rows is not None:
            self._rows[type(record)].append(record)
        self._encode_into(record, self._buffer, -1)
        self._num_buffered += 1
        if len(self._buffer) > _CHUNK_BYTES:
            self.flush()

    def chunks(self, *kinds: type[Record]) -> Iterator[Chunk]:
        """All rows so far, in order, a piece at a time.

        Args:
            kinds: only rows of these kinds, which is cheaper; default all.

        Raises:
            RunFolderError: the spool cannot be read.
        """
        if self._spool is None:
            assert self._rows is not None
            yield Chunk({kind: self._rows[kind] for kind in kinds or RECORD_TYPES})
            return
        self.flush()
        for rows in read_spool(self._spool.path, *kinds):
            parts: dict[type[Record], list[Record]] = {}
            for row in rows:
                parts.setdefault(type(row), []).append(row)
            yield Chunk(parts)

    def of(self, kind: type[R]) -> list[R]:
        """All rows of one kind, in order (do not change the list); with a spool they are read from it, into memory."""
        if self._rows is not None:
            return self._rows[kind]  # type: ignore[return-value]
        return [row for chunk in self.chunks(kind) for row in chunk.of(kind)]

    def sha256(self) -> str:
        """Hex digest over every row so far, in the order of addition."""
        self.flush()
        return self._hash.hexdigest()

    def flush(self) -> None:
        """Hand on what was added: to the hash, to whoever watches, and to the spool."""
        if not self._num_buffered:
            return
        rows = bytes(self._buffer)
        self._hash.update(rows)
        if self._spool is not None:
            self._spool.append(_ARRAY32 + self._num_buffered.to_bytes(4, "big") + rows)
            self._spool.flush()
        if self._watch is not None:
            self._watch(rows)
        self._num_bytes += len(rows)
        self._buffer.clear()
        self._num_buffered = 0

    def close(self) -> None:
        """Hand on what is left and close the spool, also where that fails."""
        try:
            self.flush()
        finally:
            if self._spool is not None:
                self._spool.close()


def read_spool(path: Path, *kinds: type[Record]) -> Iterator[list[Record]]:
    """The rows in a spool, chunk by chunk, up to its last whole one.

    Args:
        path: the spool.
        kinds: only rows of these kinds, without decoding the others; default all.

    Raises:
        RunFolderError: the file cannot be read, or is damaged before its last chunk.
    """
    rows = msgspec.msgpack.Decoder(list[AnyRecord])
    one: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(AnyRecord)
    apart = msgspec.msgpack.Decoder(list[msgspec.Raw])
    starts = tuple(_start_of(kind) for kind in kinds)
    for _, frame in read_frames(path):
        try:
            if kinds:
                yield [one.decode(row) for row in apart.decode(frame) if _head_of(row).startswith(starts)]
            else:
                yield rows.decode(frame)  # type: ignore[misc]
        except msgspec.DecodeError as error:
            raise RunFolderError(
                f"{path} holds something else than records of this version: {error}"
            ) from None


def _head_of(row: msgspec.Raw) -> bytes:
    return bytes(memoryview(row)[:_START_BYTES])


def _start_of(kind: type[Record]) -> bytes:
    """The first bytes of every row of a kind: msgpack's header of a short array, and the kind's name."""
    return bytes([0x90 + 1 + len(kind.__struct_fields__)]) + msgspec.msgpack.encode(kind.__name__)


def _emptied(path: Path) -> int:
    """Where a new spool begins, whatever stood in the file."""
    path.unlink(missing_ok=True)
    return 0


_CHUNK_BYTES = 1 << 16
_START_BYTES = 2 + max(len(kind.__name__) for kind in RECORD_TYPES)
_ARRAY32 = b"\xdd"  # msgpack's sign of an array whose length is the next four bytes
