"""``fedsim.draw`` and ``fedsim figures``: the figures of whatever fedsim has left in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedsim.errors import RunFolderError
from fedsim.figures.compare.report import write_comparison_report
from fedsim.figures.run.report import write_report
from fedsim.figures.stress.report import write_stress_report
from fedsim.records.run import Run
from fedsim.records.run_folder import read_manifest
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
    try:
        return page_of(folder)(folder)
    except OSError as error:
        raise RunFolderError(f"{error.filename or folder}: {error.strerror or error}") from error


def page_of(folder: Path) -> Callable[[Path], list[Path]]:
    """What draws the figures of a folder.

    Raises:
        RunFolderError: it is no folder of a run, of a comparison or of a sweep.
    """
    for marker, page in _PAGES.items():
        if (folder / marker).is_file():
            return page
    read_manifest(folder)
    return write_report
