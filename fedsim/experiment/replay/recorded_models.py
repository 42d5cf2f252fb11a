"""Models that keep a tape of what they say, and stand-ins that say it again: one set of classes is both.

Each wraps one role of ``fedsim.models.interfaces``. While the tape replays there is no model behind it: the models of a run are
loaded when they are first needed (`RecordedModels.live`), which is at the checkpoint where a resumed run goes on, or never.
Numbers of tokens are kept once per text; arrays travel as their bytes, weights as blobs beside the tape
(``fedsim.experiment.replay.blobs``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fedsim.experiment.replay.blobs import Blobs
from fedsim.experiment.replay.checkpoints import Checkpoints, Learner
from fedsim.experiment.replay.tape import Tape, checksum
from fedsim.models.client_training_config import LocalTrainingConfig
from fedsim.models.interfaces import (
    Accuracy,
    Candidate,
    CandidateGroup,
    Components,
    Draw,
    Evaluator,
    FloatArray,
    LocalUpdate,
    Synthesis,
    UpdateStats,
    Weights,
)
from fedsim.privacy.config import SynthesisConfig
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.tasks.questions import Question, TaskData

_MOST_COUNTS = 200_000
_EMBEDDED_AT_ONCE = 1000  # so that a frame stays small, whatever the model's width


class RecordedModels:
    """What the recorded models of one run share: the tape, the blobs, the checkpoints, and the models once they are there.

    Args:
        tape: where results are read and written.
        blobs: where weights are.
        checkpoints: where learning states are; None writes none.
        hashes: what the weights hash to, by model; may be filled when they are loaded.
        load: loads or trains the models.
    """

    def __init__(
        self,
        tape: Tape,
        blobs: Blobs,
        checkpoints: Checkpoints | None,
        hashes: Mapping[str, str],
        load: Callable[[], Components],
    ) -> None:
        self.tape = tape
        self.blobs = blobs
        self.hashes = hashes
        self._checkpoints = checkpoints
        self._load = load
        self._components: Components | None = None

    @property
    def is_live(self) -> bool:
        """Whether the models are loaded."""
        return self._components is not None

    def live(self) -> Components:
        """The models themselves."""
        if self._components is None:
            self._components = self._load()
        return self._components

    def call(self, kind: str, asked: int, ask: Callable[[Components], Any]) -> Any:
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

    def save(self, folder: Path) -> None:
        """Write the final policy of the models themselves."""
        save = self.live().save
        assert save is not None
        save(folder)

    def _learner(self) -> Learner:
        policy: Any = self.live().policy
        assert isinstance(policy, Learner)
        return policy

    def specs(self) -> tuple[ModelSpec, ...]:
        """The architectures of the server's model and of the clients' (see `Components.client_specs`)."""

        def ask(components: Components) -> list[dict[str, Any]]:
            return [asdict(spec) for spec in (components.server_spec, *components.client_specs)]

        return msgspec.convert(self.call("specs", 0, ask), tuple[ModelSpec, ...])


def recorded_components(recorded: RecordedModels, settings: Any, data: TaskData) -> Components:
    """The components of a run whose models keep a tape; ``settings`` are its protocol's."""
    server_spec, *client_specs = recorded.specs()
    policy = RecordedPolicy(recorded)
    return Components(
        data=data,
        policy=policy,
        frozen=RecordedEvaluator(recorded, -1),
        evaluators=[RecordedEvaluator(recorded, client_id) for client_id in range(data.num_clients)],
        server_spec=server_spec,
        client_specs=tuple(client_specs),
        hashes=recorded.hashes,
        save=recorded.save,
        trainer=RecordedTrainer(recorded, policy) if isinstance(settings, LocalTrainingConfig) else None,
        synthesiser=RecordedSynthesiser(recorded)
        if isinstance(getattr(settings, "synthesis", None), SynthesisConfig)
        else None,
    )


