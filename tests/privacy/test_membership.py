"""How well an attack tells members from others (privacy/membership.py)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.privacy.membership import answer_likeness, auc, likeness, membership, share, tpr_at_fpr

scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12).map(np.array)


@given(scores, scores)
def test_the_auc_is_the_share_of_pairs_won_with_ties_as_halves(members, others):
    pairs = [(a > b) + 0.5 * (a == b) for a in members for b in others]
    assert auc(members, others) == pytest.approx(np.mean(pairs))
    assert auc(members, others) + auc(others, members) == pytest.approx(1.0)


@given(scores, scores, st.floats(0, 1))
def test_the_true_positive_rate_is_the_best_of_all_thresholds_with_few_enough_false_ones(
    members, others, rate
):
    thresholds = [-1.0, *others, *members]
    kept = [(members > t).mean() for t in thresholds if (others > t).mean() <= rate + 1e-12]
    assert tpr_at_fpr(members, others, rate) == pytest.approx(max(kept))


def test_an_attack_that_knows_has_all_and_one_that_guesses_has_its_false_positives():
    draws = np.random.default_rng(0)
    knows = membership([1.0] * 50, [0.0] * 50, "knows", resamples=100)
    assert (knows.auc.value, knows.tpr.value) == (1.0, 1.0)
    guesses = membership(draws.random(2000).tolist(), draws.random(2000).tolist(), "guesses", resamples=200)
    assert guesses.auc.low < 0.5 < guesses.auc.high
    assert guesses.tpr.low < 0.01 < guesses.tpr.high


def test_the_bootstrap_covers_the_known_auc_of_two_normals():
    """Means one deviation apart: AUC = Phi(1 / sqrt 2) = 0.7602."""
    draws = np.random.default_rng(1)
    covered = 0
    for i in range(40):
        result = membership(
            (1 + draws.standard_normal(80)).tolist(),
            draws.standard_normal(80).tolist(),
            "n",
            i,
            resamples=200,
        )
        covered += result.auc.low <= 0.7602 <= result.auc.high
    assert covered >= 34  # 38 expected; 33 or fewer happen once in 200


def test_nothing_is_estimated_of_nothing():
    assert membership([], [1.0], "none") is None
    assert share([], "none") is None
    with pytest.raises(ValueError, match="some of both"):
        auc(np.array([]), np.array([1.0]))
    with pytest.raises(ValueError, match="not a number"):
        membership([float("nan")], [1.0], "nan")


def test_a_share_lies_in_its_interval():
    found = share([True] * 30 + [False] * 70, "share")
    assert found.value == 0.3
    assert 0.2 < found.low < 0.3 < found.high < 0.4


def test_a_copied_row_is_most_alike_and_another_question_less():
    rows = [("What is 1 + 2?", "3"), ("What is 7 + 8?", "15")]
    assert likeness(("What is 7 + 8?", "15"), rows) == 1.0
    assert 0.0 < likeness(("What is 7 + 9?", "16"), rows) < 1.0
    assert likeness(("zzz", "q"), rows) == 0.0


def test_binary_scores_look_like_an_answer_and_middling_ones_do_not():
    assert (
        answer_likeness([0.0, 1.0, 0.0])
        > answer_likeness([0.01, 0.9, 0.0])
        > answer_likeness([0.5, 0.5, 0.5])
    )
