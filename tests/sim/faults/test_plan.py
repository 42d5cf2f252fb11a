"""Faults on purpose: windows, targets, laws and purity, and what they do to availability, links and replies."""

import asyncio
import json
import math
import statistics
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fedsim.errors import Deadlock, ScenarioError
from fedsim.scenario.docs import scenario_page
from fedsim.scenario.read import scenario_from
from fedsim.sim import clock
from fedsim.sim.devices.availability import availability
from fedsim.sim.devices.availability_config import AvailabilityConfig
from fedsim.sim.devices.presence import AlwaysOn
from fedsim.sim.devices.sessions import Sessions
from fedsim.sim.faults.config import FaultConfig
from fedsim.sim.faults.plan import Faults, Window, WithCrashes
from fedsim.sim.faults.windows import AnyOf
from fedsim.sim.network import wire
from fedsim.sim.network.config import ServerLinkConfig
from tests.samples.worlds import Timetable

SETTINGS = TypeAdapter(list[FaultConfig])
CLASSES = ("phone", "phone", "laptop", "phone", "laptop", "phone")
MORNING = {"kind": "crash", "at": "10 s", "for": "5 s"}
OFTEN = {"kind": "crash", "hazard": "6 /min", "for": "5 s"}
REWARDS = wire.Rewards(wire.pack_id(7), (0.0, 0.25, 0.5, 1.0))


def faults(*raw, seed=0, classes=CLASSES):
    return Faults(SETTINGS.validate_json(json.dumps(raw)), seed, classes)


def struck(*raw, seed=0, classes=CLASSES):
    """Whom a fault strikes at its first instant."""
    return [window.client_id for window in faults(*raw, seed=seed, classes=classes).windows(1.0)]


# When.


def test_a_fault_that_comes_once_holds_from_its_instant_until_its_end_and_not_at_it():
    source = faults(MORNING)
    assert [source.is_crashed(0, at_s) for at_s in (0.0, 9.999, 10.0, 14.999, 15.0)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert [source.next_crash_change(0, at_s) for at_s in (0.0, 10.0, 12.0, 15.0)] == [
        10.0,
        15.0,
        15.0,
        math.inf,
    ]


def test_without_a_length_it_holds_to_the_end():
    source = faults({"kind": "crash", "at": "10 s"})
    assert source.is_crashed(0, 1e9)
    assert source.next_crash_change(0, 10.0) == math.inf
    assert source.windows(100.0)[0] == Window("crash", 0, 10.0, 100.0)


def test_faults_that_overlap_or_touch_are_one_crash():
    source = faults(MORNING, MORNING | {"at": "14 s"}, MORNING | {"at": "19 s"})
    assert source.next_crash_change(0, 0.0) == 10.0
    assert source.next_crash_change(0, 10.0) == 24.0
    assert source.next_crash_change(0, 24.0) == math.inf


def test_a_crash_without_end_ends_all_changes_whatever_else_would_come():
    source = faults(OFTEN, {"kind": "crash", "at": "10 s"})
    assert source.next_crash_change(0, 10.0) == math.inf


def test_a_hazard_of_zero_never_strikes():
    source = faults({"kind": "crash", "hazard": "0 /s", "for": "5 s"})
    assert source.next_crash_change(0, 0.0) == math.inf
    assert source.windows(1e9) == []


def test_nobody_is_struck_by_a_hazard_at_time_0():
    assert not any(faults(OFTEN, seed=seed).is_crashed(0, 0.0) for seed in range(50))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e4)), min_size=1, max_size=30), st.randoms())
def test_answers_do_not_depend_on_the_order_of_questions(questions, shuffler):
    source = faults(OFTEN, MORNING)
    expected = {q: (source.is_crashed(*q), source.next_crash_change(*q)) for q in questions}
    shuffler.shuffle(questions)
    fresh = faults(OFTEN, MORNING)
    assert all((fresh.is_crashed(*q), fresh.next_crash_change(*q)) == expected[q] for q in questions)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.floats(0, 1e4))
def test_the_state_holds_until_the_next_change_and_flips_there(client_id, at_s):
    source = faults(OFTEN, OFTEN | {"for": "2 s"}, MORNING)
    change_s = source.next_crash_change(client_id, at_s)
    assert change_s > at_s
    assert source.is_crashed(client_id, math.nextafter(change_s, 0)) == source.is_crashed(client_id, at_s)
    assert source.is_crashed(client_id, change_s) != source.is_crashed(client_id, at_s)


