"""Access rates that vary in time: their law, their purity, and what they do to transfers; digits worked by hand."""

import asyncio
import dataclasses
import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedsim.errors import Deadlock
from fedsim.federation.handlers import Subject
from fedsim.sim import clock
from fedsim.sim.network.config import NetworkConfig
from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.rates import AccessLinks, AccessRates
from fedsim.sim.network.tcp import Pace
from tests.samples.worlds import ROUND, SmallWorld, Timetable, ask, small_world

SHAKY = dataclasses.replace(ROUND, up_jitter=0.5, down_jitter=0.3)
MANY = 4000


def rates(*, seed=7, **keys):
    return AccessRates(NetworkConfig(**keys), seed)


def correlation(left, right):
    return statistics.correlation(left, right)


# ----------------------------------------------------------------------------------------------------------- the law


@pytest.mark.parametrize("at_s", [0.0, 12_345.0])
@pytest.mark.parametrize(("direction", "nominal", "sigma"), [("up", 10.0, 0.5), ("down", 100.0, 0.3)])
def test_a_rate_is_lognormal_with_the_nominal_mean_at_every_instant(direction, nominal, sigma, at_s):
    source = rates()
    drawn = [source.bytes_per_s(SHAKY, k, direction, at_s) / nominal for k in range(MANY)]
    # Var f = exp(sigma^2) - 1; the bounds are 3.5 standard errors.
    assert abs(statistics.fmean(drawn) - 1.0) < 3.5 * math.sqrt(math.expm1(sigma**2) / MANY)
    logs = [math.log(one) for one in drawn]
    assert abs(statistics.fmean(logs) + sigma**2 / 2) < 3.5 * sigma / math.sqrt(MANY)
    assert abs(statistics.stdev(logs) - sigma) < 3.5 * sigma / math.sqrt(2 * MANY)


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("lag", [1, 2, 7])
def test_the_correlation_over_lags_is_that_of_an_ar1_process(memory, lag):
    source = rates(rate_memory=memory, rate_period="2 s")
    now = [source.level(k, "up", 31.0) for k in range(MANY)]
    later = [source.level(k, "up", 31.0 + 2.0 * lag) for k in range(MANY)]
    expected = memory**lag
    # Fisher: artanh r is normal with deviation 1 / sqrt(n - 3).
    assert abs(math.atanh(correlation(now, later)) - math.atanh(expected)) < 3.5 / math.sqrt(MANY - 3)


def test_along_one_clients_time_the_rates_keep_their_memory_and_come_back_to_their_mean():
    source = rates(rate_memory=0.8, rate_period="1 s")
    series = [source.level(3, "down", float(n)) for n in range(20_000)]
    # Bartlett for AR(1): Var r_1 = (1 - a^2) / n; Var of the mean = (1 + a) / (1 - a) / n.
    assert abs(correlation(series[:-1], series[1:]) - 0.8) < 3.5 * math.sqrt(0.36 / 20_000)
    assert abs(statistics.fmean(series)) < 3.5 * math.sqrt(9 / 20_000)


def test_clients_directions_and_seeds_have_nothing_in_common():
    source, other = rates(), rates(seed=8)
    up = [source.level(k, "up", 5.0) for k in range(MANY)]
    for unrelated in (
        [source.level(k, "down", 5.0) for k in range(MANY)],
        [source.level(k + 1, "up", 5.0) for k in range(MANY)],
        [other.level(k, "up", 5.0) for k in range(MANY)],
    ):
        assert abs(correlation(up, unrelated)) < 3.5 / math.sqrt(MANY)


# ------------------------------------------------------------------------------------------------------------- purity


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["up", "down"]), st.floats(0, 1e7)), max_size=20),
    st.randoms(use_true_random=False),
    st.sampled_from([0.0, 0.8, 0.99]),
)
def test_any_order_of_asking_gives_the_same_rates(questions, order, memory):
    def asked(these):
        source = rates(rate_memory=memory)
        return {one: source.bytes_per_s(SHAKY, one[0], one[1], one[2]) for one in these}

    shuffled = list(questions)
    order.shuffle(shuffled)
    assert asked(questions) == asked(shuffled)


