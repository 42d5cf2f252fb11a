"""Models that keep a tape of what they say, and stand-ins that say it again: one set of classes is both.

Each wraps one role of ``fedsim.models.interfaces``. While the tape replays there is no model behind it: the models of a run are
loaded when they are first needed (`Stage.live`), which is at the checkpoint where a resumed run goes on, or never. Numbers of
tokens are kept once per text; arrays travel as their bytes, weights as blobs beside the tape
(``fedsim.experiment.replay.blobs``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fedsim.experiment.components import Cast
from fedsim.experiment.replay.blobs import Blobs
from fedsim.experiment.replay.checkpoints import Checkpoints, Learner
from fedsim.experiment.replay.tape import Tape, checksum
from fedsim.models.client_training_config import LocalTrainingConfig
from fedsim.models.interfaces import (
    Accuracy,
    Candidate,
    Draw,
    Evaluator,
    FloatArray,
    Group,
    LocalUpdate,
    Synthesis,
    UpdateStats,
    Weights,
)
from fedsim.privacy.config import SynthesisConfig
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.tasks.questions import Question, TaskData

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

_MOST_COUNTS = 200_000
_EMBEDDED_AT_ONCE = 1000  # so that a frame stays small, whatever the model's width


class Stage:
    """What the recorded models of one run share: the tape, the blobs, the checkpoints, and the models once they are there.

    Args:
        tape: where results are read and written.
        blobs: where weights are.
        checkpoints: where learning states are; None writes none.
        load: loads or trains the models.
    """

    def __init__(
        self, tape: Tape, blobs: Blobs, checkpoints: Checkpoints | None, load: Callable[[], Cast]
    ) -> None:
        self.tape = tape
        self.blobs = blobs
        self._checkpoints = checkpoints
        self._load = load
        self._cast: Cast | None = None

    @property
    def is_live(self) -> bool:
        """Whether the models are loaded."""
        return self._cast is not None

    def live(self) -> Cast:
        """The models themselves."""
        if self._cast is None:
            self._cast = self._load()
        return self._cast

    def call(self, kind: str, asked: int, ask: Callable[[Cast], Any]) -> Any:
        """One result, from the tape or from the models."""
        return self.tape.call(kind, asked, lambda: ask(self.live()))

    def stepped(self) -> None:
        """The policy has a new version: keep its state when it is time, or take over from a replay that ends here."""
        replayed = self.tape.replaying
        self.tape.pass_checkpoints()
        if self._checkpoints is None:
            return
        if replayed and not self.tape.replaying:
            self._checkpoints.restore(self._learner())
        elif not replayed and self.tape.recording and self._checkpoints.due():
            self._checkpoints.save(self._learner(), self.tape)

    def _learner(self) -> Learner:
        policy: Any = self.live().policy
        assert isinstance(policy, Learner)
        return policy

    def specs(self) -> tuple[ModelSpec, ModelSpec]:
        """The architectures of the server's and the clients' models."""

        def ask(cast: Cast) -> list[dict[str, Any]]:
            return [asdict(cast.server_spec), asdict(cast.client_spec)]

        server, clients = self.call("specs", 0, ask)
        return msgspec.convert(server, ModelSpec), msgspec.convert(clients, ModelSpec)


def recorded_cast(stage: Stage, scenario: Scenario, data: TaskData, hashes: dict[str, str]) -> Cast:
    """The cast of a run whose models keep a tape; ``hashes`` are what their weights hash to."""
    settings = scenario.protocol
    server_spec, client_spec = stage.specs()
    policy = RecordedPolicy(stage)
    return Cast(
        data=data,
        policy=policy,
        frozen=RecordedEvaluator(stage, -1),
        evaluators=[RecordedEvaluator(stage, client_id) for client_id in range(data.num_clients)],
        server_spec=server_spec,
        client_spec=client_spec,
        hashes=hashes,
        save=lambda folder: stage.live().save(folder),
        trainer=RecordedTrainer(stage, policy) if isinstance(settings, LocalTrainingConfig) else None,
        synthesiser=RecordedSynthesiser(stage)
        if isinstance(getattr(settings, "synthesis", None), SynthesisConfig)
        else None,
    )


class _TokenCounts:
    """Tokens of texts, each on the tape once (again when so many others came since that it was forgotten)."""

    def __init__(self, stage: Stage, whose: int, count: Callable[[Cast, str], int]) -> None:
        self._stage = stage
        self._whose = whose
        self._count = count
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _MOST_COUNTS:
                self._known.clear()
            asked = checksum(self._whose, text)
            known = int(self._stage.call("tokens", asked, lambda cast: self._count(cast, text)))
            self._known[text] = known
        return known


class RecordedPolicy:
    """Implements ``fedsim.models.interfaces.Policy`` over a tape."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._version = 0
        self._tokens = _TokenCounts(stage, -2, lambda cast, text: cast.policy.count_tokens(text))

    @property
    def version(self) -> int:
        """0 at the start, one more after every step."""
        return self._version

    def sample(self, draws: Sequence[Draw]) -> list[Group]:
        """G candidates per draw."""

        def ask(cast: Cast) -> list[list[tuple[str, int, bool]]]:
            groups = cast.policy.sample(draws)
            return [[(c.text, c.num_tokens, c.truncated) for c in group.candidates] for group in groups]

        asked = checksum(self._version, *(draw.index for draw in draws))
        rows = self._stage.call("sample", asked, ask)
        return [
            Group(draw, self._version, tuple(Candidate(*one) for one in row))
            for draw, row in zip(draws, rows, strict=True)
        ]

    def update(self, groups: Sequence[Group], advantages: Sequence[FloatArray]) -> UpdateStats:
        """One optimiser step; afterwards the learning state may be kept."""
        asked = checksum(
            *(group.draw.index for group in groups), *(gains.tobytes().hex() for gains in advantages)
        )
        return self._step("update", asked, lambda cast: asdict(cast.policy.update(groups, advantages)))

    def fit(self, rows: Sequence[Question], steps: int) -> UpdateStats:
        """Supervised steps; afterwards the learning state may be kept."""
        asked = checksum(steps, *(row.question_id for row in rows))
        return self._step("fit", asked, lambda cast: asdict(cast.policy.fit(rows, steps)))

    def forget(self, draw_indices: Sequence[int]) -> None:
        """Told to the model, if there is one; a checkpoint holds what it remembered."""
        if self._stage.is_live:
            self._stage.live().policy.forget(draw_indices)

    def embed(self, questions: Sequence[Question]) -> FloatArray:
        """Embeddings ``[n, d]``."""
        parts = [
            questions[start : start + _EMBEDDED_AT_ONCE]
            for start in range(0, max(1, len(questions)), _EMBEDDED_AT_ONCE)
        ]
        return np.concatenate([self._embedded(part) for part in parts])

    def evaluate(self, questions: Sequence[Question], num_samples: int) -> Accuracy:
        """Accuracy of the live version."""
        asked = checksum(self._version, num_samples, *(question.question_id for question in questions))
        found = self._stage.call(
            "evaluate", asked, lambda cast: asdict(cast.policy.evaluate(questions, num_samples))
        )
        return msgspec.convert(found, Accuracy)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return self._tokens(text)

    def _embedded(self, questions: Sequence[Question]) -> FloatArray:
        asked = checksum(*(question.question_id for question in questions))
        return _array(
            self._stage.call("embed", asked, lambda cast: _packed_array(cast.policy.embed(questions)))
        )

    def _step(self, kind: str, asked: int, ask: Callable[[Cast], Any]) -> UpdateStats:
        found = self._stage.call(kind, asked, ask)
        self.new_version()
        return msgspec.convert(found, UpdateStats)

    def new_version(self) -> None:
        """Count a version that the model has made."""
        self._version += 1
        self._stage.stepped()


