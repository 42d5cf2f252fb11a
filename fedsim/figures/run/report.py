"""Write a run's figures, and an index that shows them with the run's main numbers."""

from __future__ import annotations

from pathlib import Path

from fedsim.figures.page import FigureSpec, table_row, write_page
from fedsim.figures.run.confidence import confidence_graph, write_graphml
from fedsim.figures.run.learning import learning
from fedsim.figures.run.partition import partition
from fedsim.figures.run.timeline import device_timeline
from fedsim.figures.run.traffic import traffic
from fedsim.records.run import Run, load
from fedsim.records.summary import summary_lines

FIGURES: tuple[FigureSpec[Run], ...] = (
    FigureSpec(
        "learning",
        learning,
        "Accuracy and mean reward of the server's policy against virtual time and against bytes, in both "
        "accounts: everything on the wire in both directions, and the paper's count of uplink payload.",
        "the policy was not measured and no reward came (timing fidelity measures neither)",
    ),
    FigureSpec(
        "device_timeline",
        device_timeline,
        "What each device did when, in virtual time.",
        "no device was asked for anything",
    ),
    FigureSpec(
        "traffic",
        traffic,
        "Bytes by direction and account, and their shares by fate and by purpose.",
        "nothing was sent",
    ),
    FigureSpec(
        "confidence_graph",
        confidence_graph,
        "The confidence graph: one question, its nearest exemplars, and who answered those correctly. "
        "All of it stands in confidence_graph.graphml beside this page.",
        "the run has no confidence graph, or no question in it (timing fidelity has none: who answers rightly is made up)",
    ),
    FigureSpec("partition", partition, "Private rows per client and domain.", "the run has no partition"),
)


def write_report(folder: Path | str) -> list[Path]:
    """Draw every figure of a run into its ``figures/`` (`write_page`); returns the files, the index last.

    Raises:
        RunFolderError: the folder is not a whole run.
    """
    run = load(folder)
    title = f"{run.manifest.get('name', run.folder.name)}, seed {run.manifest.get('seed')}"
    said = summary_lines(run.summary if run.measures else {**run.summary, "fidelity": "timing"})
    rows = "".join(map(table_row, said))
    return [*write_graphml(run), *write_page(FIGURES, run, title, f"<table>{rows}</table>")]
