"""The one place that wires scenario -> world -> protocol -> results.

Nothing heavy is imported before the run folder and its manifest exist; torch is imported only when fidelity is real.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim import protocols
from fedsim.config.validation import located
from fedsim.errors import (
    Deadlock,
    FederationError,
    FedsimError,
    InputError,
    LimitExceeded,
    RunFolderError,
    RunInterrupted,
)
from fedsim.experiment.billed import statement
from fedsim.experiment.build import limits_of
from fedsim.experiment.checks import refuse_early
from fedsim.experiment.detection import detection_of, short
from fedsim.experiment.journal import Journal
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.simulation import RunEnd, Simulation
from fedsim.privacy import reward_ledger
from fedsim.progress import Progress, SilentProgress
from fedsim.protocols.shared.boundary import BOUNDARIES
from fedsim.protocols.shared.monitor import same_models
from fedsim.records import invariants
from fedsim.records.log import RecordLog
from fedsim.records.provenance import source_hash
from fedsim.records.run_folder import CONFIDENCE_GRAPH, DETECTION, RunFolder
from fedsim.records.summary import SummaryContext, summarise
from fedsim.sim.clock import run as run_on_virtual_time
from fedsim.tasks.sources import kept_files

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.scenario.schema import Scenario


@located
def run(
    scenario: Scenario,
    *,
    out: Path | str | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run a scenario and return its results, which also lie in the run folder.

    Args:
        scenario: what to run (`fedsim.scenario.read.read_scenario`).
        out: exactly the folder to write; default ``runs/<name>-<seed>-<n>``.
        cache_dir: where trained models are kept; default the user's cache folder (``FEDSIM_CACHE``).
        progress: where progress is shown; default nowhere.

    Raises:
        InputError: the scenario names something that cannot be used, or the folder is taken; no folder is left behind.
        FederationError: the federation cannot do what the protocol asks.
        Deadlock, LimitExceeded, InvariantViolation: see ``fedsim.errors``.
        RunInterrupted: interrupted; the folder holds what was recorded until then, and `fedsim.experiment.resume` goes
            on with it.
    """
    prepared = refuse_early(scenario, cache_dir)
    plugins, purposes = protocols.plugins_of(scenario.protocol.name), protocols.purposes(scenario.protocol)
    folder = RunFolder.create(Path(out) if out is not None else None, scenario.name, scenario.seed)
    folder.update(scenario=scenario.resolved(), code=source_hash(), plugins=plugins, purposes=purposes)
    return perform(folder, prepared, progress or SilentProgress())


def perform(folder: RunFolder, prepared: Prepared, progress: Progress) -> Run:
    """Run a scenario to its end in a folder that this process owns; see `run`."""
    try:
        interrupted = _run_in(folder, prepared, progress)
    except KeyboardInterrupt:
        folder.finish("interrupted")
        raise RunInterrupted(folder.path) from None
    except (RunFolderError, OSError) as error:
        # The disk is full, or gone: the run is not at fault, and can be resumed. Where not even this can be written,
        # the manifest says that it is running, which can be resumed as well.
        with contextlib.suppress(OSError):
            folder.finish("interrupted", error=str(error))
        if isinstance(error, OSError):
            where = error.filename or folder.path
            reason = error.strerror or error
            raise RunFolderError(f"{where}: {reason}; what was written before is whole") from error
        raise
    except InputError as error:
        if folder.manifest.get("lives", 1) > 1:  # what an earlier life has left is worth keeping
            folder.finish("interrupted", error=str(error))
        else:  # whoever corrects the scenario can give the same folder again
            folder.discard()
        raise
    except BaseException as error:
        folder.finish("failed", error=f"{type(error).__name__}: {error}")
        raise
    if interrupted:
        folder.finish("interrupted")
        raise RunInterrupted(folder.path)
    folder.finish("finished")
    from fedsim.records.run import load

    return load(folder.path)


def _run_in(folder: RunFolder, prepared: Prepared, progress: Progress) -> bool:
    started_at_wall_s = time.monotonic()
    scenario = prepared.scenario
    if not folder.manifest["inputs"]:
        files = prepared.anchored.input_files()
        folder.keep_inputs(files, {key: kept_files(path) for key, path in files.items() if path.is_dir()})
    journal = Journal(folder, prepared, progress)
    with contextlib.closing(journal):
        components, log = journal.components(), journal.log
        folder.write_partition(components.data.domains, components.data.partition.tolist())
        with progress.phase("federation", scenario.stop.updates) as phase:
            simulation = Simulation(prepared, components, log, phase, journal.seal)
            try:
                ending = simulate(simulation)
            except FedsimError as error:
                if not hasattr(simulation, "federation"):  # the world could not be built: no books to close
                    raise
                failed_at_s = simulation.federation.now_s()
                in_the_world = isinstance(error, Deadlock | FederationError | LimitExceeded)
                if in_the_world:
                    simulation.federation.close_books(error)
                simulation.federation.log_presence(failed_at_s)
                simulation.log_faults(failed_at_s)
                _write_results(
                    folder, log, summary_of(log, simulation, failed_at_s, "error", started_at_wall_s)
                )
                if in_the_world:
                    invariants.check(
                        log, simulation.federation.carried_bytes, limits=limits_of(scenario.protocol)
                    )
                raise
        invariants.check(log, simulation.federation.carried_bytes, limits=limits_of(scenario.protocol))
        summary = summary_of(log, simulation, ending.virtual_s, ending.stopped_by, started_at_wall_s)
        with progress.phase("results", None):
            _write(folder, log, summary, simulation)
    if not ending.interrupted:
        journal.drop()
    return ending.interrupted


