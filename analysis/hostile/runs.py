"""Runs of sweeps over fusion rules and hostile experts, merged from several folders, and what of a gain a rule retains.

    retained = (final - initial accuracy under the attack) / (the same of the oracle, same seed)

The oracle is the rule ``mean`` where as many clients take no part at all (``excluded``); of nobody hostile, ``mean`` itself.
Where no run has exactly as many excluded, the nearest with fewer stands in: it learns from more honest clients, which is
stricter. Where ``mean`` was not run there, the rule itself does. An oracle that gains less than two standard errors of an
accuracy over that many questions (all samples of a question falling alike) gives no share: a ratio to noise means nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.finished import commits
from fedsim.config.csv_files import read_csv_records
from fedsim.errors import RunFolderError
from fedsim.figures.stress.runs import read_sweep
from fedsim.records.run_folder import MANIFEST, SUMMARY
from fedsim.sweeps.compare.tables import gain
from fedsim.sweeps.stats import Interval, interval

AXES = ("fusion", "hostile")
PLAIN = "mean"
"""The rule that defends against nothing."""
ABSENT = "excluded"
"""The kind that is no attack but its oracle: these clients take no part."""

MEASURES = {"pass_at_1": "pass@1", "greedy": "greedy"}
"""Accuracies that are judged; pass@1 has less sampling noise."""

NOISE_FACTOR = 2.0
"""How many standard errors of an accuracy an oracle has to gain."""

Place = tuple[str, str, int]
"""Rule, level of hostility, seed."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of hostility: of what kinds, and how many clients."""

    name: str
    kinds: tuple[str, ...]
    count: int

    @property
    def is_oracle(self) -> bool:
        """Whether nobody lies: nobody is hostile, or those who would be are left out."""
        return set(self.kinds) <= {ABSENT}


@dataclass(frozen=True, slots=True)
class HostileGrid:
    """Every run of several sweeps by rule, level and seed.

    Attributes:
        names: of the sweeps.
        rules, levels: in the order of the files.
        summaries: of the runs that have one.
        num_clients: of the federation.
        samples: answers per test question behind pass@1.
        missing: places that a sweep had and that ended without a summary, with the reason.
        differing: settings, beside the axes, that are not the same in all runs.
        made_by: the commits that made the runs, in words.
    """

    names: tuple[str, ...]
    rules: tuple[str, ...]
    levels: Mapping[str, Level]
    summaries: Mapping[Place, Mapping[str, Any]]
    num_clients: int
    samples: int
    missing: Mapping[Place, str]
    differing: tuple[str, ...]
    made_by: str

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, in order."""
        return tuple(sorted({seed for _, _, seed in self.summaries}))

    def seeds_of(self, rule: str, level: str) -> list[int]:
        """The seeds of one cell."""
        return [seed for seed in self.seeds if (rule, level, seed) in self.summaries]

    def attacks(self, count: int | None = None) -> list[Level]:
        """Levels at which somebody lies (or dawdles); of so many clients, or of any number."""
        return [
            level for level in self.levels.values() if not level.is_oracle and count in (None, level.count)
        ]

    def gain(self, rule: str, level: str, seed: int, measure: str) -> float | None:
        """Final minus initial accuracy on the test questions; None where there is no run, or no accuracy."""
        summary = self.summaries.get((rule, level, seed))
        return None if summary is None else gain(summary, measure)


@dataclass(frozen=True, slots=True)
class Retained:
    """What a rule keeps of the oracle's gain in one cell.

    Attributes:
        by_seed: ratio by seed; None where the oracle gained no more than noise or is not there.
        stand_in: whether the oracle of some seed is not exactly ``mean`` with as many excluded.
    """

    by_seed: Mapping[int, float | None]
    stand_in: bool

    @property
    def interval(self) -> Interval:
        """Mean over the seeds, with its interval where there are several."""
        return interval(list(self.by_seed.values()))


def retained(grid: HostileGrid, rule: str, level: str, measure: str) -> Retained:
    """What ``rule`` retains at ``level``, seed by seed."""
    found: dict[int, float | None] = {}
    stand_in = False
    for seed in grid.seeds_of(rule, level):
        ours, oracle = grid.gain(rule, level, seed, measure), _oracle(grid, rule, level, seed, measure)
        if ours is None or oracle is None:
            found[seed] = None
            continue
        found[seed] = ours / oracle[0]
        stand_in |= not oracle[1]
    return Retained(found, stand_in)


def _oracle(grid: HostileGrid, rule: str, level: str, seed: int, measure: str) -> tuple[float, bool] | None:
    """The oracle's gain, and whether it is the one that was wanted; None if there is none, or its gain is noise."""
    count = grid.levels[level].count
    oracles = sorted(
        (one for one in grid.levels.values() if one.is_oracle and one.count <= count),
        key=lambda one: -one.count,
    )
    for one in oracles:
        for by in dict.fromkeys((PLAIN, rule)):
            found = grid.gain(by, one.name, seed, measure)
            if found is not None:
                error = standard_error(grid.summaries[by, one.name, seed], measure)
                wanted = one.count == count and by == PLAIN
                return (found, wanted) if found > NOISE_FACTOR * error else None
    return None


