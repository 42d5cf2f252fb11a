"""Which answer a server takes for the true one (leakage/trusted_answers.py)."""

from __future__ import annotations

from fedsim.experiment.leakage.trusted_answers import best_candidate
from fedsim.tasks.matching import AnswerRule


def test_the_best_candidate_is_the_one_of_highest_mean_reward_then_of_most_votes():
    assert best_candidate(["7", "8", "8"], [0.5, 1.0, 0.5], AnswerRule()) == "8"
    assert best_candidate(["7", "8", "8"], [0.6, 1.0, 0.0], AnswerRule()) == "7"


def test_votes_are_for_an_answer_and_not_for_its_wording():
    texts = ["it is 7", "it is 8", "8, or so", "surely 8"]
    assert best_candidate(texts, [1.0] * 4, AnswerRule("exact", r"(\d)")) == "it is 8"
