"""The section on hostile experts: which way of fusing rewards keeps what an oracle gains that knows whom to leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from analysis import provenance
from analysis.finished import format_list, head, row
from analysis.hostile.detection import detection_lines
from analysis.hostile.noise import noise_lines
from analysis.hostile.runs import MEASURES, NOISE_FACTOR, PLAIN, HostileGrid, Level, retained
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import Interval, interval

WANTED = 0.9
"""Share of the oracle's gain that a rule has to retain under every attack."""
WANTED_SEEDS = 3


def lines(grid: HostileGrid) -> Iterator[str]:
    """The section of one federation, line by line."""
    yield (
        f"Looked for: one rule of fusion that retains at least {WANTED:g} of the oracle's gain under every attack. The oracle "
        f"is `{PLAIN}` with the hostile clients left out (`excluded`), same seed; of nobody hostile, `{PLAIN}` itself, so that "
        "row says what a rule costs in peace."
    )
    yield from ["", *_made(grid), "", *noise_lines(grid)]
    for measure, title in MEASURES.items():
        yield from ["", f"#### Retained share of the oracle's gain, {title}", "", *_table(grid, measure)]
        if measure == "pass_at_1":
            yield from ["", *_verdict(grid, measure)]
    yield from ["", "#### By number of hostile clients", "", *_by_number(grid)]
    yield from ["", "#### Gains", "", *_gains(grid)]
    yield from ["", "#### Who was found out", "", *detection_lines(grid)]


def _made(grid: HostileGrid) -> Iterator[str]:
    cells = Counter(len(grid.seeds_of(rule, level)) for rule in grid.rules for level in grid.levels)
    counted = ", ".join(f"{cells[size]} with {size}" for size in sorted(cells, reverse=True))
    yield (
        f"Sweep `{', '.join(dict.fromkeys(grid.names))}`, seeds {format_list(grid.seeds)}, code of {grid.made_by}; "
        f"{grid.num_clients} clients. Cells of {len(grid.rules)} rules x {len(grid.levels)} levels by their number of seeds: "
        f"{counted}."
    )
    yield ""
    steps = [float(summary["updates"]) for summary in grid.summaries.values()]
    short = [*provenance.short_of(grid.seeds, WANTED_SEEDS, steps)]
    if grid.missing:
        reasons = Counter(grid.missing.values())
        short.append(
            "Ended without a result: " + ", ".join(f"{n} ({why})" for why, n in reasons.items()) + "."
        )
    if grid.differing:
        short.append(f"The sweeps are not alike in {', '.join(grid.differing)}.")
    yield f"What was short: {' '.join(short)}"


def _table(grid: HostileGrid, measure: str) -> Iterator[str]:
    """Attacks by rules; below the bound in bold."""
    yield (
        f"Bold: below {WANTED:g}. Mean over seeds, 95% Student-t where there are several (n: how many seeds, where fewer than "
        f"elsewhere). †: the oracle of some seed has fewer excluded clients, or is not `{PLAIN}`. A seed whose oracle gained "
        f"less than {NOISE_FACTOR:g} standard errors is in no share (no oracle: none is left)."
    )
    yield ""
    yield from head("attack", *grid.rules, f"best but `{PLAIN}`")
    for level in [one for one in grid.levels.values() if not (one.is_oracle and one.count)]:
        means = {rule: retained(grid, rule, level.name, measure).interval["mean"] for rule in grid.rules}
        known = {rule: value for rule, value in means.items() if value is not None and rule != PLAIN}
        best = max(known, key=lambda rule: known[rule]) if known else ""
        yield row([level.name, *(_cell(grid, rule, level.name, measure) for rule in grid.rules), best])
    for count in counts(grid):
        yield row(
            [f"worst of those by {count}", *(_worst(grid, rule, count, measure) for rule in grid.rules), ""]
        )


def counts(grid: HostileGrid) -> list[int]:
    """Numbers of hostile clients for which there are attacks of several kinds."""
    kinds: dict[int, set[tuple[str, ...]]] = {}
    for level in grid.attacks():
        kinds.setdefault(level.count, set()).add(level.kinds)
    return sorted(count for count, found in kinds.items() if len(found) > 1)


def _cell(grid: HostileGrid, rule: str, level: str, measure: str) -> str:
    found = retained(grid, rule, level, measure)
    share = found.interval
    if share["mean"] is None:
        gains = [grid.gain(rule, level, seed, measure) for seed in found.by_seed]
        return "" if not gains else "not measured" if None in gains else "no oracle"
    text = show(share, digits=2)
    if share["mean"] < WANTED:
        text = f"**{text}**"
    few = f" (n {share['n']})" if int(share["n"] or 0) < len(grid.seeds) else ""
    return f"{text}{'†' if found.stand_in else ''}{few}"


