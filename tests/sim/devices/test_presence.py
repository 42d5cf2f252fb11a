"""Being there when several sources agree: outages of regions, joining late, leaving for good."""

import math
import statistics
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.availability_config import AvailabilityConfig
from fedsim.sim.devices.outages import Membership, Outages
from fedsim.sim.devices.presence import AllOf, AlwaysOn
from tests.samples.worlds import Timetable

SETTINGS = TypeAdapter(AvailabilityConfig)


class Stated(Timetable):
    """A timetable that says nothing about shares."""

    def share_of(self, client_id):
        return 0.5


def present(seed=0, **keys):
    return availability(SETTINGS.validate_python({"kind": "always", **keys}), seed)


def test_nothing_on_top_leaves_the_kind_alone():
    assert isinstance(present(), AlwaysOn)


def test_a_conjunction_worked_by_hand():
    both = AllOf([Stated({0: [(0, 10), (20, 30)]}), Stated({0: [(5, 25)]})])
    assert both.intervals(0, 0, 100) == [(5, 10), (20, 25)]
    assert [both.next_change(0, at_s) for at_s in (0, 5, 10, 24, 25)] == [5, 10, 20, 25, math.inf]
    assert both.share_of(0) == 0.25


def test_after_the_horizon_only_sources_are_asked_that_answer_at_once():
    """Outages every second, asked for the day years later on which a device has its next session, are walked one by one."""

    class Walks(Stated):
        def is_on(self, client_id, at_s):
            assert at_s <= 100, "walks beyond the horizon"
            return super().is_on(client_id, at_s)

    gone = Membership(None, 1.0, seed=0)
    leaves_at_s = gone.stay(0)[1]
    assert leaves_at_s < 50
    walking, rare = Walks({0: [(0, 1e12)]}), Walks({0: [(60, 70), (1e9, 2e9)]})
    assert AllOf([walking, rare], 100.0).next_change(0, 70.0) == 1e9
    assert AllOf([gone, walking, rare], 100.0, num_quick=1).next_change(0, leaves_at_s) == math.inf
    with pytest.raises(AssertionError, match="walks"):
        AllOf([walking, rare]).next_change(0, 70.0)


@st.composite
def timetables(draw):
    instants = sorted(draw(st.sets(st.integers(0, 60), max_size=10)))
    return Stated({0: list(zip(instants[::2], instants[1::2], strict=False))})


@settings(max_examples=100, deadline=None)
@given(st.lists(timetables(), min_size=1, max_size=3))
def test_a_conjunction_is_there_exactly_when_all_are_and_names_its_next_change(sources):
    both = AllOf(sources)
    states = [both.is_on(0, at_s) for at_s in range(70)]
    assert states == [all(source.is_on(0, at_s) for source in sources) for at_s in range(70)]
    for at_s in range(69):
        later = next((t for t in range(at_s + 1, 70) if states[t] != states[at_s]), math.inf)
        assert both.next_change(0, at_s) == later
    covered = {t for start, end in both.intervals(0, 0, 70) for t in range(start, end)}
    assert covered == {t for t in range(70) if states[t]}


def test_devices_of_a_region_are_away_together_and_others_are_not():
    # P(up) = 3/4. Within a region states are equal; between regions they are independent: correlation 0.
    source = present(outage={"regions": 3, "mean_between": "3 h", "mean_length": "1 h"})
    assert isinstance(source, AllOf)
    outages = Outages(SETTINGS.validate_python({"kind": "always", "outage": OUTAGE}).outage, 0)
    of_region = {outages.region_of(client_id): client_id for client_id in range(40)}
    assert set(of_region) == {0, 1, 2}
    for client_id in range(40):
        other = of_region[outages.region_of(client_id)]
        assert source.intervals(client_id, 0, 1e5) == source.intervals(other, 0, 1e5)
    # 4,000 instants 4 h apart, over five relaxation times of 45 min: nearly independent samples.
    times_s = [n * 4 * 3600.0 for n in range(4000)]
    states = {region: [float(source.is_on(k, t)) for t in times_s] for region, k in of_region.items()}
    for a, b in combinations(states.values(), 2):
        assert abs(statistics.correlation(a, b)) < 3.5 / math.sqrt(len(times_s))
    for states_of in states.values():
        assert abs(statistics.fmean(states_of) - 0.75) < 3.5 * math.sqrt(0.75 * 0.25 / len(times_s))


