"""fedsim: an asyncio, event-driven simulator of federated foundation models; its home protocol is FedGRPO.

    run = fedsim.run(fedsim.read_scenario("quickstart"))
    run.metrics                       # a polars frame
    fedsim.draw(run)                  # figures/ in its folder
    fedsim.load("runs/quickstart-0-1")

Names are imported on first use (PEP 562), so that ``import fedsim`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedsim.experiment.forecast.estimate import estimate
    from fedsim.experiment.run import run
    from fedsim.figures.draw import draw
    from fedsim.records.run import Run, load
    from fedsim.scenario.read import read_scenario, scenario_from
    from fedsim.scenario.schema import Scenario

__version__ = "0.2.0"
__all__ = [
    "Run",
    "Scenario",
    "__version__",
    "draw",
    "estimate",
    "load",
    "read_scenario",
    "run",
    "scenario_from",
]

_HOMES = {
    "Run": "fedsim.records.run",
    "Scenario": "fedsim.scenario.schema",
    "draw": "fedsim.figures.draw",
    "estimate": "fedsim.experiment.forecast.estimate",
    "load": "fedsim.records.run",
    "read_scenario": "fedsim.scenario.read",
    "run": "fedsim.experiment.run",
    "scenario_from": "fedsim.scenario.read",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