def test_the_share_of_time_struck_and_the_number_of_strikes_are_those_of_a_renewal_process():
    """Rate .1 /s, 5 s each: share .1 * 5 / 1.5 = 1/3, one strike in 15 s; 400 clients, 3,000 s after the first 500."""
    source = faults(OFTEN, classes=("phone",) * 400)
    shares, counts = [0.0] * 400, [0] * 400
    for window in source.windows(3500.0):
        begin_s, end_s = max(window.start_at_s, 500.0), window.end_at_s
        shares[window.client_id] += max(end_s - begin_s, 0.0) / 3000.0
        counts[window.client_id] += window.start_at_s >= 500.0
    for sample, expected in ((shares, 1 / 3), (counts, 200.0)):
        four_errors = 4 * statistics.stdev(sample) / math.sqrt(len(sample))
        assert abs(statistics.fmean(sample) - expected) < four_errors


def test_first_strikes_are_exponential_in_time():
    """P(no strike by t) = exp(-t / 10 s): at the quartiles of 2,000 clients, within four standard errors."""
    source = faults(OFTEN, classes=("phone",) * 2000)
    firsts = sorted(source.next_crash(client_id, 0.0) for client_id in range(2000))
    for share in (0.25, 0.5, 0.75):
        by_then = sum(first <= -10 * math.log(1 - share) for first in firsts) / 2000
        assert abs(by_then - share) < 4 * math.sqrt(share * (1 - share) / 2000)


def test_a_higher_hazard_brings_the_first_strike_forward_in_proportion():
    rare, often = faults(OFTEN | {"hazard": "3 /min"}), faults(OFTEN)
    for client_id in range(6):
        assert rare.next_crash(client_id, 0.0) == pytest.approx(2 * often.next_crash(client_id, 0.0))


def test_one_more_fault_or_client_changes_no_others_luck():
    alone = faults(OFTEN)
    crowded = faults(
        {"kind": "hang", "hazard": "1 /s", "for": "1 s"}, OFTEN, OFTEN, classes=(*CLASSES, "laptop")
    )
    first = [w for w in alone.windows(200.0) if w.client_id == 3]
    assert first
    assert set(first) <= {w for w in crowded.windows(200.0) if w.kind == "crash" and w.client_id == 3}


def test_a_device_that_is_practically_always_struck_costs_no_endless_search():
    dense = [{"kind": "crash", "hazard": "1000000 /s", "for": length} for length in ("1 s", "1.1 s", "1.7 s")]
    source = faults(*dense, classes=("phone",))
    assert source.next_crash_change(0, 1.0) == math.inf


# Whom.


def test_without_a_target_everybody_is_struck():
    assert struck({"kind": "crash", "at": "0 s"}) == [0, 1, 2, 3, 4, 5]


def test_clients_and_classes_name_whom_a_fault_strikes():
    assert struck({"kind": "hang", "at": "0 s", "clients": [5, 1]}) == [1, 5]
    assert struck({"kind": "hang", "at": "0 s", "classes": ["laptop"]}) == [2, 4]


def test_the_server_link_is_one_target_and_no_device_is_struck():
    source = faults({"kind": "partition", "at": "0 s", "server_link": True})
    assert source.windows(9.0) == [Window("partition", -1, 0.0, 9.0)]
    assert not source.has_link_faults
    assert source.factor(0, "up", 1.0) == 1.0


def test_a_share_is_rounded_up_and_a_larger_one_strikes_the_same_and_more():
    chosen = [
        struck({"kind": "hang", "at": "0 s", "share": share}, classes=("phone",) * 10)
        for share in (0.01, 0.3, 0.31, 0.7, 1.0)
    ]
    assert [len(ids) for ids in chosen] == [1, 3, 4, 7, 10]
    assert all(set(few) <= set(more) for few, more in pairwise(chosen))


def test_a_share_that_is_a_whole_number_of_devices_is_not_rounded_up_by_its_binary_fraction():
    assert 0.07 * 100 > 7
    assert len(struck({"kind": "hang", "at": "0 s", "share": 0.07}, classes=("phone",) * 100)) == 7


def test_a_share_of_classes_is_a_share_of_their_devices():
    ids = struck({"kind": "hang", "at": "0 s", "classes": ["phone"], "share": 0.5})
    assert len(ids) == 2
    assert all(CLASSES[client_id] == "phone" for client_id in ids)


