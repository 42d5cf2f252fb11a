"""When the server samples a question and when its optimiser steps: the schedules of all reward-based protocols.

* ``barrier``: in rounds. ``groups_per_update`` questions are asked, and the step is made when every one of them is final;
  staleness 0.
* ``group``: as rewards arrive. ``in_flight`` questions are under way at any time, and the step is made as soon as
  ``groups_per_update`` groups are usable, whoever else is out. Nothing waits, and what is too stale was asked in vain.
* ``buffer``: in between. The step is made when the n places of a ``buffer`` are final (with rewards or without), and a
  question is asked only if it can still be trained: with b buffers emptied so far,

      number of questions asked <= n (b + 1 + max_staleness)

  so that questions which become final in the order of asking are at most ``max_staleness`` versions behind. With
  max_staleness 0 and room for n in flight the next questions wait for the step, and ``buffer`` of n is ``barrier`` (a test
  compares the records).

Staleness counts policy versions between sampling and training. A group beyond ``max_staleness`` is not trained: ``on_stale:
drop`` leaves it at that, ``resample`` puts its question in front of the stream, to be sampled again from the live policy (a new
draw, numbered from ``rollouts.FIRST_AGAIN``). Under ``buffer`` that takes a straggler which others overtook. A question whose
experts are always too slow comes back for ever, so ``resample`` belongs with a deadline.

References:
    Fu et al., AReaL: A Large-Scale Asynchronous Reinforcement Learning System for Language Reasoning, arXiv 2505.24298
    (limit on questions by staleness; there it counts trajectories, and the step takes the oldest first).
    Nguyen et al., Federated Learning with Buffered Asynchronous Aggregation, AISTATS 2022, arXiv 2106.06639 (buffer).
"""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import Field, model_validator

from fedsim.config.limits import MAX_UNDER_WAY
from fedsim.config.strict import StrictModel
from fedsim.protocols.shared.learner import Final, Learner
from fedsim.protocols.shared.rollouts import Rollouts


class ScheduleConfig(StrictModel):
    """When the optimiser steps."""

    schedule: Literal["group", "barrier", "buffer"] = Field(
        "group",
        description="group: step as soon as groups_per_update groups are final; barrier: once per round; buffer: once per "
        "buffer, and ask no question that could only be trained too late",
    )
    groups_per_update: int = Field(
        96,
        ge=1,
        le=MAX_UNDER_WAY,
        description="question groups in one optimiser step (the round, under barrier)",
    )
    buffer: int | None = Field(
        None,
        ge=1,
        le=MAX_UNDER_WAY,
        description="schedule buffer: n, questions that are final before a step (count; default groups_per_update)",
    )
    in_flight: int = Field(
        192, ge=1, le=MAX_UNDER_WAY, description="questions under way at once (group and buffer)"
    )
    max_staleness: int = Field(
        4, ge=0, description="groups more policy versions behind than this are dropped and counted"
    )
    on_stale: Literal["drop", "resample"] = Field(
        "drop",
        description="a group beyond max_staleness: drop it, or drop it and resample its question from the live policy",
    )

    @model_validator(mode="after")
    def _buffer_belongs_to_its_schedule(self) -> ScheduleConfig:
        if self.buffer is not None and self.schedule != "buffer":
            raise ValueError(
                f"buffer belongs to schedule buffer; schedule {self.schedule} reads groups_per_update"
            )
        return self

    @property
    def groups_per_step(self) -> int:
        """Questions behind one optimiser step."""
        return self.buffer or self.groups_per_update

    @property
    def most_asked(self) -> int:
        """Questions under way at once, at most."""
        if self.schedule == "barrier":
            return self.groups_per_update
        if self.schedule == "group":
            return self.in_flight
        return min(self.in_flight, self.groups_per_step * (1 + self.max_staleness))

    @property
    def expected_staleness(self) -> float:
        """Policy versions that a group is behind on average when nobody straggles (``buffer``: at most)."""
        if self.schedule == "barrier":
            return 0.0
        behind = self.in_flight / self.groups_per_step
        return behind if self.schedule == "group" else min(behind, float(self.max_staleness))


class RoundsConfig(ScheduleConfig):
    """When the optimiser steps: in rounds, unless said otherwise."""

    schedule: Literal["group", "barrier", "buffer"] = Field(
        "barrier", description=ScheduleConfig.model_fields["schedule"].description
    )


async def follow(
    update: ScheduleConfig, rollouts: Rollouts, learner: Learner, tasks: asyncio.TaskGroup
) -> None:
    """Ask and learn by the schedule, for ever; what is under way runs in ``tasks``."""
    if update.schedule == "barrier":
        await _rounds(rollouts, learner, update.groups_per_update)
    elif update.schedule == "buffer":
        await _Buffers(update, rollouts, learner, tasks).learn()
    else:
        finals: asyncio.Queue[Final] = asyncio.Queue()
        for slot in range(update.in_flight):
            tasks.create_task(_keep_in_flight(rollouts, learner, finals), name=f"question slot {slot}")
        await _as_rewards_arrive(finals, rollouts, learner, update)


async def _keep_in_flight(rollouts: Rollouts, learner: Learner, finals: asyncio.Queue[Final]) -> None:
    while True:
        final = await learner.judged(await rollouts.next())
        if final is not None:
            finals.put_nowait(final)


async def _as_rewards_arrive(
    finals: asyncio.Queue[Final], rollouts: Rollouts, learner: Learner, update: ScheduleConfig
) -> None:
    batch: list[Final] = []
    while True:
        final = await finals.get()
        if not _is_fresh(final, rollouts, learner, update):
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


class _Buffers:
    """The schedule ``buffer``: every question takes a place, and n final places are one step."""

    def __init__(
        self, update: ScheduleConfig, rollouts: Rollouts, learner: Learner, tasks: asyncio.TaskGroup
    ) -> None:
        self._update = update
        self._rollouts = rollouts
        self._learner = learner
        self._tasks = tasks
        self._finals: asyncio.Queue[tuple[int, Final | None]] = asyncio.Queue()
        self._num_asked = 0
        self._num_under_way = 0
        self._num_emptied = 0

    async def learn(self) -> None:
        """Empty buffer after buffer, for ever; a buffer's groups are trained in the order of asking."""
        self._ask()
        while True:
            buffer = [await self._finals.get() for _ in range(self._update.groups_per_step)]
            usable = [final for _, final in sorted(buffer, key=lambda place: place[0]) if final is not None]
            fresh = [
                final for final in usable if _is_fresh(final, self._rollouts, self._learner, self._update)
            ]
            await self._learner.step(fresh)
            self._num_emptied += 1
            self._ask()

    def _ask(self) -> None:
        """Ask as many questions as there is room for and as can still be trained."""
        update = self._update
        most = update.groups_per_step * (self._num_emptied + 1 + update.max_staleness)
        while self._num_asked < most and self._num_under_way < update.in_flight:
            self._tasks.create_task(self._question(self._num_asked), name=f"question {self._num_asked}")
            self._num_asked += 1
            self._num_under_way += 1

    async def _question(self, place: int) -> None:
        final = await self._learner.judged(await self._rollouts.next())
        self._num_under_way -= 1
        self._finals.put_nowait((place, final))
        self._ask()


def _is_fresh(final: Final, rollouts: Rollouts, learner: Learner, update: ScheduleConfig) -> bool:
    """Whether a group may be trained; if not, it goes on record, and its question perhaps back into the stream."""
    if learner.staleness(final) <= update.max_staleness:
        return True
    learner.record(final, "too_stale")
    if update.on_stale == "resample":
        rollouts.again(final.group.draw)
    return False
