"""Averaging what clients trained: factor by factor, or the products of low-rank factors. Pure functions of arrays.

Weights are mappings from names to arrays; a pair ``<layer>.lora_A`` [r, n_in] and ``<layer>.lora_B`` [n_out, r] is one
adapter, whose product B A is what the layer's output feels. Sums run in float64 in the order of the mapping's clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedsim.models.interfaces import Weights

FloatArray = npt.NDArray[np.float64]
Averaging = Literal["factors", "product"]
Weighting = Literal["uniform", "samples"]

_A, _B = ".lora_A", ".lora_B"


def client_shares(weighting: Weighting, num_rows: Sequence[int]) -> FloatArray:
    """What each client counts, ``[K]``, summing to one.

    ``uniform``: ``p_k = 1 / K``. ``samples``: ``p_k = n_k / sum_j n_j`` for n_k rows.

    Raises:
        ValueError: there is no client, or (``samples``) a client without rows.

    References:
        McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017,
        algorithm 1 (``samples``).
    """
    if not len(num_rows):
        raise ValueError("there is nobody to average over")
    if weighting == "uniform":
        return np.full(len(num_rows), 1.0 / len(num_rows))
    if min(num_rows) < 1:
        raise ValueError("a client without rows cannot be weighed by its rows")
    counts = np.asarray(num_rows, dtype=np.float64)
    return np.asarray(counts / counts.sum())


def average(updates: Sequence[Weights], shares: FloatArray, averaging: Averaging) -> dict[str, FloatArray]:
    """The clients' weights as one, by either reading of "average"."""
    return factor_mean(updates, shares) if averaging == "factors" else product_mean(updates, shares)


def factor_mean(updates: Sequence[Weights], shares: FloatArray) -> dict[str, FloatArray]:
    """``w = sum_k p_k w_k`` for every array on its own (FedAvg), so A and B are averaged apart.

    For adapters this is not the average of what they do: ``mean(B) mean(A) != mean(B A)`` in general.

    Raises:
        ValueError: the clients' names or shapes differ.
    """
    _check_alike(updates)
    return {name: _mean([update[name] for update in updates], shares) for name in updates[0]}


def product_mean(updates: Sequence[Weights], shares: FloatArray) -> dict[str, FloatArray]:
    """``D = sum_k p_k B_k A_k``, factored again at the same rank r by its truncated singular value decomposition.

    With ``D = U S V^T``: ``B = U_r S_r`` [n_out, r] and ``A = V_r^T`` [r, n_in], the best approximation of D of rank r in the
    Frobenius norm, and exact when D has rank r or less. A's rows stay orthonormal and all size is in B, as at the start
    (A random, B zero): a direction that carries nothing yet can still learn. Arrays that are no adapter are averaged plainly.

    D is never built: with ``Q_b R_b = [p_1 B_1 ... p_K B_K]`` and ``Q_a R_a = [A_1; ...; A_K]^T`` its decomposition is
    that of the small core ``R_b R_a^T``.

    Raises:
        ValueError: the clients' names or shapes differ, or an adapter lacks one of its factors.

    References:
        Bai et al., Federated Fine-tuning of Large Language Models under Heterogeneous Tasks and Client Resources
        (FlexLoRA), NeurIPS 2024, section 3.2.
    """
    _check_alike(updates)
    averaged: dict[str, FloatArray] = {}
    for name in updates[0]:
        layer = name.removesuffix(_A).removesuffix(_B)
        if layer == name:
            averaged[name] = _mean([update[name] for update in updates], shares)
        elif layer + _A not in updates[0] or layer + _B not in updates[0]:
            raise ValueError(f"{name} lacks the other factor of its adapter")
        elif name.endswith(_A):
            a, b = _refactored([u[name] for u in updates], [u[layer + _B] for u in updates], shares)
            averaged[name], averaged[layer + _B] = a, b
    return {name: averaged[name] for name in updates[0]}


def aggregation_flop(shapes: Mapping[str, tuple[int, ...]], num_clients: int, averaging: Averaging) -> float:
    """FLOP of averaging P numbers of K clients: ``2 K P``.

    ``product`` adds, for each adapter with m = K r, two QR decompositions with their Q ``4 (n_in + n_out) m^2``, the core's
    decomposition ``22 m^3``, and the way back ``2 (n_in + n_out) m r``.

    References:
        Golub and Van Loan, Matrix Computations, 4th ed., sections 5.2 and 8.6.
    """
    flop = 2.0 * num_clients * sum(float(np.prod(shape)) for shape in shapes.values())
    if averaging == "factors":
        return flop
    for name, (rank, num_in) in ((name, shape) for name, shape in shapes.items() if name.endswith(_A)):
        width = num_in + shapes[name.removesuffix(_A) + _B][0]
        inner = num_clients * rank
        flop += 4.0 * width * inner * inner + 22.0 * inner**3 + 2.0 * width * inner * rank
    return flop


def _refactored(
    lefts: Sequence[npt.NDArray[np.float32]], rights: Sequence[npt.NDArray[np.float32]], shares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """A ``[r, n_in]`` and B ``[n_out, r]`` of the mean product, from the clients' A (``lefts``) and B (``rights``)."""
    if not lefts[0].size or not rights[0].size:  # stand-ins have no numbers
        return np.zeros(lefts[0].shape), np.zeros(rights[0].shape)
    rank = lefts[0].shape[0]
    stacked_a = np.concatenate([np.asarray(a, dtype=np.float64) for a in lefts], axis=0)
    stacked_b = np.concatenate(
        [share * np.asarray(b, dtype=np.float64) for share, b in zip(shares, rights, strict=True)], axis=1
    )
    q_a, r_a = np.linalg.qr(stacked_a.T)
    q_b, r_b = np.linalg.qr(stacked_b)
    u, s, vt = np.linalg.svd(r_b @ r_a.T)
    kept = min(rank, len(s))  # a rank beyond the layer's own width has nothing to hold
    a, b = np.zeros(lefts[0].shape), np.zeros(rights[0].shape)
    a[:kept] = vt[:kept] @ q_a.T
    b[:, :kept] = (q_b @ u[:, :kept]) * s[:kept]
    return a, b


def _mean(arrays: Sequence[npt.NDArray[np.float32]], shares: FloatArray) -> FloatArray:
    total = np.zeros(arrays[0].shape)
    for share, array in zip(shares, arrays, strict=True):
        total += share * array
    return total


def _check_alike(updates: Sequence[Weights]) -> None:
    first = {name: array.shape for name, array in updates[0].items()}
    if any({name: array.shape for name, array in update.items()} != first for update in updates):
        raise ValueError("the clients' weights differ in names or shapes")
