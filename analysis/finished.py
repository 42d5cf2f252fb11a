"""A finished comparison as the pages need it: summaries and resolved scenarios by variant, and who made the runs.

One reader for every page that stands on ``comparison.json``; tables and verdicts are the pages' own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.errors import RunFolderError
from fedsim.records.provenance import SOURCE, git
from fedsim.records.run_folder import MANIFEST, SUMMARY

LEARNING_CODE = ("models", "rl", "protocols", "tasks", "privacy")
"""Packages that decide what is learnt, wherever in ``fedsim/`` they stand."""

WORLD_CODE = ("sim", "network", "devices", "federation")
"""Packages that decide what it costs, at the root of ``fedsim/``: devices, links and requests."""

_NAMES = {"fedgrpo": "FedGRPO (floored", "paper_selection": "FedGRPO (paper's selection"}
_VARIANT = re.compile(rf"(?<![\w/.-])({'|'.join(_NAMES)})(?:-(\w+))?(?![\w/-]|\.\w)")
_COMMIT = re.compile(r"\bcommit ([0-9a-f]{10})\b")


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
    """Which commit of this repository made a run, short, and whether tracked files differed from it."""
    made_by = manifest.get("git_commit")
    if not made_by:
        return "an unknown commit"
    return f"commit {made_by[:10]}" + (" (tracked files differed)" if made_by.endswith("-dirty") else "")


def commits(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Which commits of this repository made several runs, each once, in the order of the runs."""
    return ", ".join(dict.fromkeys(commit(manifest) for manifest in manifests))


def named(text: str) -> str:
    """A page with the methods' names for the variants' names of the comparison files.

    >>> named("| fedgrpo-tuned | paper_selection | fedpetuning-grpo |")
    "| FedGRPO (floored, tuned) | FedGRPO (paper's selection) | fedpetuning-grpo |"
    """
    return _VARIANT.sub(lambda found: _NAMES[found[1]] + (f", {found[2]})" if found[2] else ")"), text)


def provenance(page: Iterable[str], checkout: Path = SOURCE) -> str:
    """First line of an evidence page: the commits it names, their versions, and how much code has changed since."""
    here = git("rev-parse", "--short=10", "HEAD", checkout=checkout) or "an unknown commit"
    found = dict.fromkeys(_COMMIT.findall("\n".join(page)))
    ages = ", ".join(f"{made_by} ({_age(made_by, checkout)})" for made_by in found) or "unknown"
    return (
        f"**Runs are of commit {ages}**; in brackets: version of fedsim, and commits from there to {here} of learning code "
        f"({', '.join(LEARNING_CODE)} in fedsim/) + of the simulated world ({', '.join(WORLD_CODE)}). Where the first is not "
        "0, newer code learns otherwise; where the second is not 0, it has other virtual times, bytes of cut messages and "
        "energy."
    )


def _age(made_by: str, checkout: Path) -> str:
    source = git("show", f"{made_by}:fedsim/__init__.py", checkout=checkout) or ""
    version = re.search(r'__version__ = "(.*)"', source)
    places = ([f"**/{package}" for package in LEARNING_CODE], WORLD_CODE)
    counts = [_commits_since(made_by, where, checkout) for where in places]
    if None in counts:
        return "not in this history"
    return (f"fedsim {version[1]}, " if version else "") + " + ".join(map(str, counts))


def _commits_since(made_by: str, places: Sequence[str], checkout: Path) -> str | None:
    globs = [f":(glob)fedsim/{place}/**" for place in places]
    return git("rev-list", "--count", f"{made_by}..HEAD", "--", *globs, checkout=checkout)


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean."""
    return float(np.mean(list(values)))


def format_list(seeds: Sequence[int]) -> str:
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
