import math
import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.sim import streams

PARTS = st.lists(st.one_of(st.integers(), st.text(max_size=8), st.binary(max_size=8)), min_size=1, max_size=4)


def test_a_digest_is_the_hash_of_typed_and_length_prefixed_parts():
    key = b"i\x00\x00\x00\x0242" + b"s\x00\x00\x00\x03abc" + b"b\x00\x00\x00\x01\xff"
    assert streams.digest(42, "abc", b"\xff") == blake2b(key, digest_size=8).digest()


@given(PARTS, PARTS)
def test_different_keys_have_different_digests(one, other):
    same = [(type(part), part) for part in one] == [(type(part), part) for part in other]
    assert (streams.digest(*one, size=16) == streams.digest(*other, size=16)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [((1,), ("1",)), (("ab", "c"), ("a", "bc")), (("a",), (b"a",)), ((1, 2), (12,)), (("a", ""), ("a",))],
)
def test_keys_that_look_alike_when_joined_are_different_keys(one, other):
    assert streams.uniform(*one) != streams.uniform(*other)


@given(PARTS, PARTS, PARTS)
def test_joined_parts_are_the_same_key_as_the_parts_one_by_one(before, within, after):
    assert streams.digest(*before, streams.joined(*within), *after) == streams.digest(
        *before, *within, *after
    )
    assert streams.joined(streams.joined(*before), *after) == streams.joined(*before, *after)


def test_joined_parts_are_not_the_bytes_that_they_are_encoded_in():
    assert streams.digest(streams.joined("a")) != streams.digest(streams.joined("a").raw)


def test_what_only_equals_a_part_that_was_encoded_before_is_still_told_from_it():
    assert streams.uniform(1) == streams.uniform(1)
    for part in (True, 1.0):
        with pytest.raises(TypeError, match=type(part).__name__):
            streams.uniform(part)


@pytest.mark.parametrize("part", [True, 1.0, None, ("a",), np.int64(3)])
def test_a_key_part_of_another_type_is_refused(part):
    with pytest.raises(TypeError, match=type(part).__name__):
        streams.uniform(0, part)


@given(PARTS)
def test_a_draw_is_a_function_of_its_key_and_lies_strictly_between_0_and_1(parts):
    draw = streams.uniform(*parts)
    assert 0 < draw < 1
    assert draw == streams.uniform(*parts)
    assert 0 <= streams.integer(*parts) < 2**63


@pytest.mark.parametrize(("raw", "inside"), [(b"\x00" * 8, "smallest"), (b"\xff" * 8, "largest")])
def test_even_the_extreme_digests_give_draws_inside_the_open_interval(raw, inside, monkeypatch):
    # The one way to reach them: no key with these digests is known.
    monkeypatch.setattr(streams, "digest", lambda *parts, size=8: raw)
    assert 0 < streams.uniform("any") < 1, inside
    assert math.isfinite(streams.normal("any"))
    assert 0 < streams.exponential(1.0, "any") < 40


def test_uniform_draws_fill_twenty_cells_evenly():
    num_draws, num_cells = 20_000, 20
    cells = np.bincount([int(num_cells * streams.uniform("cells", n)) for n in range(num_draws)])
    expected = num_draws / num_cells
    chi_square = float(np.sum((cells - expected) ** 2 / expected))
    assert chi_square < 43.8  # 99.9 % of chi square with 19 degrees of freedom


def test_consecutive_draws_of_one_stream_are_uncorrelated():
    draws = np.array([streams.uniform(7, "client", n) for n in range(10_000)])
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 3.3 / math.sqrt(len(draws))


def test_a_normal_draw_is_where_the_distribution_function_has_the_uniform_one():
    assert streams.standard_normal(0.5) == 0.0
    assert streams.standard_normal(0.975) == pytest.approx(1.959963984540054, abs=1e-15)
    assert streams.standard_normal(1e-20) == pytest.approx(-9.262340089798408, rel=1e-15)
    for key in range(100):
        below = 0.5 * math.erfc(-streams.normal(7, key) / math.sqrt(2))
        assert below == pytest.approx(streams.uniform(7, key), rel=1e-12)


def test_normal_draws_have_the_moments_of_a_standard_normal():
    draws = np.array([streams.normal(1, "z", n) for n in range(20_000)])
    assert abs(draws.mean()) < 3.3 / math.sqrt(len(draws))
    assert abs(draws.var() - 1) < 3.3 * math.sqrt(2 / len(draws))
    assert abs((np.abs(draws) < 1.96).mean() - 0.95) < 3.3 * math.sqrt(0.95 * 0.05 / len(draws))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0])
def test_a_lognormal_factor_has_mean_one(sigma):
    draws = np.array([streams.lognormal(sigma, 1, "jitter", n) for n in range(20_000)])
    deviation = math.sqrt(math.expm1(sigma**2))
    assert abs(draws.mean() - 1) < 3.3 * deviation / math.sqrt(len(draws))
    assert np.log(draws).std() == pytest.approx(sigma, rel=0.03)


def test_a_lognormal_factor_without_spread_is_exactly_one():
    assert streams.lognormal(0.0, "any") == 1.0


def test_exponential_draws_have_their_mean_and_no_memory():
    draws = np.array([streams.exponential(20.0, 3, "on", n) for n in range(20_000)])
    assert abs(draws.mean() - 20) < 3.3 * 20 / math.sqrt(len(draws))
    assert (draws > 40).sum() / (draws > 20).sum() == pytest.approx(math.exp(-1), rel=0.05)


def test_a_generator_repeats_its_numbers_and_another_key_gives_others():
    first = streams.generator(0, "partition").random(5)
    assert np.array_equal(first, streams.generator(0, "partition").random(5))
    assert not np.array_equal(first, streams.generator(1, "partition").random(5))


def test_draws_of_one_client_do_not_depend_on_how_many_others_draw():
    alone = [streams.uniform(0, "client 3", "delay", n) for n in range(5)]
    for other in range(100):
        streams.uniform(0, f"client {other}", "delay", 0)
    assert alone == [streams.uniform(0, "client 3", "delay", n) for n in range(5)]


def test_draws_are_the_same_in_another_process_with_another_hash_seed():
    program = "from fedsim.sim import streams; print(streams.uniform(5, 'a', b'b'), streams.normal('n', 1))"
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": root}
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == [str(streams.uniform(5, "a", b"b")), str(streams.normal("n", 1))]
