"""Runs of update schedules, reduced to what their section says: looks at the validation questions, waiting, and the end.

Families are compared within themselves: those who reward candidates, and those who average modules. A variant *waits* if a
step needs everybody of a round (``update.schedule: barrier``, ``schedule.kind: rounds``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analysis.finished import Compared
from fedsim.records.looks import Look, looks
from fedsim.records.rows import SERVER_ID
from fedsim.records.run import Run, load
from fedsim.sweeps.compare.tables import wasted_share
from fedsim.sweeps.stats import interval

_BESIDE = ("setup", "probe", "cancel", "control")  # requests that ask for nothing to learn from


@dataclass(frozen=True, slots=True)
class ScheduleRun:
    """One run.

    Attributes:
        looks: in the order of time; none in timing fidelity.
        server_idle: share of the run's virtual time in which the server computed nothing.
        devices_idle: share of the time that devices were there in which they computed nothing, all devices together.
        busiest_idle: the same of the busiest device.
        under_way_s: mean seconds from asking a question (sending a module) to its being final.
        stale_share: share of the groups on record (modules that came) that were dropped as too stale.
        trained: questions (modules) in all steps.
    """

    seed: int
    summary: Mapping[str, Any]
    looks: tuple[Look, ...]
    server_idle: float
    devices_idle: float | None
    busiest_idle: float | None
    under_way_s: float | None
    stale_share: float | None
    trained: int

    def test(self, measure: str) -> float | None:
        """Accuracy on the test questions at the end."""
        found: float | None = self.summary["accuracy"][measure]["final"]
        return found

    @property
    def wasted(self) -> float | None:
        """Share of the wire's bytes, both ways, that served nothing."""
        return wasted_share(self.summary)

    @property
    def wire_bytes(self) -> float:
        """Bytes on the wire to the end, both ways."""
        wire = self.summary["bytes"]["wire"]
        return float(wire["uplink"] + wire["downlink"])

    @property
    def s_per_trained(self) -> float | None:
        """Virtual seconds per question (module) that was trained on."""
        return self.summary["virtual_s"] / self.trained if self.trained else None


@dataclass(frozen=True, slots=True)
class Family:
    """Variants that are compared with each other.

    Attributes:
        title: what they have in common.
        unit: what a step is made of, in the plural.
        reference: the variant that waits and is best on validation.
        chosen_on: where it was chosen, in words.
        waits: the variants that wait, the reference among them.
    """

    title: str
    unit: str
    runs: Mapping[str, Sequence[ScheduleRun]]
    reference: str
    chosen_on: str
    waits: tuple[str, ...]

    @property
    def others(self) -> list[str]:
        """The variants that do not wait."""
        return [name for name in self.runs if name not in self.waits]


def read_families(compared: Compared, validation: Mapping[str, float] | None = None) -> list[Family]:
    """The families of a comparison that have a variant that waits.

    Args:
        compared: the comparison.
        validation: of a tuning comparison, the validation accuracy by variant; the reference is chosen by it if it has all
            candidates.

    Raises:
        RunFolderError: a run cannot be read.
    """
    kinds: dict[bool, list[str]] = {}
    for name, scenario in compared.scenarios.items():
        kinds.setdefault(is_averaging(scenario), []).append(name)
    families = []
    for averages, names in sorted(kinds.items()):
        waiting = tuple(name for name in names if waits(compared.scenarios[name]))
        if not waiting:
            continue
        runs = {
            name: [
                reduced(load(folder), seed)
                for folder, seed in zip(compared.folders[name], compared.seeds, strict=True)
            ]
            for name in names
        }
        reference, chosen_on = _best(waiting, runs, validation or {})
        families.append(
            Family(
                title="Averaging modules" if averages else "Rewarding candidates",
                unit="modules" if averages else "questions",
                runs=runs,
                reference=reference,
                chosen_on=chosen_on,
                waits=waiting,
            )
        )
    return families


def is_averaging(scenario: Mapping[str, Any]) -> bool:
    """Whether a resolved scenario's protocol averages modules (it has no ``update`` schedule)."""
    return "update" not in (scenario.get("protocol") or {})


