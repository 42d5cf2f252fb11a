"""Control: the server's own majority as reward, 1[candidate gives the answer that most of its group give].

Nobody is asked and no truth is read. Whatever this gains is consistency, not knowledge; where most candidates are wrong it
learns the wrong answer.

References:
    Zuo et al., TTRL: Test-Time Reinforcement Learning, arXiv 2504.16084.
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
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule


class Config(ServerRewardedConfig):
    """Settings of the control: those of the shared machinery."""

    name: Literal["majority_vote"] = Field(
        "majority_vote",
        description="control: the answer that most candidates of a group give counts as right",
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """GRPO with agreement with the group's majority as reward."""

    async def judge(group: CandidateGroup) -> Judgement:
        return Judgement(np.array([votes(state.data.answers, group.texts)]), num_experts=1)

    await train(federation, config, state, state.data.pool, judge)


def votes(rule: AnswerRule, candidates: Sequence[str]) -> list[float]:
    """r_g = 1[candidate g gives the most frequent answer], ``[G]``; of several, the one that comes first.

    A candidate without an answer neither votes nor is right.

    >>> votes(AnswerRule(), ["7", "8", "8", ""])
    [0.0, 1.0, 1.0, 0.0]
    """
    answers = [rule.key(text) for text in candidates]
    counts = Counter(answer for answer in answers if answer)
    winner = max(counts, key=counts.__getitem__, default=None)
    return [float(answer == winner) for answer in answers]


HANDLERS: Mapping[type[wire.Message], Handler] = {}
