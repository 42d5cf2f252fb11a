"""Whom the server came to distrust, against the truth, by level of hostility and rule of fusion."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.finished import head, mean, row
from analysis.hostile.runs import HostileGrid, Level
from fedsim.sweeps.stats import interval


def detection_lines(grid: HostileGrid) -> Iterator[str]:
    """Precision and recall of whom the server came to distrust."""
    if not any(summary.get("detection") for summary in grid.summaries.values()):
        yield "No run has a report on trust."
        return
    yield (
        "Precision / recall of the clients that the server came to distrust, means over seeds (precision over the runs in "
        "which anybody was flagged, `none` where nobody ever was); with nobody hostile, how many honest clients were flagged."
    )
    yield ""
    yield from head("level", *grid.rules)
    for level in grid.levels.values():
        if level.is_oracle and level.count:
            continue
        cells = [_found(grid, rule, level) for rule in grid.rules]
        if any(cells):
            yield row([level.name, *cells])
    kinds = dict.fromkeys(kind for level in grid.attacks() for kind in level.kinds)
    yield from ["", "Recall by kind, over all runs in which the kind is there, whatever their number.", ""]
    yield from head("kind", *grid.rules)
    for kind in kinds:
        yield row([kind, *(_recall(grid, rule, kind) for rule in grid.rules)])


def _found(grid: HostileGrid, rule: str, level: Level) -> str:
    reports = [
        report
        for seed in grid.seeds_of(rule, level.name)
        if (report := grid.summaries[rule, level.name, seed].get("detection"))
    ]
    if not reports:
        return ""
    if level.is_oracle:
        return f"{mean(len(report['flagged']) for report in reports):.1f} flagged"
    precision = interval([report["precision"] for report in reports])["mean"]
    recall = interval([report["recall"] for report in reports])["mean"]
    return (
        f"{'none' if precision is None else f'{precision:.2f}'} / {'' if recall is None else f'{recall:.2f}'}"
    )


def _recall(grid: HostileGrid, rule: str, kind: str) -> str:
    found = [
        report["recall_by_kind"][kind]
        for (by, _, _), summary in grid.summaries.items()
        if by == rule and (report := summary.get("detection")) and kind in report["recall_by_kind"]
    ]
    return f"{mean(found):.2f}" if found else ""
