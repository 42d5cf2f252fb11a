"""What a process that performs runs is asked for: one run, from a file into a folder, and how it ended."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError, InputError, InvariantViolation, RequestError, ScenarioError


def perform(order: dict[str, Any]) -> dict[str, Any]:
    """Run one order's scenario into its folder, and report how it ended; the records are those of ``fedsim run``.

    Args:
        order: ``{"scenario": file, "out": folder, "cache_dir": folder or null}``.

    Returns:
        ``{"status": "finished" | "failed" | "refused", "reason": one line or "", "wall_s": real seconds}``: ``failed`` if the
        run went wrong inside the simulated world (nobody left to ask, a deadlock, a limit), which is a result; ``refused`` if
        the scenario asks for what cannot be, found before the run began.

    Raises:
        InputError, RequestError, InvariantViolation: the run is no result: a file cannot be read, or there is a bug.
    """
    from fedsim.config.yaml import parse
    from fedsim.experiment import run as experiment
    from fedsim.scenario.read import scenario_from

    started_at_wall_s = time.perf_counter()
    status, reason = "finished", ""
    try:
        path = Path(order["scenario"])
        # Without the lines of a file that nobody wrote: what is refused is told by its key.
        scenario = scenario_from(parse(path.read_bytes(), str(path)).data, path.parent)
        experiment.run(scenario, out=order["out"], cache_dir=order.get("cache_dir"))
    except ScenarioError as error:
        status, reason = "refused", str(error)
    except (InputError, RequestError, InvariantViolation):
        raise
    except FedsimError as error:
        status, reason = "failed", f"{type(error).__name__}: {error}"
    wall_s = time.perf_counter() - started_at_wall_s
    return {"status": status, "reason": " ".join(reason.split()), "wall_s": wall_s}
