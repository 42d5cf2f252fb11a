import re

import pytest

from fedsim.errors import InputError
from fedsim.records.log import RecordLog
from fedsim.records.rows import Compute, Fault, Group, Outcome, Presence, Reward, Transfer
from fedsim.records.run import load, write_results
from fedsim.records.run_folder import RunFolder
from fedsim.records.story import story
from tests.samples.run import sample_run


def transfer(request_id, direction, start_at_s, end_at_s, wire_bytes, **changes):
    entry = {
        "request_id": request_id, "client_id": 4, "direction": direction, "fate": "useful",
        "purpose": "question" if direction == "down" else "reward", "start_at_s": start_at_s,
        "end_at_s": end_at_s, "message_bytes": 1, "wire_bytes": wire_bytes, "paper_bytes": 0,
    } | changes  # fmt: skip
    return Transfer(**entry)


def compute(client_id, request_id, start_at_s, end_at_s, **changes):
    entry = {
        "request_id": request_id, "client_id": client_id, "kind": "question", "start_at_s": start_at_s,
        "end_at_s": end_at_s, "flop": 2.5e9, "memory_bytes": 1.0, "energy_j": 3.25, "cut": False,
    } | changes  # fmt: skip
    return Compute(**entry)


def outcome(request_id, sent_at_s, ended_at_s, status, phase, cause=""):
    return Outcome(
        request_id=request_id, client_id=4, device_class="laptop", purpose="question", subject=9,
        sent_at_s=sent_at_s, ended_at_s=ended_at_s, status=status, phase=phase, cause=cause,
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Request 0 is answered; request 1 is lost while it computes; the server works on draw 0 meanwhile."""
    log = RecordLog()
    rows = [
        transfer(0, "down", 1.0, 1.5, 2048),
        compute(4, 0, 2.25, 3.0),
        transfer(0, "up", 3.0, 3.004, 310, paper_bytes=16),
        Reward(
            request_id=0, client_id=4, draw=9, question_id=9, evaluator="ME likelihood", rewards=(0.25, 1.0), at_s=3.1
        ),
        outcome(0, 1.0, 3.1, "ok", "done"),
        compute(-1, 0, 0.0, 0.9, kind="sample"),
        transfer(1, "down", 3.5, 4.0, 100, fate="cut"),
        compute(4, 1, 4.0, 70.5, cut=True),
        outcome(1, 3.5, 70.5, "dropped", "compute", "device left"),
        Group(
            draw=9, question_id=9, domain="gcd", policy_version=0, dispatched_at_s=0.0, completed_at_s=3.1,
            num_experts=2, num_answered=1, reward_mean=0.625, reward_std=0.375, zero_variance=False, correct=0.5,
            fate="trained",
        ),
        Presence(client_id=4, device_class="laptop", start_at_s=0.5, end_at_s=70.5),
    ]  # fmt: skip
    for row in rows:
        log.add(row)
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    write_results(folder, log, {})
    return load(folder.path)


def test_the_story_of_an_answered_request(run):
    assert story(run, request=0) == [
        "request 0 (question, subject 9) to client 4 (laptop)",
        "1.000 s  sent by the server (question)",
        "1.500 s  downloaded 2.0 KiB (question) in 500 ms",
        "2.250 s  waited 750 ms (on the way and in the queue)",
        "3.000 s  computed question in 750 ms (2.5 GFLOP, 3.25 J)",
        "3.004 s  uploaded 310 B (reward) in 4 ms, 16 B in the paper's account",
        "3.100 s  rewards by ME likelihood for draw 9: 0.25 1",
        "3.100 s  ended ok after 2.1 s",
        "3.100 s  group of draw 9 (gcd) final: 1 of 2 experts answered, mean reward 0.625, trained",
    ]


def test_the_story_of_a_lost_request_says_where_and_why_it_ended(run):
    assert story(run, request=1) == [
        "request 1 (question, subject 9) to client 4 (laptop)",
        " 3.500 s  sent by the server (question)",
        " 4.000 s  downloaded 100 B (question) in 500 ms, cut",
        "70.500 s  computed question in 1 min 06 s (2.5 GFLOP, 3.25 J), cut",
        "70.500 s  ended dropped in phase compute after 1 min 07 s: device left",
    ]


def test_a_clients_story_holds_its_requests_and_its_comings_and_goings_in_order(run):
    lines = story(run, client=4)
    assert lines[0] == "client 4 (laptop): 2 requests, 1 ok"
    assert lines[1] == " 0.500 s  available, for 1 min 10 s"
    assert lines[-1] == "70.500 s  no longer available, or the run has ended"
    assert sum("request 0: " in line for line in lines) == 8
    assert sum("request 1: " in line for line in lines) == 4
    instants = [float(re.match(r" *([\d.]+) s", line).group(1)) for line in lines[1:]]
    assert instants == sorted(instants)


def test_unknown_ids_and_unclear_questions_are_one_line_errors(run):
    with pytest.raises(InputError, match=r"no request 5; they run from 0 to 1"):
        story(run, request=5)
    with pytest.raises(InputError, match=r"no client 0; they run from 4 to 4"):
        story(run, client=0)
    for both in ({}, {"request": 0, "client": 4}):
        with pytest.raises(InputError, match="one of"):
            story(run, **both)


def test_every_request_and_client_of_a_larger_run_has_a_story(tmp_path):
    run = sample_run(tmp_path / "run", num_updates=3)
    for request_id in run.outcomes["request_id"].to_list():
        lines = story(run, request=request_id)
        assert any(f" ended {status}" in line for line in lines for status in ("ok", "late", "cut"))
    requests = sum(int(re.search(r": (\d+) requests", story(run, client=c)[0]).group(1)) for c in range(8))
    assert requests == run.outcomes.height


def test_faults_and_messages_beside_a_request_are_told_and_do_not_change_how_long_it_waited(tmp_path):
    log = RecordLog()
    for row in (
        transfer(0, "down", 1.0, 1.5, 2048),
        compute(4, 0, 2.25, 3.0),
        transfer(0, "down", 2.5, 2.75, 13, purpose="control", fate="late"),
        Fault(kind="late_reply", client_id=4, request_id=0, start_at_s=3.0, end_at_s=8.0),
        Fault(kind="slow_link", client_id=4, request_id=-1, start_at_s=0.5, end_at_s=2.0),
        transfer(0, "up", 8.0, 8.5, 310, fate="late"),
        outcome(0, 1.0, 9.0, "late", "done", "fault: late_reply"),
        Presence(client_id=4, device_class="laptop", start_at_s=0.0, end_at_s=9.0),
    ):
        log.add(row)
    folder = RunFolder.create(tmp_path / "run", "a", 0)
    write_results(folder, log, {})
    lines = story(load(folder.path), request=0)
    assert "2.250 s  waited 750 ms (on the way and in the queue)" in lines
    assert "2.750 s  downloaded 13 B (control) in 250 ms, late" in lines
    assert "3.000 s  fault on the reply: late reply, held back for 5.0 s" in lines
    assert lines[-1] == "9.000 s  ended late after 8.0 s: fault: late_reply"
    told = story(load(folder.path), client=4)
    assert "0.500 s  fault: slow link begins" in told
