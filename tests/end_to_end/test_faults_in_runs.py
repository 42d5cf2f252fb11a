"""Faults on purpose in whole runs (timing fidelity): each is on record with its name, and none makes a run hang."""

from collections import Counter

import polars as pl
import pytest

from fedsim.errors import Deadlock, ScenarioError
from fedsim.experiment import run as experiment
from fedsim.experiment.forecast.estimate import estimate
from fedsim.records import run as results
from fedsim.scenario.read import read_scenario, scenario_from

SMALL = {
    "name": "small",
    "fidelity": "timing",
    "stop": {"virtual": "60 s"},
    "protocol": {
        "name": "fedgrpo",
        "competence_floor": 0.0,
        "update": {"groups_per_update": 2, "in_flight": 2},
    },
    "models": {"bill_as": {"server": "Qwen2.5-1.5B", "clients": "Qwen2.5-0.5B"}},
    "text": {"question": 100, "rationale": {"median": 150, "p95": 400}, "answer": 8},
    "tasks": {"sizes": {"pool": 50}},
    "clients": {"laptop": 4},
}
DEADLINE = {"policy": "deadline", "deadline": "20 s"}


def small(*faults, stragglers=None, **keys):
    protocol = SMALL["protocol"] | ({"stragglers": stragglers} if stragglers else {})
    return scenario_from(SMALL | {"protocol": protocol, "faults": list(faults)} | keys)


def played(folder, scenario):
    return experiment.run(scenario, out=folder / "run")


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """The shipped scenario that has one of each."""
    return played(tmp_path_factory.mktemp("faults"), read_scenario("faults"))


def causes(run, **columns):
    """How often each cause stands in the outcomes whose columns have these values."""
    rows = run.records["outcomes"].filter(*[pl.col(name) == value for name, value in columns.items()])
    return Counter(rows["cause"].to_list())


def struck(run, kind):
    rows = run.records["faults"]
    return rows.filter((pl.col("kind") == kind) & (pl.col("request_id") >= 0))


def test_a_crash_loses_what_is_under_way_on_the_device_and_is_the_cause(tour):
    lost = tour.records["outcomes"].filter(pl.col("cause") == "fault: crash")
    assert set(lost["status"]) <= {"dropped", "cut", "offline"}
    assert lost.filter(pl.col("ended_at_s") == 120.0).height > 0
    presence = tour.records["presence"].filter(pl.col("client_id") == lost["client_id"][-1])
    assert presence.height > 1


@pytest.mark.parametrize("kind", ["hang", "partition", "slow_link", "late_reply"])
def test_what_makes_a_reply_late_is_its_cause(tour, kind):
    assert any(kind in cause for cause in causes(tour, status="late"))


def test_every_struck_reply_that_cannot_be_used_is_refused_with_its_fault_as_cause(tour):
    for kind, words in (("non_finite_reward", "nan"), ("wrong_length", "7 rewards for 8 candidates")):
        replies = struck(tour, kind)
        assert replies.height > 10
        ends = tour.records["outcomes"].join(replies, on="request_id")
        refused = ends.filter(pl.col("status") == "failed")
        assert refused.height + ends.filter(pl.col("status") == "late").height == replies.height
        assert all(words in cause and f"(fault: {kind})" in cause for cause in refused["cause"])


def test_a_corrupt_reward_that_looks_like_one_is_used_and_stands_in_the_records(tour):
    """Nothing tells an inverted reward from a true one but the record of the fault."""
    inverted = struck(tour, "corrupt_reward").filter(pl.col("start_at_s") < 1200.0)
    ends = tour.records["outcomes"].join(inverted, on="request_id")
    assert inverted.height > 10
    assert set(ends["status"]) <= {"ok", "late"}


def test_a_duplicated_reply_travels_twice_and_is_charged_twice(tour):
    replies = struck(tour, "duplicate_reply")
    copies = tour.records["transfers"].filter(pl.col("fate") == "duplicate")
    assert replies.height > 10
    assert sorted(copies["request_id"]) == sorted(replies["request_id"])
    originals = tour.records["transfers"].filter(
        (pl.col("direction") == "up") & (pl.col("fate") != "duplicate") & (pl.col("purpose") == "reward")
    )
    both = copies.join(originals, on="request_id")
    assert both.height == copies.height
    assert both["wire_bytes"].to_list() == both["wire_bytes_right"].to_list()


def test_windows_of_devices_and_links_stand_in_the_records_as_the_scenario_says(tour):
    rows = tour.records["faults"].filter(pl.col("request_id") < 0)
    at = {(row["kind"], row["start_at_s"], row["end_at_s"]) for row in rows.iter_rows(named=True)}
    assert {
        ("crash", 120.0, 180.0),
        ("hang", 240.0, 330.0),
        ("partition", 360.0, 450.0),
        ("partition", 480.0, 570.0),
        ("slow_link", 600.0, 690.0),
        ("slow_link", 720.0, 810.0),
    } <= at
    server = rows.filter(pl.col("client_id") == -1)
    assert server["start_at_s"].to_list() == [480.0, 720.0]
    assert rows.filter(pl.col("kind") == "hang").height == 6


