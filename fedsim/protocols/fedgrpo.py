"""FedGRPO: a server policy learns from group-relative rewards that competent domain clients return as scalars.

Zhu, Gu, Fan, Yang, Han: FedGRPO: Privately Optimizing Foundation Models with Group-Relative Rewards from Domain Clients,
AAAI 2026, arXiv 2602.12014; Algorithm 1, eqs. 4 to 9. Per question x_s:

1. sample G candidates from the live policy (``shared/rollouts.py``),
2. embed x_s with the frozen initial policy and find its L nearest exemplars in Dp (eq. 5),
3. read each client's competence: its own model's accuracy on those exemplars (``shared/client_selection.py``),
4. ask the M most competent clients (eq. 6) to score the candidates,
5. each returns one scalar per candidate: AE where it owns a trusted answer, else ME with its own model,
6. turn the rewards into group-relative advantages (eqs. 7 to 9) and step the policy (``shared/learner.py``).

What differs from the paper, on purpose:

* ``probe: once`` (default) asks for competence once; ``probe: per_question`` is the paper's. Both choose the same experts.
* ``wire: scores_up`` (default) is the paper's text: candidates go down, one scalar per candidate comes up, and nothing else
  can leave a client. ``wire: answers_up`` is its released code: the question goes down, the client's own answer comes up as
  text, and the server compares. It is cheaper, its rewards are binary, and it is NOT private.
* The update does not wait for a round (``update.schedule: group``); ``barrier`` is the paper's.
* Eqs. 8 and 9 as printed cancel (``grouping: literal``); the default standardises each expert over the candidates.
* ``competence_floor`` (0 in the paper) leaves out an expert that knows far less than the best one: under label skew the
  second best is often confidently wrong. ``fusion: competence`` weighs experts instead.
* ``fusion`` says what is made of several experts (``rl/fusion.py``; the paper takes the mean), and the server keeps what it
  believes of each of them (``trust.py``), for experts that are wrong, broken or hostile.
* A client that is away, or has not answered the probe, is not eligible; a missing reward is masked, never zero.
* ``reward_noise`` (the paper has none) is added by clients to every number that they send (`fedsim.privacy.rewards`).
* ``stragglers`` (the paper has none): who is asked beside or in place of a silent expert is the next in competence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult, Hurry, Subject
from fedsim.federation.stragglers.policies import Stragglers, seated
from fedsim.models.interfaces import CandidateGroup
from fedsim.privacy.rewards import RewardNoiseConfig
from fedsim.protocols.shared.boundary import (
    BOUNDARIES,
    first_scored,
    guarded,
    refused_answer,
    refused_rewards,
)
from fedsim.protocols.shared.client_selection import PROBE_HANDLERS, Experts, ExpertsConfig
from fedsim.protocols.shared.group_relative import GroupRelativeConfig, train
from fedsim.protocols.shared.learner import Judgement
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.protocols.shared.trust import FusionConfig, Trust
from fedsim.sim.devices.cost import NO_WORK, Work, generate_work, score_work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule


class Config(GroupRelativeConfig, ExpertsConfig, FusionConfig):
    """FedGRPO (AAAI 2026): the most competent clients score candidates."""

    name: Literal["fedgrpo"] = Field("fedgrpo", description="FedGRPO (AAAI 2026)")
    wire: Literal["scores_up", "answers_up"] = Field(
        "scores_up",
        description="scores_up: candidates go down, scalars come up; answers_up (the released code): the question goes down, "
        "the client's own answer comes up as text, which is not private",
    )
    model_score: Literal["likelihood", "answer_likelihood", "agreement"] = Field(
        "likelihood",
        description="ME: likelihood of the whole candidate under the client's model, of its final answer alone given its own "
        "steps, or agreement with the client's own answer (answers_up is always agreement)",
    )

    reward_noise: RewardNoiseConfig | None = Field(
        None,
        description="noise that clients add to every reward and probe bit before they send it",
    )

    @model_validator(mode="after")
    def _noise_has_numbers_to_protect(self) -> Config:
        if self.reward_noise is not None and self.wire == "answers_up":
            raise ValueError(
                "reward_noise needs wire scores_up: an answer that leaves as text is not private"
            )
        if self.reward_noise is not None and self.probe == "per_question":
            raise ValueError(
                "reward_noise needs probe once: it protects bits, and a mean over the nearest exemplars is none"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_known(self) -> Config:
        if self.fusion == "competence" and self.probe == "per_question" and self.experts != "competence":
            raise ValueError(
                f"fusion competence needs competence: experts {self.experts} with probe per_question asks nobody for it; "
                "use probe once, or experts competence"
            )
        return self

    @model_validator(mode="after")
    def _fusion_fits_the_grouping(self) -> Config:
        if self.fusion != "mean" and self.grouping == "literal":
            raise ValueError(
                f"fusion {self.fusion} needs scores to fuse across experts, which grouping literal does not have"
            )
        if self.fusion == "standardised" and self.grouping != "candidates":
            raise ValueError(
                f"grouping {self.grouping} standardises the scores already, so fusion standardised would do it twice; "
                "use fusion mean, or grouping candidates"
            )
        return self

    @model_validator(mode="after")
    def _audits_come_as_scores(self) -> Config:
        if self.num_audits and self.wire == "answers_up":
            raise ValueError(
                f"fusion {self.fusion} with {self.num_audits} audits needs wire scores_up: an audit asks for scores"
            )
        return self

    @model_validator(mode="after")
    def _only_scores_come_in_parts(self) -> Config:
        if self.stragglers.partial and self.wire == "answers_up":
            raise ValueError(
                "stragglers.partial needs wire scores_up: an answer has no part that is done before it is"
            )
        return self


# ---------------------------------------------------------------------------------------------- the server's half


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Algorithm 1 at the server; ends when the run's stop condition cancels it."""
    experts = Experts(federation, config, state)
    stragglers = Stragglers(config.stragglers, federation.now_s)
    trust = Trust(federation, config, state)
    async with asyncio.TaskGroup() as tasks:
        await experts.start(tasks)
        await trust.start(tasks)

        async def judge(group: CandidateGroup) -> Judgement:
            chosen = await experts.choose(group.draw)
            spares = experts.spares(group.draw, chosen)
            scores = await ask(federation, config, stragglers, group, chosen, spares, trust)
            seats = seated(chosen, scores)
            competence = experts.weights(group.draw, seats)
            judgement = judged(config, group, seats, scores, state.data.answers)
            weights = trust.weights(seats, competence, experts.embedding(group.draw))
            trust.observe(seats, judgement.rewards)
            return replace(
                judgement, weights=weights, fuse=trust.fuse(seats, config.grouping == "candidates")
            )

        def anticipate(group: CandidateGroup) -> None:
            for client_id in experts.likely(group.draw):
                federation.clients[client_id].anticipate(question_message(config, group))

        await train(federation, config, state, state.data.pool, judge, anticipate)