def standard_error(summary: Mapping[str, Any], measure: str) -> float:
    """Of the final accuracy over the test questions, sqrt(p (1 - p) / n), as if all samples of a question fell alike."""
    accuracy = summary["accuracy"]
    final = float(accuracy[measure]["final"])
    return math.sqrt(final * (1 - final) / accuracy["num_questions"])


def read_grid(folders: Sequence[Path]) -> HostileGrid:
    """Read and merge sweeps over ``fusion`` and ``hostile``.

    Raises:
        RunFolderError: a folder is not such a sweep, or two have different results at one place.
    """
    summaries: dict[Place, dict[str, Any]] = {}
    missing: dict[Place, str] = {}
    manifests: list[dict[str, Any]] = []
    levels: dict[str, Level] = {}
    rules: dict[str, None] = {}
    names = []
    for folder in folders:
        sweep = read_sweep(folder)
        if sweep.is_random or set(sweep.axes) != set(AXES):
            raise RunFolderError(
                f"{folder} is a sweep over {', '.join(sweep.axes)}; must be a grid over fusion and hostile"
            )
        names.append(sweep.name)
        rules |= dict.fromkeys(sweep.levels("fusion"))
        for place, reason, run in _runs(folder):
            summary, manifest = _json(run / SUMMARY), _json(run / MANIFEST)
            if summary is None or manifest is None:
                missing[place] = reason
                continue
            known = summaries.setdefault(place, summary)
            if known["records_sha256"] != summary["records_sha256"]:
                raise RunFolderError(
                    f"{folder}: another sweep has other results for {' '.join(map(str, place))}; give one of them"
                )
            manifests.append(manifest)
            levels.setdefault(place[1], level_of(place[1], manifest, summary))
    if not summaries:
        raise RunFolderError(f"{', '.join(map(str, folders))}: no run has a summary")
    first = next(iter(summaries.values()))
    return HostileGrid(
        names=tuple(names),
        rules=tuple(rules),
        levels=levels,
        summaries=summaries,
        num_clients=int(first["clients"]["total"]),
        samples=int((manifests[0]["scenario"].get("evaluation") or {}).get("samples", 1)),
        missing={place: reason for place, reason in missing.items() if place not in summaries},
        differing=tuple(_differing(manifest["scenario"] for manifest in manifests)),
        made_by=commits(manifests),
    )


def level_of(name: str, manifest: Mapping[str, Any], summary: Mapping[str, Any]) -> Level:
    """A level's kinds and number of clients, from the resolved scenario of one of its runs."""
    total = int(summary["clients"]["total"])
    entries = manifest["scenario"].get("hostile") or []
    count = sum(
        len(entry["clients"])
        if entry.get("clients") is not None
        else math.ceil(entry["share"] * total)
        if entry.get("share") is not None
        else int(entry.get("count") or 0)
        for entry in entries
    )
    return Level(name, tuple(dict.fromkeys(entry["kind"] for entry in entries)), count)


def _runs(folder: Path) -> list[tuple[Place, str, Path]]:
    path = folder / "stress.csv"
    try:
        return [
            (
                (row["fusion"], row["hostile"], int(row["seed"])),
                row["reason"] or row["status"],
                folder / row["folder"],
            )
            for row in read_csv_records(path.read_bytes())
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} cannot be read ({error!r}); sweep again, finished runs are kept"
        ) from None


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON file; None if it is not there (a run that failed has no summary).

    Raises:
        RunFolderError: it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error!r}); run it again") from None
    return dict(found)


def _differing(scenarios: Iterable[Mapping[str, Any]]) -> list[str]:
    """Dotted keys, beside the axes, the seed and the name, in which resolved scenarios are not all alike."""
    seen: dict[str, set[str]] = {}
    for scenario in scenarios:
        for key, value in _flat(scenario):
            if key not in ("name", "seed", "hostile", "protocol.fusion"):
                seen.setdefault(key, set()).add(json.dumps(value, sort_keys=True))
    return sorted(key for key, values in seen.items() if len(values) > 1)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield prefix + key, entry
