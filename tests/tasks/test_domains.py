"""Generated domains: different questions, right answers, the same in every process."""

import math
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from fedsim.errors import CacheError, ScenarioError
from fedsim.tasks import domains
from fedsim.tasks.config import QUICK_DOMAINS
from fedsim.tasks.domains import EASY_OPTIONS, check_names, generate, registered_names

CHECKS = {
    "chain_sum": lambda q, a: eval(re.search(r": (.*) =", q).group(1), {}) == int(a),  # noqa: S307
    "products": lambda q, a: eval(re.search(r": (.*?)\.", q).group(1), {}) == int(a),  # noqa: S307
    "gcd": lambda q, a: math.gcd(*map(int, re.search(r"([\d, ]+)\.", q).group(1).split(","))) == int(a),
    "spell_backward": lambda q, a: q.split()[-1] == a[::-1] and a.islower() and 3 <= len(a) <= 5,
    "simple_equations": lambda q, a: _holds(q.split(": ")[1], a),
}


def _holds(equation, answer):
    left, right = re.sub("[a-z]", f"({answer})", equation).split("=")
    return eval(left, {}) == eval(right, {})  # noqa: S307


@pytest.mark.parametrize("domain", QUICK_DOMAINS)
def test_quick_start_domains_are_different_questions_with_right_answers(domain):
    rows = generate(domain, {}, 400, 3)
    assert len({question for question, _ in rows}) == 400
    assert all(CHECKS[domain](question, answer) for question, answer in rows)


@pytest.mark.parametrize("domain", sorted(set(EASY_OPTIONS) - set(QUICK_DOMAINS)))
def test_the_other_easy_domains_generate(domain):
    assert len(set(generate(domain, {}, 500, 0))) == 500


@pytest.mark.parametrize("domain", [name for name in QUICK_DOMAINS if name != "simple_equations"])
def test_quick_start_domains_have_enough_questions_for_the_default_sizes(domain):
    assert len(generate(domain, {}, 3320, 0)) == 3320


def test_any_reasoning_gym_data_set_can_be_named_with_its_options():
    rows = generate("binary_alternation", {"min_n": 10, "max_n": 12}, 20, 0)
    assert len(rows) == 20
    assert all(answer for _, answer in rows)


def test_products_with_reasoning_gyms_own_options_is_reasoning_gyms():
    rows = generate("products", {"min_digits": 2, "max_digits": 2}, 50, 0)
    assert all(min(map(int, re.findall(r"\d+", question))) >= 10 for question, _ in rows)


def test_a_seed_is_a_different_draw_and_the_same_seed_the_same():
    assert generate("gcd", {}, 50, 1) != generate("gcd", {}, 50, 2)
    assert generate("gcd", {}, 50, 1) == generate("gcd", {"max_value": 99}, 50, 1)
    assert generate("gcd", {}, 0, 1) == ()


def test_frequent_questions_do_not_gather_at_the_front():
    rows = generate("chain_sum", {}, 3000, 0)
    short = [len(re.findall(r"\d+", question)) == 2 for question, _ in rows]
    halves = Counter(index >= 1500 for index, is_short in enumerate(short) if is_short)
    # 200 two-term questions, hypergeometric: 4 standard deviations are 28
    assert sum(halves.values()) > 150
    assert abs(halves[True] - halves[False]) < 56


@pytest.mark.parametrize(
    ("domain", "options", "count", "complaint"),
    [
        ("chain_summ", {}, 10, "did you mean chain_sum?"),
        ("gcd", {"max_valu": 3}, 10, "unknown option max_valu; must be one of max_numbers, max_value"),
        ("gcd", {"seed": 3}, 10, "unknown option seed"),
        ("gcd", {"max_value": 0}, 10, "reasoning_gym refuses"),
        ("gcd", {"max_value": "many"}, 10, "reasoning_gym refuses"),
        ("products", {"max_long": 0}, 10, "must be integers from 1 to 999"),
        ("products", {"max_long": True}, 10, "must be integers from 1 to 999"),
        ("products", {"min_terms": 4}, 10, "min_terms <= max_terms"),
        ("gcd", {"max_value": 3}, 10, "gcd has about 9 different questions with these options; 10 are asked"),
        ("products", {"max_terms": 2, "max_long": 9}, 101, "products has about 100 different questions"),
    ],
)
def test_what_cannot_be_generated_is_said_in_one_line(domain, options, count, complaint):
    with pytest.raises(ScenarioError) as caught:
        generate(domain, options, count, 0)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_process_with_another_hash_seed_generates_the_same():
    call = f"[generate(domain, {{}}, 60, 5) for domain in {QUICK_DOMAINS!r}]"
    code = f"from fedsim.tasks.domains import generate; print({call})"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {str([generate(domain, {}, 60, 5) for domain in QUICK_DOMAINS]) + "\n"}


def test_the_names_read_from_source_are_the_data_sets_that_reasoning_gym_registers():
    from reasoning_gym.factory import DATASETS

    assert registered_names() == set(DATASETS)


def test_a_misspelt_name_is_found_without_generating_anything():
    check_names(["gcd", "products", "zebra_puzzles"])
    with pytest.raises(
        ScenarioError, match=r"chain_summ is not a reasoning_gym data set; did you mean chain_sum\?"
    ):
        check_names(["gcd", "chain_summ"])


def test_kept_rows_are_read_back_and_are_those_that_would_be_generated(tmp_path, monkeypatch):
    rows = domains.generate("gcd", {}, 40, 3)
    assert domains.generate("gcd", {}, 40, 3, tmp_path) == rows
    (kept,) = tmp_path.iterdir()

    def refuse(*_: object) -> None:
        raise AssertionError("generated again")

    monkeypatch.setattr(domains, "_cached", refuse)
    assert domains.generate("gcd", {}, 40, 3, tmp_path) == rows
    with pytest.raises(AssertionError, match="generated again"):
        domains.generate("gcd", {}, 40, 4, tmp_path)
    whole = kept.read_bytes()
    for damaged in (b'[["one", "row"]]', whole[:-9], whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]):
        kept.write_bytes(damaged)
        with pytest.raises(
            CacheError, match=f"{kept.name} is not what was written; delete this cache folder"
        ):
            domains.generate("gcd", {}, 40, 3, tmp_path)


@pytest.mark.parametrize("changed", ["options", "count", "seed", "version"])
def test_rows_are_kept_apart_by_all_that_they_depend_on(changed, monkeypatch):
    arguments = {"name": "gcd", "options_json": "{}", "count": 40, "seed": 3}
    before = domains._key(**arguments)
    if changed == "version":
        monkeypatch.setattr(domains, "version", lambda package: f"another {package}")
    else:
        arguments |= {
            "options": {"options_json": '{"max_value": 9}'},
            "count": {"count": 41},
            "seed": {"seed": 4},
        }[changed]
    assert domains._key(**arguments) != before
