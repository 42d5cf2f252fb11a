"""The confidence graph and the controls: who is asked, and why."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.protocols.shared.confidence_graph import ConfidenceGraph, mean_correct
from fedsim.protocols.shared.expert_ranking import (
    all_experts,
    best_experts,
    competent_enough,
    random_experts,
)
from fedsim.sim.streams import uniform
from fedsim.tasks.questions import Question

NAN = float("nan")
# Exemplars at 0, 10, 80 and 90 degrees; three clients, the last has not answered the probe.
ANGLES = np.radians([0.0, 10.0, 80.0, 90.0])
EXEMPLARS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
CORRECTNESS = np.array([[1, 1, 0, 0], [1, 0, 1, 1], [-1, -1, -1, -1]])


def graph() -> ConfidenceGraph:
    return ConfidenceGraph(EXEMPLARS, CORRECTNESS)


def at(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def test_neighbours_are_the_nearest_by_cosine_nearest_first():
    assert graph().neighbours(at(2), 2).tolist() == [0, 1]
    assert graph().neighbours(at(85.1), 3).tolist() == [3, 2, 1]
    assert graph().neighbours(7.0 * at(2), 9).tolist() == [0, 1, 2, 3]


def test_a_long_embedding_is_no_nearer_for_its_length():
    long = ConfidenceGraph(np.array([[30.0, 30.0], [1.0, 0.0]]), np.zeros((1, 2)))
    assert long.neighbours(at(10), 2).tolist() == [1, 0]


def test_equally_near_exemplars_come_in_order_of_index():
    same = ConfidenceGraph(np.ones((5, 3)), np.zeros((1, 5)))
    assert same.neighbours(np.ones(3), 3).tolist() == [0, 1, 2]


def test_competence_is_the_share_of_correct_neighbours_by_hand():
    np.testing.assert_array_equal(graph().competence(at(2), 2), [1.0, 0.5, NAN])
    np.testing.assert_array_equal(graph().competence(at(88), 3), [1 / 3, 2 / 3, NAN])


def test_exemplars_that_a_client_has_not_answered_are_left_out_of_its_competence():
    partly = ConfidenceGraph(EXEMPLARS, np.array([[1, -1, 0, 1], [-1, -1, 1, 1]]))
    np.testing.assert_array_equal(partly.competence(at(2), 3), [0.5, 1.0])
    np.testing.assert_array_equal(partly.competence(at(2), 2), [1.0, NAN])


def test_experts_follow_the_question():
    choose = {"num_neighbours": 2, "eligible": range(3), "seed": 0}
    assert graph().experts(1, at(2), 1, **choose) == (0,)
    assert graph().experts(1, at(88), 1, **choose) == (1,)
    assert graph().experts(1, at(88), 2, **choose) == (1, 0)


def test_a_client_that_has_not_answered_the_probe_or_is_not_eligible_is_never_asked():
    choose = {"num_neighbours": 2, "seed": 0}
    assert set(graph().experts(1, at(2), 9, eligible=range(3), **choose)) == {0, 1}
    assert graph().experts(1, at(2), 9, eligible={1, 2}, **choose) == (1,)
    assert graph().experts(1, at(2), 9, eligible=(), **choose) == ()
    assert graph().probed() == {0, 1}


def test_a_late_probe_makes_a_client_eligible_and_a_new_one_replaces_it():
    late = graph()
    late.record(2, [True, True, True, False])
    np.testing.assert_array_equal(late.competence(at(88), 2), [0.0, 1.0, 0.5])
    late.record(2, [False, False, False, False])
    assert late.competence(at(88), 2)[2] == 0.0


def test_unprobed_graph_has_nobody_to_ask():
    fresh = ConfidenceGraph.unprobed(EXEMPLARS, 4)
    assert fresh.probed() == frozenset()
    assert fresh.experts(1, at(2), 2, num_neighbours=2, eligible=range(4), seed=0) == ()


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(1, 5))
def test_stored_bits_and_client_computed_means_choose_the_same_experts(key, num_neighbours, num_experts):
    rng = np.random.default_rng(key)
    bits = rng.random((6, 20)) < 0.5
    stored = ConfidenceGraph.unprobed(rng.normal(size=(20, 8)), 6)
    for client in range(5):  # client 5 never answers
        stored.record(client, bits[client])
    question = rng.normal(size=8)
    chosen = stored.experts(
        key, question, num_experts, num_neighbours=num_neighbours, eligible=range(6), seed=1
    )

    sent = stored.neighbours(question, num_neighbours)
    replies = np.array([mean_correct(bits[client][sent]) for client in range(5)] + [NAN])
    np.testing.assert_array_equal(replies, stored.competence(question, num_neighbours))
    assert best_experts(replies, key, num_experts, range(6), 1) == chosen


def test_ties_break_by_question_evenly_and_not_by_client_number():
    first = Counter(best_experts(np.zeros(4), question, 1, range(4), 7)[0] for question in range(4000))
    # Binomial(4000, 1/4): 4 standard deviations are 110
    assert all(abs(first[client] - 1000) < 110 for client in range(4))


@given(
    st.lists(st.sampled_from([0.0, -0.0, 0.5, 1.0, NAN]), min_size=1, max_size=12),
    st.integers(1, 13),
    st.integers(0, 99),
)
def test_draws_for_ties_alone_choose_as_draws_for_everybody_do(scores, num_experts, key):
    eligible = [client for client in range(len(scores)) if client % 5]
    known = [client for client in eligible if not np.isnan(scores[client])]
    plain = sorted(known, key=lambda client: (-scores[client], uniform(3, "tie", key, client), client))
    assert best_experts(np.array(scores), key, num_experts, eligible, 3) == tuple(plain[:num_experts])


def test_the_floor_is_a_share_of_the_best_known_score_and_whoever_reaches_it_stays():
    """The best, client 0, cannot be asked now, and client 4 is unknown."""
    scores = np.array([0.8, 0.6, 0.4, 0.375, NAN])
    assert competent_enough((1, 2, 3), scores, 0.5) == (1, 2)
    assert competent_enough((2, 3), scores, 0.75) == ()
    assert competent_enough((3, 2, 1), scores, 0.0) == (3, 2, 1)


def test_another_client_changes_nobodys_order():
    for question in range(50):
        few = best_experts(np.zeros(5), question, 5, range(5), 3)
        more = best_experts(np.zeros(6), question, 6, range(6), 3)
        assert tuple(client for client in more if client != 5) == few
        fewer = random_experts(question, 6, {0, 2, 4}, 3)
        assert tuple(c for c in random_experts(question, 6, range(6), 3) if c in {0, 2, 4}) == fewer


def test_the_order_in_which_clients_are_listed_does_not_matter():
    assert best_experts(np.zeros(4), 1, 4, [3, 1, 0, 2], 0) == best_experts(
        np.zeros(4), 1, 4, [0, 1, 2, 3], 0
    )


def test_random_control_draws_every_pair_about_equally_often():
    pairs = Counter(frozenset(random_experts(question, 2, range(4), 0)) for question in range(6000))
    assert len(pairs) == 6
    # Binomial(6000, 1/6): 4 standard deviations are 115
    assert all(abs(count - 1000) < 115 for count in pairs.values())
    assert random_experts(1, 2, (), 0) == random_experts(1, 0, range(4), 0) == ()


def test_all_control_asks_every_eligible_client_once():
    assert all_experts([3, 1, 1, 2]) == (1, 2, 3)


def test_the_graph_as_tables_has_three_kinds_of_nodes_and_the_weights_of_the_equations():
    questions = [Question(5, "gcd", "2, 4", "2")]
    exemplars = [Question(100 + i, "gcd", f"{i}, 4", "1") for i in range(4)]
    seen = graph().sample(questions, at(2)[None, :], 2, exemplars)
    assert Counter(node["kind"] for node in seen["nodes"]) == {"question": 1, "exemplar": 2, "client": 3}
    weights = {(edge["source"], edge["target"]): edge["weight"] for edge in seen["edges"]}
    assert weights["q5", "e1"] == pytest.approx(np.cos(np.radians(8)))
    assert {weights["e1", "c0"], weights["e1", "c1"]} == {1.0, 0.0}
    assert not any("c2" in ends for ends in weights)
    # competence can be read off the tables
    paths = [weights[exemplar, "c1"] for question, exemplar in weights if question == "q5"]
    assert np.mean(paths) == graph().competence(at(2), 2)[1]


@pytest.mark.parametrize(
    ("embeddings", "correctness", "message"),
    [
        (np.ones((2, 3)), np.zeros((1, 4)), r"must be \[P, d\]"),
        (np.ones((2, 3)), np.zeros(2), r"must be \[P, d\]"),
        (np.ones((0, 3)), np.zeros((1, 0)), "P >= 1"),
        (np.full((2, 3), NAN), np.zeros((1, 2)), "not finite"),
        (np.ones((2, 3)), np.full((1, 2), 0.5), "other than"),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(embeddings, correctness, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceGraph(embeddings, correctness)


def test_senseless_questions_to_the_graph_are_refused():
    for call, message in (
        (lambda: graph().neighbours(at(2), 0), "num_neighbours is 0"),
        (lambda: graph().neighbours(np.ones(3), 1), r"must be \(2,\)"),
        (lambda: graph().neighbours(np.array([NAN, 1]), 1), "not finite"),
        (lambda: graph().record(9, [True] * 4), "client_id is 9"),
        (lambda: graph().record(0, [True] * 3), "must be one each"),
        (lambda: best_experts(np.zeros(2), 1, 0, range(2), 0), "num_experts is 0"),
        (lambda: mean_correct([]), "no exemplar"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