async def ask(
    federation: Federation,
    config: Config,
    stragglers: Stragglers,
    group: CandidateGroup,
    chosen: Sequence[int],
    spares: Iterable[int] = (),
    trust: Trust | None = None,
) -> dict[int, wire.Message]:
    """Ask the experts and await what they return under the straggler policy (Algorithm 1, step 5), by client id.

    ``trust`` remembers how each of them behaved.
    """
    message = question_message(config, group)
    subject = Subject(group.draw.index, group.draw.question.question_id, group.draw.epoch)

    def request(client_id: int, hurry: Hurry | None) -> Coroutine[Any, Any, wire.Message]:
        asking = federation.clients[client_id].request(message, subject, hurry)
        return asking if trust is None else trust.ask(client_id, asking)

    return await stragglers.collect(request, chosen, spares)


def judged(
    config: Config,
    group: CandidateGroup,
    seats: Sequence[int],
    replies: Mapping[int, wire.Message],
    rule: AnswerRule,
) -> Judgement:
    """Rewards ``[M, G]``, a row for each expert wanted: NaN for one that is silent, and for a candidate it did not reach."""
    rewards = np.full((len(seats), len(group.candidates)), np.nan)
    for row, client_id in enumerate(seats):
        reply = replies.get(client_id)
        if isinstance(reply, wire.Rewards):
            rewards[row, : len(reply.rewards)] = reply.rewards
        elif isinstance(reply, wire.FinalAnswer):
            rewards[row] = agreement(rule, reply.answer, group.texts)
    return Judgement(rewards, len(seats), config.stragglers.missing)


