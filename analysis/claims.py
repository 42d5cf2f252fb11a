"""Part of ``docs/evidence.md``: what the paper says, what is measured here, and which of it this confirms or contradicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from analysis.figures import largest_auc
from analysis.results import Results, difference
from analysis.tables import Part, Tables, head, merged, row
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import Interval, interval

UNPUBLISHED = "no number"


@dataclass(frozen=True, slots=True)
class PaperClaim:
    """One claim of the paper.

    Attributes:
        text: what it says.
        published: its number, in words.
        job: the table here.
        measured: the same quantity here, of which the claim says that it is above 0.
        unit: ``difference`` of accuracies, or ``factor``, whose ``measured`` is a natural logarithm.
    """

    text: str
    published: str
    job: str
    measured: Interval
    unit: str = "difference"

    @property
    def verdict(self) -> str:
        """By the interval: above 0, below 0, or neither."""
        low, high = self.measured["low"], self.measured["high"]
        if low is None or high is None:
            return "too few seeds"
        if low <= 0 <= high:
            return "not told apart"
        if self.published == UNPUBLISHED:
            return "above" if low > 0 else "below"
        return "confirmed" if low > 0 else "**contradicted**"

    def line(self) -> str:
        """As a row of the table."""
        if self.unit == "factor":
            low, mean, high = (_exp(self.measured[key]) for key in ("low", "mean", "high"))
            number = mean if low == high else f"{mean} [{low}, {high}]"
            return row([self.text, self.published, self.job, f"{number} times", self.verdict])
        return row([self.text, self.published, self.job, show(self.measured, signed=True), self.verdict])


def _exp(value: float | None) -> str:
    return (
        ""
        if value is None
        else f"{math.exp(value):.3g}"
        if value < math.log(100)
        else f"{math.exp(value):,.0f}"
    )


def claims_part(tables: Tables) -> Part:
    """The table of the paper's claims, and what cannot be tested here."""
    found = [claim for claim in _all(tables) if claim.measured["mean"] is not None]
    if not found:
        return
    yield from ("", "## What the paper says", "")
    yield (
        "Published: MATH, Math-1.5B, mean of three runs without intervals. Here: greedy accuracy on test questions, "
        "paired by "
        "seed, of models 10 to 6000 times as small; so a sign may be compared, a size may not. Trusted answers: every "
        "question has a "
        "client that owns its answer, as in Table 1. *Confirmed*: the interval "
        "lies above 0 (a factor: above 1); *contradicted*: below; intervals are not corrected for their number."
    )
    yield ""
    yield from head("the paper says", "published", "job here", "here", "verdict")
    yield from (claim.line() for claim in found)
    yield ""
    yield "What this cannot test:"
    yield ""
    yield from (f"* {one}" for one in UNTESTABLE)


UNTESTABLE = (
    "Any published accuracy or its size: models of 1.5 to 7 B parameters, MATH, OpenR1-Math and 2WikiMultiHopQA, 2,000 "
    "questions of up to 2,048 tokens and 320 rounds do not run here.",
    "The published megabytes: which adapters, precision and number of uploads made them is not published (Figure 2, below).",
    '"Privately": the paper gives no attack and no bound. What is measured here is what simple attacks find (above), which '
    "can refute privacy and never prove it.",
    "That its eqs. 8 and 9 learn as printed: their summed gradient is exactly zero, so the method as run must be another "
    "reading (`grouping`).",
)


