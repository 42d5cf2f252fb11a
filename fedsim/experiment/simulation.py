"""One run on virtual time: the world that a scenario asks for is built on the loop, and the protocol plays in it.

Nothing here writes a file, and torch is only what the components bring along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsim import protocols
from fedsim.errors import FedsimError
from fedsim.experiment import billed, device_memory
from fedsim.experiment.build import client_states, link_of, refuse_more_clients
from fedsim.experiment.prepared import Prepared
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.federation.hostile import excluded, with_hostile
from fedsim.federation.world import World
from fedsim.models.interfaces import Components
from fedsim.privacy.rewards import RewardNoise, RewardNoiseConfig
from fedsim.progress import Phase
from fedsim.protocols.shared.monitor import ClientAccuracy, Monitor
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.records.log import RecordLog
from fedsim.records.rows import Fault
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices import population
from fedsim.sim.devices.cost import NO_WORK, Work
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.devices.presence import Availability
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.devices.slowdown import Slowdowns
from fedsim.sim.faults.plan import WithCrashes
from fedsim.sim.lazy import LazySequence
from fedsim.sim.network import wire
from fedsim.sim.network.transport import Transport


@dataclass(slots=True)
class RunEnd:
    """How the protocol ended."""

    virtual_s: float = 0.0
    stopped_by: str = ""
    interrupted: bool = False


class Simulation:
    """One run on virtual time: builds the world on the loop, lets the protocol play, drains and measures."""

    def __init__(
        self,
        prepared: Prepared,
        components: Components,
        log: RecordLog,
        phase: Phase,
        on_interrupt: Callable[[], None] = lambda: None,
    ) -> None:
        self.scenario = prepared.scenario
        self.prepared = prepared
        self.components = components
        most = prepared.scenario.evaluation.client_questions
        self.client_accuracy = ClientAccuracy(components.data, components.evaluators, most)
        self._log = log
        self._phase = phase
        self._on_interrupt = on_interrupt
        self.world: World
        self.profiles: Sequence[DeviceProfile]
        self.states: Sequence[ClientState]
        self.federation: Federation
        self.monitor: Monitor
        self.state: ServerState

    async def main(self, loop: VirtualLoop) -> RunEnd:
        """Run the protocol until it returns or a stop condition is met."""
        protocol = protocols.load(self.scenario.protocol.name)
        self._build(loop, self.prepared.handlers)
        self.monitor.start()
        ending = RunEnd()
        running = asyncio.create_task(
            protocol.run(self.federation, self.scenario.protocol, self.state), name="protocol"
        )
        stopping = asyncio.create_task(self.monitor.stopped.wait(), name="stop condition")
        try:
            await asyncio.wait(
                {running, stopping}, timeout=self.scenario.stop.virtual, return_when=asyncio.FIRST_COMPLETED
            )
            if running.done():
                raise_plainly(running)
            ending.stopped_by = self.monitor.stopped_by or ("protocol" if running.done() else "virtual")
        except asyncio.CancelledError:
            if not loop.interrupted:  # a limit was met: the clock stands still
                raise
            self._on_interrupt()
            ending.stopped_by, ending.interrupted = "interrupt", True
        ending.virtual_s = loop.time()
        for task in (running, stopping):
            task.cancel()
        await asyncio.wait({running, stopping})
        if (
            not ending.interrupted
        ):  # whoever interrupts a run does not want to wait for another look at the policy
            self.monitor.finish()
        await self.federation.drain()
        self.federation.log_presence(ending.virtual_s)
        self.log_faults(ending.virtual_s)
        return ending

    def noises(self) -> list[RewardNoise]:
        """What every client adds to what it tells; empty where the protocol has no such settings, and nobody is made then."""
        config = getattr(self.scenario.protocol, "reward_noise", None)
        if not isinstance(config, RewardNoiseConfig):
            return []
        return [state.noise for state in self.states if state.noise is not None]

    def log_faults(self, until_s: float) -> None:
        """Put every fault of devices and links up to an instant on record; those of replies stand there already."""
        faults = self.prepared.faults
        for window in faults.windows(until_s) if faults is not None else ():
            self._log.add(
                Fault(
                    kind=window.kind,
                    client_id=window.client_id,
                    request_id=-1,
                    start_at_s=window.start_at_s,
                    end_at_s=window.end_at_s,
                )
            )

    def _build(self, loop: VirtualLoop, handlers: Mapping[Any, Any]) -> None:
        prepared, scenario, components = self.prepared, self.scenario, self.components
        network, devices, lengths, edges = (
            scenario.network,
            prepared.devices,
            prepared.lengths,
            prepared.edges,
        )
        profiles: Sequence[DeviceProfile] = LazySequence(len(devices), devices.profile)
        if edges is not None:
            profiles = edges.behind(profiles)
        needed = [
            billed.requirement(scenario, components.server_spec, spec, lengths)
            for spec in components.client_specs
        ]
        absent = device_memory.too_small(needed, devices) | set(excluded(prepared.roles))
        num_there = len(devices) - len(absent)
        refuse_more_clients(
            scenario, num_there, f"only {num_there} of {len(devices)} clients take part", "protocol"
        )
        present: Availability = prepared.availability
        faults, classes = prepared.faults, devices.classes
        if faults is not None and faults.has_crashes:
            present = WithCrashes(present, faults)
        hangs = faults if faults is not None and faults.has_hangs else None
        world = World(
            seed=scenario.seed,
            loop=loop,
            log=self._log,
            downlink=link_of(loop, edges, "down", network.server_link.down),
            uplink=link_of(loop, edges, "up", network.server_link.up),
            transport=Transport(network),
            availability=device_memory.Without(present, absent) if absent else present,
            dropout=Dropout(scenario.dropout, scenario.seed, prepared.presence_scores),
            on_cut=scenario.availability.on_cut,
            handlers={**with_hostile(handlers, prepared.roles, scenario.seed), wire.BaseModel: _BASE_MODEL},
            sizes=billed.sizes(scenario, components.server_spec, lengths),
            slowdowns=Slowdowns(scenario.slowdowns, scenario.seed, classes, hangs, scenario.limits.virtual)
            if scenario.slowdowns or hangs
            else None,
            factors=faults if faults is not None and faults.has_link_faults else None,
            faults=faults,
            measures=scenario.measures,
        )
        if faults is not None:
            faults.arm(loop, world.downlink, world.uplink, network.server_link)
        self.states = states = client_states(scenario, components, lengths, needed[0].runs)
        self.world, self.profiles = world, profiles
        self._log_members(needed, classes)
        server_profile = population.server_profile(scenario.server)
        self.federation = Federation(world, profiles, states, server_profile, classes)
        self.monitor = Monitor(
            log=self._log,
            now_s=loop.time,
            policy=components.policy,
            data=components.data,
            stop=scenario.stop,
            evaluation=scenario.evaluation,
            phase=self._phase,
            open_requests=lambda: self.federation.num_open_requests,
            measures=scenario.measures,
        )
        world.on_end.append(self.monitor.request_ended)
        self.state = ServerState(
            seed=scenario.seed,
            policy=components.policy,
            frozen=components.frozen,
            data=components.data,
            spec=components.server_spec,
            tokens=billed.counts(lengths, components.policy.count_tokens),
            monitor=self.monitor,
            client_accuracy=self.client_accuracy,
            trainer=components.trainer,
        )
        if scenario.models.base_model == "shipped" and needed[0].runs != "nothing":
            self.federation.ship(max(one.model_bytes for one in needed))

    def _log_members(self, needed: Sequence[device_memory.Requirement], classes: Sequence[str]) -> None:
        """Put every client on record, with the one-off training of its own model if the protocol asks for that model."""
        if not needed[0].pretrained:
            memory = self.prepared.devices.columns["memory_bytes"].tolist()
            for client_id, device_class in enumerate(classes):
                self._log.add(device_memory.untrained(client_id, device_class, memory[client_id], needed[0]))
            return
        for client_id, profile in enumerate(self.profiles):
            own = needed[client_id if len(needed) > 1 else 0]
            self._log.add(device_memory.member(client_id, profile, own, self._training(client_id)))

    def _training(self, client_id: int) -> tuple[int, Work] | None:
        """The one-off training of a client's own model: optimiser steps and the work of one; None to put none on record."""
        client = self.states[client_id]
        return device_memory.training_steps(self.scenario.models, client.spec, client.rows, client.tokens)


def raise_plainly(task: asyncio.Task[None]) -> None:
    """Raise a task's error; of a group of errors that holds one of ours, ours."""
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        ours = [one for one in error.exceptions if isinstance(one, FedsimError | BaseExceptionGroup)]
        error = ours[0] if ours else error.exceptions[0]
    if error is not None:
        raise error


_BASE_MODEL = Handler(
    lambda _, message: HandlerResult(wire.Ready(message.num_bytes)), lambda *_: NO_WORK, wire.Ready
)
