"""Teacher-forced log-probabilities of answers: behaviour, update, reference and client scores all use this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedsim.models.real.language import LanguageModel, Prefix, extend, prefill
from fedsim.models.real.packed import Pack, packed_logits
from fedsim.models.real.tokens import Ids
from fedsim.rl.losses import token_entropy

_INPUT_WIDTHS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """Per-token scores of answers, right-padded.

    Attributes:
        log_probs: ``log p(token)`` at the temperature asked for ``[R, T]``, 0 where padded.
        entropy: entropy of the distribution each token was scored by ``[R, T]``, constant; None when not asked for.
        mask: 1 where a token is real ``[R, T]``.
    """

    log_probs: Tensor
    entropy: Tensor | None
    mask: Tensor


def answer_scores(
    language: LanguageModel,
    prompts: Sequence[Ids],
    owners: Sequence[int],
    answers: Sequence[Ids],
    temperature: float = 1.0,
    entropy: bool = False,
    prefix: Prefix | None = None,
) -> AnswerScores:
    """Score answers token by token; differentiable when gradients are on.

    A question runs once however many answers continue it. Answers are run in classes of equal width (1, 2, 4, 8, 16,
    24 ... input tokens), so that an answer's bits depend on itself and its question alone.

    Args:
        language: the model.
        prompts: distinct questions, all of one canonical width.
        owners: for each answer the index of its question.
        answers: token ids; each with at least one token.
        temperature: divides the logits.
        entropy: also return each token's entropy.
        prefix: the prompts' prefix, if it was run already.
    """
    if language.packs:
        return _packed_scores(language, prompts, owners, answers, temperature, entropy)
    prefix = prefix or prefill(language, prompts, max(language.width(ids) for ids in prompts))
    owner = torch.tensor(owners)
    longest = max(len(ids) for ids in answers)
    lengths = torch.tensor([len(ids) for ids in answers])
    tokens = torch.tensor([[*ids, *([language.end_id] * (longest - len(ids)))] for ids in answers])
    first_log_probs, first_entropy = _token_scores(prefix.logits[owner], tokens[:, 0], temperature, entropy)
    order, log_probs, entropies = [], [], []
    for width, rows in _width_classes(lengths - 1).items():
        index = torch.tensor(rows)
        head = [first_log_probs[index, None]]
        head_entropy = [first_entropy[index, None]] if entropy else []
        if width:
            spare = max(0, width + 1 - longest)
            padded = torch.nn.functional.pad(tokens[index], (0, spare), value=language.end_id)
            logits = extend(language, prefix, owner[index], padded[:, :width])
            tail, tail_entropy = _token_scores(logits, padded[:, 1 : width + 1], temperature, entropy)
            head.append(tail[:, : longest - 1])
            if entropy:
                head_entropy.append(tail_entropy[:, : longest - 1])
        order.append(index)
        log_probs.append(_pad_to(torch.cat(head, 1), longest))
        if entropy:
            entropies.append(_pad_to(torch.cat(head_entropy, 1), longest))
    back = torch.cat(order).argsort()
    mask = (torch.arange(longest) < lengths[:, None]).to(first_log_probs.dtype)
    return AnswerScores(
        log_probs=torch.cat(log_probs)[back] * mask,
        entropy=torch.cat(entropies)[back] * mask if entropy else None,
        mask=mask,
    )


def _packed_scores(
    language: LanguageModel,
    prompts: Sequence[Ids],
    owners: Sequence[int],
    answers: Sequence[Ids],
    temperature: float,
    entropy: bool,
) -> AnswerScores:
    """The same in packed form: one pass over the tokens that there are."""
    pack = Pack.of(prompts, owners, [ids[:-1] for ids in answers])
    logits, rows = packed_logits(language.network, pack, language.shared)
    scaled = logits / temperature
    totals, entropies = scaled.logsumexp(-1), token_entropy(scaled.detach()) if entropy else None
    index = pad_sequence([torch.tensor(places) for places in rows], batch_first=True)
    tokens = pad_sequence([torch.tensor(ids) for ids in answers], batch_first=True)
    lengths = torch.tensor([len(ids) for ids in answers])
    mask = (torch.arange(index.shape[1]) < lengths[:, None]).to(logits.dtype)
    return AnswerScores(
        log_probs=(scaled[index, tokens] - totals[index]) * mask,
        entropy=None if entropies is None else entropies[index] * mask,
        mask=mask,
    )


def _token_scores(logits: Tensor, tokens: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens ``[...]`` and, if asked for, entropies (else the same tensor twice)."""
    scaled = logits / temperature
    log_probs = scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)
    return log_probs, token_entropy(scaled.detach()) if entropy else log_probs


def _width_classes(inputs: Tensor) -> dict[int, list[int]]:
    """Rows by canonical number of input tokens, in increasing width."""
    classes: dict[int, list[int]] = {}
    for row, count in enumerate(inputs.tolist()):
        width = next((w for w in (0, *_INPUT_WIDTHS) if w >= count), -(-count // 8) * 8)
        classes.setdefault(width, []).append(row)
    return dict(sorted(classes.items()))


def _pad_to(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]))
