"""The section on privacy: what is promised, what attacks find, and what that costs in accuracy and bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis import provenance
from analysis.finished import Compared, head, mean, row
from analysis.privacy.runs import TRAINING_ROW, TRUSTED_ANSWER, Attacked, Leaks, Measured, Promise
from fedsim.config.units import format_bytes
from fedsim.privacy.composition import VACUOUS_EPSILON
from fedsim.privacy.membership import FALSE_POSITIVES
from fedsim.sweeps.compare.tables import gain, leaving, show
from fedsim.sweeps.stats import interval, paired
from fedsim.sweeps.stress.losses import counted

WANTED_SEEDS = 3


def lines(compared: Compared, promises: Mapping[str, Promise], leaks: Mapping[str, Leaks]) -> Iterator[str]:
    """The section, line by line."""
    yield (
        f"Looked for: rewards with a promise that is not vacuous (epsilon below {VACUOUS_EPSILON:g}; by noise on them or by "
        "DP-SGD evaluators) under which the server still gains accuracy; and rewards that tell an attacker less about training "
        "rows than adapters or synthetic rows do."
    )
    yield from ["", provenance.made(compared), ""]
    short = [
        *provenance.short_of(
            compared.seeds, WANTED_SEEDS, provenance.updates_of(compared), provenance.unmeasured(compared)
        )
    ]
    short += [*_not_attacked(compared, leaks)]
    yield f"What was short: {' '.join(short)}"
    yield from [
        "",
        "### Promise, accuracy, bytes",
        "",
        *_costs(compared, promises),
        "",
        *_noise_verdict(compared, promises),
    ]
    yield from ["", "### Who was in the training data", "", *_membership(leaks), "", *_source_verdict(leaks)]
    yield from ["", "### Private answers disclosed", "", *_answers(leaks)]


def _not_attacked(compared: Compared, leaks: Mapping[str, Leaks]) -> Iterator[str]:
    counts = {name: leaks[name].num_runs if name in leaks else 0 for name in compared.folders}
    few = [f"{name} {count} of {len(compared.folders[name])}" for name, count in counts.items()
           if count < len(compared.folders[name])]  # fmt: skip
    if few:
        yield f"Runs attacked (`fedsim leakage`): {', '.join(few)}."


def _costs(compared: Compared, promises: Mapping[str, Promise]) -> Iterator[str]:
    adjacency = dict.fromkeys(one.adjacency for one in promises.values() if one.adjacency)
    yield (
        "Epsilon: for one record of one client, added or removed, over the whole run, the worst client's; smallest to largest "
        f"over seeds. From {VACUOUS_EPSILON:g} on it is called VACUOUS: membership of a fairly drawn record may be guessed "
        "almost surely. It is counted after the run; an epsilon of inf promises nothing."
        + "".join(f" Neighbours: {one}." for one in adjacency)
    )
    yield ""
    yield from head(
        "variant", "leaves a client", "mechanism", "epsilon", "delta", "pass@1, test", "gain", "minus first", "greedy, test",
        "wire, up", "wire, both ways",
    )  # fmt: skip
    first = next(iter(compared.summaries))
    reference = _final(compared.summaries[first], "pass_at_1")
    for name, runs in compared.summaries.items():
        promise, final = promises.get(name), _final(runs, "pass_at_1")
        up = mean(run["bytes"]["wire"]["uplink"] for run in runs)
        down = mean(run["bytes"]["wire"]["downlink"] for run in runs)
        yield row(
            [
                name,
                ", ".join(leaving(runs)) or "nothing",
                "none" if promise is None else promise.mechanism,
                "inf (nothing promised)" if promise is None else epsilon_cell(promise),
                ""
                if promise is None or promise.delta is None or math.isinf(promise.epsilons[1])
                else f"{promise.delta:g}",
                show(interval(final)),
                show(interval([gain(run, "pass_at_1") for run in runs]), signed=True),
                "" if name == first else show(paired(final, reference), signed=True),
                show(interval(_final(runs, "greedy"))),
                format_bytes(up),
                format_bytes(up + down),
            ]
        )


def epsilon_cell(promise: Promise) -> str:
    """An epsilon for people.

    >>> epsilon_cell(Promise("laplace", (7.5, 8.25), 1e-5, None)), epsilon_cell(Promise("laplace", (900.0, 900.0), 1e-5, None))
    ('7.5 to 8.25', '900 (VACUOUS)')
    """
    low, high = promise.epsilons
    if math.isinf(high):
        return "inf (nothing promised)"
    span = f"{high:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"{low:.4g} to {high:.4g}"
    return f"{span} (VACUOUS)" if promise.is_vacuous else span


def _noise_verdict(compared: Compared, promises: Mapping[str, Promise]) -> Iterator[str]:
    """Whether a promise that means something leaves something to learn."""
    private = {name: promise for name, promise in promises.items() if not promise.is_vacuous}
    finite = [name for name, one in promises.items() if one.is_vacuous and not math.isinf(one.epsilons[1])]
    if finite:
        named = ", ".join(f"{name} (epsilon {promises[name].epsilons[1]:.4g})" for name in finite)
        yield f"* Promises that are VACUOUS: {named}."
    if not private:
        yield f"* No variant has an epsilon below {VACUOUS_EPSILON:g}: NOT met."
        return
    first, reference = next(iter(compared.summaries.items()))
    good = []
    for name, promise in private.items():
        runs = compared.summaries[name]
        found = interval([gain(run, "pass_at_1") for run in runs])
        gains = found["low"] is not None and found["low"] > 0
        if gains and leaving(runs) == ["scalars"]:
            good.append(name)
        said = "gains" if gains else "is not shown to gain"
        costs = " and ".join(
            f"{show(paired(_final(runs, measure), _final(reference, measure)), signed=True)} {title}"
            for measure, title in (("pass_at_1", "pass@1"), ("greedy", "greedy"))
        )
        yield (
            f"* `{name}` (epsilon {epsilon_cell(promise)}) {said}: {show(found, signed=True)} pass@1; "
            f"against `{first}` {costs}, {counted(len(runs), 'seed')}."
        )
    met = "met" if good else "NOT met"
    yield f"* Rewards with a promise that is not vacuous, and a gain whose interval lies above 0: {met}."


def _membership(leaks: Mapping[str, Leaks]) -> Iterator[str]:
    if not leaks:
        yield "No run was attacked."
        return
    yield (
        f"AUC 0.5 and a true positive rate of {FALSE_POSITIVES:g} at {FALSE_POSITIVES:.0%} false positives are chance. 95% "
        "intervals: Student-t over seeds; * one seed alone, bootstrap over records. Attacks are simple ones: what they do not "
        "find may be there."
    )
    yield ""
    yield from head(
        "variant",
        "read from",
        "server",
        "about",
        "how",
        "members / others",
        "AUC",
        f"TPR at {FALSE_POSITIVES:.0%} FPR",
    )
    for name, found in leaks.items():
        for attack in found.attacks:
            counts = (
                f"{attack.num_members:.0f} / {attack.num_others:.0f}" if attack.auc else "nothing to read"
            )
            yield row([name, *attack.key, counts, cell(attack.auc), cell(attack.tpr)])


def _source_verdict(leaks: Mapping[str, Leaks]) -> Iterator[str]:
    """The strongest attack on training rows by what it reads, and whether rewards give away least."""
    for about in (TRUSTED_ANSWER, TRAINING_ROW):
        for source, (name, attack) in _strongest(leaks, about).items():
            yield (
                f"* Strongest on {about}s, read from {source}: AUC {cell(attack.auc)}, TPR {cell(attack.tpr)} (`{name}`, "
                f"{attack.key[1]} server, {attack.key[3]}){_above_chance(attack)}."
            )
    strongest = _strongest(leaks, TRAINING_ROW)
    if not strongest:
        return
    others = {source: pair for source, pair in strongest.items() if source in ("adapters", "synthetic")}
    if "rewards" not in strongest or not others:
        yield "* Whether rewards tell less than adapters or synthetic rows cannot be said: one side was not attacked."
        return
    ours = strongest["rewards"][1]
    less = {source: _mean(ours.auc) < _mean(attack.auc) for source, (_, attack) in others.items()}
    overlapping = [source for source, (_, attack) in others.items() if _overlap(ours.auc, attack.auc)]
    said = "; ".join(f"{'less' if lower else 'NOT less'} than {source}" for source, lower in less.items())
    unsure = f" Intervals overlap with: {', '.join(overlapping)}." if overlapping else ""
    yield f"* By AUC, rewards tell {said}: {'met' if all(less.values()) else 'NOT met'}.{unsure}"
    unlike = [source for source, (_, attack) in others.items() if attack.key[1] != ours.key[1]]
    if unlike:
        yield (
            f"* These attacks are not matched: against rewards the server is {ours.key[1]}, against {' and '.join(unlike)} it "
            "is not, so the comparison says what each attack found and not what the same attacker would find."
        )


def _strongest(leaks: Mapping[str, Leaks], about: str) -> dict[str, tuple[str, Attacked]]:
    """By what is read: the variant and the attack with the highest AUC on what ``about`` names; of equals the first."""
    found: dict[str, tuple[str, Attacked]] = {}
    for name, leak in leaks.items():
        for attack in leak.attacks:
            if attack.key[2] != about or attack.auc is None:
                continue
            known = found.get(attack.key[0])
            if known is None or _mean(attack.auc) > _mean(known[1].auc):
                found[attack.key[0]] = (name, attack)
    return found


def _answers(leaks: Mapping[str, Leaks]) -> Iterator[str]:
    rows = [(name, one) for name, found in leaks.items() for one in found.disclosures]
    if not rows:
        yield "No attacked run has trusted answers."
        return
    yield (
        "Share of all trusted answers that the server knows afterwards, and that its own candidates tell it without any reply; "
        "95% intervals as above."
    )
    yield ""
    yield from head("variant", "server", "how", "trusted answers", "known", "known without replies")
    for name, one in rows:
        yield row([name, *one.key, f"{one.num_answers:.0f}", cell(one.share), cell(one.known_before)])


def cell(measured: Measured | None) -> str:
    """An estimate for people; one seed alone is marked."""
    return "" if measured is None else show(measured.found) + ("*" if measured.is_bootstrap else "")


def _above_chance(attack: Attacked) -> str:
    low = None if attack.auc is None else attack.auc.found["low"]
    if low is None:
        return ""
    return ", above chance" if low > 0.5 else ", not told from chance"


def _mean(measured: Measured | None) -> float:
    return float("nan") if measured is None else float(measured.found["mean"] or 0.0)


def _overlap(one: Measured | None, other: Measured | None) -> bool:
    if one is None or other is None:
        return False
    low, high = (
        max(float(m.found["low"] or 0.0) for m in (one, other)),
        min(float(m.found["high"] or 1.0) for m in (one, other)),
    )
    return low <= high


def _final(runs: Sequence[Mapping[str, Any]], measure: str) -> list[float | None]:
    return [run["accuracy"][measure]["final"] for run in runs]
