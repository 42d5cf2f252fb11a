"""FedGRPO (protocols/fedgrpo.py): Algorithm 1 by hand, who is asked, what travels, and what is made of silence."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fakes import (
    COUNTS,
    SPEC,
    FakeEvaluator,
    FakePolicy,
    device,
    perform,
    play,
    question,
    settings,
    stage,
    task_data,
)
from pydantic import ValidationError
from worlds import Timetable

from fedsim import protocols, streams
from fedsim.devices.config import DropoutConfig
from fedsim.errors import FederationError
from fedsim.monitor import StopConfig
from fedsim.network import wire
from fedsim.protocols import fedgrpo
from fedsim.protocols.competence import Experts
from fedsim.protocols.group_relative import HOPELESS_GROUPS
from fedsim.records import Compute, Reward, Transfer
from fedsim.roles import Draw
from fedsim.states import ClientState
from fedsim.tasks.matching import AnswerRule

ONE_BY_ONE = {"schedule": "group", "groups_per_update": 1, "in_flight": 1}


def fedgrpo_settings(**keys):
    return settings("fedgrpo", **{"num_neighbours": 4, "update": ONE_BY_ONE, **keys})


# ------------------------------------------------------------------------------------------- Algorithm 1 by hand


async def test_algorithm_1_on_three_clients_worked_by_hand():
    """One question of domain a; client 0 knows a and owns the answer, client 1 knows a, client 2 knows b."""
    data = task_data(num_clients=3, domains=("a",), pool=1, auxiliary=4, trusted=[{100: "100"}, {}, {}])
    policy = FakePolicy(texts=lambda draw, version: ["100", "7", "8"])
    likelihood = {"100": 0.2, "7": 0.6, "8": 0.1}
    evaluators = [FakeEvaluator("a"), FakeEvaluator("a", lambda q, c: likelihood[c]), FakeEvaluator("b")]
    config = fedgrpo_settings(num_experts=2, divide_by_std=False)

    ran = await play(config, evaluators, data=data, policy=policy)

    # 1. Before anything else every client is sent Dp with its labels, and answers with bits.
    probes, scores = ran.told[:3], ran.told[3:]
    assert {row.client_id for row in probes} == {0, 1, 2}
    for row in probes:
        assert row.message == wire.ProbeExemplars(
            wire.pack_id(0), ("a0", "a1", "a2", "a3"), ("0", "1", "2", "3")
        )
        bits = 0b1111_0000 if row.client_id in (0, 1) else 0
        assert row.reply == wire.ProbeBits(wire.pack_id(0), bytes([bits]))
    # 2. The two competent ones, and nobody else, are sent the question with all its candidates.
    assert {row.client_id for row in scores if row.message.draw == wire.pack_id(0)} == {0, 1}
    assert scores[0].message == wire.Candidates(wire.pack_id(0), "a100", ("100", "7", "8"))
    # 3. AE where the answer is owned, ME elsewhere; one scalar per candidate.
    rewards = {row.client_id: row for row in ran.log.of(Reward) if row.draw == 0}
    assert (rewards[0].evaluator, rewards[0].rewards) == ("AE", (1.0, 0.0, 0.0))
    assert (rewards[1].evaluator, rewards[1].rewards) == ("ME likelihood", (0.2, 0.6, 0.1))
    # 4. Each expert centred over the candidates, then averaged: (2/3, -1/3, -1/3) and (-0.1, 0.3, -0.2).
    step = policy.steps[0]
    assert (step.version, step.draws) == (0, (0,))
    assert step.advantages[0] == pytest.approx((0.85 / 3, -0.05 / 3, -0.8 / 3))
    # 5. The step makes version 1.
    assert (policy.version, ran.updates[0].policy_version) == (1, 1)


async def test_rewards_are_standardised_per_expert_over_the_candidates_by_default():
    data = task_data(num_clients=1, domains=("a",), pool=1, auxiliary=2, trusted=[{100: "100"}])
    policy = FakePolicy(texts=lambda draw, version: ["100", "7", "8", "9"])
    await play(fedgrpo_settings(num_experts=1), [FakeEvaluator("a")], data=data, policy=policy)
    # r = (1, 0, 0, 0): mean 1/4, deviation sqrt(3)/4, epsilon 0.01.
    unit = 1 / (3**0.5 / 4 + 0.01)
    assert policy.steps[0].advantages[0] == pytest.approx((0.75 * unit, *[-0.25 * unit] * 3))


async def test_fusion_by_competence_weighs_each_experts_view_by_its_share_of_right_exemplars():
    """Exemplars are half a, half b and L is all of them: client 0 is right on all (1), client 1 on a half (1/2)."""
    data = task_data(num_clients=2, domains=("a", "b"), pool=1, auxiliary=8)
    policy = FakePolicy(texts=lambda draw, version: ["100", "7"])
    evaluators = [
        FakeEvaluator("ab", lambda q, c: {"100": 0.9, "7": 0.1}[c]),
        FakeEvaluator("a", lambda q, c: {"100": 0.0, "7": 0.2}[c]),
    ]
    config = fedgrpo_settings(num_experts=2, num_neighbours=8, divide_by_std=False, fusion="competence")
    await play(config, evaluators, data=data, policy=policy, stop=StopConfig(updates=2))
    # Centred: (0.4, -0.4) and (-0.1, 0.1); weights 2/3 and 1/3.
    assert policy.steps[1].advantages[0] == pytest.approx((0.7 / 3, -0.7 / 3))


async def test_what_happens_stands_in_this_order_in_virtual_time():
    """Probe (device 1 s), sample (server 0.25 s), score (device 1 s), update (server 0.25 s)."""
    ran = await play(fedgrpo_settings(num_experts=1), [FakeEvaluator("ab")])
    computes = [
        (row.kind, row.client_id, round(row.start_at_s, 9), round(row.end_at_s, 9))
        for row in ran.log.of(Compute)
    ]
    assert computes[:4] == [
        ("probe", 0, 0.0, 1.0),
        ("sample", -1, 1.0, 1.25),
        ("question", 0, 1.25, 2.25),
        ("update", -1, 2.25, 2.5),
    ]
    assert ran.ended_at_s == ran.updates[0].at_s == pytest.approx(2.5)


# ------------------------------------------------------------------------------------------------- who is asked


async def chosen_for_pool(probe: str, *, num_experts: int = 2, seed: int = 0):
    """The experts of every pool question once all clients have been probed, and the stage."""
    evaluators = [
        FakeEvaluator("a"),
        FakeEvaluator("ab"),
        FakeEvaluator("b"),
        FakeEvaluator(""),
        FakeEvaluator("bc"),
    ]
    data = task_data(num_clients=5, domains=("a", "b", "c"), pool=60, auxiliary=20)
    config = settings("fedgrpo", num_experts=num_experts, num_neighbours=7, probe=probe)
    on = stage(config, evaluators, data=data, seed=seed)
    experts = Experts(on.federation, config, on.state)
    async with asyncio.TaskGroup() as tasks:
        await experts.start(tasks)
    return [await experts.choose(Draw(index, one)) for index, one in enumerate(data.pool)], on


async def test_probe_once_and_probe_per_question_choose_the_same_experts():
    once, on_once = await chosen_for_pool("once")
    asked, on_asked = await chosen_for_pool("per_question")
    assert once == asked
    assert len(set(once)) > 3  # and it is a real choice

    # Dp goes down once per client; G(x) goes down once per client and question.
    assert on_once.wire_bytes("probe") < on_asked.wire_bytes("probe") / 10
    assert Counter(type(row.message) for row in on_once.told) == {wire.ProbeExemplars: 5}
    assert Counter(type(row.message) for row in on_asked.told) == {wire.ProbeNeighbours: 5 * 60}


async def test_the_nearest_exemplars_travel_and_the_competence_is_the_share_of_them_answered_rightly():
    """Domains a and b alternate in Dp: of the 6 nearest to an a question, 4 are all there are of a."""
    data = task_data(num_clients=1, domains=("a", "b"), pool=1, auxiliary=8)
    config = fedgrpo_settings(num_experts=1, num_neighbours=6, probe="per_question")
    ran = await play(config, [FakeEvaluator("a")], data=data)
    asked = ran.told[0]
    assert {"a0", "a2", "a4", "a6"} < set(asked.message.questions)
    assert len(asked.message.questions) == len(asked.message.answers) == 6
    assert asked.reply == wire.Competence(wire.pack_id(0), 4 / 6)


async def test_equally_competent_clients_are_chosen_by_the_keyed_draw_of_the_question():
    config = settings("fedgrpo", num_experts=1, num_neighbours=4)
    data = task_data(num_clients=4, pool=40)
    on = stage(config, [FakeEvaluator("ab")] * 4, data=data, seed=3)
    experts = Experts(on.federation, config, on.state)
    async with asyncio.TaskGroup() as tasks:
        await experts.start(tasks)
    chosen = [(await experts.choose(Draw(0, one)))[0] for one in data.pool]
    by_hand = [
        min(range(4), key=lambda client: streams.uniform(3, "tie", one.question_id, client))
        for one in data.pool
    ]
    assert chosen == by_hand
    assert set(chosen) == {0, 1, 2, 3}


async def test_a_client_that_is_away_is_not_asked_and_one_that_comes_later_is_probed_then():
    """Client 0 is the best, but away until 10 s; until then client 1 is asked, afterwards client 0."""
    evaluators = [FakeEvaluator("ab"), FakeEvaluator("")]
    stop = StopConfig(virtual="20 s")
    ran = await play(
        fedgrpo_settings(num_experts=1), evaluators, availability=Timetable({0: [(10.0, 99.0)]}), stop=stop
    )
    asked = [(row.client_id, row.at_s) for row in ran.told if isinstance(row.message, wire.Candidates)]
    probed_at_s = next(row.at_s for row in ran.told if row.client_id == 0)
    assert probed_at_s == pytest.approx(11.0)
    assert {client for client, at_s in asked if at_s < probed_at_s} == {1}
    assert {client for client, at_s in asked if at_s > probed_at_s + 2.5} == {0}


async def test_a_client_that_has_not_answered_the_probe_is_not_eligible():
    """Client 0 is the best, but takes 8 s to answer Dp."""
    evaluators = [FakeEvaluator("ab"), FakeEvaluator("")]
    profiles = [device(8.0), device(1.0)]
    ran = await play(
        fedgrpo_settings(num_experts=1), evaluators, profiles=profiles, stop=StopConfig(virtual="30 s")
    )
    first = min(row.sent_at_s for row in ran.outcomes if row.client_id == 0 and row.purpose == "question")
    assert first >= 8.0
    assert any(row.sent_at_s < 8.0 for row in ran.outcomes if row.purpose == "question")


async def test_a_question_that_waits_goes_to_whoever_is_probed_next_and_not_only_to_those_known_before():
    """Client 0 answers the probe, leaves at 2 s and is back at 100 s; client 1 comes at 5 s."""
    times = Timetable({0: [(0.0, 2.0), (100.0, 200.0)], 1: [(5.0, 200.0)]})
    ran = await play(
        fedgrpo_settings(num_experts=1),
        [FakeEvaluator("ab")] * 2,
        availability=times,
        stop=StopConfig(updates=2),
    )
    assert ran.ended_at_s < 10.0


async def test_the_probe_is_repeated_when_it_was_cut_and_draws_anew_each_time():
    """Half of all tasks are given up; still every client is probed in the end, with one answer each."""
    ran = await play(
        fedgrpo_settings(num_experts=1),
        [FakeEvaluator("ab")] * 6,
        dropout=DropoutConfig(per_task=0.5),
        stop=StopConfig(virtual="60 s"),
    )
    probes = [row for row in ran.outcomes if row.purpose == "probe"]
    assert Counter(row.client_id for row in probes if row.status == "ok") == dict.fromkeys(range(6), 1)
    assert any(row.status == "dropped" for row in probes)


async def test_fewer_than_m_experts_are_asked_when_fewer_are_there():
    times = Timetable({0: [], 1: []})
    ran = await play(fedgrpo_settings(num_experts=3), [FakeEvaluator("ab")] * 3, availability=times)
    assert ran.groups[0].num_experts == 1
    assert ran.experts_of(0) == [2]


async def test_a_client_that_never_comes_back_does_not_end_the_run():
    ran = await play(
        fedgrpo_settings(num_experts=1),
        [FakeEvaluator("ab")] * 2,
        availability=Timetable({0: []}),
        stop=StopConfig(updates=3),
    )
    assert len(ran.updates) == 3
    assert {row.client_id for row in ran.outcomes} == {1}


async def test_experts_below_the_floor_are_not_asked_and_floor_0_asks_them_as_the_paper_does():
    """Of L = 4 exemplars of its domain client 0 knows all, clients 1 and 2 none."""
    evaluators = [FakeEvaluator("ab"), FakeEvaluator(""), FakeEvaluator("")]
    for floor, asked in ((0.5, 1), (0.0, 2)):
        config = fedgrpo_settings(num_experts=2, competence_floor=floor)
        ran = await play(config, evaluators, stop=StopConfig(updates=4))
        assert {row.num_experts for row in ran.groups[1:]} == {asked}


async def test_a_question_that_nobody_there_is_competent_for_is_passed_over_and_the_others_go_on():
    """Client 0 alone knows a, and leaves at 2 s; client 1 knows b, and stays."""
    ran = await play(
        fedgrpo_settings(num_experts=1, competence_floor=0.5),
        [FakeEvaluator("a"), FakeEvaluator("b")],
        availability=Timetable({0: [(0.0, 2.0)]}),
        stop=StopConfig(updates=10),
    )
    later = [row for row in ran.groups if row.dispatched_at_s > 2.0]
    assert {(row.domain, row.fate) for row in later} == {("a", "no_experts"), ("b", "trained")}


async def test_when_no_question_can_be_asked_the_server_waits_for_its_experts_instead_of_giving_up():
    """The only client that knows anything is away for more than an hour; another, who knows nothing, is there."""
    ran = await play(
        fedgrpo_settings(num_experts=1, competence_floor=0.5),
        [FakeEvaluator("ab"), FakeEvaluator("")],
        availability=Timetable({0: [(0.0, 2.0), (5000.0, 99999.0)]}),
        stop=StopConfig(updates=5),
    )
    assert len(ran.updates) == 5
    assert 5000.0 < ran.ended_at_s < 5020.0
    assert len(ran.groups) < 200  # it did not sample for an hour what nobody can judge


# ------------------------------------------------------------------------------------------------ no experts at all


@pytest.mark.parametrize("probe", ["once", "per_question"])
async def test_when_nobody_is_ever_online_the_run_ends_in_one_clear_error(probe):
    with pytest.raises(FederationError, match=r"away for good|will ever be online"):
        await play(
            fedgrpo_settings(probe=probe, num_experts=1),
            [FakeEvaluator("ab")] * 3,
            availability=Timetable({0: [], 1: [], 2: []}),
        )


@pytest.mark.parametrize("probe", ["once", "per_question"])
async def test_when_every_task_is_given_up_the_run_ends_in_an_error_and_does_not_hang(probe):
    with pytest.raises(FederationError, match=r"answered the probe|no usable reward"):
        await play(
            fedgrpo_settings(probe=probe, num_experts=1),
            [FakeEvaluator("ab")] * 3,
            dropout=DropoutConfig(per_task=1.0),
        )


async def test_one_client_that_always_fails_does_not_end_the_run_while_another_may_still_come():
    """Client 0's hundred probes fail long before client 1, alone to succeed, comes online."""
    on = stage(
        fedgrpo_settings(num_experts=1),
        [FakeEvaluator("ab")] * 2,
        profiles=[device(0.01), device(1.0)],
        availability=Timetable({0: _flickering(0.005, 0.005, 200), 1: [(1000.0, 9999.0)]}),
    )
    ran = await perform(on, fedgrpo_settings(num_experts=1))
    assert sum(row.client_id == 0 for row in ran.outcomes) == 100
    assert ran.experts_of(0) == [1]


