"""Two protocols meet one world: the same devices are there, their links are as fast, and their tasks have the same luck."""

import asyncio
from collections import defaultdict
from dataclasses import replace
from itertools import zip_longest

import pytest

from fedsim.errors import InvariantViolation
from fedsim.experiment import run as experiment
from fedsim.federation.handlers import Subject
from fedsim.protocols.shared.rollouts import QuestionStream
from fedsim.scenario.read import scenario_from
from fedsim.sim import clock, streams
from fedsim.sim.devices import population
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import Work, duration_s
from fedsim.sim.network.rates import AccessRates
from fedsim.tasks.questions import Question
from tests.samples.worlds import ROUND, ask, small_world

SPAN = "40 s"


def scenario(protocol, seed=3):
    return scenario_from(
        {
            "name": "common",
            "seed": seed,
            "fidelity": "timing",
            "stop": {"virtual": SPAN},
            "protocol": protocol,
            "tasks": {"sizes": {"pool": 60, "private": 800}},
            # No cost per step: records say FLOP and bytes, from which alone a nominal duration is worked out below.
            "clients": {
                "phone": {"count": 4, "step_overhead": "0 s"},
                "laptop": {"count": 3, "step_overhead": "0 s"},
            },
            "network": {"server_link": "unlimited", "rate_period": "2 s"},
            "availability": {"kind": "sessions", "mean_on": "20 s", "mean_off": "5 s"},
            "dropout": {"per_task": 0.1},
        }
    )


FEDGRPO = {
    "name": "fedgrpo", "probe": "per_question", "update": {"groups_per_update": 8, "in_flight": 8},
}  # fmt: skip
DISTIL = {"name": "distil", "questions_per_update": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """FedGRPO and distillation in the same scenario."""
    out = tmp_path_factory.mktemp("runs")
    return [experiment.run(scenario(protocol), out=out / protocol["name"]) for protocol in (FEDGRPO, DISTIL)]


@pytest.fixture(scope="module")
def profiles():
    """The devices of both."""
    plan = scenario(DISTIL)
    devices = population.draw(plan.clients, plan.seed)
    return [devices.profile(client_id) for client_id in range(len(devices))]


def by_key(run):
    """Outcomes by the key of their draws."""
    keyed = {
        (row["client_id"], row["purpose"], row["question_id"], row["attempt"]): row
        for row in run.outcomes.filter(run.outcomes["question_id"] >= 0).iter_rows(named=True)
    }
    assert len(keyed) == (run.outcomes["question_id"] >= 0).sum()
    return keyed


def test_both_protocols_see_the_same_devices_come_and_go(runs):
    fedgrpo, distil = runs
    assert fedgrpo.presence.height > 10
    assert fedgrpo.presence.equals(distil.presence)


def lone_rates(run):
    """What each client's link carried per second while it carried one message only, within one slot of 2 s."""
    ways = defaultdict(list)
    for row in run.transfers.sort("start_at_s").iter_rows(named=True):
        ways[row["client_id"], row["direction"]].append(row)
    for (client_id, direction), rows in ways.items():
        busy_until_s = -1.0
        for row, following in zip_longest(rows, rows[1:]):
            start_s, end_s = row["start_at_s"], row["end_at_s"]
            shared = start_s <= busy_until_s or (following is not None and following["start_at_s"] <= end_s)
            busy_until_s = max(busy_until_s, end_s)
            if not shared and row["fate"] != "cut" and start_s // 2.0 == end_s // 2.0:
                yield (client_id, direction, start_s // 2.0), row["wire_bytes"] / (end_s - start_s)


def test_both_protocols_find_every_link_as_fast_at_every_instant(runs, profiles):
    source = AccessRates(scenario(DISTIL).network, 3)
    seen = []
    for run in runs:
        rates = dict(lone_rates(run))
        assert len(rates) > 100
        for (client_id, direction, slot), rate in rates.items():
            at_s = 2.0 * slot
            expected = source.bytes_per_s(profiles[client_id], client_id, direction, at_s)
            assert rate == pytest.approx(expected, rel=1e-6)
        seen.append(rates)
    together = seen[0].keys() & seen[1].keys()
    assert len(together) > 50
    assert [seen[0][key] for key in together] == pytest.approx([seen[1][key] for key in together], rel=1e-6)
    assert len({round(rate) for (client_id, *_), rate in seen[0].items() if client_id == 0}) > 5  # it varies


def jitters(run, profiles):
    """The slow-down of every whole computation: its duration over the one that its work would take without jitter."""
    computes = {row["request_id"]: row for row in run.computes.iter_rows(named=True) if row["client_id"] >= 0}
    found = {}
    for key, outcome in by_key(run).items():
        compute = computes.get(outcome["request_id"])
        if compute is not None and not compute["cut"]:
            profile = profiles[key[0]]
            nominal_s = (
                duration_s(profile, Work(compute["flop"], compute["memory_bytes"])) - profile.overhead_s
            )
            spent_s = compute["end_at_s"] - compute["start_at_s"] - profile.overhead_s
            found[key] = spent_s / nominal_s
    return found


def test_a_client_asked_the_same_question_has_the_same_slow_down_in_both_protocols(runs, profiles):
    ours, theirs = (jitters(run, profiles) for run in runs)
    both = ours.keys() & theirs.keys()
    assert len(both) > 50
    assert len({attempt for *_, attempt in both}) > 1  # questions of a second epoch too
    assert [ours[key] for key in both] == pytest.approx([theirs[key] for key in both], rel=1e-6)
    assert len({round(ours[key], 6) for key in both}) > 40


def test_a_client_gives_the_same_tasks_up_in_both_protocols(runs):
    ours, theirs = (by_key(run) for run in runs)
    ended = [
        (ours[key]["cause"] == "task dropout", theirs[key]["cause"] == "task dropout")
        for key in ours.keys() & theirs.keys()
        if "device left" not in (ours[key]["cause"], theirs[key]["cause"])
        and "offline" not in (ours[key]["status"], theirs[key]["status"])
    ]
    assert len(ended) > 50
    assert all(one == other for one, other in ended)
    assert any(one for one, _ in ended)


def test_no_two_requests_of_a_run_share_their_draws(runs):
    for run in runs:
        keys = run.outcomes.select("client_id", "purpose", "question_id", "subject", "attempt")
        epochs = run.outcomes.filter(run.outcomes["purpose"] == "question")["attempt"].n_unique()
        assert epochs > 1  # the same questions came again
        about_none = keys["question_id"] < 0
        assert keys.filter(about_none).n_unique() == about_none.sum()
        assert keys.filter(~about_none).drop("subject").n_unique() == (~about_none).sum()
    purposes = set(runs[0].outcomes["purpose"])
    assert {"probe", "question"} <= purposes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Subject(), Subject()),
        (Subject(draw=1, question_id=5), Subject(draw=2, question_id=5)),
        (Subject(draw=3, attempt=1), Subject(draw=3, attempt=1)),
    ],
)
async def test_two_requests_that_share_their_draws_are_found(first, second):
    world = small_world()
    for subject in (first, second):
        await world.federation.clients[0].request(ask(1.0), subject)
    with pytest.raises(
        InvariantViolation, match=r"2 requests that share their random draws .*request_id=0.*request_id=1"
    ):
        await world.settle()


