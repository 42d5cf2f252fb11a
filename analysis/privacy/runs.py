"""Runs of a comparison of privacy settings: what each promises, what attacks on it found, and which answers it disclosed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.finished import Compared
from fedsim.errors import RunFolderError
from fedsim.figures import leakage
from fedsim.privacy.composition import VACUOUS_EPSILON
from fedsim.sweeps.compare.tables import PRIVACY
from fedsim.sweeps.stats import Interval, interval

AttackKey = tuple[str, str, str, str]
"""What an attack reads, at which server, what it asks, and how."""
DisclosureKey = tuple[str, str]
"""At which server, and how."""

TRAINING_ROW = "training row"
TRUSTED_ANSWER = "trusted answer"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a variant promises for one record of one client over the whole run; the worst over seeds and clients.

    Attributes:
        mechanism: in words.
        epsilons: smallest and largest over seeds; infinite where nothing is promised.
        delta: None where there is none.
        adjacency: what counts as neighbours, where the ledger says.
    """

    mechanism: str
    epsilons: tuple[float, float]
    delta: float | None
    adjacency: str | None

    @property
    def is_vacuous(self) -> bool:
        """Whether the worst seed's epsilon promises nothing that matters (`VACUOUS_EPSILON`)."""
        return self.epsilons[1] >= VACUOUS_EPSILON


@dataclass(frozen=True, slots=True)
class Measured:
    """An estimate over seeds; of one seed with the attack's own bootstrap interval over records."""

    found: Interval
    is_bootstrap: bool


@dataclass(frozen=True, slots=True)
class Attacked:
    """One attack on one variant; ``auc`` and ``tpr`` are None where there was nothing to read."""

    key: AttackKey
    num_members: float
    num_others: float
    auc: Measured | None
    tpr: Measured | None


@dataclass(frozen=True, slots=True)
class Disclosed:
    """Trusted answers that a server knows, and how many the candidates alone tell it."""

    key: DisclosureKey
    num_answers: float
    share: Measured | None
    known_before: Measured | None


@dataclass(frozen=True, slots=True)
class Leaks:
    """What attacks found in one variant's runs; ``num_runs`` of them were attacked."""

    num_runs: int
    attacks: tuple[Attacked, ...]
    disclosures: tuple[Disclosed, ...]


def read_promises(compared: Compared) -> dict[str, Promise]:
    """What every variant promises, from its summaries (rewards) or its ledgers (synthetic rows).

    Raises:
        RunFolderError: a ledger cannot be read.
    """
    found = {}
    for name, summaries in compared.summaries.items():
        entries = [list(_said(*pair)) for pair in zip(summaries, compared.folders[name], strict=True)]
        if not all(entries):
            continue
        worst = [max(_number(entry["epsilon"]) for entry in of_run) for of_run in entries]
        first = entries[0][0]
        noise = first.get("noise")
        strength = "" if noise is None or first["mechanism"] in ("none", "dp_sgd") else f" {noise:g}"
        found[name] = Promise(
            mechanism=f"{first['mechanism']}{strength}",
            epsilons=(min(worst), max(worst)),
            delta=first.get("delta"),
            adjacency=first.get("neighbours"),
        )
    return found


def _said(summary: Mapping[str, Any], folder: Path) -> Iterator[Mapping[str, Any]]:
    """A run's own statements; the ledger, one entry a client, says what neighbours are."""
    path = folder / PRIVACY
    try:
        ledger = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error!r}); run it again") from None
    yield from ledger
    if summary.get("privacy"):
        yield summary["privacy"]


def _number(epsilon: float | str | None) -> float:
    return float("inf") if epsilon is None else float(epsilon)


def read_leaks(compared: Compared) -> dict[str, Leaks]:
    """What the attacks on every variant's runs found; a variant none of whose runs was attacked is left out.

    Raises:
        RunFolderError: a report is damaged.
    """
    found = {}
    for name, folders in compared.folders.items():
        attacked = [folder for folder in folders if (folder / leakage.LEAKAGE).is_file()]
        if attacked:
            found[name] = leaks([leakage.read([folder])[folder.name] for folder in attacked])
    return found


def leaks(reports: Sequence[Mapping[str, Any]]) -> Leaks:
    """Several seeds' reports of one variant, put together."""
    attacks: dict[AttackKey, list[Mapping[str, Any] | None]] = {}
    disclosures: dict[DisclosureKey, list[Mapping[str, Any]]] = {}
    for report in reports:
        for one in report["attacks"]:
            key = (one["source"], one["server"], one["target"], one["how"])
            attacks.setdefault(key, []).append(one["result"])
        for one in report["disclosures"]:
            disclosures.setdefault((one["server"], one["how"]), []).append(one)
    return Leaks(
        len(reports),
        tuple(_attacked(key, [one for one in found if one is not None]) for key, found in attacks.items()),
        tuple(
            Disclosed(
                key,
                sum(one["num_answers"] for one in found) / len(found),
                together([one["share"] for one in found]),
                together([one["known_before"] for one in found]),
            )
            for key, found in disclosures.items()
        ),
    )


def _attacked(key: AttackKey, results: Sequence[Mapping[str, Any]]) -> Attacked:
    count = max(1, len(results))
    return Attacked(
        key,
        sum(one["num_members"] for one in results) / count,
        sum(one["num_others"] for one in results) / count,
        together([one["auc"] for one in results]),
        together([one["tpr"] for one in results]),
    )


def together(estimates: Sequence[Mapping[str, float] | None]) -> Measured | None:
    """Estimates of several seeds as their mean with a Student-t interval; a single one keeps its own bootstrap interval."""
    known = [one for one in estimates if one is not None]
    if not known:
        return None
    if len(known) == 1:
        (one,) = known
        return Measured({"mean": one["value"], "low": one["low"], "high": one["high"], "n": 1}, True)
    return Measured(interval([one["value"] for one in known]), False)
