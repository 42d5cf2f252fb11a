"""How the runs of a stress sweep ended: kept beside the run, well ended or not.

A run's folder lies in the store under its key as soon as its run has ended: one that failed inside is as reproducible as
one that finished. `ENDING` in it says how it ended; a folder without it is torn and is made again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fedsim.records.run_folder import write_json
from fedsim.sweeps.workers import Planned, Report

ENDING = "ending.json"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: ``finished``, ``failed`` inside the simulated world, or ``refused`` before it began."""

    status: Literal["finished", "failed", "refused"]
    reason: str
    wall_s: float


def ending(folder: Path) -> Ending | None:
    """How a kept run ended; None if there is none, or its folder is torn."""
    try:
        return Ending(**json.loads((folder / ENDING).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class EveryEnding:
    """The rules of a sweep: every run that has ended is a result."""

    def is_kept(self, folder: Path) -> bool:
        """Whether it says how it ended."""
        return ending(folder) is not None

    def keep(self, run: Planned, report: Report, store: Path) -> None:
        """Keep it, with how it ended."""
        unfinished = store / f"{run.key}.unfinished"
        found = Ending(report["status"], report["reason"], report["wall_s"])
        unfinished.mkdir(exist_ok=True)  # a run that is refused early has none
        write_json(unfinished / ENDING, asdict(found))
        unfinished.rename(store / run.key)
