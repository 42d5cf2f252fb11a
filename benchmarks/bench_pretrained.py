"""What makes an update of a pretrained model affordable: packed batches, shared layers, threads; each as a ratio in one run.

    python benchmarks/bench_pretrained.py [--pairs 5] [--updates 3] [--variants 6]

The job is that of scenarios/skills.yaml: 16 questions x 8 candidates x at most 8 tokens, scored by one client, on SmolLM2-135M
with adapters of rank 16 on layers 15 to 29. Every variant does the same updates from the same start, in a process of its own;
pairs alternate. Wall and processor seconds an update are printed with their ratio to the plain variant (one thread, packed).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "packed, 1 thread": {},
    "packed, 2 threads": {"threads": 2},
    "half of the questions, alone": {"questions": 8},
    "half of the questions, twice at once": {"questions": 8, "at_once": 2},
    "layers not shared": {"shared": False},
    "filled batches": {"packs": False, "shared": False},
}


def updates(threads: int, questions: int, shared: bool, packs: bool, count: int) -> dict[str, float]:
    """Do some updates and return wall and processor seconds of each, without the first (which warms up)."""
    import numpy as np
    import torch

    from fedsim.experiment.prepared import Prepared
    from fedsim.models.interfaces import Draw
    from fedsim.models.real.bundle import load_models
    from fedsim.scenario.read import read_scenario

    scenario = read_scenario(ROOT / "scenarios" / "skills.yaml", ())
    data = Prepared(scenario).data
    bundle = load_models(scenario.models, scenario.protocol, data, scenario.seed)
    torch.set_num_threads(threads)
    policy, scorer = bundle.policy, bundle.evaluators[0]
    for language in (policy.language, policy.initial, *(one.language for one in bundle.evaluators)):
        language.packs = packs
        language.shared = language.shared if shared else None
    took, used = [], []
    for update in range(count + 1):
        first = update * questions
        draws = [
            Draw(first + place, data.pool[(first + place) % len(data.pool)]) for place in range(questions)
        ]
        started, busy = time.perf_counter(), time.process_time()
        groups = policy.sample(draws)
        gains = []
        for group in groups:
            scorer.expect(group.draw.question.text, group.texts)
        for group in groups:
            rewards = np.array(scorer.likelihood(group.draw.question.text, group.texts))
            gains.append((rewards - rewards.mean()) / (rewards.std() + 1e-2))
        policy.update(groups, gains)
        took.append(time.perf_counter() - started)
        used.append(time.process_time() - busy)
    return {"wall_s": sum(took[1:]) / count, "processor_s": sum(used[1:]) / count}


def measured(settings: dict[str, object], count: int) -> dict[str, float]:
    """The same in processes of their own; of several at once the slowest."""
    given = {"threads": 1, "questions": 16, "shared": True, "packs": True, "count": count} | settings
    at_once = int(str(given.pop("at_once", 1)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(given["threads"])}
    command = [sys.executable, str(Path(__file__)), "--child", json.dumps(given)]
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) for _ in range(at_once)
    ]
    found = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    return {
        "wall_s": max(one["wall_s"] for one in found),
        "processor_s": sum(one["processor_s"] for one in found),
    }


def main() -> None:
    """Alternate the variants and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--variants", type=int, default=len(VARIANTS), help="the first so many")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(updates(**json.loads(given.child))))
        return
    variants = dict(list(VARIANTS.items())[: given.variants])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for pair in range(given.pairs):
        for name, settings in variants.items():
            found[name].append(measured(settings, given.updates))
            print(f"pair {pair + 1}: {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    base = found["packed, 1 thread"]
    print(f"{'variant':40s} wall s  processor s  wall ratio (least to most)")
    for name, runs in found.items():
        ratios = [own["wall_s"] / plain["wall_s"] for own, plain in zip(runs, base, strict=True)]
        wall, busy = (median(run[key] for run in runs) for key in ("wall_s", "processor_s"))
        print(
            f"{name:40s} {wall:6.2f}  {busy:11.2f}  {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
