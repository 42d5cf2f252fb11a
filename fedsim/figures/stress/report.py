"""Draw the heat maps of a stress sweep, and an index that shows them with where it broke.

Data goes in from ``stress.json`` alone, through ``fedsim.figures.stress.runs``.
"""

from __future__ import annotations

import html
from functools import partial
from pathlib import Path

from fedsim.figures.page import FIGURES_FOLDER, FigureSpec, draw_figures
from fedsim.figures.stress.maps import stress_map
from fedsim.figures.stress.runs import Sweep, read_sweep
from fedsim.figures.stress.why import stress_why
from fedsim.records.run_folder import write_atomically


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
    """Draw a sweep's figures into its ``figures/`` as PNG and SVG, with an ``index.html``.

    A figure for which the sweep has nothing is left out, what an earlier sweep left under its name is removed, and the index
    says why.

    Returns:
        The files written, the index last.

    Raises:
        RunFolderError: the folder is not a finished sweep.
    """
    sweep = read_sweep(folder)
    written, sections = draw_figures(STRESS_FIGURES, sweep)
    index = sweep.folder / FIGURES_FOLDER / "index.html"
    return [*written, write_atomically(index, _page(sweep, sections).encode())]


def _page(sweep: Sweep, sections: list[str]) -> str:
    title = html.escape(f"Stress sweep {sweep.name}")
    runs = sum(sum(point["statuses"].values()) for point in sweep.points)
    finished = sum(point["statuses"].get("finished", 0) for point in sweep.points)
    reasons = sorted({reason for point in sweep.points for reason in point["reasons"]})
    listed = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        '<body style="max-width:60em;margin:auto;font-family:sans-serif">\n'
        f"<h1>{title}</h1>\n<p>{len(sweep.points)} points, {runs} runs, {finished} finished. Tables: stress.md, why.md, "
        "stress.csv, why.csv, domains.csv in the folder above.</p>\n"
        + (f"<p>What ended the others:</p><ul>{listed}</ul>\n" if reasons else "")
        + "\n".join(sections)
        + "\n</body></html>\n"
    )
