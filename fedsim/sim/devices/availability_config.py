"""Settings of when devices are there: one model per kind, and what every kind can have on top."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from fedsim.config.strict import SHORTEST_CYCLE_S, StrictModel, refuse_flicker
from fedsim.config.units import PositiveSeconds, Seconds

MAX_SPREAD = 5.0
"""Largest standard deviation of log-odds (`fedsim.sim.devices.odds`); at 5 most devices are near 0 or 1."""

_DAY_S = 86_400.0


class OutageConfig(StrictModel):
    """Regional outages: all devices of a region are away together."""

    regions: int = Field(
        default=4, ge=1, le=100_000, description="Number of regions; devices are dealt at random."
    )
    mean_between: PositiveSeconds = Field(description="Mean time between two outages of a region, seconds.")
    mean_length: PositiveSeconds = Field(description="Mean length of an outage, seconds.")

    @model_validator(mode="after")
    def _no_flicker(self) -> OutageConfig:
        refuse_flicker(self.mean_between + self.mean_length, "mean_between and mean_length")
        return self


class JoinConfig(StrictModel):
    """Devices that join late, at uniform instants of a first stretch of time."""

    share: float = Field(default=1.0, ge=0, le=1, description="Share of the devices that join late.")
    time: PositiveSeconds = Field(description="By when the last of them may join, seconds.")


def _all_within(value: Any) -> Any:
    return {"time": value} if isinstance(value, str | float | int) else value


class PresenceConfig(StrictModel):
    """What every kind of availability can have."""

    kind: str = Field(description="Which kind of availability.")
    on_cut: Literal["abort", "suspend"] = Field(
        default="abort",
        description="Whether work under way is lost when the device leaves, or goes on when it is back.",
    )
    spread: float = Field(
        default=0.0,
        ge=0,
        le=MAX_SPREAD,
        description="Standard deviation between devices of the log-odds of being there; the mean share is kept.",
    )
    outage: OutageConfig | None = Field(
        default=None, description="Outages of whole regions: {regions, mean_between, mean_length}."
    )
    join_within: Annotated[
        JoinConfig | None, BeforeValidator(_all_within, json_schema_input_type=str | JoinConfig | None)
    ] = Field(
        default=None,
        description="Devices join late, within this time: e.g. 2 h for all, or {share: 0.3, time: 2 h}.",
    )
    mean_stay: PositiveSeconds | None = Field(
        default=None, description="Mean time until a device leaves for good, from joining, seconds."
    )


class _NothingToSpread(PresenceConfig):
    @model_validator(mode="after")
    def _no_spread(self) -> _NothingToSpread:
        if self.spread:
            raise ValueError(f"spread belongs to kind: sessions and kind: daily; {self._REASON}")
        return self

    _REASON = ""


class AlwaysConfig(_NothingToSpread):
    """Every device is there all the time, but for outages, joining late and leaving for good."""

    kind: Literal["always"] = Field(default="always", description="Always on.")
    _REASON = "devices that are always there do not differ"


class _Lengths(PresenceConfig):
    """The law of how long devices are there and away."""

    distribution: Literal["exponential", "weibull"] = Field(
        default="exponential",
        description="Law of session and gap lengths; phones are far from exponential, weibull with shape 0.35 is near.",
    )
    shape: float | None = Field(
        default=None, ge=0.2, le=20, description="Weibull shape (below 1: heavy tail); only with weibull."
    )

    @model_validator(mode="after")
    def _consistent(self) -> _Lengths:
        if (self.distribution == "weibull") != (self.shape is not None):
            raise ValueError("shape belongs to distribution: weibull, which needs it; e.g. shape: 0.6")
        return self


class SessionsConfig(_Lengths):
    """Devices come and go: an alternating renewal process per device, stationary from time 0 on."""

    kind: Literal["sessions"] = Field(description="On/off sessions.")
    mean_on: PositiveSeconds = Field(description="Mean length of a session, seconds.")
    mean_off: PositiveSeconds = Field(description="Mean length of a gap, seconds.")

    @model_validator(mode="after")
    def _no_flicker(self) -> SessionsConfig:
        refuse_flicker(self.mean_on + self.mean_off, "mean_on and mean_off")
        return self


class DailyConfig(_Lengths):
    """Devices come and go with the time of day: sessions that begin at the wrong hour are left out."""

    kind: Literal["daily"] = Field(description="Sessions with a daily cycle.")
    mean_on: PositiveSeconds = Field(
        ge=SHORTEST_CYCLE_S, description="Mean length of a session, seconds (at least 1 s)."
    )
    peak_share: float = Field(
        gt=0, le=0.99, description="Share of devices there at the peak, if sessions are short (0 to 1)."
    )
    low_share: float = Field(
        ge=0, description="Share of devices there at the lowest, if sessions are short (0 to 1)."
    )
    peak_at: Seconds = Field(
        default=2 * 3600.0,
        description="Virtual time of the first peak, i.e. its hour if time starts at midnight.",
    )
    phase_spread: Seconds = Field(
        default=2 * 3600.0,
        description="Standard deviation between devices of the time of their peak, seconds.",
    )
    skew: float = Field(
        default=0.0,
        ge=-0.9,
        le=0.9,
        description="The fall from the peak takes (1 + skew) / 2 of the day, the rise the rest; 0 = a cosine.",
    )
    day: PositiveSeconds = Field(default=_DAY_S, description="Length of the cycle, seconds.")

    @model_validator(mode="after")
    def _peak_above(self) -> DailyConfig:
        if self.low_share > self.peak_share:
            raise ValueError(f"low_share is {self.low_share}; must be at most peak_share, {self.peak_share}")
        return self


class PhonesConfig(_NothingToSpread):
    """Measured smartphones (FLASH, 710 users): each its own share of time, sessions and gaps by their quantiles."""

    kind: Literal["phones"] = Field(description="Quantiles of measured smartphones.")
    by_hour: bool = Field(
        default=True, description="Whether presence also follows the measured hours of the day."
    )
    starts_at: Seconds = Field(
        default=0.0, description="Time of day, on the clock of the measurement, at which virtual time begins."
    )
    _REASON = "measured phones differ by themselves"


class TraceConfig(_NothingToSpread):
    """Sessions from a file, e.g. measured ones: a CSV file with the columns client, start and end."""

    kind: Literal["trace"] = Field(description="Sessions from a file.")
    file: str = Field(
        description="CSV file: client, start, end (seconds); clients from 0 on, sessions in order of time."
    )
    at_end: Literal["repeat", "away"] = Field(
        default="repeat", description="After the trace it starts again, or all devices stay away."
    )
    length: PositiveSeconds | None = Field(
        default=None, description="Length of the trace, seconds; default: the last end in the file."
    )
    _REASON = "a trace says itself how devices differ"


AvailabilityConfig = Annotated[
    AlwaysConfig | SessionsConfig | DailyConfig | PhonesConfig | TraceConfig, Field(discriminator="kind")
]
