"""Small tables of finished runs, from which the evidence pages are written: kept with the source, unlike the runs.

    python -m analysis.results .evidence docs/results

The first line of a table says what was planned, of which there may be more than is finished; every other line is a run: its
variant (or levels), seed, commit, summary, looks at questions that are only measured, rewards asked and lost by cause, and, if
they were measured, what attacks found (``leakage.json``) and the halves of the test questions (``planted.json``).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.command import exit_code, paths
from fedsim.config.yaml import read as read_yaml
from fedsim.errors import RunFolderError
from fedsim.experiment.leakage.measure import LEAKAGE
from fedsim.records.looks import looks
from fedsim.records.run import load
from fedsim.records.run_folder import MANIFEST, SUMMARY, write_atomically
from fedsim.scenario.read import find_scenario
from fedsim.sweeps.compare.file import PlannedRun, open_comparison
from fedsim.sweeps.compare.run import RUNS
from fedsim.sweeps.stats import Interval, interval
from fedsim.sweeps.stress.endings import Ending
from fedsim.sweeps.stress.file import StressRun, open_stress
from fedsim.sweeps.stress.rows import read_row

PLANTED = "planted.json"
RESULTS = Path("docs/results")
PLAN = {
    "skills_methods": "skills_methods.yaml",
    "skills_controls": "skills/controls.yaml",
    "skills_dropout": "skills/dropout.yaml",
    "controls": "evidence.yaml",
    "overhead": "overhead.yaml",
    "rationale": "rationale_methods.yaml",
    "errors": "paper/errors.yaml",
    "privacy": "privacy.yaml",
    "dropout": "dropout/cost.yaml",
    "schedules": "async/schedules.yaml",
    "averaging": "async/averaging.yaml",
    "losses": "losses.yaml",
    "byzantine": "byzantine/attacks.yaml",
    "byzantine_hard": "byzantine/hard.yaml",
    "ablation": "paper/ablation.yaml",
    "released": "paper/released.yaml",
    "table1": "paper/table1.yaml",
    "table2": "paper/table2.yaml",
    "figure3": "paper/figure3.yaml",
    "noniid": "paper/noniid.yaml",
    "experts": "paper/experts.yaml",
    "grouping": "paper/grouping.yaml",
    "probe": "paper/probe.yaml",
}
"""Tables of results by name, each with the file in ``scenarios/`` whose runs it holds."""

_KEPT = (
    "protocol", "fidelity", "virtual_s", "stopped_by", "accuracy", "validation", "looks", "bytes", "leaves", "requests",
    "groups", "updates", "wall_s", "staleness", "learning", "billed", "one_off", "records_sha256",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run.

    Attributes:
        key: of its folder: a hash of scenario, seed, code and platform.
        name: its variant, or its levels, joined by blanks.
        summary: of the run folder, without loads and ledgers.
        looks: per set of questions, in order: updates, virtual seconds, wire bytes both ways, greedy accuracy.
        rewards: wanted, came and used; requests lost by cause.
        leakage: what `fedsim leakage` found; None where it was not asked.
        planted: the halves of the test questions (`analysis.planted`); None where they were not measured.
    """

    name: str
    seed: int
    commit: str
    summary: Mapping[str, Any]
    looks: Mapping[str, Sequence[Sequence[float]]]
    rewards: Mapping[str, Any]
    leakage: Mapping[str, Any] | None = None
    planted: Mapping[str, Any] | None = None
    key: str = ""

    def number(self, *path: str) -> float | None:
        """A number of the summary, by its keys; None where it was not measured."""
        found: Any = self.summary
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    @property
    def end(self) -> float | None:
        """Greedy accuracy on the test questions."""
        return self.number("accuracy", "greedy", "final")

    @property
    def gain(self) -> float | None:
        """End minus start of the greedy accuracy on the test questions."""
        start = self.number("accuracy", "greedy", "initial")
        return None if self.end is None or start is None else self.end - start

    @property
    def wire_bytes(self) -> float:
        """Bytes on the wire, both ways."""
        return float(sum(self.summary["bytes"]["wire"].values()))