def test_every_seed_chooses_its_own_share_and_every_device_is_as_likely():
    """A share of .3 of 10 devices, 1,000 seeds: each device in 300 of them, within four standard errors."""
    counts = [0] * 10
    for seed in range(1000):
        for client_id in struck(
            {"kind": "hang", "at": "0 s", "share": 0.3}, seed=seed, classes=("phone",) * 10
        ):
            counts[client_id] += 1
    assert all(abs(count - 300) < 4 * math.sqrt(1000 * 0.3 * 0.7) for count in counts)


def test_a_client_or_a_class_that_there_is_not_is_refused_with_its_place():
    with pytest.raises(
        ScenarioError, match=r"faults\.1\.clients names client 6, but there are 6 clients; must be 0 to 5"
    ):
        faults(MORNING, MORNING | {"clients": [2, 6]})
    with pytest.raises(
        ScenarioError, match=r"faults\.0\.classes names 'watch', .* must be one of laptop, phone"
    ):
        faults(MORNING | {"classes": ["watch"]})


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        ({"kind": "crash"}, "says not when"),
        ({"kind": "crash", "hazard": "1 /h"}, "hazard needs for"),
        (MORNING | {"hazard": "1 /h"}, "not both"),
        (MORNING | {"clients": []}, "different client ids"),
        (MORNING | {"clients": [1, 1]}, "different client ids"),
        (MORNING | {"clients": [-1]}, "different client ids"),
        (MORNING | {"classes": []}, "at least one device class"),
        (MORNING | {"clients": [1], "share": 0.5}, "either clients or classes and share"),
        (MORNING | {"share": 0.0}, "greater than 0"),
        (MORNING | {"for": "0 s"}, "greater than zero"),
        (MORNING | {"server_link": True}, "not permitted"),
        ({"kind": "hang", "at": 10}, "has no unit"),
        ({"kind": "slow_link", "at": "1 s"}, "Field required"),
        ({"kind": "slow_link", "at": "1 s", "factor": 0.0}, "greater than 0"),
        (
            {"kind": "partition", "at": "1 s", "server_link": True, "clients": [0]},
            "server_link: true is the target",
        ),
        ({"kind": "late_reply"}, "Field required"),
        ({"kind": "duplicate_reply", "probability": 1.5}, "less than or equal to 1"),
        ({"kind": "wrong_length", "by": 0}, "must not be 0"),
        ({"kind": "explosion", "at": "1 s"}, "does not match any of the expected tags"),
    ],
)
def test_an_impossible_fault_is_refused(raw, complaint):
    with pytest.raises(ValidationError, match=complaint):
        faults(raw)


def test_settings_read_back_what_they_wrote():
    raw = [MORNING, OFTEN | {"share": 0.5}, {"kind": "late_reply", "delay": "3 s", "probability": 0.25}]
    read = SETTINGS.validate_python(raw)
    assert SETTINGS.validate_json(SETTINGS.dump_json(read)) == read
    assert b'"for":"5 s"' in SETTINGS.dump_json(read)


# Crashes.


def test_a_crashed_device_is_away_and_says_why():
    source = WithCrashes(AlwaysOn(), faults(MORNING | {"clients": [1]}))
    assert source.is_on(0, 12.0)
    assert not source.is_on(1, 12.0)
    assert (source.cause(1, 12.0), source.cause(0, 12.0), source.cause(1, 15.0)) == (
        "fault: crash",
        None,
        None,
    )
    assert source.intervals(1, 0.0, 30.0) == [(0.0, 10.0), (15.0, 30.0)]


def test_a_crash_while_away_changes_nothing_until_the_device_would_be_back():
    """There 0..8 and 12..30, dead 10..15: there 0..8 and 15..30."""
    source = WithCrashes(Timetable({0: [(0.0, 8.0), (12.0, 30.0)]}), faults(MORNING))
    assert source.next_change(0, 0.0) == 8.0
    assert source.next_change(0, 8.0) == 15.0
    assert source.next_change(0, 15.0) == 30.0
    assert source.intervals(0, 0.0, 40.0) == [(0.0, 8.0), (15.0, 30.0)]


def test_who_has_left_or_died_for_good_never_changes_again():
    left = WithCrashes(Timetable({0: [(0.0, 8.0)]}), faults(OFTEN))
    assert left.next_change(0, 8.0) == math.inf
    sessions = availability(SESSIONS, 0)
    died = WithCrashes(sessions, faults({"kind": "crash", "at": "10 s"}))
    assert died.next_change(0, 10.0) == math.inf


