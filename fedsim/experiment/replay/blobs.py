"""Weights beside the tape: one safetensors file for each distinct set, named by its own hash.

A protocol that moves weights adds them up in its own memory, so a replay needs the very numbers. They are dropped when the
run has finished: the final policy is in its folder, and the whole run can be computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedsim.errors import RunFolderError
from fedsim.models.interfaces import Weights
from fedsim.records.run_folder import write_atomically

BLOBS = "blobs"


class Blobs:
    """Sets of arrays by the hash of their content.

    Args:
        folder: where the files are.
        keep: write them; without it they are only named (verification), and `get` gives what was put last.
    """

    def __init__(self, folder: Path, *, keep: bool = True) -> None:
        self._folder = folder
        self._keep = keep
        self._last: tuple[str, Weights] | None = None

    def put(self, weights: Weights) -> list[str]:
        """Keep a set of arrays; what is returned stands for it on a tape: the hash, and the arrays' names in their order.

        The order matters: sums over arrays are taken in it, and a file of weights has an order of its own.

        Raises:
            RunFolderError: it cannot be written.
        """
        arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
        content = save(arrays)
        name = blake2b(content, digest_size=16).hexdigest()
        self._last = (name, arrays)
        path = self._path(name)
        if self._keep and not path.exists():
            try:
                write_atomically(path, content)
            except OSError as error:
                raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from None
        return [name, *arrays]

    def get(self, kept: Sequence[str]) -> Weights:
        """The arrays that `put` kept, in their order.

        Raises:
            RunFolderError: they are missing or damaged.
        """
        name, *order = kept
        if self._last is not None and self._last[0] == name:
            return {key: self._last[1][key] for key in order}
        path = self._path(name)
        try:
            content = path.read_bytes()
            if blake2b(content, digest_size=16).hexdigest() != name:
                raise RunFolderError(f"{path} is damaged; run the scenario again")
            found = load(content)
            return {key: found[key] for key in order}
        except OSError as error:
            raise RunFolderError(f"{path}: weights on the tape are missing: {error.strerror}") from None
        except SafetensorError as error:
            raise RunFolderError(f"{path} is damaged: {error}") from None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"
