"""DISCO's domain- and difficulty-aware scaling of a question's rewards, with the order of scaling and standardising explicit.

A question (a *prompt*) gets one weight w(q) = w_dom(p_d) w_diff(SC):

    log           w_dom = log(1 + 1 / p_d)         p_d: share of the question's domain among the training questions
    log_squared   w_dom = log(1 + 1 / p_d)^2
    inverse       w_dom = 1 / p_d
    difficulty    w_diff = min(1 / (SC + 1e-5), G)  SC: mean fused reward of the question's G candidates

Published, rewards are scaled and then only centred: A = w (r - mean r). A weight that is applied *before* a division by the
group's deviation cancels, since (w r - w mu) / (w sigma) does not depend on w. So the order is a setting without a default,
settings in which the weight would cancel are refused, and what is computed here keeps the two apart: ``Signal`` holds the
advantages and the weight that is still to be applied to them.

Changed against the paper: the cap at G, which binary rewards never reach (a group with one right candidate has SC = 1 / G) but
likelihoods in (0, 1) would; rewards are fused over experts first; p_d is exact over the finite set of training questions, no
running estimate. It presumes that the server knows the domain of its own questions. Its code's other estimators
(weights on negative normalised advantages alone) are left out.

References:
    Zhou et al., "DISCO balances the scales" (arXiv 2505.15074, Findings of EMNLP 2025).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from fedsim.config.strict import StrictModel
from fedsim.rl.advantages import FloatArray, Grouping, advantages
from fedsim.rl.fusion import Fuse, mean_of_answered

DomainWeight = Literal["log", "log_squared", "inverse"]
Order = Literal["before", "after"]

_SMALLEST_CONSISTENCY = 1e-5


class ScalingConfig(StrictModel):
    """What a question counts, by how rare its domain is and by how hard it is for the policy."""

    domain: Literal["none", "log", "log_squared", "inverse"] = Field(
        "none",
        description="weight of a question whose domain has share p of the training questions: log(1 + 1/p), its "
        "square, or 1/p; the server must know the domains",
    )
    difficulty: bool = Field(
        False,
        description="also weigh by 1/SC, SC the group's mean reward, capped at the number of candidates (DISCO)",
    )
    order: Order | None = Field(
        None,
        description="whether the weight multiplies rewards before they are standardised (needs divide_by_std false) or "
        "advantages after; must be given with a weight",
    )

    @property
    def is_active(self) -> bool:
        """Whether any weight is asked for."""
        return self.domain != "none" or self.difficulty

    @model_validator(mode="after")
    def _order_is_said(self) -> ScalingConfig:
        if self.is_active and self.order is None:
            raise ValueError("scaling needs its order: before or after standardising")
        return self


@dataclass(frozen=True, slots=True)
class Signal:
    """What one group teaches: advantages ``[G]``, and the prompt weight that they do not contain yet.

    With ``order: before`` the weight is in the advantages already, and ``prompt_weight`` is 1.
    """

    advantages: FloatArray
    prompt_weight: float = 1.0

    @property
    def weighted(self) -> FloatArray:
        """Weighted advantages w A ``[G]``: what the loss sees; the same array where the weight is 1."""
        return self.advantages if self.prompt_weight == 1.0 else self.advantages * self.prompt_weight


def domain_shares(domains: Iterable[str]) -> dict[str, float]:
    """p_d: each domain's share of the training questions, by the domains of these questions."""
    counts = Counter(domains)
    return {domain: count / counts.total() for domain, count in counts.items()}


def domain_weight(share: float, version: DomainWeight) -> float:
    """w_dom of a domain with this share of the training questions: log(1 + 1/p), its square, or 1/p.

    >>> [round(domain_weight(p, "log"), 3) for p in (0.75, 1 / 12)]
    [0.847, 2.565]

    Raises:
        ValueError: the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; must be above 0 and at most 1")
    if version == "inverse":
        return 1.0 / share
    logarithm = math.log1p(1.0 / share)
    return logarithm if version == "log" else logarithm**2


def difficulty_weight(fused: FloatArray) -> float:
    """w_diff = min(1 / (SC + 1e-5), G), SC the mean over the G scored candidates, at least 0; 1 where none is scored.

    Args:
        fused: one reward per candidate ``[G]``, NaN where nobody scored it.
    """
    scored = fused[~np.isnan(fused)]
    if not scored.size:
        return 1.0
    consistency = max(0.0, float(scored.mean()))
    return min(1.0 / (consistency + _SMALLEST_CONSISTENCY), float(scored.size))


def prompt_weight(
    config: ScalingConfig,
    rewards: FloatArray,
    share: float,
    weights: FloatArray | None = None,
    fuse: Fuse = mean_of_answered,
) -> float:
    """w(q) = w_dom(share) w_diff(SC) of one question.

    Args:
        config: which of the two weights count; the other is 1.
        rewards: ``[M, G]`` without the format reward, NaN where missing; SC is the mean of their fused values.
        share: p_d of the question's domain.
        weights: ``[M]``, what each expert counts when they are fused; alike by default.
        fuse: what makes one reward per candidate of the experts'.
    """
    weight = domain_weight(share, config.domain) if config.domain != "none" else 1.0
    if config.difficulty:
        weight *= difficulty_weight(fuse(rewards, weights))
    return weight


def scaled_advantages(
    rewards: FloatArray,
    weight: float,
    order: Order,
    *,
    grouping: Grouping = "per_expert",
    epsilon: float = 1e-2,
    divide_by_std: bool = True,
    weights: FloatArray | None = None,
    fuse: Fuse = mean_of_answered,
) -> Signal:
    """Advantages of a group whose question counts ``weight``, and the weight that is still outside of them.

        before   Signal(A(w r), 1)
        after    Signal(A(r), w)

    Without division both give w A(r). With it, ``before`` gives A(r) for epsilon = 0: the weight cancels.

    Args:
        rewards: ``[M, G]``, NaN where missing.
        weight: w(q), finite and positive.
        order: whether it multiplies the rewards or, later, the advantages.
        grouping: as in ``advantages``, like all that follow.
        epsilon: added to the deviation [reward units].
        divide_by_std: False only centres.
        weights: ``[M]``, what each expert counts.
        fuse: what makes one number per candidate of the experts'.

    Raises:
        ValueError: the weight is not a finite positive number, or as in ``advantages``.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"weight is {weight}; must be finite and positive")
    scaled = np.asarray(rewards, dtype=np.float64) * (weight if order == "before" else 1.0)
    gains = advantages(
        scaled,
        grouping=grouping,
        epsilon=epsilon,
        divide_by_std=divide_by_std,
        weights=weights,
        fuse=fuse,
    )
    return Signal(gains, 1.0 if order == "before" else weight)