@dataclass(frozen=True)
class Results:
    """A comparison or a sweep: what was planned, and the runs that are finished."""

    name: str
    planned: Mapping[str, Sequence[int]]
    platform: Mapping[str, Any]
    versions: Mapping[str, Any]
    runs: Sequence[Run]

    @cached_property
    def by_name(self) -> Mapping[str, Mapping[int, Run]]:
        """Every variant's finished runs by seed; a variant without any is there too."""
        found: dict[str, dict[int, Run]] = {name: {} for name in self.planned}
        for run in self.runs:
            found[run.name][run.seed] = run
        return found

    @property
    def commits(self) -> list[str]:
        """The commits that made the runs, each once."""
        return sorted({run.commit for run in self.runs})

    @property
    def missing(self) -> int:
        """Planned runs that are not finished."""
        return sum(len(seeds) for seeds in self.planned.values()) - len(self.runs)

    def over(self, seeds: Collection[int]) -> Results:
        """The same table with these seeds' runs alone."""
        return replace(self, runs=[run for run in self.runs if run.seed in seeds])

    def values(self, name: str, *path: str) -> dict[int, float]:
        """A number by seed: ``gain``, ``end``, ``wire_bytes``, or keys of the summary; seeds without it are left out."""
        found = {}
        for seed, run in self.by_name.get(name, {}).items():
            value = getattr(run, path[0]) if len(path) == 1 and hasattr(run, path[0]) else run.number(*path)
            if value is not None:
                found[seed] = float(value)
        return found


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """Ours minus theirs, paired by the seeds that both have."""
    return interval([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def share(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Interval:
    """Mean over shared seeds of ours divided by the mean of theirs, with the interval that a jackknife of the ratio gives.

    A ratio of means, not a mean of ratios: one seed whose denominator is near zero must not decide it. The interval is
    Student-t of the jackknife's pseudo-values (Miller 1974, The jackknife: a review), one for each seed.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    a, b = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    if not seeds or sum(b) <= 0:
        return interval([])
    whole, n = sum(a) / sum(b), len(seeds)
    if n < 3:  # fewer pseudo-values than an interval needs
        return {"mean": whole, "low": None, "high": None, "n": n}
    rest = [(sum(a) - a[i]) / (sum(b) - b[i]) if sum(b) != b[i] else whole for i in range(n)]
    pseudo = interval([n * whole - (n - 1) * one for one in rest])
    half = (pseudo["high"] or 0.0) - (pseudo["mean"] or 0.0)
    return {"mean": whole, "low": whole - half, "high": whole + half, "n": n}


def halves(results: Results, name: str) -> dict[str, dict[int, float]]:
    """By seed: gains on the corrupted and the clean half of the test questions, and the end minus the planted bits alone."""
    runs = {
        seed: run.planted for seed, run in results.by_name.get(name, {}).items() if run.planted is not None
    }
    if not runs:
        return {}
    return {
        "corrupted": {seed: one["end_corrupted"] - one["start_corrupted"] for seed, one in runs.items()},
        "clean": {seed: one["end_clean"] - one["start_clean"] for seed, one in runs.items()},
        "bits": {seed: one["end"] - one["planted_bits"] for seed, one in runs.items()},
    }


def write(source: Path, folder: Path, target: Path) -> Path | None:
    """Write the table of a comparison's or a sweep's finished runs; None where no run of it is finished.

    A run that the table has and that would be the same again (its key) stays, so a table may be filled in several folders.

    Args:
        source: its file.
        folder: where its runs are, by this code and on this machine.
        target: the table.

    Raises:
        InputError: the file is wrong, or a run is damaged.
    """
    path = find_scenario(source)
    planned: Sequence[PlannedRun | StressRun]
    if "axes" in read_yaml(path).data:
        opened = open_stress(path)
        name, planned = opened.stress.name, opened.runs()
    else:
        compared = open_comparison(path)
        name, planned = compared.comparison.name, compared.runs()
    seeds: dict[str, list[int]] = {}
    for run in planned:
        seeds.setdefault(_name(run), []).append(run.seed)
    runs = list(_finished(planned, folder / RUNS))
    if not runs:
        return None
    manifest = runs[0][1]
    rows = {run["key"]: run for run, _ in runs}
    if target.is_file():
        rows = {run.key: asdict(run) for run in read(target).runs} | rows
    kept = [rows[one.key] for one in planned if one.key in rows]
    head = {
        "name": name,
        "planned": seeds,
        "platform": manifest["platform"],
        "versions": {
            key: manifest["versions"].get(key) for key in ("python", "fedsim", "torch", "transformers")
        },
    }
    lines = [json.dumps(one, separators=(",", ":"), allow_nan=False) for one in (head, *kept)]
    return write_atomically(target, ("\n".join(lines) + "\n").encode())


def read(table: Path) -> Results:
    """Read a table.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        head, *runs = (json.loads(line) for line in table.read_text(encoding="utf-8").splitlines())
        return Results(**head, runs=[Run(**run) for run in runs])
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{table} is not a table of results ({error!r})") from None


def _name(run: PlannedRun | StressRun) -> str:
    if isinstance(run, StressRun):
        return " ".join(run.levels.values())
    return run.variant


def _finished(
    planned: Sequence[PlannedRun | StressRun], store: Path
) -> Iterator[tuple[dict[str, Any], Mapping[str, Any]]]:
    for one in planned:
        folder = store / one.key
        if not (folder / SUMMARY).is_file():
            continue
        manifest, summary = (_json(folder / name) for name in (MANIFEST, SUMMARY))
        if manifest is None or summary is None or manifest["status"] != "finished":
            continue
        yield asdict(_run(one, folder, manifest, summary)), manifest


def _run(
    planned: PlannedRun | StressRun, folder: Path, manifest: Mapping[str, Any], summary: Mapping[str, Any]
) -> Run:
    found = load(folder)
    row = read_row(folder, Ending("finished", "", 0.0), planned.scenario.stop)
    lost: Counter[str] = Counter()
    for (cause, _, _, _), count in row.lost.items():
        lost[cause] += count
    sets = ["validation", "test", *summary.get("looks", {})]
    return Run(
        key=planned.key,
        name=_name(planned),
        seed=planned.seed,
        commit=(manifest.get("git_commit") or "unknown")[:10],
        summary={key: summary[key] for key in _KEPT if key in summary},
        looks={
            name: [
                [look.updates, look.virtual_s, look.wire_bytes, look.value]
                for look in looks(found, split=name)
            ]
            for name in sets
        },
        rewards={key: row.numbers[f"rewards_{key}"] for key in ("wanted", "came", "used")}
        | {"asked": sum(row.asked.values()), "lost": dict(lost.most_common())},
        leakage=_json(folder / LEAKAGE),
        planted=_json(folder / PLANTED),
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main(arguments: list[str] | None = None) -> int:
    """Command line: where runs lie, in a folder for each name of `PLAN`, and where tables go."""

    def tables() -> str:
        runs, target = paths(arguments, "analysis.results FOLDER_OF_RUNS FOLDER_OF_TABLES", 2)
        found = [name for name in PLAN if (runs / name / RUNS).is_dir()]
        if not found:
            raise RunFolderError(f"{runs} holds no folder of runs; there may be {', '.join(PLAN)}")
        target.mkdir(exist_ok=True)
        written = [
            write(Path("scenarios") / PLAN[name], runs / name, target / f"{name}.jsonl") for name in found
        ]
        return "\n".join(str(table) for table in written if table is not None)

    return exit_code(tables)


if __name__ == "__main__":
    sys.exit(main())
