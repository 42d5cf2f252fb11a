"""Hashes of content beside what is kept between runs, checked when it is read: a flipped byte is refused, not computed with.

A folder has ``SHA256SUMS``, in the format of ``sha256sum --check``; a single file begins with the hash of the rest.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path

from fedsim.errors import CacheError
from fedsim.records.run_folder import write_atomically

SUMS = "SHA256SUMS"

_State = tuple[tuple[str, int, int], ...]
"""Of every file of a folder its name, size in bytes and time of change in ns."""


def write_sums(folder: Path) -> None:
    """Write the hashes of all files of a folder into it."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name, *_ in _state(folder)]
    write_atomically(folder / SUMS, "".join(lines).encode())


def check_sums(folder: Path) -> None:
    """Compare a folder's files with its hashes; once per process, unless a file has changed since (270 MB take 0.3 s).

    Raises:
        CacheError: a file has other bytes, is missing, or was not there when the hashes were written.
    """
    _check(folder, _state(folder))


def keep(path: Path, content: bytes) -> None:
    """Write a file with the hash of its content before it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{sha256(content).hexdigest()}\n".encode() + content)


def kept(path: Path) -> bytes | None:
    """The content that `keep` wrote, or None where there is no such file.

    Raises:
        CacheError: it has other bytes, or cannot be read.
    """
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}") from None
    if head != sha256(content).hexdigest().encode():
        raise _damaged(path, "is not what was written", path.parent)
    return content


@lru_cache(maxsize=4096)
def _check(folder: Path, state: _State) -> None:
    wanted = _read_sums(folder)
    found = [name for name, *_ in state]
    for name in sorted({*wanted, *found}):
        path = folder / name
        if name not in found:
            raise _damaged(path, "is missing", folder)
        if name not in wanted:
            raise _damaged(path, f"is not in {SUMS}", folder)
        if _sha256(path) != wanted[name]:
            raise _damaged(path, f"is not what was written: its SHA-256 is not the one in {SUMS}", folder)


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    try:
        rows = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
        return {name: digest for digest, name in rows}
    except (OSError, ValueError):
        raise _damaged(path, "is not what was written", folder) from None


def _state(folder: Path) -> _State:
    """Hidden files, such as those that file managers leave, are nobody's content."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    known = sorted(
        (path.relative_to(folder).as_posix(), path.stat()) for path in files if path != folder / SUMS
    )
    return tuple((name, about.st_size, about.st_mtime_ns) for name, about in known)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as content:
            return file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise CacheError(f"{path}: cannot be read: {error.strerror}") from None


def _damaged(path: Path, what: str, folder: Path) -> CacheError:
    return CacheError(f"{path} {what}; delete this cache folder: {folder}")
