"""What each side of a protocol knows: the server's state and a client's state, and nothing of each other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fedsim.federation.billed_sizes import TokenCounts
from fedsim.models.interfaces import Evaluator, FloatArray, LocalTrainer, Policy, Synthesiser
from fedsim.privacy.rewards import RewardNoise
from fedsim.protocols.shared.monitor import Monitor
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import Question, TaskData

T = TypeVar("T")


class OneResult:
    """One result of a pure computation, for handlers whose cost is known only from the result.

    A device computes one message at a time: its cost is asked for first (``early``), its reply afterwards (``due``), unless
    the device gave up in between; the next message then takes the place. The message is told by identity.
    """

    __slots__ = ("_message", "_result")

    def __init__(self) -> None:
        self._message: Any = None
        self._result: Any = None

    def early(self, message: object, compute: Callable[[], T]) -> T:
        """The result for this message, computed now and kept."""
        if self._message is not message:
            self._message, self._result = message, compute()
        kept: T = self._result
        return kept

    def due(self, message: object, compute: Callable[[], T]) -> T:
        """The result for this message, computed now only if it was not kept; kept no longer."""
        result = self.early(message, compute)
        self._message = self._result = None
        return result


@dataclass(frozen=True, slots=True)
class ClientState:
    """What one client knows; the only thing its handlers see besides the message.

    Attributes:
        client_id: its number.
        evaluator: its own trained model.
        spec: the model's architecture, for the cost of work.
        trusted: answers it owns, by question text (AE).
        answers: how an answer is read from text and compared.
        tokens: how many tokens a text counts.
        model_score: how its model scores a candidate (ME): ``likelihood``, ``answer_likelihood`` or ``agreement``.
        rows: its private rows.
        trainer: trains the server's model on those rows (protocols that move weights).
        synthesiser: makes synthetic rows of them (protocols that move synthetic data).
        trained_spec: the server's architecture, for the cost of training that model; None: as ``spec``.
        once: keeps a result from when its cost was asked for until it is due.
        noise: what it adds to every number that it sends; None: nothing.
    """

    client_id: int
    evaluator: Evaluator
    spec: ModelSpec
    trusted: Mapping[str, str]
    answers: AnswerRule
    tokens: TokenCounts
    model_score: str = "likelihood"
    rows: tuple[Question, ...] = ()
    trainer: LocalTrainer | None = None
    synthesiser: Synthesiser | None = None
    trained_spec: ModelSpec | None = None
    once: OneResult = field(default_factory=OneResult)
    noise: RewardNoise | None = None


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server's half of a protocol gets.

    Attributes:
        seed: root of every draw.
        policy: the live policy.
        frozen: the initial policy as a scorer (the ``self`` control).
        data: the task data; the truth in ``data.pool`` is for controls that say so.
        spec: the policy's architecture, for the cost of work.
        tokens: how many tokens a text counts.
        monitor: keeps the books of learning and says when to stop.
        client_accuracy: the clients' true accuracy per domain, ``[K, D]``: the simulator's knowledge, for ``oracle``.
        trainer: puts trained weights into the policy (protocols that move weights).
        artefacts: what a protocol leaves for the run folder, by name; called once, at the end.
    """

    seed: int
    policy: Policy
    frozen: Evaluator
    data: TaskData
    spec: ModelSpec
    tokens: TokenCounts
    monitor: Monitor
    client_accuracy: Callable[[], FloatArray]
    trainer: LocalTrainer | None = None
    artefacts: dict[str, Callable[[], Any]] = field(default_factory=dict)
