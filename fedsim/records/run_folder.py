"""The run folder: one directory per run, whole files only, nothing outside it.

Layout: ``manifest.json`` (there from the first second), ``summary.json``, ``metrics.parquet``, one Parquet file per kind of
record under ``records/``, ``inputs/`` (copies of the files that the scenario names), and whatever the experiment adds by
``write_text`` or ``path`` (``partition.csv``, ``confidence_graph.json``, the final policy, the tape). A lock
of the operating system on ``run.lock`` says that a process is at work in it; it dies with the process.

Every file is written beside its final name and renamed, so that a reader never sees half of one. JSON holds no NaN:
not-a-number and infinities become null.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from fedsim.config.csv_files import csv_table
from fedsim.config.files import read_json
from fedsim.errors import FedsimError, RunFolderError
from fedsim.records.provenance import git_commit, platform_facts, versions

FORMAT_VERSION = 3  # 1 had no members, and no question in an outcome; 2 had no faults
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
METRICS = "metrics.parquet"
RECORDS = "records"
PARTITION = "partition.csv"
CONFIDENCE_GRAPH = "confidence_graph.json"
DETECTION = "detection.json"
INPUTS = "inputs"
LOCK = "run.lock"

Archive = list[tuple[str, bytes]]
"""A folder as bytes: files by their path inside it, with ``/`` between its parts."""

RunStatus = Literal["running", "finished", "failed", "interrupted"]

_MARKERS = ("comparison.yaml", "stress.yaml")  # of the folders of `fedsim compare` and `fedsim stress`


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder that one run owns, with its manifest as it stands on disk.

    Attributes:
        path: the folder.
        manifest: what ``manifest.json`` holds; change it by ``update`` only.
        lock: held while this process owns the folder.
        made: the folders that did not exist before, innermost first.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    lock: Any = field(default=None, repr=False)
    made: tuple[Path, ...] = field(default=(), repr=False)

    @classmethod
    def create(cls, out: Path | None, name: str, seed: int, root: Path = Path("runs")) -> RunFolder:
        """Make the folder and its manifest (status ``running``); imports nothing heavy.

        ``out`` is exactly that folder; without it the folder is ``root/<name>-<seed>-<n>`` with the first
        free n.

        Raises:
            RunFolderError: ``out`` already holds a run or anything else, is a file, or cannot be written.
        """
        wanted = root / name if out is None else out
        try:
            absent = tuple(place for place in (wanted, *wanted.parents) if not place.exists())
            path = _next_free(root, name, seed) if out is None else _take(out)
            lock = _locked(path)
            manifest = _first_manifest(name, seed)
            write_json(path / MANIFEST, manifest)
        except OSError as error:
            in_the_way = "a file or a broken link is in its place"
            reason = in_the_way if isinstance(error, FileExistsError) else error.strerror
            raise RunFolderError(f"{out or root}: cannot make a run folder: {reason}") from error
        return cls(path, manifest, lock, (path, *absent[1:]) if out is None else absent)

    @classmethod
    def reopen(cls, path: Path) -> RunFolder:
        """Own the folder of a run that another process began, with status ``running`` again.

        Raises:
            RunFolderError: it is no run folder of this format, another process is at work in it, or it cannot be written.
        """
        read_manifest(path)
        try:
            folder = cls(path, {}, _locked(path))
            folder.manifest.update(read_manifest(path))  # only now can nobody else change it
            if folder.manifest["status"] == "finished":
                folder._release()
                raise RunFolderError(f"{path}: another process has just finished the run")
            folder.manifest.pop("error", None)
            folder.update(status="running", finished_at=None)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
        return folder

    def discard(self) -> None:
        """Take away what was written, and the folders that were made for it: the run could not begin."""
        self._release()
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        for place in self.made:
            try:
                place.rmdir()
            except OSError:  # another run has begun beside this one
                return

    def update(self, **entries: Any) -> None:
        """Set entries of the manifest, e.g. ``scenario=...``, ``model_hashes=...``, ``cache_keys=...``."""
        self.manifest.update(entries)
        write_json(self.path / MANIFEST, self.manifest)

    def finish(self, status: RunStatus, **entries: Any) -> None:
        """Write the manifest for the last time, with its final status and the wall time."""
        self.update(status=status, finished_at=_now(), **entries)
        if status in (
            "finished",
            "failed",
        ):  # nobody will work on it again; else whoever waits for the lock holds its file
            (self.path / LOCK).unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file under the folder, whole or not at all."""
        return write_atomically(self._inside(name), text.encode())

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file under the folder, whole or not at all."""
        return write_json(self._inside(name), value)

    def keep_inputs(
        self, files: Mapping[str, Path], parts: Mapping[str, Sequence[Path]] | None = None
    ) -> None:
        """Copy files that a run reads into ``inputs/``, so that the folder says and holds all that the run depends on.

        Args:
            files: each file by the key that names it, e.g. ``tasks.file``.
            parts: of what is a folder among them, the files that are read, relative to it.

        Raises:
            RunFolderError: a file cannot be copied.
        """
        kept = {}
        for key, source in files.items():
            # A model is called after the folder of its config.json.
            place = f"{INPUTS}/{key}/{_plain_name(source.parent.name)}/{_plain_name(source.name)}"
            for part in (parts or {}).get(key, [Path()]):
                try:
                    write_atomically(self.path / place / part, (source / part).read_bytes())
                except OSError as error:
                    raise RunFolderError(
                        f"{source / part}: cannot be copied to {self.path}: {error.strerror}"
                    ) from None
            kept[key] = place
        self.update(inputs=kept)

    def write_partition(self, domains: Sequence[str], partition: Sequence[Sequence[int]]) -> Path:
        """Write ``partition.csv``: private rows per client (row) and domain (column), counts ``[K, D]``."""
        rows = ([client, *map(int, counts)] for client, counts in enumerate(partition))
        return write_atomically(self._inside(PARTITION), csv_table(["client_id", *domains], rows))

    def _inside(self, name: str) -> Path:
        target = self.path / name
        if not target.resolve().is_relative_to(self.path.resolve()):
            raise RunFolderError(f"{name} is outside the run folder {self.path}; give a path within it")
        return target


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        RunFolderError: it is missing, unreadable, foreign, or of another format.
    """
    if not os.path.lexists(path / MANIFEST):
        if any(os.path.lexists(path / marker) for marker in _MARKERS):
            raise RunFolderError(f"{path} holds many runs; give one of the folders in {path / 'runs'}")
        raise RunFolderError(f"{path} is not a run folder: it has no {MANIFEST}")
    manifest = read_object(path / MANIFEST, "is damaged or cut short")
    version = manifest.get("format_version")
    if type(version) is not int or version < 1 or manifest.get("status") not in get_args(RunStatus):
        raise RunFolderError(f"{path}: {MANIFEST} was not written by fedsim")
    if version > FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has run format {version}, newer than {FORMAT_VERSION}; read it with a newer fedsim"
        )
    if version < FORMAT_VERSION:
        raise RunFolderError(
            f"{path} has run format {version}, which this fedsim (format {FORMAT_VERSION}) cannot read; run its scenario again"
        )
    return dict(manifest)


