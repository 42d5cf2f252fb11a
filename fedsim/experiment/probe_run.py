"""What a protocol first asks of its clients: it plays with stand-ins until enough of its messages have been heard.

So whatever is derived from its messages holds for any protocol, third parties' too, and imports no torch. The world is that
of the scenario; injected faults are left out, since they are events and no property of the devices. Where nobody can be
asked as things are (everybody away, everything given up, a deadline that comes before any question), messages are heard in the
same world with everybody there and a server that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fedsim import protocols
from fedsim.errors import FedsimError, InputError
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.simulation import Simulation
from fedsim.federation.handlers import Handler
from fedsim.federation.stragglers.config import StragglerConfig
from fedsim.progress import SilentProgress
from fedsim.protocols.shared.state import ClientState
from fedsim.records.log import RecordLog
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.clock import run as run_on_virtual_time
from fedsim.sim.devices.availability_config import AlwaysConfig
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import Work
from fedsim.sim.network import wire

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

_MOST_EVENTS = 500_000
_OCCASIONAL = ("probe", "setup", "cancel")


class ShortSimulation(Simulation):
    """A look ahead, in which nobody asks what the one-off training of the clients' models takes: it reads all of their rows."""

    def _training(self, client_id: int) -> None:
        return None


class ProbeRun(ShortSimulation):
    """A run that ends as soon as enough of its typical messages to clients have been heard.

    Attributes:
        log: what was recorded meanwhile.
        repeated: types of the messages that the protocol sends again and again: neither probes nor set-up.
        heard: messages of these types in the order in which clients began to compute them; at most as many as wanted.
    """

    def __init__(
        self,
        prepared: Prepared,
        num_messages: int,
    ) -> None:
        self.log = RecordLog()
        self.heard: list[wire.Message] = []
        self._num_messages = num_messages
        self._handlers = prepared.handlers
        self.repeated = frozenset(kind for kind in self._handlers if kind.purpose not in _OCCASIONAL)
        silent = SilentProgress()
        super().__init__(prepared, load_components(prepared, silent), self.log, silent.phase("listening"))

    def handler(self, message: wire.Message) -> Handler:
        """The client's half for a message."""
        return self._handlers[type(message)]

    async def listen(self, loop: VirtualLoop) -> None:
        """Build the world and let the protocol begin."""
        self._build(loop, {kind: self._overheard(handler) for kind, handler in self._handlers.items()})
        if not self.repeated:
            return
        protocol = protocols.load(self.scenario.protocol.name)
        running = asyncio.create_task(protocol.run(self.federation, self.scenario.protocol, self.state))
        stopping = asyncio.create_task(self.monitor.stopped.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, stopping):
                task.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)

    def _overheard(self, handler: Handler) -> Handler:
        return replace(handler, work=partial(self._hear, handler.work))

    def _hear(self, work: Callable[[Any, Any], Work], state: ClientState, message: wire.Message) -> Work:
        if type(message) in self.repeated and not any(message is one for one in self.heard):
            if len(self.heard) < self._num_messages:
                self.heard.append(message)
            if len(self.heard) == self._num_messages:
                self.monitor.stopped.set()
        return work(state, message)


def listen(prepared: Prepared, num_messages: int) -> ProbeRun:
    """A scenario's world at time 0, and messages of its protocol's typical request (none if it asks clients nothing).

    Raises:
        InputError: the scenario asks for the impossible.
        FederationError: no device can hold the model.
    """
    stop = prepared.scenario.stop.model_copy(update={"updates": 1})
    honest = prepared.varied(fidelity="timing", stop=stop, faults=(), hostile=())
    simulation = _probed(honest, num_messages)
    if simulation.repeated and not simulation.heard:
        easy = honest.varied(
            availability=AlwaysConfig(),
            dropout=DropoutConfig(),
            slowdowns=(),
            correlate=None,
            **_patient(prepared.scenario),
        )
        simulation.heard = _probed(easy, num_messages).heard
    return simulation


def _probed(prepared: Prepared, num_messages: int) -> ProbeRun:
    """Simulate until enough was heard, the first update is done, or the federation turns out to be hopeless."""
    simulation = ProbeRun(prepared, num_messages)
    try:
        limits = prepared.scenario.limits
        run_on_virtual_time(
            simulation.listen, max_virtual_s=limits.virtual, max_events=min(limits.events, _MOST_EVENTS)
        )
    except InputError:
        raise
    except FedsimError:
        if not hasattr(simulation, "world"):  # there is no such world at all
            raise
    return simulation


def _patient(scenario: Scenario) -> dict[str, Any]:
    """The protocol with a server that waits for everybody, where it has such a setting."""
    if "stragglers" not in type(scenario.protocol).model_fields:
        return {}
    return {"protocol": scenario.protocol.model_copy(update={"stragglers": StragglerConfig.defaults()})}
