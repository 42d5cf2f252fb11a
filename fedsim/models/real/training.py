"""Training from scratch and supervised fine-tuning: budgets in steps, the same weights on the same platform.

From scratch, matrices learn by Muon (momentum orthogonalised by Newton-Schulz) and everything else by AdamW; of an
answer-only loss, in length-sorted batches, with linear warm-up and linear decay to zero.

References:
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedsim.models.config import StartTuning
from fedsim.models.real.muon import Muon
from fedsim.models.real.tokens import Tokens
from fedsim.models.real.zoo import scratch_network
from fedsim.models.sources import ScratchModel
from fedsim.sim import streams
from fedsim.tasks.questions import Question, TextFormat

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, smoothed loss in nats per answer token)."""

IGNORED = -100
"""The label of a token that no loss counts."""

_SORTED_BATCHES = 32
_SMOOTHING = 0.9


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did: steps taken and the smoothed loss at its end (nats per answer token; NaN without rows)."""

    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One (question, answer) row as ids; the loss counts the ids from ``num_prompt`` on."""

    ids: tuple[int, ...]
    num_prompt: int


def encode_rows(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Question],
    text_format: TextFormat | None = None,
    chat: bool = False,
) -> list[EncodedRow]:
    """Rows as the models see them: question, what is taught, end token."""
    return encoded_by(Tokens(tokenizer, text_format, chat), int(tokenizer.eos_token_id), rows)


def encoded_by(tokens: Tokens, end_id: int, rows: Sequence[Question]) -> list[EncodedRow]:
    """The same with what remembers ids already."""
    prompts = [tokens.prompt_ids(row.text) for row in rows]
    return [
        EncodedRow((*prompt, *tokens.answer_ids(row.taught), end_id), len(prompt))
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def batches(rows: Sequence[EncodedRow], batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches (ids ``[B, T]``, labels ``[B, T]``) in a keyed order, each of rows of nearly one length.

    Every epoch shuffles the rows, sorts them by length within stretches of 32 batches, and shuffles the batches. Fewer
    rows than ``batch_size`` make one batch of them all.
    """
    epoch = 0
    while True:
        draws = streams.generator(seed, "batches", epoch)
        order = draws.permutation(len(rows)).tolist()
        stretch = batch_size * _SORTED_BATCHES
        whole = []
        for start in range(0, len(order), stretch):
            part = sorted(order[start : start + stretch], key=lambda i: len(rows[i].ids))
            whole += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
        for index in draws.permutation(len(whole)).tolist():
            yield collated([rows[i] for i in whole[index]])
        epoch += 1


def collated(rows: Sequence[EncodedRow]) -> tuple[Tensor, Tensor]:
    """Ids and labels ``[B, T]``, right-padded; causality hides the padding."""
    width = max(len(row.ids) for row in rows)
    ids = [[*row.ids, *([row.ids[-1]] * (width - len(row.ids)))] for row in rows]
    labels = [
        [*([IGNORED] * row.num_prompt), *row.ids[row.num_prompt :], *([IGNORED] * (width - len(row.ids)))]
        for row in rows
    ]
    return torch.tensor(ids), torch.tensor(labels)


def answer_loss(network: PreTrainedModel, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood per answer token (nats). Rows are right-padded, so causality hides the padding."""
    logits = network(input_ids=ids, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return torch.nn.functional.cross_entropy(logits[wanted].float(), targets[wanted])


def train_from_scratch(
    model: ScratchModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Question],
    seed: int,
    progress: Progress | None = None,
    text_format: TextFormat | None = None,
) -> tuple[PreTrainedModel, Trained]:
    """Train a new network on the rows; without rows it stays untrained, which is what an empty client has.

    Ends after ``model.steps``, or sooner when the smoothed loss falls below ``model.stop_loss``.
    """
    network = scratch_network(model, tokenizer, streams.integer(seed, "weights"))
    if not rows or not model.steps:
        return network, Trained(0, float("nan"))
    network.train()
    optimizers = _muon_and_adamw(network, model)
    encoded = encode_rows(tokenizer, rows, text_format)
    stream = batches(encoded, model.batch_size, streams.integer(seed, "order"))
    done = _descend(network, optimizers, stream, model.steps, model.warmup_steps, model.stop_loss, progress)
    return network.eval(), done


def fine_tune(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Question],
    tuning: StartTuning,
    seed: int,
    progress: Progress | None = None,
    text_format: TextFormat | None = None,
) -> Trained:
    """Supervised fine-tuning of all trainable weights by AdamW, in place, with linear decay to zero."""
    if not rows:
        return Trained(0, float("nan"))
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=tuning.learning_rate, weight_decay=0.0)
    network.train()
    stream = batches(
        encode_rows(tokenizer, rows, text_format), tuning.batch_size, streams.integer(seed, "order")
    )
    done = _descend(network, [optimizer], stream, tuning.steps, 0, 0.0, progress)
    network.eval()
    return done


def _descend(
    network: PreTrainedModel,
    optimizers: Sequence[torch.optim.Optimizer],
    stream: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    warmup_steps: int,
    stop_loss: float,
    progress: Progress | None,
) -> Trained:
    """Warm up, decay, stop at the budget or at the loss."""
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    mean, weight = 0.0, 0.0
    for step in range(steps):
        factor = min(1.0, (step + 1) / max(1, warmup_steps)) * (1.0 - step / steps)
        loss = answer_loss(network, *next(stream))
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        mean = _SMOOTHING * mean + (1.0 - _SMOOTHING) * loss.item()
        weight = _SMOOTHING * weight + (1.0 - _SMOOTHING)
        if progress is not None:
            progress(step + 1, steps, mean / weight)
        if mean / weight < stop_loss:
            return Trained(step + 1, mean / weight)
    return Trained(steps, mean / weight)


def _muon_and_adamw(network: PreTrainedModel, model: ScratchModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    embeddings = {id(network.get_input_embeddings().weight), id(network.get_output_embeddings().weight)}
    matrices = [w for w in network.parameters() if w.ndim == 2 and id(w) not in embeddings]
    others = [w for w in network.parameters() if w.ndim != 2 or id(w) in embeddings]
    return [
        Muon(matrices, lr=model.muon_learning_rate, weight_decay=model.weight_decay),
        torch.optim.AdamW(others, lr=model.adamw_learning_rate, weight_decay=model.weight_decay),
    ]
