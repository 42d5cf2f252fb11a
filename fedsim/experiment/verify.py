"""``fedsim verify``: is a run folder what its scenario gives? Computed again, or replayed from its tape.

On a machine like its own the whole run is computed again, and every record, every number of the summary and the final policy's
tensors must be the same. Elsewhere last bits differ: there the timeline is replayed from the recorded results, which must give
the same records on any machine, and the results are computed beside it to see how far they drift.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from fedsim.errors import RunFolderError
from fedsim.experiment.checks import refuse_early
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.replay.blobs import BLOBS, Blobs
from fedsim.experiment.replay.origin import other_platform, other_program, scenario_of
from fedsim.experiment.replay.recorded_models import RecordedModels
from fedsim.experiment.replay.tape import TAPE, Tape
from fedsim.experiment.run import simulate, summary_of
from fedsim.experiment.simulation import Simulation
from fedsim.models.client_training_config import LocalTrainingConfig
from fedsim.models.interfaces import Components
from fedsim.progress import Progress, SilentProgress
from fedsim.records.log import RecordLog
from fedsim.records.rows import RECORD_TYPES
from fedsim.records.run_folder import plain

if TYPE_CHECKING:
    from fedsim.records.run import Run

How = Literal["recomputed", "replayed"]
_UNREPEATABLE = ("wall_s",)  # numbers of a summary that are no sums over records


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out.

    Attributes:
        how: whether models computed again, or spoke from the tape.
        why: why it was not recomputed (None if it was).
        differences: what is not as recorded, one line each; empty means that the run repeats.
        drift: lines about results that were computed beside a replay.
        other: in what the program or the machine differs although it was recomputed (None: in nothing).
    """

    how: How
    why: str | None
    differences: tuple[str, ...]
    drift: tuple[str, ...] = ()
    other: str | None = None


