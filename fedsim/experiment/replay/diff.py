"""Whether a run makes the same records again, and which is the first that differs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

from fedsim.errors import RunFolderError
from fedsim.records.frames import read_frames
from fedsim.records.log import read_spool
from fedsim.records.rows import Record

_HEADER_BYTES = 5  # of a frame of a spool, before its rows (`fedsim.records.log.RecordLog`)


class SameRecords:
    """Compares the canonical bytes of new records with those in an older spool, while there are any.

    Args:
        old: the older spool.
        new: the spool that is being written, for the message.
        upto: how many bytes of rows in ``old`` belong to the run; default all.

    Raises:
        RunFolderError: the older spool is damaged.
    """

    def __init__(self, old: Path, new: Path, upto: int | None = None) -> None:
        self._old = old
        self._new = new
        self._chunks: Iterator[bytes] | None = (frame[_HEADER_BYTES:] for _, frame in read_frames(old))
        self._left = upto
        self._pending = b""

    def stop(self) -> None:
        """Compare nothing more."""
        self._chunks, self._pending = None, b""

    def __call__(self, rows: bytes) -> None:
        """Compare the next rows.

        Raises:
            RunFolderError: a record differs; the message says which, and how.
        """
        start = 0
        while start < len(rows) and self._fill():
            length = min(len(rows) - start, len(self._pending))
            if rows[start : start + length] != self._pending[:length]:
                self._tell()
            start += length
            self._pending = self._pending[length:]

    def _fill(self) -> bool:
        """Whether older bytes are left to compare with."""
        while not self._pending and self._chunks is not None:
            found = next(self._chunks, None)
            if found is None:
                self._chunks = None
                break
            if self._left is not None:
                found = found[: self._left]
                self._left -= len(found)
                if not found:
                    self._chunks = None
            self._pending = found
        return bool(self._pending)

    def _tell(self) -> None:
        """Read both from the start: slow, and only on the way to an error."""
        before = chain.from_iterable(read_spool(self._old))
        now = chain.from_iterable(read_spool(self._new))
        for number, (ours, theirs) in enumerate(zip_longest(now, before)):
            if ours is None or theirs is None:
                break
            if repr(ours) != repr(theirs):  # NaN equals itself here
                raise RunFolderError(
                    f"{self._old.parent}: the run does not repeat: record {number} differs: {difference(theirs, ours)}"
                )
        raise RunFolderError(f"{self._old.parent}: the run does not repeat: its records end elsewhere")


def difference(recorded: Record, repeated: Record) -> str:
    """Two records that should be equal, for people: the fields that differ, or both if they are of two kinds."""
    if type(recorded) is not type(repeated):
        return f"it was {recorded!r}, now it is {repeated!r}"
    pairs = {name: (getattr(recorded, name), getattr(repeated, name)) for name in recorded.__struct_fields__}
    fields = [
        f"{name} was {was!r}, now {now!r}" for name, (was, now) in pairs.items() if repr(was) != repr(now)
    ]
    return f"{type(recorded).__name__}, {'; '.join(fields)}"


def longest_spool(*paths: Path) -> Path | None:
    """The longest of several spools of one run, None if there is none: a life that was killed early knows less."""
    there = [path for path in paths if path.exists()]
    return max(there, key=lambda path: path.stat().st_size, default=None)
