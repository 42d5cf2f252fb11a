"""The shared link: digits worked by hand, the naive twin, and queueing theory."""

import itertools
import math
import random
from collections import deque

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim.network.link import RATE_UNIT_BYTES_PER_S, SharedLink, rate_units
from fedsim.sim.timeline import LIMIT, RUN_EVENT, Scheduled, Timeline
from tests.oracles.max_min import Arrival, RateChange, max_min_rates, simulate


class Played:
    """The queue of time of a link, without an asyncio loop around it."""

    _stopping = False

    def __init__(self):
        self.queue = Timeline(simpy.Environment())

    @property
    def num_awaited(self):
        """Events on the queue that were not called off."""
        return len(self.queue.heap) - self.queue.num_idle

    def time(self):
        return self.queue.now_s

    def at(self, when_s, callback):
        return self.queue.at(when_s, callback)

    def run(self, until_s=math.inf):
        """Let happen what happens up to an instant, which is then now."""
        if until_s < math.inf:
            self.queue.push(until_s, LIMIT, Scheduled(until_s, self._stop, (), self.queue, RUN_EVENT))
        self.queue.run(self, deque(), (Scheduled,), 10**9)
        self._stopping = False

    def _stop(self):
        self._stopping = True


def run_script(arrivals, access, capacity, timeline=None, changes=(), make_link=SharedLink):
    """Play scripted flows on the fast link: ([(end, bytes sent)] by flow, order of finishing, link)."""
    timeline = timeline or Played()
    link = make_link(timeline.queue, capacity)
    ended, order, flows, access = {}, [], {}, dict(access)

    def begin(i):
        arrival = arrivals[i]

        def done(flow):
            ended[i] = (timeline.time(), flow.wire_bytes)
            order.append(i)

        flow = flows[i] = link.start(arrival.client_id, arrival.wire_bytes, access[arrival.client_id], done)

        def cut():
            if flow.is_open:
                ended[i] = (timeline.time(), link.cut(flow))

        if arrival.cut_at_s < math.inf:
            timeline.at(max(arrival.cut_at_s, arrival.at_s), cut)

    def change(to):
        if to.client_id is None:
            link.set_capacity(to.bytes_per_s)
        elif isinstance(to.client_id, str):
            link.set_edge_capacity(to.client_id, to.bytes_per_s)
        else:
            access[to.client_id] = to.bytes_per_s
            link.set_access(to.client_id, to.bytes_per_s)

    for to in changes:
        timeline.at(to.at_s, lambda to=to: change(to))
    for i, arrival in enumerate(arrivals):
        timeline.at(arrival.at_s, lambda i=i: begin(i))
    timeline.run()
    for i, flow in flows.items():
        if flow.is_open:
            ended[i] = (math.inf, link.cut(flow))
    return [ended[i] for i in range(len(arrivals))], order, link


def test_one_flow_takes_bytes_over_the_smaller_of_access_and_server_rate():
    assert run_script([Arrival(0, 0.0, 100.0)], {0: 10.0}, 50.0)[0] == [(10.0, 100.0)]
    assert run_script([Arrival(0, 0.0, 100.0)], {0: 10.0}, 4.0)[0] == [(25.0, 100.0)]
    assert run_script([Arrival(0, 0.0, 100.0)], {0: 10.0}, math.inf)[0] == [(10.0, 100.0)]


def test_slow_client_leaves_its_unused_share_to_the_others():
    # Capacity 10: the slow client takes 2, the two others 4 each. They end at 5 s; the slow one has 10 of 20
    # left.
    arrivals = [Arrival(0, 0.0, 20.0), Arrival(1, 0.0, 20.0), Arrival(2, 0.0, 20.0)]
    ends, order, link = run_script(arrivals, {0: 2.0, 1: 100.0, 2: 100.0}, 10.0)
    assert ends == [(10.0, 20.0), (5.0, 20.0), (5.0, 20.0)]
    assert order == [1, 2, 0]
    assert link.carried_bytes == 60.0


def test_flows_of_one_client_share_its_access_link():
    # Access 10, two flows: 5 each. The short one (10) ends at 2 s, then the long one (40) has 10: 30 left, 3
    # s.
    ends, _, _ = run_script([Arrival(7, 0.0, 10.0), Arrival(7, 0.0, 40.0)], {7: 10.0}, 1000.0)
    assert ends == [(2.0, 10.0), (5.0, 40.0)]


def test_late_arrival_slows_the_one_under_way():
    # Alone until 1 s (10 of 30 sent), then 5 each: 20 left need 4 s; the newcomer ends at 5 s with 20.
    ends, order, _ = run_script([Arrival(0, 0.0, 30.0), Arrival(1, 1.0, 20.0)], {0: 99.0, 1: 99.0}, 10.0)
    assert ends == [(5.0, 30.0), (5.0, 20.0)]
    assert order == [0, 1]