class RecordedEvaluator:
    """Implements ``fedsim.models.interfaces.Evaluator`` over a tape; client -1 is the frozen initial policy."""

    def __init__(self, stage: Stage, client_id: int) -> None:
        self._stage = stage
        self._client_id = client_id
        self._tokens = _TokenCounts(stage, client_id, lambda cast, text: self._of(cast).count_tokens(text))

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Told to the model, if there is one."""
        if self._stage.is_live:
            self._of(self._stage.live()).expect(question, candidates)

    def expect_answer(self, question: str) -> None:
        """Told to the model, if there is one."""
        if self._stage.is_live:
            self._of(self._stage.live()).expect_answer(question)

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """Probabilities of whole answers."""
        asked = checksum(self._client_id, question, *candidates)
        found: list[float] = self._stage.call(
            "likelihood", asked, lambda cast: list(self._of(cast).likelihood(question, candidates))
        )
        return found

    def answers(self, questions: Sequence[str]) -> list[str]:
        """Own greedy answers."""
        asked = checksum(self._client_id, *questions)
        found: list[str] = self._stage.call(
            "answers", asked, lambda cast: list(self._of(cast).answers(questions))
        )
        return found

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return self._tokens(text)

    def _of(self, cast: Cast) -> Evaluator:
        return cast.frozen if self._client_id < 0 else cast.evaluators[self._client_id]


class RecordedTrainer:
    """Implements ``fedsim.models.interfaces.LocalTrainer`` over a tape, with weights as blobs."""

    def __init__(self, stage: Stage, policy: RecordedPolicy) -> None:
        self._stage = stage
        self._policy = policy

    def start(self) -> Weights:
        """The weights that all clients start from."""
        kept = self._stage.call("start", 0, lambda cast: self._stage.blobs.put(_trainer(cast).start()))
        return self._stage.blobs.get(kept)

    def tune(
        self, client_id: int, round_index: int, weights: Weights, rows: Sequence[Question]
    ) -> LocalUpdate:
        """Local training."""

        def ask(cast: Cast) -> list[Any]:
            update = _trainer(cast).tune(client_id, round_index, weights, rows)
            return [self._stage.blobs.put(update.weights), update.loss, update.steps, update.sampled]

        asked = checksum(client_id, round_index, *(row.question_id for row in rows))
        kept, loss, steps, sampled = self._stage.call("tune", asked, ask)
        exercises = tuple(tuple((text, tuple(texts)) for text, texts in step) for step in steps)
        return LocalUpdate(self._stage.blobs.get(kept), loss, exercises, sampled)

    def install(self, weights: Weights) -> None:
        """Make these the live policy's weights."""

        def ask(cast: Cast) -> None:
            _trainer(cast).install(weights)

        self._stage.call("install", checksum(*weights), ask)
        self._policy.new_version()


