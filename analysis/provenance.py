"""What stands in front of every section: which runs, by which code, and of what there was too little."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from analysis.finished import Compared, format_list

ENOUGH_SEEDS = 3
"""With fewer, a Student-t interval is so wide (12.7 standard errors for two seeds) that hardly anything is told apart."""


def made(compared: Compared) -> str:
    """The runs of a comparison, in one sentence or two."""
    return (
        f"Comparison `{compared.name}`, seeds {format_list(compared.seeds)}, code of {compared.made_by}. "
        + settings(compared.tuned)
    ).strip()


def settings(tuned: Mapping[str, Mapping[str, Any] | None]) -> str:
    """What was tuned, and whether the values were chosen or are the file's own."""
    found = {name: setting for name, setting in tuned.items() if setting}
    if not found:
        return ""
    chosen = [name for name, setting in found.items() if setting["by"] == "tuning"]
    if not chosen:
        return "No setting was chosen on validation here: all are the file's own."
    values = ", ".join(f"{name} {found[name]['value']:g}" for name in chosen)
    key = " and ".join(dict.fromkeys(str(found[name]["key"]) for name in chosen))
    return f"Chosen on validation questions of other seeds: {key} ({values})."


def short_of(
    seeds: Sequence[int], wanted: int, updates: Iterable[float], unmeasured: Sequence[str] = ()
) -> Iterator[str]:
    """What was short, one sentence each.

    Args:
        seeds: those there are.
        wanted: how many were wanted.
        updates: optimiser steps of every run.
        unmeasured: variants without an accuracy.
    """
    steps = sorted(updates)
    if len(seeds) < wanted:
        yield f"{len(seeds)} of {wanted} wanted seeds."
    if len(seeds) == 1:
        yield "One seed: no interval over seeds can be given, and differences between variants may be luck."
    elif len(seeds) < ENOUGH_SEEDS:
        yield "Two seeds: intervals are 12.7 standard errors to either side and tell hardly anything apart."
    if steps:
        span = f"{steps[0]:.0f}" if steps[0] == steps[-1] else f"{steps[0]:.0f} to {steps[-1]:.0f}"
        yield f"Runs made {span} updates; what longer runs would show is not known."
    if unmeasured:
        yield f"No accuracy on test questions was measured for: {', '.join(unmeasured)}."


def updates_of(compared: Compared) -> list[float]:
    """Optimiser steps of every run of a comparison."""
    return [float(run["updates"]) for runs in compared.summaries.values() for run in runs]


def unmeasured(compared: Compared) -> list[str]:
    """Variants of which some run has no accuracy on the test questions."""
    return [
        name
        for name, runs in compared.summaries.items()
        if any(run["accuracy"]["greedy"]["final"] is None for run in runs)
    ]
