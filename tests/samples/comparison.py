"""Hand-made comparisons: run folders with the given validation curves and bytes, and the ``comparison.json`` over them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.records.log import RecordLog
from fedsim.records.rows import Evaluation, Transfer
from fedsim.records.run import write_results
from fedsim.records.run_folder import RunFolder
from fedsim.records.summary import SummaryContext, summarise
from fedsim.sim import streams
from fedsim.sweeps.compare.file import Comparison, PlannedRun, open_comparison


@dataclass(frozen=True)
class Fake:
    """One method: its validation accuracy at version 0, 10, 20 ... and its bytes per ten updates."""

    name: str
    curve: Sequence[float] = (0.3, 0.35, 0.4)
    down_bytes: int = 2_000_000
    up_bytes: int = 500_000
    paper_bytes: int = 200_000
    wasted: float = 0.1
    step_s: float = 10.0
    measured: bool = True
    test_gain: float | None = None
    bill_as: Any = None
    fidelity: str = "real"


def write(folder: Path, fakes: Sequence[Fake], seeds: Sequence[int] = (0, 1, 2), **document: Any) -> Path:
    """Write a comparison of these methods; a method's curve and bytes shift a little from seed to seed."""
    runs = []
    for fake in fakes:
        for seed in seeds:
            place = f"runs/{fake.name}-{seed}"
            write_run(folder / place, fake, seed)
            runs.append({"variant": fake.name, "seed": seed, "folder": place})
    variants = [{"name": fake.name, "protocol": "fedgrpo"} for fake in fakes]
    content = {"name": "made", "seeds": list(seeds), "level": 0.95, "variants": variants, "runs": runs}
    (folder / "comparison.json").write_text(json.dumps(content | document))
    return folder


def write_run(folder: Path, fake: Fake, seed: int) -> None:
    """One run of a method: at instant i step_s it has sent i portions and looked at the validation questions."""
    log = RecordLog()
    shift = 0.02 * streams.normal(fake.name, seed) if seed else 0.0
    grows = 1 + 0.1 * (streams.uniform(fake.name, "bytes", seed) if seed else 0.0)
    for place, greedy in enumerate(fake.curve):
        at_s = place * fake.step_s
        if place:
            _portion(log, fake, at_s, grows)
        if fake.measured:
            log.add(_look(10 * place, at_s, "validation", greedy + shift))
    if fake.measured or fake.test_gain is not None:
        gain = fake.curve[-1] - fake.curve[0] if fake.test_gain is None else fake.test_gain
        log.add(_look(0, 0.0, "test", fake.curve[0]))
        log.add(_look(10 * len(fake.curve) - 10, at_s, "test", fake.curve[0] + gain + shift))
    run_folder = RunFolder.create(folder, fake.name[:60], seed)
    write_results(run_folder, log, summarise(log, SummaryContext("fedgrpo", seed, at_s, 1.0, "updates")))
    scenario: Mapping[str, Any] = {"fidelity": fake.fidelity, "models": {"bill_as": fake.bill_as}}
    run_folder.finish("finished", scenario=scenario)


def _portion(log: RecordLog, fake: Fake, at_s: float, grows: float) -> None:
    for fate, share in (("useful", 1 - fake.wasted), ("late", 0.4 * fake.wasted), ("cut", 0.6 * fake.wasted)):
        for direction, size in (("down", fake.down_bytes), ("up", fake.up_bytes)):
            wire_bytes = round(size * share * grows)
            paper = round(fake.paper_bytes * share * grows) if direction == "up" and fate != "cut" else 0
            if wire_bytes:
                log.add(
                    Transfer(
                        request_id=0, client_id=0, direction=direction, purpose="question", fate=fate,
                        start_at_s=at_s - 1, end_at_s=at_s, message_bytes=wire_bytes, wire_bytes=wire_bytes,
                        paper_bytes=paper,
                    )
                )  # fmt: skip


def _look(version: int, at_s: float, split: str, greedy: float) -> Evaluation:
    return Evaluation(
        policy_version=version, at_s=at_s, split=split, greedy=greedy, pass_at_1=greedy, pass_at_8=greedy,
        entropy=1.0, kl_to_initial=0.0, num_questions=500,
    )  # fmt: skip


LONG = "fedpetuning-sft-factor-averaging-weighted-by-rows-rank-16"


def many(count: int) -> list[Fake]:
    """So many methods of every kind: bytes over six decades, some that send nothing, some with long names."""
    fakes = []
    for place in range(count):
        draw = [streams.uniform("many", place, part) for part in range(4)]
        sent = 0 if place % 5 == 1 else int(2_000 * 10 ** (5 * draw[0]))
        rise = 0.25 * draw[1] - 0.05
        fakes.append(
            Fake(
                name=f"{LONG[: 14 + int(44 * draw[2])]}-{place}" if place % 3 == 2 else f"method_{place}",
                curve=tuple(0.3 + rise * step / (1 + step) for step in range(8)),
                down_bytes=sent,
                up_bytes=sent // 3,
                paper_bytes=sent // 9,
                wasted=0.3 * draw[3],
                step_s=0.0 if place == 6 else 60 * 10 ** (2 * draw[3]),
                test_gain=rise * 0.9,
            )
        )
    return fakes


def read_comparison(
    source: Path | str, seeds: Sequence[int] | None = None
) -> tuple[Comparison, list[PlannedRun]]:
    """A comparison file and every run in it, resolved; those of its grid too."""
    opened = open_comparison(source, seeds)
    opened.grid()
    return opened.comparison, opened.runs()
