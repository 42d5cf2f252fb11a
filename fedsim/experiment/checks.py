"""What is refused before anything is trained or written: a scenario that cannot be run as it stands, or a file that is wrong.

Every file that a scenario names is read. Nothing heavy is imported: weights are looked at by their headers, not loaded; where
there is a deadline, the protocol plays with stand-ins for a moment.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.config.validation import located
from fedsim.errors import ModelFileError, ScenarioError
from fedsim.experiment import billed, request_times
from fedsim.experiment.build import refuse_more_clients
from fedsim.experiment.prepared import Prepared
from fedsim.federation.stragglers.config import StragglerConfig, refuse_shortage
from fedsim.models.config import is_config_file
from fedsim.models.folder import check_folder
from fedsim.models.sources import FolderModel
from fedsim.processes import gc_policy
from fedsim.sim.devices import availability, correlate, population
from fedsim.sim.devices.architecture import spec_from_file
from fedsim.sim.network.edges import read_edges
from fedsim.tasks import domains
from fedsim.tasks.files import read_questions

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


def refuse_early(scenario: Scenario, cache_dir: Path | str | None = None) -> Prepared:
    """What a run is made of beside models, after everything that can be refused before they are trained was looked at.

    Raises:
        InputError, FederationError: as for `fedsim.experiment.run.run`.
    """
    gc.set_threshold(*gc_policy.THRESHOLDS[scenario.fidelity])
    prepared = Prepared(scenario, cache_dir)
    _check_model_files(scenario, prepared)
    _check_names(scenario)
    refuse_more_clients(scenario, prepared.num_clients, f"there are {prepared.num_clients} clients")
    parts = ["availability", "roles", "faults", "edges"]
    if scenario.tasks.file is not None or scenario.fidelity == "timing":
        parts.append("data")  # generated questions of a real run wait for its progress
    for part in parts:
        getattr(prepared, part)  # each refuses what cannot be when it is made
    policy = getattr(scenario.protocol, "stragglers", None)
    if isinstance(policy, StragglerConfig):
        refuse_shortage(policy, getattr(scenario.protocol, "cohort_size", None), prepared.num_clients)
    billed.check_memory(scenario, prepared.drawn)
    request_times.check_deadline(prepared)
    return prepared


def _check_names(scenario: Scenario) -> None:
    """Refuse an unknown domain, and a stop that cannot come."""
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


class CheckedFiles:
    """`check_files` for the many scenarios of a comparison or a sweep, which mostly name the same files."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def check(self, scenario: Scenario) -> None:
        """Read the files that no scenario before has named in the same way.

        Raises:
            DataFileError, ModelFileError: as for `check_files`.
        """
        named = _files_of(scenario)
        if named not in self._seen:
            check_files(scenario)
            self._seen.add(named)


def _files_of(scenario: Scenario) -> str:
    models = scenario.models
    folders = [getattr(source, "path", None) for source in (models.server, models.clients)]
    length = getattr(scenario.availability, "length", None)
    tasks = None if scenario.tasks.file is None else scenario.tasks
    return repr(
        (scenario.folder, scenario.fidelity, length, scenario.input_files(), tasks, models.bill_as, folders)
    )


@located
def check_files(scenario: Scenario) -> None:
    """Read every file that a scenario names, and keep nothing of it.

    Raises:
        DataFileError: a question, device, trace or GraphML file is missing or wrong.
        ModelFileError: a model folder or an architecture's ``config.json`` cannot be used.
    """
    folder = scenario.folder
    if scenario.clients.file is not None:
        population.draw(scenario.clients, scenario.seed, folder)
    if getattr(scenario.availability, "file", None) is not None:
        availability.availability(scenario.availability, scenario.seed, folder)
    edges = scenario.network.edges
    if edges is not None and edges.file is not None:
        read_edges(folder / edges.file)
    if scenario.tasks.file is not None:
        read_questions(folder / scenario.tasks.file, scenario.tasks)
    _check_model_files(scenario, Prepared(scenario))


def _check_model_files(scenario: Scenario, prepared: Prepared) -> None:
    folder, bill_as = scenario.folder, scenario.models.bill_as
    for side in ("server", "clients"):
        if bill_as is not None and is_config_file(getattr(bill_as, side)):
            _told_at("bill_as", spec_from_file, folder / getattr(bill_as, side))
        source = getattr(scenario.models, side)
        if isinstance(source, FolderModel) and scenario.fidelity == "real":
            each = source.is_one_for_each_client
            for client_id in range(prepared.num_clients if each else 1):
                own = folder / source.folder_of(client_id)
                _told_at(side, check_folder, own)
                if bill_as is None:
                    _told_at(side, spec_from_file, own / "config.json")


def _told_at(key: str, look: Callable[[Path], object], path: Path) -> None:
    try:
        look(path)
    except ModelFileError as error:
        raise error.at("models", key) from None