def test_a_cut_returns_the_bytes_sent_so_far_and_frees_the_rate():
    ends, order, link = run_script(
        [Arrival(0, 0.0, 100.0, cut_at_s=2.0), Arrival(1, 0.0, 30.0)], {0: 99.0, 1: 99.0}, 10.0
    )
    assert ends == [(2.0, 10.0), (4.0, 30.0)]
    assert order == [1]  # a cut flow is never reported as done
    assert link.carried_bytes == 40.0


def test_parts_of_bytes_of_cut_flows_are_not_lost_beside_any_number_of_whole_ones():
    timeline = Played()
    link = SharedLink(timeline.queue)
    link.start(0, 2.0**52, 2.0**52, lambda flow: None)  # where the next float is one byte away
    timeline.run(1.0)
    for client_id in range(1, 5):
        flow = link.start(client_id, 1.0, 0.25, lambda flow: None)
        timeline.run(float(1 + client_id))
        assert link.cut(flow) == 0.25
    assert link.carried_bytes == 2**52 + 1


def test_carried_bytes_count_what_an_open_flow_has_sent():
    timeline = Played()
    link = SharedLink(timeline.queue, 10.0)
    flow = link.start(0, 100.0, 4.0, lambda flow: None)
    timeline.run(until_s=3.0)
    assert link.carried_bytes == 12.0
    assert link.rate_bytes_per_s(flow) == 4.0
    assert link.num_open_flows == 1


def test_an_empty_transfer_is_reported_by_the_timeline_and_not_inside_start():
    timeline = Played()
    done = []
    SharedLink(timeline.queue, 10.0).start(0, 0.0, 4.0, done.append)
    assert not done
    timeline.run()
    assert len(done) == 1
    assert timeline.time() == 0.0


def test_negative_rates_and_negative_bytes_are_refused():
    link = SharedLink(Played().queue, 10.0)
    with pytest.raises(ValueError, match="must be 0 or more"):
        link.start(0, 1.0, -1.0, lambda flow: None)
    with pytest.raises(ValueError, match="must be 0 or more"):
        link.set_access(0, math.nan)
    with pytest.raises(ValueError, match="not negative"):
        link.start(0, -1.0, 1.0, lambda flow: None)
    with pytest.raises(ValueError, match="must be 0 or more"):
        SharedLink(Played().queue, -1.0)


def test_cutting_a_finished_flow_changes_nothing():
    timeline = Played()
    link = SharedLink(timeline.queue, 10.0)
    flow = link.start(0, 20.0, 10.0, lambda flow: None)
    timeline.run()
    assert link.cut(flow) == 20.0
    assert link.carried_bytes == 20.0
    assert link.rate_bytes_per_s(flow) == 0.0


def test_a_flow_started_in_a_done_callback_begins_at_that_instant():
    timeline = Played()
    link = SharedLink(timeline.queue, 10.0)
    ends = []

    def chain(flow):
        ends.append(timeline.time())
        if len(ends) < 3:
            link.start(0, 10.0, 10.0, chain)

    link.start(0, 10.0, 10.0, chain)
    timeline.run()
    assert ends == [1.0, 2.0, 3.0]


def test_changed_capacity_and_access_hold_from_that_instant():
    timeline = Played()
    link = SharedLink(timeline.queue, 10.0)
    ends = []
    link.start(0, 100.0, 50.0, lambda flow: ends.append(timeline.time()))
    timeline.run(until_s=2.0)  # 20 sent
    link.set_capacity(math.inf)
    timeline.run(until_s=3.0)  # 70 sent
    link.set_access(0, 15.0)
    timeline.run()
    assert ends == [5.0]


def test_an_access_rate_of_zero_stalls_the_flow_without_an_event_until_it_has_a_rate_again():
    timeline = Played()
    link = SharedLink(timeline.queue, 10.0)
    ends = []
    flow = link.start(0, 100.0, 10.0, lambda flow: ends.append(timeline.time()))
    timeline.run(until_s=3.0)  # 30 sent
    link.set_access(0, 0.0)
    assert link.rate_bytes_per_s(flow) == 0.0
    assert timeline.num_awaited == 0
    timeline.run(until_s=50.0)
    assert (ends, link.carried_bytes) == ([], 30.0)
    link.set_access(0, 5.0)
    assert timeline.num_awaited == 1
    timeline.run()
    assert (ends, link.carried_bytes) == ([64.0], 100.0)


