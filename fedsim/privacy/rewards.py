"""Noise on the numbers that leave a client: each reward and each probe bit, on the client's own device, before it is sent.

A number r in [0, 1] becomes, with noise drawn anew for every number,

* ``randomised_response``: one bit, 1 with probability ``p + (1 - 2 p) r``. A binary reward is flipped with probability p;
  a likelihood is first rounded to 1 with probability r (the one-bit mechanism), so that its mean survives;
* ``gaussian``: ``r + N(0, sigma^2)``, clipped to [0, 1];
* ``laplace``: ``r + Laplace(b)``, clipped to [0, 1].

Clipping is post-processing: it costs no privacy, but it pulls strong noise towards both ends. A probe bit is protected like a
reward and then rounded at one half. The same message to the same client has the same noise: a repeat after a failure is the
same release, and asking again for its own sake gains nothing, unless the candidates, the question or the draw differ.

What is protected is one *record* of one client, and a client has two kinds:

* a trusted answer decides every reward that its owner gives by AE for that question. With it added or removed all G scores may
  change (without it the client's model scores): n = G numbers a reply. If only *which answer* it is has to be hidden, and not
  that there is one, only the candidates that give the old or the new answer change: n is the sum of the two largest
  numbers of candidates that agree (``epsilon_if_replaced``; with numeric matching it is G again);
* a training row of the client's own model may change every reward by ME and every probe bit: n is all of them together.
  Unless that model was itself trained with DP-SGD: then whatever it says is free post-processing of it.

Nothing here bounds n: it is counted when the run is over, and a promise made beforehand needs a limit on the replies.

References:
    Warner, Randomized Response, JASA 60 (1965); Ding, Kulkarni, Yekhanin, Collecting Telemetry Data Privately, NeurIPS 2017,
    section 3 (the one-bit mechanism); Dwork, Roth, The Algorithmic Foundations of Differential Privacy (2014), section 3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from pydantic import Field, model_validator

from fedsim.config.strict import StrictModel
from fedsim.privacy.composition import ScalarMechanism
from fedsim.sim import streams
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule

_NORMAL = NormalDist()


class RewardNoiseConfig(StrictModel):
    """Noise that a client adds to every number that it sends."""

    mechanism: ScalarMechanism = Field(
        "randomised_response",
        description="randomised_response: one bit a number, flipped with a probability; gaussian or laplace: added, then "
        "clipped to [0, 1]",
    )
    noise: float = Field(
        gt=0,
        le=1e6,
        description="probability of a flip, below 0.5 (randomised_response), standard deviation (gaussian), or scale b "
        "(laplace); rewards lie in [0, 1]",
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="probability that epsilon does not cover; far below 1 / rows"
    )

    @model_validator(mode="after")
    def _flips_less_than_half(self) -> RewardNoiseConfig:
        if self.mechanism == "randomised_response" and self.noise >= 0.5:
            raise ValueError(
                f"noise is {self.noise:g}, a probability of a flip; must be below 0.5, where nothing is said at all"
            )
        return self


@dataclass(slots=True)
class AnswerReleases:
    """What was said about one trusted answer: replies, all their scores, and how many another answer could have changed."""

    replies: int = 0
    scores: int = 0
    replaceable: int = 0


@dataclass(slots=True)
class Released:
    """What one client has released, counted when it was computed: also what was cut on its way or came too late.

    Attributes:
        model_rewards: rewards by its own model (ME).
        probe_bits: different exemplars of which it said whether it knows them.
        answers: per question of which it owns a trusted answer (AE).
    """

    model_rewards: int = 0
    probe_bits: int = 0
    answers: dict[str, AnswerReleases] = field(default_factory=dict)


class RewardNoise:
    """One client's noise and what it was spent on.

    Args:
        config: the mechanism.
        seed: root of the draws.
        client_id: whose.
        rule: how answers are compared, for what another answer could change.
    """

    def __init__(self, config: RewardNoiseConfig, seed: int, client_id: int, rule: AnswerRule) -> None:
        self.config = config
        self.client_id = client_id
        self.released = Released()
        self._key = (seed, "reward noise", client_id)
        self._rule = rule
        self._known: set[bytes] = set()

    def protected(self, message: wire.Message, said: wire.Message, evaluator: str) -> wire.Message:
        """What was said to a message with noise on each of its numbers, and that on the books.

        Args:
            message: what was asked.
            said: what the client computed for it.
            evaluator: how it was come by; ``AE`` is by a trusted answer.

        Raises:
            TypeError: a reply of a kind whose numbers cannot be protected one by one.
        """
        if isinstance(message, wire.Candidates) and type(said) is wire.Rewards:
            self._count_rewards(message, evaluator)
            about = (message.draw, message.question)
            keys = [(*about, place, text) for place, text in enumerate(message.candidates)]
            return wire.Rewards(said.draw, tuple(self._noisy(said.rewards, keys)))
        if isinstance(message, wire.ProbeExemplars) and isinstance(said, wire.ProbeBits):
            count = len(message.questions)
            bits = np.unpackbits(np.frombuffer(said.bits, np.uint8), count=count).astype(float).tolist()
            pairs = zip(message.questions, message.answers, strict=True)
            exemplars: list[tuple[streams.Part, ...]] = [("exemplar", *pair) for pair in pairs]
            self.released.probe_bits += sum(self._is_new(*key) for key in exemplars)
            noisy = [number >= 0.5 for number in self._noisy(bits, exemplars)]
            return wire.ProbeBits(said.draw, np.packbits(noisy).tobytes())
        raise TypeError(f"a {type(said).__name__} has no numbers that noise protects one by one")

    def _noisy(self, numbers: Sequence[float], keys: Sequence[tuple[streams.Part, ...]]) -> list[float]:
        config = self.config
        return [
            noisy(number, config.mechanism, config.noise, streams.uniform(*self._key, *key))
            for number, key in zip(numbers, keys, strict=True)
        ]

    def _count_rewards(self, message: wire.Candidates, evaluator: str) -> None:
        if not self._is_new("group", message.draw, message.question, *message.candidates):
            return
        if evaluator != "AE":
            self.released.model_rewards += len(message.candidates)
            return
        about = self.released.answers.setdefault(message.question, AnswerReleases())
        about.replies += 1
        about.scores += len(message.candidates)
        about.replaceable += replaceable_scores(self._rule, message.candidates)

    def _is_new(self, *parts: streams.Part) -> bool:
        key = streams.digest(*parts)
        if key in self._known:
            return False
        self._known.add(key)
        return True


def noisy(number: float, mechanism: ScalarMechanism, noise: float, uniform: float) -> float:
    """One number in [0, 1] under a mechanism, from one uniform draw in (0, 1); in [0, 1] again.

    >>> noisy(1.0, "randomised_response", 0.25, 0.7), noisy(1.0, "randomised_response", 0.25, 0.8)
    (1.0, 0.0)
    >>> noisy(0.25, "gaussian", 0.1, 0.5), noisy(0.25, "laplace", 0.1, 0.5)
    (0.25, 0.25)
    """
    if mechanism == "randomised_response":
        return float(uniform < noise + (1.0 - 2.0 * noise) * number)
    if mechanism == "gaussian":
        drawn = noise * _NORMAL.inv_cdf(uniform)
    else:
        size = -noise * math.log(2.0 * min(uniform, 1.0 - uniform))  # of the nearer tail
        drawn = math.copysign(size, uniform - 0.5)
    return min(1.0, max(0.0, number + drawn))


def replaceable_scores(rule: AnswerRule, candidates: Sequence[str]) -> int:
    """How many of the scores 1[candidate = answer] another answer can change: the two largest numbers of agreeing candidates.

    With ``numeric`` matching agreement is not transitive, and all of them count.

    >>> replaceable_scores(AnswerRule(), ["7", "7", "8", "9"])
    3
    """
    if rule.match == "numeric":
        return len(candidates)
    counts = Counter(filter(None, (rule.key(text) for text in candidates)))
    return sum(count for _, count in counts.most_common(2))
