"""Who is asked beside or in place of a silent client: the next in competence, the next in the draw of the cohort."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsim.experiment import run as experiment
from fedsim.models.interfaces import Candidate, CandidateGroup, Draw
from fedsim.protocols.fedgrpo import judged
from fedsim.protocols.shared.client_selection import Experts
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.scenario.read import scenario_from
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import FakeEvaluator, FakePolicy, device, play, question, settings, stage, task_data
from tests.samples.worlds import Timetable

ONE_BY_ONE = {"schedule": "group", "groups_per_update": 1, "in_flight": 1}


def fedgrpo(**keys: Any) -> Any:
    return settings("fedgrpo", **{"num_neighbours": 8, "update": ONE_BY_ONE, **keys})


def half_right(share: float) -> FakeEvaluator:
    """A model that answers the first so many of the eight exemplars of domain ``a`` rightly, and prefers the truth."""
    evaluator = FakeEvaluator("a", lambda q, c: {"100": 0.9, "7": 0.1}[c])
    answers = evaluator.answers
    evaluator.answers = (
        lambda texts: [  # type: ignore[method-assign]
            one if int(text[1:]) < 8 * share else "?" for text, one in zip(texts, answers(texts), strict=True)
        ]
    )
    return evaluator


SHARES = (0.25, 1.0, 0.75, 0.5)
"""Competences of clients 0 to 3 for the one question: the order is 1, 2, 3, 0."""


async def performed(
    stragglers: dict[str, Any], *, seconds: Any = (1.0,) * 4, away: Any = None, **keys: Any
) -> Any:
    """One question of domain ``a``; everybody is probed for it, whose slowest answers after ``max(seconds)``."""
    return await play(
        fedgrpo(num_experts=2, probe="per_question", stragglers=stragglers, **keys),
        [half_right(share) for share in SHARES],
        data=task_data(num_clients=4, domains=("a",), pool=1, auxiliary=8),
        policy=FakePolicy(texts=lambda draw, version: ["100", "7"]),
        profiles=[device(one) for one in seconds],
        availability=Timetable(away or {}),
        stop=StopConfig(updates=1),
    )


def first_draw(ran: Any) -> list[tuple[int, str]]:
    rows = [row for row in ran.outcomes if row.purpose == "question" and row.subject == 0]
    return sorted((row.client_id, row.status) for row in rows)


async def test_over_selection_asks_the_next_in_competence_and_the_groups_size_stays_m():
    ran = await performed({"policy": "over_select", "extra": 1}, seconds=(1.0, 9.0, 2.0, 1.0))
    assert first_draw(ran) == [(1, "over_selected"), (2, "ok"), (3, "ok")]
    assert (ran.groups[0].num_experts, ran.groups[0].num_answered) == (2, 2)


async def test_the_competence_floor_holds_for_spares_too():
    ran = await performed(
        {"policy": "over_select", "extra": 2}, seconds=(1.0, 9.0, 2.0, 1.0), competence_floor=0.7
    )
    assert first_draw(ran) == [(1, "ok"), (2, "ok")]


@pytest.mark.parametrize(
    ("away", "replacement"), [({1: [(0.0, 2.0)]}, 3), ({1: [(0.0, 2.0)], 3: [(0.0, 1.5)]}, 0)]
)
async def test_a_lost_expert_is_replaced_by_the_next_in_competence_who_is_there(away: Any, replacement: int):
    """Sample to 0.25 s, probe to 1.25 s, score from then on: client 1 leaves at 2 s; client 3 is next, or 0 without it."""
    ran = await performed({"policy": "replace"}, away=away)
    asked = {
        row.client_id: (row.sent_at_s, row.status)
        for row in ran.outcomes
        if row.purpose == "question" and row.subject == 0
    }
    chosen_at_s = pytest.approx(1.25)
    assert asked == {1: (chosen_at_s, "dropped"), 2: (chosen_at_s, "ok"), replacement: (2.0, "ok")}
    assert ran.groups[0].num_answered == 2


@pytest.mark.parametrize("probe", ["once", "per_question"])
async def test_the_reward_of_a_spare_counts_by_its_own_competence(probe: str):
    """Client 1 (competence 1) is silent; client 2 (3/4) says 0.8 and client 3 (1/2) too, against their own scale."""
    evaluators = [half_right(share) for share in SHARES]
    evaluators[3]._score = lambda q, c: {"100": 0.0, "7": 0.5}[c]
    policy = FakePolicy(texts=lambda draw, version: ["100", "7"])
    await play(
        fedgrpo(
            num_experts=2,
            probe=probe,
            fusion="competence",
            divide_by_std=False,
            stragglers={"policy": "over_select", "extra": 1, "deadline": "30 s"},
        ),
        evaluators,
        data=task_data(num_clients=4, domains=("a",), pool=1, auxiliary=8),
        policy=policy,
        profiles=[device(one) for one in (1.0, 9.0, 1.0, 1.0)],
    )
    # Centred (0.4, -0.4) and (-0.25, 0.25), weights 3/4 and 1/2.
    expected = (0.75 * 0.4 - 0.5 * 0.25) / 1.25
    assert policy.steps[0].advantages[0] == pytest.approx((expected, -expected))


@pytest.mark.parametrize("kind", ["competence", "random", "oracle"])
async def test_spares_go_on_where_the_choice_ended(kind: str):
    """Chosen two and two spares are the first four of a choice of four, whoever chooses."""

    async def chosen(num_experts: int) -> tuple[Any, Any]:
        config = fedgrpo(num_experts=num_experts, experts=kind)
        accuracy = np.array([[0.1], [0.2], [0.9], [0.4], [0.3]])
        on = stage(
            config,
            [half_right(share) for share in (0.25, 1.0, 0.75, 0.5, 0.125)],
            data=task_data(num_clients=5, domains=("a",), pool=1, auxiliary=8),
            client_accuracy=lambda: accuracy,
        )
        experts = Experts(on.federation, config, on.state)
        draw = Draw(0, on.state.data.pool[0])
        for client in on.federation:
            correct = await experts._ask_exemplars(client)
            assert correct is not None
            experts._graph.record(client.client_id, correct)
        first = await experts.choose(draw)
        return first, experts.spares(draw, first)

    four, _ = await chosen(4)
    two, spares = await chosen(2)
    assert two == four[:2]
    assert [next(spares), next(spares)] == list(four[2:])
    assert len([*spares]) == 1  # the fifth, and then nobody


async def test_a_question_to_everybody_waits_under_the_deadline_alone():
    """The paper's probe of every question goes to all who are there: neither a quorum nor the first two suffice for it."""
    ran = await performed({"policy": "quorum", "quorum": 1}, seconds=(3.0, 1.0, 1.0, 2.0))
    probes = [row for row in ran.outcomes if row.purpose == "probe" and row.subject == 0]
    assert {row.status for row in probes} == {"ok"} and len(probes) == 4
    scored = [row for row in ran.outcomes if row.purpose == "question"]
    assert min(row.sent_at_s for row in scored) >= max(row.ended_at_s for row in probes)