class _TokenCounts:
    """Tokens of texts, each on the tape once (again when so many others came since that it was forgotten)."""

    def __init__(self, recorded: RecordedModels, whose: int, count: Callable[[Components, str], int]) -> None:
        self._recorded = recorded
        self._whose = whose
        self._count = count
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _MOST_COUNTS:
                self._known.clear()
            asked = checksum(self._whose, text)
            known = int(
                self._recorded.call("tokens", asked, lambda components: self._count(components, text))
            )
            self._known[text] = known
        return known


class RecordedPolicy:
    """Implements ``fedsim.models.interfaces.Policy`` over a tape."""

    def __init__(self, recorded: RecordedModels) -> None:
        self._recorded = recorded
        self._version = 0
        self._tokens = _TokenCounts(
            recorded, -2, lambda components, text: components.policy.count_tokens(text)
        )

    @property
    def version(self) -> int:
        """0 at the start, one more after every step."""
        return self._version

    def sample(self, draws: Sequence[Draw]) -> list[CandidateGroup]:
        """G candidates per draw."""

        def ask(components: Components) -> list[list[tuple[str, int, bool]]]:
            groups = components.policy.sample(draws)
            return [[(c.text, c.num_tokens, c.truncated) for c in group.candidates] for group in groups]

        asked = checksum(self._version, *(draw.index for draw in draws))
        rows = self._recorded.call("sample", asked, ask)
        return [
            CandidateGroup(draw, self._version, tuple(Candidate(*one) for one in row))
            for draw, row in zip(draws, rows, strict=True)
        ]

    def update(self, groups: Sequence[CandidateGroup], advantages: Sequence[FloatArray]) -> UpdateStats:
        """One optimiser step; afterwards the learning state may be kept."""
        asked = checksum(
            *(group.draw.index for group in groups), *(gains.tobytes().hex() for gains in advantages)
        )
        return self._step(
            "update", asked, lambda components: asdict(components.policy.update(groups, advantages))
        )

    def fit(self, rows: Sequence[Question], steps: int) -> UpdateStats:
        """Supervised steps; afterwards the learning state may be kept."""
        asked = checksum(steps, *(row.question_id for row in rows))
        return self._step("fit", asked, lambda components: asdict(components.policy.fit(rows, steps)))

    def forget(self, draw_indices: Sequence[int]) -> None:
        """Told to the model, if there is one; a checkpoint holds what it remembered."""
        if self._recorded.is_live:
            self._recorded.live().policy.forget(draw_indices)

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
        found = self._recorded.call(
            "evaluate", asked, lambda components: asdict(components.policy.evaluate(questions, num_samples))
        )
        return msgspec.convert(found, Accuracy)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return self._tokens(text)

    def _embedded(self, questions: Sequence[Question]) -> FloatArray:
        asked = checksum(*(question.question_id for question in questions))
        return _array(
            self._recorded.call(
                "embed", asked, lambda components: _packed_array(components.policy.embed(questions))
            )
        )

    def _step(self, kind: str, asked: int, ask: Callable[[Components], Any]) -> UpdateStats:
        found = self._recorded.call(kind, asked, ask)
        self.new_version()
        return msgspec.convert(found, UpdateStats)

    def new_version(self) -> None:
        """Count a version that the model has made."""
        self._version += 1
        self._recorded.stepped()


