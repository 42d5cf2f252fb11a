"""Complete client requests a second on one core, against a bare asyncio-on-SimPy loop that sleeps four times a request.

A request here is everything that a request in timing fidelity is: the message down over the contended link of the server, the
one-way delay, the device's queue, its computation, the reply up, its delay, and the rows of it; devices from presets with
varying rates, give-ups and a hazard armed, and a deadline around each. As in a run, rows go to a spool. The bare loop is the
same clock and as many tasks in flight, each of which awaits four timeouts a request and does nothing else. Both are timed in
turn, in seconds of this process's one core, without building the federation.

How many requests ended how, the rows, the bytes by the books and by the links, and the steps of the bare loop are asserted:
what is fast and different fails.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ledger import Claim, Paired, report
from fedsim.errors import RequestError
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.federation.world import World
from fedsim.processes import gc_policy
from fedsim.records import invariants
from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Outcome, Reward, Transfer
from fedsim.sim import clock
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices import population
from fedsim.sim.devices.config import ClientsConfig, DropoutConfig, ServerConfig
from fedsim.sim.devices.cost import Work
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.devices.presence import AlwaysOn
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.network import wire
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.transport import Transport

SEED = 7
DEADLINE_S = 30.0
NUM_SLEEPS = 4
CANDIDATES = tuple(f"{number} is the answer" for number in range(8))
SCORES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests, so many of them under way at any time, one client for each of these; timed so many times."""

    num_requests: int
    num_in_flight: int
    rounds: int


def score(state: Any, message: wire.Candidates) -> HandlerResult:
    """Eight fixed scores."""
    return HandlerResult(wire.Rewards(message.draw, SCORES), evaluator="fixed")


def work(state: Any, message: wire.Candidates) -> Work:
    """About a second of a phone's time."""
    return Work(5e11, 2e10)


HANDLERS: Mapping[type[wire.Message], Handler] = {wire.Candidates: Handler(score, work)}


def profiles_of(num_clients: int) -> list[DeviceProfile]:
    """Half of them phones, a quarter each laptops and edge servers, as the presets draw them."""
    half, quarter = num_clients // 2, num_clients // 4
    classes = {"phone": half, "laptop": quarter, "edge-server": num_clients - half - quarter}
    devices = population.draw(ClientsConfig.model_validate(classes), SEED)
    return [devices.profile(client_id) for client_id in range(num_clients)]


def seconds_of_requests(load: Load, profiles: Sequence[DeviceProfile]) -> float:
    """Seconds of the whole load, without building the federation."""
    took_s = 0.0

    async def play(loop: VirtualLoop) -> None:
        nonlocal took_s
        federation = _federation(loop, log, profiles, load)
        gc.collect()
        begun = time.process_time()
        answered = await _ask_all(federation, load)
        await federation.drain()
        took_s = time.process_time() - begun
        _check(log, federation, load, answered)

    with TemporaryDirectory() as folder, closing(RecordLog(Path(folder) / "records.spool")) as log:
        clock.run(play)
    return took_s


def _federation(
    loop: VirtualLoop, log: RecordLog, profiles: Sequence[DeviceProfile], load: Load
) -> Federation:
    """A server whose uplink is too narrow for all of them at once, so that most transfers share it."""
    per_client = 300 * load.num_in_flight
    network = NetworkConfig.model_validate(
        {"server_link": {"down": f"{4 * per_client} B/s", "up": f"{per_client} B/s"}}
    )
    world = World(
        seed=SEED,
        loop=loop,
        log=log,
        downlink=SharedLink(loop.timeline, network.server_link.down),
        uplink=SharedLink(loop.timeline, network.server_link.up),
        transport=Transport(network),
        availability=AlwaysOn(),
        dropout=Dropout(
            DropoutConfig.model_validate({"per_task": 0.02, "hazard": "4 /h"}),
            SEED,
        ),
        handlers=HANDLERS,
    )
    server = population.server_profile(ServerConfig())
    return Federation(world, profiles, [None] * len(profiles), server)


