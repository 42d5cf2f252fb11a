"""Settings of devices: who takes part and how they fail; when they are there is in `availability_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from fedsim.config.limits import MAX_CLIENTS
from fedsim.config.strict import StrictModel
from fedsim.config.units import PerSecond, resolved
from fedsim.sim.devices.availability_config import MAX_SPREAD
from fedsim.sim.devices.presets import DeviceSettings, device_presets, link_names, unknown_name


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

    count: int = Field(ge=0, le=MAX_CLIENTS, description="Number of devices of this class.")


def _count_or_keys(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"count": value}
    if not isinstance(value, Mapping | ClassSettings):
        shown = "empty" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
        raise ValueError(
            f"{shown} must be a whole number of devices, or a mapping, e.g. {{count: 3, link: lte}}"
        )
    return value


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


class PhaseHazards(StrictModel):
    """Failure rates of a request by phase; waiting for the processor counts as computation."""

    download: PerSecond = Field(default=0.0, description="Failure rate while the question comes down.")
    compute: PerSecond = Field(default=0.0, description="Failure rate while the task waits or computes.")
    upload: PerSecond = Field(default=0.0, description="Failure rate while the reply goes up.")


_RATE: TypeAdapter[float] = TypeAdapter(PerSecond)


def _every_phase(value: Any) -> Any:
    if not isinstance(value, str | float | int):
        return value
    try:
        rate = resolved(_RATE.validate_python(value))
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    return dict.fromkeys(PhaseHazards.model_fields, rate)


class DropoutConfig(StrictModel):
    """Devices give a task up although they stay available."""

    per_task: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Probability that a device gives a task up during its computation.",
    )
    spread: float = Field(
        default=0.0,
        ge=0,
        le=MAX_SPREAD,
        description="Standard deviation between devices of the log-odds of giving a task up; the mean stays per_task.",
    )
    hazard: Annotated[
        PhaseHazards, BeforeValidator(_every_phase, json_schema_input_type=str | PhaseHazards)
    ] = Field(
        default=PhaseHazards(),
        description="Failure rate while a task is on the device, e.g. 0.5 /h: one, or {download, compute, upload}.",
    )
