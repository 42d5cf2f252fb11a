"""Compiled twins of the modules that every request runs through, used where they were built from the sources that lie here.

``python -m fedsim.compiling`` (``make compiled``) builds them with mypyc into ``fedsim/_compiled``, beside a list of what they
were built from. They are used when the sources of all of them have the same hash still, on the same kind of Python; else, and
where ``FEDSIM_COMPILED=0`` is set, these modules run as they are written. Both give the same records, byte for byte.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

MODULES = (
    "fedsim.billing", "fedsim.computation", "fedsim.devices.cost", "fedsim.devices.device", "fedsim.devices.dropout",
    "fedsim.devices.profile", "fedsim.exact_sum", "fedsim.hazard", "fedsim.heaps", "fedsim.leg", "fedsim.levels",
    "fedsim.network.link", "fedsim.network.rates", "fedsim.network.transport", "fedsim.network.tree", "fedsim.normals",
    "fedsim.record_log", "fedsim.request", "fedsim.streams", "fedsim.timeline", "fedsim.world",
)  # fmt: skip
"""What is compiled, as one unit: they call each other without Python's calls."""

FOLDER = Path(__file__).parent / "_compiled"
LIST = "built.txt"
SUFFIX = EXTENSION_SUFFIXES[0]
SWITCH = "FEDSIM_COMPILED"


def source_of(module: str) -> Path:
    """The file in which a module of fedsim is written."""
    return Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")


def fingerprint() -> str:
    """What the compiled twins depend on: the kind of Python and the sources, to the byte."""
    from hashlib import sha256

    state = sha256(SUFFIX.encode())
    for module in MODULES:
        state.update(module.encode() + source_of(module).read_bytes())
    return state.hexdigest()


def in_use() -> bool:
    """Whether this process runs them."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def use_if_built(folder: Path = FOLDER) -> None:
    """From now on import them from where they were built, if that was from these sources and nobody said otherwise."""
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").split()
    except OSError:
        return  # not built
    if os.environ.get(SWITCH) != "0" and lines and lines[0] == fingerprint():
        sys.meta_path.insert(0, _Finder({name: folder / f"{name}{SUFFIX}" for name in lines[1:]}))


class _Finder:
    """Finds modules by name in a table of files."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The compiled module of this name."""
        file = self._files.get(name)
        if file is None:
            return None
        return spec_from_file_location(name, file, loader=ExtensionFileLoader(name, str(file)))
