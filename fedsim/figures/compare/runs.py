"""A finished comparison, reduced to what its figures show: validation curves, and bytes by account, direction and fate.

Every number comes from the run folders that ``comparison.json`` names. The target of "bytes and time to reach" is the
comparison's own (``target``); in a comparison that knows of none, one is derived from the results and the figures say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fedsim.errors import RunFolderError
from fedsim.figures.labels import short_names
from fedsim.records.looks import Look, looks
from fedsim.records.run import Run, load
from fedsim.sweeps.compare.tables import gain
from fedsim.sweeps.compare.target import Target
from fedsim.sweeps.stats import Interval, interval

TARGET_SHARE = 0.8
"""Share of the best method's validation gain that is the target where the comparison states none."""

ACCOUNTS: Mapping[str, str] = {"wire": "wire_bytes", "paper": "paper_bytes"}


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One run.

    Attributes:
        looks: the validation evaluations in order (none in timing fidelity).
        sent_bytes: by (account, direction, fate), sums over the transfers.
        gain: final minus initial greedy accuracy on the test questions, None where it was not measured.
    """

    seed: int
    looks: tuple[Look, ...]
    sent_bytes: Mapping[tuple[str, str, str], int]
    gain: float | None
    summary: Mapping[str, Any]

    def total_bytes(self, account: str, direction: str | None = None) -> int:
        """Bytes to the end in one account; in one direction, or in both."""
        return sum(
            amount
            for (which, way, _), amount in self.sent_bytes.items()
            if which == account and direction in (None, way)
        )


@dataclass(frozen=True, slots=True)
class Method:
    """One variant with its runs.

    Attributes:
        label: its name, shortened where it would not fit a figure.
        index: its place in the comparison, which decides its style.
        billed: what its models are billed as, None where they count as what they are.
        leaves: the kinds of content that leave a client, None where it was not recorded.
    """

    name: str
    label: str
    index: int
    protocol: str
    fidelity: str
    billed: str | None
    leaves: tuple[str, ...] | None
    runs: tuple[SeedRun, ...]

    def total(self, account: str, direction: str | None = None) -> Interval:
        """Bytes to the end: mean over the seeds with its interval."""
        return interval([run.total_bytes(account, direction) for run in self.runs])

    def mean_bytes(self, account: str, direction: str, fate: str) -> float:
        """Bytes of one account, direction and fate: mean over the seeds."""
        return sum(run.sent_bytes.get((account, direction, fate), 0) for run in self.runs) / len(self.runs)

    def gains(self) -> Interval:
        """Gain on the test questions over the seeds."""
        return interval([run.gain for run in self.runs])

    def has_looks(self) -> bool:
        """Whether every run measured validation accuracy."""
        return all(run.looks for run in self.runs)

    def final(self) -> Interval:
        """Validation accuracy at the end over the seeds."""
        return interval([run.looks[-1].value if run.looks else None for run in self.runs])


@dataclass(frozen=True, slots=True)
class ComparisonRuns:
    """A whole comparison."""

    folder: Path
    name: str
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    target: Target | None
    cautions: tuple[str, ...] = ()


def bounds(found: Interval) -> tuple[float, float, float]:
    """Mean, low and high of an interval; the mean stands for ends that there are not.

    Raises:
        ValueError: there is no mean; leave it out.
    """
    mean, low, high = found["mean"], found["low"], found["high"]
    if mean is None:
        raise ValueError("an interval without values has no mean; leave it out")
    return float(mean), float(mean if low is None else low), float(mean if high is None else high)


def read(folder: Path | str) -> ComparisonRuns:
    """Read a comparison's folder.

    Raises:
        RunFolderError: it is not a finished comparison, or one of its runs is not whole.
    """
    path = Path(folder)
    try:
        document = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
        entries = [(str(one["variant"]), int(one["seed"]), str(one["folder"])) for one in document["runs"]]
        variants = [(str(one["name"]), str(one["protocol"]), one) for one in document["variants"]]
        seeds, name = tuple(int(seed) for seed in document["seeds"]), str(document["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path}: not a finished comparison ({error}); run fedsim compare first"
        ) from None
    labels = short_names([variant for variant, _, _ in variants])
    methods = tuple(
        _method(
            path, index, protocol, labels[variant], facts, [entry for entry in entries if entry[0] == variant]
        )
        for index, (variant, protocol, facts) in enumerate(variants)
    )
    cautions = tuple(map(str, document.get("cautions", ())))
    return ComparisonRuns(path, name, seeds, methods, _target(document, methods), cautions)


def _target(document: Mapping[str, Any], methods: Sequence[Method]) -> Target | None:
    if "target" not in document:
        return derived_target(methods)
    if document["target"] is None:
        return None
    return Target(float(document["target"]), document.get("target_origin") or "stated in the comparison")


def _method(
    folder: Path,
    index: int,
    protocol: str,
    label: str,
    facts: Mapping[str, Any],
    entries: Sequence[tuple[str, int, str]],
) -> Method:
    if not entries:
        raise RunFolderError(
            f"{folder}: comparison.json lists no run of {facts['name']}; run fedsim compare again"
        )
    runs, fidelities, bills = [], [], []
    for _, seed, place in entries:
        run = load(folder / place)
        runs.append(reduced(run, seed))
        scenario = run.manifest.get("scenario") or {}
        fidelities.append(str(scenario.get("fidelity", "real")))
        bills.append(billing_text(scenario))
    return Method(
        name=str(facts["name"]),
        label=label,
        index=index,
        protocol=protocol,
        fidelity=fidelities[0],
        billed=facts.get("billed") or bills[0],
        leaves=tuple(map(str, facts["leaves"])) if "leaves" in facts else None,
        runs=tuple(runs),
    )


def reduced(run: Run, seed: int) -> SeedRun:
    """What the figures need of one run."""
    sums = run.transfers.group_by("direction", "fate").agg(
        pl.col("wire_bytes").sum(), pl.col("paper_bytes").sum()
    )
    return SeedRun(
        seed=seed,
        looks=looks(run),
        sent_bytes={
            (account, row["direction"], row["fate"]): int(row[column])
            for row in sums.sort("direction", "fate").iter_rows(named=True)
            for account, column in ACCOUNTS.items()
        },
        gain=gain(run.summary),
        summary=run.summary,
    )


def billing_text(scenario: Mapping[str, Any]) -> str | None:
    """What a resolved scenario bills its models as, in words; None where they count as what they are.

    >>> billing_text({"models": {"bill_as": {"server": "Qwen2.5-3B", "clients": "Qwen2.5-Math-1.5B"}}})
    'server as Qwen2.5-3B, clients as Qwen2.5-Math-1.5B'
    """
    billed = (scenario.get("models") or {}).get("bill_as")
    if not billed:
        return None
    if not isinstance(billed, Mapping):
        return f"models as {billed}"
    parts = [f"{who} as {billed[who]}" for who in ("server", "clients") if billed.get(who)]
    return ", ".join(parts) or None


def derived_target(methods: Sequence[Method]) -> Target | None:
    """The target where a comparison states none: ``a + 0.8 (b - a)``, to three digits.

    ``b`` is the highest mean validation accuracy at the end that any method has, ``a`` that method's mean at the start.
    It is chosen after the runs, so it describes them and tests nothing.

    Returns:
        None if no method was measured or none gained.
    """
    ends: list[tuple[float, Method]] = [
        (bounds(method.final())[0], method) for method in methods if method.has_looks()
    ]
    if not ends:
        return None
    end, best = max(ends, key=lambda pair: pair[0])
    start = sum(run.looks[0].value for run in best.runs) / len(best.runs)
    if end <= start:
        return None
    return Target(
        round(start + TARGET_SHARE * (end - start), 3),
        f"{TARGET_SHARE:.0%} of the validation gain of {best.label}, the best at the end; chosen after the runs",
    )
