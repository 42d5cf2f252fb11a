"""``docs/dropout.md``: what FedGRPO loses when devices give up, from two finished comparisons of real models.

The first (``scenarios/dropout/policies.yaml``) chose the straggler policy on validation questions, the second
(``dropout/cost.yaml``) measures the loss on test questions with other seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.command import exit_code, paths
from analysis.finished import Compared, format_list, head, mean, provenance, read, row
from fedsim.records.run import load
from fedsim.records.run_folder import write_atomically
from fedsim.sweeps.compare.tables import show, wasted_share
from fedsim.sweeps.stats import Interval, interval, paired

BOUND = 0.03
"""What may be lost at most at 30% independent dropout: the upper end of the 95% interval of the mean loss over seeds."""


def lines(policies: Compared, dropout: Compared) -> list[str]:
    """The page, line by line; the first variant of ``dropout`` is the world without dropout."""
    page = [*_page(policies, dropout)]
    return ["# What dropout costs FedGRPO", "", provenance(page), "", *page]


def _page(policies: Compared, dropout: Compared) -> list[str]:
    return [
        "Written by `make evidence` from finished runs of real models; no number here is typed by hand. Every run has the same "
        "virtual time; a seed fixes models, questions, devices and their luck for all variants, so differences are paired. "
        "Intervals are 95% Student-t over seeds.",
        "",
        "## The policy, chosen on validation questions",
        "",
        f"Comparison `{policies.name}`, seeds {format_list(policies.seeds)}, code of {policies.made_by}. These runs never "
        "look at a test question.",
        "",
        *_policies(policies),
        "",
        "## What is lost",
        "",
        f"Comparison `{dropout.name}`, seeds {format_list(dropout.seeds)}, code of {dropout.made_by}. Greedy accuracy on "
        f"{_first(dropout)['accuracy']['num_questions']} test questions.",
        "",
        *_losses(dropout),
        "",
        *_verdict(dropout),
        "",
        *_share_of_gain(dropout),
        "",
        "## By domain",
        "",
        "Final greedy accuracy minus that of the first variant, and the share of the domain's groups that were not trained on.",
        "",
        *_by_domain(dropout),
    ]


_LOSSES = ("updates", "rewards that came", "groups lost", "wasted bytes")


def _policies(compared: Compared) -> Iterator[str]:
    yield from head("policy", "validation, end", *_LOSSES)
    for name, runs in compared.summaries.items():
        end = interval([run["validation"]["greedy"]["final"] for run in runs])
        yield row([name, show(end), *_loss_cells(runs)])


def _losses(compared: Compared) -> Iterator[str]:
    reference = next(iter(compared.summaries.values()))
    yield from head("variant", "greedy, end", "minus first", *_LOSSES)
    for name, runs in compared.summaries.items():
        minus = "" if runs is reference else show(paired(_greedy(runs), _greedy(reference)), signed=True)
        yield row([name, show(interval(_greedy(runs))), minus, *_loss_cells(runs)])


def _loss_cells(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of ``_LOSSES``, means over the runs."""
    return [
        f"{mean([run['updates'] for run in runs]):.0f}",
        f"{mean([_came(run) for run in runs]):.1%}",
        f"{mean([_groups_lost(run) for run in runs]):.1%}",
        f"{mean([wasted_share(run) or 0.0 for run in runs]):.1%}",
    ]


def _verdict(compared: Compared) -> Iterator[str]:
    reference = next(iter(compared.summaries.values()))
    for name, runs in list(compared.summaries.items())[1:]:
        losses = [before - after for before, after in zip(_greedy(reference), _greedy(runs), strict=True)]
        loss = interval(losses)
        wanted = ""
        if name == "independent" and loss["high"] is not None:
            wanted = f" Wanted: upper end below {BOUND}; {'met' if loss['high'] < BOUND else 'NOT met'}."
        each = ", ".join(f"{one:+.3f}" for one in losses)
        yield f"* **{name}** loses {show(loss, signed=True)} (by seed: {each}).{wanted}"


def _share_of_gain(compared: Compared) -> Iterator[str]:
    """Losses beside what there is to lose, and how many groups were lost for it."""
    (name, reference), *others = compared.summaries.items()
    gain = mean(
        [
            float(run["accuracy"]["greedy"]["final"] - run["accuracy"]["greedy"]["initial"])
            for run in reference
        ]
    )
    if gain <= 0:
        yield f"{name} gains nothing over the start: there is nothing to lose."
        return
    shares = []
    for other, runs in others:
        loss = paired(_greedy(reference), _greedy(runs))
        upper = "" if loss["high"] is None else f" (upper end {loss['high'] / gain:.0%})"
        shares.append(f"{other} {(loss['mean'] or 0.0) / gain:.0%}{upper}")
    yield (
        f"As a share of what there is to lose, the gain of {name} over the start ({gain:.2f}): {', '.join(shares)}. "
        "Lost groups (above) are replaced by those of other questions: what goes is time, so updates, not parts of them."
    )


def _by_domain(compared: Compared) -> Iterator[str]:
    names = list(compared.summaries)
    domains = list(_first(compared)["accuracy"]["by_domain"])
    yield from head("domain", *(f"{name}: accuracy, lost" for name in names))
    lost = {name: _lost_by_domain(compared.folders[name]) for name in names}
    for domain in domains:
        reference = _final(compared.summaries[names[0]], domain)
        cells = [f"{interval(reference)['mean']:.3f}, {lost[names[0]].get(domain, 0.0):.1%}"]
        for name in names[1:]:
            change: Interval = paired(_final(compared.summaries[name], domain), reference)
            cells.append(f"{show(change, signed=True)}, {lost[name].get(domain, 0.0):.1%}")
        yield row([domain, *cells])


def _lost_by_domain(folders: Sequence[Path]) -> dict[str, float]:
    """Share of a domain's groups, over all runs, that were not trained on."""
    counts: dict[str, list[int]] = {}
    for folder in folders:
        for domain, fate in load(folder).groups.select("domain", "fate").iter_rows():
            of_domain = counts.setdefault(domain, [0, 0])
            of_domain[0] += fate != "trained"
            of_domain[1] += 1
    return {domain: lost / total for domain, (lost, total) in counts.items()}


def _came(run: Mapping[str, Any]) -> float:
    """Share of all requests that brought a usable reply."""
    return float(run["requests"]["ok"] / max(1, run["requests"]["total"]))


def _groups_lost(run: Mapping[str, Any]) -> float:
    groups = run["groups"]
    return 1.0 - float(groups["trained"] / max(1, groups["total"]))


def _greedy(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(run["accuracy"]["greedy"]["final"]) for run in runs]


def _final(runs: Sequence[Mapping[str, Any]], domain: str) -> list[float]:
    return [float(run["accuracy"]["by_domain"][domain]["final"]) for run in runs]


def _first(compared: Compared) -> Mapping[str, Any]:
    return next(iter(compared.summaries.values()))[0]


def main(arguments: list[str] | None = None) -> int:
    """Command line: both comparisons' folders and the page to write."""

    def page() -> Path:
        policies, dropout, place = paths(arguments, "analysis.dropout POLICIES_FOLDER DROPOUT_FOLDER PAGE", 3)
        return write_atomically(place, ("\n".join(lines(read(policies), read(dropout))) + "\n").encode())

    return exit_code(page)


if __name__ == "__main__":
    sys.exit(main())
