"""Write ``docs/evidence.md`` from a finished comparison: every number in it is read from run folders.

    python -m analysis.controls .evidence/controls .evidence/overhead docs/evidence.md

The claims that are looked for stand in ``CLAIMS`` below; whether each holds is computed, and what is missed is said.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import overhead as overhead_page
from analysis import planted
from analysis.command import exit_code, paths
from analysis.finished import Compared, format_list, head, named, provenance, read, row
from fedsim.config.units import format_bytes, format_seconds
from fedsim.errors import RunFolderError
from fedsim.records.run_folder import MANIFEST, write_atomically
from fedsim.sweeps.compare.tables import gain, show, wasted_share
from fedsim.sweeps.stats import QUANTILES, Interval, interval, paired, show_quantiles

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""Summaries by variant, in the order of the seeds."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that is looked for: what, the measured interval, and whether it holds."""

    text: str
    measured: Callable[[Runs], Interval]
    holds: Callable[[Interval], bool]
    digits: int = 3


def write(folder: Path, target: Path, overhead: Path | None = None) -> Path:
    """Write the page from the controls' comparison and, below it, that of communication.

    Raises:
        RunFolderError: a comparison is not whole.
    """
    try:
        compared = read(folder)
        places = compared.folders
        clients = {name: [_json(place / "clients.json") for place in found] for name, found in places.items()}
        page = _page(compared, clients, _json(next(iter(places.values()))[0] / MANIFEST))
        if overhead is not None:
            folder = overhead
            page += ["", *overhead_page.lines(overhead)]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise RunFolderError(
            f"{folder}: not a finished comparison ({error}); run fedsim compare first"
        ) from None
    text = named("\n".join(["# Evidence", "", provenance(page), "", *page]) + "\n")
    return write_atomically(target, text.encode())


