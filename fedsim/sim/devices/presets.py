"""Device, link and architecture presets: package data, read once, with units.

``devices.yaml`` holds nominal devices with the source of every rate; ``wifi_links.csv``, ``phone_models.csv``
and ``link_profiles.csv`` hold the spread between devices of one class (see ``presets/LICENSES.txt``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import Field, TypeAdapter

from fedsim.config.strict import StrictModel
from fedsim.config.units import Bytes, BytesPerS, FlopPerS, JoulesPerByte, Seconds, Watts
from fedsim.config.validation import nearest
from fedsim.errors import ScenarioError


class DeviceSettings(StrictModel):
    """Device keys of a preset, a class of clients, the server or a device file; unset keys inherit."""

    peak: FlopPerS | None = Field(
        default=None, description="Peak FLOP/s, e.g. 2 TFLOP/s (prefill, training)."
    )
    memory_bandwidth: BytesPerS | None = Field(default=None, description="Peak memory bytes/s (decoding).")
    memory: Bytes | None = Field(default=None, description="Installed memory that a model can use, bytes.")
    compute_efficiency: float | None = Field(
        default=None, gt=0, le=1, description="Share of the peak FLOP/s that is reached."
    )
    memory_efficiency: float | None = Field(
        default=None, gt=0, le=1, description="Share of the peak memory bytes/s that is reached."
    )
    overhead: Seconds | None = Field(default=None, description="Fixed cost of one computation, seconds.")
    step_overhead: Seconds | None = Field(
        default=None,
        description="Cost per layer of each pass (a prompt, each further token; three a training step), seconds.",
    )
    compute_jitter: float | None = Field(
        default=None, ge=0, le=3, description="Lognormal sigma of one computation's duration."
    )
    speeds: Literal["phone-models", "lognormal"] | None = Field(
        default=None,
        description="How speed differs within the class: measured phone models, or speed_spread.",
    )
    speed_spread: float | None = Field(
        default=None,
        ge=0,
        le=3,
        description="Lognormal sigma of device speed within the class; 0 = all equal.",
    )
    memory_exponent: float | None = Field(
        default=None, ge=0, le=1, description="Memory bandwidth spreads as speed to this power."
    )
    link: str | None = Field(
        default=None,
        description="Access link: wifi (measured rows) or a name of `fedsim list`, e.g. 5g-2023; without a year: old.",
    )
    up: BytesPerS | None = Field(
        default=None, description="Access rate device to server; overrides the link's."
    )
    down: BytesPerS | None = Field(
        default=None, description="Access rate server to device; overrides the link's."
    )
    rtt: Seconds | None = Field(default=None, description="Round-trip time of the access link, seconds.")
    up_jitter: float | None = Field(
        default=None, ge=0, le=3, description="Lognormal sigma of an upload's rate."
    )
    down_jitter: float | None = Field(
        default=None, ge=0, le=3, description="Lognormal sigma of a download's rate."
    )
    rtt_jitter: float | None = Field(
        default=None, ge=0, le=3, description="Lognormal sigma of a one-way delay."
    )
    power_active: Watts | None = Field(default=None, description="Power while computing, watts.")
    power_idle: Watts | None = Field(default=None, description="Power while idle, watts.")
    radio_up: JoulesPerByte | None = Field(default=None, description="Energy of sending, J per wire byte.")
    radio_down: JoulesPerByte | None = Field(
        default=None, description="Energy of receiving, J per wire byte."
    )

    def with_overrides(self, other: DeviceSettings) -> DeviceSettings:
        """These settings, with every key that ``other`` sets; a new ``link`` drops the old link's keys."""
        given = {name: getattr(other, name) for name in DeviceSettings.model_fields}
        given = {name: value for name, value in given.items() if value is not None}
        dropped: dict[str, Any] = dict.fromkeys(_LINK_KEYS) if "link" in given else {}
        if {"speed_spread"} <= given.keys() and "speeds" not in given:
            dropped["speeds"] = "lognormal"  # asking for a spread by sigma asks for no table
        return DeviceSettings.model_construct(
            **{name: getattr(self, name) for name in DeviceSettings.model_fields} | dropped | given
        )


_LINK_KEYS = ("up", "down", "rtt", "up_jitter", "down_jitter", "rtt_jitter")