def test_nothing_arrives_over_the_server_link_while_it_is_cut_off(tour):
    """Flows end, and new ones begin, only outside (480 s, 570 s); what is on its way waits."""
    ends = tour.records["transfers"].filter(pl.col("fate") != "cut")["end_at_s"]
    assert ends.filter((ends > 480.0) & (ends < 570.0)).len() == 0
    assert ends.filter((ends > 570.0) & (ends < 600.0)).len() > 0


def test_a_fault_that_never_strikes_changes_no_record(tmp_path):
    never = {"hazard": "0 /s", "for": "5 s"}
    kinds = ["crash", "hang", "partition", {"kind": "slow_link", "factor": 0.5}]
    idle = [(kind if isinstance(kind, dict) else {"kind": kind}) | never for kind in kinds]
    without = played(tmp_path / "a", small())
    with_them = played(tmp_path / "b", small(*idle, {"kind": "wrong_length", "probability": 0.0}))
    assert without.records["outcomes"].height > 10
    for name, rows in without.records.items():
        assert rows.equals(with_them.records[name]), name


def test_a_fault_changes_nothing_before_it_begins(tmp_path):
    hang = {"kind": "hang", "at": "30 s"}
    runs = [
        played(tmp_path / str(len(faults)), small(*faults, stragglers=DEADLINE)) for faults in ([], [hang])
    ]
    before, same = (
        run.records["outcomes"].filter(pl.col("ended_at_s") < 30.0).sort("request_id") for run in runs
    )
    assert before.height > 10
    assert before.equals(same)
    assert not runs[0].records["outcomes"].equals(runs[1].records["outcomes"])


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "hang", "at": "10 s"},
        {"kind": "partition", "at": "10 s"},
        {"kind": "partition", "at": "10 s", "direction": "up", "server_link": True},
    ],
    ids=["hang", "partition", "partition of the server's link"],
)
def test_waiting_for_everybody_in_a_hang_or_partition_without_end_says_so_at_once(tmp_path, fault):
    with pytest.raises(Deadlock, match=r"^at [1-3]\d(\.\d+)? s \d+ tasks wait and nothing can wake them"):
        played(tmp_path, small(fault, stop={"updates": 100}))
    run = results.load(tmp_path / "run")
    assert run.manifest["status"] == "failed"
    assert run.records["faults"]["kind"].to_list()[0] == fault["kind"]


def test_a_stop_in_virtual_time_ends_a_run_in_which_nothing_moves_any_more(tmp_path):
    run = played(tmp_path, small({"kind": "hang", "at": "10 s"}))
    assert run.summary["virtual_s"] == 60.0
    stuck = run.records["outcomes"].filter(pl.col("cause") == "fault: hang")
    assert stuck.height > 0


def test_a_temporary_partition_only_costs_its_time(tmp_path):
    """Waiting for everybody, every group is trained on in the end, and requests on their way wait 20 s at most."""
    run = played(tmp_path, small({"kind": "partition", "at": "10 s", "for": "20 s", "server_link": True}))
    assert set(run.records["outcomes"]["status"]) <= {"ok", "late"}
    assert run.records["updates"].height > 0


@pytest.mark.parametrize(
    ("fault", "keys", "complaint"),
    [
        (
            {"kind": "crash", "at": "1 s", "clients": [4]},
            {},
            "client 4, but there are 4 clients; must be 0 to 3",
        ),
        ({"kind": "crash", "at": "1 s", "classes": ["phone"]}, {}, "names 'phone', but no client is one"),
        (
            {"kind": "wrong_length"},
            {"protocol": "fedpetuning"},
            "no client of protocol fedpetuning sends rewards",
        ),
        (
            {"kind": "corrupt_reward"},
            {"protocol": {"name": "fedgrpo", "wire": "answers_up"}},
            "no client of protocol fedgrpo sends rewards",
        ),
        (
            {"kind": "slow_link", "at": "1 s", "factor": 0.5, "server_link": True},
            {"network": {"server_link": {"up": "1 Mbit/s", "down": "unlimited"}}},
            "slows the server's link down, but network.server_link.down is unlimited",
        ),
    ],
    ids=["client", "class", "protocol", "wire", "unlimited"],
)
def test_a_fault_that_cannot_happen_is_refused_before_the_run_and_by_the_check(
    tmp_path, fault, keys, complaint
):
    scenario = scenario_from(SMALL | {"faults": [fault]} | keys)
    with pytest.raises(ScenarioError, match=rf"faults\.0.* {complaint}"):
        played(tmp_path, scenario)
    with pytest.raises(ScenarioError, match=complaint):
        estimate(scenario)


def test_a_crash_loses_the_work_also_where_leaving_only_suspends_it(tmp_path):
    """The session outlasts the run, so that 10 s is the crash's instant alone."""
    rarely = {"kind": "sessions", "mean_on": "10000 h", "mean_off": "1 s", "on_cut": "suspend"}
    run = played(tmp_path, small({"kind": "crash", "at": "10 s", "for": "5 s"}, availability=rarely))
    lost = run.records["outcomes"].filter(pl.col("ended_at_s") == 10.0)
    assert lost.height > 0
    assert set(lost["cause"]) == {"fault: crash"}
    assert set(lost["status"]) <= {"dropped", "cut"}
