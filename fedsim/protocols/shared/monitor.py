"""The books of learning: groups, updates and evaluations as records, and when the run has gone far enough."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from pydantic import Field

from fedsim.config.strict import StrictModel
from fedsim.config.units import Bytes, PositiveSeconds
from fedsim.models.interfaces import Accuracy, CandidateGroup, Evaluator, FloatArray, Policy, UpdateStats
from fedsim.progress import Phase
from fedsim.records.log import RecordLog
from fedsim.records.rows import Evaluation, Group, GroupFate, Outcome, Ratio, Update
from fedsim.tasks.questions import TaskData

_PAGE_DRAWS = 1024
_WORTH_SAYING = 0.5  # share of groups without a whole answer
_NOTHING_MEASURED = UpdateStats(math.nan, math.nan, math.nan, math.nan)


class StopConfig(StrictModel):
    """When a run ends: the first condition that is met, and the summary says which."""

    updates: int | None = Field(None, ge=1, description="optimiser steps of the server")
    virtual: PositiveSeconds | None = Field(None, description="virtual time")
    wire_bytes: Bytes | None = Field(None, description="bytes on the wire, both directions")
    accuracy: float | None = Field(
        None, gt=0, le=1, description="greedy accuracy on the validation questions"
    )
    wall: PositiveSeconds | None = Field(None, description="real time; such a run cannot be reproduced")


class EvaluationConfig(StrictModel):
    """What is measured of the policy, and when. Evaluation is the simulator's view and takes no virtual time."""

    every_updates: int = Field(
        10, ge=1, description="optimiser steps between two looks at the validation questions"
    )
    samples: int = Field(
        8,
        ge=0,
        le=64,
        description="answers sampled per question for pass@1 and, from 8 on, pass@8 (count; 0: greedy answers only)",
    )
    test: bool = Field(
        True,
        description="evaluate the test questions, and the extra sets of an own file, at the start and at the end",
    )
    client_questions: int | None = Field(
        None,
        ge=1,
        description="validation questions of each domain on which every client is measured, once (count; default all)",
    )


