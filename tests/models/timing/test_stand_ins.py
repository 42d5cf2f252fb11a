"""Stand-ins: keyed, shaped like the real thing, and honest about knowing nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.models.timing import stand_ins
from fedsim.models.timing.tasks import task_data
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.questions import Question

CONFIG = TasksConfig.model_validate_json(
    '{"domains": ["chain_sum", "gcd"], "sizes": {"private": 400, "auxiliary": 20, "pool": 300}, '
    '"answers": {"coverage": 0.4}}'
)
DATA = task_data(CONFIG, 5, seed=1)
KNOWN = {question.text: question for question in (*DATA.auxiliary, *DATA.pool)}


def policy(seed=1, **keys):
    return stand_ins.StandInPolicy(PolicyConfig(**keys), seed)


def evaluator(client_id=0, rows=None, seed=1):
    return stand_ins.StandInEvaluator(client_id, rows or {}, KNOWN, seed)


def draws(number=200):
    return [Draw(index, question) for index, question in enumerate(DATA.pool[:number])]


def test_a_group_is_a_function_of_seed_and_draw_whatever_the_batch_and_the_version():
    one = policy()
    together = one.sample(draws())
    one.update([], [])
    alone = [one.sample([draw])[0] for draw in draws()]
    assert [group.candidates for group in alone] == [group.candidates for group in together]
    assert {group.policy_version for group in together} == {0}
    assert {group.policy_version for group in alone} == {1}
    assert policy(seed=2).sample(draws())[0].candidates != together[0].candidates


def test_candidates_are_right_with_the_stated_probability_and_fit_the_longest_answer():
    groups = policy(group_size=6, max_new_tokens=2).sample(draws())
    right = [c.text == g.draw.question.answer for g in groups for c in g.candidates]
    assert len(right) == 1200
    # A wrong number of three digits or fewer is the truth by chance in about one case of a hundred.
    assert np.mean(right) == pytest.approx(stand_ins.RIGHT_SHARE, abs=0.06)
    assert all(1 <= c.num_tokens <= 2 and not c.truncated for g in groups for c in g.candidates)


def test_updates_and_fits_raise_the_version_and_learn_nothing():
    one = policy()
    before = one.sample(draws(10))
    one.update(before, [])
    one.fit(DATA.auxiliary, 3)
    assert one.version == 2
    assert [g.candidates for g in one.sample(draws(10))] == [g.candidates for g in before]


def test_accuracy_is_never_invented():
    accuracy = policy().evaluate(DATA.pool, 8)
    assert math.isnan(accuracy.greedy) and math.isnan(accuracy.pass_at_1) and math.isnan(accuracy.entropy)
    assert (accuracy.greedy_by_domain, accuracy.num_questions) == ({}, 300)


def test_embeddings_are_unit_vectors_that_cluster_by_domain():
    vectors = policy().embed(DATA.pool)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    same = np.array([[a.domain == b.domain for a in DATA.pool] for b in DATA.pool])
    cosines = vectors @ vectors.T
    assert cosines[same].mean() > 0.8 > cosines[~same].mean() + 0.2


def test_a_clients_skill_grows_with_its_rows_and_is_one_half_at_the_stated_number():
    gcd = [question for question in DATA.pool if question.domain == "gcd"]
    shares = []
    for rows in (0, stand_ins.HALF_SKILL_ROWS, 10_000):
        answers = evaluator(rows={"gcd": rows}).answers([question.text for question in gcd])
        shares.append(np.mean([a == q.answer for a, q in zip(answers, gcd, strict=True)]))
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / len(gcd)))
    assert shares[2] > 0.9


def test_a_skilled_client_scores_right_candidates_higher_and_an_unskilled_one_cannot_tell():
    def advantage_of_right(rows):
        scores = [
            evaluator(rows={"gcd": rows, "chain_sum": rows}).likelihood(q.text, [q.answer, "no"])
            for q in DATA.pool
        ]
        assert all(0 <= value <= 1 for row in scores for value in row)
        return np.mean([right - wrong for right, wrong in scores])

    assert advantage_of_right(10_000) == pytest.approx(0.5, abs=0.06)
    assert advantage_of_right(0) == pytest.approx(0.0, abs=0.06)


def test_two_clients_score_differently_and_one_client_always_the_same():
    question = DATA.pool[0]
    scores = [evaluator(client_id).likelihood(question.text, ["1", "2"]) for client_id in (0, 1, 0)]
    assert scores[0] == scores[2] != scores[1]


@pytest.mark.parametrize(("text", "tokens"), [("", 1), ("a", 1), ("abcd", 1), ("abcde", 2), ("a" * 40, 10)])
def test_a_token_is_four_characters(text, tokens):
    assert stand_ins.token_count(text) == tokens
    assert policy().count_tokens(text) == evaluator().count_tokens(text) == tokens


def test_a_client_is_asked_by_text_alone():
    assert evaluator(rows={"gcd": 10**9}).answers([_first("gcd").text]) == [_first("gcd").answer]


def _first(domain: str) -> Question:
    return next(question for question in DATA.pool if question.domain == domain)


def test_candidates_and_own_answers_hold_the_steps_before_the_answer_whether_it_is_right_or_wrong():
    worked = Question(7, "worked_sums", "Add up step by step: 3 + 4", "7", solution="3 + 4 = 7 ; #### 7")
    (group,) = policy(group_size=32, max_new_tokens=64).sample([Draw(0, worked)])
    endings = {text.removeprefix("3 + 4 = 7 ; #### ") for text in group.texts}
    assert (
        all(ending.isdigit() and len(ending) == 1 for ending in endings)
        and len(endings) > 5
        and "7" in endings
    )
    knowing = stand_ins.StandInEvaluator(0, {"worked_sums": 10**9}, {worked.text: worked}, 1)
    ignorant = stand_ins.StandInEvaluator(0, {}, {worked.text: worked}, 1)
    assert knowing.answers([worked.text]) == [worked.taught]
    assert ignorant.answers([worked.text])[0].removeprefix("3 + 4 = 7 ; #### ").isdigit()
    assert knowing.likelihood(worked.text, [worked.taught])[0] >= 0.5


@pytest.mark.parametrize("answer", ["7", "Guanábana", "上海", "a rather long answer, with commas", "-3/4"])
def test_what_a_stand_in_writes_is_as_long_as_the_answer_and_wrong_where_it_should_be(answer):
    question = Question(7, "capitals", "Of what?", answer)
    groups = policy(group_size=200, max_new_tokens=64).sample([Draw(0, question)])
    assert {len(text.encode()) for text in groups[0].texts} == {len(answer.encode())}
    right = sum(text == answer for text in groups[0].texts) / 200
    assert right == pytest.approx(stand_ins.RIGHT_SHARE, abs=0.11)  # 3.3 standard errors
    ignorant = [stand_ins.StandInEvaluator(k, {}, {question.text: question}, 1) for k in range(50)]
    written = [one.answers([question.text])[0] for one in ignorant]
    assert {len(text.encode()) for text in written} == {len(answer.encode())} and answer not in written