async def test_a_question_that_nobody_can_score_is_left_out_and_the_others_are_learned():
    """The only client's model says NaN to question a100, as a broken model might."""
    evaluator = FakeEvaluator("a", lambda q, c: float("nan") if q == "a100" else float(len(c)))
    data = task_data(num_clients=1, domains=("a",), pool=3, auxiliary=4)
    policy = FakePolicy()
    ran = await play(
        fedgrpo_settings(num_experts=1), [evaluator], data=data, policy=policy, stop=StopConfig(updates=4)
    )
    fates = {row.question_id: row.fate for row in ran.groups}
    assert fates == {100: "no_rewards", 101: "trained", 102: "trained"}
    unscored = [row.draw for row in ran.groups if row.question_id == 100]
    assert policy.forgotten == unscored
    assert all(row.num_answered == 0 for row in ran.groups if row.question_id == 100)


async def test_when_no_question_can_be_scored_the_run_ends_after_the_hopeless_limit():
    evaluator = FakeEvaluator("a", lambda q, c: float("nan"))
    on = stage(fedgrpo_settings(num_experts=1), [evaluator])
    with pytest.raises(FederationError, match=f"{HOPELESS_GROUPS} question groups in a row"):
        await perform(on, fedgrpo_settings(num_experts=1))
    assert [row.fate for row in on.groups] == ["no_rewards"] * HOPELESS_GROUPS


