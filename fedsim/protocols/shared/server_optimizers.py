"""What a server that averages without rounds does with a full buffer: settings, and the steps as pure functions of arrays.

A client that got version t_i of the module x and sends back y_i has made the difference ``D_i = y_i - x_{t_i}``, of staleness
``tau_i = t - t_i`` when it is used by version t. From the n differences of a full buffer, with shares ``sum_i p_i = 1``,

* ``buffered`` (FedBuff, algorithm 1): ``x_{t+1} = x_t + eta sum_i p_i s(tau_i) D_i``, with ``s(tau) = (1 + tau)^-a``; what
  staleness takes from a difference is not given to the others, so that a stale buffer makes a smaller step;
* ``client_centric``: ``D = sum_i p_i D_i``, then AMSGrad with a learning rate that yields to delay (``adaptive_step``,
  ``delayed_rate``).

Client-centric federated adaptive optimisation is known to us by its features alone (clients take part when they please, do as
many local steps as they can afford, and report when they are done; the server aggregates asynchronously and steps
adaptively). Inferred: the server's step, which is FADAS's (the nearest documented method), and the defaults, from a pilot on
other data. Differences are not divided by the number of local steps: in that pilot it made a slow client's two steps count as
much as everybody's and diverged.

References:
    Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation, AISTATS 2022, arXiv 2106.06639, algorithm 1.
    Xie, Koyejo, Gupta, Asynchronous Federated Optimization, arXiv 1903.03934, section 5 (polynomial s).
    Client-Centric Federated Adaptive Optimization (features only).
    Wang et al., FADAS: Towards Federated Adaptive Asynchronous Optimization, ICML 2024 (AMSGrad on a buffer, delay adaptation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedsim.config.limits import MAX_UNDER_WAY
from fedsim.config.strict import AtMostClients, StrictModel
from fedsim.models.interfaces import Weights
from fedsim.protocols.shared.aggregation import FloatArray, factor_mean

Arrays = Mapping[str, FloatArray]

_ASYNCHRONOUS: Mapping[str, Any] = {"buffer": 5}
_KEYS: Mapping[str, Mapping[str, Any]] = {
    "rounds": {},
    "buffered": {"server_learning_rate": 1.0, "staleness_exponent": 0.5},
    "client_centric": {
        "server_learning_rate": 0.01,
        "beta1": 0.9,
        "beta2": 0.99,
        "server_epsilon": 1e-3,
        "delay_threshold": 4,
    },
}
"""Which keys a kind reads, with defaults; an asynchronous one reads ``buffer``, ``in_flight`` and ``max_staleness`` too."""


class AveragingConfig(StrictModel):
    """When the server averages, and how; the keys belong to the kinds that their descriptions name."""

    kind: Literal["rounds", "buffered", "client_centric"] = Field(
        "rounds",
        description="rounds: ask a cohort, wait, average; buffered: FedBuff, a step for every full buffer; client_centric: the "
        "same with AMSGrad at the server",
    )
    buffer: int | None = Field(
        None,
        ge=1,
        le=MAX_UNDER_WAY,
        description="buffered, client_centric: modules in one step (count; default 5)",
    )
    in_flight: Annotated[int | None, AtMostClients()] = Field(
        None,
        ge=1,
        le=MAX_UNDER_WAY,
        description="buffered, client_centric: clients that train at once (count; default everybody who is there)",
    )
    max_staleness: int | None = Field(
        None,
        ge=0,
        description="buffered, client_centric: modules more versions behind than this are dropped (default none is)",
    )
    server_learning_rate: float | None = Field(
        None, gt=0, description="buffered, client_centric: eta (per step; default 1 and 0.01)"
    )
    staleness_exponent: float | None = Field(
        None,
        ge=0,
        description="buffered: a of s(tau) = (1 + tau)^-a, what a stale difference still counts (default 0.5)",
    )
    beta1: float | None = Field(
        None, ge=0, lt=1, description="client_centric: decay of the mean (share; default 0.9)"
    )
    beta2: float | None = Field(
        None, ge=0, lt=1, description="client_centric: decay of the square (share; default 0.99)"
    )
    server_epsilon: float | None = Field(
        None, gt=0, description="client_centric: added to the root of the square (default 1e-3)"
    )
    delay_threshold: int | None = Field(
        None,
        ge=0,
        description="client_centric: tau_c, a buffer with a staler module makes a smaller step (versions; default 4)",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_the_kinds_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("kind", "rounds") == "rounds":
            return given
        defaults = {**_ASYNCHRONOUS, **_KEYS.get(str(given["kind"]), {})}
        return given | {key: value for key, value in defaults.items() if given.get(key) is None}

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> AveragingConfig:
        read = {"kind", *_KEYS[self.kind]}
        if self.is_asynchronous:
            read |= {"buffer", "in_flight", "max_staleness"}
        for key in type(self).model_fields:
            if key not in read and getattr(self, key) is not None:
                raise ValueError(f"schedule.{key} is not read by kind {self.kind}")
        return self

    @property
    def is_asynchronous(self) -> bool:
        """Whether the server averages without rounds."""
        return self.kind != "rounds"


@dataclass(frozen=True, slots=True)
class Moments:
    """AMSGrad's memory: the running mean, the running square, and the largest square so far, per array."""

    mean: Arrays
    square: Arrays
    largest: Arrays

    @classmethod
    def zero(cls, weights: Weights) -> Moments:
        """Nothing remembered yet."""
        zeros = {name: np.zeros(array.shape) for name, array in weights.items()}
        return cls(zeros, zeros, zeros)


