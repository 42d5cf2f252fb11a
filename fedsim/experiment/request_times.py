"""What one request will take on every device, before anything is run; and deadlines that no device could meet.

Messages of the protocol are heard (`fedsim.experiment.probe_run`) and put to every client's handler: what each costs
there, and how long the reply is. For client k, with means over the messages,

    down    w + (bytes down) / r + rtt / 2      r: the slowest link on the way, w: what slow start and the handshake add
    compute overhead + max(FLOP / peak, bytes / bandwidth) + step overhead (layers * passes)
    up      w + (bytes up) / r + rtt / 2

are its *nominal* seconds: rates as drawn for the device, nothing else on the links or in its queue, no jitter, no slow-down,
nothing lost. *Drawn* seconds are such requests at random instants of the first hour under
the run's own laws: access rates, delays, repeats, jitter and slow-downs.

The protocol's typical request is what it asks of clients again and again; probes and base models are not. Left out: waiting
for a device's processor, other flows on a link, and a rate that changes while a message is under way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedsim.config.units import format_seconds
from fedsim.errors import ScenarioError
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.probe_run import ProbeRun, listen
from fedsim.models.sources import HubModel
from fedsim.records.rows import Direction, Member
from fedsim.sim import streams
from fedsim.sim.devices.cost import NO_WORK, Work, compute_jitter, duration_s
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.network.edges import way_up
from fedsim.sim.network.transport import TransferPlan

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

FloatArray = npt.NDArray[np.float64]

_MOST_MESSAGES, _MOST_DRAWS = 16, 64
_EVALUATIONS = 8_192  # of a client's handler; and of a request that is drawn: about half a second each
_MESSAGES_FOR_A_DEADLINE = 4
_SPAN_S = 3_600.0


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """Seconds of one typical request, for the C clients that take part.

    Attributes:
        purpose: what the request is for.
        client_ids: ``[C]``, ascending.
        down_s: nominal seconds, ``[C]``.
        compute_s: likewise.
        up_s: likewise.
        drawn_s: ``[C, N]``, N requests of each client with all their luck; infinite where one would never end.
        down_bytes: encoded question, mean over messages.
        up_bytes: encoded reply, mean over messages and clients.
        num_messages: how many messages of the protocol were heard.
    """

    purpose: str
    client_ids: npt.NDArray[np.int64]
    down_s: FloatArray
    compute_s: FloatArray
    up_s: FloatArray
    drawn_s: FloatArray
    down_bytes: float
    up_bytes: float
    num_messages: int

    @property
    def nominal_s(self) -> FloatArray:
        """All three phases, ``[C]``."""
        return self.down_s + self.compute_s + self.up_s


def request_times(prepared: Prepared) -> RequestTimes | None:
    """What one typical request takes on every device; None if the protocol asks its clients nothing.

    Raises:
        InputError: the scenario asks for the impossible, or only loading a model could tell (a hub model).
        FederationError: no device can hold the model.
    """
    return Forecast(prepared).request_times()


def check_deadline(prepared: Prepared) -> None:
    """Refuse a deadline that no device can meet, with the reason and an estimate.

    A deadline is refused when it is shorter than the nominal request of the fastest device that takes part, on the quickest
    of a few messages, and than every one of some dozens of requests drawn for each device with their luck. Without a
    deadline nothing is played. Nothing is refused where what is scored by the deadline counts (``partial``), and where only
    loading a model could tell.

    Raises:
        ScenarioError: ``protocol.stragglers.deadline`` is shorter.
    """
    deadline_s = _deadline_s(prepared.scenario)
    if deadline_s is None or _needs_loading(prepared.scenario):
        return
    forecast = Forecast(prepared, _MESSAGES_FOR_A_DEADLINE)
    quickest: list[Nominal] = []
    for client_id in forecast.takes_part:
        for index in range(len(forecast.simulation.heard)):
            quickest.append(forecast.quickest(client_id, index))
            if quickest[-1].total_s <= deadline_s:
                return
    num_draws = forecast.num_draws
    if any(forecast.drawn_s(one, number) <= deadline_s for one in quickest for number in range(num_draws)):
        return
    if quickest:
        fastest = min(quickest, key=lambda one: one.total_s)
        device_class = forecast.simulation.profiles[fastest.client_id].device_class
        raise ScenarioError(
            f"protocol.stragglers.deadline is {format_seconds(deadline_s)}, but no client can answer by then: the fastest, "
            f"client {fastest.client_id} ({device_class}), takes about {format_seconds(fastest.total_s)} (down "
            f"{format_seconds(fastest.down_s)}, compute {format_seconds(fastest.compute_s)}, up "
            f"{format_seconds(fastest.up_s)}); must be longer"
        ).at("protocol", "stragglers", "deadline")


@dataclass(frozen=True, slots=True)
class Nominal:
    """One message on one device without luck: seconds by phase, encoded bytes, and the work."""

    client_id: int
    down_s: float
    compute_s: float
    up_s: float
    down_bytes: int
    up_bytes: int
    work: Work

    @property
    def total_s(self) -> float:
        """All three phases."""
        return self.down_s + self.compute_s + self.up_s


class Forecast:
    """A scenario's world at time 0, and what its protocol's messages take on its devices.

    Args:
        prepared: what would be run.
        num_messages: how many messages to hear; by default as many as the number of devices leaves time for.

    Attributes:
        simulation: the world, and the messages that were heard.
        takes_part: ids of the clients whose device can hold the model, ascending.
    """

    def __init__(self, prepared: Prepared, num_messages: int = _MOST_MESSAGES) -> None:
        self.simulation: ProbeRun = listen(prepared, num_messages)
        self.takes_part = [row.client_id for row in self.simulation.log.of(Member) if row.takes_part]

    @property
    def num_draws(self) -> int:
        """How many requests of each client are drawn: as many as the number of devices leaves time for."""
        return min(_MOST_DRAWS, max(2, _EVALUATIONS // len(self.takes_part)))

    def request_times(self) -> RequestTimes | None:
        """See the function of this name."""
        if not self.simulation.heard:
            return None
        num_clients = len(self.takes_part)
        num_messages = min(len(self.simulation.heard), max(1, _EVALUATIONS // num_clients))
        rows = [[self.nominal(id_, index) for index in range(num_messages)] for id_ in self.takes_part]
        drawn = [[self.drawn_s(row[n % num_messages], n) for n in range(self.num_draws)] for row in rows]
        figures = np.array(
            [[(o.down_s, o.compute_s, o.up_s, o.down_bytes, o.up_bytes) for o in row] for row in rows],
            dtype=np.float64,
        ).mean(axis=1)
        down_s, compute_s, up_s, down_bytes, up_bytes = figures.T
        return RequestTimes(
            purpose=self.simulation.heard[0].purpose,
            client_ids=np.array(self.takes_part, dtype=np.int64),
            down_s=down_s,
            compute_s=compute_s,
            up_s=up_s,
            drawn_s=np.array(drawn, dtype=np.float64),
            down_bytes=float(down_bytes.mean()),
            up_bytes=float(up_bytes.mean()),
            num_messages=num_messages,
        )

    def nominal(self, client_id: int, index: int) -> Nominal:
        """The message heard at this place on a device, without luck."""
        message, world = self.simulation.heard[index], self.simulation.world
        state, handler = self.simulation.states[client_id], self.simulation.handler(message)
        work = handler.cost(state, message)
        calm = replace(self.simulation.profiles[client_id], down_jitter=0.0, up_jitter=0.0, rtt_jitter=0.0)
        down_bytes = world.sizes.message_bytes(message)
        up_bytes = world.sizes.message_bytes(handler.reply(state, message).message)
        return Nominal(
            client_id=client_id,
            down_s=self._leg_s(client_id, calm, "down", self._plan(down_bytes), (), 0.0),
            compute_s=duration_s(calm, work),
            up_s=self._leg_s(client_id, calm, "up", self._plan(up_bytes), (), 0.0),
            down_bytes=down_bytes,
            up_bytes=up_bytes,
            work=work,
        )

    def quickest(self, client_id: int, index: int) -> Nominal:
        """The same; a client that owns trusted answers may answer without its model."""
        nominal = self.nominal(client_id, index)
        if not self.simulation.states[client_id].trusted:
            return nominal
        seconds = duration_s(self.simulation.profiles[client_id], NO_WORK)
        return replace(nominal, compute_s=seconds, work=NO_WORK)

    def drawn_s(self, nominal: Nominal, number: int) -> float:
        """The same message to the same client at a random instant, with all its luck; seconds."""
        world, client_id = self.simulation.world, nominal.client_id
        profile, key = self.simulation.profiles[client_id], (client_id, "foresight", number)
        start_at_s = _SPAN_S * streams.uniform(world.seed, *key)
        down_key, up_key = (world.seed, *key, "down"), (world.seed, *key, "up")
        down = world.transport.plan(nominal.down_bytes, down_key)
        at_s = start_at_s + self._leg_s(client_id, profile, "down", down, down_key, start_at_s)
        compute_s = duration_s(profile, nominal.work, compute_jitter(profile, world.seed, key))
        if world.slowdowns is None:
            at_s += compute_s
        elif at_s < math.inf:
            at_s = world.slowdowns.finish_at_s(client_id, key, at_s, compute_s)
        if at_s == math.inf:
            return math.inf
        up = world.transport.plan(nominal.up_bytes, up_key)
        return at_s + self._leg_s(client_id, profile, "up", up, up_key, at_s) - start_at_s

    def _plan(self, message_bytes: int) -> TransferPlan:
        """A message of which nothing is lost."""
        transport = self.simulation.world.transport
        segments = transport.num_segments(message_bytes)
        return TransferPlan(message_bytes, segments, transport.wire_bytes(message_bytes), 0)

    def _leg_s(
        self,
        client_id: int,
        profile: DeviceProfile,
        direction: Direction,
        plan: TransferPlan,
        key: tuple[streams.Part, ...],
        at_s: float,
    ) -> float:
        """Seconds of one message alone on its way, at the access rate of its start; infinite on a stalled link."""
        world, transport = self.simulation.world, self.simulation.world.transport
        access = world.rates.bytes_per_s(profile, client_id, direction, at_s)
        rate_bytes_per_s = min(access, self._shared_rate(client_id, direction))
        if not rate_bytes_per_s:
            return math.inf
        wait_s, pace = transport.pace(plan, profile, lambda: access)
        flows_s = (
            plan.total_bytes / rate_bytes_per_s
            if pace is None
            else pace.seconds(plan.total_bytes, rate_bytes_per_s)
        )
        handshake = transport.handshake
        if direction == "down" and handshake.round_trips:  # it is over before the question, both ways
            up_bytes_per_s = world.rates.bytes_per_s(profile, client_id, "up", at_s)
            up_bytes_per_s = min(up_bytes_per_s, self._shared_rate(client_id, "up"))
            if not up_bytes_per_s:
                return math.inf
            wait_s += handshake.round_trips * (profile.rtt_s + transport.extra_rtt_s)
            wait_s += handshake.up_bytes / up_bytes_per_s + handshake.down_bytes / rate_bytes_per_s
        return wait_s + flows_s + transport.one_way_s(profile, key)

    def _shared_rate(self, client_id: int, direction: Direction) -> float:
        """The slowest link between a client's access and the server, bytes/s: of its edges and the server's own."""
        links: list[Any] = [self.simulation.world.transport.config.server_link]
        edges = self.simulation.prepared.edges
        if edges is not None and client_id in edges.homes:
            links += [edges.edges[name] for name in way_up(edges.homes[client_id], edges.edges)]
        return min(float(getattr(link, direction)) for link in links)


def _deadline_s(scenario: Scenario) -> float | None:
    """The deadline of the protocol's typical request, if there is one that must bring whole replies."""
    stragglers = getattr(scenario.protocol, "stragglers", None)
    if getattr(stragglers, "partial", False):
        return None
    deadline_s: float | None = getattr(stragglers, "deadline", None)
    return deadline_s


def _needs_loading(scenario: Scenario) -> bool:
    """Whether only a loaded model could tell what the clients' work costs."""
    sources: tuple[Any, ...] = (scenario.models.server, scenario.models.clients)
    return scenario.models.bill_as is None and any(isinstance(source, HubModel) for source in sources)