@given(st.floats(0, 1e9), st.sampled_from(["0.1 s", "0.3 s", "1 ms", "10 s", "7 min"]))
def test_an_instant_lies_in_its_slot_and_the_next_change_lies_after_it(at_s, period):
    source = rates(rate_period=period)
    period_s = NetworkConfig(rate_period=period).rate_period
    number = source.slot(at_s)
    assert number * period_s <= at_s < (number + 1) * period_s == source.next_change(at_s)
    assert source.slot(source.next_change(at_s)) == number + 1


def test_a_rate_holds_for_its_period_and_not_longer():
    source = rates()
    first = source.bytes_per_s(SHAKY, 0, "up", 0.0)
    assert source.bytes_per_s(SHAKY, 0, "up", 9.999) == first != source.bytes_per_s(SHAKY, 0, "up", 10.0)


def test_a_link_without_jitter_has_its_nominal_rate_for_ever():
    assert {rates().bytes_per_s(ROUND, 0, "up", float(t)) for t in range(100)} == {10.0}


@pytest.mark.parametrize("wrong", [{"rate_period": "0 s"}, {"rate_period": "1 us"}, {"rate_memory": 1.0}])
def test_a_period_too_short_and_a_memory_without_end_are_refused(wrong):
    with pytest.raises(ValidationError) as error:
        NetworkConfig.model_validate(wrong)
    assert error.value.errors()[0]["loc"][0] in wrong


# ------------------------------------------------------------------------------------------------------ transfers


class Table:
    """Rates by client and slot of 2 s; the last one holds for ever."""

    factors = None

    def __init__(self, by_client):
        self._by_client = by_client

    def next_change(self, at_s):
        return 2.0 * (math.floor(at_s / 2.0) + 1)

    def bytes_per_s(self, profile, client_id, direction, at_s):
        row = self._by_client[client_id]
        return row[min(math.floor(at_s / 2.0), len(row) - 1)]


def ends(table, transfers, *, capacity=math.inf, profile=SHAKY, pauses=()):
    """Instants at which transfers (client, bytes, start, pace or none) end, and the bytes that the link carried."""

    async def main():
        loop = asyncio.get_running_loop()
        link = SharedLink(loop.timeline, capacity)
        access = AccessLinks(loop.timeline, link, Table(table) if isinstance(table, dict) else table, "up")
        for client_id, from_s, until_s in pauses:
            loop.at(from_s, access.pause, client_id)
            loop.at(until_s, access.resume, client_id)
        done = [loop.create_future() for _ in transfers]
        for future, (client_id, num_bytes, start_s, *pace) in zip(done, transfers, strict=True):

            def finished(flow, future=future):
                future.set_result(loop.time())

            loop.at(start_s, access.start, client_id, profile, num_bytes, finished, *pace)
        return await asyncio.gather(*done), link.carried_bytes

    return clock.run(main())


def test_a_transfer_over_three_slots_takes_what_their_rates_give():
    # 65 bytes: 20 in the first 2 s, 40 in the next 2 s, and 5 at 5 bytes/s in the fifth second.
    assert ends({0: [10.0, 20.0, 5.0]}, [(0, 65.0, 0.0)]) == ([5.0], 65.0)
    # From 1 s on: 10 until 2 s, 40 until 4 s, 15 at 5 bytes/s.
    assert ends({0: [10.0, 20.0, 5.0]}, [(0, 65.0, 1.0)]) == ([7.0], 65.0)


def test_a_paced_transfer_goes_at_its_windows_and_then_at_its_cap_or_the_links_rate():
    # 2 bytes in the first second, 4 in the next, then 10 bytes/s: 26 bytes take 4 s; capped at 5 bytes/s 6 s.
    growing = Pace(2, 2.0, 1.0)
    assert ends({0: [10.0]}, [(0, 26.0, 0.0, growing)]) == ([4.0], 26.0)
    assert ends({0: [10.0]}, [(0, 26.0, 0.0, replace(growing, bytes_per_s=5.0))]) == ([6.0], 26.0)
    # A link of 3 bytes/s is slower than the second window, and a pause stops the flow but not the windows.
    assert ends({0: [10.0]}, [(0, 26.0, 0.0, growing)], capacity=3.0) == ([9.0], 26.0)
    assert ends({0: [10.0]}, [(0, 26.0, 0.0, growing)], pauses=[(0, 0.5, 2.0)]) == ([4.5], 26.0)