def staleness_weight(staleness: int, exponent: float) -> float:
    """``s(tau) = (1 + tau)^-a``: what a difference counts that is tau versions behind.

    >>> staleness_weight(3, 0.5)
    0.5

    References:
        Xie, Koyejo, Gupta, arXiv 1903.03934, section 5 (poly); FedBuff uses a = 1/2.
    """
    return float((1.0 + staleness) ** -exponent)


def difference(after: Weights, before: Weights) -> dict[str, npt.NDArray[np.float32]]:
    """``D = y - x``, array by array."""
    return {name: after[name] - before[name] for name in before}


def mean_difference(differences: Sequence[Weights], weights: FloatArray) -> dict[str, FloatArray]:
    """``sum_i w_i D_i`` for every array on its own; the weights ``[n]`` need not sum to one.

    Raises:
        ValueError: the differences' names or shapes differ.
    """
    return factor_mean(differences, weights)


def plain_step(weights: Weights, mean: Arrays, rate: float) -> dict[str, FloatArray]:
    """``x + eta D``."""
    return {name: array + rate * mean[name] for name, array in weights.items()}


def adaptive_step(
    weights: Weights, mean: Arrays, moments: Moments, rate: float, config: AveragingConfig
) -> tuple[dict[str, FloatArray], Moments]:
    """AMSGrad along a mean difference D, number by number, without correction of the start.

    ``m = b1 m + (1 - b1) D``, ``v = b2 v + (1 - b2) D^2``, ``V = max(V, v)``, ``x = x + eta m / (sqrt(V) + epsilon)``.

    References:
        Wang et al., FADAS, ICML 2024; Reddi, Kale, Kumar, On the Convergence of Adam and Beyond, ICLR 2018, algorithm 2.
    """
    b1, b2 = config.beta1 or 0.0, config.beta2 or 0.0
    epsilon = config.server_epsilon or 0.0
    average = {name: b1 * moments.mean[name] + (1 - b1) * mean[name] for name in weights}
    square = {name: b2 * moments.square[name] + (1 - b2) * mean[name] ** 2 for name in weights}
    largest = {name: np.maximum(moments.largest[name], square[name]) for name in weights}
    after = {
        name: array + rate * average[name] / (np.sqrt(largest[name]) + epsilon)
        for name, array in weights.items()
    }
    return after, Moments(average, square, largest)


def delayed_rate(rate: float, worst_staleness: int, threshold: int) -> float:
    """``eta`` up to a worst staleness of tau_c, else ``eta min(1, 1 / tau_max)``.

    >>> delayed_rate(0.5, 2, threshold=2), delayed_rate(0.5, 5, threshold=2)
    (0.5, 0.1)

    References:
        Wang et al., FADAS, ICML 2024 (delay-adaptive learning rate), as understood here.
    """
    return rate if worst_staleness <= threshold else rate * min(1.0, 1.0 / worst_staleness)
