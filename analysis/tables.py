"""Markdown of the evidence pages: tables of methods, claims with their verdicts, and what is not finished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.results import Results, Run, difference, share
from fedsim.config.units import format_bytes, format_seconds
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import Interval, interval, percentile

Tables = Mapping[str, Results]
Part = Iterator[str | tuple[str, Figure]]
"""Lines of a page, and figures with their file names."""

NAMES = {
    "fedgrpo": "FedGRPO (ours: floor .7)",
    "paper_selection": "FedGRPO (paper's selection)",
    "first_answer": "FedGRPO, ours, begins with the first known client",
    "central_grpo": "Central-GRPO (the truth)",
    "random": "as many random experts",
    "oracle": "experts by measured accuracy, floored",
    "trusted": "FedGRPO, trusted answers (AE, coverage 1)",
    "majority_vote": "majority vote of the server's candidates",
    "self_reward": "self-reward (server's own likelihood)",
    "distil": "distil (experts' answers, SFT)",
    "dp_sft": "Dp alone, SFT",
    "dp_grpo": "Dp alone, GRPO",
    "fedpetuning-sft": "FedPETuning, SFT",
    "fedpetuning-grpo": "FedPETuning, GRPO",
    "fedgrpo-answers_up": "FedGRPO, answers up",
    "answers_up": "FedGRPO, answers up",
}

SHORT = {
    "fedgrpo": "FedGRPO, ours",
    "paper_selection": "FedGRPO, paper's",
    "first_answer": "... begins with the first",
    "central_grpo": "Central-GRPO",
    "random": "random experts",
    "oracle": "by measured accuracy",
    "trusted": "trusted answers (AE)",
    "majority_vote": "majority vote",
    "self_reward": "self-reward",
    "distil": "distil",
}
"""Names in legends, where they are longer in tables."""


def title(name: str) -> str:
    """What pages call a variant."""
    return NAMES.get(name, name)


def row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def head(*titles: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [row(titles), "|---" * len(titles) + "|"]


def mean_of(values: Mapping[int, float]) -> Interval:
    """Interval over seeds."""
    return interval(list(values.values()))


def shown(found: Interval, *, signed: bool = False) -> str:
    """An interval, or nothing where nothing was measured."""
    return "" if found["mean"] is None else show(found, signed=signed)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of methods: its title, and what stands in it for a variant."""

    title: str
    cell: Callable[[Results, str], str]


START = Column(
    "greedy, test, start",
    lambda results, name: shown(mean_of(results.values(name, "accuracy", "greedy", "initial"))),
)
END = Column("greedy, test, end", lambda results, name: shown(mean_of(results.values(name, "end"))))
GAIN = Column("gain", lambda results, name: shown(mean_of(results.values(name, "gain")), signed=True))
SEEDS = Column("seeds", lambda results, name: str(len(results.by_name[name])))
UP = Column("wire, up", lambda results, name: _bytes(results, name, "uplink"))
DOWN = Column("wire, down", lambda results, name: _bytes(results, name, "downlink"))
TIME = Column(
    "virtual time, median", lambda results, name: _median(results.values(name, "virtual_s"), format_seconds)
)
REQUESTS = Column(
    "requests", lambda results, name: _median(results.values(name, "requests", "total"), lambda n: f"{n:.0f}")
)
LEAVES = Column(
    "leaves a client",
    lambda results, name: (
        ", ".join(
            dict.fromkeys(kind for run in results.by_name[name].values() for kind in run.summary["leaves"])
        )
        or "nothing"
    ),
)


SPREADLESS = Column(
    "groups without spread", lambda results, name: _mean(results, name, "learning", "zero_variance_share")
)
STALENESS = Column("staleness", lambda results, name: _mean(results, name, "staleness", "mean"))
RANKED = Column("right ones ranked first by rewards [AUC]", lambda results, name: _ranked(results, name))


def minus(reference: str) -> Column:
    """End accuracy minus the reference's, paired by seed."""

    def cell(results: Results, name: str) -> str:
        if name == reference:
            return ""
        return shown(difference(results.values(name, "end"), results.values(reference, "end")), signed=True)

    return Column(f"minus {title(reference)}", cell)


