"""Parts of what a run's models compute, for any process to do: token ids in, token ids and numbers out.

A part is a pure function of weights and its own data, and its batches have canonical shapes (``language.py``). So it has the
same bits in whatever process it is done, and with whatever company.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import torch
from torch import Tensor

from fedsim.models.config import PolicyConfig
from fedsim.models.real.gradients import Gradient, GradientPart
from fedsim.models.real.language import LanguageModel, prefill
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.sampling import Sampled, decode, sample_answers
from fedsim.models.real.stacked import Stack
from fedsim.models.real.tokens import Ids
from fedsim.rl.losses import k3_kl


class SamplePart(msgspec.Struct, frozen=True, tag="sample"):
    """Questions of one canonical width that want a group each from the live policy; ``draws`` key their randomness."""

    prompts: tuple[Ids, ...]
    draws: tuple[int, ...]


class BehaviourPart(msgspec.Struct, frozen=True, tag="behaviour"):
    """Groups that the live policy has sampled, of questions of one canonical width, whose log-probabilities are wanted."""

    prompts: tuple[Ids, ...]
    answers: tuple[tuple[Ids, ...], ...]
    merges_equal: bool


class LookPart(msgspec.Struct, frozen=True, tag="look"):
    """Questions of one canonical width that the live policy is measured on; ``keys`` key their randomness."""

    prompts: tuple[Ids, ...]
    keys: tuple[int, ...]
    num_samples: int


class Look(msgspec.Struct, frozen=True):
    """By question the greedy answer and the sampled ones; over all the sum of the k3 to the initial policy, and its tokens."""

    greedy: list[Sampled]
    sampled: list[list[Sampled]]
    drift: tuple[float, float]


class AnswerPart(msgspec.Struct, frozen=True, tag="answer"):
    """Questions of one canonical width that one client answers greedily."""

    client: int
    prompts: tuple[Ids, ...]


class ScorePart(msgspec.Struct, frozen=True, tag="score"):
    """Answers that clients score: question i is client ``clients[i]``'s, answer j continues question ``owners[j]``."""

    clients: tuple[int, ...]
    prompts: tuple[Ids, ...]
    owners: tuple[int, ...]
    answers: tuple[Ids, ...]


Part = SamplePart | BehaviourPart | LookPart | AnswerPart | ScorePart | GradientPart
P = TypeVar("P", bound=Part)
R = TypeVar("R")


class Sharing(Protocol):
    """Who does parts."""

    @property
    def num_processes(self) -> int:
        """How many processes do parts at once."""

    def install(self, weights: Sequence[Tensor]) -> None:
        """Make these the live policy's weights for the parts to come."""

    def shared(self, parts: Sequence[P], here: Callable[[P], R]) -> list[R]:
        """What comes of the parts, in their order; ``here`` does one in this process."""

    def begun(self, part: P, here: Callable[[P], R]) -> Callable[[], R]:
        """Have a part begun beside this process where there is somebody, and return what gives the result."""


class Alone:
    """This process does everything."""

    num_processes = 1

    def install(self, weights: Sequence[Tensor]) -> None:
        """Nobody else needs to know."""

    def shared(self, parts: Sequence[P], here: Callable[[P], R]) -> list[R]:
        """One after the other."""
        return [here(part) for part in parts]

    def begun(self, part: P, here: Callable[[P], R]) -> Callable[[], R]:
        """Nothing is begun before it is asked for."""
        return partial(here, part)


def shared_out(sizes: Sequence[int], loads: Sequence[float]) -> list[list[int]]:
    """Places of ``sizes`` for each of those who have these loads already, so that all end up with about the same sum.

    Each list is in order; what has no size is left out.

    >>> shared_out([4, 4, 4, 4], [0.0, 8.0]), shared_out([5, 0, 2, 4], [0.0, 0.0])
    ([[0, 1, 3], [2]], [[0], [2, 3]])
    """
    lists: list[list[int]] = [[] for _ in loads]
    totals = list(loads)
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        least = totals.index(min(totals))
        totals[least] += sizes[place]
        if sizes[place]:
            lists[least].append(place)
    return [sorted(places) for places in lists]


@torch.no_grad()
def sampled(live: LanguageModel, config: PolicyConfig, seed: int, part: SamplePart) -> list[list[Sampled]]:
    """Sample G candidates per question.

    The uniform behind token t of candidate g is element ``[g, t]`` of the stream (seed, "sample", draw).
    """
    prefix = prefill(live, part.prompts, live.width(part.prompts[0]))
    keys = [("sample", draw) for draw in part.draws]
    return sample_answers(live, prefix, keys, config.group_size, config, seed)