def _all(tables: Tables) -> Iterator[PaperClaim]:
    """Every claim whose table is there, in the order of the paper's tables and figures."""
    tiny, skills = "tiny", "pretrained, unseen words"
    table1, controls = tables.get("table1"), tables.get("controls")
    pretrained, others = tables.get("skills_methods"), tables.get("skills_controls")
    if table1 is not None:
        for name, label, published in (
            ("central_grpo", "Central-GRPO, the upper bound", "+.015"),
            ("fedpetuning-grpo", "FedPETuning + GRPO", "+.155"),
            ("fedpetuning-sft", "FedPETuning + SFT", "+.140"),
            ("dpsda_fl-grpo", "DPSDA-FL + GRPO", "+.063"),
            ("dpsda_fl-sft", "DPSDA-FL + SFT", "+.121"),
        ):
            yield PaperClaim(
                f"FedGRPO with trusted answers ends above {label} (Table 1)",
                published,
                "tiny, paper's selection",
                _minus(table1, "fedgrpo", table1, name),
            )
    if pretrained is not None and others is not None:
        for name, label, published in (
            ("central_grpo", "Central-GRPO, the upper bound", "+.015"),
            ("fedpetuning-grpo", "FedPETuning + GRPO", "+.155"),
            ("fedpetuning-sft", "FedPETuning + SFT", "+.140"),
        ):
            theirs = pretrained if name == "central_grpo" else others
            yield PaperClaim(
                f"FedGRPO with trusted answers ends above {label} (Table 1)",
                published,
                f"{skills}, floor .7",
                _minus(others, "trusted", theirs, name),
            )
    if controls is not None:
        yield PaperClaim(
            "FedGRPO with trusted answers ends above Central-GRPO, the upper bound (Table 1)",
            "+.015",
            f"{tiny}, floor .7",
            _minus(controls, "trusted", controls, "central_grpo"),
        )
    table2 = tables.get("table2")
    for job, ours, without, name in (
        (f"{tiny}, paper's selection", table2, table2, "without_answers"),
        (f"{tiny}, floor .7", controls, controls, "fedgrpo"),
        (f"{skills}, floor .7", others, pretrained, "fedgrpo"),
    ):
        if ours is not None and without is not None:
            with_answers = "with_answers" if ours is table2 else "trusted"
            yield PaperClaim(
                "Trusted answers at clients add to models alone (Table 2)",
                "+.028",
                job,
                _minus(ours, with_answers, without, name),
            )
    if table1 is not None:
        for name, label, published in (
            ("fedpetuning-sft", "FedPETuning's adapters", "277"),
            ("dpsda_fl-sft", "DPSDA-FL's rows", "43"),
        ):
            yield PaperClaim(
                f"FedGRPO sends fewer bytes up than {label}, as the paper counts (Figure 2)",
                f"{published} times",
                tiny,
                _factor(table1, name, "fedgrpo", ("bytes", "paper", "uplink")),
                "factor",
            )
    if pretrained is not None and others is not None:
        yield PaperClaim(
            "FedGRPO sends fewer bytes up than FedPETuning's adapters, as the paper counts (Figure 2)",
            "277 times",
            f"{skills}, paper's selection; three rounds of rank 16 by eight clients",
            interval(
                _logs(
                    others.values("fedpetuning-sft", "bytes", "paper", "uplink"),
                    pretrained.values("paper_selection", "bytes", "paper", "uplink"),
                )
            ),
            "factor",
        )
    figure3 = tables.get("figure3")
    if figure3 is not None:
        for kind, said in (("total", "all rows together as many"), ("each", "each with as many rows")):
            yield PaperClaim(
                f"20 clients teach more than 4, {said} (Figure 3)",
                "+.07",
                tiny,
                _minus(figure3, f"k20-{kind}", figure3, f"k4-{kind}"),
            )
    for job, results in ((tiny, controls), (skills, pretrained)):
        for name, selection in (("paper_selection", "paper's selection"), ("fedgrpo", "floor .7 (ours)")):
            if results is not None:
                yield PaperClaim(
                    "The competent are better judges than any client: above random ones (as many as with the floor)",
                    UNPUBLISHED,
                    f"{job}, {selection}",
                    _minus(results, name, results, "random"),
                )
    joined = merged(pretrained, others)
    if joined is not None:
        for name, label in (("fedpetuning-sft", "adapters"), ("distil", "answers as text")):
            yield PaperClaim(
                f"Rewards tell a server that chooses what it sends less than {label} do: area under the curve of theirs "
                "minus that of "
                "rewards",
                UNPUBLISHED,
                f"{skills}, floor .7",
                difference(_areas(joined, name), _areas(joined, "fedgrpo")),
            )
    noniid = tables.get("noniid")
    if noniid is not None:
        yield PaperClaim(
            "Dirichlet(.1) costs FedGRPO less than FedPETuning (difference of differences)",
            UNPUBLISHED,
            tiny,
            _apart(noniid, ("fedgrpo-beta0.1", "fedgrpo-iid"), ("fedpetuning-beta0.1", "fedpetuning-iid")),
        )


def _minus(ours: Results, name: str, theirs: Results, other: str) -> Interval:
    return difference(ours.values(name, "end"), theirs.values(other, "end"))


def _apart(results: Results, ours: tuple[str, str], theirs: tuple[str, str]) -> Interval:
    a, b, c, d = (results.values(name, "end") for name in (*ours, *theirs))
    seeds = sorted(a.keys() & b.keys() & c.keys() & d.keys())
    return interval([(a[seed] - b[seed]) - (c[seed] - d[seed]) for seed in seeds])


def _areas(results: Results, name: str) -> dict[int, float]:
    runs = results.by_name.get(name, {})
    return {seed: area for seed, run in runs.items() if (area := largest_auc(run)) is not None}


def _factor(results: Results, larger: str, smaller: str, path: Sequence[str]) -> Interval:
    return interval(_logs(results.values(larger, *path), results.values(smaller, *path)))


def _logs(above: Mapping[int, float], below: Mapping[int, float]) -> list[float]:
    return [
        math.log(above[seed] / below[seed])
        for seed in sorted(above.keys() & below.keys())
        if above[seed] > 0 and below[seed] > 0
    ]
