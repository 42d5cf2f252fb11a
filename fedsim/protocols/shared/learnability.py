"""Whether a run can teach anything at all: counts over its groups and models, and a line for each way in which it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedsim.models.interfaces import CandidateGroup


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
