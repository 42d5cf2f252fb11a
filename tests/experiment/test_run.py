"""A whole run (experiment/run.py) on stand-ins: the folder it leaves, what ends it, and what it refuses; and its estimate."""

from __future__ import annotations

import json
import re
import signal
from functools import partial

import pytest

import fedsim
from fedsim.errors import FederationError, LimitExceeded, ModelFileError, RunFolderError, ScenarioError
from fedsim.experiment import run as experiment
from fedsim.experiment.forecast.estimate import estimate
from fedsim.records.rows import RECORD_TYPES
from fedsim.records.run import load
from fedsim.scenario.read import scenario_from
from tests.samples.progress import AtUpdate


def scenario(**keys):
    """A small timing scenario; ``protocol__update={...}`` replaces a key of a key."""
    data = {
        "name": "small",
        "fidelity": "timing",
        "stop": {"updates": 6},
        "protocol": {
            "name": "fedgrpo",
            "num_neighbours": 5,
            "update": {"groups_per_update": 8, "in_flight": 16},
        },
        "tasks": {
            "domains": ["chain_sum", "gcd"],
            "sizes": {"private": 600, "auxiliary": 20, "pool": 60},
            "partition": {"kind": "iid"},
        },
        "clients": {"phone": 3, "laptop": 2},
    }
    for name, value in keys.items():
        outer, _, inner = name.partition("__")
        if inner:
            data[outer] = {**data[outer], inner: value}
        else:
            data[outer] = value
    return scenario_from(data)


def run(tmp_path, out="run", **keys):
    return experiment.run(scenario(**keys), out=tmp_path / out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("finished"))


# ------------------------------------------------------------------------------------------------------ the folder


def test_the_manifest_says_what_was_run_with_what_and_how_it_ended(finished):
    manifest = finished.manifest
    assert manifest["status"] == "finished"
    assert manifest["finished_at"] >= manifest["started_at"]
    assert scenario_from(manifest["scenario"]).resolved() == scenario().resolved()
    assert {"torch", "simpy", "python", "numpy"} <= set(manifest["versions"])
    assert manifest["model_hashes"] == {}


def test_the_summary_has_every_promised_number(finished):
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert summary == finished.summary
    promised = {
        "protocol", "seed", "virtual_s", "wall_s", "accuracy", "bytes", "requests", "updates", "staleness",
        "learning", "load", "records_sha256", "stopped_by",
    }  # fmt: skip
    assert promised <= set(summary)
    assert {"greedy", "pass_at_1", "pass_at_8", "by_domain"} <= set(summary["accuracy"])
    assert {"paper", "wire", "by_fate", "by_purpose"} <= set(summary["bytes"])
    assert (summary["protocol"], summary["updates"], summary["stopped_by"]) == ("fedgrpo", 6, "updates")
    assert summary["load"]["phone"]["requests"] > 0 and summary["load"]["server"]["busy_s"] > 0


def test_a_timing_run_reports_no_accuracy(finished):
    accuracy = finished.summary["accuracy"]
    assert [accuracy[name][when] for name in ("greedy", "pass_at_1") for when in ("initial", "final")] == [
        None
    ] * 4
    assert not (finished.folder / "policy").exists()


def test_totals_are_sums_over_the_records(finished):
    transfers, wire = finished.transfers, finished.summary["bytes"]["wire"]
    for direction, name in (("up", "uplink"), ("down", "downlink")):
        rows = transfers.filter(transfers["direction"] == direction)
        assert rows["wire_bytes"].sum() == wire[name] > 0
    assert transfers["paper_bytes"].sum() == finished.summary["bytes"]["paper"]["uplink"]
    assert len(finished.outcomes) == finished.summary["requests"]["total"]
    assert len(finished.records) == len(RECORD_TYPES)


def test_partition_and_clients_lie_in_the_folder_and_what_stand_ins_know_does_not(finished):
    table = (finished.folder / "partition.csv").read_text().splitlines()
    assert table[0] == "client_id,chain_sum,gcd"
    rows = [[int(value) for value in line.split(",")] for line in table[1:]]
    assert [row[0] for row in rows] == [0, 1, 2, 3, 4]
    assert sum(sum(row[1:]) for row in rows) == 600
    clients = json.loads((finished.folder / "clients.json").read_text())
    assert [client["device_class"] for client in clients] == ["phone"] * 3 + ["laptop"] * 2
    assert clients[0]["accuracy_by_domain"] == {"chain_sum": None, "gcd": None}
    assert not (finished.folder / "confidence_graph.json").exists()


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(finished):
    before = (finished.folder / "manifest.json").read_bytes()
    with pytest.raises(RunFolderError, match="already holds a run"):
        experiment.run(scenario(), out=finished.folder)
    assert (finished.folder / "manifest.json").read_bytes() == before


