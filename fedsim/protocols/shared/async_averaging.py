"""Averaging without rounds: clients fetch, train and send as they come, and every full buffer is one step of the server.

``in_flight`` slots each hold one client: the next, by keyed draw, of those who are there, have rows and are not training
already. A slot whose client has sent its module, or was lost, takes the next client at once, with the module that is live
then; while the server computes a step, slots wait for it. Without ``in_flight`` every client that is there trains all the
time: nobody is chosen, which is what client-centric means. Each client's own number of local steps is ``fewest_local_steps ..
local_steps`` (``LocalTrainingConfig``).

Where FedBuff sends differences, modules travel here, both ways alike: the server remembers what it sent, as it arrived, and
takes the difference itself. Bytes are the same. Every task is a round of its own in the records (``subject``) and keys its
own draws, so that a client that trains twice from one version does not train alike. A module beyond ``max_staleness`` is
dropped: its request was answered in time, so its bytes stand as useful, and ``averaging.json`` counts it. What is still in the
buffer when the run ends is lost.

References: ``server_optimizers.py``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsim.errors import FederationError
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Hurry, Subject
from fedsim.federation.stragglers.config import StragglerConfig
from fedsim.federation.stragglers.policies import Stragglers
from fedsim.models.interfaces import UpdateStats, Weights
from fedsim.protocols.shared.aggregation import Weighting, aggregation_flop, client_shares
from fedsim.protocols.shared.server_optimizers import (
    AveragingConfig,
    Moments,
    adaptive_step,
    delayed_rate,
    difference,
    mean_difference,
    plain_step,
    staleness_weight,
)
from fedsim.protocols.shared.state import ServerState
from fedsim.protocols.shared.weights_on_the_wire import distance, packed, received, unpacked
from fedsim.sim import streams
from fedsim.sim.devices import adapters
from fedsim.sim.devices.cost import Work
from fedsim.sim.network import wire

HOPELESS_TASKS = 100
"""So many tasks in a row for every client with rows that brought no module end the run with an error."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A client's difference, from which version it was made, and from how many rows."""

    client_id: int
    difference: Weights
    version: int
    num_rows: int


@dataclass(frozen=True, slots=True)
class Settings:
    """How modules are asked for, travel, and are averaged.

    Attributes:
        schedule: when the server averages, and how.
        stragglers: how long a task waits for its client.
        weighting: what a client counts in the average.
        number_type: how numbers travel.
        shapes: of the arrays of a module.
    """

    schedule: AveragingConfig
    stragglers: StragglerConfig
    weighting: Weighting
    number_type: wire.NumberType
    shapes: Mapping[str, adapters.Shape]


