"""One request's life, second by second and byte by byte; digits as in ``tests/samples/worlds.py``."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from fedsim.errors import ClientDropped, ClientOffline, FederationError, RequestError, TransferCut
from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.sim import clock
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.network import wire
from fedsim.sim.network.config import NetworkConfig
from tests.samples.worlds import INSTANT, ROUND, Timetable, ask, leaves, score, small_world, work

KEY = (
    0,
    "question",
    -1,
    -1,
    0,
)  # client, purpose, question, round and attempt of a request without a subject

SLOW = replace(ROUND, down_bytes_per_s=2.0, up_bytes_per_s=2.0)
PER_REQUEST = NetworkConfig(
    server_link="unlimited",  # type: ignore[arg-type]
    transport="tcp",
    connection="per_request",
    extra_rtt="1 s",  # type: ignore[arg-type]
)


async def test_a_request_takes_down_flow_delay_compute_up_flow_and_delay() -> None:
    world = small_world()
    reply = await world.federation.clients[0].request(ask(2.0, draw=7), Subject(draw=7, question_id=70))
    assert reply == wire.Rewards(wire.pack_id(7), (0.0, 0.25, 0.5, 1.0))
    assert world.loop.time() == 9.0
    down, up = world.transfers()
    assert (down.start_at_s, down.end_at_s, down.wire_bytes, down.direction) == (0.0, 1.0, 100, "down")
    assert (up.start_at_s, up.end_at_s, up.wire_bytes, up.direction) == (3.5, 8.5, 50, "up")
    assert (down.purpose, up.purpose, down.fate, up.fate) == ("question", "reward", "useful", "useful")
    (compute,) = world.computes
    assert (compute.start_at_s, compute.end_at_s, compute.flop, compute.cut) == (1.5, 3.5, 2.0, False)
    assert compute.energy_j == 2.0 * 3.0
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase, outcome.cause) == ("ok", "done", "")
    assert (outcome.sent_at_s, outcome.ended_at_s, outcome.subject) == (0.0, 9.0, 7)
    (reward,) = world.rewards
    assert (reward.at_s, reward.draw, reward.question_id, reward.evaluator) == (9.0, 7, 70, "ME")
    await world.settle()


async def test_overhead_of_a_device_is_part_of_its_computation() -> None:
    world = small_world([replace(ROUND, overhead_s=0.25)])
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 9.25


async def test_a_radio_is_paid_by_the_byte_either_way_for_messages_and_handshakes() -> None:
    radio = replace(ROUND, radio_up_j_per_byte=2.0, radio_down_j_per_byte=0.5)
    world = small_world([radio])
    await world.federation.clients[0].request(ask(2.0))
    assert [(row.direction, row.energy_j) for row in world.transfers()] == [("down", 50.0), ("up", 100.0)]
    world = small_world([radio], network=PER_REQUEST)
    await world.federation.clients[0].request(ask(2.0))
    setup = {row.direction: (row.wire_bytes, row.energy_j) for row in world.transfers(purpose="setup")}
    assert setup == {"up": (618, 1236.0), "down": (3116, 1558.0)}


async def test_a_reply_in_the_air_when_the_run_fails_was_sent_but_never_counts() -> None:
    """The reply has left at 8.5 and would be there at 9."""
    world = small_world()
    asking = asyncio.ensure_future(world.federation.clients[0].request(ask(2.0)))
    await asyncio.sleep(8.75)
    world.federation.close_books(FederationError("nobody learns anything"))
    with pytest.raises(TransferCut):
        await asking
    (up,) = world.transfers(direction="up")
    assert (up.wire_bytes, up.paper_bytes) == (50, 0)
    assert world.rewards == []


async def test_two_clients_that_are_asked_the_same_have_links_of_their_own_luck() -> None:
    world = small_world([replace(ROUND, rtt_jitter=0.5)] * 2)
    await asyncio.gather(*(client.request(ask(2.0)) for client in world.federation.clients))
    ends_at_s = [row.ended_at_s for row in world.outcomes]
    assert abs(ends_at_s[1] - ends_at_s[0]) > 1e-3


async def test_a_device_computes_first_come_first_served_while_others_are_transferred() -> None:
    world = small_world()
    client = world.federation.clients[0]
    first = asyncio.ensure_future(client.request(ask(2.0)))
    await asyncio.sleep(1.0)
    await asyncio.gather(first, client.request(ask(4.0), Subject(attempt=1)))
    # The second goes down 1 .. 2, arrives at 2.5, waits for the first, which computes 1.5 .. 3.5 and goes up 3.5 .. 8.5.
    spans = [(row.request_id, row.start_at_s, row.end_at_s) for row in world.computes]
    assert spans == [(0, 1.5, 3.5), (1, 3.5, 7.5)]
    # Up: the first alone until 7.5 (40 bytes), then both at 5 bytes/s: its last 10 take until 9.5; the second has 10 of
    # its 50 by then and the rest at 10 bytes/s until 13.5.
    assert [row.end_at_s for row in world.transfers(direction="up")] == [9.5, 13.5]
    assert [row.ended_at_s for row in world.outcomes] == [10.0, 14.0]
    await world.settle()


async def test_queue_order_is_the_order_of_arrival_not_of_sending() -> None:
    world = small_world()
    client = world.federation.clients[0]
    long = wire.Candidates(wire.pack_id(1), "1".ljust(200), ("a", "b", "c", "d"))
    await asyncio.gather(client.request(long), client.request(ask(1.0)))
    assert [row.request_id for row in world.computes] == [1, 0]


@pytest.mark.parametrize(
    ("leaves_at_s", "status", "phase", "down_bytes", "up_bytes", "computed"),
    [
        (0.5, "cut", "down", [50], [], []),  # half of the question is down
        (1.25, "cut", "down", [100], [], []),  # the question has left the server and is in the air
        (2.0, "dropped", "compute", [100], [], [(1.5, 2.0, True)]),
        (4.5, "cut", "up", [100], [10], [(1.5, 3.5, False)]),  # 1 s of 10 bytes/s
    ],
)
async def test_work_is_cut_in_the_phase_in_which_the_device_leaves(
    leaves_at_s: float,
    status: str,
    phase: str,
    down_bytes: list[int],
    up_bytes: list[int],
    computed: list[tuple[float, float, bool]],
) -> None:
    world = small_world(availability=leaves(leaves_at_s))
    with pytest.raises(RequestError) as caught:
        await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == leaves_at_s
    if status == "cut":
        assert isinstance(caught.value, TransferCut) and caught.value.direction == phase
    else:
        assert isinstance(caught.value, ClientDropped) and caught.value.phase == phase
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase, outcome.cause) == (status, phase, "device left")
    assert outcome.ended_at_s == leaves_at_s
    assert world.bytes(direction="down", fate="cut") == down_bytes
    assert world.bytes(direction="up", fate="cut") == up_bytes
    assert world.bytes() == down_bytes + up_bytes
    assert [row.paper_bytes for row in world.transfers()] == [0] * len(down_bytes + up_bytes)
    assert [(row.start_at_s, row.end_at_s, row.cut) for row in world.computes] == computed
    assert [row.energy_j for row in world.computes] == [3.0 * (end - start) for start, end, _ in computed]
    assert not world.rewards
    await world.settle()


async def test_a_reply_in_the_air_arrives_although_its_device_has_left() -> None:
    world = small_world(availability=leaves(8.75))
    await world.federation.clients[0].request(ask(2.0))
    assert [(row.status, row.phase, row.ended_at_s) for row in world.outcomes] == [("ok", "done", 9.0)]
    assert world.bytes(fate="useful") == [100, 50]
    assert not world.federation.clients[0].is_online
    await world.settle()


async def test_a_leaving_device_takes_its_queue_along() -> None:
    # Two questions share the downlink: both at 2.0, both arrive at 2.5; the first computes from 2.5, the second waits.
    world = small_world(availability=leaves(3.5))
    client = world.federation.clients[0]
    errors = await asyncio.gather(
        client.request(ask(2.0)), client.request(ask(2.0), Subject(attempt=1)), return_exceptions=True
    )
    assert [(type(error), getattr(error, "phase", "")) for error in errors] == [
        (ClientDropped, "compute"),
        (ClientDropped, "queue"),
    ]
    assert [(row.request_id, row.start_at_s, row.end_at_s, row.cut) for row in world.computes] == [
        (0, 2.5, 3.5, True)
    ]
    assert [(row.status, row.phase) for row in world.outcomes] == [
        ("dropped", "compute"),
        ("dropped", "queue"),
    ]
    assert world.bytes(fate="cut") == [100, 100]
    await world.settle()


async def test_a_device_that_comes_back_starts_afresh() -> None:
    world = small_world(availability=Timetable({0: [(0.0, 2.0), (10.0, 100.0)]}))
    client = world.federation.clients[0]
    with pytest.raises(ClientDropped):
        await client.request(ask(5.0))
    await client.online()
    assert world.loop.time() == 10.0
    await client.request(ask(2.0), Subject(attempt=1))
    assert world.loop.time() == 19.0
    assert [row.status for row in world.outcomes] == ["dropped", "ok"]
    await world.settle()


async def test_a_request_to_an_absent_device_ends_at_once_without_a_byte() -> None:
    world = small_world(availability=Timetable({0: [(5.0, 6.0)]}))
    with pytest.raises(ClientOffline):
        await world.federation.clients[0].request(ask())
    assert world.loop.time() == 0.0
    (outcome,) = world.outcomes
    assert (outcome.status, outcome.phase, outcome.cause) == ("offline", "down", "device was away when asked")
    assert not world.transfers() and not world.computes
    await world.settle()


async def test_a_device_is_away_at_the_instant_at_which_its_session_ends() -> None:
    world = small_world(availability=leaves(1.0))
    await asyncio.sleep(1.0)
    with pytest.raises(ClientOffline):
        await world.federation.clients[0].request(ask())


async def test_a_given_up_task_frees_the_processor_for_the_next_in_the_queue() -> None:
    dropout = DropoutConfig(per_task=0.5)
    seed = next(seed for seed in range(99) if _gives_up(seed, 0) and not _gives_up(seed, 1))
    share = Dropout(dropout, seed).gives_up_at((*KEY[:-1], 0))
    assert share is not None
    world = small_world(dropout=dropout, seed=seed)
    client = world.federation.clients[0]
    first, second = await asyncio.gather(
        client.request(ask(2.0)), client.request(ask(2.0), Subject(attempt=1)), return_exceptions=True
    )
    assert isinstance(first, ClientDropped) and first.phase == "compute"
    assert isinstance(second, wire.Rewards)
    spans = [(row.request_id, row.start_at_s, row.end_at_s, row.cut) for row in world.computes]
    gives_up_at_s = 2.5 + 2.0 * share
    assert spans == [(0, 2.5, gives_up_at_s, True), (1, gives_up_at_s, gives_up_at_s + 2.0, False)]
    assert [(row.status, row.phase, row.cause) for row in world.outcomes] == [
        ("dropped", "compute", "task dropout"),
        ("ok", "done", ""),
    ]
    assert world.bytes(direction="down", fate="cut") == [100]
    assert client.is_online
    await world.settle()


def _gives_up(seed: int, attempt: int) -> bool:
    return Dropout(DropoutConfig(per_task=0.5), seed).gives_up_at((*KEY[:-1], attempt)) is not None


@pytest.mark.parametrize(
    ("phase", "earliest_s", "latest_s"), [("down", 0.0, 1.5), ("compute", 1.5, 3.5), ("up", 3.5, 8.5)]
)
async def test_a_hazard_strikes_in_whatever_phase_the_request_is(
    phase: str, earliest_s: float, latest_s: float
) -> None:
    dropout = DropoutConfig(hazard="0.2 /s")  # type: ignore[arg-type]
    seed = next(s for s in range(999) if earliest_s < Dropout(dropout, s).endurance(KEY) / 0.2 < latest_s)
    world = small_world(dropout=dropout, seed=seed)
    with pytest.raises(ClientDropped) as caught:
        await world.federation.clients[0].request(ask(2.0))
    assert caught.value.phase == phase
    assert world.loop.time() == Dropout(dropout, seed).endurance(KEY) / 0.2
    assert [(row.status, row.cause) for row in world.outcomes] == [("dropped", "hazard")]
    await world.settle()


async def test_a_hazard_does_not_touch_a_reply_in_the_air() -> None:
    dropout = DropoutConfig(hazard="0.2 /s")  # type: ignore[arg-type]
    seed = next(s for s in range(9999) if 8.5 < Dropout(dropout, s).endurance(KEY) / 0.2 < 9.0)
    world = small_world(dropout=dropout, seed=seed)
    await world.federation.clients[0].request(ask(2.0))
    await asyncio.sleep(5.0)
    assert [row.status for row in world.outcomes] == ["ok"]


async def test_a_connection_per_request_costs_round_trips_and_setup_bytes() -> None:
    world = small_world([SLOW], network=PER_REQUEST)
    await world.federation.clients[0].request(ask(2.0))
    # 100 bytes travel as 100 + 22 (TLS) + 52 (segment) = 174, 50 as 124, all at 2 bytes/s and 1 s one way.
    # SYN 30 + 1, SYN-ACK 30 + 1, hello 279 + 1, the server's 1528 + 1; 87 + 1 down, compute 2, 62 + 1 up.
    assert world.loop.time() == 1871.0 + 88.0 + 2.0 + 63.0
    rows = [
        (row.direction, row.purpose, row.wire_bytes, row.message_bytes, row.start_at_s, row.end_at_s)
        for row in world.transfers()
    ]
    assert rows == [
        ("down", "question", 174, 100, 0.0, 1958.0),
        ("down", "setup", 3116, 0, 0.0, 1871.0),
        ("up", "setup", 618, 0, 0.0, 1871.0),
        ("up", "reward", 124, 50, 1961.0, 2023.0),
    ]
    assert {row.fate for row in world.transfers()} == {"useful"}
    await world.settle()


@pytest.mark.parametrize(
    ("leaves_at_s", "down_bytes", "up_bytes"),
    [
        (10.0, 0, 20),  # the SYN goes up
        (30.5, 0, 60),  # it is in the air
        (50.0, 38, 60),  # the SYN-ACK comes down since second 31
        (162.0, 60, 60 + 200),  # the second round trip, since second 62
        (442.0, 60 + 200, 618),  # the server's half of it, since second 342
        (1870.5, 3116, 618),  # the last of it is in the air
        (1900.0, 3116, 618),  # the question comes down since second 1871
    ],
)
async def test_a_device_that_leaves_during_the_handshake_has_paid_for_what_had_passed(
    leaves_at_s: float, down_bytes: int, up_bytes: int
) -> None:
    world = small_world([SLOW], network=PER_REQUEST, availability=leaves(leaves_at_s))
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(ask())
    assert world.bytes(purpose="setup") == world.bytes(purpose="setup", fate="cut") == [down_bytes, up_bytes]
    assert world.bytes(purpose="question") == [58 if leaves_at_s == 1900.0 else 0]
    await asyncio.sleep(5000.0)
    await world.settle()
    assert world.federation.carried_bytes == {
        direction: sum(world.bytes(direction=direction)) for direction in ("down", "up")
    }


async def test_a_message_cut_in_its_slow_start_has_cost_the_handshake_and_what_its_window_let_out() -> None:
    # 2 s of handshake; then 20 kB need a second window, and the first one, of 15 kB, takes a second.
    profile = replace(ROUND, up_bytes_per_s=1e6, down_bytes_per_s=1e6)
    network = NetworkConfig(server_link="unlimited", transport="tcp", connection="per_request")  # type: ignore[arg-type]
    world = small_world([profile], network=network, availability=leaves(2.5))
    long = wire.Candidates(wire.pack_id(0), "2".ljust(20_000), ("a", "b"))
    with pytest.raises(TransferCut):
        await world.federation.clients[0].request(long)
    (sent,) = world.bytes(purpose="question", fate="cut")
    assert 0.49 * 15_000 < sent < 0.5 * 15_000
    assert world.bytes(purpose="setup", fate="cut") == [3116, 618]
    await world.settle()


async def test_a_handshake_sleeps_with_its_device_and_goes_on() -> None:
    there = Timetable({0: [(0.0, 10.0), (100.0, 9000.0)]})
    world = small_world([SLOW], network=PER_REQUEST, availability=there, on_cut="suspend")
    await world.federation.clients[0].request(ask(2.0))
    assert world.loop.time() == 2024.0 + 90.0
    assert world.bytes(purpose="setup", fate="useful") == [3116, 618]
    await world.settle()


async def test_handshakes_cost_both_directions_also_where_nine_tenths_of_the_tasks_are_given_up() -> None:
    world = small_world([INSTANT], network=PER_REQUEST, dropout=DropoutConfig(per_task=0.9))
    for attempt in range(100):
        with contextlib.suppress(ClientDropped):
            await world.federation.clients[0].request(ask(), Subject(attempt=attempt))
    await world.settle()
    assert 0 < len(world.transfers(purpose="reward")) < 30
    for direction, num_bytes in (("down", 3116), ("up", 618)):
        assert world.bytes(purpose="setup", direction=direction) == [num_bytes] * 100


async def test_what_is_sent_again_is_a_row_of_its_own_and_takes_time() -> None:
    network = NetworkConfig(server_link="unlimited", transport="tcp", loss=0.5)  # type: ignore[arg-type]
    # A second for each sending; a lost one, behind which nothing comes, is noticed after a round trip and 0.2 s.
    profile = replace(ROUND, down_bytes_per_s=174.0, up_bytes_per_s=124.0, rtt_s=0.0625)
    world = small_world([profile], network=network)
    for attempt in range(20):
        await world.federation.clients[0].request(ask(2.0), Subject(attempt=attempt))
    await world.settle()
    again = world.transfers(fate="retransmitted")
    assert again and all(row.message_bytes == row.paper_bytes == 0 for row in again)
    for row in world.transfers(fate="useful"):
        sent_again = [r for r in again if (r.request_id, r.direction) == (row.request_id, row.direction)]
        once_bytes = 174 if row.direction == "down" else 124
        assert row.wire_bytes == once_bytes
        assert all(r.wire_bytes % once_bytes == 0 for r in sent_again) and len(sent_again) <= 1
        seconds = 1 + 1.2625 * sum(r.wire_bytes for r in sent_again) / once_bytes
        assert row.end_at_s - row.start_at_s == pytest.approx(seconds)


async def test_the_papers_account_counts_replies_that_arrive_and_nothing_else() -> None:
    world = small_world([ROUND, ROUND], availability=leaves(5.0, client_id=1))
    replies = await world.federation.broadcast(ask(), [0, 1])
    assert isinstance(replies[0], wire.Rewards) and isinstance(replies[1], TransferCut)
    await world.settle()
    by_client = {row.client_id: row.paper_bytes for row in world.transfers(direction="up")}
    assert by_client == {0: 4 * 8, 1: 0}
    assert {row.paper_bytes for row in world.transfers(direction="down")} == {0}


async def test_flows_of_many_clients_share_the_servers_link() -> None:
    network = NetworkConfig(server_link={"down": "800 bit/s", "up": "160 bit/s"}, transport="ideal")  # type: ignore[arg-type]
    world = small_world([ROUND] * 4, network=network)
    await world.federation.broadcast(ask(2.0), [0, 1, 2, 3])
    # Down 25 bytes/s each: 4 s; 0.5 + 2 s; up 5 bytes/s each: 10 s; 0.5 s.
    assert [row.ended_at_s for row in world.outcomes] == [17.0] * 4
    await world.settle()


async def test_doubling_bandwidth_halves_transfer_times_at_zero_latency() -> None:
    spent_s = []
    for factor in (1.0, 2.0):
        profile = replace(
            ROUND,
            rtt_s=0.0,
            down_bytes_per_s=factor * ROUND.down_bytes_per_s,
            up_bytes_per_s=factor * ROUND.up_bytes_per_s,
        )
        world = small_world([profile])
        started_at_s = world.loop.time()
        await world.federation.clients[0].request(ask(0.0))
        spent_s.append(world.loop.time() - started_at_s)
    assert spent_s == [6.0, 3.0]


async def test_a_request_is_announced_when_it_is_sent_and_not_to_an_absent_device() -> None:
    announced: list[float] = []
    loop = asyncio.get_running_loop()
    handlers = {
        wire.Candidates: Handler(
            score, work, wire.Rewards, expect=lambda state, message: announced.append(loop.time())
        )
    }
    world = small_world([ROUND, ROUND], handlers=handlers, availability=Timetable({1: []}))
    await asyncio.sleep(3.0)
    await world.federation.broadcast(ask(), [0, 1])
    assert announced == [3.0]


async def test_a_handler_sees_its_clients_state_and_the_message_only() -> None:
    seen: list[object] = []

    def note(state: object, message: wire.Candidates) -> HandlerResult:
        seen.append((state, message))
        return score(state, message)

    handlers = {wire.Candidates: Handler(note, work, wire.Rewards)}
    world = small_world([ROUND, ROUND], handlers=handlers, states=["mine", "yours"])
    await world.federation.clients[1].request(ask())
    assert seen == [("yours", ask())]


def test_draws_of_a_request_depend_on_its_subject_and_not_on_what_ran_before() -> None:
    profile = replace(ROUND, compute_jitter=0.5, up_jitter=0.5, down_jitter=0.5, rtt_jitter=0.5)

    async def alone(before: int) -> list[float]:
        world = small_world([profile, profile])
        for attempt in range(before):
            await world.federation.clients[1].request(ask(), Subject(attempt=attempt))
        await asyncio.sleep(1000.0 - world.loop.time())
        await world.federation.clients[0].request(ask(), Subject(draw=before, question_id=9))
        rows = [*world.transfers(client_id=0), *(row for row in world.computes if row.client_id == 0)]
        return [row.end_at_s for row in rows]

    # The same question at the same instant, whatever its draw is called: rates are those of the instant.
    assert clock.run(alone(0)) == clock.run(alone(3))


def test_a_bug_in_a_handler_stops_the_run_with_its_own_traceback() -> None:
    def broken(state: object, message: wire.Candidates) -> HandlerResult:
        raise ZeroDivisionError("in the handler")

    async def main() -> None:
        world = small_world(handlers={wire.Candidates: Handler(broken, work, wire.Rewards)})
        await world.federation.clients[0].request(ask())

    with pytest.raises(ZeroDivisionError, match="in the handler"):
        clock.run(main())
