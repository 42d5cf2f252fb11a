"""``fedsim resume``: go on with a run that was interrupted or killed, to the very same end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.errors import RunFolderError
from fedsim.experiment.checks import refuse_early
from fedsim.experiment.replay.origin import other_platform, other_program, scenario_of
from fedsim.experiment.run import perform
from fedsim.progress import Progress, SilentProgress
from fedsim.records.run_folder import RunFolder

if TYPE_CHECKING:
    from fedsim.records.run import Run


def resume(
    folder: Path | str,
    *,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Finish a run, and return its results; of a finished run, return them.

    The timeline is played again from the tape up to the last checkpoint, and computed from there. Results and records that the
    earlier life left behind must come again; the first that differs is an error.

    Args:
        folder: the run's folder.
        cache_dir: where trained models are kept.
        progress: where progress is shown; default nowhere.

    Raises:
        RunFolderError: no run, a failed one, one of another program or machine, one that is being worked on, or one that
            does not repeat.
        RunInterrupted, FederationError, Deadlock, LimitExceeded: as for `fedsim.run`.
    """
    from fedsim.records.run import load
    from fedsim.records.run_folder import read_manifest

    path = Path(folder)
    manifest = read_manifest(path)
    if manifest["status"] == "finished":
        return load(path)
    if manifest["status"] == "failed":
        raise RunFolderError(
            f"{path}: the run failed, and would fail again ({manifest.get('error', 'no reason is given')})"
        )
    scenario = scenario_of(manifest, path)
    why = other_program(manifest) or other_platform(manifest)
    if why is not None:
        raise RunFolderError(
            f"{path}: the run cannot go on to the same end here: {why}; run its scenario again"
        )
    prepared = refuse_early(scenario, cache_dir)
    own = RunFolder.reopen(path)
    own.update(lives=own.manifest.get("lives", 1) + 1)
    return perform(own, prepared, progress or SilentProgress())
