"""Controls without clients: the server rewards itself, by its frozen start or by the majority of its own candidates.

Whatever this gains is sharpening, not knowledge.

References:
    Zuo et al., TTRL: Test-Time Reinforcement Learning, arXiv 2504.16084 (the majority of the candidates as the answer).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler
from fedsim.models.interfaces import CandidateGroup
from fedsim.protocols.shared.group_relative import ServerRewardedConfig, train
from fedsim.protocols.shared.learner import Judgement
from fedsim.protocols.shared.state import ServerState
from fedsim.sim.devices.cost import score_work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule


class Config(ServerRewardedConfig):
    """Control: the server rewards itself, by its frozen start or by majority."""

    name: Literal["self_reward"] = Field(
        "self_reward", description="control: the server rewards itself, by its frozen start or by majority"
    )
    reward: Literal["likelihood", "majority"] = Field(
        "likelihood",
        description="a candidate's likelihood under the frozen initial server, or whether its answer is that of most "
        "candidates of its group",
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with the server's own rewards."""

    async def judge(group: CandidateGroup) -> Judgement:
        if config.reward == "majority":  # comparing texts takes no time, as for the truth
            return Judgement(np.array([majority(group.texts, state.data.answers)]), num_experts=1)
        text, tokens = group.draw.question.text, state.tokens
        work = score_work(state.spec, tokens.question(text), [tokens.candidate(c) for c in group.texts])
        state.frozen.expect(text, group.texts)
        await federation.server.compute(work, "score", group.draw.index)
        return Judgement(np.array([state.frozen.likelihood(text, group.texts)]), num_experts=1)

    await train(federation, config, state, state.data.pool, judge)


def majority(texts: Sequence[str], rule: AnswerRule) -> list[float]:
    """1 for every candidate whose answer is the most frequent one; of several, the one that was given first.

    A candidate without an answer neither votes nor is right.

    >>> majority(["4", "5", " 5", "6"], AnswerRule())
    [0.0, 1.0, 1.0, 0.0]
    """
    answers = [rule.key(text) for text in texts]
    counts = Counter(filter(None, answers))
    most = max(counts, key=counts.__getitem__, default=None)
    return [float(answer == most) for answer in answers]


HANDLERS: Mapping[type[wire.Message], Handler] = {}
