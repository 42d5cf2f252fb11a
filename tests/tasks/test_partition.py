"""Dealing rows to clients: nothing lost, nothing twice, nobody else's draws disturbed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsim.errors import FederationError
from fedsim.tasks.config import PartitionConfig
from fedsim.tasks.partition import deal, draw_owners

configs = st.one_of(
    st.just(PartitionConfig(kind="iid")),
    st.builds(
        PartitionConfig,
        kind=st.just("dirichlet"),
        over=st.sampled_from(["clients", "domains"]),
        beta=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    ),
)
rows = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 60), min_size=1)


@given(configs, rows, st.integers(1, 12), st.integers(0, 99))
def test_every_row_is_dealt_exactly_once(config, num_rows, num_clients, seed):
    dealt = deal(config, num_rows, num_clients, seed)
    assert dealt.table.shape == (num_clients, len(num_rows))
    assert dealt.table.dtype == np.int64
    assert dealt.table.sum(axis=0).tolist() == list(num_rows.values())
    for column, (domain, count) in enumerate(num_rows.items()):
        owners = dealt.owners[domain]
        assert len(owners) == count
        assert np.bincount(owners.ravel(), minlength=num_clients).tolist() == dealt.table[:, column].tolist()
    np.testing.assert_allclose(dealt.weights.sum(axis=0), 1.0)


@given(configs, rows, st.integers(1, 12), st.integers(0, 99))
def test_the_same_key_deals_the_same_hands(config, num_rows, num_clients, seed):
    first, second = (deal(config, num_rows, num_clients, seed) for _ in range(2))
    np.testing.assert_array_equal(first.table, second.table)
    for domain in num_rows:
        np.testing.assert_array_equal(first.owners[domain], second.owners[domain])


@given(configs.filter(lambda config: config.kind == "dirichlet"), rows, st.integers(1, 9))
def test_more_rows_of_a_domain_leave_earlier_rows_where_they_were(config, num_rows, num_clients):
    more = {domain: count + 7 for domain, count in num_rows.items()}
    before, after = (deal(config, counts, num_clients, 0) for counts in (num_rows, more))
    for domain, count in num_rows.items():
        np.testing.assert_array_equal(before.owners[domain], after.owners[domain][:count])


@given(rows, st.integers(1, 9))
def test_another_domain_changes_no_earlier_domain(num_rows, num_clients):
    config = PartitionConfig(beta=0.1)
    before, after = (deal(config, counts, num_clients, 0) for counts in (num_rows, num_rows | {"new": 30}))
    np.testing.assert_array_equal(before.table, after.table[:, : len(num_rows)])


@pytest.mark.parametrize("over", ["clients", "domains"])
def test_another_client_leaves_the_others_proportions(over):
    config = PartitionConfig(over=over, beta=0.3)
    few, many = (deal(config, {"a": 1, "b": 1}, count, 5).weights for count in (4, 5))
    np.testing.assert_allclose(many[:4] / many[:4].sum(axis=0), few, rtol=1e-9)


@pytest.mark.parametrize("over", ["clients", "domains"])
def test_every_domain_has_proportions_and_rows_of_its_own_luck(over):
    """Of 400 rows to 8 clients alike, a domain's and another's n-th go to the same one with probability 1/8."""
    weights = deal(PartitionConfig(over=over, beta=0.5), {"a": 1, "b": 1}, 8, 0).weights
    assert np.abs(weights[:, 0] - weights[:, 1]).max() > 0.1
    owners = deal(PartitionConfig(over=over, beta=1e6), {"a": 400, "b": 400}, 8, 0).owners
    same = int((owners["a"] == owners["b"]).sum())
    assert abs(same - 50) < 3.3 * np.sqrt(400 * 1 / 8 * 7 / 8)


def test_iid_client_sizes_differ_by_one_row_at_most():
    table = deal(PartitionConfig(kind="iid"), {"a": 13, "b": 7, "c": 2}, 5, 0).table
    assert set(table.sum(axis=1)) == {4, 5}
    assert table.max(axis=0).tolist() == [3, 2, 1]


def test_small_beta_over_clients_gives_each_domain_to_hardly_more_than_one_client():
    table = deal(PartitionConfig(beta=0.01), {str(d): 1000 for d in range(20)}, 10, 1).table
    assert np.median(table.max(axis=0)) > 950


def test_small_beta_over_domains_gives_each_client_hardly_more_than_one_domain():
    table = deal(PartitionConfig(over="domains", beta=0.01), {str(d): 1000 for d in range(5)}, 40, 1).table
    shares = table.max(axis=1) / np.maximum(table.sum(axis=1), 1)
    assert np.median(shares) > 0.95
    assert (table.sum(axis=0) == 1000).all()


def test_extreme_beta_neither_overflows_nor_divides_by_zero():
    for beta in (1e-6, 1e6):
        for over in ("clients", "domains"):
            dealt = deal(PartitionConfig(over=over, beta=beta), {"a": 50, "b": 50}, 3, 0)
            assert np.isfinite(dealt.weights).all()
            assert dealt.table.sum() == 100
    assert deal(PartitionConfig(beta=1e6), {"a": 3000}, 3, 0).weights == pytest.approx(1 / 3, abs=0.01)


def test_weights_over_clients_follow_the_dirichlet_marginal():
    # The first share of Dir(beta 1_K) is Beta(beta, (K - 1) beta).
    beta, num_clients = 0.5, 4
    num_rows = {f"domain {index}": 0 for index in range(2000)}
    first = deal(PartitionConfig(beta=beta), num_rows, num_clients, 0).weights[0]
    assert stats.kstest(first, stats.beta(beta, (num_clients - 1) * beta).cdf).pvalue > 0.001


def test_owners_are_drawn_in_proportion_to_the_weights():
    weights = np.array([0.5, 0.0, 0.3, 0.2])
    counts = np.bincount(draw_owners(weights, 10_000, 0, "test"), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], 10_000 * weights[[0, 2, 3]]).pvalue > 0.001


def test_nobody_to_deal_to_is_an_error():
    with pytest.raises(FederationError, match="0 clients"):
        deal(PartitionConfig(), {"a": 3}, 0, 0)


@given(rows, st.integers(1, 9), st.data())
def test_shared_rows_lie_whole_at_every_holder_and_holdings_are_balanced(num_rows, num_clients, data):
    holders = data.draw(st.integers(1, num_clients))
    dealt = deal(PartitionConfig(kind="shared", holders=holders), num_rows, num_clients, 3)
    holds = dealt.weights > 0
    np.testing.assert_allclose(dealt.weights.sum(axis=0), 1.0)
    assert holds.sum(axis=0).tolist() == [holders] * len(num_rows)
    assert np.ptp(holds.sum(axis=1)) <= 1
    np.testing.assert_array_equal(dealt.table, holds * np.array(list(num_rows.values())))
    for column, (domain, count) in enumerate(num_rows.items()):
        expected = np.tile(np.flatnonzero(holds[:, column]), (count, 1))
        np.testing.assert_array_equal(dealt.owners[domain], expected)


def test_any_client_may_be_the_holder_of_a_shared_domain():
    config = PartitionConfig(kind="shared", holders=1)
    holders = [int(deal(config, {"a": 1}, 5, seed).owners["a"][0, 0]) for seed in range(60)]
    assert set(holders) == set(range(5))


def test_more_holders_than_clients_are_refused():
    with pytest.raises(FederationError, match="at least 4 must be there"):
        deal(PartitionConfig(kind="shared", holders=4), {"a": 3}, 3, 0)