class CorrectCandidates(Mapping[int, Sequence[bool]]):
    """Which candidates of every draw are right: a mark per candidate ``[G]``, in about one byte; all groups have one size.

    A page holds 1,024 draws that follow one another, each as a 1 (it is there) and its G marks.

    Raises:
        ValueError: a group of another size than the first.
    """

    __slots__ = ("_num", "_pages", "_size")

    def __init__(self) -> None:
        self._num = 0
        self._size = 0
        self._pages: dict[int, bytearray] = defaultdict(self._page)

    def put(self, draw: int, marks: Sequence[bool]) -> None:
        """Set the marks of a draw."""
        self._size = self._size or len(marks)
        if len(marks) != self._size:
            raise ValueError(f"a group of {len(marks)} candidates among groups of {self._size}")
        page, start = self._pages[draw // _PAGE_DRAWS], self._start(draw)
        self._num += not page[start]
        page[start : start + self._size + 1] = bytes([1, *marks])

    def __getitem__(self, draw: int) -> Sequence[bool]:
        page, start = self._pages.get(draw // _PAGE_DRAWS), self._start(draw)
        if page is None or not page[start]:
            raise KeyError(draw)
        return [bool(mark) for mark in page[start + 1 : start + 1 + self._size]]

    def __iter__(self) -> Iterator[int]:
        for number, page in self._pages.items():
            places = range(0, len(page), self._size + 1)
            yield from (number * _PAGE_DRAWS + place for place, start in enumerate(places) if page[start])

    def __len__(self) -> int:
        return self._num

    def _start(self, draw: int) -> int:
        return draw % _PAGE_DRAWS * (self._size + 1)

    def _page(self) -> bytearray:
        return bytearray(_PAGE_DRAWS * (self._size + 1))


@dataclass(slots=True)
class Learnability:
    """Counts over the groups of a run.

    Attributes:
        num_groups: groups that ended.
        num_cut_off: those whose candidates were all cut off at the longest answer.
        num_scored: groups with at least one reward.
        num_alike: scored groups whose rewards were all the same.
    """

    num_groups: int = 0
    num_cut_off: int = 0
    num_scored: int = 0
    num_alike: int = 0

    def group(self, group: CandidateGroup, is_scored: bool, spread: float) -> None:
        """A group has ended; ``spread`` is the deviation of its rewards."""
        self.num_groups += 1
        self.num_cut_off += all(candidate.truncated for candidate in group.candidates)
        self.num_scored += is_scored
        self.num_alike += is_scored and spread == 0.0

    @property
    def cut_off_share(self) -> float:
        """Share of groups without a whole answer."""
        return self.num_cut_off / self.num_groups if self.num_groups else 0.0

    def warnings(self) -> list[str]:
        """A line for each way in which nothing could be learnt."""
        found = []
        if self.num_groups and self.num_cut_off == self.num_groups:
            found.append(
                f"all candidates of all {self.num_groups} groups were cut off at protocol.max_new_tokens, and a cut answer is "
                "never trained; raise it, or give tasks.stop or models.format_tuning"
            )
        if self.num_scored and self.num_alike == self.num_scored:
            found.append(
                f"in none of {self.num_scored} scored groups did two rewards differ, so no advantage was anything but zero"
            )
        return found


def same_models(hashes: Mapping[str, str]) -> list[str]:
    """A line where several clients have one and the same model, so that it does not matter who scores."""
    own = [digest for name, digest in hashes.items() if name.startswith("client-")]
    if len(own) < 2 or len(set(own)) > 1:
        return []
    return [
        f"all {len(own)} clients have the same model, so that it does not matter who scores; give models.clients lora, or a "
        "path with {client}"
    ]


@dataclass(slots=True)
class Monitor:
    """Keeps the books of learning and says when to stop.

    Attributes:
        correct: per draw, which candidates equal the truth (the simulator's knowledge, for reward AUC).
        by_domain: greedy accuracy per domain on the test questions, by policy version.
        stopped: set when a stop condition was met; ``stopped_by`` says which.
        measures: whether models sample and score. Stand-ins do not: their rewards and losses are inventions that a protocol
            may act on, but no record, warning or line of progress holds one.
    """

    log: RecordLog
    now_s: Callable[[], float]
    policy: Policy
    data: TaskData
    stop: StopConfig
    evaluation: EvaluationConfig
    phase: Phase
    open_requests: Callable[[], int] = lambda: 0
    measures: bool = True
    correct: CorrectCandidates = field(default_factory=CorrectCandidates)
    learnability: Learnability = field(default_factory=Learnability)
    by_domain: dict[int, dict[str, float]] = field(default_factory=dict)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    stopped_by: str = ""
    num_updates: int = 0
    _accuracy: float = math.nan
    _evaluated: set[tuple[str, int]] = field(default_factory=set)
    _dropped: int = 0
    _rewards: list[float] = field(default_factory=list)
    _started_at_wall_s: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Look at the initial policy; progress says where there is none to learn."""
        if not self.measures:
            self.phase.advance(0, fidelity="timing")
        for split in ("validation", *self._reported):
            self.evaluate(split)

    def finish(self) -> None:
        """Look at the final policy, unless that version has been looked at already."""
        for split in ("validation", *self._reported):
            if (split, self.policy.version) not in self._evaluated:
                self.evaluate(split)

    def group(
        self,
        group: CandidateGroup,
        *,
        dispatched_at_s: float,
        completed_at_s: float,
        rewards: FloatArray,
        num_experts: int,
        fate: GroupFate,
    ) -> None:
        """A question's group is final. ``rewards`` is ``[M, G]`` with NaN for what did not come."""
        question = group.draw.question
        scored = rewards[np.isfinite(rewards).any(axis=1)] if rewards.size else rewards
        mean = spread = right_share = math.nan
        if self.measures:
            correct = [self.data.answers.right(text, question.answers) for text in group.texts]
            self.correct.put(group.draw.index, correct)
            right_share = sum(correct) / len(correct)
            mean, spread = _mean_and_spread(scored)
            self.learnability.group(group, bool(scored.size), spread)
            if scored.size:
                self._rewards.append(mean)
        self.log.add(
            Group(
                draw=group.draw.index,
                question_id=question.question_id,
                domain=question.domain,
                policy_version=group.policy_version,
                dispatched_at_s=dispatched_at_s,
                completed_at_s=completed_at_s,
                num_experts=num_experts,
                num_answered=len(scored),
                reward_mean=mean,
                reward_std=spread,
                zero_variance=spread == 0.0,
                correct=right_share,
                fate=fate,
            )
        )

    def updated(
        self, stats: UpdateStats, staleness: list[int], num_candidates: int, zero_variance: float
    ) -> None:
        """An optimiser step was made; look at the policy when it is time, and stop when it is enough."""
        self.num_updates += 1
        reward_mean = sum(self._rewards) / len(self._rewards) if self._rewards else 0.0
        self._rewards.clear()
        if not self.measures:
            stats, reward_mean, zero_variance = _NOTHING_MEASURED, math.nan, math.nan
        self.log.add(
            Update(
                policy_version=self.policy.version,
                at_s=self.now_s(),
                num_groups=len(staleness),
                num_candidates=num_candidates,
                staleness_mean=sum(staleness) / len(staleness) if staleness else 0.0,
                staleness_max=max(staleness, default=0),
                loss=stats.loss,
                entropy=stats.entropy,
                clip_fraction=stats.clip_fraction,
                grad_norm=stats.grad_norm,
                reward_mean=reward_mean,
                zero_variance_share=zero_variance,
            )
        )
        for part in stats.by_staleness:
            self.log.add(Ratio(policy_version=self.policy.version, **asdict(part)))
        if self.num_updates % self.evaluation.every_updates == 0:
            self.evaluate("validation")
        self._check_stop()
        cut_off = self.learnability.cut_off_share
        self.phase.advance(
            1,
            **({"cut_off": cut_off} if cut_off > _WORTH_SAYING else {}),
            virtual_s=self.now_s(),
            **({"accuracy": self._accuracy, "reward": reward_mean} if self.measures else {}),
            in_flight=self.open_requests(),
            dropped=self._dropped,
            wire_bytes=self.log.wire_bytes,
        )

    def request_ended(self, outcome: Outcome) -> None:
        """A request ended: count it for the live view and for ``stop.wire_bytes``."""
        if outcome.status in ("dropped", "cut"):
            self._dropped += 1
        if self.stop.wire_bytes is not None and self.log.wire_bytes >= self.stop.wire_bytes:
            self.end("wire_bytes")

    def evaluate(self, split: str) -> Accuracy:
        """Measure the policy on ``validation``, ``test`` or an extra set of questions and put it on record."""
        questions = {**self.data.looks, "validation": self.data.validation, "test": self.data.test}[split]
        self._evaluated.add((split, self.policy.version))
        accuracy = self.policy.evaluate(questions, 0 if split == "validation" else self.evaluation.samples)
        if split == "validation":
            self._accuracy = accuracy.greedy
        elif split == "test":
            self.by_domain[self.policy.version] = accuracy.greedy_by_domain
        self.log.add(
            Evaluation(
                policy_version=self.policy.version,
                at_s=self.now_s(),
                split=split,
                greedy=accuracy.greedy,
                pass_at_1=accuracy.pass_at_1,
                pass_at_8=accuracy.pass_at_8,
                entropy=accuracy.entropy,
                kl_to_initial=accuracy.kl_to_initial,
                num_questions=accuracy.num_questions,
            )
        )
        return accuracy

    def end(self, reason: str) -> None:
        """The run has gone far enough."""
        if not self.stopped.is_set():
            self.stopped_by = reason
            self.stopped.set()

    async def pause_if_over(self) -> None:
        """Go no further when the run is over: whoever runs the protocol cancels it at this very instant."""
        if self.stopped.is_set():
            await asyncio.Event().wait()

    @property
    def _reported(self) -> tuple[str, ...]:
        """What is only looked at at the start and at the end."""
        return ("test", *self.data.looks) if self.evaluation.test else ()

    def _check_stop(self) -> None:
        stop = self.stop
        if stop.updates is not None and self.num_updates >= stop.updates:
            self.end("updates")
        elif stop.accuracy is not None and self._accuracy >= stop.accuracy:
            self.end("accuracy")
        elif stop.wall is not None and time.monotonic() - self._started_at_wall_s >= stop.wall:
            self.end("wall")


class ClientAccuracy:
    """The clients' true accuracy per domain on the validation questions, ``[K, D]``; computed once, when asked.

    Args:
        data: whose validation questions; where there are none, Dp.
        evaluators: the clients' models.
        most: so many questions of each domain at most; None: all.
    """

    def __init__(self, data: TaskData, evaluators: Sequence[Evaluator], most: int | None = None) -> None:
        self._data = data
        self._evaluators = evaluators
        self._most = most
        self._table: FloatArray | None = None

    def __call__(self) -> FloatArray:
        """The table; NaN for a domain without questions."""
        if self._table is None:
            data = self._data
            every = data.validation or data.auxiliary
            by_domain = [[question for question in every if question.domain == name] for name in data.domains]
            questions = [question for same in by_domain for question in same[: self._most]]
            texts = [question.text for question in questions]
            self._table = np.full((len(self._evaluators), len(data.domains)), np.nan)
            for evaluator in self._evaluators:
                for text in texts:
                    evaluator.expect_answer(text)
            for client_id, evaluator in enumerate(self._evaluators):
                answers = evaluator.answers(texts)
                for column, domain in enumerate(data.domains):
                    right = [
                        data.answers.right(answer, question.answers)
                        for answer, question in zip(answers, questions, strict=True)
                        if question.domain == domain
                    ]
                    self._table[client_id, column] = np.mean(right) if right else np.nan
        return self._table


def _mean_and_spread(scored: FloatArray) -> tuple[float, float]:
    """Mean of all rewards that came, and mean over experts of each one's deviation; 0 where none came.

    numpy's functions that look for NaN take six times as long and give the same bits where there is none.
    """
    if not scored.size:
        return 0.0, 0.0
    if np.isnan(scored).any():
        return float(np.nanmean(scored)), float(np.nanmean(np.nanstd(scored, axis=1)))
    return float(scored.mean()), float(scored.std(axis=1).mean())