class RecordedEvaluator:
    """Implements ``fedsim.models.interfaces.Evaluator`` over a tape; client -1 is the frozen initial policy."""

    def __init__(self, recorded: RecordedModels, client_id: int) -> None:
        self._recorded = recorded
        self._client_id = client_id
        self._tokens = _TokenCounts(
            recorded, client_id, lambda components, text: self._of(components).count_tokens(text)
        )

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Told to the model, if there is one."""
        if self._recorded.is_live:
            self._of(self._recorded.live()).expect(question, candidates)

    def expect_answer(self, question: str) -> None:
        """Told to the model, if there is one."""
        if self._recorded.is_live:
            self._of(self._recorded.live()).expect_answer(question)

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        """Probabilities of whole answers."""
        asked = checksum(self._client_id, question, *candidates)
        found: list[float] = self._recorded.call(
            "likelihood",
            asked,
            lambda components: list(self._of(components).likelihood(question, candidates)),
        )
        return found

    def answers(self, questions: Sequence[str]) -> list[str]:
        """Own greedy answers."""
        asked = checksum(self._client_id, *questions)
        found: list[str] = self._recorded.call(
            "answers", asked, lambda components: list(self._of(components).answers(questions))
        )
        return found

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return self._tokens(text)

    def _of(self, components: Components) -> Evaluator:
        return components.frozen if self._client_id < 0 else components.evaluators[self._client_id]


class RecordedTrainer:
    """Implements ``fedsim.models.interfaces.LocalTrainer`` over a tape, with weights as blobs."""

    def __init__(self, recorded: RecordedModels, policy: RecordedPolicy) -> None:
        self._recorded = recorded
        self._policy = policy

    def start(self) -> Weights:
        """The weights that all clients start from."""
        kept = self._recorded.call(
            "start", 0, lambda components: self._recorded.blobs.put(_trainer(components).start())
        )
        return self._recorded.blobs.get(kept)

    def tune(
        self, client_id: int, round_index: int, weights: Weights, rows: Sequence[Question]
    ) -> LocalUpdate:
        """Local training."""

        def ask(components: Components) -> list[Any]:
            update = _trainer(components).tune(client_id, round_index, weights, rows)
            return [self._recorded.blobs.put(update.weights), update.loss, update.steps, update.sampled]

        asked = checksum(client_id, round_index, *(row.question_id for row in rows))
        kept, loss, steps, sampled = self._recorded.call("tune", asked, ask)
        exercises = tuple(tuple((text, tuple(texts)) for text, texts in step) for step in steps)
        return LocalUpdate(self._recorded.blobs.get(kept), loss, exercises, sampled)

    def install(self, weights: Weights) -> None:
        """Make these the live policy's weights."""

        def ask(components: Components) -> None:
            _trainer(components).install(weights)

        self._recorded.call("install", checksum(*weights), ask)
        self._policy.new_version()


class RecordedSynthesiser:
    """Implements ``fedsim.models.interfaces.Synthesiser`` over a tape."""

    def __init__(self, recorded: RecordedModels) -> None:
        self._recorded = recorded
        self._asked: list[tuple[int, Sequence[Question], int]] = []

    def synthesise(self, client_id: int, rows: Sequence[Question], count: int) -> Synthesis:
        """Synthetic rows."""
        asked = checksum(client_id, count, *(row.question_id for row in rows))

        def ask(components: Components) -> Any:
            return msgspec.to_builtins(_synthesiser(components).synthesise(client_id, rows, count))

        if not self._recorded.is_live:
            self._asked.append((client_id, rows, count))
        return msgspec.convert(self._recorded.call("synthesise", asked, ask), Synthesis)

    def report(self) -> list[dict[str, Any]]:
        """What every client's release was."""

        def ask(components: Components) -> list[dict[str, Any]]:
            for (
                client_id,
                rows,
                count,
            ) in self._asked:  # what was read from the tape is in no book of the model's yet
                _synthesiser(components).synthesise(client_id, rows, count)
            made: list[dict[str, Any]] = _synthesiser(components).report()
            return made

        found: list[dict[str, Any]] = self._recorded.call("report", 0, ask)
        return found


def _trainer(components: Components) -> Any:
    assert components.trainer is not None
    return components.trainer


def _synthesiser(components: Components) -> Any:
    assert components.synthesiser is not None
    return components.synthesiser


def _packed_array(array: FloatArray) -> list[Any]:
    return [list(array.shape), np.ascontiguousarray(array, dtype="<f8").tobytes()]


def _array(packed: Sequence[Any]) -> FloatArray:
    shape, content = packed
    return np.frombuffer(content, dtype="<f8").reshape(shape).astype(np.float64)
