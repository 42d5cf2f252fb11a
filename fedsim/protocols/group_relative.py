"""What all reward-based protocols share: sample groups, have them judged, and step as rewards arrive.

A protocol brings one coroutine, ``judge(group) -> Judgement``: who scored the candidates and how. This file keeps
``in_flight`` questions under way, turns rewards into group-relative advantages (PAPER eqs. 7 to 9, ``rl/advantages.py``)
and steps the optimiser

* ``group``: as soon as ``groups_per_update`` groups are final, whoever else is still out (expected staleness:
  ``in_flight / groups_per_update`` policy versions), or
* ``barrier``: once per round, when every question of the round is final (staleness 0).

The version rises only with the optimiser step. Sampling, embedding and updates take the server's virtual time. What the
server samples at one instant is one batch on its accelerator; the real sampling behind it is done in blocks ahead of need,
which changes no result, because a group is a pure function of (weights, draw).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from fedsim.config import StrictModel
from fedsim.devices.cost import Work, training_work
from fedsim.errors import FederationError
from fedsim.federation import Federation
from fedsim.models.config import PolicyConfig
from fedsim.protocols.rollouts import Rollouts
from fedsim.records import GroupFate
from fedsim.rl.advantages import advantages, with_format_reward
from fedsim.roles import FloatArray, Group
from fedsim.states import ServerState
from fedsim.tasks.questions import Question

HOPELESS_GROUPS = 2000
"""So many question groups in a row that cannot be learned from end the run with an error."""


class ScheduleConfig(StrictModel):
    """When the optimiser steps."""

    schedule: Literal["group", "barrier"] = Field(
        "group",
        description="group: step as soon as groups_per_update groups are final; barrier: once per round",
    )
    groups_per_update: int = Field(
        96, ge=1, description="question groups in one optimiser step (the round, under barrier)"
    )
    in_flight: int = Field(192, ge=1, description="questions under way at once (group only)")
    max_staleness: int = Field(
        4, ge=0, description="groups more policy versions behind than this are dropped and counted"
    )

    @property
    def expected_staleness(self) -> float:
        """Policy versions that a group is behind on average when nobody straggles."""
        return self.in_flight / self.groups_per_update if self.schedule == "group" else 0.0


class GroupRelativeConfig(PolicyConfig):
    """Settings of the shared machinery, beside those of the policy."""

    grouping: Literal["candidates", "per_expert", "joint", "literal"] = Field(
        "per_expert", description="what a reward is standardised over (docs/design.md, four readings)"
    )
    divide_by_std: bool = Field(
        True, description="divide centred rewards by their deviation (false: centre only)"
    )
    epsilon: float = Field(1e-2, gt=0, description="added to the deviation; rewards lie in [0, 1]")
    format_weight: float = Field(
        0.0, ge=0, le=1, description="weight of the server's own format reward, added before standardising"
    )
    update: ScheduleConfig = Field(ScheduleConfig(), description="when the optimiser steps")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Rewards of one group, ``[M, G]`` with NaN where none came, and how many experts were asked.

    ``missing`` says what learning makes of a NaN: masked, counted as zero, or the whole group is left out. ``weights``
    are what each expert counts in the average over experts, ``[M]``; alike when None.
    """

    rewards: FloatArray
    num_experts: int
    missing: Literal["mask", "zero", "drop_group"] = "mask"
    weights: FloatArray | None = None


Judge = Callable[[Group], Awaitable[Judgement]]


async def train(
    federation: Federation,
    config: GroupRelativeConfig,
    state: ServerState,
    questions: Sequence[Question],
    judge: Judge,
    anticipate: Callable[[Group], None] | None = None,
) -> None:
    """Sample, judge and learn until the run's stop condition ends it (the caller then cancels this coroutine)."""
    rollouts = Rollouts(federation, state, questions, config.update.groups_per_update, anticipate)
    learner = Learner(federation, config, state, judge)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rollouts.serve(), name="sampler")
        if config.update.schedule == "barrier":
            await _rounds(rollouts, learner, config.update.groups_per_update)
        else:
            finals: asyncio.Queue[Final] = asyncio.Queue()
            for slot in range(config.update.in_flight):
                tasks.create_task(_keep_in_flight(rollouts, learner, finals), name=f"question slot {slot}")
            await _as_rewards_arrive(finals, learner, config.update)


async def _keep_in_flight(rollouts: Rollouts, learner: Learner, finals: asyncio.Queue[Final]) -> None:
    while True:
        final = await learner.judged(await rollouts.next())
        if final is not None:
            finals.put_nowait(final)


async def _as_rewards_arrive(finals: asyncio.Queue[Final], learner: Learner, update: ScheduleConfig) -> None:
    batch: list[Final] = []
    while True:
        final = await finals.get()
        if learner.staleness(final) > update.max_staleness:
            learner.record(final, "too_stale")
            continue
        batch.append(final)
        if len(batch) == update.groups_per_update:
            await learner.step(batch)
            batch = []


