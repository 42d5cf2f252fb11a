"""Hand-made runs for the page on learning: looks, steps, groups and computations at chosen instants, and their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Evaluation, Group, Presence, Ratio, Transfer, Update
from fedsim.records.run import write_results
from fedsim.records.run_folder import RunFolder
from fedsim.records.summary import SummaryContext, summarise

BARRIER = {"protocol": {"update": {"schedule": "barrier"}}}
GROUP = {"protocol": {"update": {"schedule": "group"}}}
ROUNDS = {"protocol": {"schedule": {"kind": "rounds"}}}
BUFFERED = {"protocol": {"schedule": {"kind": "buffered"}}}


@dataclass(frozen=True)
class Made:
    """One run.

    Attributes:
        looks: (instant, validation accuracy) of versions 0, 1, 2 ...; a step of ``step_groups`` before each but the first.
        test: initial and final accuracy on the test questions, greedy; pass@1 is .1 below, pass@8 .1 above.
        server_s, device_s: how long the server and the one device computed, from 0 on.
        stale: groups too stale, beside the trained ones.
        ratios: rows of ``records/ratios.parquet``.
    """

    looks: Sequence[tuple[float, float]] = ((0.0, 0.3), (10.0, 0.35), (20.0, 0.4))
    test: tuple[float, float] = (0.3, 0.4)
    step_groups: int = 8
    step_bytes: int = 1000
    server_s: float = 5.0
    device_s: float = 10.0
    wait_s: float = 2.0
    stale: int = 0
    ratios: Sequence[Ratio] = ()
    scenario: Mapping[str, Any] = field(default_factory=lambda: BARRIER)
    summary: Mapping[str, Any] = field(default_factory=dict)


def compared(
    folder: Path,
    variants: Mapping[str, Sequence[Made]],
    seeds: Sequence[int] | None = None,
    name: str = "made",
) -> Path:
    """A finished comparison of these runs, one for each seed."""
    seeds = list(range(len(next(iter(variants.values()))))) if seeds is None else list(seeds)
    runs = []
    for variant, made in variants.items():
        for seed, one in zip(seeds, made, strict=True):
            place = f"runs/{variant}-{seed}"
            write_run(folder / place, one, seed)
            runs.append({"variant": variant, "seed": seed, "folder": place})
    document = {
        "name": name,
        "seeds": seeds,
        "variants": [{"name": variant, "tuned": None} for variant in variants],
        "runs": runs,
    }
    (folder / "comparison.json").write_text(json.dumps(document))
    return folder


def write_run(folder: Path, made: Made, seed: int) -> None:
    """One run's folder."""
    log = RecordLog()
    end_s = made.looks[-1][0] if made.looks else 20.0
    initial, final = made.test
    log.add(_look(0, 0.0, "test", initial))
    for version, (at_s, greedy) in enumerate(made.looks):
        if version:
            _step(log, made, version, at_s)
        log.add(_look(version, at_s, "validation", greedy))
    if not made.looks:
        _step(log, made, 1, end_s)
    for draw in range(made.stale):
        log.add(_group(10_000 + draw, end_s, made.wait_s, "too_stale"))
    log.add(_compute(-1, made.server_s))
    log.add(_compute(0, made.device_s))
    log.add(Presence(client_id=0, device_class="phone", start_at_s=0.0, end_at_s=end_s))
    log.add(_look(len(made.looks) or 1, end_s, "test", final))
    for row in made.ratios:
        log.add(row)
    run_folder = RunFolder.create(folder, "made", seed)
    summary = summarise(log, SummaryContext("fedgrpo", seed, end_s, 1.0, "updates"))
    write_results(run_folder, log, {**summary, **made.summary})
    run_folder.finish("finished", scenario=made.scenario, git_commit="0123456789abcdef")


def ratio(staleness: int, tokens: int, share: float, version: int = 1) -> Ratio:
    """A row of ratios whose numbers follow from ``share``."""
    return Ratio(
        policy_version=version, staleness=staleness, num_tokens=tokens, mean_ratio=1.0, effective_share=share,
        truncated_share=0.0, clip_fraction=1 - share, divergence=0.01 * staleness,
    )  # fmt: skip


def summary(final: Mapping[str, float], initial: float = 0.2, **entries: Any) -> dict[str, Any]:
    """A summary with these accuracies at the end and what the pages read beside them."""
    return {
        "accuracy": {name: {"initial": initial, "final": value} for name, value in final.items()}
        | {"num_questions": 2000},
        "bytes": {"wire": {"uplink": 1024, "downlink": 3 * 1024}},
        "clients": {"total": 8},
        "updates": 60,
        "virtual_s": 80.0,
        "records_sha256": json.dumps([final, initial]),
        **entries,
    }


def _step(log: RecordLog, made: Made, version: int, at_s: float) -> None:
    for place in range(made.step_groups):
        log.add(_group(100 * version + place, at_s, made.wait_s, "trained"))
    log.add(
        Transfer(
            request_id=version, client_id=0, direction="down", purpose="question", fate="useful", start_at_s=at_s,
            end_at_s=at_s, message_bytes=made.step_bytes, wire_bytes=made.step_bytes, paper_bytes=0,
        )
    )  # fmt: skip
    log.add(
        Update(
            policy_version=version, at_s=at_s, num_groups=made.step_groups, num_candidates=8 * made.step_groups,
            staleness_mean=0.5, staleness_max=2, loss=0.1, entropy=1.0, clip_fraction=0.0, grad_norm=1.0,
            reward_mean=0.5, zero_variance_share=0.0,
        )
    )  # fmt: skip


def _group(draw: int, at_s: float, wait_s: float, fate: str) -> Group:
    return Group(
        draw=draw, question_id=draw, domain="gcd", policy_version=0, dispatched_at_s=at_s - wait_s, completed_at_s=at_s,
        num_experts=2, num_answered=2, reward_mean=0.5, reward_std=0.1, zero_variance=False, correct=0.5, fate=fate,
    )  # fmt: skip


def _compute(client_id: int, end_s: float) -> Compute:
    return Compute(
        request_id=0, client_id=client_id, kind="question", start_at_s=0.0, end_at_s=end_s, flop=1.0, memory_bytes=1.0,
        energy_j=1.0, cut=False,
    )  # fmt: skip


def _look(version: int, at_s: float, split: str, greedy: float) -> Evaluation:
    has_samples = split == "test"
    return Evaluation(
        policy_version=version, at_s=at_s, split=split, greedy=greedy,
        pass_at_1=greedy - 0.1 if has_samples else float("nan"), pass_at_8=greedy + 0.1 if has_samples else float("nan"),
        entropy=0.7, kl_to_initial=0.25, num_questions=500,
    )  # fmt: skip
