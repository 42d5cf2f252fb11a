"""Policies and evaluators that are tables, and a stage on which any protocol plays with them; no torch.

Every computation of a device or of the server takes exactly the seconds that its profile says, messages take no time
unless a profile says so, and what reaches a client's handler is written down (``Stage.told``).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedsim import protocols
from fedsim.experiment.simulation import raise_plainly
from fedsim.federation.billed_sizes import TokenizerCounts
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.federation.world import World
from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import (
    Accuracy,
    Candidate,
    CandidateGroup,
    Draw,
    FloatArray,
    LocalTrainer,
    Synthesiser,
    UpdateStats,
)
from fedsim.progress import SilentProgress
from fedsim.protocols.shared.monitor import EvaluationConfig, Monitor, StopConfig
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.records import invariants
from fedsim.records.log import RecordLog
from fedsim.records.rows import Group as GroupRow
from fedsim.records.rows import Outcome, Transfer, Update
from fedsim.sim import streams
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.dropout import Dropout
from fedsim.sim.devices.presence import AlwaysOn, Availability
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.sim.network import wire
from fedsim.sim.network.link import SharedLink
from fedsim.sim.network.transport import Transport
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.questions import Question, TaskData
from tests.samples.worlds import IDEAL, INSTANT, NO_DROPOUT

SPEC = ModelSpec(num_layers=1, hidden=8, num_heads=1, num_kv_heads=1, head_dim=8, ffn=8, vocab=10, tied=True)
GROUP_SIZE = 4
COUNTS = TokenizerCounts(len)


def device(seconds: float = 1.0, name: str = "fake") -> DeviceProfile:
    """A device whose every computation takes so many seconds, and whose link takes none."""
    return replace(
        INSTANT,
        device_class=name,
        peak_flop_per_s=2.0**90,
        memory_bytes_per_s=2.0**90,
        overhead_s=seconds,
    )


def settings(name: str, **keys: Any) -> Any:
    """A protocol's settings as a scenario file would give them."""
    return protocols.load(name).Config.model_validate_json(json.dumps({"name": name, **keys}))


def question(domain: str, number: int) -> Question:
    """Question ``a7`` of domain ``a``, whose answer is ``7``."""
    return Question(number, domain, f"{domain}{number}", str(number))


def task_data(
    *,
    num_clients: int,
    domains: Sequence[str] = ("a", "b"),
    pool: int = 12,
    auxiliary: int = 8,
    trusted: Sequence[Mapping[int, str]] | None = None,
    answers: AnswerRule | None = None,
) -> TaskData:
    """Pool questions are numbered from 100, exemplars from 0; domains take turns."""
    return TaskData(
        domains=tuple(domains),
        public=(),
        private=((),) * num_clients,
        auxiliary=tuple(question(domains[i % len(domains)], i) for i in range(auxiliary)),
        pool=tuple(question(domains[i % len(domains)], 100 + i) for i in range(pool)),
        validation=(question(domains[0], 900),),
        test=(question(domains[0], 901),),
        trusted=tuple(trusted) if trusted is not None else ({},) * num_clients,
        partition=np.zeros((num_clients, len(domains)), dtype=np.int64),
        answers=answers or AnswerRule(),
    )


Texts = Callable[[Draw, int], Sequence[str]]


def mixed_texts(draw: Draw, version: int) -> list[str]:
    """Four candidates of a draw, each right with probability one half by a keyed draw."""
    truth = draw.question.answer
    coins = [streams.uniform("coin", draw.index, g) < 0.5 for g in range(GROUP_SIZE)]
    return [truth if coin else f"wrong {g}" for g, coin in enumerate(coins)]


@dataclass(frozen=True)
class Step:
    """One optimiser step as the policy saw it."""

    version: int
    draws: tuple[int, ...]
    sampled_at: tuple[int, ...]
    advantages: tuple[tuple[float, ...], ...]


