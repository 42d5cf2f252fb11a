"""What follows from a scenario's settings alone: devices, questions, availability, edges, faults, roles; each made once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim import protocols
from fedsim.errors import ScenarioError
from fedsim.experiment import billed
from fedsim.federation.handlers import Handler
from fedsim.federation.hostile import Roles, roles_of, sends_rewards
from fedsim.federation.text_lengths import TextLengths
from fedsim.models.timing.tasks import task_data
from fedsim.sim.devices import availability, correlate, population
from fedsim.sim.devices.presence import StatedAvailability
from fedsim.sim.faults.config import REWARD_KINDS, check_server_link
from fedsim.sim.faults.plan import Faults
from fedsim.sim.network import wire
from fedsim.sim.network.edges import EdgeTree, edge_tree
from fedsim.tasks.questions import TaskData

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

_DEPENDS_ON: Mapping[str, frozenset[str]] = {
    "drawn": frozenset(),
    "devices": frozenset({"correlate"}),
    "data": frozenset({"fidelity"}),
    "presence_scores": frozenset({"correlate"}),
    "availability": frozenset({"correlate", "availability"}),
    "edges": frozenset({"correlate"}),
    "handlers": frozenset({"protocol"}),
}
"""Which of the settings that `Prepared.varied` changes a part depends on; parts that are not named are made anew."""


class Prepared:
    """The parts of a run that need no model and no clock, each made when it is first asked for, and then kept.

    Checks look at the parts before anything is trained or written, and the run uses the very same.

    Args:
        scenario: the settings.
        cache_dir: where trained models and generated questions are kept; None: the user's cache folder.
    """

    def __init__(self, scenario: Scenario, cache_dir: Path | str | None = None) -> None:
        self.scenario = scenario
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    def varied(self, **settings: Any) -> Prepared:
        """The same with other settings; parts that are there and do not depend on what differs are handed on.

        Clients are dealt alike in both fidelities, so that devices and availability are the same there.
        """
        other = Prepared(self.scenario.model_copy(update=settings), self.cache_dir)
        changed = {key for key, value in settings.items() if getattr(self.scenario, key) != value}
        for part, keys in _DEPENDS_ON.items():
            if part in vars(self) and not keys & changed:
                vars(other)[part] = vars(self)[part]
        return other

    @cached_property
    def anchored(self) -> Scenario:
        """The scenario with absolute paths."""
        return self.scenario.anchored()

    @cached_property
    def handlers(self) -> Mapping[type[wire.Message], Handler]:
        """What clients answer to."""
        return protocols.handlers(self.scenario.protocol)

    @cached_property
    def drawn(self) -> population.Population:
        """The K devices as they are drawn, or read from ``clients.file``.

        Raises:
            DataFileError: the file is missing or wrong.
        """
        return population.draw(self.scenario.clients, self.scenario.seed, self.scenario.folder)

    @property
    def num_clients(self) -> int:
        """K."""
        return len(self.drawn)

    @cached_property
    def data(self) -> TaskData:
        """Questions and who owns them; numbered texts in timing fidelity, where there is no file of the user's own.

        Raises:
            InputError: as for `fedsim.tasks.dataset.build`.
        """
        scenario, tasks = self.scenario, self.scenario.tasks
        if tasks.file is not None:
            tasks = tasks.model_copy(update={"file": str(scenario.folder / tasks.file)})
        if scenario.fidelity == "timing":
            return task_data(tasks, self.num_clients, scenario.seed)
        from fedsim.models.cache import cache_folder
        from fedsim.tasks import dataset

        kept_in = cache_folder(self.cache_dir) / "questions"
        return dataset.build(tasks, self.num_clients, scenario.seed, kept_in)

    @cached_property
    def devices(self) -> population.Population:
        """The device of every client: as drawn, or dealt by what clients own (``correlate.speed``).

        Raises:
            ScenarioError: ``correlate.of`` is none of the domains.
        """
        config = self.scenario.correlate
        if config is None or config.speed is None:
            return self.drawn
        table = (self.data.partition, self.data.domains)
        return correlate.deal_devices(config, self.drawn, *table, self.scenario.seed)

    @cached_property
    def presence_scores(self) -> list[float] | None:
        """How often each client is there by what it owns (``correlate.availability``); None where it is drawn.

        Raises:
            ScenarioError: ``correlate.of`` is none of the domains.
        """
        config = self.scenario.correlate
        if config is None or config.availability is None:
            return None
        return correlate.presence_scores(config, self.data.partition, self.data.domains, self.scenario.seed)

    @cached_property
    def availability(self) -> StatedAvailability:
        """When devices are there, faults apart.

        Raises:
            DataFileError: the trace file is missing or wrong.
        """
        scenario = self.scenario
        horizon_s = scenario.limits.virtual
        return availability.availability(
            scenario.availability, scenario.seed, scenario.folder, self.presence_scores, horizon_s
        )

    @cached_property
    def edges(self) -> EdgeTree | None:
        """The edges and who stands behind which; None if there are none.

        Raises:
            InputError: the edges' file is wrong, or an edge names a client or class that there is not.
        """
        config = self.scenario.network.edges
        if config is None:
            return None
        return edge_tree(config, self.scenario.seed, self.devices.classes, self.scenario.folder)

    @cached_property
    def faults(self) -> Faults | None:
        """The faults on purpose; None if there are none.

        Raises:
            ScenarioError: a fault of a client, a class or a reply that there is not, or of a link without a limit.
        """
        scenario = self.scenario
        if not scenario.faults:
            return None
        for place, config in enumerate(scenario.faults):
            if config.kind in REWARD_KINDS and not sends_rewards(self.handlers):
                raise ScenarioError(
                    f"faults.{place}.kind is {config.kind!r}, but under these settings no client of protocol "
                    f"{scenario.protocol.name} sends rewards; choose another kind, or protocol fedgrpo with wire scores_up"
                ).at("faults", place, "kind")
        check_server_link(scenario.faults, scenario.network.server_link)
        return Faults(scenario.faults, scenario.seed, self.devices.classes)

    @cached_property
    def roles(self) -> Roles:
        """Who is hostile, and how.

        Raises:
            ScenarioError: as for `fedsim.federation.hostile.roles_of`.
        """
        return roles_of(self.scenario.hostile, self.num_clients, self.scenario.seed, self.handlers)

    @cached_property
    def lengths(self) -> TextLengths | None:
        """The stated lengths of texts; None where every text is as long as it is."""
        return billed.stated_lengths(self.scenario)
