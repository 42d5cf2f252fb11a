"""An append-only file of checksummed frames: what was written before a crash can be read after it.

A frame is its payload's length (u32, little-endian), a CRC-32 (u32) of those four bytes and of the payload, and the payload.
That the checksum covers the length keeps a tail of zeros, which a file system may leave behind, from reading as empty frames.

A writer that died leaves at most one torn frame, at the end; reading stops before it. Whatever else does not fit is damage,
and is said aloud: a frame that follows damage proves that the file did not end there.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from fedsim.errors import RunFolderError

MAX_PAYLOAD_BYTES = 1 << 26
"""Longest payload; a length above it is no length, which keeps the search behind a torn frame short."""

_HEADER = struct.Struct("<II")
_BUFFER_BYTES = 1 << 16
_WINDOW_BYTES = 1 << 20


class FrameWriter:
    """Appends frames to a file, which is made if it is not there; one writer at a time.

    Args:
        path: the file.
        start: where to go on: the file is cut to that many bytes first (``whole_length``). Default: at its end, as it is.

    Raises:
        RunFolderError: the file cannot be opened, or is shorter than ``start``.
    """

    def __init__(self, path: Path, *, start: int | None = None) -> None:
        self.path = path
        self._pending = bytearray()
        with _disk(path, "write"):
            self._file = path.open("ab", buffering=0)
            size = os.fstat(self._file.fileno()).st_size
            if start is not None and start <= size:
                self._file.truncate(start)
        if start is not None and start > size:
            self._file.close()
            raise RunFolderError(f"{path} has {size} bytes, but {start} were expected; it was cut short")
        self._end = size if start is None else start

    def append(self, payload: bytes | bytearray) -> int:
        """Add one frame and return the offset of its end. It may wait in memory until ``flush``.

        Raises:
            RunFolderError: the disk is full or gone.
            ValueError: the payload is longer than ``MAX_PAYLOAD_BYTES``.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a frame of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
        length = len(payload)
        self._pending += _HEADER.pack(length, _checksum(length, payload))
        self._pending += payload
        self._end += _HEADER.size + length
        if len(self._pending) >= _BUFFER_BYTES:
            self.flush()
        return self._end

    def flush(self) -> None:
        """Hand everything to the operating system: it outlives this process.

        Raises:
            RunFolderError: the disk is full or gone.
        """
        with _disk(self.path, "write"):
            while self._pending:
                written = self._file.write(self._pending)
                del self._pending[:written]

    def sync(self) -> None:
        """Flush, and wait until it is on the disk: it outlives the machine's power.

        Raises:
            RunFolderError: the disk is full or gone.
        """
        self.flush()
        with _disk(self.path, "write"):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file; it is closed also where flushing fails. Closing again does nothing.

        Raises:
            RunFolderError: the disk is full or gone.
        """
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_frames(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The frames from ``start`` on: the offset of each one's end, and its payload.

    A torn last frame ends the reading silently: one that is short, or whose checksum is wrong, with no whole frame after it.

    Raises:
        RunFolderError: the file cannot be read, is shorter than ``start``, or is damaged before its last frame.
    """
    with _disk(path, "read"), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if start > size:
            raise RunFolderError(f"{path} has {size} bytes, but {start} were expected; it was cut short")
        stream.seek(start)
        end = start
        while True:
            header = stream.read(_HEADER.size)
            if len(header) < _HEADER.size:
                break
            length, checksum = _HEADER.unpack(header)
            payload = stream.read(length) if length <= MAX_PAYLOAD_BYTES else b""
            if len(payload) < length or _checksum(length, payload) != checksum:
                break
            end += _HEADER.size + length
            yield end, payload
        following = _next_whole(path, end + 1, size)
    if following is not None:
        raise RunFolderError(
            f"{path}: the frame at byte {end} is damaged (a whole one follows at byte {following}); "
            "the file cannot be trusted from there on"
        )


def whole_length(path: Path) -> int:
    """Where the good frames end: the file's length without a torn last frame.

    Raises:
        RunFolderError: the file cannot be read, or is damaged before its last frame.
    """
    end = 0
    for end, _ in read_frames(path):  # noqa: B007
        pass
    return end


def _checksum(length: int, payload: bytes | bytearray) -> int:
    return zlib.crc32(payload, zlib.crc32(length.to_bytes(4, "little")))


def _next_whole(path: Path, start: int, size: int) -> int | None:
    """The first offset from ``start`` on at which a whole frame stands.

    Most offsets are ruled out at once: the length found there leads past the end, or to bytes that cannot begin a frame.
    """
    if start + _HEADER.size > size:
        return None
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as view:
        for window in range(start, size - _HEADER.size + 1, _WINDOW_BYTES):
            starts = min(_WINDOW_BYTES, size - _HEADER.size + 1 - window)
            bytes_ = np.frombuffer(view[window : window + starts + 3], np.uint8).astype(np.uint32)
            lengths = sum((bytes_[k : k + starts] << (8 * k) for k in range(1, 4)), bytes_[:starts])
            room = size - _HEADER.size - window - np.arange(starts)
            for place in np.flatnonzero((lengths <= room) & (lengths <= MAX_PAYLOAD_BYTES)).tolist():
                at, length = window + place, int(lengths[place])
                body = at + _HEADER.size
                after = view[body + length : body + length + 4]
                if len(after) == 4 and int.from_bytes(after, "little") > MAX_PAYLOAD_BYTES:
                    continue
                if _HEADER.unpack(view[at:body])[1] == _checksum(length, view[body : body + length]):
                    return at
    return None


@contextmanager
def _disk(path: Path, verb: str) -> Iterator[None]:
    """Turns what the operating system has against it into one line."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{path}: cannot {verb} it: {error.strerror or error}") from error