def _page(compared: Compared, clients: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    runs, seeds = compared.summaries, compared.seeds
    tuned = [name for name in runs if name.endswith("-tuned")]
    plain = [name for name in runs if name not in tuned]
    first = next(iter(runs.values()))[0]
    return [
        "Schedules, losses, hostile experts, privacy and leakage: [learning_evidence.md](learning_evidence.md).",
        "",
        "Written by `make evidence` from finished runs; no number here is typed by hand. "
        f"{len(seeds)} seeds ({format_list(seeds)}); a seed redraws partition, model training and sampling. "
        f"Accuracies are on {first['accuracy']['num_questions']} test questions that no setting was chosen on. "
        "Intervals are 95% Student-t over seeds; differences are paired by seed.",
        "",
        f"Controls: code of {compared.made_by}. "
        f"Platform: {manifest.get('platform', {}).get('cpu', 'unknown CPU')}, "
        + ", ".join(
            f"{name} {manifest['versions'].get(name)}" for name in ("python", "torch", "transformers")
        )
        + ".",
        "",
        "## What was looked for",
        "",
        *head("looked for", "measured", "met"),
        *(_claim_row(claim, runs) for claim in CLAIMS if _measurable(claim, runs)),
        "",
        *_selections(compared.scenarios),
        "## Every method, from the same server",
        "",
        *_methods(runs, plain),
        "",
        *_distilled(runs),
        "## Every method, from a server already tuned on its own labelled set Dp",
        "",
        *(_methods(runs, tuned) if tuned else ["Not part of this comparison."]),
        "",
        "## What the planted mistakes make of the gain",
        "",
        *planted.lines(compared.folder, compared.made_by),
        "",
        "## What it cost",
        "",
        f"Means over seeds; virtual time: {QUANTILES}",
        "",
        *_costs(runs, [*plain, *tuned]),
        "",
        "## How good the clients are",
        "",
        "Greedy accuracy on the validation questions: the best client of each domain, and the server at the start "
        "(test questions). An expert can only teach what it knows better than the server.",
        "",
        *_clients(clients, runs),
    ]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _selections(scenarios: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the methods' names mean: the settings that choose experts and form groups, from the runs."""
    found = []
    for name in ("fedgrpo", "paper_selection"):
        settings = scenarios.get(name, {}).get("protocol", {})
        if "competence_floor" in settings:
            found.append(
                f"{name} has `competence_floor` {settings['competence_floor']:g}, L = `num_neighbours` "
                f"{settings['num_neighbours']}, `grouping: {settings['grouping']}`"
            )
    ours = "The floor, this L and the grouping `candidates` are this repository's, not the paper's."
    return [f"{'; '.join(found)}. {ours}", ""] if found else []


def _distilled(runs: Runs) -> list[str]:
    """Whether distillation, for which text leaves the clients, does better than scores."""
    if not {"distil", "fedgrpo"} <= set(runs):
        return []
    more = paired(_final(runs, "distil"), _final(runs, "fedgrpo"))
    apart = "not told apart" if (more["low"] or 0.0) <= 0.0 <= (more["high"] or 0.0) else "told apart"
    return [
        f"distil, for which the clients' answers leave them as text, ends {show(more, signed=True)} from fedgrpo, for which "
        f"scores leave them: {apart}.",
        "",
    ]


def _claim_row(claim: Claim, runs: Runs) -> str:
    measured = claim.measured(runs)
    return row(
        [claim.text, show(measured, digits=claim.digits), "yes" if claim.holds(measured) else "**no**"]
    )


def _measurable(claim: Claim, runs: Runs) -> bool:
    try:
        return claim.measured(runs)["mean"] is not None
    except KeyError:
        return False


def _gains(runs: Runs, name: str) -> list[float | None]:
    return [gain(run) for run in runs[name]]


def _final(runs: Runs, name: str) -> list[float | None]:
    return [run["accuracy"]["greedy"]["final"] for run in runs[name]]


def _difference(ours: str, theirs: str) -> Callable[[Runs], Interval]:
    return lambda runs: paired(_final(runs, ours), _final(runs, theirs))


def _share_of_central(runs: Runs) -> Interval:
    """Mean over seeds of (FedGRPO's gain / Central-GRPO's gain)."""
    return interval(
        [
            None if ours is None or theirs is None or theirs <= 0 else ours / theirs
            for ours, theirs in zip(_gains(runs, "fedgrpo"), _gains(runs, "central_grpo"), strict=True)
        ]
    )


def _ratio_to_central(name: str) -> Callable[[Runs], Interval]:
    """Mean gain over seeds divided by Central-GRPO's; one number, without an interval."""

    def ratio(runs: Runs) -> Interval:
        ours, theirs = (interval(_gains(runs, one))["mean"] for one in (name, "central_grpo"))
        return interval([None if ours is None or not theirs else ours / theirs])

    return ratio


def _above(bound: float) -> Callable[[Interval], bool]:
    return lambda found: found["low"] is not None and found["low"] > bound


def _mean_at_least(bound: float) -> Callable[[Interval], bool]:
    return lambda found: found["mean"] is not None and found["mean"] >= bound


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Central-GRPO gains at least .10 greedy over zero-shot",
        lambda runs: interval(_gains(runs, "central_grpo")),
        _mean_at_least(0.10),
    ),
    Claim(
        "FedGRPO (floored)'s gain is at least .8 of Central-GRPO's (mean)",
        _share_of_central,
        _mean_at_least(0.8),
    ),
    Claim("... with its lower bound above .6", _share_of_central, _above(0.6)),
    Claim(
        "... as ratio of the mean gains at least .8",
        _ratio_to_central("fedgrpo"),
        _mean_at_least(0.8),
        digits=2,
    ),
    Claim(
        "FedGRPO (paper's selection): ratio of its mean gain to Central-GRPO's at least .8",
        _ratio_to_central("paper_selection"),
        _mean_at_least(0.8),
        digits=2,
    ),
    Claim(
        "self-reward gains nothing: upper bound below .02",
        lambda runs: interval(_gains(runs, "self_reward")),
        lambda found: found["high"] is not None and found["high"] < 0.02,
    ),
    Claim(
        "FedGRPO (floored) minus random experts: lower bound at least .08",
        _difference("fedgrpo", "random"),
        _above(0.08),
    ),
    Claim("FedGRPO (floored) above dp_sft", _difference("fedgrpo", "dp_sft"), _above(0.0)),
    Claim("FedGRPO (floored) above dp_grpo", _difference("fedgrpo", "dp_grpo"), _above(0.0)),
    Claim(
        "from the Dp-tuned server: FedGRPO (floored) above dp_sft",
        _difference("fedgrpo-tuned", "dp_sft-tuned"),
        _above(0.0),
    ),
    Claim(
        "from the Dp-tuned server: FedGRPO (floored) above dp_grpo",
        _difference("fedgrpo-tuned", "dp_grpo-tuned"),
        _above(0.0),
    ),
)