# --------------------------------------------------------------------------------------------------- dual evaluation


async def test_both_kinds_of_evaluation_are_among_the_chosen_experts_and_replies_have_one_size():
    data = task_data(num_clients=3, pool=12, trusted=[{100 + i: str(100 + i) for i in range(6)}, {}, {}])
    ran = await play(
        fedgrpo_settings(num_experts=2),
        [FakeEvaluator("ab")] * 3,
        data=data,
        stop=StopConfig(updates=12),
    )
    by_evaluator = Counter(row.evaluator for row in ran.log.of(Reward))
    assert set(by_evaluator) == {"AE", "ME likelihood"}
    assert min(by_evaluator.values()) >= 3
    for row in ran.log.of(Reward):
        owned = row.client_id == 0 and row.question_id < 106
        assert row.evaluator == ("AE" if owned else "ME likelihood")
    # The size on the wire tells nobody which of the two a client did.
    sizes = {row.message_bytes for row in ran.log.of(Transfer) if row.purpose == "reward"}
    assert len(sizes) == 1


def client(trusted=(), knows="a", model_score="likelihood", answers=None):
    return ClientState(
        0, FakeEvaluator(knows), SPEC, dict(trusted), answers or AnswerRule(), COUNTS, model_score
    )


CANDIDATES = wire.Candidates(wire.pack_id(5), "a7", ("7", "8", "7"))


