"""Figures: each a function from a run to a matplotlib figure, or None where the run has nothing to draw.

``FIGURES`` is the explicit table of what ``analysis.report`` writes, in order, with captions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from analysis.figures.confidence import confidence_graph
from analysis.figures.learning import learning
from analysis.figures.partition import partition
from analysis.figures.timeline import device_timeline
from analysis.figures.traffic import traffic
from fedsim.results import Run


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """One figure of the report: its file name, how it is drawn, and what it shows."""

    name: str
    draw: Callable[[Run], Figure | None]
    caption: str


FIGURES: tuple[FigureSpec, ...] = (
    FigureSpec(
        "learning",
        learning,
        "Accuracy and mean reward of the server's policy against virtual time and against bytes, in both "
        "accounts: everything on the wire in both directions, and the paper's count of uplink payload.",
    ),
    FigureSpec(
        "traffic",
        traffic,
        "Bytes by direction and account, and their shares by fate and by purpose.",
    ),
    FigureSpec("device_timeline", device_timeline, "What each device did when, in virtual time."),
    FigureSpec(
        "confidence_graph",
        confidence_graph,
        "The confidence graph: one question, its nearest exemplars, and who answered those correctly.",
    ),
    FigureSpec("partition", partition, "Private rows per client and domain."),
)