GROUP = CandidateGroup(Draw(0, question("a", 100)), 0, tuple(Candidate(text, 1, False) for text in "wxyz"))


def test_candidates_that_were_not_reached_are_missing_and_not_zero():
    replies = {
        7: wire.PartialRewards(wire.pack_id(0), (0.25, 0.5)),
        2: wire.Rewards(wire.pack_id(0), (0.0, 1.0, 0.0, 1.0)),
    }
    rewards = judged(fedgrpo(), GROUP, (7, 2, 9), replies, AnswerRule()).rewards
    np.testing.assert_array_equal(rewards, [[0.25, 0.5, np.nan, np.nan], [0.0, 1.0, 0.0, 1.0], [np.nan] * 4])


@pytest.mark.parametrize(("grace", "num_scored"), [("1 s", 2), ("1 ms", 0)])
async def test_at_the_deadline_the_candidates_scored_so_far_are_sent_and_learned_from(
    grace: str, num_scored: int
):
    """A scoring of 1 s is 60% done at the deadline of 0.6 s: two of four candidates, on a link that takes 100 ms."""
    policy = FakePolicy(texts=lambda draw, version: [draw.question.answer, "x", "y", "z"])
    stragglers = {"policy": "deadline", "deadline": "600 ms", "partial": True, "partial_grace": grace}
    ran = await play(
        fedgrpo(num_experts=1, stragglers=stragglers, divide_by_std=False),
        [FakeEvaluator("ab")],
        policy=policy,
        profiles=[replace(device(), rtt_s=2e-6, up_bytes_per_s=300.0)],
        stop=StopConfig(virtual="6 s"),
    )
    row = ran.groups[0]
    assert row.num_answered == (num_scored > 0)
    if num_scored:
        np.testing.assert_allclose(policy.steps[0].advantages[0], (0.35, -0.35, np.nan, np.nan))
        assert (row.reward_mean, row.fate) == (pytest.approx(0.45), "trained")
        assert row.completed_at_s - row.dispatched_at_s == pytest.approx(0.6 + 30 / 300, abs=0.05)
    else:
        assert (policy.steps, row.fate) == ([], "no_rewards")


# --------------------------------------------------------------------------------------------------------- whole runs