def test_what_a_stalled_client_leaves_goes_to_the_others():
    # 5 each until 2 s; then the other has 10: its 30 left end at 5 s. From 6 s on the first has 10 for its 40 left.
    changes = [RateChange(2.0, 0, 0.0), RateChange(6.0, 0, 99.0)]
    arrivals = [Arrival(0, 0.0, 50.0), Arrival(1, 0.0, 40.0)]
    assert run_script(arrivals, {0: 99.0, 1: 99.0}, 10.0, changes=changes)[0] == [(10.0, 50.0), (5.0, 40.0)]


@pytest.mark.parametrize("size", [0.0, 20.0])
def test_a_flow_may_start_on_a_stalled_link_and_waits_for_a_rate(size):
    for zero, back in (
        ({0: 0.0}, RateChange(7.0, 0, 10.0)),
        ({0: 10.0}, RateChange(7.0, None, 10.0)),
    ):
        capacity = 10.0 if back.client_id == 0 else 0.0
        timeline = Played()
        link = SharedLink(timeline.queue, capacity)
        link.start(0, size, zero[0], lambda flow: None)
        assert timeline.num_awaited == 0
        expected = [(7.0 + size / 10.0, size)]
        assert run_script([Arrival(0, 0.0, size)], zero, capacity, changes=[back])[0] == expected


def test_a_server_link_of_zero_stalls_everybody_and_a_cut_there_returns_the_exact_bytes():
    # 4 and 6 bytes/s until 3 s, nothing until 10 s, where the first is cut with its 12; then 10 for the 42 left.
    changes = [RateChange(3.0, None, 0.0), RateChange(10.0, None, 20.0)]
    arrivals = [Arrival(0, 0.0, 100.0, cut_at_s=9.0), Arrival(1, 0.0, 60.0)]
    ends, _, link = run_script(arrivals, {0: 4.0, 1: 10.0}, 10.0, changes=changes)
    assert ends == [(9.0, 12.0), (pytest.approx(14.2), 60.0)]
    assert link.carried_bytes == 72.0


def test_ties_finish_in_order_of_start_whatever_the_side():
    # Flow 0 is own-limited (rate 2), flows 1 to 3 share the rest (rate 4 each), all end at 5 s.
    arrivals = [Arrival(9, 0.0, 10.0), *(Arrival(k, 0.0, 20.0) for k in (3, 1, 2))]
    ends, order, _ = run_script(arrivals, {9: 2.0, 1: 50.0, 2: 50.0, 3: 50.0}, 14.0)
    assert [end for end, _ in ends] == [5.0] * 4
    assert order == [0, 1, 2, 3]


def test_a_rate_is_zero_only_where_it_is_exactly_zero():
    """A link far slower than the unit crawls; it is not taken for one that is cut off."""
    assert [rate_units(rate) for rate in (0.0, 1e-300, RATE_UNIT_BYTES_PER_S, 1.0)] == [0, 1, 1, 2**40]


def test_max_min_rates_of_the_textbook_case():
    assert max_min_rates([0, 1, 2, 3], {0: 2.0, 1: 2.6, 2: 4.0, 3: 5.0}, 10.0) == pytest.approx(
        [2.0, 2.6, 2.7, 2.7]
    )
    assert max_min_rates([0, 0, 1], {0: 2.0, 1: 9.0}, math.inf) == pytest.approx([1.0, 1.0, 9.0])


_rates = st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.5, 100.0]) | st.floats(0.1, 50)


@st.composite
def scripts(draw):
    clients = draw(st.integers(1, 5))
    access = {k: draw(_rates) for k in range(clients)}
    capacity = draw(_rates | st.just(math.inf))
    arrivals = []
    for _ in range(draw(st.integers(1, 12))):
        at_s = draw(st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 10))
        stay_s = draw(st.just(math.inf) | st.floats(0.01, 20))
        size = draw(st.sampled_from([0.0, 1.0, 10.0]) | st.floats(0.01, 100))
        arrivals.append(Arrival(draw(st.integers(0, clients - 1)), at_s, size, at_s + stay_s))
    return arrivals, access, capacity


@settings(max_examples=150, deadline=None)
@given(scripts())
def test_fast_link_agrees_with_the_naive_twin(script):
    arrivals, access, capacity = script
    expected = simulate(arrivals, access, capacity)
    actual, _, link = run_script(arrivals, access, capacity)
    for (end_s, sent), (naive_end_s, naive_sent) in zip(actual, expected, strict=True):
        assert end_s == pytest.approx(naive_end_s, rel=1e-6, abs=1e-5)
        assert sent == pytest.approx(naive_sent, rel=1e-5, abs=1e-3)
    assert link.carried_bytes == pytest.approx(math.fsum(sent for _, sent in actual), rel=1e-12)
    assert link.num_open_flows == 0