OUTAGE = {"regions": 3, "mean_between": "3 h", "mean_length": "1 h"}


def test_an_outage_multiplies_the_share_of_time():
    raw = {"kind": "sessions", "mean_on": "2 h", "mean_off": "1 h", "outage": OUTAGE}
    config = SETTINGS.validate_python(raw)
    source, span_s = availability(config, 1), 1e6
    assert source.share_of(0) == pytest.approx(2 / 3 * 3 / 4)
    shares = [math.fsum(b - a for a, b in source.intervals(k, 0, span_s)) / span_s for k in range(200)]
    # Regions are the independent units: the interval is that of their means.
    regions = Outages(config.outage, 1)
    means = [
        statistics.fmean(shares[k] for k in range(200) if regions.region_of(k) == region)
        for region in range(3)
    ]
    # sd of a region's share: sqrt(2 f (1 - f) tau / T), tau = 45 min; the sessions' part is averaged out.
    sd = 2 / 3 * math.sqrt(2 * 0.75 * 0.25 * 2700 / span_s)
    assert all(abs(mean - 0.5) < 3.9 * sd + 0.01 for mean in means)


def test_late_joiners_come_at_uniform_instants_and_the_others_are_there_from_the_start():
    n, source = 4000, present(join_within={"share": 0.25, "time": "2 h"})
    joins_s = [0.0 if source.is_on(k, 0.0) else source.next_change(k, 0.0) for k in range(n)]
    late_s = [join_s for join_s in joins_s if join_s > 0]
    assert abs(len(late_s) / n - 0.25) < 3.3 * math.sqrt(0.25 * 0.75 / n)
    assert max(late_s) < 7200
    assert abs(statistics.fmean(late_s) - 3600) < 3.3 * 7200 / math.sqrt(12 * len(late_s))
    assert all(source.is_on(k, 7200.0) and source.next_change(k, 7200.0) == math.inf for k in range(n))


def test_a_bare_time_to_join_means_everybody():
    source = present(join_within="1 h")
    assert not any(source.is_on(k, 0.0) for k in range(200))
    assert all(source.is_on(k, 3600.0) for k in range(200))


def test_devices_leave_for_good_after_exponential_stays():
    n, source = 4000, present(mean_stay="1 h")
    for at_s in (0.0, 1800.0, 7200.0):
        p = math.exp(-at_s / 3600)
        there = sum(source.is_on(k, at_s) for k in range(n)) / n
        assert abs(there - p) <= 3.3 * math.sqrt(p * (1 - p) / n)
    gone_s = source.next_change(0, 0.0)
    assert source.next_change(0, gone_s) == math.inf
    assert source.intervals(0, 0.0, 1e9) == [(0.0, gone_s)]


def test_a_departed_device_ends_its_sessions_although_those_would_go_on():
    raw = {"kind": "sessions", "mean_on": "10 min", "mean_off": "10 min", "mean_stay": "1 h"}
    source = availability(SETTINGS.validate_python(raw), 0)
    for client_id in range(50):
        assert source.next_change(client_id, 1e7) == math.inf
        assert not source.is_on(client_id, 1e7)


def test_a_stay_begins_when_the_device_joins():
    join = SETTINGS.validate_python({"kind": "always", "join_within": "100 d"}).join_within
    n = 3000
    stays_s = [leave - start for start, leave in (Membership(join, 60.0, 2).stay(k) for k in range(n))]
    assert abs(statistics.fmean(stays_s) - 60) < 3.3 * 60 / math.sqrt(n)


def test_spans_of_an_empty_stretch_are_none():
    assert AlwaysOn().intervals(0, 5.0, 5.0) == []
