"""How unequal a population of devices is, in one number: the spread of the time from asking to a usable reply.

Client k answers one request in T seconds, a random time (its links, its slow-downs, its jitter). It is there a share s_k of
the time, and gives the request up with probability g_k. A request that finds it away or given up is asked again, so a usable
reply costs on average ``E_k = E[T] / (s_k (1 - g_k))`` seconds of the clock. The index is the standard deviation

    H = sd( ln T + w_k ),    w_k = -ln s_k - ln(1 - g_k),

over a client drawn uniformly and one of its requests. It has no unit: H = 0 when every request of every device takes as
long as every other; devices that are all twice as fast have the same H; ``e^H`` is a typical factor between two devices.
The law of total variance splits it:

    H^2 = Var_k(E[ln T | k] + w_k) + E_k[Var(ln T | k)]
          between devices            luck of one request

and the first term's two summands are reported apart, as FLHetBench reports device and state heterogeneity apart: ``device``
is ``sd_k(E[ln T | k])`` and ``state`` is ``sd_k(w_k)``. They do not add up in squares where the slow are also the absent; this
is what ``correlate`` does, and ``correlation`` says how much.

A client with s_k = 0, g_k = 1 or a request that never ends has no finite time: it is left out of the sums and counted.
Left out: queues, what others do on the links, sessions shorter than a request (a cut reply counts as one by its share of
presence alone), and who owns which questions.

References:
    Zhang et al., FLHetBench: Benchmarking Device and State Heterogeneity in Federated Learning, CVPR 2024 (the idea of
    device, state and both apart; their measures simulate the rounds of a synchronous protocol with its cohort and deadline
    and score completed rounds or the time they take, ours is a property of the population alone).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heterogeneity:
    """The index of a population and what it is made of; natural logarithms, no unit.

    Attributes:
        index: H.
        device: standard deviation between devices of the mean log time of a request.
        state: the same of ``-ln s_k - ln(1 - g_k)``, absence and giving up.
        luck: root mean square over devices of one request's own standard deviation of log time.
        correlation: between the terms of ``device`` and ``state``; None where one of them does not vary.
        p90_over_p10: ratio of these quantiles of E_k, expected seconds for a usable reply.
        num_clients: clients that the figures are about.
        num_never: clients left out, from whom no reply can be expected.
    """

    index: float
    device: float
    state: float
    luck: float
    correlation: float | None
    p90_over_p10: float
    num_clients: int
    num_never: int


def expected_reply_s(request_s: FloatArray, there: FloatArray, gives_up: FloatArray) -> FloatArray:
    """E_k, expected seconds for a usable reply: ``mean(T_k) / (s_k (1 - g_k))``, ``[C]``; infinite where none can come.

    Args:
        request_s: requests drawn for each client, ``[C, N]``.
        there: share of time that a client is there, ``[C]``.
        gives_up: probability that it gives a request up, ``[C]``.
    """
    with np.errstate(divide="ignore"):
        return np.asarray(request_s.mean(axis=1) / (there * (1.0 - gives_up)))


def heterogeneity(
    request_s: FloatArray, there: FloatArray, gives_up: FloatArray, num_excluded: int = 0
) -> Heterogeneity | None:
    """The heterogeneity of a population (see the module); None if no client can be expected to reply.

    With N draws a client's mean log time carries 1/N of the variance of one; ``device`` is corrected for it.

    Args:
        request_s: requests drawn for each client, ``[C, N]``, N at least 2.
        there: share of time that a client is there, ``[C]``.
        gives_up: probability that it gives a request up, ``[C]``.
        num_excluded: clients beyond these C that take no part; counted among those who never reply.

    Raises:
        ValueError: the shapes do not fit, or there are fewer than two draws.
    """
    num_clients, num_draws = request_s.shape
    if there.shape != (num_clients,) or gives_up.shape != (num_clients,) or num_draws < 2:
        raise ValueError(
            f"requests {request_s.shape}, presence {there.shape} and give-ups {gives_up.shape} must be [C, N], [C], [C]"
        )
    reply_s = expected_reply_s(request_s, there, gives_up)
    replies = np.isfinite(reply_s)
    if not replies.any():
        return None
    log_s = np.log(request_s[replies])
    away = -np.log(there[replies]) - np.log1p(-gives_up[replies])
    own = log_s.var(axis=1, ddof=1).mean()
    device = max(0.0, log_s.mean(axis=1).var() - own / num_draws)
    low, high = np.quantile(reply_s[replies], (0.1, 0.9))
    return Heterogeneity(
        index=float((log_s + away[:, None]).std()),
        device=float(np.sqrt(device)),
        state=float(away.std()),
        luck=float(np.sqrt(own)),
        correlation=_correlation(log_s.mean(axis=1), away),
        p90_over_p10=float(high / low),
        num_clients=int(replies.sum()),
        num_never=int((~replies).sum()) + num_excluded,
    )


def _correlation(first: FloatArray, second: FloatArray) -> float | None:
    if min(np.ptp(first), np.ptp(second)) < 1e-12:
        return None
    return float(np.corrcoef(first, second)[0, 1])
