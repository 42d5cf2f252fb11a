"""Choosing a method's setting: the same grid for every method, judged by validation accuracy, every value listed.

Of the values tried, the one with the highest mean greedy accuracy on the validation questions at the end of the run is chosen
(over the grid's seeds; of equals the smallest value). The grid's runs have seeds that the comparison has not, and never see
the test questions. A chosen value at an edge of the grid is said to be one: the best may lie outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError
from fedsim.records.run_folder import write_atomically, write_json
from fedsim.sweeps.compare.file import Comparison, PlannedRun
from fedsim.sweeps.stats import interval

JSON, TABLE = "tuning.json", "tuning.md"
MEASURE = "validation.greedy.final"


@dataclass(frozen=True, slots=True)
class Trial:
    """One value of the grid for one variant: final validation accuracy by seed, and the folders of its runs."""

    value: float
    seeds: tuple[int, ...]
    accuracies: tuple[float | None, ...]
    folders: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None if one of them was not measured, since a mean over fewer seeds compares with no other."""
        known = [accuracy for accuracy in self.accuracies if accuracy is not None]
        return sum(known) / len(known) if known and len(known) == len(self.accuracies) else None


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one variant, and from what.

    Attributes:
        variant: the variant's name.
        key: the key whose values were tried.
        own: the value that the comparison file has there.
        trials: every value tried, ascending.
        chosen: the value with the highest mean.
    """

    variant: str
    key: str
    own: Any
    trials: tuple[Trial, ...]
    chosen: float

    @property
    def at_edge(self) -> bool:
        """Whether the chosen value is the grid's smallest or largest."""
        return self.chosen in (self.trials[0].value, self.trials[-1].value)


def best(trials: Sequence[Trial]) -> float | None:
    """The value with the highest mean validation accuracy; of equals the smallest; None if none was measured."""
    measured = [(trial.mean, -trial.value) for trial in trials if trial.mean is not None]
    return -max(measured)[1] if measured else None


def choose(
    comparison: Comparison,
    planned: Sequence[PlannedRun],
    grid: Sequence[PlannedRun],
    summaries: Mapping[str, Mapping[str, Any]],
    folders: Mapping[str, str],
) -> list[Choice]:
    """Choose every tuned variant's value from the finished runs of the grid.

    Args:
        comparison: the comparison.
        planned: its runs as the file has them (for the values it would use).
        grid: the runs of the grid.
        summaries: summaries of the grid's runs by key; only their validation accuracy is read.
        folders: where they lie, by key.

    Raises:
        FedsimError: no value of a variant has a validation accuracy.
    """
    choices = []
    for variant in comparison.variants:
        if variant.tune is None:
            continue
        runs = [run for run in grid if run.variant == variant.name]
        trials = []
        for value in sorted({run.value for run in runs if run.value is not None}):
            tried = [run for run in runs if run.value == value]
            trials.append(
                Trial(
                    value,
                    tuple(run.seed for run in tried),
                    tuple(summaries[run.key]["validation"]["greedy"]["final"] for run in tried),
                    tuple(folders[run.key] for run in tried),
                )
            )
        chosen = best(trials)
        if chosen is None:
            raise FedsimError(
                f"variant {variant.name}: no run of the grid has a validation accuracy; give tasks.sizes.validation questions"
            )
        own = own_value(next(run for run in planned if run.variant == variant.name), variant.tune)
        choices.append(Choice(variant.name, variant.tune, own, tuple(trials), chosen))
    return choices


def own_value(run: PlannedRun, key: str) -> Any:
    """What a run's resolved scenario has under a dotted key; None where it has nothing."""
    place: Any = run.scenario.resolved()
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


def write_tuning(folder: Path, comparison: Comparison, choices: Sequence[Choice]) -> list[Path]:
    """Write ``tuning.json`` and ``tuning.md``: every value with its validation accuracy, and what was chosen."""
    assert comparison.tune is not None  # there are choices
    by_name = {choice.variant: choice for choice in choices}
    document = {
        "name": comparison.name,
        "by": MEASURE,
        "seeds": list(comparison.tune.seeds),
        "values": sorted(comparison.tune.values),
        "variants": [
            {"name": variant.name, "key": None}
            if variant.name not in by_name
            else {
                "name": variant.name,
                "key": by_name[variant.name].key,
                "own": by_name[variant.name].own,
                "chosen": by_name[variant.name].chosen,
                "at_edge": by_name[variant.name].at_edge,
                "tried": [
                    {
                        "value": trial.value,
                        "validation": interval(trial.accuracies),
                        "runs": [
                            {"seed": seed, "validation": accuracy, "folder": place}
                            for seed, accuracy, place in zip(
                                trial.seeds, trial.accuracies, trial.folders, strict=True
                            )
                        ],
                    }
                    for trial in by_name[variant.name].trials
                ],
            }
            for variant in comparison.variants
        ],
    }
    return [
        write_json(folder / JSON, document),
        write_atomically(folder / TABLE, _page(comparison, by_name).encode()),
    ]


def _page(comparison: Comparison, choices: Mapping[str, Choice]) -> str:
    """The grid as a Markdown table: one line per variant, one column per value, the chosen one bold."""
    assert comparison.tune is not None
    values = sorted(comparison.tune.values)
    seeds = ", ".join(map(str, comparison.tune.seeds))
    lines = [
        f"Greedy accuracy on the validation questions at the end of the run, mean over the seeds tuned on ({seeds}); test "
        "questions were never looked at. The highest mean is chosen, of equals the smallest value.",
        "",
        f"| method | key | {' | '.join(f'{value:g}' for value in values)} | chosen |",
        "|---" * (len(values) + 3) + "|",
    ]
    for variant in comparison.variants:
        choice = choices.get(variant.name)
        if choice is None:
            lines.append(f"| {variant.name} | not tuned |{'  |' * (len(values) + 1)}")
            continue
        cells = [
            _accuracy(trial.mean, bold=trial.value == choice.chosen)
            for trial in sorted(choice.trials, key=lambda trial: trial.value)
        ]
        edge = ", at the edge of the grid" if choice.at_edge else ""
        lines.append(f"| {variant.name} | {choice.key} | {' | '.join(cells)} | {choice.chosen:g}{edge} |")
    return "\n".join(lines) + "\n"


def _accuracy(mean: float | None, *, bold: bool) -> str:
    shown = "not measured" if mean is None else f"{mean:.3f}"
    return f"**{shown}**" if bold else shown
