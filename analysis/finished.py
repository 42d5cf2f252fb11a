"""A finished comparison as the pages need it: summaries and resolved scenarios by variant, and who made the runs.

One reader for every page that stands on ``comparison.json``; tables and verdicts are the pages' own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.errors import RunFolderError
from fedsim.runfolder import MANIFEST, SUMMARY


@dataclass(frozen=True, slots=True)
class Compared:
    """A finished comparison: its summaries by variant in the order of the seeds, and where the runs lie.

    Attributes:
        folder: of the comparison.
        scenarios: each variant's resolved scenario (of its first seed).
        tuned: per variant the setting that was tuned, None where there is none.
        made_by: the commits of this repository that made the runs, in words.
    """

    name: str
    seeds: tuple[int, ...]
    summaries: Mapping[str, Sequence[Mapping[str, Any]]]
    folders: Mapping[str, Sequence[Path]]
    made_by: str
    folder: Path
    scenarios: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)


def read(folder: Path) -> Compared:
    """Read a comparison's folder.

    Raises:
        RunFolderError: it is not one, or one of its runs is missing.
    """
    try:
        document = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        folders: dict[str, list[Path]] = {}
        for run in document["runs"]:
            folders.setdefault(run["variant"], []).append(folder / run["folder"])
        summaries = {name: [_json(place / SUMMARY) for place in places] for name, places in folders.items()}
        manifests = {name: [_json(place / MANIFEST) for place in places] for name, places in folders.items()}
        if not folders:
            raise ValueError("it lists no run")
        return Compared(
            name=document["name"],
            seeds=tuple(document["seeds"]),
            summaries=summaries,
            folders=folders,
            made_by=commits(one for found in manifests.values() for one in found),
            folder=folder,
            scenarios={name: found[0].get("scenario") or {} for name, found in manifests.items()},
            tuned={one["name"]: one.get("tuned") for one in document.get("variants", ())},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder} is not a finished comparison ({error!r})") from None


def commit(manifest: Mapping[str, Any]) -> str:
    """Which commit of this repository made a run, short."""
    made_by = manifest.get("git_commit")
    return f"commit {made_by[:10]}" if made_by else "an unknown commit"


def commits(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Which commits of this repository made several runs, each once, in the order of the runs."""
    return ", ".join(dict.fromkeys(commit(manifest) for manifest in manifests))


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    return float(np.mean(list(values)))


def listed(seeds: Sequence[int]) -> str:
    """Seeds for people: ``0, 1, 2``."""
    return ", ".join(map(str, seeds))


def row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def head(*titles: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [row(titles), "|---" * len(titles) + "|"]


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object")
    return found
