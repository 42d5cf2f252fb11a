"""What is refused before anything is trained or written: a scenario that cannot be run as it stands.

Nothing heavy is imported; where there is a deadline, the protocol plays with stand-ins for a moment.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from fedsim import protocols
from fedsim.errors import ScenarioError
from fedsim.experiment import billed
from fedsim.experiment.preflight import check_files, resolve_against
from fedsim.experiment.simulation import edges_of, faults_of
from fedsim.federation.hostile import roles_of
from fedsim.federation.stragglers.config import StragglerConfig, refuse_shortage
from fedsim.processes import gc_policy
from fedsim.sim.devices import availability, correlate, population
from fedsim.tasks import domains

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


def refuse_early(scenario: Scenario) -> population.Population:
    """The devices of a scenario, after everything that can be refused before models are trained was looked at.

    Raises:
        InputError, FederationError: as for `fedsim.experiment.run.run`.
    """
    gc.set_threshold(*gc_policy.THRESHOLDS[scenario.fidelity])
    check_files(scenario)
    devices = population.draw(scenario.clients, scenario.seed, scenario.folder)
    check(scenario, len(devices))
    billed.check_memory(scenario, devices)
    faults_of(scenario, devices)
    edges_of(scenario, devices)
    if scenario.fidelity == "real" and scenario.tasks.file is not None:
        from fedsim.tasks import dataset  # only own questions are built before the run

        dataset.build(resolve_against(scenario.tasks, scenario.folder), len(devices), scenario.seed)
    return devices


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
    partition = scenario.tasks.partition
    if partition.kind == "shared" and partition.holders > num_clients:
        raise ScenarioError(
            f"tasks.partition.holders is {partition.holders}, but there are {num_clients} clients; must be at most "
            f"{num_clients}"
        ).at("tasks", "partition", "holders")
    roles_of(scenario.hostile, num_clients, scenario.seed, protocols.handlers(scenario.protocol))
    policy = getattr(scenario.protocol, "stragglers", None)
    if isinstance(policy, StragglerConfig):
        cohort_size = getattr(scenario.protocol, "cohort_size", None)
        refuse_shortage(policy, cohort_size, num_clients)
    from fedsim.experiment.forecast import (
        request_times,  # it plays with stand-ins, so it stands above this module
    )

    request_times.check_deadline(scenario)