class Averaging:
    """The server's half of averaging without rounds."""

    def __init__(
        self,
        federation: Federation,
        settings: Settings,
        state: ServerState,
        with_rows: Sequence[int],
        weights: Weights,
    ) -> None:
        self._federation = federation
        self._settings = settings
        self._state = state
        self._with_rows = with_rows
        self._weights = weights
        self._moments = Moments.zero(weights)
        self._stragglers = Stragglers(settings.stragglers, federation.now_s)
        self._busy: set[int] = set()
        self._freed = asyncio.Event()
        self._choosing = asyncio.Lock()
        self._stepping = asyncio.Lock()
        self._tensors = packed(weights, settings.number_type)
        self._buffer: list[Arrival] = []
        self._num_tasks = 0
        self._num_lost_in_a_row = 0
        self._merged: list[tuple[int, int]] = []
        self._dropped: list[tuple[int, int]] = []
        state.artefacts["averaging"] = self.report

    async def run(self) -> None:
        """Keep the slots busy for ever.

        Raises:
            FederationError: nobody will ever be there, ``HOPELESS_TASKS`` tasks per client in a row brought nothing, or a
                client's numbers are not finite.
        """
        wanted = self._settings.schedule.in_flight or len(self._with_rows)
        async with asyncio.TaskGroup() as slots:
            for slot in range(min(wanted, len(self._with_rows))):
                slots.create_task(self._slot(), name=f"training slot {slot}")

    def report(self) -> dict[str, Any]:
        """What became of the modules that came, for the run folder (``averaging.json``)."""
        return {
            "kind": self._settings.schedule.kind,
            "merged": len(self._merged),
            "dropped_too_stale": len(self._dropped),
            "left_in_buffer": len(self._buffer),
            "merged_by_client": _counted(client_id for client_id, _ in self._merged),
            "dropped_by_client": _counted(client_id for client_id, _ in self._dropped),
            "merged_by_staleness": _counted(behind for _, behind in self._merged),
        }

    async def _slot(self) -> None:
        while True:
            client_id = await self._next_client()
            try:
                arrival = await self._train(client_id)
            finally:
                self._busy.discard(client_id)
                self._freed.set()
            if arrival is not None:
                await self._merge(arrival)

    async def _next_client(self) -> int:
        """A client that is there and idle, by keyed draw; one slot looks at a time."""
        async with self._choosing:
            while True:
                idle = [client_id for client_id in self._with_rows if client_id not in self._busy]
                there = [client_id for client_id in idle if self._federation.clients[client_id].is_online]
                if there:
                    chosen = next_in_line(there, self._state.seed, self._num_tasks)
                    self._busy.add(chosen)
                    return chosen
                await self._somebody_new(idle)

    async def _somebody_new(self, idle: Sequence[int]) -> None:
        """Sleep until an idle client may be there, or another slot has set one free."""
        self._freed.clear()
        if not self._busy:
            await self._federation.any_online(idle)
            return
        freed = asyncio.create_task(self._freed.wait(), name="a slot sets its client free")
        comes = asyncio.create_task(self._federation.any_online(idle), name="an idle client comes")
        try:
            await asyncio.wait({freed, comes}, return_when=asyncio.FIRST_COMPLETED)
            if comes.done() and comes.exception() is not None:
                await freed  # nobody idle will ever be there, but those who train now may
        finally:
            freed.cancel()
            comes.cancel()

    async def _train(self, client_id: int) -> Arrival | None:
        """Have one client train from the live module; None if its module never came."""
        async with self._stepping:  # whoever asks while a step is computed waits for what it makes
            task, self._num_tasks = self._num_tasks, self._num_tasks + 1
            version, tensors = self._state.policy.version, self._tensors
        message = wire.AdapterDown(wire.pack_id(task), self._settings.number_type, tensors)

        def ask(client_id: int, _: Hurry | None) -> Coroutine[Any, Any, wire.Message]:
            return self._federation.clients[client_id].request(message, Subject(draw=task))

        reply = (await self._stragglers.collect(ask, [client_id])).get(client_id)
        if not isinstance(reply, wire.AdapterUp):
            self._give_up_when_hopeless()
            return None
        self._num_lost_in_a_row = 0
        module = received(client_id, task, reply)
        sent = unpacked(tensors, self._settings.number_type)
        return Arrival(client_id, difference(module, sent), version, wire.unpack_id(reply.num_rows))

    async def _merge(self, arrival: Arrival) -> None:
        """Put a difference into the buffer, unless it is too stale, and step when the buffer is full."""
        schedule = self._settings.schedule
        async with self._stepping:
            behind = self._staleness(arrival)
            if schedule.max_staleness is not None and behind > schedule.max_staleness:
                self._dropped.append((arrival.client_id, behind))
                return
            self._buffer.append(arrival)
            if len(self._buffer) == schedule.buffer:
                buffer, self._buffer = self._buffer, []
                await self._step(buffer)

    async def _step(self, buffer: Sequence[Arrival]) -> None:
        staleness = [self._staleness(arrival) for arrival in buffer]
        await self._federation.server.compute(self._work(len(buffer)), "update", self._state.policy.version)
        assert self._state.trainer is not None
        stepped = self._stepped(buffer, staleness)
        moved = distance(self._weights, stepped)
        self._weights = {name: array.astype(np.float32) for name, array in stepped.items()}
        self._tensors = packed(self._weights, self._settings.number_type)
        self._state.trainer.install(self._weights)
        self._merged += zip((arrival.client_id for arrival in buffer), staleness, strict=True)
        stats = UpdateStats(loss=np.nan, entropy=np.nan, clip_fraction=0.0, grad_norm=moved)
        self._state.monitor.updated(stats, staleness, sum(arrival.num_rows for arrival in buffer), 0.0)
        await self._state.monitor.pause_if_over()

    def _stepped(
        self, buffer: Sequence[Arrival], staleness: Sequence[int]
    ) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        config = self._settings.schedule
        shares = client_shares(self._settings.weighting, [arrival.num_rows for arrival in buffer])
        differences = [arrival.difference for arrival in buffer]
        rate = config.server_learning_rate or 1.0
        if config.kind == "buffered":
            stale = [staleness_weight(behind, config.staleness_exponent or 0.0) for behind in staleness]
            return plain_step(self._weights, mean_difference(differences, shares * np.array(stale)), rate)
        stepped, self._moments = adaptive_step(
            self._weights,
            mean_difference(differences, shares),
            self._moments,
            delayed_rate(rate, max(staleness), config.delay_threshold or 0),
            config,
        )
        return stepped

    def _staleness(self, arrival: Arrival) -> int:
        return self._state.policy.version - arrival.version

    def _work(self, num_modules: int) -> Work:
        """As averaging in memory, plus the step: 2 FLOP a number; AMSGrad 12, and its three memories in and out."""
        shapes = self._settings.shapes
        numbers = adapters.num_numbers(shapes)
        adaptive = self._settings.schedule.kind == "client_centric"
        flop = aggregation_flop(shapes, num_modules, "factors") + (12.0 if adaptive else 2.0) * numbers
        return Work(flop, 4.0 * (num_modules + 2 + (6 if adaptive else 0)) * numbers)

    def _give_up_when_hopeless(self) -> None:
        self._num_lost_in_a_row += 1
        if self._num_lost_in_a_row >= HOPELESS_TASKS * len(self._with_rows):
            raise FederationError(
                f"{self._num_lost_in_a_row} local trainings in a row brought no module (every client left, gave up, or missed "
                "the deadline; local training may take longer than clients stay); see the outcomes in the run folder"
            )


def _counted(numbers: Iterable[int]) -> dict[str, int]:
    """How often each number comes, ascending."""
    return {str(number): times for number, times in sorted(Counter(numbers).items())}


def next_in_line(there: Sequence[int], seed: int, task: int) -> int:
    """A uniform draw of one of these clients; each has a keyed number, so who else is there changes nobody's."""
    return min(there, key=lambda client_id: streams.uniform(seed, "next client", task, client_id))