def test_answer_based_evaluation_compares_with_the_trusted_answer_even_if_it_is_wrong():
    reply = fedgrpo.score(client({"a7": "8"}), CANDIDATES)
    assert (reply.evaluator, reply.message.rewards) == ("AE", (0.0, 1.0, 0.0))


def test_model_based_likelihood_is_the_models_own_number():
    reply = fedgrpo.score(client(), CANDIDATES)
    assert (reply.evaluator, reply.message.rewards) == ("ME likelihood", (0.8, 0.1, 0.8))


def test_model_based_agreement_is_equality_with_the_models_own_answer():
    reply = fedgrpo.score(client(model_score="agreement"), CANDIDATES)
    assert (reply.evaluator, reply.message.rewards) == ("ME agreement", (1.0, 0.0, 1.0))
    ignorant = fedgrpo.score(client(knows="b", model_score="agreement"), CANDIDATES)
    assert ignorant.message.rewards == (0.0, 0.0, 0.0)


def test_answers_are_compared_as_the_task_says():
    numeric = client({"a7": "7.0"}, answers=AnswerRule("numeric"))
    assert fedgrpo.score(numeric, CANDIDATES).message.rewards == (1.0, 0.0, 1.0)


def test_comparing_strings_costs_no_model_work_and_a_likelihood_does():
    assert fedgrpo.score_cost(client({"a7": "7"}), CANDIDATES).flop == 0
    assert fedgrpo.score_cost(client(), CANDIDATES).flop > 0
    assert fedgrpo.score_cost(client(model_score="agreement"), CANDIDATES).flop > 0


