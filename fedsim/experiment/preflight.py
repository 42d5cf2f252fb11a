"""Before a run: every file that its scenario names is read, so that one that is wrong is told before anything is written.

Nothing heavy is imported: weights are looked at by their headers, not loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.config.validation import located
from fedsim.errors import ModelFileError
from fedsim.models.config import FolderModel, is_config_file
from fedsim.models.folder import check_folder
from fedsim.sim.devices import availability, population
from fedsim.sim.devices.architecture import spec_from_file
from fedsim.sim.network.edges import read_edges
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.files import read_questions

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


class CheckedFiles:
    """`check_files` for the many scenarios of a comparison or a sweep, which mostly name the same files."""

    def __init__(self) -> None:
        self._seen: set[tuple[str | None, ...]] = set()

    def check(self, scenario: Scenario) -> None:
        """Read the files that no scenario before has named in the same way.

        Raises:
            DataFileError, ModelFileError: as for `check_files`.
        """
        named = _files_of(scenario)
        if named not in self._seen:
            check_files(scenario)
            self._seen.add(named)


def _files_of(scenario: Scenario) -> tuple[str | None, ...]:
    models, edges = scenario.models, scenario.network.edges
    sources = [getattr(source, "path", None) for source in (models.server, models.clients)]
    billed = [None, None] if models.bill_as is None else [models.bill_as.server, models.bill_as.clients]
    edge_file = None if edges is None else edges.file
    files = [
        scenario.clients.file,
        getattr(scenario.availability, "file", None),
        edge_file,
        scenario.tasks.file,
    ]
    length = str(getattr(scenario.availability, "length", None))
    return (str(scenario.folder), scenario.fidelity, length, *files, *billed, *sources)


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
        read_questions(folder / scenario.tasks.file)
    bill_as = scenario.models.bill_as
    for side in ("server", "clients"):
        if bill_as is not None and is_config_file(getattr(bill_as, side)):
            _told_at("bill_as", spec_from_file, folder / getattr(bill_as, side))
        source = getattr(scenario.models, side)
        if isinstance(source, FolderModel) and scenario.fidelity == "real":
            _told_at(side, check_folder, folder / source.path)
            if bill_as is None:
                _told_at(side, spec_from_file, folder / source.path / "config.json")


def _told_at(key: str, look: Callable[[Path], object], path: Path) -> None:
    try:
        look(path)
    except ModelFileError as error:
        raise error.at("models", key) from None


def resolve_against(tasks: TasksConfig, folder: Path) -> TasksConfig:
    """The same settings with the path of their own questions as seen from here."""
    return tasks if tasks.file is None else tasks.model_copy(update={"file": str(folder / tasks.file)})
