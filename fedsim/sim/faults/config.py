"""Settings of faults: what breaks, on whom, and when (`fedsim.sim.faults.plan` plays them).

faults:
  - {kind: crash, at: 60 s, for: 30 s, clients: [0, 3]}
  - {kind: hang, hazard: 2 /h, for: 20 s, classes: [phone]}
  - {kind: slow_link, at: 0 s, factor: 0.1, server_link: true, direction: up}
  - {kind: wrong_length, probability: 0.05}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from fedsim.config.strict import ClientIds, StrictModel, refuse_flicker
from fedsim.config.units import PerSecond, PositiveSeconds, Seconds
from fedsim.errors import ScenarioError
from fedsim.sim.network.config import ServerLinkConfig

Directions = Literal["both", "down", "up"]


class OnDevices(StrictModel):
    """When a fault strikes, and which devices; without a target, all of them, each for itself."""

    model_config = ConfigDict(serialize_by_alias=True)

    kind: str = Field(description="Which fault it is.")
    at: Seconds | None = Field(
        None, description="Instant at which it begins, once, seconds of virtual time; or give hazard."
    )
    hazard: PerSecond | None = Field(
        None,
        description="Rate at which it begins on a target that does not have it, per second (0 = never); needs for.",
    )
    lasts_s: PositiveSeconds | None = Field(
        None,
        alias="for",
        description="How long it lasts, seconds; none: to the end of the run (only with at).",
    )
    clients: ClientIds | None = Field(None, description="Ids of the clients that it strikes.")
    classes: tuple[str, ...] | None = Field(None, description="Device classes that it strikes.")
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the devices (of the classes, if given) that it strikes, chosen by the seed, rounded up.",
    )

    @field_validator("classes")
    @classmethod
    def _some(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and not classes:
            raise ValueError("must name at least one device class, e.g. [phone]; leave it out to mean all")
        return classes

    @model_validator(mode="after")
    def _when_and_whom(self) -> OnDevices:
        if self.at is not None and self.hazard is not None:
            raise ValueError("give either at (once) or hazard (again and again), not both")
        if self.at is None and self.hazard is None and not isinstance(self, OnReplies):
            raise ValueError(
                "says not when: give at, e.g. at: 60 s, or hazard and for, e.g. hazard: 2 /h, for: 30 s"
            )
        if self.hazard is not None and self.lasts_s is None:
            raise ValueError("hazard needs for: how long each of them lasts, e.g. for: 30 s")
        if self.hazard and self.lasts_s is not None:
            refuse_flicker(1 / self.hazard + self.lasts_s, "1 / hazard and for")
        if self.clients is not None and (self.classes is not None or self.share is not None):
            raise ValueError("give either clients or classes and share, not both")
        return self

    @property
    def start_at_s(self) -> float:
        """The instant of a fault that comes once; 0 where only replies are struck and nothing is said."""
        return self.at or 0.0

    @property
    def length_s(self) -> float:
        """How long it lasts once it has begun; infinity: to the end."""
        return self.lasts_s or math.inf


class CrashConfig(OnDevices):
    """The device dies and comes back afterwards without what was under way; it is away meanwhile."""

    kind: Literal["crash"] = Field(description="The device dies: away, and what was under way is lost.")


class HangConfig(OnDevices):
    """The device computes nothing meanwhile, but stays connected: nobody is told."""

    kind: Literal["hang"] = Field(description="The device computes nothing, but stays connected.")


class OnLinks(OnDevices):
    """A fault of devices' access links, or of the server's link."""

    server_link: bool = Field(
        False, description="It strikes the server's link, instead of devices' access links."
    )
    direction: Directions = Field("both", description="Which way it strikes: down, up or both.")

    @model_validator(mode="after")
    def _one_target(self) -> OnLinks:
        if self.server_link and (self.clients or self.classes or self.share):
            raise ValueError("server_link: true is the target; leave clients, classes and share out")
        return self


class PartitionConfig(OnLinks):
    """Nothing gets through, and no connection breaks: bytes on their way wait."""

    kind: Literal["partition"] = Field(description="Nothing gets through; what is on its way waits.")

    @property
    def factor(self) -> float:
        """What is left of the rate: nothing."""
        return 0.0


class SlowLinkConfig(OnLinks):
    """The link runs at a part of its rate."""

    kind: Literal["slow_link"] = Field(description="The link runs at a part of its rate.")
    factor: float = Field(gt=0, le=1, description="What is left of the rate (share).")


class OnReplies(OnDevices):
    """A fault of replies that are sent meanwhile; without at and hazard, in the whole run."""

    probability: float = Field(1.0, ge=0, le=1, description="Probability that a reply is struck (of each).")


class DuplicateReplyConfig(OnReplies):
    """The reply is sent twice."""

    kind: Literal["duplicate_reply"] = Field(description="The reply is sent twice.")


class LateReplyConfig(OnReplies):
    """The reply is held back before it is sent."""

    kind: Literal["late_reply"] = Field(description="The reply is held back before it is sent.")
    delay: PositiveSeconds = Field(description="How long it is held back, seconds.")


class CorruptRewardConfig(OnReplies):
    """Rewards change on the device, and nothing about their form says so."""

    kind: Literal["corrupt_reward"] = Field(description="Rewards change, in form still rewards.")
    how: Literal["inverted", "random", "bit_flip"] = Field(
        "inverted",
        description="inverted: each r becomes 1 - r; random: each is drawn anew from [0, 1]; "
        "bit_flip: one bit of one reward's 64 flips (it may leave the range).",
    )


class NonFiniteRewardConfig(OnReplies):
    """One reward is not a number."""

    kind: Literal["non_finite_reward"] = Field(description="One reward of the list is NaN.")


class WrongLengthConfig(OnReplies):
    """The list of rewards has another length than that of candidates."""

    kind: Literal["wrong_length"] = Field(description="Too few or too many rewards.")
    by: int = Field(
        -1, ge=-1024, le=1024, description="How many rewards too many (above 0) or too few (below 0), count."
    )

    @field_validator("by")
    @classmethod
    def _wrong(cls, by: int) -> int:
        if not by:
            raise ValueError("must not be 0: the length would be right")
        return by


FaultConfig = Annotated[
    CrashConfig
    | HangConfig
    | PartitionConfig
    | SlowLinkConfig
    | DuplicateReplyConfig
    | LateReplyConfig
    | CorruptRewardConfig
    | NonFiniteRewardConfig
    | WrongLengthConfig,
    Field(discriminator="kind"),
]
REWARD_KINDS = frozenset({"corrupt_reward", "non_finite_reward", "wrong_length"})
"""Faults that change the rewards of a reply; they pass over replies without any."""


def check_server_link(faults: Sequence[OnDevices], rates: ServerLinkConfig) -> None:
    """Refuse to slow down a server's link that has no limit.

    Raises:
        ScenarioError: a ``slow_link`` of the server's link in a direction that is unlimited.
    """
    for place, config in enumerate(faults):
        if not isinstance(config, SlowLinkConfig) or not config.server_link:
            continue
        for direction, rate_bytes_per_s in (("down", rates.down), ("up", rates.up)):
            if config.direction in ("both", direction) and math.isinf(rate_bytes_per_s):
                raise ScenarioError(
                    f"faults.{place} slows the server's link {direction}, but network.server_link.{direction} is "
                    "unlimited; give it a rate, or strike the devices' links"
                ).at("faults", place)
