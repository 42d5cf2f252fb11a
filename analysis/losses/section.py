"""The section on losses: what each makes of the same rewards, and what stale samples were worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis import provenance
from analysis.finished import Compared, head, mean, row
from fedsim.config.units import format_seconds
from fedsim.records.run import load
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import QUANTILES, Interval, interval, paired, show_quantiles

WANTED_SEEDS = 3
RATIOS = ("effective_share", "clip_fraction", "divergence", "truncated_share", "mean_ratio")
MEASURES = {"pass_at_1": "pass@1", "greedy": "greedy", "pass_at_8": "pass@8"}


@dataclass(frozen=True, slots=True)
class Stale:
    """What samples of one staleness were worth in one variant: means over its tokens in a run, intervals over seeds.

    ``token_share`` is their share of all tokens that were trained on.
    """

    staleness: int
    token_share: float
    numbers: Mapping[str, Interval]


def lines(compared: Compared, stale: Mapping[str, Sequence[Stale]]) -> Iterator[str]:
    """The section, line by line; ``stale`` as `read_stale` gives it."""
    first = next(iter(compared.summaries))
    yield (
        f"Looked for: a loss that makes more of the same rewards than `{first}` (pass@1, paired by seed), and what clipping "
        "around an old policy costs where samples are stale."
    )
    yield from ["", provenance.made(compared), ""]
    updates, gaps = provenance.updates_of(compared), provenance.unmeasured(compared)
    yield f"What was short: {' '.join(provenance.short_of(compared.seeds, WANTED_SEEDS, updates, gaps))}"
    yield from ["", *_ends(compared), "", f"Virtual time: {QUANTILES}", ""]
    yield from _verdict(compared)
    yield from ["", "### What stale samples are worth", "", *_stale_table(stale)]
    yield from _twins(compared)


def read_stale(compared: Compared) -> dict[str, list[Stale]]:
    """By variant that records ratios (``record_ratios``), what samples of every staleness were worth.

    Raises:
        RunFolderError: a run cannot be read.
    """
    found = {}
    for name, folders in compared.folders.items():
        frames = [load(folder).ratios for folder in folders]
        if all(frame.height for frame in frames):
            found[name] = worth(frames)
    return found


def worth(frames: Sequence[pl.DataFrame]) -> list[Stale]:
    """One variant's ``records/ratios.parquet`` of every seed, by staleness; within a run, rows are weighted by their tokens."""
    total = sum(int(frame["num_tokens"].sum()) for frame in frames)
    found = []
    for staleness in sorted({value for frame in frames for value in frame["staleness"].to_list()}):
        parts = [frame.filter(pl.col("staleness") == staleness) for frame in frames]
        tokens = [int(part["num_tokens"].sum()) for part in parts]
        numbers = {
            name: interval(
                [
                    float((part[name] * part["num_tokens"]).sum()) / count if count else None
                    for part, count in zip(parts, tokens, strict=True)
                ]
            )
            for name in RATIOS
        }
        found.append(Stale(staleness, sum(tokens) / total if total else 0.0, numbers))
    return found


def differences(compared: Compared, measure: str) -> dict[str, Interval]:
    """Of every variant but the first: final test accuracy minus the first's, paired by seed."""
    first, *others = compared.summaries
    reference = _final(compared.summaries[first], measure)
    return {name: paired(_final(compared.summaries[name], measure), reference) for name in others}


def _ends(compared: Compared) -> Iterator[str]:
    titles = [title for name in MEASURES.values() for title in (f"{name}, test", "minus first")]
    yield from head("loss", *titles, "entropy", "KL to start", "updates", "virtual time")
    first = next(iter(compared.summaries))
    against = {measure: differences(compared, measure) for measure in MEASURES}
    for name, runs in compared.summaries.items():
        cells = [name]
        for measure in MEASURES:
            cells.append(show(interval(_final(runs, measure))))
            cells.append("" if name == first else show(against[measure][name], signed=True))
        cells += [
            show(interval([run["learning"][key] for run in runs])) for key in ("entropy", "kl_to_initial")
        ]
        cells.append(f"{mean(run['updates'] for run in runs):.0f}")
        cells.append(show_quantiles([run["virtual_s"] for run in runs], format_seconds))
        yield row(cells)


