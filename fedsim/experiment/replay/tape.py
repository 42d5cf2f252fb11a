"""The tape of a run: everything that passed from models into the timeline, in the order in which it passed.

A run is a timeline (events, devices, protocols; cheap and exact) and results that models computed for it (tokens, rewards,
log-likelihoods, accuracies, weights). Results alone are expensive, so they alone are kept, one frame per call, whole or
absent. With them the timeline plays again, without a model, up to any point; there the models take over.

A tape is in one of four states:

* *recording*: the model computes, the result is appended;
* *replaying*: the result is read; a call of another kind, or with other arguments, than the one on the tape is an error;
* *catching up*: the model computes, and must give what the tape still holds; at its end it goes on recording;
* *shadowing*: the model computes, the difference is told to ``shadow``, and the timeline gets what is on the tape.

After an interrupt a tape is *sealed*: results of the clean-up that follows belong to no continued run.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fedsim.errors import RunFolderError
from fedsim.records.frames import FrameWriter, read_frames, whole_length

TAPE = "tape.bin"
CHECKPOINT = "checkpoint"

T = TypeVar("T")

Shadow = Callable[[str, Any, Any], None]
"""Told of each shadowed call: its kind, the value on the tape, the value computed here."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One result: the kind of call, a checksum of its arguments, and what came back."""

    kind: str
    asked: int
    value: Any


_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Entry)


def checksum(*arguments: object) -> int:
    """A checksum of a call's arguments, each by its text: it need not be strong, only tell two calls of a run apart."""
    return zlib.crc32("\0".join(map(str, arguments)).encode("utf-8", "surrogatepass"))


class Tape:
    """Results of models, recorded and read back.

    Args:
        path: the file; it need not exist yet.
        upto: replay up to this offset (as `last_offset` gives them); 0 records, or catches up, from the start.
        shadow: replay the whole file, compute every result as well, and tell both.
        keep: append to the file; without it nothing is written (verification).

    Raises:
        RunFolderError: the file is damaged before its last frame, or cannot be read or written.
    """

    def __init__(self, path: Path, *, upto: int = 0, shadow: Shadow | None = None, keep: bool = True) -> None:
        self.path = path
        self._upto = upto
        self._shadow = shadow
        self._sealed = False
        self._next: tuple[int, bytes] | None = None
        self._offset = 0
        self._num_calls = 0
        self._writer = FrameWriter(path, start=whole_length(path) if path.exists() else 0) if keep else None
        self._old: Iterator[tuple[int, bytes]] | None = read_frames(path) if path.exists() else None
        self._advance()

    # --- state ---

    @property
    def replaying(self) -> bool:
        """Whether the next result is read rather than computed."""
        return self._next is not None and self._shadow is None and self._offset < self._upto

    @property
    def recording(self) -> bool:
        """Whether the next result is appended."""
        return self._next is None and not self._sealed and self._writer is not None

    @property
    def offset(self) -> int:
        """Where the frames end that were read or written so far (bytes)."""
        return self._offset

    def seal(self) -> None:
        """Record nothing more."""
        self._sealed = True

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._writer is not None:
            self._writer.close()

    # --- calls ---

    def call(self, kind: str, asked: int, compute: Callable[[], Any]) -> Any:
        """The result of one call: read, or computed and recorded.

        Args:
            kind: the kind of call.
            asked: `checksum` of its arguments.
            compute: asks the model; what it returns must be plain data that msgpack can hold.

        Raises:
            RunFolderError: the timeline asks for something else than the tape holds, or a model gives another result.
        """
        self.pass_checkpoints()
        self._num_calls += 1
        if self.replaying:
            value = self._read(kind, asked).value
            self._advance()
            return value
        if self._shadow is not None and self._next is not None:
            found = self._read(kind, asked).value
            self._advance()
            self._shadow(kind, found, compute())
            return found
        value = compute()
        encoded = _ENCODER.encode(Entry(kind, asked, value))
        if self._next is not None and not self._sealed:
            self._catch_up(kind, asked, encoded)
        elif self.recording and self._writer is not None:
            self._offset = self._writer.append(encoded)
            self._writer.flush()
        return _DECODER.decode(encoded).value

    def mark(self, name: str) -> None:
        """Append that a checkpoint of this name covers everything before; it is on disk when this returns."""
        assert self._writer is not None
        self._offset = self._writer.append(_ENCODER.encode(Entry(CHECKPOINT, 0, name)))
        self._writer.sync()

    def _read(self, kind: str, asked: int) -> Entry:
        assert self._next is not None
        entry = _DECODER.decode(self._next[1])
        if (entry.kind, entry.asked) != (kind, asked):
            what = "of other arguments" if entry.kind == kind else f"where the tape has {entry.kind}"
            raise RunFolderError(
                f"{self.path}: result {self._num_calls} of the replayed run is {kind} {what}: the run does not repeat "
                "(its scenario's files, or fedsim's code, have changed); run it again"
            )
        return entry

    def _catch_up(self, kind: str, asked: int, encoded: bytes) -> None:
        assert self._next is not None
        if encoded != self._next[1]:
            self._read(kind, asked)  # raises where it is another call
            raise RunFolderError(
                f"{self.path}: result {self._num_calls}, {kind}, is not the one that was recorded: this machine does not "
                "compute the same bits; run the scenario again"
            )
        self._advance()

    def pass_checkpoints(self) -> None:
        """Read past the checkpoints that stand here."""
        while self._next is not None and _DECODER.decode(self._next[1]).kind == CHECKPOINT:
            self._advance()

    def _advance(self) -> None:
        if self._next is not None:
            self._offset = self._next[0]
        self._next = None if self._old is None else next(self._old, None)
        if self._next is None:
            self._old = None


def checkpoints(path: Path) -> list[tuple[str, int]]:
    """Names of the checkpoints on a tape, and the offset behind each, in order.

    Raises:
        RunFolderError: the file is damaged before its last frame, or cannot be read.
    """
    entries = ((end, _DECODER.decode(frame)) for end, frame in read_frames(path))
    return [(str(entry.value), end) for end, entry in entries if entry.kind == CHECKPOINT]
