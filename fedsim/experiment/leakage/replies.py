"""Attacks on what clients reply to questions: rewards, or answers as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsim import protocols
from fedsim.experiment.leakage.suspects import (
    FIRST_DRAW,
    Attack,
    Source,
    Suspect,
    attack_on_rows,
    log_likelihoods,
)
from fedsim.models.interfaces import Components
from fedsim.privacy.membership import answer_likeness, membership
from fedsim.protocols.shared.state import ClientState
from fedsim.sim.network import wire

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.scenario.schema import Scenario


def by_recorded_rewards(run: Run, components: Components, seed: int) -> list[Attack]:
    """Whether a client owns a trusted answer, from the rewards that the run brought.

    With the evaluator *shown* (AE or ME: its speed tells it anyway) or *hidden* (how binary the rewards look).
    """
    hidden: dict[bool, list[float]] = {True: [], False: []}
    shown: dict[bool, list[float]] = {True: [], False: []}
    seen: set[tuple[int, int]] = set()
    for row in run.rewards.iter_rows(named=True):
        pair = (row["client_id"], row["question_id"])
        if pair in seen or not 0 <= pair[0] < len(components.data.trusted):
            continue
        seen.add(pair)
        owns = pair[1] in components.data.trusted[pair[0]]
        hidden[owns].append(answer_likeness(row["rewards"]))
        shown[owns].append(float(row["evaluator"] == "AE"))
    return [
        Attack("rewards", "honest", "trusted answer", how, membership(scores[True], scores[False], seed, how))
        for how, scores in (("evaluator hidden", hidden), ("evaluator shown", shown))
    ]


def by_asking(
    scenario: Scenario, components: Components, states: Sequence[ClientState], rows: Sequence[Suspect]
) -> list[Attack]:
    """Whether a row was trained on, by sending its question: with its true answer G times, or alone where answers return.

    The score is the mean reward, or whether the answer is right; as it is, or less the likelihood that the server's own initial
    model gives to the true answer (calibrated: Watson et al., ICLR 2022).
    """
    handlers = protocols.handlers(scenario.protocol)
    by_text = wire.QuestionOnly in handlers
    handler = handlers[wire.QuestionOnly if by_text else wire.Candidates]
    asked: list[wire.QuestionOnly | wire.Candidates] = []
    for place, one in enumerate(rows):
        draw, question = wire.pack_id(FIRST_DRAW + place), one.row.text
        if by_text:
            asked.append(wire.QuestionOnly(draw, question))
        else:
            copies = (one.row.taught,) * scenario.protocol.group_size
            asked.append(wire.Candidates(draw, question, copies))
        if handler.expect is not None:
            handler.expect(states[one.client_id], asked[-1])
    raw: list[float] = []
    for one, message in zip(rows, asked, strict=True):
        said = handler.run(states[one.client_id], message).message
        if isinstance(said, wire.Answer):
            raw.append(float(components.data.answers.right(said.answer, one.row.answers)))
        else:
            assert isinstance(said, wire.Rewards)
            raw.append(sum(said.rewards) / len(said.rewards))
    own = log_likelihoods(components.frozen, rows)
    calibrated = [score - math.exp(before) for score, before in zip(raw, own, strict=True)]
    source: Source = "answers" if by_text else "rewards"
    how = "right answer" if by_text else "mean reward"
    return [
        attack_on_rows(source, "choosing", how, rows, raw, scenario.seed),
        attack_on_rows(source, "choosing", f"{how}, calibrated", rows, calibrated, scenario.seed),
    ]