class Counted:
    """A schedule or an availability that comes and goes every second, or holds for ever, and counts how often it is asked."""

    def __init__(self, *, changes):
        self.targets, self.changes, self.num_asked = (0,), changes, 0

    def is_active(self, target, at_s):
        return not self.changes or bool(int(at_s) % 2)

    def is_on(self, client_id, at_s):
        return self.changes and bool(int(at_s) % 2)

    def next_change(self, target, at_s):
        self.num_asked += 1
        return math.floor(at_s) + 1.0 if self.changes else math.inf


def test_nobody_searches_for_the_end_of_what_has_none():
    toggling, gone = Counted(changes=True), Counted(changes=False)
    assert AnyOf([toggling, gone]).next_change(0, 5.0) == math.inf
    assert toggling.num_asked == 1
    assert WithCrashes(toggling, faults({"kind": "crash", "at": "0 s"})).next_change(0, 5.0) == math.inf
    assert WithCrashes(gone, faults(OFTEN)).next_change(0, 5.0) == math.inf
    assert (toggling.num_asked, gone.num_asked) == (2, 2)


SESSIONS = TypeAdapter(AvailabilityConfig).validate_python(
    {"kind": "sessions", "mean_on": "20 s", "mean_off": "10 s"}
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5), st.floats(0, 1e3), st.floats(0, 300))
def test_presence_under_crashes_is_presence_without_the_crashes(client_id, start_s, length_s):
    crashing = faults(OFTEN)
    inner = availability(SESSIONS, 0)
    assert isinstance(inner, Sessions)
    source = WithCrashes(inner, crashing)
    whole = source.intervals(client_id, start_s, start_s + length_s)
    middles = [(a + b) / 2 for a, b in whole]
    assert all(source.is_on(client_id, at_s) for at_s in middles)
    lost = 0.0
    for a, b in inner.intervals(client_id, start_s, start_s + length_s):
        for window in crashing.windows(b):
            if window.client_id == client_id:
                lost += max(min(b, window.end_at_s) - max(a, window.start_at_s), 0.0)
    there = math.fsum(b - a for a, b in inner.intervals(client_id, start_s, start_s + length_s))
    assert math.fsum(b - a for a, b in whole) == pytest.approx(there - lost, abs=1e-6)
    change_s = source.next_change(client_id, start_s)
    assert source.is_on(client_id, change_s) != source.is_on(client_id, start_s)
    assert source.is_on(client_id, math.nextafter(change_s, 0)) == source.is_on(client_id, start_s)


def test_the_next_crash_is_now_for_a_dead_device():
    source = faults(MORNING)
    assert [source.next_crash(0, at_s) for at_s in (3.0, 12.0, 15.0)] == [10.0, 12.0, math.inf]


# Hangs and links.


def test_a_hung_device_is_there():
    source = faults({"kind": "hang", "at": "10 s", "for": "5 s"})
    assert source.has_hangs
    assert not source.has_crashes
    assert [source.is_hung(0, at_s) for at_s in (9.0, 10.0, 15.0)] == [False, True, False]
    assert source.next_hang_change(0, 10.0) == 15.0
    assert not source.is_crashed(0, 12.0)


def test_factors_of_links_multiply_each_in_its_direction():
    source = faults(
        {"kind": "slow_link", "at": "0 s", "factor": 0.5},
        {"kind": "slow_link", "at": "5 s", "factor": 0.1, "direction": "up", "clients": [1]},
        {"kind": "partition", "at": "9 s", "for": "1 s", "direction": "down"},
    )
    assert (source.factor(1, "up", 6.0), source.factor(1, "down", 6.0), source.factor(0, "up", 6.0)) == (
        0.05,
        0.5,
        0.5,
    )
    assert (source.factor(0, "down", 9.5), source.factor(0, "up", 9.5)) == (0.0, 0.5)
    assert [source.next_change(1, at_s) for at_s in (0.0, 5.0, 9.0, 10.0)] == [5.0, 9.0, 10.0, math.inf]


def test_a_link_that_is_cut_off_for_good_has_no_change_to_wait_for():
    again = {"kind": "slow_link", "hazard": "1 /s", "for": "1 s", "factor": 0.5}
    source = faults(again, {"kind": "partition", "at": "5 s"})
    assert source.next_change(0, 1.0) < math.inf
    assert source.next_change(0, 5.0) == math.inf


class Link:
    """Writes down what its capacity is set to, and when."""

    def __init__(self, loop):
        self.loop, self.set_to = loop, []

    def set_capacity(self, capacity_bytes_per_s):
        self.set_to.append((self.loop.time(), capacity_bytes_per_s))


