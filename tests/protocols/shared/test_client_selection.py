"""Who scores (shared/client_selection.py): the probe, the choice of experts, and what happens when nobody can be asked."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from pydantic import ValidationError

from fedsim.errors import FederationError
from fedsim.models.interfaces import Draw
from fedsim.protocols.shared.client_selection import Experts, exemplars_cost
from fedsim.protocols.shared.learner import HOPELESS_GROUPS
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.sim import streams
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import generate_work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import (
    COUNTS,
    SPEC,
    FakeEvaluator,
    FakePolicy,
    device,
    perform,
    play,
    settings,
    stage,
    task_data,
)
from tests.samples.worlds import Timetable

ONE_BY_ONE = {"schedule": "group", "groups_per_update": 1, "in_flight": 1}


def fedgrpo_settings(**keys):
    return settings("fedgrpo", **{"num_neighbours": 4, "update": ONE_BY_ONE, **keys})


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


def test_an_exemplar_costs_a_prompt_and_an_answer_as_long_as_its_label_with_its_end_token():
    """The fakes' tokens are characters: a7 has two, its label 7 one and the end."""
    client = ClientState(0, FakeEvaluator("a"), SPEC, {}, AnswerRule(), COUNTS)
    message = wire.ProbeExemplars(wire.pack_id(0), ("a7", "b10"), ("7", "10"))
    assert exemplars_cost(client, message) == generate_work(SPEC, [2, 3], [[2], [3]])


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


@pytest.mark.parametrize(("share", "first_at_s", "asked"), [(0.0, 1.25, 1), (0.67, 8.25, 0)])
async def test_no_question_is_asked_before_the_wanted_share_of_the_clients_is_known(share, first_at_s, asked):
    """Client 0 knows everything and takes 8 s to answer Dp; client 1 knows nothing and takes 1 s; client 2 is away for good.

    A share of .67 means all three: who is given up counts.
    """
    ran = await play(
        fedgrpo_settings(num_experts=1, probed_share=share),
        [FakeEvaluator("ab"), FakeEvaluator(""), FakeEvaluator("ab")],
        profiles=[device(8.0), device(1.0), device(1.0)],
        availability=Timetable({2: []}),
        stop=StopConfig(updates=4),
    )
    assert ran.groups[0].dispatched_at_s == pytest.approx(first_at_s)
    assert ran.experts_of(ran.groups[0].draw) == [asked]


async def test_a_floor_leaves_nobody_where_the_best_known_client_gets_nothing_right():
    """Nobody knows domain b, so its questions are passed over; without a floor somebody is asked."""
    evaluators = [FakeEvaluator("a"), FakeEvaluator("")]
    floored = await play(
        fedgrpo_settings(num_experts=1, competence_floor=0.5, num_neighbours=4),
        evaluators,
        stop=StopConfig(updates=4),
    )
    scored = {row.domain for row in floored.groups if row.num_experts}
    assert scored == {"a"}
    plain = await play(
        fedgrpo_settings(num_experts=1, num_neighbours=4), evaluators, stop=StopConfig(updates=4)
    )
    assert {row.domain for row in plain.groups if row.num_experts} == {"a", "b"}


async def test_where_nobody_knows_anything_a_floor_ends_the_run_with_its_reason():
    with pytest.raises(
        FederationError, match=r"101 questions in a row were passed over with every client there"
    ):
        await play(
            fedgrpo_settings(num_experts=1, competence_floor=0.5),
            [FakeEvaluator("")] * 2,
            stop=StopConfig(updates=2),
        )


async def test_where_competence_weighs_the_scores_of_random_experts_only_those_are_asked_whose_it_is_known():
    """Client 0 takes 8 s to answer Dp."""
    config = fedgrpo_settings(experts="random", fusion="competence", num_experts=2)
    ran = await play(
        config, [FakeEvaluator("ab")] * 3, profiles=[device(8.0), device(1.0), device(1.0)], stop=StopConfig(updates=8)
    )  # fmt: skip
    asked = {(row.client_id, row.sent_at_s < 8.0) for row in ran.outcomes if row.purpose == "question"}
    assert asked == {(0, False), (1, True), (2, True), (1, False), (2, False)}


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
    with pytest.raises(FederationError, match=r"answered the probe|2000 had no expert"):
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
    evaluator = FakeEvaluator("a", lambda q, c: float("nan") if q == "a100" else len(c) / 10)
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
    said = f"^{HOPELESS_GROUPS} question groups in a row could not be learned from: {HOPELESS_GROUPS} had no reward"
    with pytest.raises(FederationError, match=said):
        await perform(on, fedgrpo_settings(num_experts=1))
    assert [row.fate for row in on.groups] == ["no_rewards"] * HOPELESS_GROUPS


async def test_a_client_whose_competence_nobody_asked_for_weighs_one():
    data = task_data(num_clients=2)
    config = fedgrpo_settings(num_experts=1)
    on = stage(config, [FakeEvaluator("ab")] * 2, data=data)
    weights = Experts(on.federation, config, on.state).weights(Draw(0, data.pool[0]), (0, 1))
    assert weights.tolist() == [1.0, 1.0]


def test_weighing_by_a_competence_that_nobody_is_asked_for_is_refused():
    with pytest.raises(ValidationError, match="asks nobody for it"):
        settings("fedgrpo", fusion="competence", probe="per_question", experts="random")
    assert settings("fedgrpo", fusion="competence", probe="once", experts="random")


def _flickering(on_s: float, off_s: float, times: int) -> list[tuple[float, float]]:
    period = on_s + off_s
    return [(i * period, i * period + on_s) for i in range(times)]
