"""Systematic mistakes: which questions are wrong, how, and how many."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.tasks.config import PublicErrorsConfig
from fedsim.tasks.mistakes import corrupt, mistake, operand_class, wrong_classes

ROWS = [(f"{a} + {b} =", str(a + b)) for a in range(20) for b in range(200)]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("State the final answer to the following arithmetic problem: 4 - 1 =", "4"),
        ("Solve for w: 13 - w = 4", "13"),
        ("How many 1 bits are there", "1"),
        ("Simplify 490/1862", "90"),
        ("Spell this word backward (example: sun -> nus): Neon", "n"),
        ("", ""),
    ],
)
def test_operand_class_is_the_first_operand_or_the_last_words_initial(question, expected):
    assert operand_class(question) == expected


@pytest.mark.parametrize(
    ("kind", "answer", "wrong"),
    [
        ("auto", "7", "8"),
        ("auto", "-1", "0"),
        ("auto", "5/19", "5/20"),
        ("auto", "3-4", "3-5"),
        ("auto", "neon", "noen"),
        ("auto", "mom", "momm"),
        ("reversed", "12", "21"),
        ("reversed", "11", "111"),
        ("off_by_one", "word", "wordd"),
        ("shuffled", "7", "9"),
    ],
)
def test_mistakes_by_hand(kind, answer, wrong):
    assert mistake(kind, answer, "9") == wrong


@given(st.sampled_from(["auto", "off_by_one", "reversed", "shuffled"]), st.text(min_size=1), st.text())
def test_a_mistake_never_is_the_answer(kind, answer, other):
    assert mistake(kind, answer, other) != answer


def test_exactly_half_of_the_classes_is_mostly_wrong_and_a_seed_chooses_which():
    questions = [question for question, _ in ROWS]
    first, second = (wrong_classes("sum", questions, seed) for seed in (0, 1))
    assert len(first) == len(second) == 10
    assert first != second
    assert first != wrong_classes("other domain", questions, 0)


def test_each_class_is_as_likely_as_not_to_be_wrong_over_seeds():
    questions = [question for question, _ in ROWS[::20]]
    share = np.mean([["7" in wrong_classes("sum", questions, seed)] for seed in range(400)])
    assert abs(share - 0.5) < 0.1  # 4 standard deviations of Binomial(400, 1/2)


def test_wrong_half_is_wrong_nine_times_in_ten_and_right_half_once():
    spoiled = corrupt(PublicErrorsConfig(), "sum", ROWS, 0)
    wrong_half = wrong_classes("sum", [question for question, _ in ROWS], 0)
    rates = defaultdict(list)
    for (question, truth), (same, given_answer) in zip(ROWS, spoiled, strict=True):
        assert question == same
        assert given_answer in (truth, str(int(truth) + 1))
        rates[operand_class(question) in wrong_half].append(given_answer != truth)
    assert len(rates[True]) == len(rates[False]) == 2000
    assert np.mean(rates[True]) == pytest.approx(0.9, abs=0.03)
    assert np.mean(rates[False]) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("by", ["operand_class", "uniform"])
def test_overall_rate_is_met(rate, by):
    spoiled = corrupt(PublicErrorsConfig(rate=rate, by=by), "sum", ROWS, 0)
    wrong = np.mean([a != b for (_, a), (_, b) in zip(ROWS, spoiled, strict=True)])
    assert wrong == pytest.approx(rate, abs=0.03 if 0 < rate < 1 else 0)


def test_uniform_errors_do_not_depend_on_the_class():
    spoiled = corrupt(PublicErrorsConfig(by="uniform"), "sum", ROWS, 0)
    by_class = defaultdict(list)
    for (question, truth), (_, given_answer) in zip(ROWS, spoiled, strict=True):
        by_class[operand_class(question)].append(given_answer != truth)
    # Binomial(200, 1/2): 4.5 standard deviations are 0.16
    assert all(abs(np.mean(wrong) - 0.5) < 0.16 for wrong in by_class.values())


def test_removing_a_row_changes_no_other_row_while_the_classes_stay():
    whole, part = (dict(corrupt(PublicErrorsConfig(), "sum", rows, 0)) for rows in (ROWS, ROWS[::-1]))
    assert whole == part
