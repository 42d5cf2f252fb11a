"""The quick start's models, questions and settings, for benchmarks of real compute (trained once, then from the cache)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fedsim.experiment.prepared import Prepared
from fedsim.models.config import PolicyConfig
from fedsim.models.real.bundle import Bundle, load_models
from fedsim.scenario.read import read_scenario
from fedsim.tasks.questions import TaskData

NUM_CLIENTS = 8


@dataclass(frozen=True)
class QuickStart:
    """What ``scenarios/quickstart.yaml`` runs on, seed 0."""

    data: TaskData
    models: Bundle
    config: PolicyConfig
    seed: int


@cache
def quick_start() -> QuickStart:
    """Load it; the first time on a machine its nine models are trained, which takes minutes."""
    path = Path(__file__).resolve().parent.parent / "scenarios" / "quickstart.yaml"
    scenario = read_scenario(path)
    data = Prepared(scenario).data
    models = load_models(scenario.models, scenario.protocol, data, scenario.seed, threads=1)
    return QuickStart(data, models, scenario.protocol, scenario.seed)