async def test_another_client_question_attempt_or_round_has_draws_of_its_own():
    world = small_world([ROUND, ROUND])
    for client_id, subject in [
        (0, Subject()),
        (1, Subject()),
        (0, Subject(draw=1)),
        (0, Subject(draw=1, attempt=1)),
        (0, Subject(draw=1, question_id=5)),
        (0, Subject(draw=1, question_id=6)),
        (0, Subject(draw=1, question_id=5, attempt=1)),
    ]:
        await world.federation.clients[client_id].request(ask(1.0), subject)
    await world.settle()


SHAKY = replace(ROUND, compute_jitter=0.4, up_jitter=0.5, down_jitter=0.5, rtt_jitter=0.3)


def story(order, num_clients=2):
    """Client 0 is asked one question every 100 s, in this order: what became of each."""

    async def main():
        world = small_world([SHAKY] * num_clients, dropout=DropoutConfig(per_task=0.3), seed=2)
        for index, question_id in enumerate(order):
            await asyncio.sleep(100.0 * index - world.loop.time())
            subject = Subject(draw=index, question_id=question_id)
            asked = [client.request(ask(2.0), subject) for client in world.federation.clients]
            await asyncio.gather(*asked, return_exceptions=True)
        await world.settle()
        computes = {row.request_id: row for row in world.computes}
        return {
            row.question_id: (
                row.status,
                computes[row.request_id].end_at_s - computes[row.request_id].start_at_s,
            )
            for row in world.outcomes
            if row.client_id == 0
        }

    return clock.run(main())


def test_the_order_of_questions_and_more_clients_change_no_tasks_draws():
    plain = story(range(8))
    assert {status for status, _ in plain.values()} == {"ok", "dropped"}
    for other in (story(range(7, -1, -1)), story([3, 1, 7, 0, 2, 6, 5, 4], num_clients=5)):
        assert {key: status for key, (status, _) in other.items()} == {
            key: status for key, (status, _) in plain.items()
        }
        assert [other[key][1] for key in plain] == pytest.approx([plain[key][1] for key in plain])


def test_the_stream_of_questions_counts_epochs_and_a_question_comes_once_in_each():
    questions = [Question(number, "a", f"a{number}", "1") for number in range(5)]
    stream = QuestionStream(questions, seed=4)
    draws = [stream.next() for _ in range(15)]
    assert [draw.epoch for draw in draws] == [0] * 5 + [1] * 5 + [2] * 5
    assert len({(draw.question.question_id, draw.epoch) for draw in draws}) == 15
    assert stream.peek(7) == draws[7]


def test_another_seed_is_another_world():
    network = scenario(DISTIL).network
    levels = [[AccessRates(network, seed).level(k, "up", 0.0) for k in range(5)] for seed in (3, 4)]
    assert not set(levels[0]) & set(levels[1])
    assert streams.uniform(3, "give-up", 0) != streams.uniform(4, "give-up", 0)