class RecordedSynthesiser:
    """Implements ``fedsim.models.interfaces.Synthesiser`` over a tape."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._asked: list[tuple[int, Sequence[Question], int]] = []

    def synthesise(self, client_id: int, rows: Sequence[Question], count: int) -> Synthesis:
        """Synthetic rows."""
        asked = checksum(client_id, count, *(row.question_id for row in rows))

        def ask(cast: Cast) -> Any:
            return msgspec.to_builtins(_synthesiser(cast).synthesise(client_id, rows, count))

        if not self._stage.is_live:
            self._asked.append((client_id, rows, count))
        return msgspec.convert(self._stage.call("synthesise", asked, ask), Synthesis)

    def report(self) -> list[dict[str, Any]]:
        """What every client's release was."""

        def ask(cast: Cast) -> list[dict[str, Any]]:
            for (
                client_id,
                rows,
                count,
            ) in self._asked:  # what was read from the tape is in no book of the model's yet
                _synthesiser(cast).synthesise(client_id, rows, count)
            made: list[dict[str, Any]] = _synthesiser(cast).report()
            return made

        found: list[dict[str, Any]] = self._stage.call("report", 0, ask)
        return found


def _trainer(cast: Cast) -> Any:
    assert cast.trainer is not None
    return cast.trainer


def _synthesiser(cast: Cast) -> Any:
    assert cast.synthesiser is not None
    return cast.synthesiser


def _packed_array(array: FloatArray) -> list[Any]:
    return [list(array.shape), np.ascontiguousarray(array, dtype="<f8").tobytes()]


def _array(packed: Sequence[Any]) -> FloatArray:
    shape, content = packed
    return np.frombuffer(content, dtype="<f8").reshape(shape).astype(np.float64)
