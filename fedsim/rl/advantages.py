"""Group-relative advantages (FedGRPO, arXiv 2602.12014, eqs. 7 to 9) in four readings of the word "group".

    candidates   r_g = mean over the experts that answered; A_g = (r_g - mean_g r) / (std_g r + eps): GRPO
    per_expert   each expert's scores standardised over the candidates, then averaged over the experts
    joint        standardised over all (candidate, expert) pairs, then averaged over the experts
    literal      eqs. 8 and 9 as printed: standardised over the M experts of one candidate. The experts'
                 terms of one candidate multiply the same gradient and sum to zero, so nothing is learned;
                 kept as a control.

Rules that the paper leaves open: a missing score is masked, never zero; ``per_expert`` leaves out an
expert that scored fewer than two candidates; zero spread contributes exactly 0; the average is over those
who answered; the result is re-centred over the scored candidates, since partial replies unbalance it; a
candidate that nobody scored is NaN and gets no gradient, and so is a whole group with fewer than two
scored candidates. Deviations are population deviations (divided by n). Truncated
candidates count here and are masked in the loss.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from fedsim.rl.fusion import Fuse, mean_of_answered

FloatArray = npt.NDArray[np.float64]
Grouping = Literal["candidates", "per_expert", "joint", "literal"]
GROUPINGS: tuple[Grouping, ...] = ("candidates", "per_expert", "joint", "literal")


def advantages(
    rewards: FloatArray,
    *,
    grouping: Grouping = "per_expert",
    epsilon: float = 1e-2,
    divide_by_std: bool = True,
    weights: FloatArray | None = None,
    fuse: Fuse = mean_of_answered,
) -> FloatArray:
    """Advantages of one group of candidates from its experts' rewards.

    R = (r - mu) / (sigma + epsilon), with mu and sigma over what ``grouping`` says; see the module.

    Args:
        rewards: ``[M, G]``, one row per expert, NaN where it did not score the candidate.
        grouping: which scores are standardised together.
        epsilon: added to the deviation [reward units]; 1e-2 suits rewards in [0, 1].
        divide_by_std: False only centres, as the authors' released code does.
        weights: ``[M]``, what each expert counts in the average over experts, e.g. its competence; alike by default.
            ``literal`` has no such average and takes none.
        fuse: what makes one number per candidate of the experts' (``rl/fusion.py``): of the rewards as they came under
            ``candidates``, of the standardised ones under ``per_expert`` and ``joint``; ``literal`` takes the mean always.

    Returns:
        ``[G]`` float64, NaN for unscored candidates; sums to zero over the scored ones.

    Raises:
        ValueError: ``rewards`` is not two-dimensional or holds an infinity, ``epsilon`` is negative, or
            ``grouping`` is unknown.

    References:
        FedGRPO, eqs. 7 to 9.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2:
        raise ValueError(f"rewards has shape {rewards.shape}; must be [M, G]")
    if np.isinf(rewards).any():
        raise ValueError("rewards holds an infinity; must be finite, or NaN where missing")
    if not epsilon >= 0:
        raise ValueError(f"epsilon is {epsilon}; must be zero or more")
    if grouping == "candidates":
        fused = fuse(rewards, weights)
        averaged = _standardised(fused, epsilon, divide_by_std)
    elif grouping == "per_expert":
        rows = [_standardised(row, epsilon, divide_by_std) for row in rewards]
        averaged = fuse(np.array(rows).reshape(rewards.shape), weights)
    elif grouping == "joint":
        flat = _standardised(rewards.ravel(), epsilon, divide_by_std)
        averaged = fuse(flat.reshape(rewards.shape), weights)
    elif grouping == "literal":
        if weights is not None:
            raise ValueError("grouping literal takes no weights: its terms cancel within each candidate")
        columns = [_standardised(column, epsilon, divide_by_std, at_least=1) for column in rewards.T]
        averaged = mean_of_answered(np.array(columns).reshape(rewards.shape[::-1]).T)
    else:
        raise ValueError(f"grouping is {grouping!r}; must be one of {', '.join(GROUPINGS)}")
    return _recentred(averaged)


def with_format_reward(rewards: FloatArray, format_rewards: FloatArray, weight: float = 1.0) -> FloatArray:
    """r'_kg = r_kg + weight f_g: the server's own format reward, added before standardising (remark 1).

    Args:
        rewards: ``[M, G]``, NaN where missing; what is missing stays missing.
        format_rewards: ``[G]``, finite, 1 where the candidate has the wanted form.
        weight: scale of the format reward [no unit].

    Raises:
        ValueError: the shapes do not fit or a format reward is not finite.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    format_rewards = np.asarray(format_rewards, dtype=np.float64)
    if rewards.ndim != 2 or format_rewards.shape != rewards.shape[1:]:
        raise ValueError(f"shapes are {rewards.shape} and {format_rewards.shape}; must be [M, G] and [G]")
    if not np.isfinite(format_rewards).all():
        raise ValueError("format_rewards must be finite: the server can always compute them")
    return np.asarray(rewards + weight * format_rewards[None, :], dtype=np.float64)


def discriminative_labels(
    rewards: FloatArray,
    threshold: float = 0.5,
    weights: FloatArray | None = None,
    fuse: Fuse = mean_of_answered,
) -> FloatArray:
    """+1 for a right candidate, -1 for a wrong one: what a loss that needs binary labels makes of fused rewards.

    label_g = sign(r_g - threshold), r_g fused over the experts that scored candidate g. A tie in a group that has both
    kinds is left out (NaN), so that nobody's half vote decides; a group of one kind alone teaches nothing: 0 where scored.

    Args:
        rewards: ``[M, G]``, NaN where an expert did not score the candidate.
        threshold: fused rewards above it are right, below it wrong [reward units].
        weights: ``[M]``, what each expert counts; alike by default.
        fuse: what makes one reward per candidate of the experts'.

    Returns:
        ``[G]`` in {-1, 0, 1}, NaN where nobody scored, and for ties among labels of both kinds.

    References:
        DisCO (arXiv 2505.12366), whose rewards are binary; the threshold is ours.
    """
    fused = fuse(np.asarray(rewards, dtype=np.float64), weights)
    labels = np.sign(fused - threshold)
    if not ((labels > 0).any() and (labels < 0).any()):
        return np.where(np.isnan(fused), np.nan, 0.0)
    return np.where(labels == 0, np.nan, labels)


def _standardised(scores: FloatArray, epsilon: float, divide: bool, at_least: int = 2) -> FloatArray:
    """(s - mean) / (std + epsilon) over the entries that are there; all NaN with fewer than ``at_least``."""
    there = scores[~np.isnan(scores)]
    if there.size < at_least:
        return np.full_like(scores, np.nan)
    if there.max() == there.min():
        return np.where(np.isnan(scores), np.nan, 0.0)
    centred = scores - there.mean()
    return np.asarray(centred / (there.std() + epsilon) if divide else centred, dtype=np.float64)


def _recentred(averaged: FloatArray) -> FloatArray:
    scored = averaged[~np.isnan(averaged)]
    if scored.size < 2:
        return np.full_like(averaged, np.nan)
    if scored.max() == scored.min():
        return np.where(np.isnan(averaged), np.nan, 0.0)
    return np.asarray(averaged - scored.mean(), dtype=np.float64)