def test_messages_of_one_client_share_the_widest_of_their_windows_and_what_is_left_is_re_rated():
    growing, capped = Pace(2, 2.0, 1.0), Pace(0, 0.0, 1.0, bytes_per_s=4.0)
    # Until 2 s 2 bytes/s each, by the wider cap of 4; then the window is open and each has 5, until 14 bytes are out.
    assert ends({0: [10.0]}, [(0, 14.0, 0.0, growing), (0, 20.0, 0.0, capped)]) == ([4.0, 5.5], 34.0)
    # A small message that nothing paces goes as fast as the connection does.
    assert ends({0: [10.0]}, [(0, 8.0, 0.0, capped), (0, 4.0, 0.0)]) == ([3.0, 2.0], 12.0)


def test_flows_of_one_client_share_the_rate_of_every_slot():
    # 5 bytes/s each until 2 s, then 10 each: the first has its 20 at 3 s; the other has 20 then, 40 at 4 s, and from there
    # on 5 bytes/s.
    assert ends({0: [10.0, 20.0, 5.0]}, [(0, 20.0, 0.0), (0, 40.0, 0.0)]) == ([3.0, 4.0], 60.0)
    assert ends({0: [10.0, 20.0, 5.0]}, [(0, 20.0, 0.0), (0, 50.0, 0.0)]) == ([3.0, 6.0], 70.0)


def test_what_one_client_leaves_of_the_servers_link_in_a_slot_goes_to_the_other():
    # Capacity 12. Slot 1: client 0 takes 2, client 1 the 10 left (20 bytes). Slot 2: client 0 could take 100: 6 each, so
    # client 1 has 32 of its 50 at 4 s, client 0 has 16. Slot 3: client 0 takes 3, client 1 the 9 left: 18 bytes, at 6 s.
    table = {0: [2.0, 100.0, 3.0], 1: [50.0]}
    assert ends(table, [(0, 22.0, 0.0), (1, 50.0, 0.0)], capacity=12.0) == ([6.0, 6.0], 72.0)


def test_a_profile_without_jitter_is_not_re_rated():
    # The table would change its rate at 2 s; without jitter nobody looks.
    assert ends({0: [10.0, 20.0]}, [(0, 65.0, 0.0)], profile=ROUND) == ([6.5], 65.0)


class Windows:
    """Factors of one client inside windows (from, until, factor); 1 outside."""

    def __init__(self, *windows, client_id=0):
        self._windows = windows
        self._client_id = client_id

    def factor(self, client_id, direction, at_s):
        if client_id != self._client_id or direction != "up":
            return 1.0
        return next((factor for start_s, end_s, factor in self._windows if start_s <= at_s < end_s), 1.0)

    def next_change(self, client_id, at_s):
        if client_id != self._client_id:
            return math.inf
        edges = [edge_s for start_s, end_s, _ in self._windows for edge_s in (start_s, end_s)]
        return min((edge_s for edge_s in edges if edge_s > at_s), default=math.inf)


def with_factors(*windows):
    return AccessRates(NetworkConfig(), 7, Windows(*windows))


def test_factors_multiply_the_rate_and_leave_other_clients_and_directions_alone():
    slowed, plain = with_factors((5.0, 8.0, 0.25)), rates()
    for at_s, factor in ((4.9, 1.0), (5.0, 0.25), (8.0, 1.0)):
        expected = factor * plain.bytes_per_s(SHAKY, 0, "up", at_s)
        assert slowed.bytes_per_s(SHAKY, 0, "up", at_s) == expected
    for other in ((1, "up"), (0, "down")):
        assert slowed.bytes_per_s(SHAKY, *other, 6.0) == plain.bytes_per_s(SHAKY, *other, 6.0)


def test_running_transfers_are_re_rated_where_their_clients_factor_changes():
    # 10 bytes/s: 20 until 2 s, 5 at 2.5 bytes/s until 4 s, nothing until 9 s, the 15 left at 10.5 s.
    source = with_factors((2.0, 4.0, 0.25), (4.0, 9.0, 0.0))
    assert ends(source, [(0, 40.0, 0.0), (1, 40.0, 0.0)], profile=ROUND) == ([10.5, 4.0], 80.0)