def test_every_message_that_goes_up_under_fedgrpo_carries_registered_scalars_only():
    """Each handler is run once; a handler without an example here fails, so a new message must be looked at."""
    examples = {
        wire.ProbeExemplars: wire.ProbeExemplars(wire.pack_id(0), ("a1", "b2"), ("1", "2")),
        wire.ProbeNeighbours: wire.ProbeNeighbours(wire.pack_id(0), ("a1", "b2"), ("1", "2")),
        wire.Candidates: CANDIDATES,
    }
    handlers = protocols.handlers(settings("fedgrpo"))
    assert set(handlers) == set(examples)
    for kind, handler in handlers.items():
        for state in (client(), client({"a7": "8"}), client(model_score="agreement")):
            reply = handler.run(state, examples[kind]).message
            assert type(reply).scalars_only
            assert not any(isinstance(getattr(reply, name), str) for name in reply.__struct_fields__)


# ------------------------------------------------------------------------------------- the released code's wire


async def test_under_answers_up_the_question_goes_down_the_answer_comes_up_and_the_server_compares():
    """Candidates are the truth, x, y and z; both experts know the domain, so each reward is 1, 0, 0, 0."""
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "x", "y", "z"])
    config = fedgrpo_settings(
        num_experts=2, wire="answers_up", update={"groups_per_update": 2, "in_flight": 2}
    )
    ran = await play(config, [FakeEvaluator("ab"), FakeEvaluator("ab")], policy=policy)
    asked = [row for row in ran.told if not isinstance(row.message, wire.ProbeExemplars)]
    assert {type(row.message) for row in asked} == {wire.QuestionOnly}
    assert {type(row.reply) for row in asked} == {wire.FinalAnswer}
    advantages = policy.steps[0].advantages
    assert all(signal[0] > 0 > signal[1] == signal[2] == signal[3] for signal in advantages)
    assert ran.wire_bytes("reward") == 0 < ran.wire_bytes("answer")


