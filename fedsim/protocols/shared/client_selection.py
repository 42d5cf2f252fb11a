"""Who scores: the confidence graph (PAPER eqs. 5 and 6), filled by probing the clients, or one of its controls.

For a question x_s the competence of client k is its own model's accuracy on the L exemplars of Dp nearest to x_s; the M most
competent are asked. ``probe: once`` (default) sends Dp once per client and keeps the K x |Dp| correctness bits on the
server: competence for any question is then a masked mean of bits, and costs no traffic. ``probe: per_question`` is the
paper's broadcast of G(x_s) for every question. Both choose the same experts. Exemplars travel with their labels and
correctness comes back, so that no client text leaves a client for it.

References:
    Zhu et al., FedGRPO, AAAI 2026, arXiv 2602.12014, Algorithm 1 and eqs. 5 and 6.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedsim.config.strict import AtMostClients, StrictModel
from fedsim.errors import FederationError, RequestError
from fedsim.federation.clients import Client, Federation
from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.federation.stragglers.policies import StragglerConfig, Stragglers, refuse_impossible
from fedsim.models.interfaces import Draw, FloatArray
from fedsim.protocols.shared.boundary import refused_bits, refused_competence
from fedsim.protocols.shared.confidence_graph import ConfidenceGraph, mean_correct
from fedsim.protocols.shared.expert_ranking import (
    all_experts,
    best_experts,
    competent_enough,
    random_experts,
)
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.sim.devices.cost import Work, generate_work
from fedsim.sim.network import wire

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

_MAX_PROBES = 100
_MOST_PASSED_OVER = 100
_MOST_KEPT = 1 << 20  # competences that are remembered: 8 MB


class ExpertsConfig(StrictModel):
    """Who is asked, and for how long."""

    experts: Literal["competence", "random", "all", "oracle"] = Field(
        "competence",
        description="who scores: the most competent by the confidence graph, "
        "or a control: random, all, oracle (by true domain accuracy)",
    )
    num_experts: Annotated[int, AtMostClients("experts", ("competence", "random", "oracle"))] = Field(
        2, ge=1, description="M, experts asked per question (experts: all ignores it)"
    )
    competence_floor: float = Field(
        0.0,
        ge=0,
        le=1,
        description="only clients with at least this share of the best known client's competence are asked; a question "
        "that none of those there knows is passed over (0: M are always asked, as in the paper). oracle: share of the best "
        "client's true accuracy; random: as many as the graph would name, whoever they are",
    )
    num_neighbours: int = Field(
        20, ge=1, description="L, nearest exemplars that decide competence (all, where there are fewer)"
    )
    probe: Literal["once", "per_question"] = Field(
        "once",
        description="once: Dp travels once per client; per_question: the L nearest exemplars travel "
        "for every question, as in the paper",
    )
    probed_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the clients that have answered the probe, or were given up, before the first question is asked "
        "(0: one is enough); until then whoever answers first would be the best that is known (probe: once)",
    )
    stragglers: StragglerConfig = Field(
        StragglerConfig.defaults(), description="how long a group waits for its experts"
    )

    @model_validator(mode="after")
    def _stragglers_fit_the_experts(self) -> ExpertsConfig:
        key = "experts: all" if self.experts == "all" else f"num_experts: {self.num_experts}"
        refuse_impossible(self.stragglers, self.cohort_size, key)
        return self

    @model_validator(mode="after")
    def _floor_is_heard(self) -> ExpertsConfig:
        if self.competence_floor and self.experts == "all":
            raise ValueError(
                f"experts all asks everybody, so competence_floor must be 0 (it is {self.competence_floor:g}); for everybody "
                "above the floor use experts competence with num_experts as many as there are clients"
            )
        if self.competence_floor and self.experts == "random" and self.probe == "per_question":
            raise ValueError(
                f"experts random with competence_floor {self.competence_floor:g} asks as many as the graph would name, which "
                "needs probe once; set competence_floor to 0 to ask num_experts whatever they know"
            )
        return self

    @model_validator(mode="after")
    def _share_is_probed_once(self) -> ExpertsConfig:
        if self.probed_share and self.probe == "per_question":
            raise ValueError(
                f"probed_share {self.probed_share:g} needs probe once: per_question asks for competence with every question"
            )
        return self

    @property
    def cohort_size(self) -> int | None:
        """How many experts a question asks at most; None for everybody."""
        return None if self.experts == "all" else self.num_experts


class Experts:
    """Who is asked: the confidence graph, filled by probing, or one of its controls."""

    def __init__(self, federation: Federation, config: ExpertsConfig, state: ServerState) -> None:
        exemplars = state.data.auxiliary
        self._federation = federation
        self._config = config
        self._state = state
        self._stragglers = Stragglers(config.stragglers.without_spares, federation.now_s)
        self._exemplars = exemplars
        self._graph = ConfidenceGraph.unprobed(state.policy.embed(exemplars), len(federation.clients))
        pool = state.data.pool
        self._embeddings = dict(zip((q.question_id for q in pool), state.policy.embed(pool), strict=True))
        self._nearest: dict[int, IntArray] = {}
        self._competence_of_question: dict[int, FloatArray] = {}  # until another client answers the probe
        self._competence_of_draw: dict[int, FloatArray] = {}
        self._num_probing = 0
        self._num_passed_over = 0
        self._somebody_answered = asyncio.Event()
        self._one_more_ended = asyncio.Event()
        weighs = getattr(config, "fusion", "mean") == "competence"
        counts = config.experts == "random" and config.competence_floor > 0
        self._is_graph_read = config.experts == "competence" or weighs or counts
        if self._is_graph_read:
            state.artefacts["confidence_graph"] = self._sample_graph

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Probe every client, each when it is there, and return when enough of them are known (``probe: once``).

        A control that reads no competence asks for none, and pays for none.
        """
        if self._config.probe == "once" and self._is_graph_read:
            self._num_probing = len(self._federation.clients)
            for client in self._federation:
                tasks.create_task(self._probe(client), name=f"probe of client {client.client_id}")
            enough = math.ceil(self._config.probed_share * len(self._federation.clients))
            await self._somebody_answered.wait()
            while len(self._federation.clients) - self._num_probing < enough:
                await self._one_more_ended.wait()

    async def _probe(self, client: Client) -> None:
        """Probe one client; when every client was given up and none has answered, the federation is hopeless."""
        correct = await self._ask_exemplars(client)
        self._num_probing -= 1
        if correct is not None:
            self._graph.record(client.client_id, correct)
            self._competence_of_question.clear()
            self._somebody_answered.set()
        elif not self._num_probing and not self._somebody_answered.is_set():
            raise FederationError(
                f"no client answered the probe: each was away for good, or failed {_MAX_PROBES} times in a row"
            )
        self._one_more_ended.set()
        self._one_more_ended = asyncio.Event()

    async def _ask_exemplars(self, client: Client) -> BoolArray | None:
        """Send Dp to one client, whenever it is there, until it has answered: correctness bits ``[P]``; None if never."""
        message = wire.ProbeExemplars(
            wire.pack_id(0), tuple(q.text for q in self._exemplars), tuple(q.answer for q in self._exemplars)
        )
        for attempt in range(_MAX_PROBES):
            try:
                await client.online()
            except FederationError:
                return None
            try:
                reply = await client.request(message, Subject(attempt=attempt))
            except RequestError:
                continue
            assert isinstance(reply, wire.ProbeBits)
            bits = np.unpackbits(np.frombuffer(reply.bits, np.uint8), count=len(self._exemplars))
            return bits.astype(np.bool_)
        return None

    async def choose(self, draw: Draw) -> tuple[int, ...]:
        """C(x_s): the ids of the experts for this question, waiting until somebody can be asked (eq. 6).

        A question that nobody there is competent for is passed over, but not one after the other without end: when many in
        a row were, it waits until somebody comes back.
        """
        while True:
            eligible = await self._eligible()
            if self._config.probe == "per_question" and self._config.experts == "competence":
                scores = self._competence_of_draw[draw.index] = await self._ask_competence(draw, eligible)
                return self._best(draw, scores, eligible, self._config.num_experts)
            chosen = self._rank(draw, eligible, self._config.num_experts)
            self._num_passed_over = 0 if chosen else self._num_passed_over + 1
            if self._num_passed_over <= _MOST_PASSED_OVER:
                return chosen
            await self._somebody_returns()

    def spares(self, draw: Draw, chosen: Sequence[int]) -> Iterator[int]:
        """The next in competence, one by one: the best of those who are there when one is needed and were not asked yet.

        The floor holds for them as well. Where nobody is left at that moment, the spares have come to an end.
        """
        asked = set(chosen)
        while True:
            ranked = self._ranked_now(draw, len(asked) + 1)
            spare = next((client_id for client_id in ranked if client_id not in asked), None)
            if spare is None:
                return
            asked.add(spare)
            yield spare

    def weights(self, draw: Draw, chosen: Sequence[int]) -> FloatArray:
        """r_k^p of these experts, ``[M]``; 1 for a client whose competence nobody asked for."""
        competence = self._competence_of_draw.pop(draw.index, None)
        if competence is None:
            competence = self._competence(draw)
        weights = competence[list(chosen)]
        return np.where(np.isnan(weights), 1.0, weights)

    def embedding(self, draw: Draw) -> FloatArray:
        """phi(x_s) of the frozen initial policy, ``[d]``."""
        return np.asarray(self._embeddings[draw.question.question_id], dtype=np.float64)

    def likely(self, draw: Draw) -> tuple[int, ...]:
        """Who would be asked if the question were asked now; nobody where only asking can tell."""
        if self._config.probe == "per_question" and self._config.experts == "competence":
            return ()
        return self._rank(draw, self._known_and_there(), self._config.num_experts)

    def _ranked_now(self, draw: Draw, num_experts: int) -> tuple[int, ...]:
        """The best of those who are there now; by what they said of this question, where they were asked."""
        scores = self._competence_of_draw.get(draw.index)
        if scores is not None:
            return self._best(draw, scores, self._federation.online(), num_experts)
        return self._rank(draw, self._known_and_there(), num_experts)

    def _rank(self, draw: Draw, eligible: Sequence[int], num_experts: int) -> tuple[int, ...]:
        config, seed = self._config, self._state.seed
        question = draw.question
        if config.experts == "all":
            return all_experts(eligible)
        if config.experts == "random":
            if config.competence_floor:  # as many requests as with `competence`
                num_experts = len(self._best(draw, self._competence(draw), eligible, num_experts))
            return random_experts(question.question_id, num_experts, eligible, seed)
        if config.experts == "oracle":
            accuracy = self._state.client_accuracy()[:, self._state.data.domains.index(question.domain)]
            return self._best(draw, accuracy, eligible, num_experts)
        return self._best(draw, self._competence(draw), eligible, num_experts)

    def _competence(self, draw: Draw) -> FloatArray:
        """r^p_s, ``[K]``, by what the clients have answered until now (eq. 5); asked for several times in a draw's life."""
        question_id = draw.question.question_id
        competence = self._competence_of_question.get(question_id)
        if competence is None:
            if len(self._competence_of_question) * len(self._federation.clients) >= _MOST_KEPT:
                self._competence_of_question.clear()
            competence = self._graph.competence_on(self._neighbours(draw))
            self._competence_of_question[question_id] = competence
        return competence

    def _neighbours(self, draw: Draw) -> IntArray:
        """G(x_s), worked out once for a question: neither embeddings nor exemplars ever change."""
        question_id = draw.question.question_id
        if question_id not in self._nearest:
            self._nearest[question_id] = self._graph.neighbours(
                self._embeddings[question_id], self._config.num_neighbours
            )
        return self._nearest[question_id]

    def _best(
        self, draw: Draw, scores: FloatArray, eligible: Sequence[int], num_experts: int
    ) -> tuple[int, ...]:
        """The highest scores that reach the floor: competences, or (oracle) the clients' true accuracies in its domain."""
        chosen = best_experts(scores, draw.question.question_id, num_experts, eligible, self._state.seed)
        return competent_enough(chosen, scores, self._config.competence_floor)

    async def _eligible(self) -> list[int]:
        """Clients that can be asked now: there, and (``probe: once``) with a known competence where it is read."""
        if self._config.probe == "per_question" or not self._is_graph_read:
            await self._federation.any_online(range(len(self._federation.clients)))
            return self._federation.online()
        while True:
            eligible = self._known_and_there()
            if eligible:
                return eligible
            await self._somebody_returns()

    def _known_and_there(self) -> list[int]:
        there = self._federation.online()
        if not self._is_graph_read:
            return there
        probed = self._graph.probed()
        return [client_id for client_id in there if client_id in probed]

    async def _somebody_returns(self) -> None:
        """Sleep until a probed client that is away comes back, or one more probe has ended."""
        away = sorted(self._graph.probed() - set(self._federation.online()))
        if not away and not self._num_probing:
            raise FederationError(
                f"{self._num_passed_over} questions in a row were passed over with every client there: none answers enough of "
                f"their exemplars rightly for competence_floor {self._config.competence_floor:g}"
            )
        back = asyncio.ensure_future(self._federation.any_online(away))
        more = asyncio.ensure_future(self._one_more_ended.wait())
        try:
            await asyncio.wait((back, more), return_when=asyncio.FIRST_COMPLETED)
            if back.done() and back.exception() is not None and self._num_probing:
                await more  # those known are gone for good, but others may still come
            elif back.done():
                back.result()
        finally:
            back.cancel()
            more.cancel()

    async def _ask_competence(self, draw: Draw, eligible: Sequence[int]) -> FloatArray:
        """Broadcast G(x_s) and collect r_k^p; NaN for a client that did not answer in time."""
        nearest = self._neighbours(draw)
        message = wire.ProbeNeighbours(
            wire.pack_id(draw.index),
            tuple(self._exemplars[index].text for index in nearest),
            tuple(self._exemplars[index].answer for index in nearest),
        )
        subject = Subject(draw.index, draw.question.question_id, draw.epoch)
        replies = await self._stragglers.collect(
            lambda client_id, _: self._federation.clients[client_id].request(message, subject), eligible
        )
        competence = np.full(len(self._federation.clients), np.nan)
        for client_id, reply in replies.items():
            if isinstance(reply, wire.Competence):
                competence[client_id] = reply.competence
        return competence

    def _sample_graph(self) -> dict[str, list[dict[str, Any]]]:
        """The graph of one question per domain, for the run folder."""
        first_of_domain = {question.domain: question for question in reversed(self._state.data.pool)}
        questions = [
            first_of_domain[domain] for domain in self._state.data.domains if domain in first_of_domain
        ]
        embeddings = np.array([self._embeddings[question.question_id] for question in questions])
        return self._graph.sample(questions, embeddings, self._config.num_neighbours, self._exemplars)