async def _ask_all(federation: Federation, load: Load) -> Counter[str]:
    """As many lanes as requests in flight; each asks one client after another."""
    ended: Counter[str] = Counter()
    clients = federation.clients
    num_each = load.num_requests // load.num_in_flight

    async def lane(first: int) -> None:
        for turn in range(num_each):
            number = turn * load.num_in_flight + first
            client = clients[(first + turn * 7919) % len(clients)]
            message = wire.Candidates(wire.pack_id(number), "How much is it?", CANDIDATES)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await client.request(message, Subject(draw=number, question_id=number))
                ended["ok"] += 1
            except TimeoutError:
                ended["late"] += 1
            except RequestError:
                ended["lost"] += 1

    await asyncio.gather(*(lane(first) for first in range(load.num_in_flight)))
    return ended


def _check(log: RecordLog, federation: Federation, load: Load, ended: Counter[str]) -> None:
    """Every request has its outcome, its rows and its bytes, and all kinds of endings occur."""
    outcomes = Counter(row.status for row in log.of(Outcome))
    assert outcomes.total() == load.num_requests == ended.total(), (outcomes, ended)
    assert outcomes["ok"] == ended["ok"] > 0.85 * load.num_requests, (outcomes, ended)
    assert outcomes["dropped"] > 0.01 * load.num_requests, outcomes
    assert outcomes["late"] <= ended["late"] and ended["lost"] <= outcomes["dropped"], (outcomes, ended)
    assert len(log.of(Reward)) == outcomes["ok"] + outcomes["late"]
    assert len(log.of(Compute)) > 0.97 * load.num_requests
    assert len(log.of(Transfer)) > 1.9 * load.num_requests
    invariants.check(log, federation.carried_bytes)


def seconds_of_bare_loop(load: Load) -> float:
    """Seconds of as many tasks on the same clock that only sleep, four times a request."""
    took_s = 0.0
    loops: list[VirtualLoop] = []

    async def play(loop: VirtualLoop) -> None:
        nonlocal took_s
        loops.append(loop)
        gc.collect()
        begun = time.process_time()
        await asyncio.gather(*(_sleep(first, load) for first in range(load.num_in_flight)))
        took_s = time.process_time() - begun

    clock.run(play)
    # A timer and the waking of its task for each sleep; starting and ending a task are a few more.
    num_sleeps = NUM_SLEEPS * load.num_requests
    assert 2 * num_sleeps <= loops[0].num_steps <= 2 * num_sleeps + 4 * load.num_in_flight + 100
    return took_s


async def _sleep(first: int, load: Load) -> None:
    for turn in range(load.num_requests // load.num_in_flight):
        for sleep in range(NUM_SLEEPS):
            await asyncio.sleep(0.1 + (first * 31 + turn * 17 + sleep * 7) % 97 / 97)


def measured(load: Load) -> Paired:
    """Both in turn, the order swapped from round to round."""
    profiles = profiles_of(load.num_in_flight)
    requests_s, bare_s = [], []
    for round_index in range(load.rounds):
        if round_index % 2 == 0:
            requests_s.append(seconds_of_requests(load, profiles))
        bare_s.append(seconds_of_bare_loop(load))
        if round_index % 2 == 1:
            requests_s.append(seconds_of_requests(load, profiles))
    return Paired(tuple(requests_s), tuple(bare_s))


def main() -> int:
    """Measure both loads."""
    gc.set_threshold(*gc_policy.THRESHOLDS["timing"])  # as for every run
    claims = []
    for load, least_per_s in ((Load(10_000, 1_000, 15), 20_000), (Load(200_000, 100_000, 3), 12_000)):
        pair = measured(load)
        per_s = [load.num_requests / seconds for seconds in pair.first_s]
        bare_per_s = [load.num_requests / seconds for seconds in pair.second_s]
        rates = Paired(
            pair.second_s, pair.first_s
        )  # the rate of one over the other's is seconds the other way round
        in_flight = f"{load.num_in_flight:,} in flight"
        claims += [
            Claim(f"requests, {in_flight}", max(per_s), least_per_s, "at least", "requests/s",
                  f"{load.num_requests:,} requests, {min(per_s):,.0f} to {max(per_s):,.0f}"),
            Claim(f"bare loop, {in_flight}", max(bare_per_s), None, unit="requests/s"),
            Claim(f"rate over the bare loop's, {in_flight}", rates.ratio, 0.4, "at least", "x", rates.spread),
        ]  # fmt: skip
    return report("requests", "Requests", claims)


if __name__ == "__main__":
    raise SystemExit(main())