async def test_under_answers_up_a_trusted_answer_goes_up_in_the_models_place():
    reply = fedgrpo.answer(client({"a7": "8"}, knows="a"), wire.QuestionOnly(wire.pack_id(0), "a7"))
    assert reply.message == wire.FinalAnswer(wire.pack_id(0), "8")
    assert fedgrpo.answer_cost(client({"a7": "8"}), wire.QuestionOnly(wire.pack_id(0), "a7")).flop == 0
    assert fedgrpo.answer_cost(client(), wire.QuestionOnly(wire.pack_id(0), "a7")).flop > 0


async def test_both_wires_give_the_same_advantages_where_experts_compare_their_own_answers():
    def play_with(kind: str):
        policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "x", "y", "z"])
        config = fedgrpo_settings(
            num_experts=2,
            wire=kind,
            model_score="agreement",
            update={"schedule": "barrier", "groups_per_update": 6},
        )
        return policy, play(
            config, [FakeEvaluator("a"), FakeEvaluator("ab"), FakeEvaluator("b")], policy=policy
        )

    by_scores, ran = play_with("scores_up")
    await ran
    by_answers, ran = play_with("answers_up")
    await ran
    assert by_scores.steps[0].advantages == by_answers.steps[0].advantages


# ------------------------------------------------------------------------------------- missing and partial rewards


async def slow_second_expert(missing: str):
    """Two experts, one question; rewards of the second take 6 s on its thin uplink, its competence only 2.5 s."""
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "x", "y", "z"])
    config = fedgrpo_settings(
        num_experts=2,
        probe="per_question",
        stragglers={"policy": "deadline", "deadline": "5 s", "missing": missing},
        divide_by_std=False,
    )
    ran = await play(
        config,
        [FakeEvaluator("ab")] * 2,
        policy=policy,
        profiles=[device(), replace(device(), up_bytes_per_s=8.0)],
        stop=StopConfig(virtual="9.5 s"),
    )
    return policy, ran


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("mask", (0.525, -0.175, -0.175, -0.175)),  # the first expert alone: 0.8, 0.1, 0.1, 0.1 centred
        ("zero", (0.2625, -0.0875, -0.0875, -0.0875)),  # averaged with an expert who saw no difference
    ],
)
async def test_a_reward_that_misses_the_deadline_is_masked_or_counted_as_zero(missing, expected):
    policy, ran = await slow_second_expert(missing)
    assert policy.steps[0].advantages[0] == pytest.approx(expected)
    # The record tells what came, whatever learning makes of it.
    assert (ran.groups[0].num_experts, ran.groups[0].num_answered) == (2, 1)
    assert ran.groups[0].reward_mean == pytest.approx(0.275)


async def test_a_group_that_lacks_a_reward_can_be_dropped_whole():
    policy, ran = await slow_second_expert("drop_group")
    assert policy.steps == []
    assert [(row.draw, row.fate, row.num_answered) for row in ran.groups] == [(0, "no_rewards", 1)]
    assert policy.forgotten == [0]


async def test_a_reward_after_the_deadline_is_recorded_as_late_and_not_used():
    _, ran = await slow_second_expert("mask")
    (late,) = [row for row in ran.outcomes if row.status == "late" and row.subject == 0]
    assert late.client_id == 1
    assert late.ended_at_s - late.sent_at_s > 5.0
    (charged,) = [
        row for row in ran.log.of(Transfer) if row.request_id == late.request_id and row.direction == "up"
    ]
    assert charged.fate == "late"
    assert [row.client_id for row in ran.log.of(Reward) if row.draw == 0] == [0, 1]