def capacities(*raw, until_s=100.0, up=10.0, down=math.inf):
    """What faults set the server's link to: (instant, bytes/s), down and up."""

    async def main(loop):
        links = Link(loop), Link(loop)
        rates = ServerLinkConfig.model_construct(up=up, down=down)
        faults(*raw).arm(loop, *links, rates)
        loop.at(until_s, lambda: None)
        await asyncio.sleep(until_s)
        return links[0].set_to, links[1].set_to

    return clock.run(main)


def test_the_server_link_changes_its_capacity_at_the_instants_of_its_faults():
    down, up = capacities(
        {"kind": "partition", "at": "10 s", "for": "5 s", "server_link": True},
        {"kind": "slow_link", "at": "12 s", "factor": 0.5, "server_link": True, "direction": "up"},
        {"kind": "partition", "at": "20 s", "for": "5 s"},
    )
    assert down == [(0.0, math.inf), (10.0, 0.0), (15.0, math.inf)]
    assert up == [(0.0, 10.0), (10.0, 0.0), (12.0, 0.0), (15.0, 5.0)]


def test_faults_of_devices_leave_the_server_link_alone():
    assert capacities({"kind": "partition", "at": "10 s"}, MORNING) == ([], [])


@pytest.mark.parametrize(
    ("awake_at_s", "ends_at"), [(0.0, "at 0 s"), (10.0, "at 15 s")], ids=["before", "inside"]
)
def test_a_run_waits_for_the_end_of_a_partition_of_the_server_link_but_not_for_its_beginning(
    awake_at_s, ends_at
):
    async def main(loop):
        rates = ServerLinkConfig.model_construct(up=1.0, down=1.0)
        partition = {"kind": "partition", "at": "10 s", "for": "5 s", "server_link": True}
        faults(partition).arm(loop, Link(loop), Link(loop), rates)
        loop.at(awake_at_s, lambda: None)
        await loop.create_future()

    with pytest.raises(Deadlock, match=ends_at):
        clock.run(main)


# For the records.


def test_windows_are_in_order_and_cut_at_the_end_and_replies_have_none():
    source = faults(
        {"kind": "hang", "at": "20 s", "for": "100 s", "clients": [2]},
        MORNING | {"clients": [0, 1]},
        {"kind": "slow_link", "at": "30 s", "factor": 0.5, "clients": [0]},
        {"kind": "slow_link", "at": "31 s", "factor": 0.5, "clients": [1]},
        {"kind": "duplicate_reply"},
    )
    assert source.windows(30.0) == [
        Window("crash", 0, 10.0, 15.0),
        Window("crash", 1, 10.0, 15.0),
        Window("hang", 2, 20.0, 30.0),
        Window("slow_link", 0, 30.0, 30.0),
    ]


def test_what_a_client_met_in_a_span_has_names():
    source = faults(
        MORNING | {"clients": [0]},
        {"kind": "partition", "at": "12 s", "for": "1 s", "server_link": True},
        {"kind": "hang", "at": "40 s", "clients": [0]},
    )
    assert source.names(0, 0.0, 9.0) == ()
    assert source.names(0, 0.0, 20.0) == ("crash", "partition")
    assert source.names(1, 0.0, 50.0) == ("partition",)
    assert source.names(0, 14.0, 40.0) == ("crash", "hang")


# As a scenario writes them.


def scenario(*raw):
    base = {
        "name": "t",
        "fidelity": "timing",
        "stop": {"updates": 1},
        "clients": {"phone": 1},
        "protocol": "fedgrpo",
    }
    return scenario_from(base | {"faults": list(raw)})


def test_a_length_is_written_as_for_in_files_pages_and_errors():
    resolved = scenario(MORNING).resolved()
    assert resolved["faults"][0]["for"] == "5 s"
    assert scenario_from(resolved).faults == scenario(MORNING).faults
    assert "  for: 5 s\n" in scenario(MORNING).to_yaml()
    assert "\n`for` | like `30 s` | none |" in scenario_page()
    with pytest.raises(
        ScenarioError, match=r"faults\.0\.fro is not a key of faults\.0; did you mean 'for'\?"
    ):
        scenario(MORNING | {"fro": "1 s"})
    with pytest.raises(
        ScenarioError, match=r"lasts_s is not a key of faults\.0.*\(allowed: kind, at, hazard, for,"
    ):
        scenario(MORNING | {"lasts_s": "1 s"})
    with pytest.raises(
        ScenarioError, match=r"faults\.0\.kind is 'crsh'; must be one of .*; did you mean 'crash'\?"
    ):
        scenario({"kind": "crsh"})