def waits(scenario: Mapping[str, Any]) -> bool:
    """Whether a step of a resolved scenario needs everybody of its round."""
    protocol = scenario.get("protocol") or {}
    if is_averaging(scenario):
        return bool((protocol.get("schedule") or {}).get("kind", "rounds") == "rounds")
    return bool(protocol["update"].get("schedule") == "barrier")


def _best(
    waiting: Sequence[str], runs: Mapping[str, Sequence[ScheduleRun]], tuned: Mapping[str, float]
) -> tuple[str, str]:
    if len(waiting) == 1:
        return waiting[0], "the only one that waits"
    if all(name in tuned for name in waiting):
        return max(
            waiting, key=lambda name: tuned[name]
        ), "best of those that wait on validation, other seeds"
    ends = {
        name: interval([run.looks[-1].value if run.looks else None for run in runs[name]])["mean"]
        for name in waiting
    }
    known = {name: end for name, end in ends.items() if end is not None}
    if not known:
        return waiting[0], "the first of those that wait; none was measured"
    return max(known, key=lambda name: known[name]), "best of those that wait on validation, the same seeds"


def reduced(run: Run, seed: int) -> ScheduleRun:
    """One run's numbers, from its records."""
    end_s = float(run.summary["virtual_s"])
    devices_idle, busiest_idle = _idle_devices(run, end_s)
    return ScheduleRun(
        seed=seed,
        summary=run.summary,
        looks=looks(run),
        server_idle=1 - _busy(run.computes.filter(pl.col("client_id") == SERVER_ID), end_s) / end_s
        if end_s
        else 0.0,
        devices_idle=devices_idle,
        busiest_idle=busiest_idle,
        under_way_s=_under_way_s(run),
        stale_share=_stale_share(run),
        trained=int(run.updates["num_groups"].sum()),
    )


def _busy(computes: pl.DataFrame, end_s: float) -> float:
    """Seconds of computing up to the end; what was drained after it does not count."""
    within = computes.select((pl.col("end_at_s").clip(0, end_s) - pl.col("start_at_s").clip(0, end_s)).sum())
    return float(within.item())


def _idle_devices(run: Run, end_s: float) -> tuple[float | None, float | None]:
    """Idle share of all devices together, and of the busiest; None where nobody was ever there."""
    there_s = {
        row["client_id"]: row["span"]
        for row in run.presence.group_by("client_id")
        .agg(span=(pl.col("end_at_s") - pl.col("start_at_s")).sum())
        .iter_rows(named=True)
        if row["span"] > 0
    }
    if not there_s:
        return None, None
    busy_s = {client: _busy(run.computes.filter(pl.col("client_id") == client), end_s) for client in there_s}
    busiest = max(busy_s[client] / there_s[client] for client in there_s)
    return 1 - sum(busy_s.values()) / sum(there_s.values()), 1 - busiest


def _under_way_s(run: Run) -> float | None:
    if run.groups.height:
        asked = run.groups.filter(pl.col("fate") != "no_experts")
        spans = asked["completed_at_s"] - asked["dispatched_at_s"]
    else:
        good = run.outcomes.filter((pl.col("status") == "ok") & ~pl.col("purpose").is_in(_BESIDE))
        spans = good["ended_at_s"] - good["sent_at_s"]
    return float(spans.sum() / len(spans)) if len(spans) else None


def _stale_share(run: Run) -> float | None:
    groups = run.summary["groups"]
    if groups["total"]:
        return float(groups["too_stale"] / groups["total"])
    book = _averaging(run.folder)
    came = book.get("merged", 0) + book.get("dropped_too_stale", 0)
    return float(book["dropped_too_stale"] / came) if came else None


def _averaging(folder: Path) -> dict[str, Any]:
    path = folder / "averaging.json"  # rounds have none
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def at_most(seen: Sequence[Look], amount: Callable[[Look], float], budget: float) -> Look | None:
    """The last look within a budget; None if there is none."""
    within = [look for look in seen if amount(look) <= budget]
    return within[-1] if within else None
