"""Stated lengths of texts: keyed draws with the stated quantiles, and settings that are refused in one line."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from fedsim.errors import ScenarioError
from fedsim.federation.text_lengths import (
    MOST_TOKENS,
    FixedLength,
    Length,
    LognormalLength,
    PresetLength,
    TextConfig,
    TextLengths,
    UniformLength,
    length_presets,
)
from fedsim.scenario.read import scenario_from

LENGTH: TypeAdapter[Any] = TypeAdapter(Length)
SCENARIO = {
    "name": "x", "fidelity": "timing", "stop": {"updates": 1}, "protocol": "fedgrpo", "clients": {"laptop": 2},
}  # fmt: skip
TEXTS = [f"text {number}" for number in range(4000)]


def lengths(seed: int = 0, **keys: Any) -> TextLengths:
    return TextLengths(TextConfig.model_validate({"question": 10, "answer": 5} | keys), seed)


def drawn(source: Any, kind: Any = "question") -> list[int]:
    stated = lengths(**{kind: source})
    return [stated.tokens(kind, text) for text in TEXTS]


# ------------------------------------------------------------------------------------------------------------ forms


@pytest.mark.parametrize(
    ("given_form", "form"),
    [
        (96, FixedLength),
        ({"tokens": 96}, FixedLength),
        ({"median": 120, "p95": 400}, LognormalLength),
        ({"median": 120, "p95": 400, "at_most": 500}, LognormalLength),
        ({"low": 3, "high": 9}, UniformLength),
        ("azure-code-answer", PresetLength),
        ({"preset": "azure-code-answer", "at_most": 64}, PresetLength),
    ],
)
def test_every_form_of_a_length_is_read_and_read_back(given_form: Any, form: type) -> None:
    length = LENGTH.validate_python(given_form)
    assert type(length) is form
    assert LENGTH.validate_json(LENGTH.dump_json(length)) == length


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (-5, "text.question is -5; must be at least 0"),
        (0, "must have at least 1 token"),
        (10**30, f"must be at most {MOST_TOKENS}"),
        (1.5, "must be a count of tokens, a preset's name"),
        (True, "true"),
        (None, "text.question"),
        ({"median": 5, "p95": 2}, "p95 2 must be at least the median, 5"),
        ({"median": 1e300, "p95": 2e300}, f"must be at most {MOST_TOKENS}"),
        ({"median": -1, "p95": 2}, "must be greater than 0"),
        ({"median": 1}, "text.question.p95 is missing"),
        ({"low": 9, "high": 1}, "high 1 must be at least low, 9"),
        ({"low": 0, "high": 1}, "must have at least 1 token"),
        ({"median": 5, "p95": 9, "at_most": 0}, "at_most"),
        ("azure-conv-prompts", "did you mean 'azure-conv-prompt'?"),
        ({"tokens": 9, "median": 3}, "text.question.median is not a key"),
    ],
)
def test_an_impossible_length_is_refused_in_one_line(question: Any, words: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        scenario_from(SCENARIO | {"text": {"question": question, "answer": 4}})
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("bytes_per_token", [0, -1, 1e9])
def test_an_impossible_width_of_a_token_is_refused(bytes_per_token: float) -> None:
    with pytest.raises(ScenarioError, match=r"text\.bytes_per_token is"):
        scenario_from(SCENARIO | {"text": {"question": 3, "answer": 4, "bytes_per_token": bytes_per_token}})


# ---------------------------------------------------------------------------------------------------- distributions


def test_a_fixed_length_is_that_length() -> None:
    assert set(drawn(96)) == {96}


def test_a_lognormal_length_has_its_median_and_its_95th_percentile() -> None:
    """Counts below a quantile are binomial: four standard deviations of room."""
    found = drawn({"median": 120, "p95": 400})
    for quantile, share in ((120, 0.5), (400, 0.95)):
        below = sum(length <= quantile for length in found) / len(found)
        assert below == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(found)))


def test_a_uniform_length_takes_every_value_alike() -> None:
    found = drawn({"low": 3, "high": 7})
    assert set(found) == {3, 4, 5, 6, 7}
    share = 4 * math.sqrt(0.2 * 0.8 / len(found))
    assert all(found.count(value) / len(found) == pytest.approx(0.2, abs=share) for value in set(found))


@pytest.mark.parametrize("name", sorted(length_presets()))
def test_a_preset_has_the_quantiles_of_its_table(name: str) -> None:
    table, found = length_presets()[name], sorted(drawn(name))
    for percent in (10, 50, 90):
        below = sum(length <= table[percent] for length in found) / len(found)
        above = sum(length >= table[percent] for length in found) / len(found)
        room = 4 * math.sqrt(percent / 100 * (1 - percent / 100) / len(found))
        assert below >= percent / 100 - room and above >= 1 - percent / 100 - room
    assert found[0] >= table[0] and found[-1] <= table[100]


def test_the_tables_are_101_rising_quantiles_of_four_columns() -> None:
    assert set(length_presets()) == {
        "azure-conv-prompt", "azure-conv-answer", "azure-code-prompt", "azure-code-answer",
    }  # fmt: skip
    for table in length_presets().values():
        assert len(table) == 101 and list(table) == sorted(table) and table[0] >= 1


def test_the_median_of_the_traces_is_what_their_source_states() -> None:
    assert length_presets()["azure-conv-prompt"][50] == 1020
    assert length_presets()["azure-conv-answer"][50] == 129


TRACE = Path("/work/shared/traces/azure_llm_tokens_2023.csv.gz")


@pytest.mark.skipif(not TRACE.exists(), reason="the trace is not part of the repository")
def test_the_tables_are_the_quantiles_of_the_trace() -> None:
    with gzip.open(TRACE, "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if row["service"] == "code"]
    ordered = sorted(int(row["generated_tokens"]) for row in rows)
    expected = [ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)] for percent in range(101)]
    assert list(length_presets()["azure-code-answer"]) == expected


@given(
    st.floats(0.01, 1e6),
    st.floats(1.0, 1e6),
    st.one_of(st.none(), st.integers(1, 10**6)),
    st.floats(1e-9, 1 - 1e-9),
)
def test_a_length_is_always_a_sensible_whole_number(
    median: float, ratio: float, at_most: int | None, share: float
) -> None:
    source = LognormalLength(median=median, p95=min(median * ratio, 1e6), at_most=at_most)
    assert 1 <= source.at(share) <= (at_most or MOST_TOKENS)


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1e-9, 1 - 1e-9))
def test_quantiles_rise(one: float, other: float) -> None:
    low, high = sorted((one, other))
    for source in (
        PresetLength(preset="azure-conv-prompt"),
        LognormalLength(median=9, p95=80),
        UniformLength(low=1, high=40),
    ):
        assert source.at(low) <= source.at(high)


# ------------------------------------------------------------------------------------------------------ keyed draws


def test_a_text_is_as_long_whenever_and_in_whatever_order_it_is_asked_about() -> None:
    source = {"median": 50, "p95": 300}
    one, other = lengths(question=source), lengths(question=source)
    forwards = [one.tokens("question", text) for text in TEXTS]
    assert [other.tokens("question", text) for text in reversed(TEXTS)] == forwards[::-1]
    assert [one.tokens("question", text) for text in TEXTS] == forwards


def test_seeds_and_kinds_have_draws_of_their_own() -> None:
    source = {"low": 1, "high": 10**6}
    one = lengths(question=source, answer=source)
    assert one.tokens("question", "7") != one.tokens("answer", "7")
    assert one.tokens("question", "7") != lengths(seed=1, question=source).tokens("question", "7")


def test_a_candidate_is_its_rationale_and_its_answer() -> None:
    stated = lengths(rationale={"low": 100, "high": 900}, answer={"low": 1, "high": 9})
    for text in TEXTS[:100]:
        answer = stated.tokens("answer", text)
        assert 100 <= stated.tokens("candidate", text) - answer <= 900
    assert lengths(rationale=40).tokens("candidate", "12") == 45


def test_bytes_are_tokens_times_their_width_rounded() -> None:
    stated = lengths(question=3, bytes_per_token=3.5)
    assert stated.text_bytes("question", "whatever") == 10  # 10.5, to the even number
    assert stated.text_bytes("answer", "") == 18  # 17.5


def test_the_longest_row_is_at_most_the_stated_limits() -> None:
    stated = lengths(
        question={"median": 10, "p95": 900, "at_most": 50}, rationale={"low": 5, "high": 70}, answer=8
    )
    assert stated.longest_row_tokens == 50 + 70 + 8 + 1
