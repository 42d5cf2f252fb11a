"""A base model that is shipped: downloaded before anything else, again after a cut, and waited for without hanging.

The link of ``ROUND`` brings 100 bytes/s down and 10 up, half a second late: a model of 1000 bytes is there at 10.62 s
(1000 + 12 bytes of message), and known to be there at 13.3 s (the reply has 12 bytes).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fedsim.errors import ClientOffline, FederationError
from fedsim.experiment import run as experiment
from fedsim.experiment.forecast.estimate import estimate
from fedsim.federation.billed_sizes import AsEncoded
from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.sim.devices.architecture import architecture
from fedsim.sim.devices.cost import NO_WORK
from fedsim.sim.devices.presence import Availability
from fedsim.sim.network import wire
from tests.federation.test_billed_sizes import scenario
from tests.samples.worlds import HANDLERS, ROUND, SmallWorld, Timetable, ask, leaves, small_world

MODEL_BYTES = 1000
WHOLE_BYTES = AsEncoded().message_bytes(wire.BaseModel(wire.pack_id(MODEL_BYTES)))
READY_BYTES = AsEncoded().message_bytes(wire.Ready(wire.pack_id(MODEL_BYTES)))
READY_AT_S = WHOLE_BYTES / 100 + 0.5 + READY_BYTES / 10 + 0.5
FETCHED = Handler(
    lambda _, message: HandlerResult(wire.Ready(message.num_bytes)), lambda *_: NO_WORK, wire.Ready
)


def shipping(num_clients: int = 1, availability: Availability | None = None) -> SmallWorld:
    world = small_world(
        [ROUND] * num_clients, availability=availability, handlers={**HANDLERS, wire.BaseModel: FETCHED}
    )
    world.federation.ship(MODEL_BYTES)
    return world


# --------------------------------------------------------------------------------------------------- in small worlds


async def test_a_client_is_there_for_work_only_when_its_base_model_is() -> None:
    world = shipping()
    client = world.federation.clients[0]
    assert not client.is_online and world.federation.online() == []
    with pytest.raises(ClientOffline):
        await client.request(ask())
    await client.online()
    assert world.federation.now_s() == pytest.approx(READY_AT_S)
    assert client.is_online and world.federation.online() == [0]
    assert isinstance(await client.request(ask(), Subject(attempt=1)), wire.Rewards)
    await world.settle()


async def test_the_whole_model_is_on_the_wire_as_set_up_and_not_in_the_papers_account() -> None:
    world = shipping()
    await world.federation.any_online([0])
    down, up = world.transfers(purpose="setup")
    assert (down.direction, down.wire_bytes, down.fate) == ("down", WHOLE_BYTES, "useful")
    assert MODEL_BYTES + len(wire.encode(wire.BaseModel(wire.pack_id(MODEL_BYTES)))) == WHOLE_BYTES
    assert (up.direction, up.wire_bytes, up.paper_bytes, down.paper_bytes) == ("up", READY_BYTES, 0, 0)
    await world.settle()


async def test_a_download_that_is_cut_is_charged_and_begun_again() -> None:
    world = shipping(availability=Timetable({0: [(0.0, 4.0), (20.0, 90.0)]}))
    await world.federation.client_online(0)
    assert world.federation.now_s() == pytest.approx(20.0 + READY_AT_S)
    cut, whole = world.transfers(purpose="setup", direction="down")
    assert (cut.fate, cut.wire_bytes, whole.fate, whole.wire_bytes) == ("cut", 400, "useful", WHOLE_BYTES)
    assert [row.attempt for row in world.outcomes] == [0, 1]
    await world.settle()


async def test_a_client_that_is_ready_still_comes_and_goes() -> None:
    world = shipping(availability=Timetable({0: [(0.0, 50.0), (60.0, 90.0)]}))
    await world.federation.client_online(0)
    await asyncio.sleep(55.0 - world.federation.now_s())
    assert world.federation.online() == []
    await world.federation.any_online([0])
    assert world.federation.now_s() == 60.0


async def test_whoever_waits_for_anybody_wakes_when_the_first_is_ready() -> None:
    world = shipping(3, Timetable({0: [], 1: [(5.0, 99.0)], 2: [(2.0, 99.0)]}))
    await world.federation.any_online([0, 1, 2])
    assert world.federation.online() == [2]
    assert world.federation.now_s() == pytest.approx(2.0 + READY_AT_S)
    await world.settle()


async def test_a_client_that_leaves_for_good_before_it_is_ready_is_waited_for_no_more() -> None:
    world = shipping(availability=leaves(4.0))
    with pytest.raises(FederationError, match="never come back"):
        await world.federation.client_online(0)
    assert world.federation.now_s() == 4.0


async def test_a_federation_in_which_nobody_can_finish_a_download_is_given_up() -> None:
    """Sessions of five seconds, for a download of ten: a hundred tries each, and then nobody waits any more."""
    sessions = [(10.0 * n, 10.0 * n + 5.0) for n in range(10_000)]
    world = shipping(2, Timetable({0: sessions, 1: sessions}))
    with pytest.raises(FederationError, match="none of the 2 clients"):
        await world.federation.any_online([0, 1])
    assert world.federation.now_s() == 995.0
    assert len(world.outcomes) == 200 and {row.status for row in world.outcomes} == {"cut"}
    await world.settle()


async def test_a_run_that_ends_during_a_download_waits_for_it_and_charges_it_as_late() -> None:
    world = shipping()
    await asyncio.sleep(1.0)
    await world.settle()
    assert [row.fate for row in world.transfers(purpose="setup")] == ["late", "late"]


async def test_a_run_that_ends_at_once_ships_nothing() -> None:
    world = shipping()
    await world.settle()
    assert world.transfers() == []


# ------------------------------------------------------------------------------------------------------- whole runs


def run(tmp_path: Path, **keys: Any) -> Any:
    keys = {"models": {"bill_as": "Qwen2.5-0.5B", "base_model": "shipped"}} | keys
    return experiment.run(scenario(**keys), out=tmp_path / "run")


def test_a_shipped_model_weighs_two_bytes_a_parameter_of_what_the_client_runs(tmp_path: Path) -> None:
    ran = run(tmp_path)
    rows = ran.transfers.filter(
        (ran.transfers["purpose"] == "setup") & (ran.transfers["direction"] == "down")
    )
    weight = 2 * architecture("Qwen2.5-0.5B").num_parameters
    assert len(rows) == 3
    assert all(0 < size - weight < 20 for size in rows["message_bytes"])


def test_nobody_is_asked_anything_before_its_model_is_there(tmp_path: Path) -> None:
    outcomes = run(tmp_path).outcomes
    for client_id in range(3):
        mine = outcomes.filter(outcomes["client_id"] == client_id).sort("sent_at_s")
        assert mine["purpose"][0] == "setup"
        assert mine["sent_at_s"][1:].min() is None or mine["sent_at_s"][1:].min() >= mine["ended_at_s"][0]
    assert len(outcomes.filter(outcomes["purpose"] == "question")) > 10


def test_an_unbilled_model_can_be_shipped_too(tmp_path: Path) -> None:
    summary = run(tmp_path, models={"base_model": "shipped"}, text=None).summary
    assert summary["bytes"]["by_purpose"]["setup"] > 3 * 2 * 200_000
    assert summary["bytes"]["paper"]["uplink"] < 10_000


@pytest.mark.parametrize("protocol", ["central_grpo", "zero_shot"])
def test_a_protocol_that_runs_nothing_on_its_clients_ships_nothing(tmp_path: Path, protocol: str) -> None:
    summary = run(tmp_path, protocol=protocol).summary
    assert summary["bytes"]["wire"] == {"uplink": 0, "downlink": 0}


@pytest.mark.parametrize("probe", ["once", "per_question"])
def test_a_run_whose_clients_never_finish_the_download_ends_with_an_error(tmp_path: Path, probe: str) -> None:
    sessions = {"kind": "sessions", "mean_on": "1 s", "mean_off": "1 s"}
    with pytest.raises(FederationError, match="client"):
        run(tmp_path, availability=sessions, protocol={"name": "fedgrpo", "probe": probe})


def test_the_estimate_counts_the_model_once() -> None:
    shipped = scenario(models={"bill_as": "Qwen2.5-0.5B", "base_model": "shipped"}, stop={"updates": 500})
    once = 3 * 2 * architecture("Qwen2.5-0.5B").num_parameters
    assert 0.99 * once < estimate(shipped).wire_down_bytes < 1.2 * once
