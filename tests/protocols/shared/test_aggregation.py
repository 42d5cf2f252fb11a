"""Averaging: digits by hand, where factors and products differ, and what truncation keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.protocols.shared.aggregation import (
    aggregation_flop,
    average,
    client_shares,
    factor_mean,
    product_mean,
)

HALF = np.array([0.5, 0.5])


def adapter(a, b):
    return {"x.lora_A": np.array(a, np.float32), "x.lora_B": np.array(b, np.float32)}


def drawn(seed, rank, num_in, num_out):
    draws = np.random.default_rng(seed)
    return adapter(draws.normal(size=(rank, num_in)), draws.normal(size=(num_out, rank)))


def product(weights):
    return np.asarray(weights["x.lora_B"], float) @ np.asarray(weights["x.lora_A"], float)


def test_shares_by_hand():
    assert client_shares("uniform", [1, 3, 4]).tolist() == pytest.approx([1 / 3] * 3)
    assert client_shares("samples", [1, 3, 4]).tolist() == [0.125, 0.375, 0.5]


def test_nobody_and_a_client_without_rows_cannot_be_weighed():
    with pytest.raises(ValueError, match="nobody"):
        client_shares("uniform", [])
    with pytest.raises(ValueError, match="without rows"):
        client_shares("samples", [2, 0])


def test_uniform_and_sample_weighted_means_by_hand():
    updates = [{"w": np.array([0.0, 4.0], np.float32)}, {"w": np.array([8.0, 0.0], np.float32)}]
    assert factor_mean(updates, client_shares("uniform", [1, 3]))["w"].tolist() == [4.0, 2.0]
    assert factor_mean(updates, client_shares("samples", [1, 3]))["w"].tolist() == [6.0, 1.0]


def test_the_mean_of_factors_is_not_the_mean_of_products():
    # B A of the two clients: [[1, 0], [0, 0]] and [[0, 0], [0, 1]].
    updates = [adapter([[1, 0]], [[1], [0]]), adapter([[0, 1]], [[0], [1]])]
    assert product(factor_mean(updates, HALF)).tolist() == [[0.25, 0.25], [0.25, 0.25]]
    kept = product(product_mean(updates, HALF))
    # Rank 1 keeps one of two equal singular values: one client's half.
    assert np.linalg.norm(kept) == pytest.approx(0.5)
    assert not np.allclose(kept, 0.25)


def test_the_mean_of_products_is_exact_where_the_rank_allows():
    shared = drawn(0, 3, 7, 5)
    others = [
        adapter(shared["x.lora_A"], np.random.default_rng(seed).normal(size=(5, 3))) for seed in (1, 2, 3)
    ]
    shares = client_shares("samples", [1, 2, 5])
    wanted = sum(share * product(one) for share, one in zip(shares, others, strict=True))
    assert product(product_mean(others, shares)) == pytest.approx(wanted, abs=1e-9)


@given(seed=st.integers(0, 10**6), num_clients=st.integers(1, 5), rank=st.integers(1, 4))
def test_the_mean_of_products_is_the_best_of_its_rank(seed, num_clients, rank):
    updates = [drawn(seed + k, rank, 6, 9) for k in range(num_clients)]
    shares = client_shares("samples", [k + 1 for k in range(num_clients)])
    wanted = sum(share * product(one) for share, one in zip(shares, updates, strict=True))
    averaged = product_mean(updates, shares)
    assert averaged["x.lora_A"].shape == (rank, 6) and averaged["x.lora_B"].shape == (9, rank)
    beyond = np.linalg.svd(wanted, compute_uv=False)[rank:]
    assert np.linalg.norm(product(averaged) - wanted) == pytest.approx(np.linalg.norm(beyond), abs=1e-9)
    assert averaged["x.lora_A"] @ averaged["x.lora_A"].T == pytest.approx(np.eye(rank), abs=1e-9)


@given(seed=st.integers(0, 10**6))
def test_one_client_keeps_its_product_whatever_the_averaging(seed):
    one = drawn(seed, 2, 5, 4)
    for averaging in ("factors", "product"):
        assert product(average([one], np.ones(1), averaging)) == pytest.approx(product(one), abs=1e-6)


def test_untrained_adapters_stay_able_to_learn():
    """All B are zero: the product is zero, and A must not become zero as well, or nothing could ever move again."""
    updates = [adapter(drawn(k, 2, 6, 4)["x.lora_A"], np.zeros((4, 2))) for k in range(3)]
    averaged = product_mean(updates, client_shares("uniform", [1, 1, 1]))
    assert not averaged["x.lora_B"].any()
    assert np.linalg.matrix_rank(averaged["x.lora_A"]) == 2


def test_other_arrays_are_averaged_plainly_and_the_order_of_names_stays():
    updates = [{"n": np.array([2.0 * k], np.float32)} | drawn(k, 1, 3, 3) for k in range(2)]
    averaged = product_mean(updates, HALF)
    assert averaged["n"].tolist() == [1.0]
    assert list(averaged) == list(updates[0])


def test_a_rank_beyond_the_layers_width_is_filled_up_with_zeros():
    updates = [drawn(k, 5, 3, 4) for k in range(2)]
    wanted = 0.5 * (product(updates[0]) + product(updates[1]))
    averaged = product_mean(updates, HALF)
    assert averaged["x.lora_A"].shape == (5, 3)
    assert product(averaged) == pytest.approx(wanted, abs=1e-9)


def test_updates_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="differ"):
        factor_mean([drawn(0, 2, 3, 3), drawn(0, 1, 3, 3)], HALF)
    with pytest.raises(ValueError, match="other factor"):
        product_mean([{"x.lora_A": np.ones((1, 2), np.float32)}], np.ones(1))


def test_stand_ins_without_numbers_are_averaged_to_nothing():
    empty = {"x.lora_A": np.zeros((2, 0), np.float32), "x.lora_B": np.zeros((0, 2), np.float32)}
    for averaging in ("factors", "product"):
        shapes = {name: array.shape for name, array in average([empty, empty], HALF, averaging).items()}
        assert shapes == {"x.lora_A": (2, 0), "x.lora_B": (0, 2)}


def test_flop_of_averaging_by_hand():
    shapes = {"x.lora_A": (2, 6), "x.lora_B": (4, 2)}
    assert aggregation_flop(shapes, 3, "factors") == 2 * 3 * 20
    assert aggregation_flop(shapes, 3, "product") == 120 + 4 * 10 * 36 + 22 * 216 + 2 * 10 * 6 * 2
