"""Questions with worked solutions: every step is right, slips are carried on, and the public corpus is wrong in its steps."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys

import pytest

from fedsim.errors import ScenarioError
from fedsim.tasks import dataset, worked
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.domains import check_names, generate
from fedsim.tasks.mistakes import operand_class, wrong_classes

DOMAINS = sorted(worked.WORKED)
SIZES = {"public": 300, "private": 90, "auxiliary": 12, "pool": 30, "validation": 12, "test": 30}


def holds(step: str) -> bool:
    left, right = step.split(" = ")
    return eval(left, {}) == int(right)  # noqa: S307


def truth(domain: str, question: str) -> int:
    """The answer by another way than the solution's."""
    text = question.split(": ")[1]
    if domain != "worked_equations":
        return int(eval(text, {}))  # noqa: S307
    left, right = text.split(" = ")
    (x,) = (x for x in range(100) if eval(right, {"x": x}) == int(left))  # noqa: S307
    return x


def built(**keys):
    return dataset.build(TasksConfig(domains=tuple(DOMAINS), sizes=SIZES, **keys), 3, seed=5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_step_of_a_solution_holds_and_the_last_one_is_the_answer(domain):
    rows = generate(domain, {}, 300, 3)
    assert len(set(rows)) == 300
    for question, answer in rows:
        made = worked.solution(domain, question)
        assert all(map(holds, made.steps))
        assert made.text == " ; ".join([*made.steps, f"#### {answer}"])
        assert int(answer) == truth(domain, question)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_slip_makes_the_first_step_wrong_and_the_rest_follows_from_it(domain):
    for question, answer in generate(domain, {}, 100, 4):
        right, wrong = worked.solution(domain, question), worked.solution(domain, question, slip=1)
        assert [holds(step) for step in wrong.steps] == [False] + [True] * (len(right.steps) - 1)
        assert int(wrong.answer) == int(answer) + 1
        assert (right.steps[0].split(" = ")[0], right.answer) == (wrong.steps[0].split(" = ")[0], answer)


@pytest.mark.parametrize("domain", ["worked_sums", "worked_equations"])
def test_no_step_leaves_the_range_that_is_asked_for(domain):
    options = {"max_total": 20, "max_term": 10, "min_terms": 12, "max_terms": 12}
    for question, _ in itertools.islice(worked.rows(domain, options, 1), 300):
        results = [int(step.split(" = ")[1]) for step in worked.solution(domain, question).steps]
        assert len(results) == 12 + (domain == "worked_equations")
        assert all(0 <= result <= 20 for result in results)


@pytest.mark.parametrize(
    ("domain", "options", "complaint"),
    [
        (
            "worked_sums",
            {"max_totel": 9},
            "unknown option max_totel; must be one of max_term, max_terms, max_total",
        ),
        ("worked_sums", {"max_terms": 21}, "max_terms is 21; must be an integer from 1 to 20"),
        ("worked_sums", {"max_terms": True}, "max_terms is True; must be an integer"),
        ("worked_sums", {"max_terms": "9"}, "max_terms is 9; must be an integer"),
        ("worked_sums", {"min_terms": 10}, "min_terms is 10; must be at most 9 where max_terms is 9"),
        ("worked_sums", {"max_term": 16}, "max_term is 16; must be at most 15 where max_total is 30"),
        ("worked_equations", {"max_factor": 1}, "max_factor is 1; must be an integer from 2 to 99"),
        ("worked_products", {"min_digits": 4}, "min_digits is 4; must be at most 3 where max_digits is 3"),
    ],
)
def test_wrong_options_are_refused_in_one_line(domain, options, complaint):
    with pytest.raises(ScenarioError) as caught:
        generate(domain, options, 10, 0)
    assert str(caught.value).startswith(f"tasks.domains.{domain}: ")
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_different_questions_are_counted():
    with pytest.raises(
        ScenarioError, match=r"worked_products has about 81 different questions .* 100 are asked"
    ):
        generate("worked_products", {"min_digits": 2, "max_digits": 2, "max_factor": 2}, 100, 0)


def test_worked_domains_are_known_by_name():
    check_names(DOMAINS)
    with pytest.raises(ScenarioError, match="did you mean worked_sums"):
        check_names(["worked_sum"])


def test_another_process_draws_the_same_questions():
    call = f"[generate(domain, {{}}, 40, 5) for domain in {DOMAINS!r}]"
    found = subprocess.run(
        [sys.executable, "-c", f"from fedsim.tasks.domains import generate; print({call})"],
        env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert found == f"{[generate(domain, {}, 40, 5) for domain in DOMAINS]}\n"


def test_rows_of_every_split_but_the_public_one_are_right_and_are_taught_their_steps():
    data = built()
    rows = [*data.auxiliary, *data.pool, *data.validation, *data.test]
    rows += [row for client in data.private for row in client]
    for row in rows:
        assert row.taught == worked.solution(row.domain, row.text).text
        assert int(row.answer) == truth(row.domain, row.text)
        assert data.answers.right(row.taught, row.answer)


def test_the_public_corpus_is_wrong_in_the_first_step_of_half_of_the_operand_classes():
    data = built(public_errors={"rate": 0.5, "spread": 0.5})
    for domain in DOMAINS:
        rows = [row for row in data.public if row.domain == domain]
        wrong = wrong_classes(domain, [row.text for row in rows], 5)
        assert 0.3 < sum(operand_class(row.text) in wrong for row in rows) / len(rows) < 0.7
        for row in rows:
            made = worked.solution(domain, row.text, slip=int(operand_class(row.text) in wrong))
            assert (row.answer, row.taught) == (made.answer, made.text)
            assert data.answers.right(row.taught, row.answer), "the corpus believes what it says"


def test_a_shuffled_solution_is_another_questions_whole_one():
    data = built(public_errors={"rate": 1.0, "spread": 0.0, "kind": "shuffled"})
    of = {worked.solution(row.domain, row.text).text for row in data.public}
    assert all(row.taught in of and row.taught.endswith(f"#### {row.answer}") for row in data.public)
    right = [row.taught == worked.solution(row.domain, row.text).text for row in data.public]
    assert sum(right) < 0.05 * len(right)


def test_the_number_after_the_mark_is_the_answer_unless_a_pattern_says_otherwise():
    config = TasksConfig(domains=("worked_sums",))
    assert config.answer_rule.extract("3 + 4 = 7 ; #### 7") == "7"
    assert config.answer_rule.extract("3 + 4 = 7") == "", "steps alone are no answer"
    mixed = TasksConfig(domains=("worked_sums", "gcd"), answer_pattern="(-?[0-9]+)")
    assert [mixed.answer_rule.extract(text) for text in ("3 + 4 = 7 ; #### 7", "7")] == ["7", "7"]
    assert TasksConfig(domains=("gcd",)).answer_rule.pattern is None
    assert TasksConfig(domains=("worked_sums",), file="own.jsonl").answer_rule.pattern is None


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"domains": ("worked_sums", "gcd")}, "worked_sums writes steps before its answer and gcd does not"),
        (
            {"domains": ("worked_sums",), "answer_pattern": "= ([0-9]+)$"},
            "does not find the answer in worked_sums",
        ),
        (
            {"domains": ("worked_sums",), "public_errors": {"kind": "reversed"}},
            "reversed has no meaning in the steps",
        ),
    ],
)
def test_settings_that_cannot_read_or_spoil_worked_answers_are_refused(keys, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        TasksConfig(**keys)
