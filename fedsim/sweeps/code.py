"""The hash of fedsim's own code under which results of runs are kept: files that only show results are left out."""

from __future__ import annotations

import contextlib
import sys
from functools import cache
from hashlib import blake2b
from pathlib import Path

from fedsim.records.content_hashes import keep, kept
from fedsim.records.provenance import code_fingerprint, source_hash

_WITHOUT_RESULTS = {
    "__main__.py",
    "progress.py",
    "scenario/docs.py",
    "config/validation.py",
    "experiment/probe_run.py",
    "experiment/request_times.py",
    "records/story.py",
    "records/provenance.py",
}
_PACKAGES_WITHOUT_RESULTS = (
    "cli/",
    "experiment/forecast/",
    "experiment/leakage/",
    "figures/",
    "scenario/shipped/",
    "sweeps/",
)


@cache
def this_code() -> str:
    """`result_code_hash` of this very package, as remembered if it is (`remember_code`): it takes as long as a small run.

    Raises:
        CacheError: what is remembered is not what was written.
    """
    remembered = kept(_code_file())
    return result_code_hash() if remembered is None else remembered.decode("ascii")


def remember_code() -> None:
    """Keep `this_code` beside the trained models, now that a sweep was accepted; where that fails, it costs time alone."""
    place = _code_file()
    with contextlib.suppress(OSError):
        if not place.exists():
            keep(place, this_code().encode())


def _code_file() -> Path:
    """Named by the hash of every byte of the package and the version of Python, whose syntax trees it is of."""
    from fedsim.models.cache import cache_folder

    return cache_folder(None) / "code" / f"{source_hash()}-{sys.implementation.cache_tag}.kept"


def result_code_hash(root: Path = Path(__file__).parents[1]) -> str:
    """Hash of the package's code without docstrings and comments, but for files that only show results."""
    state = blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name not in _WITHOUT_RESULTS and not name.startswith(_PACKAGES_WITHOUT_RESULTS):
            state.update(f"{name}\0{code_fingerprint(path.read_text(encoding='utf-8'))}\0".encode())
    for path in sorted((root / "sim" / "presets").glob("*.*")):
        if path.suffix in (".yaml", ".csv", ".json"):
            state.update(path.read_bytes())
    return state.hexdigest()
