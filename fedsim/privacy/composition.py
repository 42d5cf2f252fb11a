"""What many numbers in [0, 1], each with noise of its own, reveal together: the accounting behind rewards.

n such numbers that one record may change wholly have the joint sensitivity n in l1 and sqrt(n) in l2, so they are n releases of
sensitivity 1 however they are grouped; choosing the next question by the answers to the last ones changes nothing (adaptive
composition), as long as n itself is counted.

Gaussian noise is exact in closed form (`fedsim.privacy.accounting`). Randomised response and Laplace noise are composed in
Renyi divergence by Google's ``dp-accounting``: an upper bound, at most 4% above its privacy-loss distributions where compared
(100 numbers). Those are not used: at 10,000 numbers they take seconds, and version 0.6's accountant counts a *repeated*
randomised response once (a test shows it).

References:
    Warner, Randomized Response, JASA 60 (1965); Dwork et al., Calibrating Noise to Sensitivity in Private Data Analysis, TCC
    2006; Mironov, Renyi Differential Privacy, CSF 2017, propositions 5 and 6.
    Rogers et al., Privacy Odometers and Filters, NeurIPS 2016 (why an n that is known only afterwards is a caveat).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from fedsim.privacy.accounting import gaussian_epsilon

ScalarMechanism = Literal["randomised_response", "gaussian", "laplace"]
"""What protects one number that leaves a client."""

VACUOUS_EPSILON = 10.0
"""From here on a promise is called vacuous: who guesses membership of a fairly drawn record may be right 99.995%."""

# Low orders matter for the large epsilons of many releases, high ones for small epsilons.
_ORDERS = (
    *(1.0 + step / 50.0 for step in range(1, 50)), *(step / 4.0 for step in range(8, 64)), *range(16, 65), 80, 96, 128, 192,
    256, 512, 1024,
)  # fmt: skip


def scalar_epsilon(mechanism: ScalarMechanism, noise: float) -> float:
    """The pure epsilon (delta 0) of one number; infinite for gaussian, which has none.

    Randomised response that flips with probability p: ``ln((1 - p) / p)``; Laplace of scale b: ``1 / b``.

    >>> round(scalar_epsilon("randomised_response", 0.25), 4), scalar_epsilon("laplace", 2.0)
    (1.0986, 0.5)
    """
    if mechanism == "randomised_response":
        return math.log((1.0 - noise) / noise)
    return 1.0 / noise if mechanism == "laplace" else math.inf


@lru_cache(maxsize=4096)
def composed_epsilon(mechanism: ScalarMechanism, noise: float, count: int, delta: float) -> float:
    """The epsilon at ``delta`` of ``count`` released numbers, all of which one record may change wholly.

    The least of the Renyi bound and of n times the pure epsilon of one number; 0 where nothing was released.

    Args:
        mechanism: what protects a number.
        noise: probability of a flip, standard deviation, or scale b.
        count: n, released numbers.
        delta: the probability that epsilon does not cover.
    """
    if count == 0:
        return 0.0
    if mechanism == "gaussian":
        return gaussian_epsilon(delta, math.sqrt(count) / noise)
    from dp_accounting import LaplaceDpEvent, NeighboringRelation, RandomizedResponseDpEvent, rdp

    accountant = rdp.RdpAccountant(_ORDERS, NeighboringRelation.REPLACE_ONE)
    # Its randomised response answers at random with probability 2 p, and half of those answers are the true one.
    event = LaplaceDpEvent(noise) if mechanism == "laplace" else RandomizedResponseDpEvent(2.0 * noise, 2)
    accountant.compose(event, count)
    return min(float(accountant.get_epsilon(delta)), count * scalar_epsilon(mechanism, noise))


def best_guess(epsilon: float) -> float:
    """How often the best attack may be right about a record that is a member with probability 1/2: ``1 / (1 + e^-epsilon)``.

    >>> best_guess(0.0), round(best_guess(1.0), 3)
    (0.5, 0.731)
    """
    return 1.0 / (1.0 + math.exp(-epsilon))
