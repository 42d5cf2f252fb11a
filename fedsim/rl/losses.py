"""The losses of GRPO, one equation each, as pure tensor functions.

Shapes: ``R`` candidates, ``T`` answer tokens (padded); ``mask`` is 1 where a token counts. All are
differentiable in ``log_probs`` (and ``logits``) and in nothing else.

References:
    Shao et al., "DeepSeekMath" (arXiv 2402.03300), eqs. 3 and 4. Yu et al., "DAPO" (arXiv 2503.14476), eq. 8:
    separate lower and upper clip ranges, mean over all tokens. Schulman, "Approximating KL divergence" (2020): k3.
"""

from __future__ import annotations

from torch import Tensor


def clipped_surrogate(
    log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's pessimistic surrogate per token, ``min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)`` ``[R, T]``.

    ``rho = exp(log pi_theta - log pi_behaviour)`` is the token's probability ratio; to be maximised.

    Args:
        log_probs: ``log pi_theta(token)`` ``[R, T]``.
        behaviour_log_probs: the same under the weights that sampled, a constant ``[R, T]``.
        advantages: one per candidate ``[R]``.
        clip_low: lower clip range, e.g. 0.2.
        clip_high: upper clip range, e.g. 0.3.

    References:
        DeepSeekMath eq. 3; DAPO eq. 8 (asymmetric range).
    """
    ratio = (log_probs - behaviour_log_probs).exp()
    gain = advantages.unsqueeze(-1)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return (ratio * gain).minimum(clipped * gain)


def is_clipped(
    log_probs: Tensor, behaviour_log_probs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """Whether the clip took a token's gradient away: ``A > 0, rho > 1 + clip_high`` or ``A < 0, rho < 1 - clip_low``.

    Shapes as in ``clipped_surrogate``; bool ``[R, T]``.
    """
    ratio = (log_probs - behaviour_log_probs).exp()
    gain = advantages.unsqueeze(-1)
    return ((gain > 0) & (ratio > 1.0 + clip_high)) | ((gain < 0) & (ratio < 1.0 - clip_low))


def k3_kl(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """The k3 estimate of ``KL(pi_theta || pi_ref)`` per sampled token, ``e^d - d - 1 >= 0`` ``[R, T]``.

    ``d = log pi_ref - log pi_theta``; unbiased for tokens drawn from ``pi_theta``.

    References:
        DeepSeekMath eq. 4; Schulman (2020).
    """
    difference = reference_log_probs - log_probs
    return difference.exp() - difference - 1.0


def token_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of the next-token distribution, ``-sum_v p_v log p_v`` in nats: ``[..., V] -> [...]``."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


def masked_mean(values: Tensor, mask: Tensor, count: float) -> Tensor:
    """Sum of ``values`` where ``mask`` is 1, over a count fixed beforehand: ``[R, T], [R, T] -> []``.

    The count is given, not taken from the mask, so that leaving out rows whose gradient is zero changes nothing.
    """
    return (values * mask).sum() / count


def answer_cross_entropy(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood per answer token, ``-sum(log p mask) / sum(mask)`` in nats: ``[]``."""
    return -(log_probs * mask).sum() / mask.sum()
