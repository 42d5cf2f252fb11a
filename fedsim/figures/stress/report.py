"""Draw the heat maps of a stress sweep, and an index that shows them with where it broke.

Data goes in from ``stress.json`` alone, through ``fedsim.figures.stress.runs``.
"""

from __future__ import annotations

import html
from functools import partial
from pathlib import Path

from fedsim.figures.page import FigureSpec, write_page
from fedsim.figures.stress.maps import stress_map
from fedsim.figures.stress.runs import Sweep, read_sweep
from fedsim.figures.stress.why import stress_why
from fedsim.records.summary import TIMING


def _map(name: str, caption: str, missing: str) -> FigureSpec[Sweep]:
    return FigureSpec(f"stress_{name}", partial(stress_map, name=name), caption, missing)


STRESS_FIGURES: tuple[FigureSpec[Sweep], ...] = (
    _map("time", "Virtual time until a run had done what it was asked to.", "no run finished"),
    _map(
        "time_per_reward",
        "Virtual time to finish per usable reward: one of a group that was trained on.",
        "no run finished with usable rewards",
    ),
    _map("won", "Share of seeds in which no other was faster; equals share a win.", "no pairs finished"),
    _map(
        "won_per_reward",
        "Share of seeds in which no other needed less time per usable reward.",
        "no pairs finished with usable rewards",
    ),
    _map("accuracy", "Greedy accuracy on the test questions at the end.", "timing fidelity has no accuracy"),
    _map("rewards", "Rewards that came in time, of those that were wanted.", "no run asked for rewards"),
    _map("wasted", "Share of the wire's bytes, both ways, that served nothing.", "nothing was sent"),
    _map("groups_lost", "Share of question groups that were not trained on.", "no run has question groups"),
    _map("bytes", "Bytes on the wire, both ways.", "nothing was sent"),
    FigureSpec("stress_why", stress_why, "Why rewards were lost, and whose groups.", "no reward was lost"),
)


def write_stress_report(folder: Path | str) -> list[Path]:
    """Draw a sweep's figures into its ``figures/`` (`write_page`); returns the files, the index last.

    Raises:
        RunFolderError: the folder is not a finished sweep.
    """
    sweep = read_sweep(folder)
    runs = sum(sum(point["statuses"].values()) for point in sweep.points)
    finished = sum(point["statuses"].get("finished", 0) for point in sweep.points)
    reasons = sorted({reason for point in sweep.points for reason in point["reasons"]})
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    intro = (
        f"<p>{len(sweep.points)} points, {runs} runs, {finished} finished. Tables: stress.md, why.md, "
        "stress.csv, why.csv, domains.csv in the folder above.</p>"
        + (f"\n<p>Fidelity {TIMING}.</p>" if sweep.fidelity == "timing" else "")
        + (f"\n<p>What ended the others:</p><ul>{items}</ul>" if reasons else "")
    )
    return write_page(STRESS_FIGURES, sweep, f"Stress sweep {sweep.name}", intro)
