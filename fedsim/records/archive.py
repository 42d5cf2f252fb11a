"""A run folder as bytes: what a worker sends whose disk is another, and what is made of it here.

What comes from a cluster is not trusted to stay where it belongs: a name that would lead out of the folder is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedsim.errors import FedsimError
from fedsim.records.run_folder import write_atomically

Archive = list[tuple[str, bytes]]
"""Files by their path inside the folder, with ``/`` between its parts."""


def packed(folder: Path) -> Archive:
    """Every file of a folder and of those below it, in the order of their names; links are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]


def unpack(archive: Iterable[tuple[str, bytes]], folder: Path) -> None:
    """Write an archive's files below a folder that this process has just made, each whole or not at all.

    Raises:
        FedsimError: a name is not one of a file below the folder; nothing of the archive was written.
    """
    wanted = [(_below(folder, name), content) for name, content in archive]
    for place, content in wanted:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, content)


def _below(folder: Path, name: str) -> Path:
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and not set(part) & set("\\:\0") for part in parts)
    if not plain:
        raise FedsimError(
            f"a worker sent a file named {name!r:.120}, which does not stay in the run's folder"
        )
    return folder.joinpath(*parts)
