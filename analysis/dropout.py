"""``docs/dropout.md``: what FedGRPO loses when devices give up, as a share of what there is to lose, with real models."""

from __future__ import annotations

from collections import Counter

from analysis.figures import dropout_figure
from analysis.results import Results, difference, share
from analysis.tables import (
    GAIN,
    SEEDS,
    TIME,
    Column,
    Part,
    Tables,
    head,
    made_of,
    mean_of,
    methods,
    row,
    shown,
)
from fedsim.sweeps.stats import Interval

LEVELS = (
    "independent-0.3",
    "independent-0.6",
    "independent-0.9",
    "correlated-0.3",
    "correlated-0.6",
    "correlated-0.9",
)
POLICIES = ("deadline", "over_select", "replace")


def parts(tables: Tables) -> Part:
    """The page, line by line, and its figure."""
    yield (
        "Written by `make pages` from the tables in `docs/results/`. Real models; every run has the same virtual "
        "time, and a seed fixes models, questions, devices and their luck for all settings, so differences are "
        "paired. Intervals are 95% over seeds."
    )
    results = tables.get("dropout")
    if results is not None:
        yield from _tiny(results)
    else:
        yield from ("", "The tiny job's grid was not run: `fedsim stress dropout/cost`.")
    corners = tables.get("skills_dropout")
    if corners is not None:
        yield from _corners(corners)
    else:
        yield from (
            "",
            "The corners on the pretrained model were not run: `fedsim compare skills/dropout` "
            "(nine runs of about 150 s of a core).",
        )


def lost_share(results: Results, level: str, policy: str) -> Interval:
    """What a level of dropout takes from the gain without dropout under the same policy, as a share of it."""
    without, with_it = (results.values(f"{one} {policy}", "gain") for one in ("none", level))
    seeds = sorted(without.keys() & with_it.keys())
    return share(
        {seed: without[seed] - with_it[seed] for seed in seeds}, {seed: without[seed] for seed in seeds}
    )


def _tiny(results: Results) -> Part:
    yield from ("", "## The tiny job: every level, three policies", "")
    yield made_of(results, "scenarios/dropout/cost.yaml") + (
        " 12 virtual seconds. *independent*: every device gives a task up equally often; "
        "*correlated*: the same mean, but the owners of gcd, "
        "the domain that gains most, give up most often."
    )
    yield ""
    yield from head("policy", "gain without dropout", *(f"{level}: lost share of it" for level in LEVELS))
    for policy in POLICIES:
        yield row(
            [
                policy,
                shown(mean_of(results.values(f"none {policy}", "gain")), signed=True),
                *(shown(lost_share(results, level, policy)) for level in LEVELS),
            ]
        )
    yield ""
    yield (
        "Rewards that came, of those wanted; optimiser steps; and why requests were lost (share of "
        "those lost, all policies):"
    )
    yield ""
    yield from head(
        "dropout", *(f"{policy}: rewards came, updates" for policy in POLICIES), "requests lost", "why"
    )
    for level in ("none", *LEVELS):
        cells = [_came(results, f"{level} {policy}") for policy in POLICIES]
        yield row([level, *cells, *_why(results, level)])
    yield ""
    others = [
        f"{level}: {', '.join(_less(results, level, policy) for policy in POLICIES[1:])}" for level in LEVELS
    ]
    yield f"Gains minus those of `{POLICIES[0]}`, paired: {'; '.join(others)}."
    figure = dropout_figure(results, LEVELS, POLICIES, lost_share)
    if figure is not None:
        yield from ("", "![Lost share of the gain by level of dropout and policy](dropout.png)")
        yield ("dropout", figure)
    yield from (
        "",
        "What this does not show: other durations (a longer run makes up for lost time), other jobs, policies tuned "
        "for each level, or "
        "policies where many clients are competent: with the floor of .7 few are left to be asked in another's place, "
        "which may be "
        "why the three do not differ.",
    )


def _came(results: Results, name: str) -> str:
    runs = results.by_name.get(name, {}).values()
    wanted, came = (sum(run.rewards[key] for run in runs) for key in ("wanted", "came"))
    steps = mean_of(results.values(name, "updates"))["mean"]
    return "" if not wanted or steps is None else f"{came / wanted:.0%}, {steps:.0f}"


def _why(results: Results, level: str) -> list[str]:
    runs = [run for policy in POLICIES for run in results.by_name.get(f"{level} {policy}", {}).values()]
    lost, asked = Counter[str](), sum(run.rewards["asked"] for run in runs)
    for run in runs:
        lost.update(run.rewards["lost"])
    if not asked:
        return ["", ""]
    total = lost.total()
    return [
        f"{total / asked:.0%}",
        ", ".join(f"{cause} {count / total:.0%}" for cause, count in lost.most_common(3)),
    ]


def _less(results: Results, level: str, policy: str) -> str:
    more = difference(
        results.values(f"{level} {policy}", "gain"), results.values(f"{level} {POLICIES[0]}", "gain")
    )
    return f"{policy} {shown(more, signed=True) or 'not measured'}"


def _corners(results: Results) -> Part:
    yield from ("", "## The pretrained model: the corners", "")
    yield (
        made_of(results, "scenarios/skills/dropout.yaml")
        + " Skills on words never asked, ten virtual seconds."
    )
    yield ""

    def lost(found: Results, name: str) -> str:
        if name == "none":
            return ""
        without, with_it = found.values("none", "gain"), found.values(name, "gain")
        seeds = without.keys() & with_it.keys()
        return shown(
            share(
                {seed: without[seed] - with_it[seed] for seed in seeds},
                {seed: without[seed] for seed in seeds},
            )
        )

    yield from methods(
        results, list(results.planned), SEEDS, GAIN, Column("lost share of the gain", lost), TIME
    )