def worst(grid: HostileGrid, rule: str, count: int, measure: str) -> tuple[Level, Interval] | None:
    """The attack by ``count`` clients under which a rule retains least; None unless it was measured under all of them."""
    found = [(level, retained(grid, rule, level.name, measure).interval) for level in grid.attacks(count)]
    if not found or any(share["mean"] is None for _, share in found):
        return None
    return min(found, key=lambda pair: pair[1]["mean"] or 0.0)


def _worst(grid: HostileGrid, rule: str, count: int, measure: str) -> str:
    found = worst(grid, rule, count, measure)
    if found is None:
        return "not under all"
    level, share = found
    text = f"{share['mean']:.2f} ({level.name})"
    return f"**{text}**" if (share["mean"] or 0.0) < WANTED else text


def _verdict(grid: HostileGrid, measure: str) -> Iterator[str]:
    """Whether one rule keeps enough under every attack, for every number of hostile clients with several attacks."""
    for count in counts(grid):
        found = {rule: pair for rule in grid.rules if (pair := worst(grid, rule, count, measure)) is not None}
        attacks = len(grid.attacks(count))
        who = f"{count} of {grid.num_clients} hostile, {attacks} attacks"
        if not found:
            yield f"* {who}: no rule was measured under all of them, so NOT met."
            continue
        keep = [rule for rule, (_, share) in found.items() if (share["mean"] or 0.0) >= WANTED]
        best = max(found, key=lambda rule: found[rule][1]["mean"] or 0.0)
        level, share = found[best]
        if keep:
            yield (
                f"* {who}: {_named(keep)} {'retains' if len(keep) == 1 else 'retain'} at least {WANTED:g} under every one of "
                f"them (mean over seeds); met. Highest worst case: `{best}`, {show(share, digits=2)} under {level.name}."
                f"{_surely(grid, keep, count, measure)}"
            )
        else:
            yield (
                f"* {who}: no rule retains {WANTED:g} under every one of them: NOT met. Highest worst case: `{best}`, "
                f"{show(share, digits=2)} under {level.name}."
            )
        partly = [rule for rule in grid.rules if rule not in found]
        if partly:
            yield f"* {who}: not measured under all attacks, so not judged: {_named(partly)}."


def _surely(grid: HostileGrid, rules: Sequence[str], count: int, measure: str) -> str:
    """Of which rules every interval lies above the bound."""
    sure = [
        rule
        for rule in rules
        if all(
            (low := retained(grid, rule, level.name, measure).interval["low"]) is not None and low >= WANTED
            for level in grid.attacks(count)
        )
    ]
    if sure:
        return f" With all intervals above it: {_named(sure)}."
    return " For no rule do all intervals lie above it, so noise alone may have lifted (or hidden) one."


def _by_number(grid: HostileGrid) -> Iterator[str]:
    """Of every kind that was run with several numbers of clients: retained pass@1 by number."""
    kinds: dict[tuple[str, ...], list[Level]] = {}
    for level in grid.attacks():
        kinds.setdefault(level.kinds, []).append(level)
    series = {kind: levels for kind, levels in kinds.items() if len(levels) > 1}
    if not series:
        yield "No kind of attack was run with several numbers of clients."
        return
    peace = [level for level in grid.levels.values() if level.is_oracle and not level.count]
    for kind, levels in series.items():
        yield f"Retained pass@1 under {' and '.join(kind)} clients, by how many of {grid.num_clients} they are."
        yield ""
        yield from head("hostile", *grid.rules)
        for level in sorted([*peace, *levels], key=lambda one: one.count):
            yield row(
                [str(level.count), *(_cell(grid, rule, level.name, "pass_at_1") for rule in grid.rules)]
            )
        yield ""


def _gains(grid: HostileGrid) -> Iterator[str]:
    yield "Final minus initial accuracy on the test questions, pass@1; greedy. Mean over seeds; intervals of pass@1."
    yield ""
    yield from head("level", *grid.rules)
    for level in grid.levels:
        cells = []
        for rule in grid.rules:
            seeds = grid.seeds_of(rule, level)
            first, greedy = (
                interval([grid.gain(rule, level, seed, measure) for seed in seeds]) for measure in MEASURES
            )
            cells.append(
                ""
                if not seeds
                else f"{show(first, signed=True)}; {show({**greedy, 'low': None}, signed=True)}"
            )
        yield row([level, *cells])


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
