"""Settings of slow-downs: how devices compute more slowly than their profile says. Laws in one list multiply."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fedsim.config.strict import StrictModel, refuse_flicker
from fedsim.config.units import PositiveSeconds
from fedsim.sim.devices.presets import device_presets, unknown_name


def _known_classes(classes: tuple[str, ...]) -> tuple[str, ...]:
    for name in classes:
        if name not in device_presets():
            raise ValueError(unknown_name("device preset", name, device_presets()))
    return classes


class _OnDevices(StrictModel):
    """Which devices a slow-down strikes."""

    kind: str = Field(description="Which law it is.")
    classes: Annotated[tuple[str, ...], AfterValidator(_known_classes)] = Field(
        (), description="Only devices of these classes; an empty list means all devices."
    )


class FixedConfig(_OnDevices):
    """Some devices are slow for good."""

    kind: Literal["fixed"] = Field(description="Some devices are slow for good.")
    share: float = Field(gt=0, le=1, description="Probability that a device is one of them.")
    factor: float = Field(ge=1, le=1e6, description="How many times longer they compute.")


class ParetoConfig(_OnDevices):
    """A task takes longer by a Pareto factor of minimum 1: a heavy tail."""

    kind: Literal["pareto"] = Field(description="A heavy tail over tasks.")
    shape: float = Field(
        ge=1, le=100, description="Tail index a: a task takes x times longer or more with probability x^-a."
    )


class LognormalConfig(_OnDevices):
    """A task's duration is spread by a lognormal factor of mean 1."""

    kind: Literal["lognormal"] = Field(description="A lognormal spread over tasks, mean 1.")
    sigma: float = Field(gt=0, le=3, description="Standard deviation of the factor's logarithm.")


class OnOffConfig(_OnDevices):
    """A device is slow now and then, whatever it computes: exponential fast and slow spells."""

    kind: Literal["on_off"] = Field(description="Transient slow-downs of a device.")
    factor: float = Field(ge=1, le=1e6, description="How many times longer it computes in a slow spell.")
    mean_fast: PositiveSeconds = Field(description="Mean length of a fast spell, seconds.")
    mean_slow: PositiveSeconds = Field(description="Mean length of a slow spell, seconds.")

    @model_validator(mode="after")
    def _no_flicker(self) -> OnOffConfig:
        refuse_flicker(self.mean_fast + self.mean_slow, "mean_fast and mean_slow")
        return self


class BackgroundConfig(_OnDevices):
    """Other programs take a share of the device that changes slowly: speed is 1 - load."""

    kind: Literal["background"] = Field(description="Background load with memory.")
    mean_load: float = Field(gt=0, le=0.9, description="Mean share of the device that others take.")
    period: PositiveSeconds = Field(
        default=60.0, ge=1, description="How long the load keeps its level, seconds."
    )
    memory: float = Field(
        default=0.9, ge=0, le=0.99, description="Correlation of the load's normal score between periods."
    )


SlowdownConfig = Annotated[
    FixedConfig | ParetoConfig | LognormalConfig | OnOffConfig | BackgroundConfig,
    Field(discriminator="kind"),
]
