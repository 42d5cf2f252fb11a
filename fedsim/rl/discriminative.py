"""DisCO's discriminative constrained objective: right answers' scores up, wrong ones' down, within a trust region.

With binary rewards GRPO's objective is a score gap weighted by sqrt(p (1 - p)), p the question's success rate, so that very
hard and very easy questions count almost nothing. DisCO gives every question weight 1:

    score        s(y) = mean_t log pi_theta(y_t)                           log_likelihood
                 s(y) = mean_t pi_theta(y_t) / pi_old(y_t)                 likelihood_ratio
    objective    J(q) = -mean_{pos} tau log mean_{neg} exp((s_neg - s_pos) / tau)
                      = mean_{pos} s_pos - tau log mean_{neg} exp(s_neg / tau)
                 tau = inf: mean_{pos} s - mean_{neg} s (DisCO-b)
    constraint   KL(pi_old || pi_theta) <= delta, as a squared hinge:  max  mean_q J(q) - beta [KL - delta]_+^2

A question whose candidates are all right or all wrong adds 0 and stays in the denominator. ``old`` is the policy that sampled.
The KL is the token mean of log pi_old - log pi_theta over the whole update.

Changed against the authors' code: the hinge has the gradient of its formula, 2 beta [KL - delta]_+ grad KL; there it is half of
that. Labels come from fused experts (``fedsim.rl.advantages.discriminative_labels``): a mean over experts is neither 0 nor 1.

References:
    Li et al., "DisCO: Reinforcing Large Reasoning Models with Discriminative Constrained Optimization" (arXiv 2505.12366,
    NeurIPS 2025).
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_likelihood_score(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Score s = mean_t log pi_theta(token t) over an answer's real tokens: ``[R, T], [R, T] -> [R]``."""
    return (log_probs * mask).sum(-1) / mask.sum(-1)


def likelihood_ratio_score(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """Score s = mean_t pi_theta(token t) / pi_old(token t) over an answer's real tokens: ``[R, T] -> [R]``."""
    return ((log_probs - old_log_probs).exp() * mask).sum(-1) / mask.sum(-1)


def discriminative_objective(
    scores: Tensor, positive: Tensor, negative: Tensor, counts: Tensor, tau: float | None
) -> Tensor:
    """J(q) of one question, to be maximised: ``[R] -> []``; exactly 0 without a right or without a wrong candidate.

        J = sum_pos c s / sum_pos c  -  tau log( sum_neg c exp(s / tau) / sum_neg c )

    The mean over positives of the paper's double expectation stands outside of its logarithm, since s_pos is constant there.

    Args:
        scores: one per distinct candidate ``[R]``.
        positive: bool ``[R]``, the right ones.
        negative: bool ``[R]``, the wrong ones; a candidate that is neither adds nothing.
        counts: how often each candidate was sampled ``[R]``.
        tau: temperature of the emphasis on the highest-scored wrong candidates; None: all alike (DisCO-b).
    """
    right, wrong = counts * positive, counts * negative
    if not bool(right.sum() > 0) or not bool(wrong.sum() > 0):
        return scores.sum() * 0.0
    mean_positive = (scores * right).sum() / right.sum()
    if tau is None:
        return mean_positive - (scores * wrong).sum() / wrong.sum()
    shares = (wrong[negative] / wrong.sum()).log()
    return mean_positive - tau * (scores[negative] / tau + shares).logsumexp(0)


def divergence_from_old(log_probs: Tensor, old_log_probs: Tensor, weights: Tensor, count: float) -> Tensor:
    """KL(pi_old || pi_theta) = sum_t w (log pi_old - log pi_theta) / count over sampled tokens, nats: ``[R, T] -> []``.

    Unbiased for tokens drawn from ``pi_old``; of one sample it may be negative.
    """
    return ((old_log_probs - log_probs) * weights).sum() / count


def squared_hinge(divergence: float, max_kl: float, penalty: float) -> tuple[float, float]:
    """The constraint's penalty and its slope in the KL: beta [KL - delta]_+^2 and 2 beta [KL - delta]_+.

    >>> squared_hinge(0.5, 0.25, 8.0)
    (0.5, 4.0)
    >>> squared_hinge(0.1, 0.25, 8.0)
    (0.0, 0.0)
    """
    excess = max(0.0, divergence - max_kl)
    return penalty * excess**2, 2.0 * penalty * excess


def batch_objective(
    scores: Tensor, gains: Tensor, counts: Tensor, groups: list[int], tau: float | None
) -> Tensor:
    """Sum of J(q) over the questions of a batch: ``[R] -> []``.

    Args:
        scores: one per distinct candidate ``[R]``.
        gains: its label ``[R]``: above 0 right, below 0 wrong, 0 neither.
        counts: how often it was sampled ``[R]``.
        groups: which draw it belongs to; a draw's candidates stand all in one batch.
        tau: as in ``discriminative_objective``.
    """
    rows: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    total = scores.new_zeros(())
    for members in rows.values():
        index = torch.tensor(members)
        label = gains[index]
        total = total + discriminative_objective(scores[index], label > 0, label < 0, counts[index], tau)
    return total
