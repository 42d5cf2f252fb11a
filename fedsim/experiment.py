"""The one place that wires scenario -> world -> protocol -> results.

Nothing heavy is imported before the run folder and its manifest exist; torch is imported only when fidelity is real.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim import accounts, casting, correlate, invariants, protocols
from fedsim.billing import statement
from fedsim.casting import Cast, ClientAccuracy
from fedsim.clock import run as run_on_virtual_time
from fedsim.detection import detection_of, short
from fedsim.devices import availability, population
from fedsim.devices.population import Population
from fedsim.errors import Deadlock, FederationError, FedsimError, InputError, LimitExceeded, ScenarioError
from fedsim.hostile import roles_of
from fedsim.play import Play, edges_of, faults_of, limits_of
from fedsim.preflight import beside, check_files
from fedsim.privacy import reward_ledger
from fedsim.progress import Progress, SilentProgress
from fedsim.protocols.boundary import BOUNDARIES
from fedsim.records import RecordLog
from fedsim.runfolder import CONFIDENCE_GRAPH, DETECTION, SUMMARY, RunFolder
from fedsim.scenario_errors import located
from fedsim.states import ClientState
from fedsim.stragglers.config import StragglerConfig, refuse_shortage
from fedsim.summary import SummaryContext, summarise
from fedsim.tasks import dataset, domains

if TYPE_CHECKING:
    from fedsim.results import Run
    from fedsim.scenario import Scenario


@located
def run(
    scenario: Scenario,
    *,
    out: Path | str | None = None,
    cache_dir: Path | str | None = None,
    progress: Progress | None = None,
    figures: bool = True,
) -> Run:
    """Run a scenario and return its results, which also lie in the run folder.

    Args:
        scenario: what to run (``fedsim.scenario.load``).
        out: exactly the folder to write; default ``runs/<name>-<seed>-<n>``.
        cache_dir: where trained models are kept; default the user's cache folder (``FEDSIM_CACHE``).
        progress: where progress is shown; default nowhere.
        figures: whether to draw ``figures/``.

    Raises:
        InputError: the scenario names something that cannot be used, or the folder is taken; no folder is left behind.
        FederationError: the federation cannot do what the protocol asks.
        Deadlock, LimitExceeded, InvariantViolation: see ``fedsim.errors``.
        KeyboardInterrupt: interrupted; what was recorded until then is in the folder.
    """
    devices = refuse_early(scenario)
    anchored = scenario.anchored()
    folder = RunFolder.create(Path(out) if out is not None else None, scenario.name, scenario.seed)
    folder.update(scenario=scenario.resolved())
    try:
        interrupted = _run_in(folder, anchored, devices, cache_dir, progress or SilentProgress(), figures)
    except InputError as error:
        if (folder.path / SUMMARY).exists():
            folder.finish("failed", error=f"{type(error).__name__}: {error}")
        else:
            folder.discard()  # it never began: nothing is lost, and nothing stands in the way of the next try
        raise
    except KeyboardInterrupt:
        folder.finish("interrupted")
        raise
    except BaseException as error:
        folder.finish("failed", error=f"{type(error).__name__}: {error}")
        raise
    if interrupted:
        folder.finish("interrupted")
        raise KeyboardInterrupt
    folder.finish("finished")
    from fedsim.results import load

    return load(folder.path)


def refuse_early(scenario: Scenario) -> Population:
    """The clients of a run, if it can begin: nothing is written before all that is cheap to know was looked at.

    Raises:
        InputError: the scenario, or a file that it names, asks for what cannot be.
        FederationError: no device can hold the model that it is billed as.
    """
    check_files(scenario)
    devices = population.draw(scenario.clients, scenario.seed, scenario.folder)
    check(scenario, len(devices))
    accounts.check_memory(scenario, devices)
    faults_of(scenario, devices)
    edges_of(scenario, devices)
    if scenario.fidelity == "real" and scenario.tasks.file is not None:
        dataset.build(beside(scenario.tasks, scenario.folder), len(devices), scenario.seed)
    return devices


def _run_in(
    folder: RunFolder,
    scenario: Scenario,
    devices: Population,
    cache_dir: Path | str | None,
    progress: Progress,
    figures: bool,
) -> bool:
    started_at_wall_s = time.monotonic()
    gc.set_threshold(100_000, 50, 100)
    if scenario.fidelity == "timing":
        cast = casting.stand_ins(scenario, len(devices))
    else:
        cast = casting.real_models(scenario, len(devices), cache_dir, progress)
    folder.update(model_hashes=dict(cast.hashes))
    folder.write_partition(cast.data.domains, cast.data.partition.tolist())
    log = RecordLog()
    accuracy = ClientAccuracy(cast)
    with progress.phase("federation", scenario.stop.updates) as phase:
        play = Play(scenario, devices, cast, log, phase, accuracy)
        try:
            ending = run_on_virtual_time(
                play.main, max_virtual_s=scenario.limits.virtual, max_events=scenario.limits.events
            )
        except FedsimError as error:
            failed_at_s = play.federation.now_s()
            in_the_world = isinstance(error, Deadlock | FederationError | LimitExceeded)
            if in_the_world:
                play.federation.close_books(error)
            play.federation.log_presence(failed_at_s)
            play.log_faults(failed_at_s)
            _write_results(folder, log, _summary(log, play, failed_at_s, "error", started_at_wall_s))
            if in_the_world:
                invariants.check(log, play.federation.carried_bytes, limits=limits_of(scenario.protocol))
            raise
    invariants.check(log, play.federation.carried_bytes, limits=limits_of(scenario.protocol))
    summary = _summary(log, play, ending.virtual_s, ending.stopped_by, started_at_wall_s)
    with progress.phase("results", None):
        _write(folder, log, summary, play, cast, accuracy, figures)
    return ending.interrupted


def check(scenario: Scenario, num_clients: int) -> None:
    """Refuse what can never happen before anything is trained.

    Too few clients, an unknown domain, a stop that cannot come, a deadline that no device can meet.
    """
    stop = scenario.stop
    if scenario.fidelity == "timing" and all(
        end is None for end in (stop.updates, stop.virtual, stop.wire_bytes, stop.wall)
    ):
        raise ScenarioError(
            "stop.accuracy is never met with fidelity: timing; add another stop condition, e.g. updates"
        ).at("stop")
    if scenario.fidelity == "real" and scenario.tasks.file is None:
        domains.check_names(scenario.tasks.options)
    if scenario.tasks.file is None:
        correlate.refuse_unknown_domain(scenario.correlate, list(scenario.tasks.options))
    availability.availability(scenario.availability, scenario.seed, scenario.folder)  # reads a trace
    wanted = getattr(scenario.protocol, "num_experts", 1)
    if getattr(scenario.protocol, "experts", None) != "all" and wanted > num_clients:
        raise ScenarioError(
            f"protocol.num_experts is {wanted}, but there are {num_clients} clients; must be at most {num_clients}"
        ).at("protocol", "num_experts")
    roles_of(scenario.hostile, num_clients, scenario.seed, protocols.handlers(scenario.protocol))
    policy = getattr(scenario.protocol, "stragglers", None)
    if isinstance(policy, StragglerConfig):
        cohort_size = getattr(scenario.protocol, "cohort_size", None)
        refuse_shortage(policy, cohort_size, num_clients)
    from fedsim.foresight import request_times  # it plays with stand-ins, so it stands above this module

    request_times.check_deadline(scenario)


def _summary(
    log: RecordLog, play: Play, virtual_s: float, stopped_by: str, started_at_wall_s: float
) -> dict[str, Any]:
    detection = detection_of(play.scenario, play.state.artefacts, play.roles)
    return summarise(
        log,
        SummaryContext(
            protocol=play.scenario.protocol.name,
            seed=play.scenario.seed,
            virtual_s=virtual_s,
            wall_s=time.monotonic() - started_at_wall_s,
            stopped_by=stopped_by,
            initial_by_domain=play.monitor.by_domain.get(0, {}),
            final_by_domain=play.monitor.by_domain.get(play.monitor.policy.version, {}),
            candidate_correct=play.monitor.correct,
            billed=statement(play.scenario.models, play.scenario.text),
            privacy=privacy_of(play.scenario, play.states),
            detection=None if detection is None else short(detection),
        ),
    )


def privacy_of(scenario: Scenario, states: Sequence[ClientState]) -> dict[str, Any] | None:
    """What a run's wire variant lets out, and what the noise promises for the whole run; None where no boundary is declared."""
    variant: Any = getattr(scenario.protocol, "wire", None)
    boundary = BOUNDARIES.get(variant)
    if boundary is None:
        return None
    noises = [state.noise for state in states if state.noise is not None]
    return reward_ledger.statement(
        boundary.variant,
        boundary.is_private,
        boundary.says,
        noises,
        evaluator_promise(scenario),
        any(state.trusted for state in states),
    )