@torch.no_grad()
def taken_down(live: LanguageModel, config: PolicyConfig, part: BehaviourPart) -> list[list[Tensor]]:
    """Log-probabilities of sampled answers, token by token under the weights that sampled, in the loss's own form."""
    keys = [
        [(owner, ids, 0 if part.merges_equal else g) for g, ids in enumerate(answers)]
        for owner, answers in enumerate(part.answers)
    ]
    distinct = list(dict.fromkeys(key for row in keys for key in row))
    scores = answer_scores(
        live, part.prompts, [owner for owner, _, _ in distinct], [ids for _, ids, _ in distinct],
        config.temperature,
    )  # fmt: skip
    found = {key: scores.log_probs[row, : len(key[1])].clone() for row, key in enumerate(distinct)}
    return [[found[key] for key in row] for row in keys]


@torch.no_grad()
def looked(
    live: LanguageModel, initial: LanguageModel, config: PolicyConfig, seed: int, part: LookPart
) -> Look:
    """Answer questions greedily and by samples; the stream of a question is (seed, "evaluate", key), for every version."""
    prompts = part.prompts
    prefix = prefill(live, prompts, live.width(prompts[0]))
    best = [answer for (answer,) in decode(live, prefix, 1, config.max_new_tokens, None)]
    if not part.num_samples:
        return Look(best, [], (0.0, 0.0))
    keys = [("evaluate", key) for key in part.keys]
    answers = sample_answers(live, prefix, keys, part.num_samples, config, seed)
    owners, first = list(range(len(prompts))), [same[0].ids for same in answers]
    ours = answer_scores(live, prompts, owners, first, config.temperature, prefix=prefix)
    frozen = answer_scores(initial, prompts, owners, first, config.temperature)
    drift = k3_kl(ours.log_probs.double(), frozen.log_probs.double()) * ours.mask
    return Look(best, answers, (float(drift.sum()), float(ours.mask.sum())))


@torch.no_grad()
def answered(language: LanguageModel, max_new_tokens: int, part: AnswerPart) -> list[Ids]:
    """A client's greedy answers."""
    prefix = prefill(language, part.prompts, language.width(part.prompts[0]))
    return [answer.ids for (answer,) in decode(language, prefix, 1, max_new_tokens, None)]


@torch.no_grad()
def scored(language: LanguageModel, part: ScorePart) -> list[float]:
    """Likelihoods of answers, ``exp(sum_t log p(y_t | x, y_<t))``, by one model or a stack of clients' models."""
    if isinstance(language, Stack):
        language.assign(part.clients)
    scores = answer_scores(language, part.prompts, part.owners, part.answers)
    # Summed one by one: a row's sum must not depend on the width that its batch is padded to.
    rows = scores.log_probs.double().cpu().numpy()
    totals = [sum(row[: len(ids)].tolist()) for row, ids in zip(rows, part.answers, strict=True)]
    return [float(min(1.0, math.exp(total))) for total in totals]


def size(part: Part) -> int:
    """Rows to compute, to share parts out evenly; never affects results."""
    if isinstance(part, ScorePart):
        return len(part.answers)
    if isinstance(part, GradientPart):
        return len(part.rows)
    return len(part.prompts)


def result_of(part: Part) -> Any:
    """What kind of thing comes of a part."""
    kinds: dict[type, Any] = {
        SamplePart: list[list[Sampled]],
        BehaviourPart: list[list[Tensor]],
        LookPart: Look,
        AnswerPart: list[Ids],
        ScorePart: list[float],
        GradientPart: Gradient,
    }
    return kinds[type(part)]


def encoded(result: object) -> bytes:
    """A part, or what came of it, as bytes."""
    return msgspec.msgpack.encode(result, enc_hook=_as_bytes)


def decoded(kind: Any, content: bytes) -> Any:
    """What ``encoded`` wrote of this kind.

    Raises:
        msgspec.DecodeError: something else.
    """
    return msgspec.msgpack.decode(content, type=kind, dec_hook=_as_tensor)


def _as_bytes(value: object) -> bytes:
    if isinstance(value, Tensor):
        return value.numpy().tobytes()
    raise NotImplementedError(type(value))


def _as_tensor(kind: type, content: Any) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.float32)
