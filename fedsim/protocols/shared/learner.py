"""From rewards to optimiser steps: a judged group becomes advantages, and groups with advantages become a step.

A judge says who scored a group's candidates and how. Its rewards become group-relative advantages (PAPER eqs. 7 to 9,
``rl/advantages.py``), which are final when nobody is waited for any more. Which final groups make a step, and when, is for
``update_schedules.py``. The version rises only with the optimiser step, which takes the server's virtual time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fedsim.errors import FederationError, PluginError
from fedsim.federation.clients import Federation
from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import CandidateGroup, FloatArray
from fedsim.protocols.shared.state import ServerState
from fedsim.records.rows import GroupFate
from fedsim.rl.advantages import discriminative_labels, with_format_reward
from fedsim.rl.fusion import Fuse, mean_of_answered
from fedsim.rl.scaling import ScalingConfig, Signal, domain_shares, prompt_weight, scaled_advantages
from fedsim.sim.devices.cost import Work, training_work
from fedsim.tasks.questions import Question

HOPELESS_GROUPS = 2000
"""So many question groups in a row that cannot be learned from end the run with an error."""


class LearnerConfig(PolicyConfig):
    """What becomes of rewards: advantages, and what each question counts."""

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
    scaling: ScalingConfig = Field(
        ScalingConfig.defaults(),
        description="what a question counts, by its domain and its difficulty (DISCO)",
    )

    @model_validator(mode="after")
    def _no_weight_cancels(self) -> LearnerConfig:
        if self.scaling.order == "before" and self.divide_by_std and self.scaling.is_active:
            raise ValueError(
                "scaling before standardising cancels when rewards are divided by their deviation; use divide_by_std false "
                "(as published), or order after"
            )
        if self.grouping == "literal" and self.scaling.is_active:
            raise ValueError("scaling has nothing to scale under grouping literal, whose advantages are zero")
        return self

    @model_validator(mode="after")
    def _labels_come_from_rewards_alone(self) -> LearnerConfig:
        if self.loss != "disco_constrained":
            return self
        if self.format_weight:
            raise ValueError(
                "format_weight must be 0 under loss disco_constrained: it would move rewards across disco.threshold"
            )
        if self.scaling.is_active:
            raise ValueError("loss disco_constrained gives every question weight 1; leave scaling out")
        if self.grouping in ("joint", "literal"):
            raise ValueError(
                "loss disco_constrained labels fused rewards and standardises nothing; use grouping candidates"
            )
        return self


@dataclass(frozen=True, slots=True)
class Judgement:
    """Rewards of one group, ``[M, G]`` with NaN where none came, and how many experts were asked.

    ``missing`` says what learning makes of a NaN: masked, counted as zero, or the whole group is left out. ``weights``
    are what each expert counts in the average over experts, ``[M]``; alike when None. ``fuse`` makes one number of theirs.
    """

    rewards: FloatArray
    num_experts: int
    missing: Literal["mask", "zero", "drop_group"] = "mask"
    weights: FloatArray | None = None
    fuse: Fuse = mean_of_answered


Judge = Callable[[CandidateGroup], Awaitable[Judgement]]


def truth_judge(state: ServerState) -> Judge:
    """A judge that knows the truth: one expert, reward 1[candidate = answer]."""

    async def judge(group: CandidateGroup) -> Judgement:
        accepted = group.draw.question.answers
        rewards = [float(state.data.answers.right(text, accepted)) for text in group.texts]
        return Judgement(np.array([rewards]), num_experts=1)

    return judge


@dataclass(frozen=True, slots=True)
class Final:
    """A group whose advantages are final: ``[G]``, NaN for a candidate that nobody scored."""

    group: CandidateGroup
    advantages: FloatArray
    judgement: Judgement
    dispatched_at_s: float
    completed_at_s: float


def _checked(judged: Judgement, num_candidates: int) -> Judgement:
    rewards = getattr(judged, "rewards", None)
    shape = rewards.shape if isinstance(rewards, np.ndarray) and rewards.dtype.kind == "f" else None
    if not isinstance(judged, Judgement) or shape is None or len(shape) != 2 or shape[1] != num_candidates:
        said = type(rewards if isinstance(judged, Judgement) else judged).__name__
        raise PluginError(
            f"a judge must return a Judgement with rewards [M, {num_candidates}] as an array of floats; it gave "
            f"{said if shape is None else f'rewards {list(shape)}'}"
        )
    return judged


class Learner:
    """Turns judgements into advantages, and advantages into optimiser steps.

    ``questions`` are those that are learned from: their domains' shares weigh them (``scaling.domain``).
    """

    def __init__(
        self,
        federation: Federation,
        config: LearnerConfig,
        state: ServerState,
        judge: Judge,
        questions: Sequence[Question] = (),
    ) -> None:
        self._federation = federation
        self._config = config
        self._state = state
        self._judge = judge
        self._shares = domain_shares(question.domain for question in questions)
        self._lost_in_a_row: Counter[str] = Counter()

    def staleness(self, final: Final) -> int:
        """How many policy versions ago the group was sampled."""
        return self._state.policy.version - final.group.policy_version

    async def judged(self, group: CandidateGroup) -> Final | None:
        """Have a group scored; None if it cannot be learned from (its record says why).

        Raises:
            FederationError: so many groups in a row could not be learned from that waiting will not help.
            PluginError: the judge gave something else than a judgement of this group.
        """
        dispatched_at_s = self._federation.now_s()
        judging: Any = self._judge(group)
        judgement = _checked(await judging if isawaitable(judging) else judging, len(group.candidates))
        rewards = judgement.rewards
        drop = judgement.missing == "drop_group" and bool(np.isnan(rewards).any())
        if judgement.missing == "zero":
            rewards = np.nan_to_num(rewards, nan=0.0)
        signal = self._signal(group, rewards, judgement).weighted
        final = Final(group, signal, judgement, dispatched_at_s, self._federation.now_s())
        if drop or not np.isfinite(signal).any():
            self.record(final, "no_rewards" if judgement.num_experts else "no_experts")
            self._give_up_when_hopeless(judgement, drop=drop)
            return None
        self._lost_in_a_row.clear()
        return final

    def _signal(self, group: CandidateGroup, given: FloatArray, judgement: Judgement) -> Signal:
        """Advantages of a group and what its question counts; labels instead where the loss wants labels."""
        config, rewards = self._config, given
        if config.loss == "disco_constrained":
            labels = discriminative_labels(given, config.disco.threshold, judgement.weights, judgement.fuse)
            return Signal(labels)
        if config.format_weight:
            ended = np.array([float(not candidate.truncated) for candidate in group.candidates])
            rewards = with_format_reward(rewards, ended, config.format_weight)
        weight = 1.0
        if config.scaling.is_active:
            share = self._shares[group.draw.question.domain]
            weight = prompt_weight(config.scaling, given, share, judgement.weights, judgement.fuse)
        return scaled_advantages(
            rewards,
            weight,
            config.scaling.order or "after",
            grouping=config.grouping,
            epsilon=config.epsilon,
            divide_by_std=config.divide_by_std,
            weights=judgement.weights,
            fuse=judgement.fuse,
        )

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
        # The constraint's slope is known from the whole update only: one forward more, a third of a training pass.
        passes = self._config.inner_passes * (4 / 3 if self._config.loss == "disco_constrained" else 1)
        return one_pass.times(passes)

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