def share_of(reference: str) -> Column:
    """Gain as a share of the reference's: ratio of the means over shared seeds."""

    def cell(results: Results, name: str) -> str:
        return (
            ""
            if name == reference
            else shown(share(results.values(name, "gain"), results.values(reference, "gain")))
        )

    return Column(f"share of {title(reference)}'s gain", cell)


def methods(results: Results, names: Sequence[str], *columns: Column) -> Iterator[str]:
    """A line for each variant that has a finished run."""
    yield from head("method", *(column.title for column in columns))
    for name in names:
        if results.by_name.get(name):
            yield row([title(name), *(column.cell(results, name) for column in columns)])


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that is looked for: what, the measured interval, and whether it holds."""

    text: str
    measured: Interval
    holds: bool

    def line(self) -> str:
        """As a row of the table of claims."""
        return row([self.text, show(self.measured), "yes" if self.holds else "**NO**"])


def at_least(text: str, measured: Interval, bound: float) -> Claim:
    """The mean is at least the bound."""
    return Claim(text, measured, measured["mean"] is not None and measured["mean"] >= bound)


def above(text: str, measured: Interval, bound: float = 0.0) -> Claim:
    """The lower end of the interval is above the bound."""
    return Claim(text, measured, measured["low"] is not None and measured["low"] > bound)


def claims(found: Iterable[Claim]) -> Iterator[str]:
    """The table of what was looked for; what was not measured is left out."""
    yield from head("looked for", "measured", "met")
    for claim in found:
        if claim.measured["mean"] is not None:
            yield claim.line()


def made_of(results: Results, file: str) -> str:
    """One sentence: which file, which seeds, and what is missing of it."""
    seeds = sorted({seed for planned in results.planned.values() for seed in planned})
    listed = ", ".join(map(str, seeds))
    if len({tuple(planned) for planned in results.planned.values()}) > 1:
        listed += " (fewer where the table says so)"
    short = (
        f" **{results.missing} of its {results.missing + len(results.runs)} runs are not finished.**"
        if results.missing
        else ""
    )
    return f"`{file}`, seeds {listed} ({'one observation' if len(seeds) == 1 else 'a seed is one observation'}).{short}"


def shared_seeds(results: Results, names: Iterable[str]) -> Results:
    """The table over the seeds that all of these variants have, so that medians are of the same seeds."""
    found = [set(results.by_name[name]) for name in names if results.by_name.get(name)]
    return results.over(set.intersection(*found)) if found else results


def merged(*found: Results | None) -> Results | None:
    """Several tables of one job as one; the first that has a variant keeps it."""
    tables = [one for one in found if one is not None]
    if not tables:
        return None
    planned: dict[str, Sequence[int]] = {}
    runs: list[Run] = []
    for one in tables:
        new = {name: seeds for name, seeds in one.planned.items() if name not in planned}
        planned |= new
        runs += [run for run in one.runs if run.name in new]
    first = tables[0]
    return Results(first.name, planned, first.platform, first.versions, runs)


def _mean(results: Results, name: str, *path: str) -> str:
    mean = mean_of(results.values(name, *path))["mean"]
    return "" if mean is None else f"{mean:.2f}"


def _ranked(results: Results, name: str) -> str:
    """Mean over seeds of the mean over clients' models; empty where no model scored."""
    found = []
    for run in results.by_name.get(name, {}).values():
        by_client = (run.summary.get("learning") or {}).get("reward_auc_by_client") or {}
        known = [area for area in by_client.values() if area is not None]
        found += [sum(known) / len(known)] if known else []
    return f"{sum(found) / len(found):.2f}" if found else ""


def _bytes(results: Results, name: str, way: str) -> str:
    return _median(results.values(name, "bytes", "wire", way), format_bytes)


def _median(values: Mapping[int, float], write: Callable[[float], str]) -> str:
    found = percentile(list(values.values()), 50)
    return "" if found is None else write(found)