def _verdict(compared: Compared) -> Iterator[str]:
    """Who is told apart from the first, by pass@1 (least noisy of the three)."""
    first = next(iter(compared.summaries))
    better, worse, alike = [], [], []
    for name, found in differences(compared, "pass_at_1").items():
        if found["low"] is None or found["high"] is None:
            alike.append(name)
        elif found["low"] > 0:
            better.append(name)
        elif found["high"] < 0:
            worse.append(name)
        else:
            alike.append(name)
    yield (
        f"* By pass@1 against `{first}`: better {_named(better)}; worse {_named(worse)}; not told apart {_named(alike)}. "
        "Intervals are not corrected for how many variants are compared."
    )
    means = {name: interval(_final(runs, "pass_at_1"))["mean"] for name, runs in compared.summaries.items()}
    known = {name: value for name, value in means.items() if value is not None}
    if known:
        best = max(known, key=lambda name: known[name])
        if best == first:
            yield f"* The highest mean is that of `{first}` itself: no loss makes more of the same rewards. NOT met."
        else:
            sure = (
                "its difference lies above 0 with its whole interval: met"
                if best in better
                else "the interval of its difference holds 0: NOT met"
            )
            yield f"* The highest mean is that of `{best}` ({known[best]:.3f}); {sure}."
    if not any(setting and setting["by"] == "tuning" for setting in compared.tuned.values()):
        yield (
            "* All variants ran with the rates that the file gives them. Losses scale their gradients differently, so a "
            "ranking at one rate is of loss and rate together."
        )
    if {"token_mean", "dr_grpo"} <= compared.summaries.keys():
        yield (
            "* `token_mean` is the mean over all tokens of an update (TRL's `dapo`); DAPO's own (eq. 8) is taken question by "
            "question. `dr_grpo` is that mean times one number for each update, which AdamW all but divides away: what tells "
            "these two variants apart is that `dr_grpo` does not divide by the deviation."
        )


def _stale_table(stale: Mapping[str, Sequence[Stale]]) -> Iterator[str]:
    if not stale:
        yield "No variant recorded ratios."
        return
    yield (
        "Staleness in policy versions. Effective share: (sum w)^2 / (n sum w^2) of the ratios of the policy that is stepped "
        "from to the one that sampled; clipped: share of tokens without gradient; divergence: token mean of log pi_behaviour - "
        "log pi_start; beyond the cap: share of tokens whose weight was cut. Means over tokens in a run, then over seeds."
    )
    yield ""
    yield from head(
        "loss", "staleness", "tokens", "effective share", "clipped", "divergence", "beyond the cap"
    )
    for name, found in stale.items():
        for one in found:
            cells = [show(one.numbers[key], digits=4 if key == "divergence" else 3) for key in RATIOS[:4]]
            yield row([name, str(one.staleness), f"{one.token_share:.1%}", *cells])


def _twins(compared: Compared) -> Iterator[str]:
    """Pairs of variants that differ in ``protocol.ratio`` alone."""
    for name, scenario in compared.scenarios.items():
        if _ratio(scenario) != "decoupled":
            continue
        for other, their in compared.scenarios.items():
            if _ratio(their) == "clipped" and _without_ratio(scenario) == _without_ratio(their):
                found = paired(
                    _final(compared.summaries[name], "pass_at_1"),
                    _final(compared.summaries[other], "pass_at_1"),
                )
                yield ""
                yield (
                    f"`{name}` differs from `{other}` in nothing but the ratio (decoupled, not clipped): pass@1 "
                    f"{show(found, signed=True)}{_said(found)}."
                )


def _said(found: Interval) -> str:
    if found["low"] is None or found["high"] is None:
        return ", from one seed"
    if found["low"] > 0:
        return ", better"
    return ", worse" if found["high"] < 0 else ", not told apart"


def _ratio(scenario: Mapping[str, Any]) -> str | None:
    found: str | None = (scenario.get("protocol") or {}).get("ratio")
    return found


def _without_ratio(scenario: Mapping[str, Any]) -> dict[str, Any]:
    protocol = {key: value for key, value in scenario["protocol"].items() if key != "ratio"}
    return {**scenario, "protocol": protocol}


def _final(runs: Sequence[Mapping[str, Any]], measure: str) -> list[float | None]:
    return [run["accuracy"][measure]["final"] for run in runs]


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
