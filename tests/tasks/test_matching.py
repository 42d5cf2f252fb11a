"""Answers in texts: what is found, what counts as equal, and which patterns are refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.tasks.matching import MAX_TEXT_CHARS, AnswerRule, check_pattern, extract, matches


@pytest.mark.parametrize(
    ("text", "pattern", "answer"),
    [
        (" 42\n", None, "42"),
        ("3 + 4 is\n#### 7 ", r"#### ([-0-9./]+)", "7"),
        ("#### 1 no, #### 2", r"#### (\d+)", "2"),
        ("so \\boxed{12}.", r"\\boxed\{([^}]*)\}", "12"),
        ("answer: 5 or 6", r"answer: (?:5|7)", "answer: 5"),
        ("no number here", r"(\d+)", ""),
        ("a", r"a(b)?", ""),
    ],
)
def test_the_last_match_is_the_answer(text, pattern, answer):
    if pattern == r"a(b)?":
        with pytest.raises(ValueError, match="repeats a group"):
            extract(text, pattern)
    else:
        assert extract(text, pattern) == answer


@pytest.mark.parametrize(
    ("kind", "given_text", "truth", "equal"),
    [
        ("exact", " 7", "7 ", True),
        ("exact", "7.0", "7", False),
        ("exact", "Sun", "sun", False),
        ("exact", "", "", False),
        ("numeric", "7.0", "7", True),
        ("numeric", "+7", "7", True),
        ("numeric", "1,234.50", "1234.5", True),
        ("numeric", "12,34", "1234", False),
        ("numeric", "1/2", "0.50", True),
        ("numeric", "-3/6", "-.5", True),
        ("numeric", "1/0", "1", False),
        ("numeric", "0.333", "1/3", False),
        ("numeric", "0.33333333", "1/3", True),
        ("numeric", "0.0000001", "0", False),
        ("numeric", "seven", "seven", True),
        ("numeric", "nan", "7", False),
        ("numeric", "inf", "7", False),
        ("numeric", "1e999999999", "7", False),
        ("numeric", "9" * 100_000, "7", False),
        ("numeric", "٧", "7", True),
        ("caseless", " new  YORK.\n", "New York", True),
        ("caseless", "Stra\u00dfe", "STRASSE", True),
        ("caseless", "Bogota\u0301", "bogot\u00e1", True),
        ("caseless", "\uff2cima\uff0e", "Lima", True),
        ("caseless", "\u5229\u9a6c\u3002", "\u5229\u9a6c", True),
        ("caseless", "Lima..", "Lima", False),
        ("caseless", "the Hague", "Hague", False),
        ("caseless", "1.50", "1.5", False),
        ("caseless", ".", ".", False),
        ("normalized", "The Hague!", "hague", True),
        ("normalized", "an  apple, a pear", "Apple pear", True),
        ("normalized", "Theme", "me", False),
        ("normalized", "well-known", "wellknown", True),
        ("normalized", "-5", "5", True),
        ("normalized", "the", "a", False),
    ],
)
def test_answers_are_compared_as_text_or_as_value(kind, given_text, truth, equal):
    assert matches(kind, given_text, truth) is equal


def test_an_unknown_comparison_is_refused():
    with pytest.raises(ValueError, match="must be exact, numeric, caseless or normalized"):
        matches("fuzzy", "1", "1")


def test_a_rule_extracts_before_it_compares():
    rule = AnswerRule("numeric", r"#### ([0-9.]+)")
    assert rule.extract("#### 7.0") == "7.0"
    assert rule.right("it is #### 7.0", "7")
    assert not rule.right("it is 7", "7")


def test_any_accepted_answer_is_right():
    rule = AnswerRule("caseless", r"city: (.*)")
    accepted = ("Den Haag", "The Hague")
    assert rule.right("the city: the hague.", accepted)
    assert not rule.right("the city: Hague", accepted)
    assert not rule.right("city: ", ("",))
    assert not rule.right("city: t", ())


@pytest.mark.parametrize(
    ("match", "same", "other"),
    [
        ("exact", ("is 7", "so it is 7 "), "is 7.0"),
        ("numeric", ("is 1,200", "is 1200.0", "is 2400/2"), "is 1200.1"),
        ("numeric", ("is unknown", "it is unknown"), "is known"),
        ("caseless", ("is Lima", "is  LIMA."), "is a Lima"),
        ("normalized", ("is the Hague", "is: Hague"), "is Den Haag"),
    ],
)
def test_texts_with_one_answer_have_one_key(match, same, other):
    rule = AnswerRule(match, r"is:?(.*)")
    assert len({rule.key(text) for text in same}) == 1
    assert rule.key(other) != rule.key(same[0])
    assert rule.key("nothing") == ""


@given(st.sampled_from(["exact", "caseless", "normalized"]), st.text(max_size=12), st.text(max_size=12))
def test_two_answers_agree_if_and_only_if_they_have_one_key_that_is_not_empty(match, one, two):
    rule = AnswerRule(match)
    for text, truth in ((one, two), (one, one.upper()), (one, f" {one}. ")):
        assert rule.right(text, truth) == (rule.key(text) == rule.key(truth) != "")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(a+)+b", "repeats a group"),
        ("(a|aa)*b", "repeats a group"),
        ("(?:a){2}", "repeats a group"),
        (r"(a)\1", "back-reference"),
        ("(?=a)", r"only \(...\) and"),
        ("(?P<x>a)", r"only \(...\) and"),
        ("(?i)a", r"only \(...\) and"),
        ("a*a*a*b", "3 unbounded"),
        ("a?a?a?a?a?a?a?aaaaaaa", "7 repeats"),
        ("a{3,}", "up to 20"),
        ("a{1000}", "up to 20"),
        ("(a)(b)", "2 groups"),
        ("(a", "not a regular expression"),
        ("a" * 201, "201 characters"),
    ],
)
def test_patterns_that_could_take_long_are_refused(pattern, reason):
    with pytest.raises(ValueError, match=reason):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", [r"\s*\s*x", "a*a*b", r"[a ]*[a ]*a?a?a?a?b"])
def test_the_worst_allowed_pattern_on_the_worst_text_is_quick(pattern):
    for text in (" " * 100_000, "a" * 100_000):
        start = time.process_time()
        assert extract(text, pattern) == ""
        assert time.process_time() - start < 10


def test_only_the_end_of_a_long_text_is_read():
    assert extract("#### 1" + "." * MAX_TEXT_CHARS, r"#### (\d)") == ""


@given(st.text(max_size=40))
def test_checking_any_text_as_a_pattern_ends_in_a_verdict(pattern):
    try:
        check_pattern(pattern)
    except ValueError:
        return
    assert isinstance(extract("some text 12 #### 7", pattern), str)


@given(st.integers(-(10**12), 10**12), st.integers(1, 9999))
def test_numeric_match_knows_a_number_in_all_its_spellings(number, divisor):
    for spelling in (f"{number:,}", f"{number}.00", f"{number * divisor}/{divisor}", f" {number} "):
        assert matches("numeric", spelling, str(number))
    assert not matches("numeric", str(number + abs(number) // 1000 + 1), str(number))
