"""The server's policy: samples groups of candidates, learns from their advantages, and is measured.

GRPO without a critic: a clipped surrogate with separate ranges, a k3 KL to the frozen initial policy, inner passes, truncated
candidates masked. The loss divides by a count fixed per update: with ``loss_mean: tokens`` the number of tokens of all scored,
untruncated candidates, with ``sequences`` their number (each candidate then counts with its own token mean); ``loss: dr_grpo``
and ``bnpo`` have counts of their own (``fedsim.rl.losses.length_weights``), and ``disco_constrained`` reads an advantage as a
label, above zero right, below zero wrong, and divides by the number of groups (``fedsim.rl.discriminative``). A candidate whose
advantage is exactly zero has no gradient without a KL weight and is left out of the passes, not out of the count; equal
candidates of one draw with equal advantages run once with their multiplicity as weight. Both change nothing but time.

Changed against the paper and its released code: no rationale is asked of a model this small, and the ratio's
behaviour log-probabilities are computed in the form the loss uses: those of a group that is trained by the policy that sampled
it by the pass that trains it (the ratio is then exactly 1), those of all others before the weights move on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedsim.errors import FederationError
from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Accuracy, Candidate, CandidateGroup, Draw, FloatArray, UpdateStats
from fedsim.models.real.adapters import packed_backward, row_batches
from fedsim.models.real.embedding import Encoder
from fedsim.models.real.evaluation import Matches, measure
from fedsim.models.real.gradients import GradientPart, backward, parts_of
from fedsim.models.real.language import LanguageModel, by_width, prefill
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.objective import NO_BRAKE, Brake, Row, Totals, divergence_part
from fedsim.models.real.sampling import Sampled, sample_answers
from fedsim.models.real.tokens import Ids
from fedsim.models.real.training import answer_loss, batches, encoded_by
from fedsim.models.real.weights import load_learning_state, save_learning_state, save_model, weights_sha256
from fedsim.rl.discriminative import squared_hinge
from fedsim.rl.losses import length_weights
from fedsim.sim import streams
from fedsim.tasks.questions import Question


@dataclass(slots=True)
class _Behaviour:
    """What is remembered of one draw's group until it was trained.

    ``log_probs`` are those of the policy that sampled it, candidate by candidate; None as long as that is the live one.
    """

    prompt: str
    ids: tuple[Ids, ...]
    log_probs: tuple[Tensor, ...] | None = None


class LanguagePolicy:
    """Implements ``fedsim.models.interfaces.Policy`` with a causal language model.

    ``merges_equal`` says whether equal candidates of a draw run once, with their multiplicity as weight; the benchmark
    of a step turns it off.

    Args:
        language: the live model; its weights change with every update.
        initial: the frozen initial policy, for the KL, for embeddings and for drift.
        config: sampling and learning settings.
        matches: how answers are compared in ``evaluate``.
        seed: keys every draw.
        centre: questions whose mean embedding is taken off, so that what all questions share does not count as similar.
    """

    merges_equal: ClassVar[bool] = True

    def __init__(
        self,
        language: LanguageModel,
        initial: LanguageModel,
        config: PolicyConfig,
        matches: Matches,
        seed: int,
        centre: Sequence[str],
    ) -> None:
        self.language = language
        self.initial = initial
        self.config = config
        self._matches = matches
        self._seed = seed
        self._version = 0
        self._behaviours: dict[int, _Behaviour] = {}
        self._weights = [weight for weight in language.network.parameters() if weight.requires_grad]
        self._fit_optimizer = torch.optim.AdamW(self._weights, lr=config.fit_learning_rate, weight_decay=0.0)
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._optimizers = {"update": self._optimizer, "fit": self._fit_optimizer}
        self._encoder = Encoder(initial, centre)

    @property
    def version(self) -> int:
        """The policy version: 0 at the start, one more after every update or fit."""
        return self._version

    def count_tokens(self, text: str) -> int:
        """Tokens of a text under the server's tokenizer."""
        return self.language.count_tokens(text)

    def embed(self, questions: Sequence[Question]) -> FloatArray:
        """phi(x) ``[n, d]``: mean-pooled hidden states of the frozen initial policy, centred, l2-normalised."""
        return self._encoder.embed([question.text for question in questions])

    def evaluate(self, questions: Sequence[Question], num_samples: int) -> Accuracy:
        """Greedy accuracy, pass@1 and pass@8 from ``num_samples`` samples each, entropy and drift; changes nothing."""
        return measure(
            self.language, self.initial, questions, num_samples, self.config, self._matches, self._seed
        )

    def sample(self, draws: Sequence[Draw]) -> list[CandidateGroup]:
        """Sample G candidates per draw; a draw's group is a pure function of (weights, draw), whatever the batch."""
        groups: dict[int, CandidateGroup] = {}
        for batch in by_width(self.language, draws, _draw_text, self.config.questions_per_pass):
            for draw, answers in zip(batch, self._sampled(batch), strict=True):
                ids = tuple(answer.ids for answer in answers)
                self._behaviours[draw.index] = _Behaviour(draw.question.text, ids)
                groups[draw.index] = CandidateGroup(
                    draw, self._version, tuple(self._candidate(a) for a in answers)
                )
        texts = [draw.question.text for draw in draws]  # whoever counts or scores them needs their ids
        self.language.tokens.read_plain(
            [*texts, *(text for group in groups.values() for text in group.texts)]
        )
        return [groups[draw.index] for draw in draws]

    @torch.no_grad()
    def _sampled(self, draws: Sequence[Draw]) -> list[list[Sampled]]:
        """G answers to each question; all have one canonical width.

        The uniform behind token t of candidate g is element ``[g, t]`` of the stream (seed, "sample", draw).
        """
        prompts = [self.language.prompt_ids(draw.question.text) for draw in draws]
        prefix = prefill(self.language, prompts, self.language.width(prompts[0]))
        keys = [("sample", draw.index) for draw in draws]
        return sample_answers(self.language, prefix, keys, self.config.group_size, self.config, self._seed)

    def sampled_ids(self, draw_index: int) -> tuple[Ids, ...]:
        """Token ids of a remembered group's candidates.

        Raises:
            KeyError: the draw was not sampled, or forgotten.
        """
        return self._behaviours[draw_index].ids

    def forget(self, draw_indices: Sequence[int]) -> None:
        """Drop what is remembered of groups that will never be trained (too stale, or without rewards)."""
        for index in draw_indices:
            self._behaviours.pop(index, None)

    def take_down(self, but: Collection[int] = ()) -> None:
        """Compute the log-probabilities of remembered groups that the live weights have sampled, but for some draws.

        Whoever changes the weights from outside while groups are remembered does this before; steps and fits do it themselves.
        """
        due = [
            index for index, kept in self._behaviours.items() if kept.log_probs is None and index not in but
        ]
        for batch in by_width(
            self.language, due, lambda index: self._behaviours[index].prompt, self.config.questions_per_pass
        ):
            self._take_down_batch([self._behaviours[index] for index in batch])

    @torch.no_grad()
    def _take_down_batch(self, groups: Sequence[_Behaviour]) -> None:
        """Remember log-probabilities in the loss's own form; the questions have one canonical width."""
        keys = [
            [(owner, ids, 0 if self.merges_equal else g) for g, ids in enumerate(group.ids)]
            for owner, group in enumerate(groups)
        ]
        distinct = list(dict.fromkeys(key for row in keys for key in row))
        prompts = [self.language.prompt_ids(group.prompt) for group in groups]
        owners, answers = [owner for owner, _, _ in distinct], [ids for _, ids, _ in distinct]
        scores = answer_scores(self.language, prompts, owners, answers, self.config.temperature)
        found = {key: scores.log_probs[row, : len(key[1])].clone() for row, key in enumerate(distinct)}
        for group, row in zip(groups, keys, strict=True):
            group.log_probs = tuple(found[key] for key in row)

    def _candidate(self, answer: Sampled) -> Candidate:
        return Candidate(self.language.answer_text(answer.ids), len(answer.ids), answer.truncated)

    def update(self, groups: Sequence[CandidateGroup], advantages: Sequence[FloatArray]) -> UpdateStats:
        """``inner_passes`` optimiser steps on whole groups; one new version.

        Candidates whose advantage is NaN (unscored) and truncated ones have no loss and are not counted. Under loss
        ``disco_constrained`` an advantage is a label: above 0 right, below 0 wrong, 0 neither. The rate
        rises linearly over ``warmup_updates``. Groups are forgotten afterwards.

        Raises:
            ValueError: a group that this policy did not sample, or advantages of another shape.
        """
        # A single pass computes those of its own groups that are fresh; of all others they are taken down while it can be done.
        own = [group.draw.index for group in groups] if self.config.inner_passes == 1 else []
        self.take_down(frozenset(own))
        rows, count = self._rows(groups, advantages)
        parts = parts_of(self.language, rows, count, self.config.questions_per_pass)
        rate = self.config.learning_rate * min(1.0, (self._version + 1) / max(1, self.config.warmup_updates))
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate
        totals = Totals()
        for index in range(self.config.inner_passes if rows else 0):
            self._backward(parts, totals, first=index == 0)
            norm = torch.nn.utils.clip_grad_norm_(self._weights, self.config.max_grad_norm)
            totals.grad_norm = float(norm)
            _refuse_divergence(totals.loss, totals.grad_norm, f"update {self._version + 1}")
            self._optimizer.step()
        self.forget([group.draw.index for group in groups])
        self._version += 1
        return totals.stats(max(1, self.config.inner_passes), self.config.behaviour_weight_cap)

    def fit(self, rows: Sequence[Question], steps: int) -> UpdateStats:
        """Supervised fine-tuning on (text, answer) rows: AdamW at ``fit_learning_rate``, whose moments stay between calls.

        The loss is the mean negative log-likelihood per answer token (nats), reported as a mean over the steps. One new
        version.
        """
        self.take_down()
        seed = streams.integer(self._seed, "fit", self._version)
        backward = self._packed_losses(rows, seed) if self.language.packs else self._row_losses(rows, seed)
        losses, norm = [], 0.0
        for _ in range(steps):
            self._fit_optimizer.zero_grad(set_to_none=True)
            losses.append(next(backward))
            norm = float(torch.nn.utils.clip_grad_norm_(self._weights, self.config.max_grad_norm))
            _refuse_divergence(losses[-1], norm, f"supervised step {len(losses)}")
            self._fit_optimizer.step()
        self._version += 1
        return UpdateStats(
            loss=sum(losses) / len(losses) if losses else math.nan,
            entropy=0.0,
            clip_fraction=0.0,
            grad_norm=norm,
        )

    def _row_losses(self, rows: Sequence[Question], seed: int) -> Iterator[float]:
        """Losses of batch after batch, each of which leaves its gradient."""
        language = self.language
        encoded = encoded_by(language.tokens, language.end_id, rows)
        for ids, labels in batches(encoded, self.config.fit_batch_size, seed):
            loss = answer_loss(language.network, ids, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            yield float(loss.detach())

    def _packed_losses(self, rows: Sequence[Question], seed: int) -> Iterator[float]:
        """The same for a big model."""
        for batch in row_batches(rows, self.config.fit_batch_size, seed):
            yield packed_backward(self.language, batch)

    def _rows(
        self, groups: Sequence[CandidateGroup], advantages: Sequence[FloatArray]
    ) -> tuple[list[Row], float]:
        """Distinct candidates that have a gradient, and the count that the loss divides by."""
        config = self.config
        kept: list[tuple[CandidateGroup, Ids, Tensor | None, float]] = []
        places: list[int] = []
        for place, (group, gains) in enumerate(zip(groups, advantages, strict=True)):
            behaviour = self._behaviours.get(group.draw.index)
            if behaviour is None:
                raise ValueError(f"draw {group.draw.index} was not sampled by this policy, or was forgotten")
            if len(gains) != len(behaviour.ids):
                raise ValueError(f"{len(gains)} advantages for a group of {len(behaviour.ids)}")
            for g, (candidate, gain) in enumerate(zip(group.candidates, gains.tolist(), strict=True)):
                if candidate.truncated or math.isnan(gain):
                    continue
                log_probs = None if behaviour.log_probs is None else behaviour.log_probs[g]
                kept.append((group, behaviour.ids[g], log_probs, gain))
                places.append(place)
        shares, count = length_weights(
            [len(ids) for _, ids, _, _ in kept], config.loss, config.loss_mean, config.max_new_tokens,
            [place // config.bnpo_groups for place in places],
        )  # fmt: skip
        if config.loss == "disco_constrained":
            count = float(len(set(places)))
        everyone = config.kl_weight != 0.0 or config.loss == "disco_constrained"
        merged: dict[tuple[int, Ids, float, int], Row] = {}
        for (group, ids, log_probs, gain), share in zip(kept, shares, strict=True):
            if gain == 0.0 and not everyone:
                continue
            key = (group.draw.index, ids, gain, 0 if self.merges_equal else len(merged))
            known = merged.get(key)
            merged[key] = Row(
                prompt=group.draw.question.text,
                ids=ids,
                behaviour=log_probs,
                advantage=gain,
                weight=(known.weight if known else 0.0) + share,
                draw=group.draw.index,
                staleness=self._version - group.policy_version,
                multiplicity=(known.multiplicity if known else 0) + 1,
            )
        return list(merged.values()), max(count, 1.0)

    def _backward(self, parts: Sequence[GradientPart], totals: Totals, first: bool = True) -> None:
        """Give the weights the gradient of an update's loss."""
        self._optimizer.zero_grad(set_to_none=True)
        brake = self._brake(parts, totals)
        for part in parts:
            backward(self.language, self.initial, self.config, part, totals, brake, first)

    @torch.no_grad()
    def _brake(self, parts: Sequence[GradientPart], totals: Totals) -> Brake:
        """The constraint's slope at the live weights: 2 beta [KL(behaviour || pi) - delta]_+, over the whole update."""
        config = self.config
        if config.loss != "disco_constrained":
            return NO_BRAKE
        num_tokens = sum(row.weight * len(row.ids) for part in parts for row in part.rows)
        divergence = 0.0
        for part in parts:
            answers = [row.ids for row in part.rows]
            scores = answer_scores(self.language, part.prompts, part.owners, answers, config.temperature)
            batch = totals.batch(config, part.rows, scores.log_probs)
            divergence += float(divergence_part(scores, batch, num_tokens))
        penalty, slope = squared_hinge(divergence, config.disco.max_kl, config.disco.penalty)
        totals.loss += penalty
        return Brake(slope, num_tokens)

    def save(self, folder: Path) -> None:
        """Write the live policy as a ``transformers`` folder (adapters merged in) that ``from_pretrained`` loads."""
        save_model(self.language.network, self.language.tokenizer, folder)

    def save_state(self, folder: Path) -> None:
        """Write all that a resumed run needs: trainable weights, optimiser moments, version, remembered groups."""
        save_learning_state(folder, self._weights, self._optimizers, self._memory())

    def restore_state(self, folder: Path) -> None:
        """Take up what ``save_state`` wrote, bit for bit.

        Raises:
            ModelFileError: the folder is missing, torn, or of another model.
        """
        memory = load_learning_state(folder, self._weights, self._optimizers)
        self._version = int(memory["version"])
        self._behaviours = {
            int(draw): _Behaviour(
                str(kept["prompt"]),
                tuple(tuple(ids) for ids in kept["ids"]),
                tuple(torch.tensor(row, dtype=torch.float32) for row in kept["log_probs"]),
            )
            for draw, kept in memory["behaviours"].items()
        }

    def weights_sha256(self) -> str:
        """SHA-256 over all weights, by name."""
        return weights_sha256(self.language.network)

    def _memory(self) -> dict[str, Any]:
        self.take_down()
        # A float32 written as a JSON double comes back as the same float32.
        behaviours = {
            str(draw): {
                "prompt": kept.prompt,
                "ids": kept.ids,
                "log_probs": [row.tolist() for row in kept.log_probs or ()],
            }
            for draw, kept in self._behaviours.items()
        }
        return {"version": self._version, "behaviours": behaviours}


def _refuse_divergence(loss: float, norm: float, where: str) -> None:
    """Stop before a number that is none reaches the weights.

    Raises:
        FederationError: the loss or the gradient is not finite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise FederationError(
            f"{where}: the loss is {loss:g} and its gradient's norm {norm:g}, which no weights survive; lower the learning rate"
        )


def _draw_text(draw: Draw) -> str:
    return draw.question.text
