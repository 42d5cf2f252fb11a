"""The controls: what each may see, what it sends, and how they relate to FedGRPO; protocols of third parties."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from fedsim import protocols
from fedsim.config.strict import StrictModel
from fedsim.errors import FederationError, ScenarioError
from fedsim.protocols import distil
from fedsim.protocols.self_reward import majority
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.records.rows import Compute, Reward, Transfer
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import FakeEvaluator, FakePolicy, play, settings, task_data

ROUNDS = {"schedule": "barrier", "groups_per_update": 6}
EXPERTS = ("a", "b", "ab", "")


def crowd():
    return [FakeEvaluator(knows) for knows in EXPERTS]


async def fedgrpo(experts: str = "competence", *, updates: int = 5, **keys):
    config = settings("fedgrpo", experts=experts, num_neighbours=4, update=ROUNDS, **keys)
    data = task_data(num_clients=4, pool=30)
    table = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5], [0.0, 0.0]])
    return await play(
        config, crowd(), data=data, stop=StopConfig(updates=updates), client_accuracy=lambda: table
    )


def asked(ran):
    """Domain and experts of every question group."""
    return [(row.domain, tuple(sorted(ran.experts_of(row.draw)))) for row in ran.groups]


# ------------------------------------------------------------------------------------------------------ registry


def test_every_protocol_has_settings_a_name_and_handlers_for_messages_only():
    assert list(protocols.PROTOCOLS) == protocols.names()[: len(protocols.PROTOCOLS)]
    for name in protocols.PROTOCOLS:
        module = protocols.load(name)
        assert issubclass(module.Config, StrictModel)
        assert module.Config().name == name
        assert all(issubclass(kind, wire.Message) for kind in module.HANDLERS)


def test_an_unknown_protocol_is_refused_with_the_names_there_are():
    with pytest.raises(ScenarioError, match=r"no protocol 'fedgpro'; there are .*fedgrpo.*zero_shot"):
        protocols.load("fedgpro")


def test_only_these_protocols_ask_clients_for_anything():
    asking = {name for name in protocols.PROTOCOLS if protocols.load(name).HANDLERS}
    assert asking == {"fedgrpo", "distil", "fedpetuning", "dpsda_fl", "central_pooled"}


# --------------------------------------------------------------------------------- fedgrpo's experts and their controls


async def test_competence_asks_those_who_know_the_domain():
    ran = await fedgrpo(num_experts=2)
    # Everybody is probed at the same instant, so the very first questions are ranked with all of them known.
    assert set(asked(ran)) == {("a", (0, 2)), ("b", (1, 2))}


async def test_all_asks_everybody_and_random_asks_everybody_equally_often():
    everybody = await fedgrpo("all", num_experts=2)
    assert {experts for _, experts in asked(everybody)} == {(0, 1, 2, 3)}
    by_chance = await fedgrpo("random", num_experts=1, updates=60)
    counts = Counter(experts for _, experts in asked(by_chance))
    assert set(counts) == {(0,), (1,), (2,), (3,)}
    again = await fedgrpo("random", num_experts=1, updates=60)
    assert asked(again) == asked(by_chance)


async def test_oracle_asks_those_who_are_truly_best_whatever_the_probe_says():
    ran = await fedgrpo("oracle", num_experts=1)
    assert set(asked(ran)) == {("a", (0,)), ("b", (1,))}


async def test_oracle_honours_the_floor_against_the_best_client_of_the_domain():
    """True accuracies are .9, .1, .5, 0 in domain a and .1, .9, .5, 0 in b; .5 is .56 of .9."""
    above = await fedgrpo("oracle", num_experts=3, competence_floor=0.5)
    assert set(asked(above)) == {("a", (0, 2)), ("b", (1, 2))}
    below = await fedgrpo("oracle", num_experts=3, competence_floor=0.6)
    assert set(asked(below)) == {("a", (0,)), ("b", (1,))}


async def test_random_asks_as_many_as_the_floored_graph_would_name_whoever_they_are():
    """Two clients know each domain, so a floor leaves two of M = 3; without one three are asked."""
    named = await fedgrpo(num_experts=3, competence_floor=0.7)
    by_chance = await fedgrpo("random", num_experts=3, competence_floor=0.7)
    assert [len(experts) for _, experts in asked(by_chance)] == [len(experts) for _, experts in asked(named)]
    assert {len(experts) for _, experts in asked(by_chance)} == {2}
    assert len({experts for _, experts in asked(by_chance)}) > 2
    without = await fedgrpo("random", num_experts=3)
    assert {len(experts) for _, experts in asked(without)} == {3}


def test_a_floor_that_would_not_be_heard_is_refused():
    with pytest.raises(
        ValueError, match=r"experts all asks everybody, so competence_floor must be 0 \(it is 0.7\)"
    ):
        settings("fedgrpo", experts="all", competence_floor=0.7)
    with pytest.raises(ValueError, match=r"as many as the graph would name, which needs probe once"):
        settings("fedgrpo", experts="random", competence_floor=0.7, probe="per_question")
    assert settings("fedgrpo", experts="random", probe="per_question").competence_floor == 0


# ------------------------------------------------------------------------------------------------ server-only controls


async def server_only(name: str, evaluators=None, **keys):
    config = settings(name, update=ROUNDS, **keys)
    ran = await play(
        config, evaluators or crowd(), data=task_data(num_clients=4, pool=30), stop=StopConfig(updates=4)
    )
    assert ran.outcomes == [] and ran.log.of(Transfer) == []
    return ran


async def test_central_grpo_is_rewarded_by_the_truth_and_sends_nothing():
    ran = await server_only("central_grpo")
    assert all(row.question_id >= 100 for row in ran.groups)  # questions of Ds
    assert all(row.reward_mean == row.correct for row in ran.groups)


def test_a_server_that_rewards_itself_trains_on_its_live_policy_unless_told_otherwise():
    for name in ("central_grpo", "dp_grpo", "self_reward", "central_pooled", "dpsda_fl"):
        config = protocols.load(name).Config
        few = config(name=name, update={"groups_per_update": 4})
        assert config(name=name).update.schedule == few.update.schedule == "barrier"
        asked = config(name=name, update={"schedule": "group"})
        assert asked.update.schedule == "group", "what is said holds"
    assert protocols.load("fedgrpo").Config().update.schedule == "group", "devices are waited for"


async def test_dp_grpo_learns_from_the_exemplars_alone():
    ran = await server_only("dp_grpo")
    assert {row.question_id for row in ran.groups} == set(range(8))
    assert all(row.reward_mean == row.correct for row in ran.groups)


async def test_self_reward_scores_with_the_frozen_server_and_takes_the_servers_time():
    ran = await server_only("self_reward")
    kinds = Counter(row.kind for row in ran.log.of(Compute))
    assert kinds["score"] == len(ran.groups) == 24
    # The frozen fake knows both domains: 0.8 for a right candidate, 0.1 for a wrong one.
    for row in ran.groups:
        assert row.reward_mean == pytest.approx(0.1 + 0.7 * row.correct)


async def test_majority_vote_rewards_what_most_candidates_say_be_it_right_or_wrong():
    ran = await server_only("self_reward", reward="majority")
    # Wrong candidates all differ: the right ones win where there are two, else the first of four different answers does.
    assert {row.correct for row in ran.groups} > {0.0}
    assert all(row.reward_mean == max(row.correct, 0.25) for row in ran.groups)
    assert "score" not in {row.kind for row in ran.log.of(Compute)}, "comparing texts takes no time"
    numbers = majority(["2", "3", "2.0", "3.00", "4"], AnswerRule("numeric"))
    assert numbers == [1.0, 0.0, 1.0, 0.0, 0.0], "the first of two that are as frequent"
    assert majority(["5", "5", "so #### 6"], AnswerRule(pattern="#### ([0-9]+)")) == [0.0, 0.0, 1.0]
    assert majority(["", " "], AnswerRule()) == [0.0, 0.0], "nobody gave an answer"


async def test_dp_sft_fits_the_exemplars_step_by_step():
    config = settings("dp_sft", fit_batch_size=4)
    data = task_data(num_clients=4, pool=30)
    ran = await play(config, crowd(), data=data, stop=StopConfig(updates=3))
    assert [len(rows) for rows in ran.policy.fits] == [4] * 3
    assert sorted(row.question_id for rows in ran.policy.fits[:2] for row in rows) == list(
        range(8)
    )  # one epoch
    assert [row.policy_version for row in ran.updates] == [1, 2, 3]
    assert ran.outcomes == [] and ran.groups == []
    assert [row.kind for row in ran.log.of(Compute)] == ["update"] * 3


async def test_zero_shot_does_nothing_at_all():
    ran = await play(settings("zero_shot"), crowd())
    assert (ran.policy.version, ran.ended_at_s) == (0, 0.0)
    assert ran.outcomes == ran.updates == ran.groups == ran.log.of(Transfer) == ran.log.of(Compute) == []


# --------------------------------------------------------------------------------------------------------------- distil


async def distilled(evaluators=None, **world):
    config = settings("distil", num_experts=2, num_neighbours=4, questions_per_update=6)
    world = {"data": task_data(num_clients=4, pool=30), "stop": StopConfig(updates=3)} | world
    return await play(config, evaluators or crowd(), **world)


async def test_distil_fits_the_experts_own_answers_and_charges_their_text():
    ran = await distilled()
    # Six questions for two experts each; the first six go to the first who answered the probe, alone.
    assert [row.num_candidates for row in ran.updates] == [6, 12, 12]
    assert [len(rows) for rows in ran.policy.fits] == [6, 12, 12]
    for row in (row for rows in ran.policy.fits for row in rows):
        assert row.answer in (row.text[1:], "?")
    for rows in ran.policy.fits[1:]:
        assert all(row.answer == row.text[1:] for row in rows)  # from those who are competent
    up = [row for row in ran.log.of(Transfer) if row.purpose == "answer" and row.fate == "useful"]
    assert {row.paper_bytes for row in up} <= {1, 3}  # answers such as "117", and "?"
    assert len(up) == 30
    assert ran.log.of(Reward) == []
    # The question goes down without candidates.
    down = [row for row in ran.log.of(Transfer) if row.purpose == "question"]
    assert {row.message_bytes for row in down} == {
        len(wire.encode(wire.QuestionOnly(wire.pack_id(0), "a117")))
    }


async def test_distil_learns_what_the_experts_say_and_never_the_truth():
    """All four are ignorant: their own answer is a question mark, and that is what is fitted."""
    ran = await distilled([FakeEvaluator("")] * 4)
    assert {row.answer for rows in ran.policy.fits for row in rows} == {"?"}


async def test_distil_fits_nothing_of_a_questions_own_solution():
    data = task_data(num_clients=4, pool=30)
    pool = tuple(replace(one, solution=f"#### {one.answer}", accepted=("many",)) for one in data.pool)
    ran = await distilled(data=replace(data, pool=pool))
    assert {row.taught in (row.text[1:], "?") for rows in ran.policy.fits for row in rows} == {True}
    assert {row.accepted for rows in ran.policy.fits for row in rows} == {()}


async def test_distil_ends_in_an_error_when_nobody_ever_answers():
    config = settings("distil", num_experts=2, probe="per_question", experts="random")
    with pytest.raises(FederationError, match="questions in a row brought no answer"):
        await play(config, crowd(), dropout=DropoutConfig(per_task=1.0))


def test_a_client_answers_with_its_own_greedy_answer():
    from tests.protocols.test_fedgrpo import client

    reply = distil.answer(client(), wire.QuestionOnly(wire.pack_id(3), "a7"))
    assert reply.message == wire.Answer(wire.pack_id(3), "7")


# ------------------------------------------------------------------------------------------------------------ relations


@pytest.mark.parametrize("grouping", ["candidates", "per_expert", "joint"])
async def test_fedgrpo_with_one_perfect_client_equals_central_grpo(grouping):
    """The same draws, candidates and advantages in every step, hence the same updates."""
    data = task_data(num_clients=1, pool=30, trusted=[{100 + i: str(100 + i) for i in range(30)}])
    keys = {"update": ROUNDS, "grouping": grouping}
    central, federated = FakePolicy(), FakePolicy()
    stop = StopConfig(updates=10)
    await play(settings("central_grpo", **keys), [FakeEvaluator()], data=data, policy=central, stop=stop)
    config = settings("fedgrpo", num_experts=1, num_neighbours=4, **keys)
    ran = await play(config, [FakeEvaluator()], data=data, policy=federated, stop=stop)
    assert federated.steps == central.steps
    assert len(central.steps) == 10
    assert any(value != 0 for step in central.steps for row in step.advantages for value in row)
    assert {row.evaluator for row in ran.log.of(Reward)} == {"AE"}


async def test_fedgrpo_with_one_perfect_model_that_agrees_equals_central_grpo():
    data = task_data(num_clients=1, pool=30)
    central, federated = FakePolicy(), FakePolicy()
    stop = StopConfig(updates=10)
    await play(
        settings("central_grpo", update=ROUNDS), [FakeEvaluator()], data=data, policy=central, stop=stop
    )
    config = settings("fedgrpo", num_experts=1, num_neighbours=4, model_score="agreement", update=ROUNDS)
    await play(config, [FakeEvaluator("ab")], data=data, policy=federated, stop=stop)
    assert federated.steps == central.steps


async def test_with_one_expert_candidates_per_expert_and_joint_are_one_thing():
    steps = []
    for grouping in ("candidates", "per_expert", "joint"):
        ran = await fedgrpo(num_experts=1, grouping=grouping)
        steps.append([row for step in ran.policy.steps for group in step.advantages for row in group])
    assert steps[1] == pytest.approx(steps[0])
    assert steps[2] == pytest.approx(steps[0])


async def test_literal_grouping_asks_and_pays_as_always_but_gives_every_candidate_the_same_nothing():
    ran = await fedgrpo(num_experts=2, grouping="literal")
    gains = [value for step in ran.policy.steps for group in step.advantages for value in group]
    assert np.allclose(gains, 0, atol=1e-12)
    assert ran.wire_bytes("reward") == (await fedgrpo(num_experts=2)).wire_bytes("reward")