def answer_exemplars(client: ClientState, message: wire.ProbeExemplars) -> HandlerResult:
    """Answer Dp with the client's own model and say which answers equal their labels."""
    right = _own_answers_right(client, message.questions, message.answers)
    return HandlerResult(wire.ProbeBits(message.draw, np.packbits(right).tobytes()))


def answer_neighbours(client: ClientState, message: wire.ProbeNeighbours) -> HandlerResult:
    """r_k^p = (1/L) sum_l 1[own answer to x_l = y_l] (PAPER, step 3)."""
    right = _own_answers_right(client, message.questions, message.answers)
    return HandlerResult(wire.Competence(message.draw, mean_correct(right)))


def exemplars_cost(client: ClientState, message: wire.ProbeExemplars | wire.ProbeNeighbours) -> Work:
    """Decoding one answer per exemplar, as one batch: as long as its label, or as what the client writes before an answer."""
    tokens = client.tokens
    prompts = [tokens.question(text) for text in message.questions]
    written = message.answers
    if client.answers.pattern is not None:
        written = tuple(client.evaluator.answers(message.questions))
    return generate_work(client.spec, prompts, [[tokens.candidate(text) + 1] for text in written])


PROBE_HANDLERS: Mapping[type[wire.Message], Handler] = {
    wire.ProbeExemplars: Handler(answer_exemplars, exemplars_cost, wire.ProbeBits, accept=refused_bits),
    wire.ProbeNeighbours: Handler(
        answer_neighbours, exemplars_cost, wire.Competence, accept=refused_competence
    ),
}


def _own_answers_right(client: ClientState, questions: Sequence[str], labels: Sequence[str]) -> list[bool]:
    answers = client.evaluator.answers(questions)
    return [client.answers.right(answer, label) for answer, label in zip(answers, labels, strict=True)]