def test_without_a_name_for_it_the_folder_is_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [experiment.run(scenario(stop={"updates": 1})).folder for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/small-0-0", "runs/small-0-1"]


def test_fedsim_run_from_python_is_the_same(tmp_path, finished):
    again = fedsim.run(scenario(), out=tmp_path / "again")
    assert again.summary["records_sha256"] == finished.summary["records_sha256"]


def test_another_seed_gives_other_records(tmp_path, finished):
    other = run(tmp_path, seed=1)
    assert other.summary["records_sha256"] != finished.summary["records_sha256"]


# ------------------------------------------------------------------------------------------------ what ends a run


def test_virtual_time_ends_a_run_at_its_own_instant(tmp_path):
    ran = run(tmp_path, stop={"virtual": "1.5 s"})
    assert (ran.summary["stopped_by"], ran.summary["virtual_s"]) == ("virtual", 1.5)


def test_bytes_on_the_wire_end_a_run(tmp_path):
    ran = run(tmp_path, stop={"wire_bytes": "40 kB"})
    assert ran.summary["stopped_by"] == "wire_bytes"
    total = sum(ran.summary["bytes"]["wire"].values())
    assert 40_000 <= total < 80_000


def test_the_first_condition_ends_the_run(tmp_path):
    ran = run(tmp_path, stop={"updates": 2, "virtual": "1 h", "wire_bytes": "1 GiB"})
    assert (ran.summary["stopped_by"], ran.summary["updates"]) == ("updates", 2)


def test_after_the_end_no_request_starts_and_those_under_way_are_charged(finished):
    end_s = finished.summary["virtual_s"]
    assert finished.outcomes["sent_at_s"].max() <= end_s
    late = finished.outcomes.filter(finished.outcomes["ended_at_s"] > end_s)
    assert len(late) > 0 and set(late["status"]) == {"late"}
    assert finished.presence["end_at_s"].max() == end_s


def test_a_protocol_that_returns_ends_the_run(tmp_path):
    ran = run(tmp_path, protocol={"name": "zero_shot"})
    assert (ran.summary["stopped_by"], ran.summary["virtual_s"]) == ("protocol", 0.0)
    assert sum(ran.summary["bytes"]["wire"].values()) == 0


@pytest.mark.parametrize(
    "protocol",
    [
        {"name": "central_grpo", "update": {"groups_per_update": 8}},
        {"name": "self_reward", "update": {"groups_per_update": 8}},
        {"name": "dp_grpo", "update": {"groups_per_update": 8}},
        {"name": "dp_sft"},
        {"name": "distil", "questions_per_update": 8},
        {"name": "fedgrpo", "experts": "oracle", "update": {"groups_per_update": 8}},
        {
            "name": "fedgrpo",
            "probe": "per_question",
            "update": {"schedule": "barrier", "groups_per_update": 8},
        },
    ],
    ids=lambda protocol: "-".join(str(value) for value in protocol.values() if isinstance(value, str)),
)
def test_every_protocol_runs_to_its_end(tmp_path, protocol):
    ran = run(tmp_path, protocol=protocol, stop={"updates": 3})
    assert (ran.summary["stopped_by"], ran.summary["updates"]) == ("updates", 3)
    assert (ran.summary["requests"]["total"] > 0) == (protocol["name"] in ("fedgrpo", "distil"))


def test_one_client_alone_is_a_federation(tmp_path):
    ran = run(tmp_path, clients={"phone": 1}, protocol__num_experts=1)
    assert ran.summary["updates"] == 6
    assert set(ran.outcomes["client_id"]) == {0}


# ------------------------------------------------------------------------------------------------ what is refused


def failed(folder, error):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert error in manifest["error"]
    assert manifest["finished_at"] is not None
    return manifest


def test_more_experts_than_clients_are_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(ScenarioError, match=r"num_experts is 6, but there are 5 clients; must be at most 5"):
        run(tmp_path, protocol__num_experts=6)
    assert not (tmp_path / "run").exists()  # nothing stands in the way of the next try
    with pytest.raises(ScenarioError, match="num_experts"):
        estimate(scenario(protocol__num_experts=6))
    everybody = {"name": "fedgrpo", "experts": "all", "num_experts": 6, "update": {"groups_per_update": 8}}
    assert run(tmp_path, "all", protocol=everybody, stop={"updates": 1}).summary["updates"] == 1


def test_an_accuracy_that_nobody_measures_cannot_be_the_only_end_of_a_run(tmp_path):
    with pytest.raises(ScenarioError, match=r"stop\.accuracy is never met with fidelity: timing"):
        run(tmp_path, stop={"accuracy": 0.5})


def test_a_model_that_timing_cannot_know_is_a_clear_error(tmp_path):
    with pytest.raises(ScenarioError, match=r"models\.clients: a hub model needs fidelity: real"):
        run(tmp_path, models={"clients": {"hub": "someone/something"}})
    with pytest.raises(ModelFileError, match=r"config\.json: cannot be read"):
        run(tmp_path, "other", models={"server": {"path": str(tmp_path / "nothing")}})


def test_when_every_task_is_given_up_the_run_fails_and_its_records_say_why(tmp_path):
    with pytest.raises(FederationError, match="no client answered the probe"):
        run(tmp_path, dropout={"per_task": 1.0})
    failed(tmp_path / "run", "FederationError: no client answered the probe")
    records = load(tmp_path / "run")
    assert set(records.outcomes["status"]) == {"dropped"}
    assert set(records.outcomes["cause"]) == {"task dropout"}
    assert records.summary["stopped_by"] == "error"


def test_when_nobody_comes_online_the_limit_on_virtual_time_ends_the_run(tmp_path):
    never = {"kind": "sessions", "mean_on": "1 s", "mean_off": "100000 day"}
    with pytest.raises(LimitExceeded, match="virtual time"):
        run(tmp_path, availability=never)
    failed(tmp_path / "run", "LimitExceeded")


def test_a_bug_keeps_its_own_traceback_and_leaves_a_failed_run(tmp_path):
    class Broken:
        def phase(self, name, total=None):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        experiment.run(scenario(), out=tmp_path / "run", progress=Broken())
    failed(tmp_path / "run", "ZeroDivisionError: a bug")


# -------------------------------------------------------------------------------------------------- interruptions


def test_an_interrupted_run_keeps_what_was_recorded_and_says_so(tmp_path):
    progress = AtUpdate(3, partial(signal.raise_signal, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        experiment.run(scenario(stop={"updates": 1_000_000}), out=tmp_path / "run", progress=progress)
    ran = load(tmp_path / "run")
    assert ran.manifest["status"] == "interrupted"
    assert ran.summary["stopped_by"] == "interrupt"
    assert ran.summary["updates"] == len(ran.updates) > 0


def test_the_folder_and_its_manifest_are_there_while_the_run_works(tmp_path):
    def look():
        assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "running"
        with pytest.raises(RunFolderError, match="has not ended yet"):
            load(tmp_path / "run")
        looked.append(True)

    looked = []
    experiment.run(scenario(), out=tmp_path / "run", progress=AtUpdate(1, look))
    assert looked


# --------------------------------------------------------------------------------------------------- the estimate


def close(told, measured):
    return told == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"protocol__probe": "per_question"},
        {"protocol__update": {"schedule": "barrier", "groups_per_update": 8}},
        {"protocol": {"name": "distil", "questions_per_update": 8}},
        {"protocol": {"name": "central_grpo", "update": {"groups_per_update": 8, "in_flight": 16}}},
    ],
    ids=["once", "per_question", "barrier", "distil", "central"],
)
def test_the_estimate_is_within_a_quarter_of_the_run(tmp_path, keys):
    keys |= {"stop": {"updates": 25}}
    told, ran = estimate(scenario(**keys)), run(tmp_path, **keys).summary
    assert told.updates == 25
    assert close(told.virtual_s, ran["virtual_s"])
    assert close(told.wire_up_bytes, ran["bytes"]["wire"]["uplink"])
    assert close(told.wire_down_bytes, ran["bytes"]["wire"]["downlink"])
    assert close(told.paper_up_bytes, ran["bytes"]["paper"]["uplink"])
    assert close(told.requests, ran["requests"]["total"])


