"""The part of ``docs/evidence.md`` about communication: what every method sends, and what it learns from it.

Read from a finished comparison's folder: its table as it is, what reaching the target cost (from the runs themselves),
what training the clients' own models cost, what the synthetic rows promise, and the values that were tuned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.finished import commit, format_list, head, row
from fedsim.config.units import format_bytes, format_seconds
from fedsim.records.run_folder import MANIFEST
from fedsim.sweeps.compare.tables import MEDIAN, PRIVACY
from fedsim.sweeps.compare.target import median_way, way_to


def lines(folder: Path) -> list[str]:
    """The section, line by line.

    Raises:
        OSError, ValueError, KeyError: the folder is not a finished comparison.
        RunFolderError: a run's metrics cannot be read.
    """
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    first = folder / comparison["runs"][0]["folder"]
    manifest = json.loads((first / MANIFEST).read_text(encoding="utf-8"))
    table = (folder / "comparison.md").read_text(encoding="utf-8").strip()
    return [
        "## Communication compared",
        "",
        f"Comparison `{comparison['name']}`, seeds {format_list(comparison['seeds'])}, "
        f"code of {commit(manifest)}. All variants meet the same devices, presence, links and questions.",
        "",
        f"What was tuned: {_tuned(folder, comparison)}",
        "",
        table,
        "",
        "### What the target cost",
        "",
        *_to_target(folder, comparison),
        "",
        "### Training the clients' own models",
        "",
        *_client_training(comparison),
        "",
        "### What the synthetic rows promise",
        "",
        *_privacy(folder, comparison),
        "",
        "### Values chosen on validation questions",
        "",
        *_values(folder, comparison),
    ]


def _to_target(folder: Path, comparison: Mapping[str, Any]) -> Iterator[str]:
    target = comparison.get("target")
    if target is None:
        yield "There is no target: the first variant was not measured or gained nothing."
        return
    yield f"Validation greedy accuracy {target:.3f} ({comparison['target_origin']}). {MEDIAN}"
    yield ""
    yield from head("method", "reached", "wire, both ways", "virtual time", "updates")
    for variant in comparison["variants"]:
        runs = [run for run in comparison["runs"] if run["variant"] == variant["name"]]
        ways = [way for run in runs if (way := way_to(folder / run["folder"], target)) is not None]
        if not ways:
            continue
        size, duration_s, updates = (
            median_way(ways, amount) for amount in ("wire_bytes", "virtual_s", "updates")
        )
        cells = [
            variant["name"],
            f"{sum(way.reached for way in ways)} of {len(ways)}",
            "" if size is None else format_bytes(size),
            "" if duration_s is None else format_seconds(duration_s),
            "" if updates is None else f"{updates:.0f}",
        ]
        yield row(cells)


def _client_training(comparison: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for variant in comparison["variants"]:
        spent = variant.get("one_off", {}).get("client_training", {})
        longest_s, device_s, energy_j = (
            spent[key]["median"] if spent else None for key in ("longest_s", "device_s", "energy_j")
        )
        if device_s:
            energy = "not recorded" if energy_j is None else _energy(energy_j)
            rows.append([variant["name"], f"{longest_s:.1f} s", f"{device_s:.1f} s", energy])
    if not rows:
        yield "No variant trains models that are the clients' own."
        return
    yield (
        "Once, before the run, and in no total of this page; medians over seeds. Device seconds and energy are sums over "
        "the clients. Variants that are not listed train none."
    )
    yield ""
    yield from head("method", "slowest client", "device seconds", "energy")
    yield from map(row, rows)


def _energy(amount_j: float) -> str:
    return f"{amount_j:.1f} J" if amount_j < 1e3 else f"{amount_j / 1e3:.1f} kJ"


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
    yield from head("method", "mechanism", "epsilon", "delta", "noise", "releases", "malformed rows")
    for variant, entries in releases.items():
        cells = _ledger_cells(entries) if entries else ["no client made rows", *[""] * 5]
        yield row([variant, *cells])


def _ledger_cells(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mechanism to malformed rows; what promises nothing has no delta, and perhaps no noise or unit either."""
    first = entries[0]
    noise = [entry.get("noise") or 0.0 for entry in entries]
    delta, releases = first.get("delta"), first.get("releases")
    sent = sum(entry["rows_sent"] for entry in entries)
    malformed = sum(entry["rows_malformed"] for entry in entries)
    return [
        first["mechanism"],
        f"{float(first['epsilon']):g}",
        "none" if delta is None else f"{delta:g}",
        f"{min(noise):.2f} to {max(noise):.2f} {first.get('noise_unit') or ''}".strip()
        if any(noise)
        else "none",
        "" if releases is None else str(releases),
        f"{malformed / max(1, sent + malformed):.0%}",
    ]


def _tuned(folder: Path, comparison: Mapping[str, Any]) -> str:
    if (folder / "tuning.md").is_file():
        return "one setting of each method, on a grid and validation questions (values at the end)."
    keys = dict.fromkeys(one["tuned"]["key"] for one in comparison["variants"] if one["tuned"])
    return (
        f"the grid was not run. {', '.join(keys) or 'All settings'}: the file's own values; which of them were tried by hand, "
        "and on which seeds' validation questions, is in docs/log.md."
    )


def _values(folder: Path, comparison: Mapping[str, Any]) -> Iterator[str]:
    grid = folder / "tuning.md"
    if grid.is_file():
        yield from grid.read_text(encoding="utf-8").strip().split("\n")
        return
    yield "The grid was not run for this page; these are the file's own values."
    yield ""
    yield from head("method", "key", "value")
    for variant in comparison["variants"]:
        tuned = variant["tuned"]
        cells = ["not tuned", ""] if tuned is None else [tuned["key"], f"{tuned['value']:g}"]
        yield row([variant["name"], *cells])
