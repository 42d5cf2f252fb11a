"""Dealing rows to clients: IID, skewed by a Dirichlet distribution over clients or over domains, or shared by several.

Every row is dealt exactly once, or (``shared``) to each of its domain's holders; a client may end up with no rows at all.
Draws are keyed by domain (or by client), so adding a domain, a client's worth of rows, or a row at the end changes no earlier
draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedsim.errors import FederationError
from fedsim.sim import streams
from fedsim.tasks.config import PartitionConfig

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Deal:
    """Who got what.

    Attributes:
        owners: per domain, the clients of each row, int64 ``[rows, H]``; H is 1 but where rows are shared. An own file says
            it row by row.
        weights: the distribution the rows were dealt by, ``[K, D]``; each column sums to 1.
        table: rows per client and domain, int64 ``[K, D]``.
    """

    owners: Mapping[str, IntArray | Sequence[Sequence[int]]]
    weights: FloatArray
    table: IntArray


def deal(config: PartitionConfig, num_rows: Mapping[str, int], num_clients: int, seed: int) -> Deal:
    """Deal ``num_rows[domain]`` rows of every domain to ``num_clients`` clients.

    - ``iid``: row i of a domain goes to client (i + offset) mod K, the offset running on over the domains, so
      that client sizes differ by one row at most.
    - ``dirichlet`` over clients: p_d ~ Dir(beta 1_K) for each domain d, each row's owner ~ p_d.
    - ``dirichlet`` over domains: q_k ~ Dir(beta 1_D) for each client k, each row's owner ~ q_kd / sum_k q_kd.
    - ``shared``: each domain's rows all go to each of H clients, those that hold the fewest domains
      so far (ties by keyed draw).

    Raises:
        FederationError: ``num_clients`` is less than one, or than H.
    """
    least = config.holders if config.kind == "shared" else 1
    if num_clients < least:
        raise FederationError(f"cannot deal rows to {num_clients} clients; at least {least} must be there")
    domains = list(num_rows)
    weights = _weights(config, domains, num_clients, seed)
    owners: dict[str, IntArray] = {}
    offset = 0
    for column, domain in enumerate(domains):
        rows = num_rows[domain]
        if config.kind == "iid":
            owners[domain] = ((np.arange(rows, dtype=np.int64) + offset) % num_clients)[:, None]
            offset += rows
        elif config.kind == "shared":
            owners[domain] = np.tile(np.flatnonzero(weights[:, column]), (rows, 1))
        else:
            owners[domain] = draw_owners(weights[:, column], rows, seed, "row owner", domain)[:, None]
    return Deal(owners=owners, weights=weights, table=count_rows(owners, num_clients))


def count_rows(owners: Mapping[str, IntArray], num_clients: int) -> IntArray:
    """Rows per client and domain, int64 ``[K, D]``, from the owners of each domain's rows."""
    counts = [np.bincount(rows.ravel(), minlength=num_clients) for rows in owners.values()]
    return np.stack(counts, axis=1).astype(np.int64)


def draw_owners(weights: FloatArray, rows: int, seed: int, *key: str) -> IntArray:
    """Draw an owner for each of ``rows`` rows from ``weights`` [K]; prefix-stable in ``rows``."""
    cumulative = np.cumsum(weights)
    draws = streams.generator(seed, *key).random(rows) * cumulative[-1]
    owners = np.minimum(np.searchsorted(cumulative, draws, side="right"), len(weights) - 1)
    return np.asarray(owners, dtype=np.int64)


def _weights(config: PartitionConfig, domains: list[str], num_clients: int, seed: int) -> FloatArray:
    if config.kind == "iid":
        return np.full((num_clients, len(domains)), 1.0 / num_clients)
    if config.kind == "shared":
        return _shared_weights(config.holders, domains, num_clients, seed)
    if config.over == "clients":
        columns = [_log_gammas(config.beta, num_clients, seed, domain) for domain in domains]
        return np.stack([_softmax(column) for column in columns], axis=1)
    rows = [
        [_log_gammas(config.beta, 1, seed, domain, k)[0] for domain in domains] for k in range(num_clients)
    ]
    log_mix = np.array(rows)
    log_mix -= np.logaddexp.reduce(log_mix, axis=1, keepdims=True)
    return np.stack([_softmax(column) for column in log_mix.T], axis=1)


def _shared_weights(holders: int, domains: list[str], num_clients: int, seed: int) -> FloatArray:
    """1 / H where a client holds a domain, ``[K, D]``; a domain later in the list moves no earlier one."""
    weights = np.zeros((num_clients, len(domains)))
    for column, domain in enumerate(domains):
        luck = streams.generator(seed, "holders", domain).random(num_clients)
        chosen = np.lexsort((luck, (weights > 0).sum(axis=1)))[:holders]
        weights[chosen, column] = 1.0 / holders
    return weights


def _log_gammas(beta: float, size: int, seed: int, *key: str | int) -> FloatArray:
    """Logs of ``size`` Gamma(beta, 1) draws; G(beta) = G(beta + 1) U^(1/beta), in logs lest it underflow."""
    gammas = streams.generator(seed, "partition gamma", *key).standard_gamma(beta + 1.0, size)
    uniforms = 1.0 - streams.generator(seed, "partition uniform", *key).random(size)
    return np.asarray(np.log(gammas) + np.log(uniforms) / beta, dtype=np.float64)


def _softmax(logs: FloatArray) -> FloatArray:
    powers = np.exp(logs - logs.max())
    return np.asarray(powers / powers.sum(), dtype=np.float64)
