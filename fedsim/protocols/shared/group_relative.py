"""What all reward-based protocols share: sample groups, have them judged, and step as rewards arrive.

A protocol brings one coroutine, ``judge(group) -> Judgement``: who scored the candidates and how. ``learner.py`` turns rewards
into advantages and steps the optimiser; ``update_schedules.py`` says when a question is asked and when a step is made.

Sampling, embedding and updates take the server's virtual time. What the server samples at one instant is one batch on its
accelerator; the real sampling behind it is done in blocks ahead of need, which changes no result, because a group is a pure
function of (weights, draw).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pydantic import Field

from fedsim.federation.clients import Federation
from fedsim.models.interfaces import CandidateGroup
from fedsim.protocols.shared.learner import Judge, Learner, LearnerConfig
from fedsim.protocols.shared.rollouts import Rollouts
from fedsim.protocols.shared.state import ServerState
from fedsim.protocols.shared.update_schedules import RoundsConfig, ScheduleConfig, follow
from fedsim.tasks.questions import Question


class GroupRelativeConfig(LearnerConfig):
    """When the server learns from rewards that come in."""

    update: ScheduleConfig = Field(ScheduleConfig.defaults(), description="when the optimiser steps")


class ServerRewardedConfig(GroupRelativeConfig):
    """When the server learns from rewards that it has itself: in rounds by default.

    No device is waited for, so ``group`` would gain no time. It would sample faster than the optimiser steps and train on what
    is some ``max_staleness`` versions old (3.6 on average with truth as reward, 128 in flight and 96 in a step).
    """

    update: RoundsConfig = Field(RoundsConfig.defaults(), description="when the optimiser steps")


async def train(
    federation: Federation,
    config: GroupRelativeConfig,
    state: ServerState,
    questions: Sequence[Question],
    judge: Judge,
    anticipate: Callable[[CandidateGroup], None] | None = None,
) -> None:
    """Sample, judge and learn until the run's stop condition ends it (the caller then cancels this coroutine)."""
    rollouts = Rollouts(federation, state, questions, config.update.groups_per_step, anticipate)
    learner = Learner(federation, config, state, judge, questions)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rollouts.serve(), name="sampler")
        await follow(config.update, rollouts, learner, tasks)
