"""What a comparison says: every number of the summaries as a mean with its 95% interval over seeds.

Intervals are Student-t over seeds (n = seeds): one run is one observation, whatever it averaged inside. Differences are
paired by seed, because a seed fixes partition, models and devices for every variant.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fedsim.runfolder import write_atomically, write_json

Interval = dict[str, float | int | None]
Summaries = Mapping[str, Sequence[Mapping[str, Any]]]

LEVEL = 0.95


def interval(values: Sequence[float | None]) -> Interval:
    """Mean and Student-t interval: ``mean +- t_{n-1} s / sqrt(n)``; no interval for one value, None for none.

    A value that is undefined in one run (None) leaves that run out, and ``n`` says so.
    """
    known = [float(value) for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean = float(np.mean(known))
    if len(known) == 1:
        return {"mean": mean, "low": None, "high": None, "n": 1}
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(known) - 1) * np.std(known, ddof=1) / np.sqrt(len(known)))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(known)}


def aggregate(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of several summaries under the same keys, each as an interval; texts are left out."""
    keys = dict.fromkeys(key for summary in summaries for key in summary)
    found: dict[str, Any] = {}
    for key in keys:
        entries = [summary.get(key) for summary in summaries]
        if any(isinstance(entry, Mapping) for entry in entries):
            found[key] = aggregate([entry for entry in entries if isinstance(entry, Mapping)])
        elif all(
            entry is None or (isinstance(entry, int | float) and not isinstance(entry, bool))
            for entry in entries
        ):
            found[key] = interval(entries)
    return found


def write_comparison(
    folder: Path, name: str, seeds: Sequence[int], summaries: Summaries, runs: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Write ``comparison.json``, ``comparison.csv`` (one row per run) and ``comparison.md`` (a table for a paper).

    ``runs`` says where each run lies: ``variant``, ``seed``, ``folder`` (beside the files).
    """
    variants = [
        {"name": variant, "protocol": runs[0]["protocol"]}
        | {key: value for key, value in aggregate(runs).items() if key not in ("seed", "wall_s")}
        for variant, runs in summaries.items()
    ]
    document = {"name": name, "seeds": list(seeds), "level": LEVEL, "variants": variants, "runs": list(runs)}
    return [
        write_json(folder / "comparison.json", document),
        write_atomically(folder / "comparison.csv", _csv(summaries).encode()),
        write_atomically(folder / "comparison.md", table(summaries).encode()),
    ]


def gain(summary: Mapping[str, Any], measure: str = "greedy") -> float | None:
    """Final minus initial accuracy on the test questions of one run."""
    accuracy = summary["accuracy"][measure]
    if accuracy["initial"] is None or accuracy["final"] is None:
        return None
    return float(accuracy["final"] - accuracy["initial"])


def paired(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Interval:
    """Interval of the differences ``ours - theirs``, seed by seed."""
    return interval([None if a is None or b is None else a - b for a, b in zip(ours, theirs, strict=True)])


def table(summaries: Summaries) -> str:
    """A Markdown table: accuracy, difference to the first variant, bytes in both accounts, virtual time."""
    reference = next(iter(summaries.values()))
    lines = [
        "| variant | greedy | minus first | pass@1 | uplink, paper's account | wire, up | wire, down | virtual time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in summaries.items():
        final = [run["accuracy"]["greedy"]["final"] for run in runs]
        against = [run["accuracy"]["greedy"]["final"] for run in reference]
        cells = [
            name,
            show(interval(final)),
            "" if runs is reference else show(paired(final, against), signed=True),
            show(interval([run["accuracy"]["pass_at_1"]["final"] for run in runs])),
            *(
                _size(interval([run["bytes"][account][direction] for run in runs])["mean"])
                for account, direction in (("paper", "uplink"), ("wire", "uplink"), ("wire", "downlink"))
            ),
            f"{interval([run['virtual_s'] for run in runs])['mean'] or 0:.1f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def show(found: Interval, *, signed: bool = False, digits: int = 3) -> str:
    """An interval for people: ``0.412 [0.398, 0.426]``."""
    if found["mean"] is None:
        return "not measured"
    mean, low, high = (
        _rounded(found[bound], "+" if signed else "", digits) for bound in ("mean", "low", "high")
    )
    return mean if not low or not high else f"{mean} [{low}, {high}]"


def _rounded(number: float | int | None, sign: str, digits: int) -> str:
    """A number with its digits, or nothing for None; what rounds to zero has no minus."""
    return "" if number is None else f"{round(number, digits) + 0.0:{sign}.{digits}f}"


def _size(amount: float | int | None) -> str:
    return "not measured" if amount is None else f"{amount / 2**20:.3f} MiB"


def _csv(summaries: Summaries) -> str:
    rows = [{"variant": variant} | _flat(summary) for variant, runs in summaries.items() for summary in runs]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            found |= _flat(entry, f"{prefix}{key}.")
        else:
            found[prefix + key] = entry if not isinstance(entry, list) else json.dumps(entry)
    return found