class AccessLink(NamedTuple):
    """One row of a link table: rates in bytes/s, round trip in seconds (None = the preset's own), sigmas."""

    up_bytes_per_s: float
    down_bytes_per_s: float
    rtt_s: float | None
    up_jitter: float
    down_jitter: float


class PhoneModel(NamedTuple):
    """One phone model: speed relative to its year's flagship chip, and installed memory in bytes."""

    relative_speed: float
    memory_bytes: float


WIFI = "wifi"


@cache
def device_presets() -> dict[str, DeviceSettings]:
    """All device presets by name."""
    return {
        name: DeviceSettings.model_validate({key: value for key, value in keys.items() if key != "source"})
        for name, keys in _devices_file().items()
    }


def device_preset(name: str) -> DeviceSettings:
    """The device preset of this name.

    Raises:
        ScenarioError: there is none; names the nearest one.
    """
    presets = device_presets()
    if name not in presets:
        raise ScenarioError(unknown_name("device preset", name, presets))
    return presets[name]


@cache
def wifi_links() -> tuple[AccessLink, ...]:
    """Measured Wi-Fi links, one per row."""
    return tuple(
        AccessLink(
            up_bytes_per_s=_RATE.validate_python(row["up"]),
            down_bytes_per_s=_RATE.validate_python(row["down"]),
            rtt_s=None,
            up_jitter=float(row["up_jitter"]),
            down_jitter=float(row["down_jitter"]),
        )
        for row in table("wifi_links.csv")
    )


@cache
def link_profiles() -> dict[str, AccessLink]:
    """Named access links such as ``5g-2023`` and ``cable``."""
    return {
        row["name"]: AccessLink(
            up_bytes_per_s=_RATE.validate_python(row["up"]),
            down_bytes_per_s=_RATE.validate_python(row["down"]),
            rtt_s=_SECONDS.validate_python(row["rtt"]),
            up_jitter=0.0,
            down_jitter=0.0,
        )
        for row in table("link_profiles.csv")
    }


def link_names() -> tuple[str, ...]:
    """Every name that ``link:`` accepts."""
    return (WIFI, *link_profiles())


def link_descriptions() -> dict[str, str]:
    """What each name that ``link:`` accepts stands for, with its rates; old ones say so."""
    measured = (
        f"one of {len(wifi_links())} measured home Wi-Fi links, drawn for each device (FLASH, WWW 2021)"
    )
    told = {
        row["name"]: f"{row['down']} down, {row['up']} up, {row['rtt']}: {row['about']}"
        for row in table("link_profiles.csv")
    }
    return {WIFI: measured, **told}


@cache
def phone_models() -> tuple[PhoneModel, ...]:
    """Speed and memory of the phone models of one year, slowest first."""
    return tuple(
        PhoneModel(float(row["relative_speed"]), _MEMORY.validate_python(row["memory"]))
        for row in table("phone_models.csv")
    )


@cache
def architectures() -> dict[str, dict[str, Any]]:
    """Architecture numbers of well-known models by name, with the keys of a transformers ``config.json``."""
    table: dict[str, dict[str, Any]] = json.loads(_text("architectures.json"))
    return table


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that no table has: what is wrong, the nearest valid one, what is allowed."""
    names = list(known)
    return f"unknown {kind} {name!r}{nearest(name, names)} (known: {', '.join(names)})"


_RATE: TypeAdapter[float] = TypeAdapter(BytesPerS)
_SECONDS: TypeAdapter[float] = TypeAdapter(Seconds)
_MEMORY: TypeAdapter[float] = TypeAdapter(Bytes)


@cache
def _devices_file() -> dict[str, dict[str, Any]]:
    loader = getattr(
        yaml, "CSafeLoader", yaml.SafeLoader
    )  # libyaml's, where there is one, is ten times as fast
    table: dict[str, dict[str, Any]] = yaml.load(_text("devices.yaml"), loader)
    return table


def _text(name: str) -> str:
    return (files("fedsim.sim.presets") / name).read_text(encoding="utf-8")


def table(name: str) -> Iterator[dict[str, str]]:
    """The rows of one of the presets' CSV files, as text by column."""
    return csv.DictReader(line for line in _text(name).splitlines() if not line.startswith("#"))