def test_an_estimate_is_for_where_the_run_will_stop(tmp_path):
    by_time, by_bytes = {"virtual": "4 s"}, {"wire_bytes": "250 kB", "updates": 10_000}
    told = estimate(scenario(stop=by_time))
    assert told.virtual_s == pytest.approx(4.0)
    assert close(told.updates, run(tmp_path, "time", stop=by_time).summary["updates"])
    told = estimate(scenario(stop=by_bytes))
    assert told.wire_up_bytes + told.wire_down_bytes == pytest.approx(250e3)
    assert close(told.updates, run(tmp_path, "bytes", stop=by_bytes).summary["updates"])


def test_a_run_as_short_as_what_is_played_is_estimated_exactly(tmp_path):
    told, ran = estimate(scenario(stop={"updates": 3})), run(tmp_path, stop={"updates": 3}).summary
    assert told.virtual_s == ran["virtual_s"]
    assert told.requests == ran["requests"]["total"]
    assert told.wire_up_bytes == ran["bytes"]["wire"]["uplink"]


def test_an_estimate_keeps_to_the_runs_limits():
    """Devices that are hardly ever there, asked for ever: the estimate ends where the run would."""
    rare = {"kind": "sessions", "mean_on": "1 s", "mean_off": "100 day", "on_cut": "suspend"}
    stuck = [{"kind": "partition", "at": "0 s"}]
    with pytest.raises(LimitExceeded, match="24 h 00 min of virtual time"):
        estimate(scenario(availability=rare, faults=stuck, limits={"virtual": "1 d"}))
    with pytest.raises(LimitExceeded, match="limit of 300 steps"):
        estimate(scenario(limits={"events": 300}))