# Off the instants at which flows of round sizes end: which of two things at one instant comes first is not the question.
odd_instants = st.integers(0, 2500).map(lambda number: number / 100 + math.pi / 1000)


@st.composite
def rate_changes(draw, num_clients=5):
    who = st.none() | st.integers(0, num_clients - 1)
    return [
        RateChange(draw(odd_instants), draw(who), draw(_rates | st.just(0.0)))
        for _ in range(draw(st.integers(1, 6)))
    ]


@settings(max_examples=150, deadline=None)
@given(scripts(), rate_changes())
def test_fast_link_agrees_with_the_naive_twin_while_rates_change_and_stop(script, changes):
    arrivals, access, capacity = script
    expected = simulate(arrivals, access, capacity, changes)
    actual, _, link = run_script(arrivals, access, capacity, changes=changes)
    for (end_s, sent), (naive_end_s, naive_sent) in zip(actual, expected, strict=True):
        assert end_s == pytest.approx(naive_end_s, rel=1e-6, abs=1e-5)
        assert sent == pytest.approx(naive_sent, rel=1e-5, abs=1e-3)
    assert link.carried_bytes == pytest.approx(math.fsum(sent for _, sent in actual), rel=1e-12, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(scripts(), st.floats(0, 12))
def test_rates_at_any_instant_are_max_min_fair(script, at_s):
    arrivals, access, capacity = script
    timeline = Played()
    link = SharedLink(timeline.queue, capacity)
    flows = []
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_s):
        if arrival.at_s <= at_s:
            timeline.run(until_s=arrival.at_s)
            rate = access[arrival.client_id]
            flows.append(link.start(arrival.client_id, arrival.wire_bytes, rate, lambda flow: None))
    timeline.run(until_s=at_s)
    running = [flow for flow in flows if flow.is_open]
    fair = max_min_rates([flow.client_id for flow in running], access, capacity)
    assert [link.rate_bytes_per_s(flow) for flow in running] == pytest.approx(fair, rel=1e-5, abs=1e-6)


def test_long_random_load_agrees_with_the_naive_twin_and_leaves_nothing_behind():
    random_ = random.Random(5)
    access = {k: random_.choice([1.0, 3.0, 9.0, 40.0]) for k in range(20)}
    arrivals, at_s = [], 0.0
    for _ in range(300):
        at_s += random_.expovariate(1.0)
        arrivals.append(Arrival(random_.randrange(20), at_s, random_.expovariate(1 / 30)))
    actual, _, link = run_script(arrivals, access, 35.0)
    for (end_s, _), (naive_end_s, _) in zip(actual, simulate(arrivals, access, 35.0), strict=True):
        assert end_s == pytest.approx(naive_end_s, rel=1e-7)
    assert not link._clients
    assert link._own_units == link._shared_flows == 0


def test_doubling_all_rates_halves_every_time():
    random_ = random.Random(2)
    arrivals = [Arrival(k % 7, 0.0, random_.expovariate(0.01)) for k in range(30)]
    access = {k: 5.0 * (k + 1) for k in range(7)}
    slow = run_script(arrivals, access, 60.0)[0]
    fast = run_script(arrivals, {k: 2 * rate for k, rate in access.items()}, 120.0)[0]
    assert [2 * end_s for end_s, _ in fast] == pytest.approx([end_s for end_s, _ in slow])


def test_equal_flows_share_as_processor_sharing_says():
    # n flows of sizes 1, 2, ..., n on one link of rate 1: flow i ends at sum_{j<=i} (n - j + 1).
    n = 8
    arrivals = [Arrival(k, 0.0, float(k + 1)) for k in range(n)]
    ends = run_script(arrivals, dict.fromkeys(range(n), 1e6), 1.0)[0]
    expected = list(itertools.accumulate(n - j for j in range(n)))
    assert [end_s for end_s, _ in ends] == pytest.approx(expected)


def test_moves_between_sides_per_change_do_not_grow_with_the_number_of_flows():
    def pushes_per_flow(n):
        timeline = Played()
        link = SharedLink(timeline.queue, 60.0 * n)
        for k in range(n):
            link.start(k, 1000.0 + k % 97, 50.0 + k % 31, lambda flow: None)
        timeline.run()
        heaps = (link._own_by_rate, link._own_by_finish, link._shared_by_rate, link._shared_by_mark)
        return sum(heap._num_pushed for heap in heaps) / n

    assert pushes_per_flow(32_000) == pytest.approx(pushes_per_flow(2_000), rel=0.2)
    assert (
        pushes_per_flow(2_000) < 12
    )  # two to join and a few to change side; recomputing all would be thousands
