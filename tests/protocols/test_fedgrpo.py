"""FedGRPO (protocols/fedgrpo.py): Algorithm 1 by hand, what travels, and what is made of silence."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from fedsim import protocols
from fedsim.errors import FederationError
from fedsim.protocols import fedgrpo
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.records.rows import Compute, Reward, Transfer
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import (
    COUNTS,
    SPEC,
    FakeEvaluator,
    FakePolicy,
    device,
    play,
    question,
    settings,
    task_data,
)

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
    kinds = Counter(node["kind"] for node in graph["nodes"])
    assert kinds == {"question": 2, "exemplar": 8, "client": 2}
    weights = {(edge["source"], edge["target"]): edge["weight"] for edge in graph["edges"]}
    assert (weights["e0", "c0"], weights["e0", "c1"]) == (1.0, 0.0)


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


def test_the_fake_policy_embeds_by_domain():
    """What the tests above lean on: questions of one domain are nearer to each other than to the other's."""
    near = FakePolicy().embed([question("a", 1), question("a", 99), question("b", 1)])
    assert near[0] @ near[1] > 0.99 > 0.1 > near[0] @ near[2]
    assert np.allclose(np.linalg.norm(near, axis=1), 1)