async def _rounds(rollouts: Rollouts, learner: Learner, groups_per_round: int) -> None:
    async def one() -> Final | None:
        return await learner.judged(await rollouts.next())

    while True:
        finals = await asyncio.gather(*(one() for _ in range(groups_per_round)))
        await learner.step([final for final in finals if final is not None])


@dataclass(frozen=True, slots=True)
class Final:
    """A group whose advantages are final: ``[G]``, NaN for a candidate that nobody scored."""

    group: Group
    advantages: FloatArray
    judgement: Judgement
    dispatched_at_s: float
    completed_at_s: float


class Learner:
    """Turns judgements into advantages, and advantages into optimiser steps."""

    def __init__(
        self, federation: Federation, config: GroupRelativeConfig, state: ServerState, judge: Judge
    ) -> None:
        self._federation = federation
        self._config = config
        self._state = state
        self._judge = judge
        self._lost_in_a_row: Counter[str] = Counter()

    def staleness(self, final: Final) -> int:
        """How many policy versions ago the group was sampled."""
        return self._state.policy.version - final.group.policy_version

    async def judged(self, group: Group) -> Final | None:
        """Have a group scored; None if it cannot be learned from (its record says why).

        Raises:
            FederationError: so many groups in a row could not be learned from that waiting will not help.
        """
        dispatched_at_s = self._federation.now_s()
        judgement = await self._judge(group)
        config = self._config
        rewards = judgement.rewards
        drop = judgement.missing == "drop_group" and bool(np.isnan(rewards).any())
        if judgement.missing == "zero":
            rewards = np.nan_to_num(rewards, nan=0.0)
        if config.format_weight:
            ended = np.array([float(not candidate.truncated) for candidate in group.candidates])
            rewards = with_format_reward(rewards, ended, config.format_weight)
        signal = advantages(
            rewards,
            grouping=config.grouping,
            epsilon=config.epsilon,
            divide_by_std=config.divide_by_std,
            weights=judgement.weights,
        )
        final = Final(group, signal, judgement, dispatched_at_s, self._federation.now_s())
        if drop or not np.isfinite(signal).any():
            self.record(final, "no_rewards" if judgement.num_experts else "no_experts")
            self._give_up_when_hopeless(judgement, drop=drop)
            return None
        self._lost_in_a_row.clear()
        return final

    async def step(self, batch: Sequence[Final]) -> None:
        """One optimiser step on these groups; the version rises when the server's work on it is done."""
        if not batch:
            return
        await self._federation.server.compute(self._update_work(batch), "update", self._state.policy.version)
        staleness = [self.staleness(final) for final in batch]
        stats = self._state.policy.update(
            [final.group for final in batch], [final.advantages for final in batch]
        )
        for final in batch:
            self.record(final, "trained")
        silent = sum(not np.nan_to_num(final.advantages).any() for final in batch) / len(batch)
        num_candidates = sum(len(final.group.candidates) for final in batch)
        self._state.monitor.updated(stats, staleness, num_candidates, silent)
        await self._state.monitor.pause_if_over()

    def record(self, final: Final, fate: GroupFate) -> None:
        """Put a group on record; what will not be trained is forgotten."""
        if fate != "trained":
            self._state.policy.forget([final.group.draw.index])
        self._state.monitor.group(
            final.group,
            dispatched_at_s=final.dispatched_at_s,
            completed_at_s=final.completed_at_s,
            rewards=final.judgement.rewards,
            num_experts=final.judgement.num_experts,
            fate=fate,
        )

    def _update_work(self, batch: Sequence[Final]) -> Work:
        tokens = self._state.tokens
        row_tokens = [
            tokens.question(final.group.draw.question.text)
            + tokens.sampled(candidate.text, candidate.num_tokens)
            for final in batch
            for candidate in final.group.candidates
        ]
        one_pass = training_work(self._state.spec, row_tokens)
        passes = self._config.inner_passes
        return Work(passes * one_pass.flop, passes * one_pass.memory_bytes)

    def _give_up_when_hopeless(self, judgement: Judgement, *, drop: bool) -> None:
        if not judgement.num_experts:
            why = "had no expert (nobody was there, or competent enough)"
        elif not np.isfinite(judgement.rewards).any():
            why = "had no reward (every expert was away, gave up, missed the deadline, or sent no number)"
        elif drop:
            why = "lacked a reward and were left out (protocol.stragglers.missing: drop_group, where one is enough)"
        else:
            why = "had rewards that make no advantage"
        self._lost_in_a_row[why] += 1
        num_lost = self._lost_in_a_row.total()
        if num_lost >= HOPELESS_GROUPS:
            counts = ", ".join(f"{count} {why}" for why, count in sorted(self._lost_in_a_row.items()))
            raise FederationError(
                f"{num_lost} question groups in a row could not be learned from: {counts}; see the outcomes in the run folder"
            )
