"""Hostile experts (hostile.py), what the server believes of them (shared/trust.py), and the report (detection.py)."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fedsim import protocols
from fedsim.errors import ScenarioError
from fedsim.experiment import checks
from fedsim.experiment import run as experiment
from fedsim.experiment.components import load_components
from fedsim.experiment.detection import detection_report, short
from fedsim.experiment.simulation import Simulation
from fedsim.federation.hostile import excluded, roles_of, with_hostile
from fedsim.progress import SilentProgress
from fedsim.protocols.shared.boundary import refused_rewards
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.records.log import RecordLog
from fedsim.records.rows import Reward
from fedsim.scenario.read import read_scenario
from fedsim.sim.devices.cost import NO_WORK
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import COUNTS, SPEC, FakeEvaluator, FakePolicy, play, settings, task_data

HANDLERS = protocols.handlers(settings("fedgrpo"))
QUESTION = wire.Candidates(wire.pack_id(5), "a7", ("7", "8", "9", "7"))
HONEST = (0.8, 0.1, 0.1, 0.8)


def hostile(*entries):
    """Settings as a scenario file would give them."""
    return read_scenario("quickstart", [f"hostile={json.dumps(entries)}"]).hostile


def client(client_id):
    return ClientState(client_id, FakeEvaluator("a"), SPEC, {}, AnswerRule(), COUNTS)


def wrapped(kind, seed=0, clients=(1, 2), **keys):
    roles = roles_of(hostile({"kind": kind, "clients": clients, **keys}), 4, seed, HANDLERS)
    return with_hostile(HANDLERS, roles, seed)


def rewards(kind, client_id=1, message=QUESTION, **keys):
    return wrapped(kind, **keys)[wire.Candidates].run(client(client_id), message).message.rewards


# ------------------------------------------------------------------------------------------------ who is hostile


def test_who_is_hostile_is_drawn_by_the_seed_and_two_are_among_four():
    def who(seed, count, kind="random"):
        return set(roles_of(hostile({"kind": kind, "count": count}), 8, seed, HANDLERS))

    assert who(0, 2) < who(0, 4)
    assert who(0, 2) == who(0, 2, "inverted")
    assert who(0, 0) == set()
    assert len({frozenset(who(seed, 2)) for seed in range(10)}) > 3


def test_each_client_has_one_kind_and_entries_take_turns():
    mixed = hostile(
        {"kind": "random", "count": 2}, {"kind": "slow", "clients": [3]}, {"kind": "lazy", "share": 0.3}
    )
    roles = roles_of(mixed, 8, 0, HANDLERS)
    kinds = sorted(config.kind for config in roles.values())
    assert kinds == ["lazy", "lazy", "lazy", "random", "random", "slow"]
    assert roles[3].kind == "slow"


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"kind": "random", "clients": [9]}], "hostile.0.clients names 9, but there are 8 clients"),
        (
            [{"kind": "lazy", "clients": [1]}, {"kind": "slow", "clients": [1]}],
            "hostile.1.clients names 1, which",
        ),
        ([{"kind": "lazy", "count": 9}], "hostile.0 wants 9 clients, but 8 of 8 are left"),
    ],
)
def test_clients_that_there_are_not_are_refused(entries, says):
    with pytest.raises(ScenarioError, match=says):
        roles_of(hostile(*entries), 8, 0, HANDLERS)


def test_settings_say_who_in_one_way():
    for keys in ({}, {"count": 1, "share": 0.5}):
        with pytest.raises(ScenarioError, match="says not who"):
            hostile({"kind": "random", **keys})
    with pytest.raises(ScenarioError, match="hostile"):
        hostile({"kind": "sleepy", "count": 1})


@pytest.mark.parametrize("override", ["protocol=zero_shot", "protocol.wire=answers_up"])
def test_a_protocol_without_scores_refuses_hostile_experts_before_it_runs(override):
    name = ["fidelity=timing", "stop={updates: 1}", override]
    scenario = read_scenario("quickstart", [*name, "hostile=[{kind: random, count: 1}]"])
    with pytest.raises(ScenarioError, match="choose a protocol with scores"):
        checks.refuse_early(scenario)


# ------------------------------------------------------------------------------------------------ what they send


def test_without_hostile_clients_the_handlers_are_the_same_object():
    assert with_hostile(HANDLERS, {}, 0) is HANDLERS


@pytest.mark.parametrize(
    "kind", ["random", "inverted", "constant", "colluding", "lazy", "non_finite", "liar"]
)
def test_honest_clients_are_not_touched(kind):
    handlers = wrapped(kind)
    assert rewards(kind, client_id=0) == HONEST
    work = handlers[wire.Candidates].work
    assert work(client(0), QUESTION) == HANDLERS[wire.Candidates].work(client(0), QUESTION)


def test_inverted_and_lying_experts_turn_every_reward_around():
    expected = pytest.approx([0.2, 0.9, 0.9, 0.2])
    assert rewards("inverted") == expected
    assert rewards("liar") == expected


def test_random_rewards_differ_between_clients_and_draws_and_come_again_with_the_seed():
    other_draw = wire.Candidates(wire.pack_id(6), "a7", QUESTION.candidates)
    drawn = {
        rewards("random"),
        rewards("random", 2),
        rewards("random", message=other_draw),
        rewards("random", seed=1),
    }
    assert len(drawn) == 4
    assert rewards("random") in drawn
    assert all(0 <= reward <= 1 for row in drawn for reward in row)


def test_a_lazy_expert_sends_its_one_list_whatever_is_asked():
    other = wire.Candidates(wire.pack_id(6), "b1", ("x", "y", "z"))
    assert rewards("lazy", message=other) == rewards("lazy")[:3]
    assert rewards("lazy", 2) != rewards("lazy")


def test_colluders_agree_on_one_answer_wherever_it_stands():
    first, second = rewards("colluding"), rewards("colluding", 2)
    assert first == second
    target = {text for text, reward in zip(QUESTION.candidates, first, strict=True) if reward == 1.0}
    assert len(target) == 1
    assert all(
        (text in target) == (reward == 1.0) for text, reward in zip(QUESTION.candidates, first, strict=True)
    )
    turned = wire.Candidates(wire.pack_id(9), "a7", QUESTION.candidates[::-1])
    assert rewards("colluding", message=turned) == first[::-1]


def test_colluders_agree_on_an_answer_and_not_on_one_wording_of_it():
    message = wire.Candidates(wire.pack_id(5), "a7", ("it is 7", "so 7", "surely 7"))
    rule = AnswerRule("exact", r"(\d)")
    one = replace(client(1), answers=rule)
    assert wrapped("colluding")[wire.Candidates].run(one, message).message.rewards == (1.0, 1.0, 1.0)


def test_a_constant_expert_says_one_number():
    assert rewards("constant", value=0.5) == (0.5,) * 4


@pytest.mark.parametrize("kind", ["non_finite", "out_of_range"])
def test_what_is_no_reward_is_refused_at_the_boundary(kind):
    reply = wrapped(kind)[wire.Candidates].run(client(1), QUESTION).message
    assert "not in [0, 1]" in str(refused_rewards(QUESTION, reply))
    assert all(not 0 <= reward <= 1 for reward in reply.rewards)


def test_a_slow_expert_tells_the_truth_later():
    reply = wrapped("slow", delay="2 min")[wire.Candidates].run(client(1), QUESTION)
    assert (reply.message.rewards, reply.delay_s) == (HONEST, 120.0)


def test_made_up_rewards_cost_no_work_and_bent_ones_cost_what_true_ones_do():
    honest = HANDLERS[wire.Candidates].work(client(1), QUESTION)
    for kind in ("random", "constant", "colluding", "lazy", "non_finite"):
        assert wrapped(kind)[wire.Candidates].work(client(1), QUESTION) == NO_WORK
    for kind in ("inverted", "out_of_range", "liar", "slow"):
        assert wrapped(kind)[wire.Candidates].work(client(1), QUESTION) == honest


@pytest.mark.parametrize("number", [1, 7, 8, 9, 100])
def test_a_liar_claims_every_exemplar_and_nobody_else_does(number):
    probe = wire.ProbeExemplars(wire.pack_id(0), ("b1",) * number, ("1",) * number)
    handler = wrapped("liar")[wire.ProbeExemplars]
    bits = handler.run(client(1), probe).message.bits
    assert bits == np.packbits([True] * number).tobytes()
    assert handler.accept(probe, handler.run(client(1), probe).message) is None
    assert handler.run(client(0), probe).message.bits == bytes(len(bits))
    few = wire.ProbeNeighbours(wire.pack_id(0), ("b1",), ("1",))
    assert wrapped("liar")[wire.ProbeNeighbours].run(client(1), few).message.competence == 1.0
    assert wrapped("random")[wire.ProbeNeighbours].run(client(1), few).message.competence == 0.0


# ------------------------------------------------------------------------------------------------ in whole runs


SHORT = ["fidelity=timing", "stop={updates: 2}", "protocol.num_experts=5", "protocol.competence_floor=0"]


def run_of(tmp_path, *overrides):
    scenario = read_scenario("quickstart", [*SHORT, *overrides])
    return experiment.run(scenario, out=tmp_path / f"run{len(list(tmp_path.iterdir()))}")


def report_of(*overrides):
    """What a server would find out if the stand-ins' scores were models', which a run of timing fidelity does not report."""
    scenario = read_scenario("quickstart", [*SHORT, *overrides])
    prepared, silent = checks.refuse_early(scenario), SilentProgress()
    components = load_components(prepared, silent)
    simulation = Simulation(prepared, components, RecordLog(), silent.phase("federation"))
    experiment.simulate(simulation)
    return detection_report(simulation.state.artefacts["trust"](), prepared.roles)


def test_nobody_hostile_leaves_the_records_as_they_are_and_makes_no_report(tmp_path):
    plain = run_of(tmp_path)
    none = run_of(tmp_path, "hostile=[{kind: random, count: 0}]")
    assert plain.summary["records_sha256"] == none.summary["records_sha256"]
    assert "detection" not in plain.summary
    assert not (plain.folder / "detection.json").exists()
    assert none.summary["detection"]["hostile"] == []


def test_a_run_with_inverted_experts_reports_them_and_reads_the_truth_from_nowhere_else():
    report = report_of(
        "hostile=[{kind: inverted, count: 2}]",
        "protocol.fusion=reliability",
        "tasks.partition={kind: iid}",
    )
    assert (report["precision"], report["recall"]) == (1.0, 1.0)
    assert report["recall_by_kind"] == {"inverted": 1.0}
    by_kind = {row["client_id"]: row["kind"] for row in report["experts"]}
    assert sorted(by_kind.values()) == ["honest"] * 6 + ["inverted"] * 2
    worst = sorted(report["experts"], key=lambda row: row["trust"])[:2]
    assert {row["kind"] for row in worst} == {"inverted"}


def test_refused_rewards_are_on_record_and_count_against_their_sender(tmp_path):
    run = run_of(tmp_path, "hostile=[{kind: non_finite, clients: [5]}]", "tasks.partition={kind: iid}")
    failed = run.outcomes.filter(status="failed")
    assert set(failed["client_id"]) == {5}
    assert all("not in [0, 1]" in cause for cause in failed["cause"])
    row = report_of("hostile=[{kind: non_finite, clients: [5]}]", "tasks.partition={kind: iid}")["experts"][5]
    assert row["refused"] == len(failed) > 10
    assert row["trust"] < 0.1
    assert "scores" in row["reasons"]


def test_a_timing_run_reports_how_experts_behaved_and_nothing_that_follows_from_made_up_scores(tmp_path):
    run = run_of(tmp_path, "hostile=[{kind: inverted, count: 2}]", "protocol.fusion=reliability")
    report = json.loads((run.folder / "detection.json").read_text())
    assert short(report) == run.summary["detection"]
    assert len(report["hostile"]) == 2
    unknown = ("flagged", "precision", "recall", "recall_by_kind")
    assert {report[name] for name in unknown} == {None}
    assert {row["trust"] for row in report["experts"]} == {None}
    assert not any("scores" in row["reasons"] for row in report["experts"])
    assert sum(row["asked"] for row in report["experts"]) > 0


def test_excluded_experts_take_no_part_and_are_those_that_an_attack_would_strike(tmp_path):
    attacked = run_of(tmp_path, "hostile=[{kind: lazy, count: 2}]")
    oracle = run_of(tmp_path, "hostile=[{kind: excluded, count: 2}]")
    struck = set(attacked.summary["detection"]["hostile"])
    assert len(struck) == 2
    assert struck.isdisjoint(oracle.rewards["client_id"])
    assert oracle.summary["detection"]["hostile"] == []
    roles = roles_of(hostile({"kind": "excluded", "count": 2}), 8, 0, HANDLERS)
    assert set(excluded(roles)) == struck


# ------------------------------------------------------------------------------------------------ trust and audits


ONE_BY_ONE = {"schedule": "group", "groups_per_update": 1, "in_flight": 1}


def judge_of(knows_right):
    """Scores of an expert that gives the truth 0.9 and the rest 0.1, or the other way round."""
    return lambda question, text: 0.9 if (text == question[1:]) == knows_right else 0.1


async def played(stop=12, **keys):
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "x", "y"])
    evaluators = [FakeEvaluator("ab", judge_of(k != 2)) for k in range(3)]
    data = task_data(num_clients=3, auxiliary=8, pool=12)
    config = settings(
        "fedgrpo",
        num_neighbours=4,
        update=ONE_BY_ONE,
        num_experts=3,
        divide_by_std=False,
        grouping="candidates",
        **keys,
    )
    return policy, await play(config, evaluators, data=data, policy=policy, stop=StopConfig(updates=stop))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", 0.8 * 2 / 3 * 1 / 3),  # 0.9, 0.9, 0.1 against 0.1, 0.1, 0.9
        ("median", 0.8 * 2 / 3),
        ("majority_vote", 2 / 3),
        ("reliability", 0.8 * 2 / 3),
    ],
)
async def test_each_rule_teaches_what_it_makes_of_two_honest_experts_and_a_liar(rule, expected):
    policy, _ = await played(fusion=rule)
    assert policy.steps[-1].advantages[0] == pytest.approx((expected, -expected / 2, -expected / 2))


async def test_a_router_learns_from_audits_to_leave_the_liar_out():
    policy, _ = await played(fusion="routed")
    first = policy.steps[-1].advantages[0]
    # Calibrated, an honest expert says 1.414, -0.707, -0.707: mean 11/30 and deviation 0.8 sqrt(2)/3 of 0.9, 0.1, 0.1.
    assert first[0] == pytest.approx(2**0.5, abs=0.02)
    assert first[0] == pytest.approx(-2 * first[1])


async def test_audits_are_ordinary_questions_of_the_auxiliary_set_and_teach_the_policy_nothing():
    policy, ran = await played(audits=4)
    audits = [row for row in ran.log.of(Reward) if row.question_id < 100]
    assert sorted((row.client_id, row.question_id) for row in audits) == [
        (k, i) for k in range(3) for i in range(4)
    ]
    assert len({row.draw for row in audits}) == len(audits)
    assert all(draw < 2**40 for step in policy.steps for draw in step.draws)
    beliefs = ran.state.artefacts["trust"]()
    assert [row["audits"] for row in beliefs] == [4, 4, 4]
    assert beliefs[2]["trust"] < 0.3 < 0.8 < beliefs[0]["trust"]
    assert [bool(row["reasons"]) for row in beliefs] == [False, False, True]


async def test_without_audits_nobody_is_asked_about_the_auxiliary_set_but_by_the_probe():
    _, ran = await played()
    assert min(row.question_id for row in ran.log.of(Reward)) >= 100


def test_fusions_that_make_no_sense_are_refused():
    for keys, says in (
        ({"fusion": "median", "grouping": "literal"}, "grouping literal does not have"),
        ({"fusion": "standardised", "grouping": "per_expert"}, "standardises the scores already"),
        ({"fusion": "routed", "audits": 0}, "routed needs audits"),
        ({"fusion": "reliability", "wire": "answers_up"}, "needs wire scores_up"),
    ):
        with pytest.raises(ValueError, match=says):
            settings("fedgrpo", **keys)


# ------------------------------------------------------------------------------------------------ the report


def test_precision_and_recall_by_hand():
    roles = roles_of(
        hostile({"kind": "lazy", "clients": [0, 1]}, {"kind": "slow", "clients": [2]}, {"kind": "excluded", "clients": [5]}),
        8, 0, HANDLERS,
    )  # fmt: skip
    beliefs = [
        {"client_id": k, "trust": 0.5, "reasons": ["scores"] if k in (0, 2, 3, 4) else []} for k in range(8)
    ]
    report = detection_report(beliefs, roles)
    assert (report["flagged"], report["hostile"]) == ([0, 2, 3, 4], [0, 1, 2])
    assert (report["precision"], report["recall"]) == (0.5, pytest.approx(2 / 3))
    assert report["recall_by_kind"] == {"lazy": 0.5, "slow": 1.0}
    assert [row["kind"] for row in report["experts"]] == [
        "lazy",
        "lazy",
        "slow",
        "honest",
        "honest",
        "excluded",
        "honest",
        "honest",
    ]


def test_precision_without_a_suspect_and_recall_without_a_culprit_are_undefined():
    beliefs = [{"client_id": 0, "trust": 0.9, "reasons": []}]
    report = detection_report(beliefs, {})
    assert (report["precision"], report["recall"]) == (None, None)
    assert not math.isnan(report["experts"][0]["trust"])
