"""Queueing theory on shared links: processor sharing, Little's law, insensitivity; all with stated confidence."""

import math
import random
import statistics

import pytest

from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.tree import TreeEdge, TreeLink
from tests.sim.network.test_link import Played

RUNS, FLOWS, WARM_UP = 20, 2500, 300
T_QUANTILE = 3.17  # two-sided 99.5% of Student's t with 19 degrees of freedom

LAWS = {
    "exponential": lambda random_: random_.expovariate(1.0),
    "constant": lambda random_: 1.0,
    "bimodal": lambda random_: random_.choice([0.2] * 9 + [8.2]),  # squared coefficient of variation 5.76
}


def shared_link(timeline):
    return SharedLink(timeline, 1.0)


def one_edge(timeline):
    return TreeLink(timeline, math.inf, {"edge": TreeEdge(1.0)}, lambda client_id: "edge")


def load(law, rho, seed, make_link=shared_link):
    """Poisson arrivals of mean size 1 at a link of rate 1: (size, sojourn) by flow, and the numbers found on arrival."""
    random_ = random.Random(seed)
    timeline = Played()
    link = make_link(timeline.queue)
    rows, found = {}, []

    def begin(k, size):
        found.append(link.num_open_flows)
        start_s = timeline.time()
        link.start(k, size, 1e9, lambda flow: rows.__setitem__(k, (size, timeline.time() - start_s)))

    at_s = 0.0
    for k in range(FLOWS):
        at_s += random_.expovariate(rho)
        size = LAWS[law](random_)
        timeline.at(at_s, lambda k=k, size=size: begin(k, size))
    timeline.run()
    return [rows[k] for k in range(FLOWS)][WARM_UP:], found[WARM_UP:]


def interval(means):
    """Mean and half width of the 99.5% interval over independent runs."""
    return statistics.fmean(means), T_QUANTILE * statistics.stdev(means) / math.sqrt(len(means))


@pytest.mark.parametrize(
    ("law", "make_link"),
    [
        ("exponential", shared_link),
        ("constant", shared_link),
        ("bimodal", shared_link),
        ("bimodal", one_edge),
    ],
)
def test_mean_sojourn_of_poisson_arrivals_is_that_of_m_g_1_ps_whatever_the_law_of_sizes(law, make_link):
    # E[T] = E[S] / (1 - rho) = 2.5; by PASTA an arrival finds rho / (1 - rho) = 1.5 flows.
    rho, means, numbers = 0.6, [], []
    for run in range(RUNS):
        rows, found = load(law, rho, f"{law}-{run}", make_link)
        means.append(statistics.fmean(sojourn_s for _, sojourn_s in rows))
        numbers.append(statistics.fmean(found))
    for (mean, half_width), expected in (
        (interval(means), 1 / (1 - rho)),
        (interval(numbers), rho / (1 - rho)),
    ):
        assert abs(mean - expected) < half_width
        assert half_width < 0.25 * expected  # the test would notice an error of a quarter


def test_under_processor_sharing_a_flow_of_size_x_takes_x_over_one_minus_rho():
    # Conditional mean sojourn is linear in the size: short flows are not held up by long ones.
    rho, short, long = 0.5, [], []
    for run in range(RUNS):
        rows, _ = load("bimodal", rho, f"linear-{run}")
        short.append(statistics.fmean(sojourn_s / size for size, sojourn_s in rows if size < 1))
        long.append(statistics.fmean(sojourn_s / size for size, sojourn_s in rows if size > 1))
    for means in (short, long):
        mean, half_width = interval(means)
        assert abs(mean - 1 / (1 - rho)) < half_width < 0.5


def test_littles_law_holds_along_every_path_between_two_idle_instants():
    # The integral of the number of open flows over time = the sum of their sojourns, cut ones included.
    random_ = random.Random(3)
    timeline = Played()
    link = SharedLink(timeline.queue, 1.0)
    area, last = 0.0, (0.0, 0)
    sojourns = []

    def note():
        nonlocal area, last
        area += last[1] * (timeline.time() - last[0])
        last = (timeline.time(), link.num_open_flows)

    def ended(start_s):
        sojourns.append(timeline.time() - start_s)
        note()

    def begin(k, size, stay_s):
        start_s = timeline.time()
        flow = link.start(k % 9, size, 0.3, lambda flow: ended(start_s))
        note()

        def cut():
            if flow.is_open:
                link.cut(flow)
                ended(start_s)

        timeline.at(start_s + stay_s, cut)

    at_s = 0.0
    for k in range(800):
        at_s += random_.expovariate(0.9)
        begins = (k, random_.expovariate(1.0), random_.expovariate(0.2))
        timeline.at(at_s, lambda begins=begins: begin(*begins))
    timeline.run()
    assert link.num_open_flows == 0
    assert len(sojourns) == 800
    assert area == pytest.approx(math.fsum(sojourns), rel=1e-9)
