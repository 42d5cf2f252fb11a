"""The roles that models play for a protocol, as typed interfaces without torch.

A protocol sees only these. ``fedsim.models`` implements them with real language models, ``fedsim.models.timing.stand_ins``
with token counts alone (timing fidelity), and a test may bring its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedsim.sim.devices.architecture import ModelSpec
from fedsim.tasks.questions import Question, TaskData

FloatArray = npt.NDArray[np.float64]
Weights = Mapping[str, npt.NDArray[np.float32]]
"""The trainable part of a model, by name: a low-rank adapter, or all weights."""

Exercise = tuple[str, tuple[str, ...]]
"""A question's text and the texts that followed it: one answer (SFT) or G candidates (GRPO)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled answer: its text, how many tokens it has, and whether it ran into the length limit."""

    text: str
    num_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampling of one question: ``index`` counts draws over the run and keys their randomness.

    ``epoch`` counts how often the question came before; what clients do with it is keyed by that (``Subject.attempt``).
    """

    index: int
    question: Question
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """G candidates of one draw, sampled by one policy version."""

    draw: Draw
    policy_version: int
    candidates: tuple[Candidate, ...]

    @property
    def texts(self) -> list[str]:
        """The candidates' texts, in order."""
        return [candidate.text for candidate in self.candidates]


@dataclass(frozen=True, slots=True)
class RatioStats:
    """What the groups of one staleness were worth in one update, over their trained tokens.

    With w = pi_start / pi_behaviour of a token, ``start`` the policy when the update began:

    Attributes:
        staleness: policy versions between sampling and the update.
        num_tokens: trained tokens, multiplicities counted.
        mean_ratio: mean of w; 1 in expectation.
        effective_share: effective sample size over number of tokens, (sum w)^2 / (n sum w^2).
        truncated_share: share of tokens whose w exceeds ``behaviour_weight_cap``, whether it is used or not.
        clip_fraction: share of tokens whose gradient the clip took away, mean over the passes.
        divergence: token mean of -log w (nats), an estimate of KL(behaviour || start).
    """

    staleness: int
    num_tokens: int
    mean_ratio: float
    effective_share: float
    truncated_share: float
    clip_fraction: float
    divergence: float


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """What one optimiser step measured: token means over the rows that were trained.

    ``by_staleness`` is there when ``record_ratios`` asks for it, in increasing staleness.
    """

    loss: float
    entropy: float
    clip_fraction: float
    grad_norm: float
    by_staleness: tuple[RatioStats, ...] = ()


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of a policy on some questions, with drift against the initial policy.

    ``greedy_by_domain`` maps a domain to its greedy accuracy; ``entropy`` and ``kl_to_initial`` are token means over
    sampled answers (nats; the KL is the k3 estimator).
    """

    greedy: float
    pass_at_1: float
    pass_at_8: float
    greedy_by_domain: dict[str, float]
    entropy: float
    kl_to_initial: float
    num_questions: int


class Policy(Protocol):
    """The server's language model, pi_theta."""

    @property
    def version(self) -> int:
        """The policy version: 0 at the start, one more after every optimiser step."""

    def sample(self, draws: Sequence[Draw]) -> list[CandidateGroup]:
        """Sample G candidates for each draw from the live policy; a pure function of (weights, draw)."""

    def update(self, groups: Sequence[CandidateGroup], advantages: Sequence[FloatArray]) -> UpdateStats:
        """One optimiser step on whole groups; ``advantages[i]`` is ``[G]``, NaN where a candidate is unscored."""

    def forget(self, draw_indices: Sequence[int]) -> None:
        """Drop what is remembered of groups that will never be trained."""

    def fit(self, rows: Sequence[Question], steps: int) -> UpdateStats:
        """Supervised fine-tuning on (text, answer) rows for a number of steps; one new version."""

    def embed(self, questions: Sequence[Question]) -> FloatArray:
        """phi(x): embeddings ``[n, d]`` of the frozen initial policy, l2-normalised."""

    def evaluate(self, questions: Sequence[Question], num_samples: int) -> Accuracy:
        """Greedy accuracy, and pass@1 and pass@8 from ``num_samples`` samples each; changes nothing."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, for the cost model."""