def test_the_end_of_a_partition_is_waited_for_and_one_without_an_end_is_a_deadlock():
    assert ends(with_factors((0.0, 100.0, 0.0)), [(0, 40.0, 1.0)], profile=ROUND) == ([104.0], 40.0)
    with pytest.raises(Deadlock):
        ends(with_factors((2.0, math.inf, 0.0)), [(0, 40.0, 0.0)], profile=ROUND)


def test_a_cut_flow_takes_its_factors_event_along():
    async def main():
        loop = asyncio.get_running_loop()
        access = AccessLinks(loop.timeline, SharedLink(loop.timeline), with_factors((2.0, 1e6, 0.0)), "up")
        flow = access.start(0, ROUND, 40.0, lambda flow: None)
        await asyncio.sleep(3.0)
        assert access.cut(flow) == 20.0
        await loop.create_future()

    with pytest.raises(Deadlock):  # at 3 s: the partition's end is nobody's event any more
        clock.run(main(), max_virtual_s=10.0)


def test_a_paused_client_keeps_what_it_sent_and_goes_on_at_the_rate_of_its_return():
    # 10 until 1 s, away until 5 s: slot 3 gives 4 bytes/s, so 4 until 6 s, and slot 4 2 bytes/s for the 6 left.
    table = {0: [10.0, 99.0, 4.0, 2.0]}
    assert ends(table, [(0, 20.0, 0.0)], pauses=[(0, 1.0, 5.0)]) == ([9.0], 20.0)
    # A transfer that starts while the client is away waits as well; a pause without transfers changes nothing.
    assert ends(table, [(0, 5.0, 2.0)], pauses=[(0, 1.0, 5.0)]) == ([6.5], 5.0)
    assert ends(table, [(0, 5.0, 6.0)], pauses=[(0, 1.0, 5.0)]) == ([8.5], 5.0)


def test_a_factor_that_changes_during_a_pause_holds_after_it():
    source = with_factors((1.0, 6.0, 0.0), (6.0, 8.0, 0.5))
    # 10 until 1 s; partition and pause until 7 s; 5 in the second until 8 s, and the 15 left at 9.5 s.
    assert ends(source, [(0, 30.0, 0.0)], profile=ROUND, pauses=[(0, 2.0, 7.0)]) == ([9.5], 30.0)


async def test_a_request_whose_download_lasts_many_slots_follows_the_rates_of_its_link():
    network = NetworkConfig(server_link="unlimited", transport="ideal", rate_period="1 s")
    slow = dataclasses.replace(SHAKY, down_bytes_per_s=10.0)
    world = small_world([slow], network=network, seed=3)
    await world.federation.clients[0].request(ask(2.0))
    source = AccessRates(network, 3)
    left, slot = 100.0, 0
    while left > (rate := source.bytes_per_s(slow, 0, "down", float(slot))):
        left, slot = left - rate, slot + 1
    assert slot >= 5
    (down,) = world.transfers(direction="down")
    assert down.end_at_s == pytest.approx(slot + left / rate, abs=1e-9)
    await world.settle()


def test_a_change_of_rates_to_come_does_not_hide_a_deadlock():
    async def main():
        world = small_world([SHAKY])
        await world.federation.clients[0].request(ask())
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock):
        clock.run(main())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 30), st.floats(0.5, 40)), min_size=1, max_size=10),
    st.sampled_from(["unlimited", "160 bit/s"]),
)
def test_the_books_balance_while_rates_change_under_running_and_cut_transfers(seed, asked, server_link):
    async def main() -> SmallWorld:
        network = NetworkConfig(server_link=server_link, rate_period="500 ms", rate_memory=0.5)
        world = small_world(
            [SHAKY] * 3, network=network, seed=seed, availability=Timetable({2: [(0.0, 9.0), (20.0, 31.0)]})
        )

        async def one(number, client_id, at_s, stay_s):
            await asyncio.sleep(at_s)
            request = world.federation.clients[client_id].request(ask(0.5), Subject(number, number))
            await asyncio.wait([asyncio.ensure_future(request)], timeout=stay_s)

        tasks = [asyncio.ensure_future(one(n, *story)) for n, story in enumerate(asked)]
        await asyncio.wait(tasks)
        await world.settle()  # sum of the records = what the links carried
        return world

    assert len(clock.run(main()).outcomes) == len(asked)