class FakePolicy:
    """Candidates by rule; remembers what it was asked to learn."""

    def __init__(
        self, texts: Texts = mixed_texts, truncated: str = "cut off", accuracy: Sequence[float] = ()
    ) -> None:
        self.version = 0
        self.steps: list[Step] = []
        self.fits: list[list[Question]] = []
        self.sampled: list[tuple[int, int]] = []
        self.forgotten: list[int] = []
        self._texts = texts
        self._truncated = truncated
        self._accuracy = accuracy

    def sample(self, draws: Sequence[Draw]) -> list[CandidateGroup]:
        self.sampled += [(self.version, draw.index) for draw in draws]
        return [CandidateGroup(draw, self.version, self._candidates(draw)) for draw in draws]

    def update(self, groups: Sequence[CandidateGroup], advantages: Sequence[FloatArray]) -> UpdateStats:
        self.steps.append(
            Step(
                self.version,
                tuple(group.draw.index for group in groups),
                tuple(group.policy_version for group in groups),
                tuple(tuple(row.tolist()) for row in advantages),
            )
        )
        self.version += 1
        return UpdateStats(0.5, 1.5, 0.25, 2.0)

    def fit(self, rows: Sequence[Question], steps: int) -> UpdateStats:
        self.fits.append(list(rows))
        self.version += 1
        return UpdateStats(0.5, 0.0, 0.0, 0.0)

    def forget(self, draw_indices: Sequence[int]) -> None:
        self.forgotten += draw_indices

    def embed(self, questions: Sequence[Question]) -> FloatArray:
        """Domain ``a`` points along the first axis, ``b`` along the second ...; numbers tilt it a little."""
        rows = np.zeros((len(questions), 8))
        for row, one in zip(rows, questions, strict=True):
            row[ord(one.domain[0]) - ord("a")] = 1.0
            row[7] = 0.001 * (one.question_id % 100)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def evaluate(self, questions: Sequence[Question], num_samples: int) -> Accuracy:
        greedy = self._accuracy[min(self.version, len(self._accuracy) - 1)] if self._accuracy else math.nan
        return Accuracy(greedy, greedy, greedy, {"a": greedy}, 1.0, 0.0, len(questions))

    def count_tokens(self, text: str) -> int:
        return len(text)

    def _candidates(self, draw: Draw) -> tuple[Candidate, ...]:
        texts = self._texts(draw, self.version)
        return tuple(Candidate(text, len(text) + 1, text == self._truncated) for text in texts)


class FakeEvaluator:
    """A client's model: right in the domains it knows, and scores by a rule."""

    def __init__(self, knows: str = "", score: Callable[[str, str], float] | None = None) -> None:
        self.knows = knows
        self.asked: list[str] = []
        self._score = score or self._by_knowledge

    def expect(self, question: str, candidates: Sequence[str]) -> None:
        """Nothing to prepare."""

    def expect_answer(self, question: str) -> None:
        """Nothing to prepare."""

    def likelihood(self, question: str, candidates: Sequence[str]) -> list[float]:
        return [self._score(question, candidate) for candidate in candidates]

    def answers(self, questions: Sequence[str]) -> list[str]:
        self.asked += questions
        return [text[1:] if text[0] in self.knows else "?" for text in questions]

    def count_tokens(self, text: str) -> int:
        return len(text)

    def _by_knowledge(self, question: str, candidate: str) -> float:
        return 0.8 if question[0] in self.knows and candidate == question[1:] else 0.1


@dataclass(frozen=True)
class Told:
    """What reached a client's handler, when its reply was computed, and what it replied."""

    at_s: float
    client_id: int
    message: wire.Message
    reply: wire.Message


@dataclass
class Stage:
    """A world, a cast, and what happened."""

    federation: Federation
    monitor: Monitor
    state: ServerState
    log: RecordLog
    told: list[Told] = field(default_factory=list)
    started_at_s: float = 0.0
    ended_at_s: float = math.nan

    @property
    def took_s(self) -> float:
        """Virtual seconds that the protocol played."""
        return self.ended_at_s - self.started_at_s

    @property
    def groups(self) -> list[GroupRow]:
        return self.log.of(GroupRow)

    @property
    def updates(self) -> list[Update]:
        return self.log.of(Update)

    @property
    def outcomes(self) -> list[Outcome]:
        return self.log.of(Outcome)

    @property
    def policy(self) -> Any:
        return self.state.policy

    def experts_of(self, draw: int) -> list[int]:
        """Ids of the clients that were asked to score a draw, in the order of asking."""
        return [row.client_id for row in self.outcomes if row.purpose == "question" and row.subject == draw]

    def wire_bytes(self, purpose: str) -> int:
        return sum(row.wire_bytes for row in self.log.of(Transfer) if row.purpose == purpose)


