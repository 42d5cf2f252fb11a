"""Learning states of a run's policy on disk, so that a replay has to compute no more than what came after the last one.

A checkpoint is a folder, made whole under another name and renamed. Then the tape says that it covers everything before: a
checkpoint that the tape does not name does not exist. The last two are kept.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

import safetensors.numpy

from fedsim.errors import RunFolderError
from fedsim.experiment.replay.tape import Tape, checkpoints

CHECKPOINTS = "checkpoints"
_KEPT = 2


@runtime_checkable
class Learner(Protocol):
    """A policy whose learning state can be written and taken up again, bit for bit."""

    @property
    def version(self) -> int:
        """The policy version."""

    def save_state(self, folder: Path) -> None:
        """Write all that later versions depend on."""

    def restore_state(self, folder: Path) -> None:
        """Take up what ``save_state`` wrote."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: where they are.
        every_s: real seconds between two of them, at least; 0 makes one of every version.
        start: the checkpoint from which the run goes on, if it is resumed.
    """

    def __init__(self, folder: Path, every_s: float, start: str | None = None) -> None:
        self._folder = folder
        self._every_s = every_s
        self._start = start
        self._last_at_wall_s = time.monotonic()

    def due(self) -> bool:
        """Whether the last one is old enough. When they are made changes no record."""
        return time.monotonic() - self._last_at_wall_s >= self._every_s

    def save(self, policy: Learner, tape: Tape) -> None:
        """Keep a policy's learning state, and mark on the tape that it covers everything so far.

        Raises:
            RunFolderError: it cannot be written.
        """
        name = f"{policy.version:08d}"
        try:
            self.write(name, policy)
        except OSError as error:
            raise RunFolderError(f"{self._folder / name}: cannot be written: {error.strerror}") from None
        tape.mark(name)
        for old in _names(self._folder)[:-_KEPT]:
            shutil.rmtree(self._folder / old, ignore_errors=True)
        self._last_at_wall_s = time.monotonic()

    def write(self, name: str, policy: Learner) -> None:
        """Write a checkpoint, whole on the disk when this returns; one of the same name is replaced."""
        final, partial = self._folder / name, self.partial(name)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        policy.save_state(partial)
        for path in partial.iterdir():
            _sync(path)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _sync(self._folder)

    def partial(self, name: str) -> Path:
        """Where a checkpoint is written before it has its name."""
        return self._folder / f".{name}.tmp"

    def restore(self, policy: Learner) -> None:
        """Take up the checkpoint from which the run goes on.

        Raises:
            ModelFileError: it is of another model.
        """
        assert self._start is not None
        policy.restore_state(self._folder / self._start)
        self._last_at_wall_s = time.monotonic()


def latest(folder: Path, tape: Path) -> tuple[str, int] | None:
    """The last checkpoint that the tape names and that is whole, with its offset on the tape; None if there is none.

    Raises:
        RunFolderError: the tape is damaged before its last frame.
    """
    found = checkpoints(tape) if tape.exists() else []
    return next(((name, end) for name, end in reversed(found) if is_whole(folder / name)), None)


def is_whole(folder: Path) -> bool:
    """Whether every file of a checkpoint is there and can be read to its end."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    try:
        for path in files:
            if path.suffix == ".safetensors":
                safetensors.numpy.load_file(path)
            else:
                json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, safetensors.SafetensorError):
        return False
    return bool(files)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
