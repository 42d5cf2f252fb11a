"""A routed mixture of rewards (MoR): which experts count for a question is learned from its embedding.

    a(x) = softmax(V phi(x) / T)                                     over the K clients, V is [K, d]
    r~_k = (r_k - m_k) / d_k                                         calibrated by the client's scores of known candidates
    R(x, y_g) = sum_{k in S_g} a_k(x) r~_kg / sum_{k in S_g} a_k(x)  renormalised over those who answered

V is trained on the auxiliary set by Bradley-Terry through the fused margin: for a question x_i with a right and a wrong answer
whose calibrated rewards differ by D_ik for client k,

    L(V) = - mean_i ln sigma( sum_k a_k(x_i) D_ik ) + (lambda / 2) |V|^2,       a renormalised over the clients that scored i

V starts at 0 (everybody alike), so the minimum found is the same wherever it is computed. phi is the frozen initial policy's
embedding, as for the confidence graph. A client that nobody could calibrate keeps its own scale and the weight of V = 0.

Provenance: MoR's equations were not available; these are inferred from its abstracts and summaries (softmax router over frozen
embeddings, Bradley-Terry, calibration by mean and deviation, renormalisation). Its entropy or load-balancing term is replaced
by the penalty on V; who is asked is still the confidence graph's choice, not the router's; the KL term is the policy's own.

References:
    "Replacing Parameters with Preferences", arXiv 2605.03426. Bradley and Terry, Rank analysis of incomplete block designs,
    Biometrika 39 (1952).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_MOST_STEPS = 200


@dataclass(frozen=True, slots=True)
class Calibration:
    """m_k and d_k, ``[K]`` each: location and scale of each client's scores; 0 and 1 where they are not known."""

    means: FloatArray
    deviations: FloatArray

    def applied(self, scores: FloatArray, experts: list[int]) -> FloatArray:
        """r~ of rows ``[M, G]`` that belong to these experts."""
        means, deviations = self.means[experts], self.deviations[experts]
        return np.asarray((scores - means[:, None]) / deviations[:, None], dtype=np.float64)


def calibration(scores: FloatArray) -> Calibration:
    """Each client's mean and population deviation over what it scored, ``[K, N]`` with NaN where it did not.

    A client with no scores, or without spread, keeps its scale (d = 1).
    """
    answered = ~np.isnan(scores)
    counts = np.maximum(answered.sum(axis=1), 1)
    means = np.where(answered, scores, 0.0).sum(axis=1) / counts
    squares = np.where(answered, scores - means[:, None], 0.0) ** 2
    deviations = np.sqrt(squares.sum(axis=1) / counts)
    return Calibration(means, np.where(deviations > 1e-9, deviations, 1.0))


def shares(router: FloatArray, embedding: FloatArray, temperature: float = 1.0) -> FloatArray:
    """a(x) = softmax(V phi(x) / T), ``[K]``; for several questions ``[N, K]``.

    Args:
        router: V, ``[K, d]``.
        embedding: phi(x), ``[d]`` or ``[N, d]``.
        temperature: T, above 0.
    """
    logits = embedding @ router.T / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def loss_and_gradient(
    router: FloatArray,
    embeddings: FloatArray,
    margins: FloatArray,
    penalty: float,
    temperature: float = 1.0,
) -> tuple[float, FloatArray]:
    """L(V) and dL/dV of the module's formula.

    With b_ik = a_ik over those who scored i, z_i = sum_k b_ik D_ik and u_i = sigma(-z_i):
    dL/dV_k = - (1 / (N T)) sum_i u_i b_ik (D_ik - z_i) phi_i + lambda V_k.

    Args:
        router: V, ``[K, d]``.
        embeddings: phi(x_i), ``[N, d]``.
        margins: D, ``[N, K]``, NaN where a client did not score the pair; somebody scored each.
        penalty: lambda.
        temperature: T.
    """
    scored = ~np.isnan(margins)
    # Softmax over those who scored: the same as renormalising, and it cannot divide by zero.
    logits = np.where(scored, embeddings @ router.T / temperature, -np.inf)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights = powers / powers.sum(axis=1, keepdims=True)
    known = np.where(scored, margins, 0.0)
    fused = (weights * known).sum(axis=1)
    loss = float(np.mean(np.logaddexp(0.0, -fused)) + 0.5 * penalty * np.sum(router**2))
    pull = np.exp(-np.logaddexp(0.0, fused))
    slope = pull[:, None] * weights * (known - fused[:, None])
    gradient = penalty * router - slope.T @ embeddings / (len(margins) * temperature)
    return loss, np.asarray(gradient, dtype=np.float64)


def fitted(
    embeddings: FloatArray, margins: FloatArray, penalty: float = 1e-3, temperature: float = 1.0
) -> FloatArray:
    """V that minimises ``loss_and_gradient`` from V = 0 (L-BFGS), ``[K, d]``.

    Pairs that nobody scored are left out; without any pair V stays 0.

    Args:
        embeddings: phi(x_i), ``[N, d]``.
        margins: D, ``[N, K]``, NaN where a client did not score the pair.
        penalty: lambda, above 0.
        temperature: T, above 0.
    """
    start = np.zeros((margins.shape[1], embeddings.shape[1]))
    some = ~np.isnan(margins).all(axis=1)
    if not some.any():
        return start
    from scipy.optimize import minimize

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        loss, gradient = loss_and_gradient(
            flat.reshape(start.shape), embeddings[some], margins[some], penalty, temperature
        )
        return loss, gradient.ravel()

    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _MOST_STEPS})
    return np.asarray(found.x.reshape(start.shape), dtype=np.float64)
