"""Settings of devices: who takes part, when they are there, and how they fail."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from fedsim.config import StrictModel
from fedsim.devices.presets import DeviceSettings, device_presets, link_names, unknown_name
from fedsim.units import PerSecond, PositiveSeconds


class _NamedLink(DeviceSettings):
    """Device keys whose ``link`` has been checked against the link table."""

    @field_validator("link")
    @classmethod
    def _known_link(cls, link: str | None) -> str | None:
        if link is not None and link not in link_names():
            raise ValueError(unknown_name("link", link, link_names()))
        return link


class ClassSettings(_NamedLink):
    """Devices of one class: how many, and what differs from the preset. A bare integer is a count."""

    count: int = Field(ge=0, le=1_000_000, description="Number of devices of this class.")


def _count_or_keys(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


class ClientsConfig(StrictModel):
    """Who takes part: ``{phone: 4, laptop: {count: 3, link: lte}}``, or ``{file: devices.csv}``.

    Classes are named by device preset and are this model's extra keys (``classes``); client ids run through
    them in the order written.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[
        str,
        Annotated[ClassSettings, BeforeValidator(_count_or_keys, json_schema_input_type=int | ClassSettings)],
    ]

    file: str | None = Field(
        default=None,
        description="CSV file, a device per row: column `class` (a preset) and any device keys with units.",
    )

    @property
    def classes(self) -> dict[str, ClassSettings]:
        """Settings by preset name, in the order written."""
        return dict(self.__pydantic_extra__)

    @model_validator(mode="after")
    def _sensible(self) -> ClientsConfig:
        classes = self.classes
        for name in classes:
            if name not in device_presets():
                raise ValueError(unknown_name("device preset", name, device_presets()))
        if self.file is not None and classes:
            raise ValueError("give either a file or classes, not both")
        if self.file is None and not sum(settings.count for settings in classes.values()):
            raise ValueError("no clients; write at least one device, e.g. {phone: 4}")
        return self


class ServerConfig(_NamedLink):
    """The server's own machine: a preset and what differs from it (its links are ``network.server_link``)."""

    preset: str = Field(default="datacenter-gpu", description="Device preset of the server.")

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, preset: str) -> str:
        if preset not in device_presets():
            raise ValueError(unknown_name("device preset", preset, device_presets()))
        return preset


class AlwaysConfig(StrictModel):
    """Every device is there all the time."""

    kind: Literal["always"] = Field(default="always", description="Always on.")


class SessionsConfig(StrictModel):
    """Devices come and go: an alternating renewal process per device, stationary from time 0 on."""

    kind: Literal["sessions"] = Field(description="On/off sessions.")
    mean_on: PositiveSeconds = Field(description="Mean length of a session, seconds.")
    mean_off: PositiveSeconds = Field(description="Mean length of a gap, seconds.")
    distribution: Literal["exponential", "weibull"] = Field(
        default="exponential", description="Law of session and gap lengths."
    )
    shape: float | None = Field(
        default=None, ge=0.2, le=20, description="Weibull shape (below 1: heavy tail); only with weibull."
    )
    on_cut: Literal["abort", "suspend"] = Field(
        default="abort", description="What happens to work under way when the device leaves."
    )

    @model_validator(mode="after")
    def _consistent(self) -> SessionsConfig:
        if (self.distribution == "weibull") != (self.shape is not None):
            raise ValueError("shape belongs to distribution: weibull, which needs it; e.g. shape: 0.6")
        if self.on_cut == "suspend":
            raise ValueError("on_cut: suspend is not available in this version; use on_cut: abort")
        return self


AvailabilityConfig = Annotated[AlwaysConfig | SessionsConfig, Field(discriminator="kind")]


class DropoutConfig(StrictModel):
    """Devices give a task up although they stay available."""

    per_task: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that a device gives a task up during its computation.",
    )
    hazard: PerSecond = Field(
        default=0.0,
        description="Constant failure rate while a task is on the device, e.g. 0.5 /h.",
    )

    @property
    def hazard_per_s(self) -> float:
        """The hazard, failures per second."""
        return self.hazard
