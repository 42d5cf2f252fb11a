"""When runs first show an accuracy, and ratios of that between two schedules, censored ones included.

A target is a share of what the reference gains with the same seed, above that seed's start: ``start_s + share * gain_s``. One
accuracy for all seeds would lie below some starts and above what other seeds ever reach, since a seed redraws the models. The
reference reaches its own gain by construction, so at the full share censoring strikes the others alone: that is severe with
them. A seed in which the reference gains less than two standard errors of a look says nothing and is left out: noise alone
crosses such a target, and soon. An amount is that of the first look at or above the target, so it is rounded up to the next
look. A run that never shows it is censored at its last look.

A ratio of which one side is censored is a bound: ``< x`` where the reference never came there, ``> x`` where ours did not.
Per seed the logarithm of a time is a sum, exactly:

    ln(time ratio) = ln(ratio of questions trained) + ln(ratio of seconds per question trained)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.schedules.runs import ScheduleRun
from fedsim.sweeps.compare.tables import show
from fedsim.sweeps.compare.target import Way, way_along
from fedsim.sweeps.stats import Interval, interval

Amount = Literal["virtual_s", "wire_bytes", "trained"]
Sense = Literal["=", "<", ">"]

SHARES = (0.25, 0.5, 0.75, 1.0)

NOISE_FACTOR = 2.0
"""How many standard errors of a look the reference has to gain."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One seed's ratio of two amounts: exact (``=``), or a bound."""

    value: float
    sense: Sense

    def __str__(self) -> str:
        """As a table has it.

        >>> str(Ratio(0.5, "=")), str(Ratio(2.0, ">"))
        ('0.50', '> 2.00')
        """
        return f"{'' if self.sense == '=' else self.sense + ' '}{self.value:.2f}"


def gain(run: ScheduleRun) -> float | None:
    """Gain on the validation questions from first to last look; None without looks."""
    return run.looks[-1].value - run.looks[0].value if run.looks else None


def noise(run: ScheduleRun) -> float:
    """Standard error of the last look, sqrt(p (1 - p) / questions); 0 where the number of questions is not known."""
    count = run.summary["validation"]["num_questions"]
    if not run.looks or not count:
        return 0.0
    return math.sqrt(run.looks[-1].value * (1 - run.looks[-1].value) / count)


def climbs(run: ScheduleRun) -> bool:
    """Whether a run gains so much on validation questions that times to shares of it mean something."""
    whole = gain(run)
    return whole is not None and whole > max(0.0, NOISE_FACTOR * noise(run))


def passage(run: ScheduleRun, climb: float) -> Way | None:
    """When a run first stands ``climb`` above its start; None for one that was never looked at."""
    return way_along(run.looks, run.looks[0].value + climb - 1e-12) if run.looks else None


def ratio(ours: Way | None, theirs: Way | None, amount: Amount) -> Ratio | None:
    """Ours over theirs; None if neither came there, or if one is nothing."""
    if ours is None or theirs is None or not (ours.reached or theirs.reached):
        return None
    mine, other = float(getattr(ours.look, amount)), float(getattr(theirs.look, amount))
    if mine <= 0 or other <= 0:
        return None
    sense: Sense = "=" if ours.reached and theirs.reached else "<" if ours.reached else ">"
    return Ratio(mine / other, sense)


def ratios(
    ours: Sequence[ScheduleRun], theirs: Sequence[ScheduleRun], share: float, amount: Amount
) -> list[Ratio | None]:
    """Ratios seed by seed to a share of the reference's (``theirs``) gain; None for a seed in which it does not climb."""
    found: list[Ratio | None] = []
    for one, other in zip(ours, theirs, strict=True):
        whole = gain(other)
        if whole is None or not climbs(other):
            found.append(None)
        else:
            found.append(ratio(passage(one, share * whole), passage(other, share * whole), amount))
    return found


def s_per_trained_ratios(
    ours: Sequence[ScheduleRun], theirs: Sequence[ScheduleRun], share: float
) -> list[Ratio | None]:
    """Ratios of the seconds that a trained question took on the way to the target, where both came there."""
    times, works = (ratios(ours, theirs, share, amount) for amount in ("virtual_s", "trained"))
    return [
        Ratio(time.value / work.value, "=") if time and work and time.sense == work.sense == "=" else None
        for time, work in zip(times, works, strict=True)
    ]


def geometric(found: Sequence[Ratio | None]) -> Interval:
    """Geometric mean of the exact ratios with the Student-t interval of their logarithms."""
    logs = interval([math.log(one.value) if one is not None and one.sense == "=" else None for one in found])
    return {key: value if key == "n" or value is None else math.exp(value) for key, value in logs.items()}


def bound(found: Sequence[Ratio | None]) -> Ratio | None:
    """The geometric mean with bounds in the place of what was censored: itself a bound if all are of one kind.

    Seeds that say nothing are left out. None where bounds point both ways, or where nothing is censored.
    """
    known = [one for one in found if one is not None]
    kinds = {one.sense for one in known} - {"="}
    if len(kinds) != 1:
        return None
    value = math.exp(sum(math.log(one.value) for one in known) / len(known))
    return Ratio(value, kinds.pop())


def shown(found: Sequence[Ratio | None]) -> str:
    """A cell: the geometric mean with its interval, and how many of the seeds that say something it does not hold.

    >>> shown([Ratio(0.5, "="), Ratio(0.5, "="), Ratio(3.0, ">"), None])
    '0.50 [0.50, 0.50]; 2 of 3 seeds; all: > 0.91'
    """
    known = [one for one in found if one is not None]
    if not known:
        return "no seed"
    exact = geometric(known)
    if exact["n"] == len(known):
        return show(exact, digits=2)
    parts = [show(exact, digits=2)] if exact["n"] else []
    whole = bound(known)
    return "; ".join(
        [*parts, f"{exact['n']} of {len(known)} seeds", *([f"all: {whole}"] if whole is not None else [])]
    )
