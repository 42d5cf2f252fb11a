from __future__ import annotations

import math
import statistics
import struct
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim.sim import ar1 as levels_module
from fedsim.sim import streams
from fedsim.sim.ar1 import AR1, TRUNCATION


def test_a_level_without_memory_is_one_draw_of_its_slot() -> None:
    levels = AR1(0.0)
    assert levels.level((0, "x"), 5) == AR1(0.0).level((0, "x"), 5)
    assert len({levels.level((0, "x"), slot) for slot in range(100)}) == 100


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-50, 500)), min_size=1, max_size=30), st.randoms())
def test_levels_do_not_depend_on_the_order_of_questions(
    questions: list[tuple[int, int]], shuffler: object
) -> None:
    levels = AR1(0.9)
    expected = {(k, slot): levels.level((0, "x", k), slot) for k, slot in questions}
    shuffler.shuffle(questions)  # type: ignore[attr-defined]
    fresh = AR1(0.9)
    assert all(fresh.level((0, "x", k), slot) == expected[k, slot] for k, slot in questions)


def level_by_definition(key: tuple[streams.Part, ...], slot: int, memory: float) -> float:
    """A slot's level from the draws of all slots that count, each made anew."""

    def draw(number: int) -> float:
        words = struct.unpack("<16I", streams.digest(*key, number // 16, size=64))
        return NormalDist().inv_cdf((words[number % 16] + 0.5) / 2**32)

    weights = [memory**age for age in range(500) if age == 0 or memory**age > TRUNCATION]
    scale = math.sqrt(math.fsum(weight * weight for weight in weights))
    return math.fsum(weight / scale * draw(slot - age) for age, weight in enumerate(weights))


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([0.0, 0.3, 0.9]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(-40, 200)), max_size=12),
)
def test_levels_are_what_their_definition_says_whatever_was_asked_before(
    memory: float, questions: list[tuple[int, int]]
) -> None:
    levels = AR1(memory)
    for number, slot in [*questions, *reversed(questions)]:
        key = (0, "x", number)
        assert levels.level(key, slot) == level_by_definition(key, slot, memory)


def test_more_keys_than_are_remembered_have_the_levels_that_they_have_alone(monkeypatch):
    monkeypatch.setattr(levels_module, "_REMEMBERED_BYTES", 4000)
    levels = AR1(0.5)
    assert levels._track.cache_info().maxsize < 10
    for slot in (3, 40, 41):
        for number in range(20):
            assert levels.level((0, "x", number), slot) == level_by_definition((0, "x", number), slot, 0.5)


@pytest.mark.parametrize("slot", [0, 7, 1000])
def test_levels_are_standard_normal_over_keys_in_every_slot(slot: int) -> None:
    # n independent keys: mean within 3.3 / sqrt(n) of 0 and variance within 3.3 sqrt(2 / n) of 1 (99.9% each).
    n, levels = 3000, AR1(0.9)
    drawn = [levels.level((slot, "x", k), slot) for k in range(n)]
    assert abs(statistics.fmean(drawn)) < 3.3 / math.sqrt(n)
    assert abs(statistics.variance(drawn) - 1) < 3.3 * math.sqrt(2 / n)


@pytest.mark.parametrize(("memory", "lag"), [(0.9, 1), (0.9, 5), (0.5, 1), (0.5, 3)])
def test_levels_forget_by_the_memory_in_every_slot(memory: float, lag: int) -> None:
    # Fisher: atanh of a sample correlation has standard deviation 1 / sqrt(n - 3); 99.9%, and the truncation's 1e-3.
    n, levels = 4000, AR1(memory)
    now = [levels.level((0, "x", k), 100) for k in range(n)]
    later = [levels.level((0, "x", k), 100 + lag) for k in range(n)]
    correlation = statistics.correlation(now, later)
    allowed = 3.3 / math.sqrt(n - 3) + TRUNCATION / (1 - memory**2)
    assert abs(math.atanh(correlation) - math.atanh(memory**lag)) < allowed


def test_what_the_moving_average_leaves_out_is_below_a_thousandth():
    for memory in (0.3, 0.5, 0.8, 0.99):
        weights = AR1(memory)._weights
        assert memory ** len(weights) <= 1e-3 < memory ** (len(weights) - 1)
        assert math.fsum(weight**2 for weight in weights) == pytest.approx(1.0)
    assert AR1(0.0)._weights == [1.0]
