"""The part of ``docs/evidence.md`` about communication: what every method sends, and what it learns from it.

Read from a finished comparison's folder: its table as it is, what reaching the target cost, what the synthetic rows
promise, and the values that were tuned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedsim.runfolder import MANIFEST
from fedsim.units import format_bytes, format_seconds

PRIVACY = "privacy.json"


def lines(folder: Path) -> list[str]:
    """The section, line by line.

    Raises:
        OSError, ValueError, KeyError: the folder is not a finished comparison.
    """
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    first = folder / comparison["runs"][0]["folder"]
    manifest = json.loads((first / MANIFEST).read_text(encoding="utf-8"))
    table = (folder / "comparison.md").read_text(encoding="utf-8").strip()
    return [
        "## Communication compared",
        "",
        f"`fedsim compare {comparison['name']}`, seeds {', '.join(map(str, comparison['seeds']))}, "
        f"code of {commit(manifest)}. All variants meet the same devices, presence, links and questions.",
        "",
        table,
        "",
        "### What the target cost",
        "",
        *_to_target(comparison),
        "",
        "### What the synthetic rows promise",
        "",
        *_privacy(folder, comparison),
        "",
        "### Values chosen on validation questions",
        "",
        *_values(folder, comparison),
    ]


def commit(manifest: Mapping[str, Any]) -> str:
    """Which commit of this repository made a run, short."""
    made_by = manifest.get("git_commit")
    return f"commit {made_by[:10]}" if made_by else "an unknown commit"


def _to_target(comparison: Mapping[str, Any]) -> Iterator[str]:
    target = comparison.get("target")
    if target is None:
        yield "There is no target: the first variant gained nothing."
        return
    origin = comparison["target_origin"]
    yield f"Validation greedy accuracy {target:.3f} ({origin}). Runs that did not reach it are not averaged in."
    yield ""
    yield "| method | reached | wire, both ways | virtual time | updates |"
    yield "|---|---|---|---|---|"
    for variant in comparison["variants"]:
        way = variant["to_target"]
        if way is None:
            continue
        cells = [variant["name"], f"{way['reached']} of {way['n']}"]
        if way["reached"]:
            cells += [
                format_bytes(way["wire_bytes"]["mean"]),
                format_seconds(way["virtual_s"]["mean"]),
                f"{way['updates']['mean']:.0f}",
            ]
        else:
            cells += ["", "", ""]
        yield "| " + " | ".join(cells) + " |"


def _privacy(folder: Path, comparison: Mapping[str, Any]) -> Iterator[str]:
    releases: dict[str, list[dict[str, Any]]] = {}
    for run in comparison["runs"]:
        path = folder / run["folder"] / PRIVACY
        if path.is_file():
            releases.setdefault(run["variant"], []).extend(json.loads(path.read_text(encoding="utf-8")))
    if not releases:
        yield "No variant makes synthetic rows."
        return
    yield (
        "Per record of one client (one record added or removed), for the whole release. An epsilon of inf promises nothing. "
        "The noise is the largest and smallest over clients and seeds."
    )
    yield ""
    yield "| method | mechanism | epsilon | delta | noise | releases | malformed rows |"
    yield "|---|---|---|---|---|---|---|"
    for variant, entries in releases.items():
        first, noise = entries[0], [entry["noise"] for entry in entries]
        sent = sum(entry["rows_sent"] for entry in entries)
        malformed = sum(entry["rows_malformed"] for entry in entries)
        cells = [
            variant,
            first["mechanism"],
            str(first["epsilon"]),
            f"{first['delta']:g}",
            f"{min(noise):.2f} to {max(noise):.2f} {first['noise_unit']}" if any(noise) else "none",
            str(first["releases"]),
            f"{malformed / max(1, sent + malformed):.0%}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _values(folder: Path, comparison: Mapping[str, Any]) -> Iterator[str]:
    grid = folder / "tuning.md"
    if grid.is_file():
        yield from grid.read_text(encoding="utf-8").strip().split("\n")
        return
    yield "The grid was not run for this page; these are the file's own values."
    yield ""
    yield "| method | key | value |"
    yield "|---|---|---|"
    for variant in comparison["variants"]:
        tuned = variant["tuned"]
        yield f"| {variant['name']} | " + (
            "not tuned | |" if tuned is None else f"{tuned['key']} | {tuned['value']:g} |"
        )
