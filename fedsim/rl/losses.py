"""The losses of GRPO, one equation each, as pure tensor functions.

Shapes: ``R`` candidates, ``T`` answer tokens (padded); ``mask`` is 1 where a token counts. All are
differentiable in ``log_probs`` (and ``logits``) and in nothing else. A loss is a surrogate per token (``clipped_surrogate``,
``decoupled_surrogate``) and a way to average it over answers of unlike length, which is linear: a weight per candidate
(``length_weights``).

References:
    Shao et al., "DeepSeekMath" (arXiv 2402.03300), eqs. 3 and 4. Yu et al., "DAPO" (arXiv 2503.14476), eq. 8:
    separate lower and upper clip ranges, mean over all tokens of a question. Liu et al., "Understanding R1-Zero-Like Training"
    (arXiv 2503.20783): Dr. GRPO. Hilton et al., "Batch size-invariance for policy optimization" (arXiv 2110.00641): the
    decoupled surrogate. Schulman, "Approximating KL divergence" (2020): k3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from torch import Tensor

LossName = Literal["grpo", "dr_grpo", "bnpo", "disco_constrained"]
LossMean = Literal["tokens", "sequences"]


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


def behaviour_weight(proximal_log_probs: Tensor, behaviour_log_probs: Tensor, cap: float) -> Tensor:
    """Weight w = min(pi_prox / pi_behaviour, cap): what a stale token counts, a constant ``[R, T]``.

    ``pi_prox`` is the policy at the start of the update. Truncation bounds the variance at the price of a bias towards the
    behaviour policy.
    """
    return (proximal_log_probs - behaviour_log_probs).exp().clamp(max=cap).detach()


def decoupled_surrogate(
    log_probs: Tensor,
    proximal_log_probs: Tensor,
    behaviour_log_probs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    cap: float,
) -> Tensor:
    """Decoupled PPO: w min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) per token ``[R, T]``, rho = pi_theta / pi_prox.

    The trust region lies around the policy at the start of the update instead of around the one that sampled, so a token
    whose probability has moved since it was sampled still has a gradient; w (``behaviour_weight``) corrects for who sampled.
    For ``pi_prox = pi_behaviour`` it is ``clipped_surrogate``.

    References:
        Hilton et al. (2110.00641), the decoupled objective. Espeholt et al., "IMPALA" (1802.01561): the truncated weight.
    """
    weight = behaviour_weight(proximal_log_probs, behaviour_log_probs, cap)
    return weight * clipped_surrogate(log_probs, proximal_log_probs, advantages, clip_low, clip_high)


def effective_sample_share(ratios: Tensor, counts: Tensor) -> float:
    """ESS / n = (sum c w)^2 / (sum c  sum c w^2) in (0, 1]: what share of its tokens a sample is worth; 1 on policy.

    Args:
        ratios: importance ratios w, any shape.
        counts: how often each was sampled, the same shape; 0 for padding.
    """
    weighted = (counts * ratios).sum()
    return float(weighted**2 / (counts.sum() * (counts * ratios**2).sum()))


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


def length_weights(
    lengths: Sequence[int],
    loss: LossName,
    loss_mean: LossMean,
    max_tokens: int,
    batches: Sequence[int] | None = None,
) -> tuple[list[float], float]:
    """Averages over answers as one weight per candidate and one count: mean = sum_i share_i sum_t v_it / count.

        grpo, tokens      share 1            count sum_i |o_i|
        grpo, sequences   share 1 / |o_i|    count R
        dr_grpo           share 1            count R max_tokens
        bnpo              share 1 / n_b      count B            n_b: tokens of local batch b

    Args:
        lengths: tokens of every candidate that counts, at least 1 each.
        loss: whose length handling; ``disco_constrained`` averages by itself and has share 1.
        loss_mean: which mean ``grpo`` takes.
        max_tokens: most tokens that an answer may have.
        batches: the local batch of each candidate (bnpo); one for all when None.
    """
    if loss == "dr_grpo":
        return [1.0] * len(lengths), float(len(lengths) * max_tokens)
    if loss == "bnpo":
        of_row = list(batches) if batches is not None else [0] * len(lengths)
        tokens = dict.fromkeys(of_row, 0)
        for batch, length in zip(of_row, lengths, strict=True):
            tokens[batch] += length
        return [1.0 / tokens[batch] for batch in of_row], float(len(tokens))
    if loss == "grpo" and loss_mean == "sequences":
        shares = [1.0 / length for length in lengths]
        # Summed term by term: the count's last bits are those of a running sum.
        return shares, _running_sum(length * share for length, share in zip(lengths, shares, strict=True))
    return [1.0] * len(lengths), float(sum(lengths))


def _running_sum(terms: Iterable[float]) -> float:
    total = 0.0
    for term in terms:
        total += term
    return total
