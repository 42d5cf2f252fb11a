"""Whom the server came to distrust, held against who is hostile: precision and recall, for the run folder.

The server's half comes from the protocol (``state.artefacts["trust"]``: trust, conduct and reasons per client); the truth is
the simulator's. With F the flagged, H the hostile clients:

    precision = |F and H| / |F|,   recall = |F and H| / |H|,       null where nobody is flagged, or nobody is hostile

Hostile clients that were never asked count as missed: the server did not need to find them, but it did not. Where stand-ins for
models made the scores up (``fidelity: timing``), trust and what follows from it are null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedsim.federation.hostile import Roles
from fedsim.federation.hostile_config import Excluded

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


def detection_of(
    scenario: Scenario, artefacts: Mapping[str, Callable[[], Any]], roles: Roles
) -> dict[str, Any] | None:
    """The report of a run in which somebody is hostile, or whose fusion acts on trust; None for any other.

    Args:
        scenario: of the run.
        artefacts: what the protocol left; without ``trust`` there is nothing to report.
        roles: who is hostile.
    """
    acts_on_trust = getattr(scenario.protocol, "fusion", "mean") == "reliability"
    if "trust" not in artefacts or not (scenario.hostile or acts_on_trust):
        return None
    report = detection_report(artefacts["trust"](), roles)
    return report if scenario.measures else _without_scores(report)


def detection_report(beliefs: Sequence[Mapping[str, Any]], roles: Roles) -> dict[str, Any]:
    """The report of one run, JSON-ready.

    Args:
        beliefs: one row per client as the server has it: ``client_id``, ``trust``, ``reasons`` (why it is distrusted; empty
            if it is not) and whatever else it knows.
        roles: who is hostile; excluded clients are not, they are not there.

    Returns:
        ``flagged`` and ``hostile`` (client ids), ``precision``, ``recall``, ``recall_by_kind``, and ``experts``: the server's
        rows with the truth (``kind``, ``honest`` for the others).
    """
    truth = {
        client_id: config.kind for client_id, config in roles.items() if not isinstance(config, Excluded)
    }
    flagged = [int(row["client_id"]) for row in beliefs if row["reasons"]]
    found = [client_id for client_id in flagged if client_id in truth]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for client_id, kind in truth.items():
        by_kind[kind].append(client_id in found)
    return {
        "flagged": flagged,
        "hostile": sorted(truth),
        "precision": len(found) / len(flagged) if flagged else None,
        "recall": len(found) / len(truth) if truth else None,
        "recall_by_kind": {kind: sum(hits) / len(hits) for kind, hits in sorted(by_kind.items())},
        "experts": [
            {**row, "kind": _kind(roles, int(row["client_id"])), "flagged": bool(row["reasons"])}
            for row in beliefs
        ],
    }


def _without_scores(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without what follows from scores that stand-ins made up; how clients behaved was simulated, and stays."""
    unknown = dict.fromkeys(("flagged", "precision", "recall", "recall_by_kind"))
    experts = [
        {**row, "trust": None, "flagged": None, "reasons": [one for one in row["reasons"] if one != "scores"]}
        for row in report["experts"]
    ]
    return {**report, **unknown, "experts": experts}


def short(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary says of it: everything but the rows."""
    return {key: value for key, value in report.items() if key != "experts"}


def _kind(roles: Roles, client_id: int) -> str:
    return roles[client_id].kind if client_id in roles else "honest"