TIMING = {
    "name": "t",
    "seed": 3,
    "fidelity": "timing",
    "stop": {"updates": 4},
    "tasks": {"sizes": {"pool": 60, "private": 800}},
    "clients": {"phone": 4, "laptop": 3},
    "availability": {"kind": "sessions", "mean_on": "20 s", "mean_off": "5 s"},
    "dropout": {"per_task": 0.4},
}  # fmt: skip
SPARING = [
    {"policy": "quorum", "quorum": 1, "grace": "50 ms"},
    {"policy": "over_select", "extra": 2},
    {"policy": "hedged", "hedge_after": "100 ms"},
    {"policy": "replace", "replacements": 3, "deadline": "2 s"},
    {"policy": "adaptive", "warm_up": 10},
]


def ran(protocol: dict[str, Any], folder: Any) -> Any:
    return experiment.run(scenario_from({**TIMING, "protocol": protocol}), out=folder)


@pytest.mark.parametrize("stragglers", SPARING, ids=lambda keys: keys["policy"])
@pytest.mark.parametrize(
    "protocol",
    [
        {"name": "fedgrpo", "update": {"groups_per_update": 4, "in_flight": 4}},
        {"name": "distil", "questions_per_update": 8},
        {"name": "fedpetuning", "clients_per_round": 2, "local_steps": 2, "local_batch_size": 4},
    ],
    ids=lambda keys: keys["name"],
)
def test_every_policy_plays_with_every_protocol_and_the_same_seed_gives_the_same_records(
    protocol: dict[str, Any], stragglers: dict[str, Any], tmp_path: Any
):
    first, again = (ran({**protocol, "stragglers": stragglers}, tmp_path / str(n)) for n in range(2))
    assert first.summary["updates"] == 4
    assert first.summary["records_sha256"] == again.summary["records_sha256"]


def test_a_run_with_partial_rewards_ends_like_any_other(tmp_path: Any):
    stragglers = {"policy": "deadline", "deadline": "80 ms", "partial": True, "partial_grace": "200 ms"}
    protocol = {"name": "fedgrpo", "group_size": 6, "update": {"groups_per_update": 16, "in_flight": 64}}
    run = ran({**protocol, "stragglers": stragglers}, tmp_path / "run")
    lengths = {len(row["rewards"]) for row in run.rewards.iter_rows(named=True)}
    assert run.summary["updates"] == 4
    assert len(lengths) > 1 and max(lengths) == 6


def test_two_policies_meet_the_same_luck(tmp_path: Any):
    """Who gives a question up depends on client and question, not on who else is asked."""
    protocol = {"name": "fedgrpo", "update": {"groups_per_update": 4, "in_flight": 4}}
    gave_up = []
    for number, stragglers in enumerate(({"policy": "wait_all"}, {"policy": "replace", "replacements": 3})):
        rows = ran({**protocol, "stragglers": stragglers}, tmp_path / str(number)).outcomes
        rows = rows.filter(rows["purpose"] == "question").iter_rows(named=True)
        gave_up.append(
            {
                (row["client_id"], row["question_id"], row["attempt"]): row["cause"] == "task dropout"
                for row in rows
                if row["phase"] == "done" or row["cause"] == "task dropout"
            }
        )
    common = gave_up[0].keys() & gave_up[1].keys()
    assert len(common) > 20 and {gave_up[0][key] for key in common} == {True, False}
    assert all(gave_up[0][key] == gave_up[1][key] for key in common)


def test_a_cohorts_spares_are_those_that_a_larger_cohort_would_have_drawn(tmp_path: Any):
    def asked(**keys: Any) -> set[int]:
        protocol = {"name": "fedpetuning", "local_steps": 2, "local_batch_size": 4, **keys}
        rows = ran(protocol, tmp_path / str(len(keys))).outcomes.iter_rows(named=True)
        return {
            row["client_id"]
            for row in rows
            if (row["purpose"], row["subject"], row["attempt"]) == ("adapter", 0, 0)
        }

    with_spares = asked(clients_per_round=2, stragglers={"policy": "over_select", "extra": 2})
    assert with_spares == asked(clients_per_round=4) and len(with_spares) == 4


async def test_with_nine_in_ten_given_up_replacement_still_learns_from_every_group():
    """Loss 0.9 and no limit in sight: 40 clients in line leave a group without rewards with 0.9^40 = 1.5%."""
    shares = [1.0] * 40
    outcome = await play(
        fedgrpo(num_experts=1, stragglers={"policy": "replace", "replacements": 39}),
        [half_right(share) for share in shares],
        data=task_data(num_clients=40, domains=("a",), pool=1, auxiliary=8),
        policy=FakePolicy(texts=lambda draw, version: ["100", "7"]),
        dropout=DropoutConfig(per_task=0.9),
        stop=StopConfig(updates=10),
    )
    trained = [row.fate == "trained" for row in outcome.groups]
    assert sum(trained) == 10 and len(trained) <= 12
