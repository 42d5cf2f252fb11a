"""What a comparison would take, before it is run: how many runs, how many are kept already, and a rough estimate of each.

Virtual figures come from playing the first updates of one seed of every variant with stand-ins (`forecast.estimate`). Real
time cannot be foreseen for real models; where runs are kept already, theirs is extrapolated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsim.errors import FedsimError
from fedsim.experiment.forecast.estimate import BUDGET_S, Estimate, estimate_prepared
from fedsim.experiment.prepared import Prepared
from fedsim.records.run_folder import SUMMARY
from fedsim.sweeps.compare.file import open_comparison
from fedsim.sweeps.compare.run import RUNS, is_finished, prepare_variants
from fedsim.sweeps.executors import num_that_fit


@dataclass(frozen=True, slots=True)
class VariantOutlook:
    """One variant: its runs, how many of them are kept, and one seed's estimate, or why there is none."""

    name: str
    runs: int
    kept: int
    estimate: Estimate | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """A whole comparison.

    Attributes:
        name: its name.
        folder: where its runs are looked for.
        runs: different runs, those of the grid left out (variants that come to the same scenario share theirs).
        kept: how many of them are finished.
        grid_runs: different runs of the grid of ``--tune``.
        grid_kept: how many of those are finished.
        wall_s: what the missing ones will take if they take what the kept ones took; None where none is kept.
        variants: every variant, in order.
    """

    name: str
    folder: Path
    runs: int
    kept: int
    grid_runs: int
    grid_kept: int
    wall_s: float | None
    variants: tuple[VariantOutlook, ...]


def outlook(
    source: Path | str,
    out: Path | None = None,
    *,
    processes: int | None = None,
    seeds: tuple[int, ...] | None = None,
    budget_s: float = BUDGET_S,
) -> Outlook:
    """Resolve a comparison, look for kept runs, and estimate one seed of every variant.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong.
        DataFileError: a file that a scenario names cannot be read.
    """
    opened = open_comparison(source, seeds)
    planned, grid = opened.runs(), opened.grid()
    folder = out or Path("runs") / opened.comparison.name
    kept = {run.key for run in (*planned, *grid) if is_finished(folder / RUNS / run.key)}
    prepared = prepare_variants(opened.path, [*planned, *grid])
    by_key: dict[str, tuple[Estimate | None, str]] = {}
    variants = []
    for variant in opened.comparison.variants:
        runs = [run for run in planned if run.variant == variant.name]
        first = runs[0]
        if first.key not in by_key:
            by_key[first.key] = _estimate(prepared[variant.name], budget_s / len(prepared))
        found, why_not = by_key[first.key]
        variants.append(
            VariantOutlook(variant.name, len(runs), sum(run.key in kept for run in runs), found, why_not)
        )
    keys, grid_keys = {run.key for run in planned}, {run.key for run in grid}
    return Outlook(
        name=opened.comparison.name,
        folder=folder,
        runs=len(keys),
        kept=len(keys & kept),
        grid_runs=len(grid_keys),
        grid_kept=len(grid_keys & kept),
        wall_s=_wall_s(folder, keys, kept, num_that_fit(processes, planned)),
        variants=tuple(variants),
    )


def lines(found: Outlook) -> Iterator[str]:
    """An outlook for people, one line each."""
    from fedsim.config.units import format_seconds
    from fedsim.progress import format_stats

    yield f"{found.name}: {found.runs} runs, {found.kept} kept in {found.folder}, {found.runs - found.kept} to do"
    if found.grid_runs:
        yield f"with --tune {found.grid_runs} more, {found.grid_kept} kept"
    if found.wall_s is not None and found.runs > found.kept:
        yield f"real time about {format_seconds(found.wall_s)}, if the rest take what the kept ones took"
    width = max(len(variant.name) for variant in found.variants)
    yield "per run, played with stand-ins:"
    for variant in found.variants:
        one = variant.estimate
        shown = (
            f"no estimate: {variant.why_not}"
            if one is None
            else format_stats(
                {
                    "updates": one.updates,
                    "requests": one.requests,
                    "wire_up_bytes": one.wire_up_bytes,
                    "wire_down_bytes": one.wire_down_bytes,
                    "paper_up_bytes": one.paper_up_bytes,
                    "virtual_s": one.virtual_s,
                }
            )
        )
        yield f"  {variant.name:{width}}  {variant.kept}/{variant.runs} kept · {shown}"


def _estimate(prepared: Prepared, budget_s: float) -> tuple[Estimate | None, str]:
    try:
        found = estimate_prepared(prepared, budget_s)
    except FedsimError as error:
        return None, str(error)
    why_not = found.why_not_extrapolated
    return None if why_not else found, why_not


def _wall_s(folder: Path, keys: set[str], kept: set[str], processes: int) -> float | None:
    took_s = [
        float(json.loads((folder / RUNS / key / SUMMARY).read_text(encoding="utf-8"))["wall_s"])
        for key in sorted(keys & kept)
    ]
    if not took_s:
        return None
    return sum(took_s) / len(took_s) * len(keys - kept) / processes
