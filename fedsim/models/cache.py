"""The cache of trained models: one folder per key, shared by runs, written whole or not at all.

A key is the hash of everything that determines the weights: rows, architecture, training settings, seed, tokenizer,
versions, CPU features, threads, and the source of the training code (its syntax tree without docstrings, so that a
comment does not retrain the world). A folder holds safetensors weights, config and tokenizer, as ``from_pretrained``
reads them, and the hash of every file, which is checked before the folder is used (`fedsim.records.content_hashes`). A folder
without hashes, as earlier versions left them, counts as unfinished and is made again.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from fedsim.records.content_hashes import SUMS, check_sums, write_sums
from fedsim.records.provenance import code_fingerprint
from fedsim.tasks.questions import Question

_DETERMINING_SOURCES = (
    "models/real/muon.py", "models/real/tokenizer.py", "models/real/tokens.py", "models/real/training.py", "models/real/zoo.py",
    "sim/streams.py",
)  # fmt: skip


def cache_folder(cache_dir: Path | None) -> Path:
    """Where trained models live: the argument, else ``FEDSIM_CACHE``, else the user's cache folder."""
    if cache_dir is not None:
        return cache_dir
    named = os.environ.get("FEDSIM_CACHE")
    return Path(named) if named else user_cache_path("fedsim", appauthor=False)


def cache_key(parts: Mapping[str, Any], rows: Sequence[Question], threads: int) -> str:
    """Hex key of a training: its own ``parts`` (JSON), its rows, and the platform that will compute it."""
    material = {
        "parts": parts,
        "rows": [(row.text, row.taught) for row in rows],
        "platform": {**platform_facts(), "threads": threads},
        "source": sources_hash(_DETERMINING_SOURCES),
    }
    return blake2b(json.dumps(material, sort_keys=True).encode(), digest_size=16).hexdigest()


@cache
def platform_facts() -> dict[str, str]:
    """What of this machine changes the last bits of trained weights."""
    import torch

    return {
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


@cache
def sources_hash(names: Sequence[str]) -> str:
    """Hash of some files of this package, named as from its root, without their docstrings, comments and layout."""
    state = blake2b(digest_size=16)
    for name in names:
        path = Path(__file__).parents[1] / name
        state.update(code_fingerprint(path.read_text(encoding="utf-8")).encode())
    return state.hexdigest()


def cached(root: Path, key: str, build: Callable[[Path], None]) -> Path:
    """The folder of ``key``; built by ``build(empty folder)`` if no run has it yet.

    Runs that want the same key at the same time wait for the first; a killed build leaves nothing behind that a
    later run would take for finished.

    Raises:
        CacheError: a file of the folder is not what was written.
    """
    folder = root / key
    if not is_whole(folder):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            if not is_whole(folder):
                _build(root, folder, build)
    check_sums(folder)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a folder of the cache was finished, with the hashes of its files."""
    return (folder / SUMS).is_file()


def _build(root: Path, folder: Path, build: Callable[[Path], None]) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp-", dir=root))
    try:
        build(unfinished)
        write_sums(unfinished)
        if folder.is_dir():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
