"""The summary of one run: every total is a sum over records, nothing is counted twice.

``summarise`` is a pure function of the log and of a context that holds what no record may hold (wall time)
or what only the simulator knows (which candidates were right). Rows are read once, in pieces, and none is kept but the
evaluations; sums of floats are exact, so that the pieces do not show.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedsim.config.units import format_bytes, format_seconds
from fedsim.records.log import Chunk, RecordLog
from fedsim.records.rows import (
    GROUP_FATES,
    SERVER_ID,
    STATUSES,
    Evaluation,
    Group,
    GroupFate,
    Member,
    Outcome,
    Reward,
    Transfer,
    Update,
)
from fedsim.records.run_folder import plain
from fedsim.records.totals import Clients, Load, Scores, Steps, Traffic

TIMING = "timing: bytes and times of stand-ins for models, which have no rewards, losses or accuracy"
"""What is said of a run without models wherever it is shown."""

_SCORED: tuple[GroupFate, ...] = ("trained", "too_stale")


@dataclass(frozen=True, slots=True)
class SummaryContext:
    """What a summary needs beside the records.

    Attributes:
        protocol: name of the protocol.
        seed: the run's seed.
        virtual_s: virtual instant at which the protocol returned.
        wall_s: real seconds the run took.
        stopped_by: which stop condition was met first.
        initial_by_domain: greedy test accuracy per domain of the initial policy.
        final_by_domain: the same of the final policy.
        candidate_correct: per draw, whether each candidate equals the truth ``[G]`` (the simulator's
            knowledge; for ``reward_auc_by_client`` only).
        billed: what the run is billed as, in one line; None where everything counts as it is.
        privacy: what the wire variant lets out, and what noise promises for the whole run; None where none is declared.
        detection: whom the server came to distrust, against the truth; None where nobody is hostile on purpose.
        warnings: a line for each way in which nothing could be learnt.
        purposes: what a message that goes up reveals about its sender, by its purpose (`fedsim.protocols.purposes`).
        fidelity: ``real``, or ``timing``: stand-ins for models, so nothing of learning was measured.
    """

    protocol: str
    seed: int
    virtual_s: float
    wall_s: float
    stopped_by: str
    initial_by_domain: Mapping[str, float] = field(default_factory=dict)
    final_by_domain: Mapping[str, float] = field(default_factory=dict)
    candidate_correct: Mapping[int, Sequence[bool]] = field(default_factory=dict)
    billed: str | None = None
    privacy: Mapping[str, Any] | None = None
    detection: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    purposes: Mapping[str, str | None] = field(default_factory=dict)
    fidelity: str = "real"


def summarise(log: RecordLog, context: SummaryContext) -> dict[str, Any]:
    """The run in one JSON-ready dictionary; null where a number is undefined, never NaN. See ``Summary``."""
    summary = Summary(context)
    for chunk in log.chunks():
        summary.add(chunk)
    return summary.to_dict(log.sha256())


class Summary:
    """Sums over the rows of a run, which may come in pieces.

    ``accuracy`` is of the test split, first and last evaluation (``validation`` likewise, and ``looks`` by the name of each
    extra set of questions, where there is any).
    ``bytes.by_fate`` and ``bytes.by_purpose`` are wire bytes, both directions. ``leaves`` is what has left the clients,
    useful or not, read from what went up (empty: nothing). ``learning.entropy`` and
    ``kl_to_initial`` are of the last evaluation (test, else validation); ``clip_fraction`` is a mean over
    updates, weighted by candidates; ``zero_variance_share`` is the share of scored groups without spread.
    Where stand-ins for models measured nothing (``fidelity: timing``), every number of learning is null.
    ``staleness.mean`` is weighted by groups. ``requests_under_way`` are those of ``requests`` without a usable reply that
    were still under way when the protocol ended. ``detection`` stands there only where a scenario asks for it.
    """

    def __init__(self, context: SummaryContext) -> None:
        self._context = context
        self._evaluations: list[Evaluation] = []
        self._traffic = Traffic()
        self._requests: Counter[str] = Counter()
        self._under_way = 0
        self._groups: Counter[str] = Counter()
        self._scored_groups = 0
        self._flat_groups = 0
        self._updates = Steps()
        self._rewards = Scores(context.candidate_correct)
        self._load = Load()
        self._clients = Clients()

    def add(self, chunk: Chunk) -> None:
        """Count the next rows."""
        self._evaluations += chunk.of(Evaluation)
        outcomes, transfers, groups = chunk.of(Outcome), chunk.of(Transfer), chunk.of(Group)
        self._traffic.add(transfers)
        self._requests.update(row.status for row in outcomes)
        # Those that the protocol's end overtook ended after it.
        end_s = self._context.virtual_s
        self._under_way += sum(row.status != "ok" and row.ended_at_s > end_s for row in outcomes)
        self._groups.update(row.fate for row in groups)
        scored = [row for row in groups if row.fate in _SCORED and not math.isnan(row.reward_mean)]
        self._scored_groups += len(scored)
        self._flat_groups += sum(row.zero_variance for row in scored)
        self._updates.add(chunk.of(Update))
        self._rewards.add(chunk.of(Reward))
        self._clients.add(chunk.of(Member))
        self._load.add(chunk)

    def to_dict(self, records_sha256: str) -> dict[str, Any]:
        """The summary of all rows so far, as JSON-ready dictionaries."""
        context = self._context
        return dict(
            plain(
                {
                    "protocol": context.protocol,
                    "seed": context.seed,
                    "fidelity": context.fidelity,
                    "virtual_s": context.virtual_s,
                    "wall_s": context.wall_s,
                    "stopped_by": context.stopped_by,
                    "accuracy": _accuracy(self._evaluations, "test") | {"by_domain": _by_domain(context)},
                    "validation": _accuracy(self._evaluations, "validation"),
                    **self._looks(),
                    "bytes": self._traffic.to_dict(),
                    "leaves": self._traffic.leaves(context.purposes),
                    "requests": {status: self._requests[status] for status in STATUSES}
                    | {"total": self._requests.total()},
                    "requests_under_way": self._under_way,
                    "groups": {fate: self._groups[fate] for fate in GROUP_FATES}
                    | {"total": self._groups.total()},
                    "updates": self._updates.num,
                    "staleness": {
                        "mean": self._updates.staleness.value(),
                        "max": self._updates.staleness_max,
                    },
                    "learning": self._learning(),
                    "load": self._load.to_dict(),
                    "billed": context.billed,
                    "privacy": context.privacy,
                    "clients": self._clients.to_dict(),
                    "one_off": {"client_training": self._clients.training()},
                    **({} if context.detection is None else {"detection": context.detection}),
                    **({"warnings": list(context.warnings)} if context.warnings else {}),
                    "records_sha256": records_sha256,
                }
            )
        )

    def _looks(self) -> dict[str, dict[str, Any]]:
        names = sorted({row.split for row in self._evaluations} - {"validation", "test"})
        return {"looks": {name: _accuracy(self._evaluations, name) for name in names}} if names else {}

    def _learning(self) -> dict[str, Any]:
        tested = [row for row in self._evaluations if row.split == "test"] or self._evaluations
        last = tested[-1] if tested else None
        return {
            "entropy": last.entropy if last else None,
            "kl_to_initial": last.kl_to_initial if last else None,
            "clip_fraction": self._updates.clip_fraction.value(),
            "zero_variance_share": self._flat_groups / self._scored_groups if self._scored_groups else None,
            "reward_auc_by_client": {
                "server" if client == SERVER_ID else str(client): auc.value()
                for client, auc in sorted(self._rewards.by_client.items())
            },
            "reward_auc_by_evaluator": {
                evaluator: auc.value() for evaluator, auc in sorted(self._rewards.by_evaluator.items())
            },
        }


def summary_lines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A summary in a few lines for people, as label and text, wherever it is shown; without what was not measured."""
    sizes, requests = summary["bytes"], summary["requests"]
    lines = [("protocol", str(summary["protocol"]))]
    if summary.get("fidelity") == "timing":
        lines.append(("fidelity", TIMING))
    if summary.get("billed"):
        lines.append(("billed", summary["billed"]))
    for split, accuracy in {"test": summary["accuracy"], **summary.get("looks", {})}.items():
        for name, label in (("greedy", "greedy accuracy"), ("pass_at_1", "pass@1"), ("pass_at_8", "pass@8")):
            before, after = accuracy[name]["initial"], accuracy[name]["final"]
            if before is not None and after is not None:
                change = f"{before:.3f} -> {after:.3f} on {accuracy['num_questions']} {split} questions"
                lines.append((label, change))
    up, down = sizes["wire"]["uplink"], sizes["wire"]["downlink"]
    paper = format_bytes(sizes["paper"]["uplink"])
    lines.append(
        ("bytes on the wire", f"{format_bytes(up)} up, {format_bytes(down)} down (paper account: {paper} up)")
    )
    under_way = summary["requests_under_way"]
    lost = sum(count for status, count in requests.items() if status not in ("ok", "total")) - under_way
    still = f", {under_way} still under way when the run stopped" if under_way else ""
    lines.append(("requests", f"{requests['ok']} ok, {lost} without a usable reply{still}"))
    virtual, real = format_seconds(summary["virtual_s"]), format_seconds(summary["wall_s"])
    took = f"{virtual} of virtual time and {real} of real time (stopped by: {summary['stopped_by']})"
    lines.append(("updates", f"{summary['updates']} in {took}"))
    lines += [("warning", text) for text in summary.get("warnings", ())]
    if privacy := summary.get("privacy"):
        lines.append(("privacy", privacy["in_words"]))
    return lines


def _accuracy(evaluations: list[Evaluation], split: str) -> dict[str, Any]:
    rows = [row for row in evaluations if row.split == split]
    first, last = (rows[0], rows[-1]) if rows else (None, None)
    return {
        name: {"initial": getattr(first, name, None), "final": getattr(last, name, None)}
        for name in ("greedy", "pass_at_1", "pass_at_8")
    } | {"num_questions": last.num_questions if last else 0}


def _by_domain(context: SummaryContext) -> dict[str, dict[str, float | None]]:
    initial, final = context.initial_by_domain, context.final_by_domain
    return {
        domain: {"initial": initial.get(domain), "final": final.get(domain)}
        for domain in {**initial, **final}
    }
