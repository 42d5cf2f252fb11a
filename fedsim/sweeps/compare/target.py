"""What it took to get somewhere: bytes, virtual time and updates until a validation accuracy is first measured.

The target is one number for all methods and seeds. Amounts are those at a look at the validation questions, so they are
rounded up to the next look. A run that never measures the target is censored: it is known only that its amounts are larger
than those of its last look. What tables show is the median with such a run counted as more than any other
(`censored_median`); a mean over the runs that reached the target would be too small beside a censored one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from fedsim.config.strict import StrictModel
from fedsim.records.looks import Look, looks
from fedsim.records.run import load
from fedsim.sweeps.stats import interval, percentile

AMOUNTS = ("wire_bytes", "paper_bytes", "virtual_s", "updates")


class TargetConfig(StrictModel):
    """Which greedy accuracy on the validation questions counts as reached: a number, or a share of a gain."""

    validation_greedy: float | None = Field(
        None, gt=0, le=1, description="greedy accuracy on the validation questions (share)"
    )
    share_of_gain: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the first variant's mean gain, above its mean initial accuracy (share)",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> TargetConfig:
        if (self.validation_greedy is None) == (self.share_of_gain is None):
            raise ValueError("give either validation_greedy or share_of_gain")
        return self


@dataclass(frozen=True, slots=True)
class Target:
    """A validation accuracy, and in words where it comes from."""

    validation_greedy: float
    origin: str


@dataclass(frozen=True, slots=True)
class Way:
    """One run's way to a target: the first look at or above it (``reached``), or the last one, which censors the run."""

    reached: bool
    look: Look

    def amounts(self) -> dict[str, float]:
        """``AMOUNTS`` until that look."""
        return {name: getattr(self.look, name) for name in AMOUNTS}


def resolve(config: TargetConfig, first_name: str, first: Sequence[Mapping[str, Any]]) -> Target | None:
    """The target as a number: ``initial + share * (final - initial)``, each a mean over the first variant's seeds.

    Returns:
        None if the first variant's validation accuracy was not measured or has not grown.
    """
    if config.validation_greedy is not None:
        return Target(config.validation_greedy, "the comparison file")
    accuracies = [summary.get("validation", {}).get("greedy", {}) for summary in first]
    ends = [(one.get("initial"), one.get("final")) for one in accuracies]
    known = [(initial, final) for initial, final in ends if initial is not None and final is not None]
    share = config.share_of_gain
    if not known or share is None:
        return None
    initial = sum(start for start, _ in known) / len(known)
    gain = sum(final - start for start, final in known) / len(known)
    return Target(initial + share * gain, f"{share:g} of the gain of {first_name}") if gain > 0 else None


def way_along(seen: Sequence[Look], target: float) -> Way | None:
    """The way to a validation accuracy along a run's looks; None if there are none."""
    if not seen:
        return None
    found = next((look for look in seen if look.value >= target), None)
    return Way(found is not None, found or seen[-1])


def way_to(folder: Path, target: float) -> Way | None:
    """One run's way to a validation accuracy; None if none was ever measured.

    Raises:
        RunFolderError: the run is not whole.
    """
    return way_along(looks(load(folder)), target)


def censored_median(amounts: Sequence[float], reached: Sequence[bool]) -> float | None:
    """The median amount to the target, a run that never reached it counting as more than any other.

    With n runs it is the ceil(n / 2)-th smallest (`percentile`): known once at least half of the runs reached the target.

    >>> censored_median([5.0, 1.0, 9.0], [True, False, True])
    9.0
    """
    return percentile([amount if good else None for amount, good in zip(amounts, reached, strict=True)], 50)


def median_way(ways: Sequence[Way | None], amount: str) -> float | None:
    """`censored_median` of one of ``AMOUNTS`` over the ways that were measured."""
    known = [way for way in ways if way is not None]
    return censored_median([way.amounts()[amount] for way in known], [way.reached for way in known])


def describe(seeds: Sequence[int], ways: Sequence[Way | None]) -> dict[str, Any] | None:
    """One variant's ways as ``comparison.json`` has them; None if no seed has a measured one.

    ``reached`` of ``n`` runs came there; each of ``AMOUNTS`` is an interval over those alone; ``censored_median`` has the
    median of each over all n (`censored_median`); ``censored`` lists the seeds of the others, with the amounts at which the
    target had not been reached yet.
    """
    known = [(seed, way) for seed, way in zip(seeds, ways, strict=True) if way is not None]
    if not known:
        return None
    reached = [way for _, way in known if way.reached]
    return {
        "reached": len(reached),
        "n": len(known),
        **{amount: interval([way.amounts()[amount] for way in reached]) for amount in AMOUNTS},
        "censored_median": {amount: median_way(ways, amount) for amount in AMOUNTS},
        "censored": [{"seed": seed} | way.amounts() for seed, way in known if not way.reached],
    }
