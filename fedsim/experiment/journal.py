"""What one run keeps of itself while it goes on: tape, blobs, checkpoints and records, all in its folder.

A fresh run records. A resumed one plays the timeline again from the tape up to its last checkpoint, computes from there, and
compares what it makes with what was there already, results and records alike, until there is no more of it. Timing fidelity
needs no tape: there the timeline is everything.
"""

from __future__ import annotations

import contextlib
import shutil

from fedsim.errors import RunFolderError
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.replay.blobs import BLOBS, Blobs
from fedsim.experiment.replay.checkpoints import CHECKPOINTS, Checkpoints, latest
from fedsim.experiment.replay.diff import SameRecords, longest_spool
from fedsim.experiment.replay.recorded_models import RecordedModels
from fedsim.experiment.replay.tape import TAPE, Tape
from fedsim.models.interfaces import Components
from fedsim.progress import Progress
from fedsim.records.log import RecordLog
from fedsim.records.run_folder import RunFolder

SPOOL, OLD_SPOOL = "records.spool", "records.old.spool"


class Journal:
    """The records and models of one run that can be resumed.

    Args:
        folder: the run's folder; what an earlier life of the run left there is taken up.
        prepared: what is run.
        progress: where loading and training is shown.

    Raises:
        RunFolderError: what is there is damaged, or cannot be written.
    """

    def __init__(self, folder: RunFolder, prepared: Prepared, progress: Progress) -> None:
        self._folder = folder
        self._prepared = prepared
        self._progress = progress
        self._tape: Tape | None = None
        old = longest_spool(folder.path / OLD_SPOOL, folder.path / SPOOL)
        if old is not None and old.name == SPOOL:
            old = old.replace(folder.path / OLD_SPOOL)
        upto = folder.manifest.get("records_upto")
        spool = folder.path / SPOOL
        self._same = None if old is None else SameRecords(old, spool, upto)
        self.log = RecordLog(spool, self._same)

    def components(self) -> Components:
        """The run's components, whose models keep a tape (real fidelity)."""
        scenario, path = self._prepared.scenario, self._folder.path
        if scenario.fidelity == "timing":
            return load_components(self._prepared, self._progress)
        found = latest(path / CHECKPOINTS, path / TAPE)
        start, upto = found or (None, 0)
        self._tape = Tape(path / TAPE, upto=upto)

        def load() -> Components:
            components = load_components(self._prepared, self._progress)
            self._check_hashes(components)
            return components

        checkpoints = Checkpoints(path / CHECKPOINTS, scenario.compute.checkpoint_every, start)
        hashes = self._folder.manifest["model_hashes"]
        recorded = RecordedModels(self._tape, Blobs(path / BLOBS), checkpoints, hashes, load)
        if not upto:
            recorded.live()  # models are trained before the clock starts, so that a mistake in them shows now
        return load_components(self._prepared, self._progress, recorded)

    def seal(self) -> None:
        """The run was interrupted at this very event: what comes now belongs to no continued run.

        Raises:
            KeyboardInterrupt: the run was still replaying, and nothing new has happened that should be written.
        """
        if self._tape is not None and self._tape.replaying:
            raise KeyboardInterrupt
        if self._tape is not None:
            self._tape.seal()
        if self._same is not None:
            self._same.stop()
        self._folder.update(records_upto=self.log.num_bytes)

    def close(self) -> None:
        """Close the files; both also where the first cannot be written."""
        with contextlib.ExitStack() as files:
            files.callback(self.log.close)
            if self._tape is not None:
                files.callback(self._tape.close)

    def drop(self) -> None:
        """The run has finished: only the tape is kept, for `fedsim verify`."""
        path = self._folder.path
        for name in (BLOBS, CHECKPOINTS):
            shutil.rmtree(path / name, ignore_errors=True)
        for name in (SPOOL, OLD_SPOOL):
            (path / name).unlink(missing_ok=True)

    def _check_hashes(self, components: Components) -> None:
        """The models must be those with which the run began."""
        begun = self._folder.manifest["model_hashes"]
        if not begun:
            begun.update(components.hashes)
            self._folder.update(model_hashes=begun)
            return
        differing = sorted(name for name in begun if begun[name] != components.hashes.get(name))
        if differing:
            raise RunFolderError(
                f"{self._folder.path}: the weights of {differing[0]} are not those that the run began with, so it cannot go "
                "on; run its scenario again"
            )