def verify(
    folder: Path | str,
    *,
    how: How | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Repeat a finished run and compare.

    Args:
        folder: the run's folder; it may have been copied from anywhere, and nothing is written into it.
        how: ``recomputed`` or ``replayed``; default: recomputed where program and machine are the run's own.
        cache_dir: where trained models are kept.
        progress: where progress is shown; default nowhere.

    Raises:
        RunFolderError: no finished run, one that ended by real time, or one whose tape is missing or does not fit.
    """
    from fedsim.records.run import load

    run = load(folder)
    if run.manifest["status"] != "finished":
        raise RunFolderError(f"{folder} is {run.manifest['status']}; only a finished run can be verified")
    scenario = scenario_of(run.manifest, run.folder)
    if run.summary["stopped_by"] == "wall":
        raise RunFolderError(f"{folder}: the run was ended by real time (stop.wall), which nobody can repeat")
    shown, prepared = progress or SilentProgress(), refuse_early(scenario, cache_dir)
    why = other_program(run.manifest) or other_platform(run.manifest)
    chosen: How = how or ("recomputed" if why is None else "replayed")
    if chosen == "recomputed" or scenario.fidelity == "timing":
        differences = tuple(_recomputed(run, prepared, shown))
        return Verdict("recomputed", None, differences, other=why)
    return _replayed(run, prepared, shown, why)


def _recomputed(run: Run, prepared: Prepared, progress: Progress) -> Iterator[str]:
    components = load_components(prepared, progress)
    for name, known in run.manifest["model_hashes"].items():
        if components.hashes.get(name) != known:
            yield f"the weights of {name} at the start are others"
    log, summary = _played(prepared, components, progress)
    yield from _told(run, log, summary)
    if components.save is not None:
        with TemporaryDirectory() as folder:
            components.save(Path(folder))
            for path in sorted(Path(folder).glob("*.safetensors")):
                kept = run.folder / "policy" / path.name
                if not kept.is_file() or kept.read_bytes() != path.read_bytes():
                    yield f"policy/{path.name}: the final policy's tensors are others"


def _replayed(run: Run, prepared: Prepared, progress: Progress, why: str | None) -> Verdict:
    tape = run.folder / TAPE
    if not tape.is_file():
        raise RunFolderError(f"{run.folder} has no {TAPE}, so its results cannot be replayed")
    if isinstance(prepared.scenario.protocol, LocalTrainingConfig):
        raise RunFolderError(
            f"{run.folder}: the weights that clients sent were dropped when the run had finished, so it cannot be replayed; it "
            "can be recomputed on a machine like its own (--how recomputed)"
        )
    length = tape.stat().st_size

    def refuse() -> Components:
        raise RunFolderError(f"{tape}: the tape ends before the run; it was cut short")

    def played(tape: Tape, load: Callable[[], Components]) -> tuple[RecordLog, dict[str, Any]]:
        blobs = Blobs(run.folder / BLOBS, keep=False)
        recorded = RecordedModels(tape, blobs, None, run.manifest["model_hashes"], load)
        return _played(prepared, load_components(prepared, progress, recorded), progress)

    log, summary = played(Tape(tape, upto=length, keep=False), refuse)
    differences = tuple(_told(run, log, summary))
    drift = Drift()
    shadowed = Tape(tape, shadow=drift.add, keep=False)
    played(shadowed, lambda: load_components(prepared, progress))
    return Verdict("replayed", why, differences, tuple(drift.lines()))


def _played(
    prepared: Prepared, components: Components, progress: Progress
) -> tuple[RecordLog, dict[str, Any]]:
    log = RecordLog()
    with progress.phase("verification", prepared.scenario.stop.updates) as phase:
        simulation = Simulation(prepared, components, log, phase)
        ending = simulate(simulation)
    return log, summary_of(log, simulation, ending.virtual_s, ending.stopped_by, time.monotonic())


def _told(run: Run, log: RecordLog, summary: Mapping[str, Any]) -> Iterator[str]:
    if log.sha256() != run.summary["records_sha256"]:
        yield first_difference(run, log)
    for key, value in plain(summary).items():
        if key not in (*_UNREPEATABLE, "records_sha256") and run.summary.get(key) != value:
            yield f"summary.{key} was {run.summary.get(key)}, now {value}"


def first_difference(run: Run, log: RecordLog) -> str:
    """The first record, in virtual time, that is not as recorded."""
    from fedsim.records.parquet import FILES, frame

    found: list[tuple[float, str]] = []
    for kind in RECORD_TYPES:
        name = FILES[kind]
        recorded, repeated = run.records[name], frame(kind, log.of(kind))
        if recorded.equals(repeated):
            continue
        both = min(len(recorded), len(repeated))
        place = next(
            (row for row in range(both) if not recorded[row].equals(repeated[row])),
            both,
        )
        was = recorded.row(place, named=True) if place < len(recorded) else {}
        now = repeated.row(place, named=True) if place < len(repeated) else {}
        fields = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        text = "; ".join(f"{key} was {was.get(key)}, now {now.get(key)}" for key in fields)
        found.append((_instant(was or now), f"{name}, row {place}: {text}"))
    if not found:
        return "the records are the same, but not in the same order"
    return f"the first record that differs: {min(found)[1]}"


def _instant(row: Mapping[str, Any]) -> float:
    times = [float(value) for key, value in row.items() if key.endswith("at_s") and value is not None]
    return max(times, default=0.0)


@dataclass
class Drift:
    """How far results computed here are from those on the tape, by kind of call."""

    counts: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    largest: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, kind: str, recorded: Any, computed: Any) -> None:
        """One call."""
        import msgspec

        encode = msgspec.msgpack.encode  # bytes, for NaN equals itself there
        ours = msgspec.msgpack.decode(encode(computed))
        self.counts[kind][0] += 1
        self.counts[kind][1] += encode(recorded) != encode(ours)
        for was, now in zip(_numbers(recorded), _numbers(ours), strict=False):
            self.largest[kind] = max(self.largest[kind], abs(was - now))

    def lines(self) -> Iterator[str]:
        """One line a kind."""
        for kind, (calls, differing) in sorted(self.counts.items()):
            farthest = f", numbers differ by at most {self.largest[kind]:.3g}" if differing else ""
            yield f"{kind}: {differing} of {calls} results differ{farthest}"


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, bool | str | bytes) or value is None:
        return
    if isinstance(value, int | float):
        if value == value:
            yield float(value)
        return
    for part in value.values() if isinstance(value, Mapping) else value:
        yield from _numbers(part)