# -------------------------------------------------------------------------- truncated candidates, the format reward


async def test_truncated_candidates_are_scored_and_count_in_the_mean():
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "cut off", "x"])
    await play(fedgrpo_settings(num_experts=1, divide_by_std=False), [FakeEvaluator("ab")], policy=policy)
    # Scores 0.8, 0.1, 0.1 with mean 1/3: the truncated one has its own advantage (the loss masks it).
    assert policy.steps[0].advantages[0] == pytest.approx((1.4 / 3, -0.7 / 3, -0.7 / 3))


async def test_the_format_reward_is_the_servers_own_and_goes_in_before_standardising():
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "cut off", "x"])
    ran = await play(
        fedgrpo_settings(num_experts=1, divide_by_std=False, format_weight=0.3),
        [FakeEvaluator("ab")],
        policy=policy,
    )
    # 0.8 + 0.3, 0.1, 0.1 + 0.3 with mean 1.6/3.
    assert policy.steps[0].advantages[0] == pytest.approx((1.7 / 3, -1.3 / 3, -0.4 / 3))
    assert ran.log.of(Reward)[0].rewards == (0.8, 0.1, 0.1)


# ------------------------------------------------------------------------------------------------ end of the run


async def test_work_in_flight_at_the_end_is_drained_and_charged():
    config = fedgrpo_settings(num_experts=1, update={"groups_per_update": 1, "in_flight": 8})
    ran = await play(config, [FakeEvaluator("ab")])
    after = [row for row in ran.outcomes if row.ended_at_s > ran.ended_at_s]
    assert len(after) >= 6
    assert {row.status for row in after} == {"late"}
    assert all(row.sent_at_s <= ran.ended_at_s for row in ran.outcomes)
    charged = {row.request_id for row in ran.log.of(Transfer) if row.fate == "late" and row.direction == "up"}
    assert charged == {row.request_id for row in after}


async def test_the_confidence_graph_of_one_question_per_domain_is_left_for_the_run_folder():
    data = task_data(num_clients=2, pool=6, auxiliary=8)
    ran = await play(fedgrpo_settings(num_experts=1), [FakeEvaluator("a"), FakeEvaluator("b")], data=data)
    graph = ran.state.artefacts["confidence_graph"]()
    kinds = Counter(kind for _, kind in graph.nodes(data="kind"))
    assert kinds == {"question": 2, "exemplar": 8, "client": 2}
    assert graph.edges["e0", "c0"]["weight"] == 1.0
    assert graph.edges["e0", "c1"]["weight"] == 0.0


async def test_questions_come_in_a_keyed_order_each_once_per_epoch():
    data = task_data(num_clients=1, pool=5)
    ran = await play(
        fedgrpo_settings(num_experts=1), [FakeEvaluator("ab")], data=data, stop=StopConfig(updates=15)
    )
    asked = [row.question_id for row in ran.groups]
    epochs = [asked[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(epoch) == [100, 101, 102, 103, 104] for epoch in epochs)
    assert any(one != other for one, other in pairwise(epochs))


async def test_an_empty_pool_is_a_clear_error():
    data = task_data(num_clients=1, pool=0)
    with pytest.raises((FederationError, ValueError), match="question"):
        await play(fedgrpo_settings(num_experts=1), [FakeEvaluator("ab")], data=data)


def _flickering(on_s: float, off_s: float, times: int) -> list[tuple[float, float]]:
    period = on_s + off_s
    return [(i * period, i * period + on_s) for i in range(times)]


def test_the_fake_policy_embeds_by_domain():
    """What the tests above lean on: questions of one domain are nearer to each other than to the other's."""
    near = FakePolicy().embed([question("a", 1), question("a", 99), question("b", 1)])
    assert near[0] @ near[1] > 0.99 > 0.1 > near[0] @ near[2]
    assert np.allclose(np.linalg.norm(near, axis=1), 1)


def test_weighing_by_a_competence_that_nobody_is_asked_for_is_refused():
    with pytest.raises(ValidationError, match="asks nobody for it"):
        settings("fedgrpo", fusion="competence", probe="per_question", experts="random")
    assert settings("fedgrpo", fusion="competence", probe="once", experts="random")