def stage(
    config: PolicyConfig,
    evaluators: Sequence[Any],
    *,
    data: TaskData | None = None,
    policy: Any = None,
    profiles: Sequence[DeviceProfile] | None = None,
    server: DeviceProfile | None = None,
    availability: Availability | None = None,
    dropout: DropoutConfig = NO_DROPOUT,
    stop: StopConfig | None = None,
    evaluation: EvaluationConfig | None = None,
    client_accuracy: Callable[[], FloatArray] | None = None,
    trainer: LocalTrainer | None = None,
    synthesiser: Synthesiser | None = None,
    seed: int = 0,
) -> Stage:
    """Build the world on the running loop; ``perform`` plays the protocol on it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    data = data or task_data(num_clients=len(evaluators))
    log, told = RecordLog(), []
    world = World(
        seed=seed,
        loop=loop,
        log=log,
        downlink=SharedLink(loop.timeline, math.inf),
        uplink=SharedLink(loop.timeline, math.inf),
        transport=Transport(IDEAL),
        availability=availability or AlwaysOn(),
        dropout=Dropout(dropout, seed),
        handlers=_overheard(protocols.handlers(config), told, loop),
    )
    text_of = {one.question_id: one.text for one in data.pool}
    states = [
        ClientState(
            client_id,
            evaluator,
            SPEC,
            {text_of[number]: answer for number, answer in data.trusted[client_id].items()},
            data.answers,
            TokenizerCounts(evaluator.count_tokens),
            getattr(config, "model_score", "likelihood"),
            data.private[client_id],
            trainer,
            synthesiser,
        )
        for client_id, evaluator in enumerate(evaluators)
    ]
    profiles = profiles or [device()] * len(evaluators)
    federation = Federation(world, profiles, states, server or device(0.25, "server"))
    policy = policy or FakePolicy()
    monitor = Monitor(
        log=log,
        now_s=loop.time,
        policy=policy,
        data=data,
        stop=stop or StopConfig(updates=1),
        evaluation=evaluation or EvaluationConfig(),
        phase=SilentProgress().phase("test"),
        open_requests=lambda: federation.num_open_requests,
    )
    world.on_end.append(monitor.request_ended)
    accuracy = client_accuracy or (lambda: np.full((len(evaluators), len(data.domains)), np.nan))
    state = ServerState(seed, policy, FakeEvaluator("ab"), data, SPEC, COUNTS, monitor, accuracy, trainer)
    return Stage(federation, monitor, state, log, told, started_at_s=loop.time())


async def perform(on: Stage, config: PolicyConfig) -> Stage:
    """Play the protocol until it returns or a stop condition is met; drain, and check the books."""
    on.monitor.start()
    name = config.name  # type: ignore[attr-defined]
    playing = asyncio.create_task(protocols.load(name).run(on.federation, config, on.state), name="protocol")
    stopping = asyncio.create_task(on.monitor.stopped.wait(), name="stop condition")
    await asyncio.wait(
        {playing, stopping}, timeout=on.monitor.stop.virtual, return_when=asyncio.FIRST_COMPLETED
    )
    if playing.done():
        stopping.cancel()
        raise_plainly(playing)
    on.ended_at_s = asyncio.get_running_loop().time()
    for task in (playing, stopping):
        task.cancel()
    await asyncio.wait({playing, stopping})
    on.monitor.finish()
    await on.federation.drain()
    invariants.check(on.log, on.federation.carried_bytes)
    return on


async def play(config: PolicyConfig, evaluators: Sequence[Any], **world: Any) -> Stage:
    """Build a stage and perform on it."""
    return await perform(stage(config, evaluators, **world), config)


def _overheard(
    handlers: Mapping[type[wire.Message], Handler], told: list[Told], loop: VirtualLoop
) -> dict[type[wire.Message], Handler]:
    def wrap(handler: Handler) -> Handler:
        def run(client: ClientState, message: wire.Message) -> HandlerResult:
            reply = handler.run(client, message)
            told.append(Told(loop.time(), client.client_id, message, reply.message))
            return reply

        return replace(handler, run=run)

    return {kind: wrap(handler) for kind, handler in handlers.items()}
