"""The books of a run that fails inside its world: what was under way is on record, charged, and named (timing fidelity)."""

import polars as pl
import pytest

from fedsim.errors import Deadlock, FederationError, InvariantViolation, LimitExceeded, ScenarioError
from fedsim.experiment import run as experiment
from fedsim.federation.request import NEVER_ENDS, RUN_FAILED, Request
from fedsim.protocols.shared import learner
from fedsim.records import run as results
from fedsim.sim.network.link import SharedLink
from tests.end_to_end.test_faults_in_runs import DEADLINE, small

HASTE = {"partial": True, "partial_grace": "2 s"}
HANG = {"kind": "hang", "at": "10 s"}


@pytest.fixture
def failed(tmp_path, monkeypatch):
    """Play a scenario that fails; the run, what its links carried by direction, and how many requests were begun."""
    begun, links = [], []
    begin, make = Request.begin, SharedLink.__init__

    def counted(exchange):
        begun.append(exchange)
        begin(exchange)

    def kept(link, *arguments):
        make(link, *arguments)
        links.append(link)

    monkeypatch.setattr(Request, "begin", counted)
    monkeypatch.setattr(SharedLink, "__init__", kept)

    def play(error, scenario):
        with pytest.raises(error) as caught:
            experiment.run(scenario, out=tmp_path / "run")
        down, up = links[-2:]
        played = begun[
            -1
        ]._world  # the look at the deadline before a run plays with stand-ins in a world of its own
        numbers = [exchange.request_id for exchange in begun if exchange._world is played]
        carried = {"down": down.carried_bytes, "up": up.carried_bytes}
        return caught.value, results.load(tmp_path / "run"), carried, numbers

    return play


def unlearned(monkeypatch, groups=5):
    monkeypatch.setattr(learner, "HOPELESS_GROUPS", groups)


def balanced(run, carried, begun):
    """Every request that was begun has one outcome, and every byte that the links carried a row."""
    outcomes, transfers = run.records["outcomes"], run.records["transfers"]
    assert sorted(outcomes["request_id"]) == begun and begun
    assert run.summary["requests"]["total"] == len(begun)
    for direction, num_bytes in carried.items():
        rows = transfers.filter(pl.col("direction") == direction)
        assert abs(rows["wire_bytes"].sum() - num_bytes) <= rows.height
    assert transfers["wire_bytes"].sum() > 0
    assert set(outcomes["request_id"]) >= set(transfers["request_id"])
    assert run.records["presence"].height >= 4
    last_s = outcomes["ended_at_s"].max()
    return outcomes.filter(pl.col("ended_at_s") == last_s)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (HANG, "hang"),
        ({"kind": "partition", "at": "10 s"}, "partition"),
        ({"kind": "partition", "at": "10 s", "direction": "up", "server_link": True}, "partition"),
    ],
    ids=["hang", "partition", "partition of the server's link"],
)
def test_requests_that_a_fault_holds_when_a_run_gets_stuck_end_then_and_name_it(failed, fault, kind):
    _, run, carried, begun = failed(Deadlock, small(fault, stop={"updates": 100}))
    held = balanced(run, carried, begun)
    assert held.height > 0
    assert set(held["cause"]) == {f"fault: {kind}"}
    assert set(held["status"]) <= {"dropped", "cut"}


def test_a_run_that_learns_nothing_for_too_long_charges_the_late_replies_that_hang(failed, monkeypatch):
    unlearned(monkeypatch)
    hang = {"kind": "hang", "at": "30 s"}
    error, run, carried, begun = failed(
        FederationError, small(hang, stragglers=DEADLINE, stop={"updates": 99})
    )
    assert str(error).startswith("5 question groups in a row could not be learned from: 5 had no reward")
    held = balanced(run, carried, begun).filter(pl.col("status") != "late")
    assert held.height > 0 and set(held["cause"]) == {"fault: hang"}


def test_what_no_fault_holds_ends_because_the_run_failed(failed):
    """A limit is met in the middle of ordinary work: at 14 s some of the requests compute, others are being sent."""
    _, run, carried, begun = failed(LimitExceeded, small(limits={"virtual": "14 s"}))
    held = balanced(run, carried, begun)
    assert held.height > 0
    assert set(held["ended_at_s"]) == {14.0} and set(held["cause"]) == {RUN_FAILED}
    assert run.summary["stopped_by"] == "error" and run.summary["virtual_s"] == 14.0


@pytest.mark.parametrize("events", [100, 300, 500, 600, 620])
def test_the_books_balance_at_whatever_step_a_run_is_stopped(failed, events):
    """Replies in the air, spares, cancels and hurries included."""
    hasty = {"policy": "deadline", "deadline": "12 s", "on_deadline": "cancel"} | HASTE
    _, run, carried, begun = failed(LimitExceeded, small(stragglers=hasty, limits={"events": events}))
    balanced(run, carried, begun)


def test_a_fault_that_ended_before_the_run_failed_is_not_blamed(failed):
    past = {"kind": "slow_link", "at": "1 s", "for": "2 s", "factor": 0.5}
    _, run, carried, begun = failed(LimitExceeded, small(past, limits={"virtual": "14 s"}))
    assert set(balanced(run, carried, begun)["cause"]) == {RUN_FAILED}


def test_a_failed_runs_books_are_checked_too(tmp_path, monkeypatch):
    """Bytes with a wrong fate are found, and the run's own error stays the context."""
    monkeypatch.setattr("fedsim.federation.request.FATE_OF_STATUS", {"dropped": "late"})
    with pytest.raises(InvariantViolation, match="fate is not their request's") as caught:
        experiment.run(small(HANG, stop={"updates": 100}), out=tmp_path / "run")
    assert isinstance(caught.value.__context__, Deadlock)
    assert results.load(tmp_path / "run").manifest["status"] == "failed"


def test_a_stop_in_virtual_time_still_says_what_could_never_have_ended(tmp_path):
    run = experiment.run(small({"kind": "hang", "at": "10 s"}), out=tmp_path / "run")
    causes = set(run.records["outcomes"].filter(pl.col("status") != "ok")["cause"])
    assert causes == {"fault: hang"} and NEVER_ENDS not in causes


def test_a_world_that_cannot_be_built_says_why(tmp_path):
    """There are no books to close then, and nothing may hide the reason."""
    with pytest.raises(FederationError, match="no device can hold the model"):
        experiment.run(small(clients={"phone": {"count": 4, "memory": "1 B"}}), out=tmp_path / "run")
    devices = tmp_path / "devices.csv"
    devices.write_text("class\nphone\nphone\nphone\nphone\n")
    slow = [{"kind": "fixed", "share": 1, "factor": 2, "classes": ["laptop"]}]
    scenario = small(clients={"file": str(devices)}, slowdowns=slow)
    with pytest.raises(ScenarioError, match="laptop"):
        experiment.run(scenario, out=tmp_path / "other")


def test_a_refused_run_leaves_no_folder_behind(tmp_path):
    with pytest.raises(ScenarioError, match="num_experts is 60"):
        experiment.run(small(protocol={"name": "fedgrpo", "num_experts": 60}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