def test_an_estimate_whose_time_is_over_tells_how_far_it_came_and_goes_by_that():
    large = scenario(protocol__update={"groups_per_update": 400}, stop={"updates": 1000})
    none = estimate(large, budget_s=0.0)
    assert (none.played, none.to_play) == (0, 6) and none.why_not_extrapolated
    assert none.updates == 0 and 0 < none.requests < 6 * 400 / 4


def test_what_can_be_refused_is_refused_also_where_there_is_no_time_for_an_estimate():
    with pytest.raises(ScenarioError, match="num_experts is 7"):
        estimate(scenario(protocol__num_experts=7), budget_s=0.0)


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        (
            {"name": "fedpetuning", "clients_per_round": 6},
            "clients_per_round is 6, but there are 5 clients; must be at most 5",
        ),
        (
            {"name": "fedpetuning", "schedule": {"kind": "buffered", "in_flight": 6}},
            "schedule.in_flight is 6, but there are 5 clients; must be at most 5",
        ),
    ],
)
def test_counts_that_cannot_be_met_are_refused_and_those_that_can_are_not(tmp_path, protocol, words):
    with pytest.raises(ScenarioError, match=re.escape(f"protocol.{words}")):
        run(tmp_path, protocol=protocol, stop={"updates": 1})
    *path, key = words.split(" is ")[0].split(".")
    inner = protocol
    for step in path:
        inner = inner[step]
    inner[key] -= 1
    assert run(tmp_path, protocol=protocol, stop={"updates": 1}).summary["updates"] == 1


def test_counts_beyond_the_clients_that_take_part_or_have_rows_are_refused_too(tmp_path):
    one_domain = {"domains": ["gcd"], "sizes": {"private": 60, "auxiliary": 20, "pool": 60}}
    few = {**one_domain, "partition": {"kind": "shared", "holders": 2}}
    protocol = {"name": "fedpetuning", "clients_per_round": 3}
    with pytest.raises(
        ScenarioError, match=r"clients_per_round is 3, but only 2 clients have rows.*must be at most 2"
    ):
        run(tmp_path, tasks=few, protocol=protocol, stop={"updates": 1})
    small = {"phone": {"count": 3, "memory": "1 MiB"}, "laptop": 2}
    billed = {"server": "Qwen2.5-0.5B", "clients": "Qwen2.5-0.5B"}
    text = {"question": {"tokens": 8}, "answer": {"tokens": 4}}
    with pytest.raises(
        ScenarioError, match="clients_per_round is 3, but only 2 of 5 clients take part; must be at most 2"
    ):
        run(
            tmp_path,
            clients=small,
            models={"bill_as": billed},
            text=text,
            protocol=protocol,
            stop={"updates": 1},
        )


def test_expected_staleness_is_that_of_the_schedule():
    assert estimate(scenario()).expected_staleness == 2.0
    barrier = {"schedule": "barrier", "groups_per_update": 8}
    assert estimate(scenario(protocol__update=barrier)).expected_staleness == 0.0
    assert estimate(scenario(protocol={"name": "zero_shot"})).expected_staleness is None


def test_more_holders_of_a_domain_than_clients_are_refused_before_the_run(tmp_path):
    with pytest.raises(
        ScenarioError, match=r"tasks\.partition\.holders is 9, but there are 8 clients; must be at most 8"
    ):
        fedsim.run(
            fedsim.read_scenario(
                "quickstart", ["fidelity=timing", "tasks.partition={kind: shared, holders: 9}"]
            ),
            out=tmp_path / "run",
        )