def read_object(path: Path, else_: str) -> dict[str, Any]:
    """A JSON object of the run folder, which is the only thing that fedsim writes.

    Raises:
        FileNotFoundError: there is no such file.
        RunFolderError: it cannot be read, or holds something else.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "missing", str(path))
    try:
        found = read_json(path, RunFolderError)
    except RunFolderError as error:
        reason = str(error).removeprefix(f"{path}:")  # a line's number follows, or a blank
        where = "" if reason.startswith(" ") else "line "
        raise RunFolderError(f"{path} {else_} ({where}{reason.strip()})") from None
    if not isinstance(found, dict):
        raise RunFolderError(f"{path} was not written by fedsim")
    return found


def write_atomically(path: Path, content: bytes) -> Path:
    """Write ``content`` beside ``path`` and rename it: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def packed(folder: Path) -> Archive:
    """What a worker sends whose disk is another: every file of a folder and of those below it, by name, without links."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]


def unpack(archive: Archive, folder: Path) -> None:
    """Write an archive's files below a folder that this process has just made, each whole or not at all.

    Raises:
        FedsimError: a name would lead out of the folder, or is none of a file; nothing of the archive was written.
    """
    wanted = [(_below(folder, name), content) for name, content in archive]
    for place, content in wanted:
        write_atomically(place, content)


def write_json(path: Path, value: Any) -> Path:
    """Write indented JSON atomically; NaN and infinities become null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomically(path, (text + "\n").encode())


def plain(value: Any) -> Any:
    """The JSON twin of a value: string keys, lists, and null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "item") and callable(value.item):  # a numpy or torch scalar
        return plain(value.item())
    return str(value)


def _below(folder: Path, name: str) -> Path:
    parts = name.split("/")
    plain_parts = all(part not in ("", ".", "..") and not set(part) & set("\\:\0") for part in parts)
    if not plain_parts:
        raise FedsimError(
            f"a worker sent a file named {name!r:.120}, which does not stay in the run's folder"
        )
    return folder.joinpath(*parts)


def _first_manifest(name: str, seed: int) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "status": "running",
        "name": name,
        "seed": seed,
        "scenario": None,
        "versions": versions(),
        "platform": platform_facts(),
        "git_commit": git_commit(),
        "code": None,
        "plugins": {},
        "inputs": {},
        "model_hashes": {},
        "cache_keys": {},
        "started_at": _now(),
        "finished_at": None,
    }


def _plain_name(name: str, otherwise: str = "file") -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or otherwise


def _locked(path: Path) -> Any:
    """Hold the folder for this process."""
    from filelock import FileLock, Timeout

    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"{path}: another process is at work in it; wait for it to end") from None
    return lock


def _take(out: Path) -> Path:
    if (out / MANIFEST).exists():
        raise RunFolderError(f"{out} already holds a run; choose another --out or remove it")
    if out.exists() and not out.is_dir():
        raise RunFolderError(f"{out} is a file; --out must be a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    if next(out.iterdir(), None) is not None:
        raise RunFolderError(f"{out} is not empty; --out must be a new or empty folder")
    try:
        # Of two processes that come this far together, one makes the subfolder and owns the run.
        (out / RECORDS).mkdir()
    except FileExistsError:
        raise RunFolderError(f"{out} was just taken by another run; choose another --out") from None
    return out


def _next_free(root: Path, name: str, seed: int) -> Path:
    stem = _plain_name(name, "run")
    root.mkdir(parents=True, exist_ok=True)
    n = 0
    while True:
        path = root / f"{stem}-{seed}-{n}"
        try:
            path.mkdir()
        except FileExistsError:
            n += 1
            continue
        (path / RECORDS).mkdir()
        return path


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
