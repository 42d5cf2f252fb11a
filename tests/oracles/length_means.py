"""Averages over answers of unlike length, each as its paper has it: what `fedsim.rl.losses.length_weights` must agree with."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Of a whole update: sum_it v_it / sum_i |o_i|. All its tokens count alike: ``[R, T], [R, T] -> []``.

    DAPO eq. 8 has the same mean question by question, and then the mean over questions: that is
    `batch_normalised_mean` with one group a batch. TRL calls the mean over a whole update ``dapo``.
    """
    return (values * mask).sum() / mask.sum()


def sequence_mean(values: Tensor, mask: Tensor) -> Tensor:
    """GRPO as published: (1/R) sum_i (1/|o_i|) sum_t v_it. A token of a long answer counts less: ``[R, T], [R, T] -> []``.

    References:
        DeepSeekMath eq. 3.
    """
    return ((values * mask).sum(-1) / mask.sum(-1)).mean()


def fixed_length_mean(values: Tensor, mask: Tensor, max_tokens: int) -> Tensor:
    """Dr. GRPO: sum_it v_it / (R max_tokens). Divided by a constant, not by what was sampled: ``[R, T], [R, T] -> []``.

    References:
        Liu et al. (2503.20783), listing 1: the masked sum over a constant generation budget.
    """
    return (values * mask).sum() / (values.shape[0] * max_tokens)


def batch_normalised_mean(values: Tensor, mask: Tensor, batches: Sequence[Sequence[int]]) -> Tensor:
    """BNPO as the released code's trainer has it: (1/B) sum_b (sum_{i in b,t} v_it / sum_{i in b} |o_i|): ``[R, T] -> []``.

    The token mean of each local batch, then the mean over the batches of an update; one batch makes it ``token_mean``, batches
    of one answer ``sequence_mean``.

    Args:
        values: per token ``[R, T]``.
        mask: 1 where a token counts ``[R, T]``.
        batches: the rows of every local batch.
    """
    means = [token_mean(values[list(rows)], mask[list(rows)]) for rows in batches]
    return sum(means[1:], means[0]) / len(means)
