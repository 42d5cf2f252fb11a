"""``fedsim.draw`` and ``fedsim figures``: the figures of whatever fedsim has left in a folder."""

from __future__ import annotations

from pathlib import Path

from fedsim.errors import RunFolderError
from fedsim.figures.compare.report import write_comparison_report
from fedsim.figures.run.report import write_report
from fedsim.figures.stress.report import write_stress_report
from fedsim.records.run import Run
from fedsim.sweeps.compare import run as sweep
from fedsim.sweeps.stress import run as stress

_PAGES = {sweep.MARKER: write_comparison_report, stress.MARKER: write_stress_report}


def draw(source: Run | Path | str) -> list[Path]:
    """Draw the figures of a run, a comparison or a stress sweep into its ``figures/``, in place of those that are there.

    Args:
        source: a run, or the folder of a run, of a comparison or of a sweep. A run that failed or was interrupted has figures
            as soon as it has records.

    Returns:
        The files written, ``index.html`` last.

    Raises:
        RunFolderError: the folder is none of these, what it is of has not ended, or nothing can be written into it.
    """
    folder = source.folder if isinstance(source, Run) else Path(source)
    write = next((page for marker, page in _PAGES.items() if (folder / marker).is_file()), write_report)
    try:
        return write(folder)
    except OSError as error:
        raise RunFolderError(f"{error.filename or folder}: {error.strerror or error}") from error
