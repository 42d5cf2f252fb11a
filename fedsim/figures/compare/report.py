"""Write the page of figures of a comparison, and an index that shows them with the main numbers of every method.

Data goes in from the run folders alone, through ``fedsim.figures.compare.runs``.
"""

from __future__ import annotations

import html
from pathlib import Path

from fedsim.config.units import format_bytes, format_seconds
from fedsim.figures.compare.axes import said_of_all
from fedsim.figures.compare.bytes import compare_bytes
from fedsim.figures.compare.curves import compare_curves_bytes, compare_curves_time
from fedsim.figures.compare.front import compare_front
from fedsim.figures.compare.runs import ComparisonRuns, Method, read
from fedsim.figures.compare.target import compare_target
from fedsim.figures.page import FigureSpec, table_row, write_page
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.stats import QUANTILES, interval, show_quantiles

COMPARISON_FIGURES: tuple[FigureSpec[ComparisonRuns], ...] = (
    FigureSpec(
        "compare_bytes",
        compare_bytes,
        "Bytes to the end of the run per method, in both accounts. Totals stand as marks on a logarithmic axis; because "
        "a stack on such an axis misleads, direction and fate are shown as shares on linear axes beside it.",
        "there is no method",
    ),
    FigureSpec(
        "compare_curves_bytes",
        compare_curves_bytes,
        "Validation accuracy against cumulative bytes: everything on the wire, and the paper's count of uplink payload.",
        "no method has validation accuracy in every seed (timing fidelity has none)",
    ),
    FigureSpec(
        "compare_curves_time",
        compare_curves_time,
        "Validation accuracy against virtual time.",
        "no method has validation accuracy in every seed (timing fidelity has none)",
    ),
    FigureSpec(
        "compare_target",
        compare_target,
        "Bytes and virtual time until a validation accuracy is reached, run by run; runs that never reach it are censored "
        "at what they had spent.",
        "no method has validation accuracy in every seed, or there is no target because none gained",
    ),
    FigureSpec(
        "compare_front",
        compare_front,
        "Gain on the test questions against bytes on the wire, and the front of methods that no other beats in both.",
        "no method has test accuracy (timing fidelity has none)",
    ),
)


def write_comparison_report(folder: Path | str) -> list[Path]:
    """Draw a comparison's figures into its ``figures/`` (`write_page`); returns the files, the index last.

    Raises:
        RunFolderError: the folder is not a finished comparison.
    """
    comparison = read(folder)
    notes = [*said_of_all(comparison), f"Virtual time: {QUANTILES}"]
    if comparison.target is not None:
        notes.append(
            f"Target: {comparison.target.validation_greedy:.3f} greedy accuracy on validation questions "
            f"({comparison.target.origin})."
        )
    notes += comparison.cautions
    rows = "\n".join(table_row(_cells(method)) for method in comparison.methods)
    intro = (
        "".join(f"<p>{html.escape(note)}</p>\n" for note in notes)
        + f"<table>\n{table_row(_COLUMNS, 'th')}\n{rows}\n</table>"
    )
    return write_page(COMPARISON_FIGURES, comparison, f"Comparison {comparison.name}", intro)


_COLUMNS = (
    "name", "in figures", "protocol", "leaves the clients", "seeds", "test greedy, end", "gain", "paper, uplink",
    "wire, uplink", "wire, downlink", "virtual time", "billed as",
)  # fmt: skip


def _cells(method: Method) -> tuple[str, ...]:
    finals = [run.summary["accuracy"]["greedy"]["final"] for run in method.runs]
    return (
        method.name,
        method.label,
        method.protocol,
        "not recorded" if method.leaves is None else ", ".join(method.leaves) or "nothing",
        str(len(method.runs)),
        show(interval(finals)),
        show(method.gains(), signed=True),
        *(
            format_bytes(float(method.total(account, way)["mean"] or 0.0))
            for account, way in (("paper", "up"), ("wire", "up"), ("wire", "down"))
        ),
        show_quantiles([run.summary["virtual_s"] for run in method.runs], format_seconds),
        method.billed or "itself",
    )