class Evaluator(Protocol):
    """One client's own small model. It sees question *texts*: that is all a client is ever sent."""

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Announce a scoring that will be due later, so that it can be computed in a batch with others."""

    def expect_answer(self, question: str) -> None:
        """Announce that its own answer will be due later, so that answers can be computed in a batch."""

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """The model's probability of each candidate given the question, or of the final answer in it, in [0, 1]."""

    def answers(self, questions: Sequence[str]) -> list[str]:
        """The model's own greedy answers to question texts."""

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, for the cost model."""


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What local training made of the weights it was given.

    Attributes:
        weights: the weights after training, under the same names.
        loss: mean training loss over the steps (nats per token).
        steps: per optimiser step, what it was trained on, for the cost of work.
        sampled: whether the texts were sampled by the client (GRPO), which costs generation as well.
    """

    weights: Weights
    loss: float
    steps: tuple[tuple[Exercise, ...], ...]
    sampled: bool


class LocalTrainer(Protocol):
    """Training the server's model on a client's own rows."""

    def start(self) -> Weights:
        """The weights that all clients start from: one seeded start."""

    def tune(
        self, client_id: int, round_index: int, weights: Weights, rows: Sequence[Question]
    ) -> LocalUpdate:
        """Train on the rows with a fresh optimiser; a pure function of its arguments."""

    def install(self, weights: Weights) -> None:
        """Make these the live policy's weights; one new policy version."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What a generator wrote side by side, in one batch.

    Attributes:
        rows: the well-formed (question, answer) pairs.
        num_malformed: how many more were written that are no such pair.
    """

    rows: tuple[tuple[str, str], ...]
    num_malformed: int = 0


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Synthetic rows of one client, with what they cost and what they may reveal.

    Attributes:
        rows: (question, answer) pairs.
        epsilon: privacy loss of the whole release at ``delta`` (``inf``: no protection), per client, record-level.
        delta: the probability that ``epsilon`` does not cover.
        steps: optimiser steps of training the generator, each with what it was trained on.
        generated: everything the generator wrote, batch after batch.
        max_tokens: length of a malformed sample, for the cost: the most that a sample may have.
        embedded: the (question, answer) pairs that were embedded, batch after batch.
    """

    rows: tuple[tuple[str, str], ...]
    epsilon: float
    delta: float
    steps: tuple[tuple[Exercise, ...], ...] = ()
    generated: tuple[Samples, ...] = ()
    max_tokens: int = 0
    embedded: tuple[tuple[tuple[str, str], ...], ...] = ()


class Synthesiser(Protocol):
    """Turning private rows into synthetic ones, under a privacy mechanism."""

    def synthesise(self, client_id: int, rows: Sequence[Question], count: int) -> Synthesis:
        """``count`` synthetic rows that resemble these; a pure function of its arguments."""

    def report(self) -> list[dict[str, Any]]:
        """What every client's release was, for the run folder (``privacy.json``)."""


@dataclass(frozen=True)
class Components:
    """The models and the data of one run, real or stand-in.

    Attributes:
        client_specs: the architecture that client k's model counts as, or a single one that all have.
        hashes: what each model's weights hash to, for the manifest (empty for stand-ins).
        save: writes the final policy as a loadable folder (None for stand-ins).
        trainer: trains the server's model on clients' rows, for protocols that move weights.
        synthesiser: makes synthetic rows of clients' rows, for protocols that move them.
    """

    data: TaskData
    policy: Policy
    frozen: Evaluator
    evaluators: Sequence[Evaluator]
    server_spec: ModelSpec
    client_specs: tuple[ModelSpec, ...]
    hashes: Mapping[str, str]
    save: Callable[[Path], None] | None = None
    trainer: LocalTrainer | None = None
    synthesiser: Synthesiser | None = None

    def client_spec(self, client_id: int) -> ModelSpec:
        """The architecture that a client's model counts as."""
        return self.client_specs[client_id if len(self.client_specs) > 1 else 0]