def simulate(simulation: Simulation) -> RunEnd:
    """Simulate a run to its end on virtual time, within the scenario's limits."""
    limits = simulation.scenario.limits
    return run_on_virtual_time(simulation.main, max_virtual_s=limits.virtual, max_events=limits.events)


def summary_of(
    log: RecordLog, simulation: Simulation, virtual_s: float, stopped_by: str, started_at_wall_s: float
) -> dict[str, Any]:
    """The summary of a run that has ended at this instant of virtual time."""
    detection = detection_of(simulation.scenario, simulation.state.artefacts, simulation.prepared.roles)
    return summarise(
        log,
        SummaryContext(
            protocol=simulation.scenario.protocol.name,
            seed=simulation.scenario.seed,
            virtual_s=virtual_s,
            wall_s=time.monotonic() - started_at_wall_s,
            stopped_by=stopped_by,
            fidelity=simulation.scenario.fidelity,
            initial_by_domain=simulation.monitor.by_domain.get(0, {}),
            final_by_domain=simulation.monitor.by_domain.get(simulation.monitor.policy.version, {}),
            candidate_correct=simulation.monitor.correct,
            billed=statement(simulation.scenario.models, simulation.scenario.text),
            privacy=privacy_of(simulation),
            detection=None if detection is None else short(detection),
            warnings=warnings_of(simulation),
            purposes=protocols.purposes(simulation.scenario.protocol),
        ),
    )


def warnings_of(simulation: Simulation) -> list[str]:
    """A line for each way in which a run could teach nothing."""
    module = protocols.load(simulation.scenario.protocol.name)
    own = getattr(module, "CLIENT_RUNS", "clients") == "clients"
    same = same_models(simulation.components.hashes) if own and simulation.prepared.handlers else []
    return [*same, *simulation.monitor.learnability.warnings()]


def privacy_of(simulation: Simulation) -> dict[str, Any] | None:
    """What a run's wire variant lets out, and what the noise promises for the whole run; None where no boundary is declared."""
    variant: Any = getattr(simulation.scenario.protocol, "wire", None)
    boundary = next((one for name, one in BOUNDARIES.items() if name == variant), None)
    if boundary is None or not boundary.holds(protocols.handlers(simulation.scenario.protocol)):
        return None
    return reward_ledger.statement(
        boundary.variant,
        boundary.is_private,
        boundary.description,
        simulation.noises(),
        evaluator_promise(simulation.scenario),
        any(simulation.components.data.trusted),
    )


def evaluator_promise(scenario: Scenario) -> reward_ledger.Promise | None:
    """What DP-SGD promises for every client's model, or None if they are trained plainly."""
    settings = scenario.models.client_privacy
    return None if settings is None else reward_ledger.Promise(settings.epsilon, settings.delta)


def _write(folder: RunFolder, log: RecordLog, summary: Mapping[str, Any], simulation: Simulation) -> None:
    _write_results(folder, log, summary)
    components, rows = simulation.components, _rows(simulation)
    clients = [
        {"client_id": client_id, "device_class": device_class, "accuracy_by_domain": row}
        for client_id, (device_class, row) in enumerate(
            zip(simulation.federation.device_classes, rows, strict=True)
        )
    ]
    folder.write_json("clients.json", clients)
    if components.synthesiser is not None:
        folder.write_json("privacy.json", components.synthesiser.report())
    noises = simulation.noises()
    if noises:
        folder.write_json(
            "privacy.json", reward_ledger.ledger(noises, evaluator_promise(simulation.scenario))
        )
    detection = detection_of(simulation.scenario, simulation.state.artefacts, simulation.prepared.roles)
    if detection is not None:
        folder.write_json(DETECTION, detection)
    if "averaging" in simulation.state.artefacts:
        folder.write_json("averaging.json", simulation.state.artefacts["averaging"]())
    if "confidence_graph" in simulation.state.artefacts and simulation.scenario.measures:
        folder.write_json(CONFIDENCE_GRAPH, simulation.state.artefacts["confidence_graph"]())
    if components.save is not None:
        components.save(folder.path / "policy")


def _write_results(folder: RunFolder, log: RecordLog, summary: Mapping[str, Any]) -> None:
    from fedsim.records.run import write_results

    write_results(folder, log, summary)


def _rows(simulation: Simulation) -> list[dict[str, float | None]]:
    """Every client's accuracy by domain; null where its answers would be made up."""
    data = simulation.components.data
    if not simulation.scenario.measures:
        return [dict.fromkeys(data.domains) for _ in data.partition]
    return [dict(zip(data.domains, row, strict=True)) for row in simulation.client_accuracy().tolist()]
