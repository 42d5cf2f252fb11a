"""The share of trusted answers that a server learns from the clients' replies.

An *honest* server reads the run's own replies: a candidate with a reward of 1, or the text. A *choosing* one asks about each
answer once, with G candidates of its policy; the share that the same candidates tell without any reply stands beside it, for
an answer that everybody gives is not disclosed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedsim import protocols
from fedsim.experiment.leakage.suspects import FIRST_DRAW, Server
from fedsim.models.interfaces import CandidateGroup, Components, Draw
from fedsim.privacy.membership import Estimate, share
from fedsim.protocols.shared.state import ClientState
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.scenario.schema import Scenario


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Share of trusted answers that a server knows, and that it knew without the clients' replies."""

    server: Server
    how: str
    num_answers: int
    share: Estimate | None
    known_before: Estimate | None


def disclosed(
    run: Run, scenario: Scenario, components: Components, states: Sequence[ClientState]
) -> list[Disclosure]:
    """The share of trusted answers that a server knows."""
    owned = [(k, number) for k, answers in enumerate(components.data.trusted) for number in answers]
    if not owned:
        return []
    handlers, rule = protocols.handlers(scenario.protocol), components.data.answers
    by_text, seed = wire.QuestionOnly in handlers, scenario.seed
    question_of = {question.question_id: question for question in components.data.pool}
    draws = [Draw(FIRST_DRAW + place, question_of[number]) for place, (_, number) in enumerate(owned)]
    groups = components.policy.sample(draws)
    components.policy.forget([draw.index for draw in draws])
    knows, knew = [], []
    for (client_id, number), group in zip(owned, groups, strict=True):
        truth, client = components.data.trusted[client_id][number], states[client_id]
        kind = wire.QuestionOnly if by_text else wire.Candidates
        said = handlers[kind].run(client, _message(group, by_text)).message
        if isinstance(said, wire.Answer):
            knows.append(rule.right(said.answer, truth))
        else:
            assert isinstance(said, wire.Rewards)
            knows.append(rule.right(best_candidate(group.texts, said.rewards, rule), truth))
        knew.append(rule.right(best_candidate(group.texts, [1.0] * len(group.texts), rule), truth))
    found = []
    if by_text:
        arrived = run.outcomes.filter(
            (run.outcomes["purpose"] == "question") & (run.outcomes["phase"] == "done")
        )
        sent = set(zip(arrived["client_id"].to_list(), arrived["question_id"].to_list(), strict=True))
        # A client's model, unlike its trusted answers, may be wrong; asked again it says the same.
        told = [pair in sent and known for pair, known in zip(owned, knows, strict=True)]
        found.append(
            Disclosure("honest", "sent as text in the run", len(owned), share(told, seed, "told"), None)
        )
    elif scenario.protocol.reward_noise is None:
        ones = {
            (row["client_id"], row["question_id"])
            for row in run.rewards.iter_rows(named=True)
            if row["evaluator"] == "AE" and 1.0 in row["rewards"]
        }
        told = [pair in ones for pair in owned]
        how = "a candidate with reward 1 in the run"
        found.append(Disclosure("honest", how, len(owned), share(told, seed, "told"), None))
    known, before = share(knows, seed, "knows"), share(knew, seed, "knew")
    return [*found, Disclosure("choosing", "asked once about each", len(owned), known, before)]


def best_candidate(texts: Sequence[str], rewards: Sequence[float], rule: AnswerRule) -> str:
    """A text with the answer whose mean reward is highest, of several the most frequent, then the first.

    >>> best_candidate(["7", "8", "8"], [0.5, 1.0, 0.5], AnswerRule())
    '8'
    >>> best_candidate(["7", "8", "8.0"], [1.0, 1.0, 1.0], AnswerRule("numeric"))
    '8'
    """
    first: dict[str, str] = {}
    of: dict[str, list[float]] = {}
    for text, reward in zip(texts, rewards, strict=True):
        answer = rule.key(text)
        first.setdefault(answer, text)
        of.setdefault(answer, []).append(reward)
    return first[max(of, key=lambda answer: (sum(of[answer]) / len(of[answer]), len(of[answer])))]


def _message(group: CandidateGroup, by_text: bool) -> wire.Message:
    draw, question = wire.pack_id(group.draw.index), group.draw.question.text
    return (
        wire.QuestionOnly(draw, question) if by_text else wire.Candidates(draw, question, tuple(group.texts))
    )
