"""The tree of links: digits worked by hand, water filling on the whole graph, and queueing theory."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim.network.tree import TreeEdge, TreeLink
from tests.oracles.max_min import Arrival, RateChange, Tree, max_min_rates_on, simulate
from tests.sim.network.test_link import Played, odd_instants, run_script


def tree_link(tree):
    edges = {name: TreeEdge(rate, tree.parents[name]) for name, rate in tree.bytes_per_s.items()}
    return lambda timeline, capacity: TreeLink(timeline, capacity, edges, tree.homes.get)


def ends(arrivals, access, capacity, tree, changes=()):
    return run_script(arrivals, access, capacity, changes=changes, make_link=tree_link(tree))[0]


TWO = Tree({"a": 6.0, "b": 100.0}, {"a": None, "b": None}, {0: "a", 1: "a", 2: "b"})


def test_flows_behind_a_narrow_edge_leave_the_server_link_to_the_others():
    # Edge a: 3 each for clients 0 and 1; client 2 has the 14 that are left of 20.
    arrivals = [Arrival(0, 0.0, 30.0), Arrival(1, 0.0, 30.0), Arrival(2, 0.0, 140.0)]
    assert ends(arrivals, {0: 50.0, 1: 50.0, 2: 50.0}, 20.0, TWO) == [
        (10.0, 30.0),
        (10.0, 30.0),
        (10.0, 140.0),
    ]


def test_a_slow_client_leaves_its_share_of_the_edge_to_its_neighbour():
    # Edge a: client 0 takes 2 of the 6, client 1 the other 4.
    arrivals = [Arrival(0, 0.0, 20.0), Arrival(1, 0.0, 40.0)]
    assert ends(arrivals, {0: 2.0, 1: 50.0}, 100.0, TWO) == [(10.0, 20.0), (10.0, 40.0)]


def test_a_group_behind_an_edge_shares_the_server_link_by_flows_not_by_edges():
    # Server link 9, three flows: 3 each, so edge a (6) is just full; with 6 there are 2 each and the edge has room.
    arrivals = [Arrival(k, 0.0, 30.0) for k in range(3)]
    access = dict.fromkeys(range(3), 50.0)
    assert ends(arrivals, access, 9.0, TWO) == [(10.0, 30.0)] * 3
    assert ends(arrivals, access, 6.0, TWO) == [(15.0, 30.0)] * 3


def test_a_flow_is_as_fast_as_the_narrowest_level_on_its_way():
    # c below a: client 0 alone behind c (2), client 1 takes what a has left: 4.
    tree = Tree({"a": 6.0, "c": 2.0}, {"a": None, "c": "a"}, {0: "c", 1: "a"})
    arrivals = [Arrival(0, 0.0, 20.0), Arrival(1, 0.0, 40.0)]
    assert ends(arrivals, {0: 50.0, 1: 50.0}, 100.0, tree) == [(10.0, 20.0), (10.0, 40.0)]


def test_an_edge_of_rate_zero_stalls_what_is_below_and_nothing_else():
    # 3, 3 and 14 until 2 s; then edge a stands until 12 s: client 2 has 20 and ends at 7.6 s; the others have 24 left each.
    changes = [RateChange(2.0, "a", 0.0), RateChange(12.0, "a", 6.0)]
    arrivals = [Arrival(0, 0.0, 30.0), Arrival(1, 0.0, 30.0), Arrival(2, 0.0, 140.0)]
    actual = ends(arrivals, {0: 50.0, 1: 50.0, 2: 20.0}, 20.0, TWO, changes)
    assert actual == [(20.0, 30.0), (20.0, 30.0), (pytest.approx(7.6), 140.0)]
    # Without the change back they never end, and what they have sent is known to the byte.
    assert ends(arrivals, {0: 50.0, 1: 50.0, 2: 20.0}, 20.0, TWO, changes[:1])[:2] == [(math.inf, 6.0)] * 2


def test_a_cut_behind_an_edge_returns_its_bytes_and_frees_the_edge():
    arrivals = [Arrival(0, 0.0, 100.0, cut_at_s=2.0), Arrival(1, 0.0, 30.0)]
    assert ends(arrivals, {0: 50.0, 1: 50.0}, 20.0, TWO) == [(2.0, 6.0), (6.0, 30.0)]


def test_edges_in_a_circle_and_parents_that_are_none_are_refused():
    with pytest.raises(ValueError, match="circle: a -> b -> a"):
        TreeLink(Played().queue, 1.0, {"a": TreeEdge(1.0, "b"), "b": TreeEdge(1.0, "a")}, {}.get)
    with pytest.raises(ValueError, match="parent 'x' of 'a' is no edge"):
        TreeLink(Played().queue, 1.0, {"a": TreeEdge(1.0, "x")}, {}.get)


def test_water_filling_on_a_chain_of_links_stops_each_flow_at_its_first_full_link():
    # Three links of 1: one flow over all, two more over the first (1/3 each), one more over each of the others (2/3).
    paths = [("l", "m", "n"), ("l",), ("l",), ("n",), ("m",)]
    rates = max_min_rates_on(paths, {"l": 1.0, "m": 1.0, "n": 1.0})
    assert rates == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


# ------------------------------------------------------------------------------------------------ the naive twin

_rates = st.sampled_from([0.5, 1.0, 2.0, 3.0, 6.0, 7.5, 100.0]) | st.floats(0.1, 50)


@st.composite
def trees(draw, num_clients=6):
    names = "abcde"[: draw(st.integers(1, 5))]
    parents = {name: draw(st.sampled_from([None, *names[:i]])) for i, name in enumerate(names)}
    rates = {name: draw(_rates | st.just(math.inf)) for name in names}
    homes = {k: draw(st.sampled_from([None, *names])) for k in range(num_clients)}
    return Tree(rates, parents, homes)


@st.composite
def scripts(draw):
    tree = draw(trees())
    access = {k: draw(_rates) for k in range(6)}
    capacity = draw(_rates | st.just(math.inf))
    arrivals = []
    for _ in range(draw(st.integers(1, 14))):
        at_s = draw(st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 10))
        stay_s = draw(st.just(math.inf) | st.floats(0.01, 20))
        size = draw(st.sampled_from([0.0, 1.0, 10.0]) | st.floats(0.01, 100))
        arrivals.append(Arrival(draw(st.integers(0, 5)), at_s, size, at_s + stay_s))
    who = st.none() | st.integers(0, 5) | st.sampled_from(sorted(tree.bytes_per_s))
    changes = [
        RateChange(draw(odd_instants), draw(who), draw(_rates | st.just(0.0)))
        for _ in range(draw(st.integers(0, 5)))
    ]
    return arrivals, access, capacity, tree, changes


@settings(max_examples=100, deadline=None)
@given(scripts())
def test_the_tree_agrees_with_water_filling_on_the_whole_graph(script):
    arrivals, access, capacity, tree, changes = script
    expected = simulate(arrivals, access, capacity, changes, tree)
    actual, _, link = run_script(arrivals, access, capacity, changes=changes, make_link=tree_link(tree))
    for (end_s, sent), (naive_end_s, naive_sent) in zip(actual, expected, strict=True):
        assert end_s == pytest.approx(naive_end_s, rel=1e-6, abs=1e-5)
        assert sent == pytest.approx(naive_sent, rel=1e-5, abs=1e-3)
    assert link.carried_bytes == pytest.approx(math.fsum(sent for _, sent in actual), rel=1e-12, abs=1e-9)
    assert link.num_open_flows == 0


@settings(max_examples=100, deadline=None)
@given(scripts(), st.floats(0, 12))
def test_rates_at_any_instant_are_those_of_water_filling(script, at_s):
    arrivals, access, capacity, tree, _ = script
    timeline = Played()
    link = tree_link(tree)(timeline.queue, capacity)
    flows = []
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_s):
        if arrival.at_s <= at_s:
            timeline.run(until_s=arrival.at_s)
            client_id = arrival.client_id
            flows.append(link.start(client_id, arrival.wire_bytes, access[client_id], lambda flow: None))
    timeline.run(until_s=at_s)
    running = [flow for flow in flows if flow.is_open]
    paths = [tree.path(flow.client_id) for flow in running]
    fair = max_min_rates_on(paths, {None: capacity, **access, **tree.bytes_per_s})
    assert [link.rate_bytes_per_s(flow) for flow in running] == pytest.approx(fair, rel=1e-5, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(scripts())
def test_a_tree_whose_edges_have_no_limit_is_the_shared_link(script):
    arrivals, access, capacity, tree, changes = script
    wide = Tree(dict.fromkeys(tree.bytes_per_s, math.inf), tree.parents, tree.homes)
    changes = [change for change in changes if not isinstance(change.client_id, str)]
    plain, order, _ = run_script(arrivals, access, capacity, changes=changes)
    as_tree, tree_order, _ = run_script(
        arrivals, access, capacity, changes=changes, make_link=tree_link(wide)
    )
    assert tree_order == order
    for one, other in zip(plain, as_tree, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9)


def test_long_random_load_agrees_with_the_naive_twin_and_leaves_nothing_behind():
    random_ = random.Random(5)
    names = [f"edge{k}" for k in range(8)]
    parents = {name: random_.choice([None, *names[:i]]) for i, name in enumerate(names)}
    tree = Tree(
        {name: random_.choice([4.0, 9.0, 20.0]) for name in names},
        parents,
        {k: random_.choice([None, *names]) for k in range(20)},
    )
    access = {k: random_.choice([1.0, 3.0, 9.0, 40.0]) for k in range(20)}
    arrivals, at_s = [], 0.0
    for _ in range(250):
        at_s += random_.expovariate(1.0)
        arrivals.append(Arrival(random_.randrange(20), at_s, random_.expovariate(1 / 25)))
    actual, _, link = run_script(arrivals, access, 30.0, make_link=tree_link(tree))
    for (end_s, _), (naive_end_s, _) in zip(actual, simulate(arrivals, access, 30.0, tree=tree), strict=True):
        assert end_s == pytest.approx(naive_end_s, rel=1e-7)
    assert not link._clients
    for node in (link._root, *link._nodes.values()):
        assert node.passing_units == node.merged_flows == node.num_open == 0
        assert not (node.groups or node.places)


def test_moves_per_change_do_not_grow_with_the_number_of_flows():
    def pushes_per_flow(n):
        timeline = Played()
        edges = {f"edge{k}": TreeEdge(30.0 * n / 8) for k in range(8)}
        link = TreeLink(timeline.queue, 160.0 * n / 8, edges, lambda client_id: f"edge{client_id % 8}")
        for k in range(n):
            link.start(k, 1000.0 + k % 97, 5.0 + k % 61, lambda flow: None)
        timeline.run()
        nodes = (link._root, *link._nodes.values())
        queues = [queue for node in nodes for queue in (node.passing, node.merged, node.by_mark)]
        return (sum(queue.num_pushed for queue in queues) + link._finishes.num_pushed) / n

    few, many = pushes_per_flow(1_000), pushes_per_flow(8_000)
    assert many == pytest.approx(few, rel=0.25)
    assert few < 60  # recomputing every flow would be hundreds
