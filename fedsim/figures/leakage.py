"""Tables of what runs gave away, from the ``leakage.json`` of their folders (`fedsim.experiment.leakage`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsim.errors import RunFolderError

LEAKAGE = "leakage.json"

_HEAD = "| run | read from | server | about | how | members / others | AUC | TPR at 1% FPR |"
_ANSWERS_HEAD = "| run | server | how | trusted answers | disclosed | known without replies |"


def read(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The reports of several runs by the folder's name.

    Raises:
        RunFolderError: a folder has no report, or one that cannot be read.
    """
    found = {}
    for folder in folders:
        try:
            found[folder.name] = json.loads((folder / LEAKAGE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{folder / LEAKAGE} cannot be read ({error}); run fedsim leakage {folder}"
            ) from None
    return found


def table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Two Markdown tables: membership inference, then trusted answers; 95% bootstrap intervals over records in brackets."""
    lines = [_HEAD, "|---|---|---|---|---|---|---|---|"]
    for run, report in reports.items():
        lines += [_row(run, *cells) for cells in _attacks(report["attacks"])]
    if any(report["disclosures"] for report in reports.values()):
        lines += ["", _ANSWERS_HEAD, "|---|---|---|---|---|---|"]
        for run, report in reports.items():
            lines += [_row(run, *cells) for cells in _disclosures(report["disclosures"])]
    return "\n".join(lines)


def _attacks(attacks: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    for attack in attacks:
        said = [str(attack[key]) for key in ("source", "server", "target", "how")]
        result = attack["result"]
        if result is None:
            yield [*said, "nothing to read", "", ""]
            continue
        counts = f"{result['num_members']} / {result['num_others']}"
        yield [*said, counts, _estimate(result["auc"]), _estimate(result["tpr"])]


def _disclosures(disclosures: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[str]]:
    for one in disclosures:
        shares = [_estimate(one["share"]), _estimate(one["known_before"])]
        yield [one["server"], one["how"], str(one["num_answers"]), *shares]


def _estimate(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