def evaluator_promise(scenario: Scenario) -> reward_ledger.Promise | None:
    """What DP-SGD promises for every client's model, or None if they are trained plainly."""
    settings = scenario.models.client_privacy
    return None if settings is None else reward_ledger.Promise(settings.epsilon, settings.delta)


def _write(
    folder: RunFolder,
    log: RecordLog,
    summary: Mapping[str, Any],
    play: Play,
    cast: Cast,
    accuracy: ClientAccuracy,
    figures: bool,
) -> None:
    _write_results(folder, log, summary)
    clients = [
        {"client_id": client_id, "device_class": client.device_class, "accuracy_by_domain": row}
        for client_id, (client, row) in enumerate(zip(play.federation, _rows(cast, accuracy), strict=True))
    ]
    folder.write_json("clients.json", clients)
    if cast.synthesiser is not None:
        folder.write_json("privacy.json", cast.synthesiser.report())
    noises = [state.noise for state in play.states if state.noise is not None]
    if noises:
        folder.write_json("privacy.json", reward_ledger.ledger(noises, evaluator_promise(play.scenario)))
    detection = detection_of(play.scenario, play.state.artefacts, play.roles)
    if detection is not None:
        folder.write_json(DETECTION, detection)
    if "averaging" in play.state.artefacts:
        folder.write_json("averaging.json", play.state.artefacts["averaging"]())
    if "confidence_graph" in play.state.artefacts:
        from fedsim.selection.confidence_graph import write_graphml

        write_graphml(play.state.artefacts["confidence_graph"](), folder.path / CONFIDENCE_GRAPH)
    if cast.save is not None:
        cast.save(folder.path / "policy")
    if figures:
        from analysis import report

        report.write_report(folder.path)


def _write_results(folder: RunFolder, log: RecordLog, summary: Mapping[str, Any]) -> None:
    from fedsim.results import write_results

    write_results(folder, log, summary)


def _rows(cast: Cast, accuracy: ClientAccuracy) -> list[dict[str, float]]:
    return [dict(zip(cast.data.domains, row, strict=True)) for row in accuracy().tolist()]