def _methods(runs: Runs, names: Sequence[str]) -> list[str]:
    reference = "fedgrpo-tuned" if names and names[0].endswith("-tuned") else "fedgrpo"
    lines = head(
        "method", "greedy, start", "greedy, end", "gain", "minus FedGRPO (floored)", "pass@1, end", "pass@8, end"
    )  # fmt: skip
    for name in names:
        accuracy = [run["accuracy"] for run in runs[name]]
        against = (
            ""
            if name == reference
            else show(paired(_final(runs, name), _final(runs, reference)), signed=True)
        )
        cells = [
            name,
            show(interval([one["greedy"]["initial"] for one in accuracy])),
            show(interval(_final(runs, name))),
            show(interval(_gains(runs, name)), signed=True),
            against,
            show(interval([one["pass_at_1"]["final"] for one in accuracy])),
            show(interval([one["pass_at_8"]["final"] for one in accuracy])),
        ]
        lines.append(row(cells))
    return lines


def _costs(runs: Runs, names: Sequence[str]) -> list[str]:
    lines = head(
        "method", "uplink, paper's account", "wire, up", "wire, down", "of it wasted", "requests ok / all", "virtual time",
        "staleness", "reward AUC",
    )  # fmt: skip
    for name in names:
        found = runs[name]
        wasted = [wasted_share(run) for run in found]
        aucs = [
            value
            for run in found
            for value in run["learning"]["reward_auc_by_evaluator"].values()
            if value is not None
        ]
        cells = [
            name,
            *(
                format_bytes(float(np.mean([run["bytes"][account][way] for run in found])))
                for account, way in (("paper", "uplink"), ("wire", "uplink"), ("wire", "downlink"))
            ),
            "" if wasted[0] is None else f"{np.mean([share for share in wasted if share is not None]):.1%}",
            f"{np.mean([run['requests']['ok'] for run in found]):.0f} / "
            f"{np.mean([run['requests']['total'] for run in found]):.0f}",
            show_quantiles([run["virtual_s"] for run in found], format_seconds),
            ""
            if found[0]["staleness"]["mean"] is None
            else f"{np.mean([r['staleness']['mean'] for r in found]):.2f}",
            f"{np.mean(aucs):.3f}" if aucs else "",
        ]
        lines.append(row(cells))
    return lines


def _clients(clients: Mapping[str, Any], runs: Runs) -> list[str]:
    name = "fedgrpo" if "fedgrpo" in clients else next(iter(clients))
    domains = list(clients[name][0][0]["accuracy_by_domain"])
    lines = head(
        "domain",
        "best client",
        "second best",
        "server, start",
        "FedGRPO (floored), end",
        "its gain",
        "Central-GRPO, end",
    )
    gains = {domain: _shown_gain(runs[name], domain) for domain in domains}
    for domain in domains:
        ranked = [
            sorted((client["accuracy_by_domain"][domain] or 0.0 for client in seed), reverse=True)
            for seed in clients[name]
        ]
        cells = [
            domain,
            show(interval([best for best, *_ in ranked])),
            show(interval([seed[1] for seed in ranked])) if len(ranked[0]) > 1 else "",
            show(_by_domain(runs[name], domain, "initial")),
            show(_by_domain(runs[name], domain, "final")),
            f"{gains[domain]:+.3f}",
            show(_by_domain(runs["central_grpo"], domain, "final")) if "central_grpo" in runs else "",
        ]
        lines.append(row(cells))
    total = sum(gains.values())
    if total <= 0 or len(domains) < 2:
        return lines
    one, other = sorted(gains, key=lambda domain: -gains[domain])[:2]
    fell = ", ".join(f"{domain} ({gains[domain]:+.3f})" for domain in domains if gains[domain] < 0) or "none"
    return [
        *lines,
        "",
        f"Domains apart: {one} and {other} carry {(gains[one] + gains[other]) / total:.0%} of the gain summed over the "
        f"{len(domains)} domains; domains that fall: {fell}. A gain is the difference of the two columns as they are shown.",
    ]


def _by_domain(runs: Sequence[Mapping[str, Any]], domain: str, when: str) -> Interval:
    return interval([run["accuracy"]["by_domain"][domain][when] for run in runs])


def _shown_gain(runs: Sequence[Mapping[str, Any]], domain: str) -> float:
    start, end = (_by_domain(runs, domain, when)["mean"] or 0.0 for when in ("initial", "final"))
    return round(round(end, 3) - round(start, 3), 3)


def main(arguments: list[str] | None = None) -> int:
    """Command line: the comparisons' folders and the page to write."""

    def page() -> Path:
        usage = "analysis.controls CONTROLS_FOLDER [OVERHEAD_FOLDER] PAGE"
        controls, *overhead, place = paths(arguments, usage, 2, 3)
        return write(controls, place, *overhead)

    return exit_code(page)


if __name__ == "__main__":
    sys.exit(main())