def question_message(config: Config, group: CandidateGroup) -> wire.Candidates | wire.QuestionOnly:
    """What goes down: <x_s, y>, a question and its candidates, or (``answers_up``) the question alone."""
    draw, question = wire.pack_id(group.draw.index), group.draw.question.text
    if config.wire == "answers_up":
        return wire.QuestionOnly(draw, question)
    return wire.Candidates(draw, question, tuple(group.texts))


def agreement(rule: AnswerRule, answer: str, candidates: Sequence[str]) -> list[float]:
    """r_g = 1[candidate g gives this answer], ``[G]``."""
    return [float(rule.right(candidate, answer)) for candidate in candidates]


# ---------------------------------------------------------------------------------------------- the client's half


def score(client: ClientState, message: wire.Candidates) -> HandlerResult:
    """Dual evaluation: AE, 1[y = trusted answer], where the client owns one; else ME with its own model."""
    trusted = client.trusted.get(message.question)
    if trusted is not None:
        rewards = agreement(client.answers, trusted, message.candidates)
        return HandlerResult(wire.Rewards(message.draw, tuple(rewards)), evaluator="AE")
    if client.model_score == "agreement":
        rewards = agreement(client.answers, _own_answer(client, message.question), message.candidates)
        return HandlerResult(wire.Rewards(message.draw, tuple(rewards)), evaluator="ME agreement")
    likelihood = client.evaluator.likelihood(message.question, message.candidates)
    return HandlerResult(wire.Rewards(message.draw, tuple(likelihood)), evaluator=f"ME {client.model_score}")


def expect_score(client: ClientState, message: wire.Candidates) -> None:
    """Announce a model-based score, so that real ones are computed in batches."""
    if message.question in client.trusted:
        return
    if client.model_score == "agreement":
        client.evaluator.expect_answer(message.question)
    else:
        client.evaluator.expect(message.question, message.candidates)


def score_cost(client: ClientState, message: wire.Candidates) -> Work:
    """AE compares strings (no model work); likelihood is one prefill of prompt and candidates; agreement decodes."""
    if message.question in client.trusted:
        return NO_WORK
    tokens = client.tokens
    question, candidates = (
        tokens.question(message.question),
        [tokens.candidate(text) for text in message.candidates],
    )
    if client.model_score == "agreement":
        return generate_work(client.spec, [question], [[max(candidates)]])
    return score_work(client.spec, question, candidates)


def answer(client: ClientState, message: wire.QuestionOnly) -> HandlerResult:
    """``answers_up``: the trusted answer where the client owns one, else its own model's, as text."""
    trusted = client.trusted.get(message.question)
    if trusted is not None:
        return HandlerResult(wire.FinalAnswer(message.draw, trusted), evaluator="AE")
    own = _own_answer(client, message.question)
    return HandlerResult(wire.FinalAnswer(message.draw, own), evaluator="ME agreement")


def answer_cost(client: ClientState, message: wire.QuestionOnly) -> Work:
    """A look-up, or decoding one answer with its rationale."""
    if message.question in client.trusted:
        return NO_WORK
    tokens = client.tokens
    own = client.evaluator.answers([message.question])[0]
    return generate_work(client.spec, [tokens.question(message.question)], [[tokens.candidate(own) + 1]])


def expect_answer(client: ClientState, message: wire.QuestionOnly) -> None:
    """Announce an own answer."""
    if message.question not in client.trusted:
        client.evaluator.expect_answer(message.question)


HANDLERS: Mapping[type[wire.Message], Handler] = {
    **PROBE_HANDLERS,
    wire.Candidates: Handler(score, score_cost, wire.Rewards, expect_score, refused_rewards, first_scored),
    wire.QuestionOnly: Handler(answer, answer_cost, wire.FinalAnswer, expect_answer, refused_answer),
}


def handlers_for(config: Config) -> Mapping[type[wire.Message], Handler]:
    """What clients answer to: under ``scores_up`` there is no handler whose reply is text, so none can leave a client.

    Each is held to the variant's boundary, and adds the client's noise (``reward_noise``).
    """
    return guarded(HANDLERS, BOUNDARIES[config.wire])


def _own_answer(client: ClientState, question: str) -> str:
    return client.answers.extract(client.evaluator.answers([question])[0])
