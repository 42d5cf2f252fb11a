"""Scenarios: one YAML file says everything about a run.

The settings models live beside the code that uses them; here they are composed. A protocol's settings are
those of the module that ``protocol.name`` names (third parties register theirs under the ``fedsim.protocols``
entry point). Nothing heavy is imported: a scenario is checked without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    create_model,
    field_validator,
    model_validator,
)

from fedsim import protocols
from fedsim.config import files as input_files
from fedsim.config.strict import PlainName, Seed, SettingError, StrictModel
from fedsim.config.units import PositiveSeconds
from fedsim.config.yaml import Document, to_yaml
from fedsim.errors import ScenarioError
from fedsim.federation.hostile_config import HostileConfig
from fedsim.federation.text_lengths import TextConfig
from fedsim.models.config import BillAs, ModelsConfig, is_config_file
from fedsim.processes.config import ComputeConfig
from fedsim.protocols.shared.monitor import EvaluationConfig, StopConfig
from fedsim.sim.devices.availability_config import AlwaysConfig, AvailabilityConfig
from fedsim.sim.devices.config import ClientsConfig, DropoutConfig, ServerConfig
from fedsim.sim.devices.correlate import CorrelateConfig, refuse_nothing_to_order
from fedsim.sim.devices.slowdown_config import SlowdownConfig
from fedsim.sim.faults.config import FaultConfig
from fedsim.sim.network.config import NetworkConfig
from fedsim.tasks.config import TasksConfig


@dataclass(frozen=True, slots=True)
class _KeyOrigins:
    """Where a scenario's keys were written; scenarios that differ in nothing else are equal."""

    document: Document = field(compare=False)


class LimitsConfig(StrictModel):
    """Where a run that does not end is ended: exceeding a limit is an error, unlike a stop condition."""

    virtual: PositiveSeconds = Field(30 * 86_400.0, description="longest virtual time (time)")
    events: int = Field(200_000_000, ge=1, description="most events on the virtual clock (count)")


class Scenario(StrictModel):
    """Everything that decides a run: one resolved scenario on one platform gives one set of records."""

    name: PlainName = Field(description="name of the run and its folder: a-z, 0-9, dot, dash and underscore")
    seed: Seed = Field(0, description="root of every random draw (whole number)")
    fidelity: Literal["real", "timing"] = Field(
        "real", description="real: models compute; timing: token counts alone (time and bytes, no torch)"
    )
    stop: StopConfig = Field(description="when the run ends; the first condition that is met")
    # The settings of the protocol that is named: `scenario_model` puts their model here.
    protocol: Any = Field(description="the protocol's name and its settings")
    tasks: TasksConfig = Field(TasksConfig.defaults(), description="questions, and who owns which")
    models: ModelsConfig = Field(
        ModelsConfig.defaults(), description="language models of the server and the clients"
    )
    text: TextConfig | None = Field(
        None, description="stated lengths of texts instead of their own (models.bill_as needs them)"
    )
    clients: ClientsConfig = Field(description="device classes by preset name, or a file of devices")
    server: ServerConfig = Field(ServerConfig.defaults(), description="the server's machine")
    world: Literal["none", "mild", "middle", "severe"] | None = Field(
        None,
        description="a named world: network, availability, dropout and slowdowns where they are not set; then written out",
    )
    network: NetworkConfig = Field(
        NetworkConfig.defaults(), description="the server's link and the transport"
    )
    availability: AvailabilityConfig = Field(AlwaysConfig.defaults(), description="when devices are there")
    dropout: DropoutConfig = Field(DropoutConfig.defaults(), description="how devices give tasks up")
    slowdowns: tuple[SlowdownConfig, ...] = Field(
        (), description="how devices compute more slowly than their profile says; laws that multiply"
    )
    faults: tuple[FaultConfig, ...] = Field((), description="what breaks, on whom and when")
    hostile: tuple[HostileConfig, ...] = Field(
        (), description="which experts score falsely, and how (protocols whose clients send rewards)"
    )
    correlate: CorrelateConfig | None = Field(
        None, description="makes the owners of a domain, or of most data, the slow or absent devices"
    )
    evaluation: EvaluationConfig = Field(
        EvaluationConfig.defaults(), description="what is measured, and how often"
    )
    compute: ComputeConfig = Field(
        ComputeConfig.defaults(), description="the machine that runs the simulation"
    )
    limits: LimitsConfig = Field(LimitsConfig.defaults(), description="bounds on a run that does not end")

    _folder: Path = PrivateAttr(default_factory=Path)
    _key_origins: _KeyOrigins | None = PrivateAttr(default=None)

    @field_validator("stop")
    @classmethod
    def _ends(cls, stop: StopConfig) -> StopConfig:
        conditions = list(StopConfig.model_fields)
        if all(getattr(stop, condition) is None for condition in conditions):
            raise ValueError(f"no stop condition; give at least one of {', '.join(conditions)}")
        return stop

    @model_validator(mode="after")
    def _billed_with_its_text(self) -> Scenario:
        if self.models.bill_as is not None and self.text is None:
            raise ValueError(
                "models.bill_as needs text: state how long questions, rationales and answers are, "
                "e.g. text: {question: 100, rationale: {median: 250, p95: 800}, answer: 8}"
            )
        return self

    @model_validator(mode="after")
    def _answers_can_be_counted_alone(self) -> Scenario:
        score = getattr(self.protocol, "model_score", None)
        if score == "answer_likelihood" and self.tasks.answer_rule.pattern is None:
            raise SettingError(
                "protocol.model_score answer_likelihood counts the final answer alone, and nothing says where it stands; give "
                "tasks.answer_pattern, or use likelihood",
                *("protocol", "model_score"),
            )
        return self

    @model_validator(mode="after")
    def _slow_devices_exist(self) -> Scenario:
        known = [name for name, settings in self.clients.classes.items() if settings.count]
        for index, law in enumerate(self.slowdowns):
            for name in law.classes:
                if self.clients.file is None and name not in known:
                    raise SettingError(
                        f"slowdowns.{index}.classes names {name!r}, but clients has none of them (it has: {', '.join(known)})",
                        *("slowdowns", index, "classes"),
                    )
        return self

    @model_validator(mode="after")
    def _something_to_correlate(self) -> Scenario:
        if self.correlate is not None:
            refuse_nothing_to_order(self.correlate, self.availability, self.dropout)
        return self

    @model_validator(mode="after")
    def _scored_where_it_can_be(self) -> Scenario:
        compute, clients = self.compute, self.models.clients
        elsewhere = "scorers" if compute.scorers else "device" if compute.device != "cpu" else "autocast"
        if compute.scorers or compute.device != "cpu" or compute.autocast != "none":
            if getattr(clients, "lora", None) is not None:
                raise SettingError(
                    f"compute.{elsewhere} is {getattr(compute, elsewhere)!r}, but clients with lora score beside the server, "
                    "on the CPU: they share their base with it; leave it out, or give models.clients without lora",
                    *("compute", elsewhere),
                )
            written = self.tasks.answer_prefix or self.tasks.stop or getattr(clients, "chat", False)
            if compute.scorers and written:
                raise SettingError(
                    f"compute.scorers is {compute.scorers}, but scorers know no tasks.answer_prefix, tasks.stop or chat; "
                    "leave it out",
                    *("compute", "scorers"),
                )
        return self

    def set_source(self, document: Document, folder: Path) -> None:
        """Remember what the scenario was read from: messages name its lines, relative paths start in its folder."""
        self._folder, self._key_origins = folder, _KeyOrigins(replace(document, data={}))

    @property
    def folder(self) -> Path:
        """The folder of the scenario file: relative paths in it start here."""
        return self._folder

    def origin(self, key: Sequence[str | int]) -> str | None:
        """Where a key was written, for messages: ``file:line``, an override or a named world; None if that is not known."""
        if self._key_origins is None:
            return None
        document = self._key_origins.document
        origin = document.origin(tuple(key))
        return None if origin == document.source else origin

    def anchored(self) -> Scenario:
        """The same scenario with its relative paths (files, model folders) made absolute, able to run from anywhere."""
        models = self.models
        return self.model_copy(
            update={
                "tasks": self._anchor(self.tasks, "tasks", "file"),
                "clients": self._anchor(self.clients, "clients", "file"),
                "availability": self._anchor(self.availability, "availability", "file"),
                "network": self._anchored_network(self.network),
                "models": models.model_copy(
                    update={
                        "server": self._anchor(models.server, "models", "server", "path"),
                        "clients": self._anchor(models.clients, "models", "clients", "path"),
                        "bill_as": self._anchored_billing(models.bill_as),
                    }
                ),
            }
        )

    def input_files(self) -> dict[str, Path]:
        """The files that a run reads, by the key that names each; model folders are not among them."""
        named = {
            "tasks.file": self.tasks.file,
            "clients.file": getattr(self.clients, "file", None),
            "availability.file": getattr(self.availability, "file", None),
            "network.edges.file": getattr(self.network.edges, "file", None),
        }
        named |= {
            f"models.bill_as.{side}": architecture
            for side, architecture in self.models.bill_as or ()
            if is_config_file(architecture)
        }
        return {key: self._folder / file for key, file in named.items() if file is not None}

    def _anchor(self, settings: StrictModel, *key: str) -> StrictModel:
        given = getattr(settings, key[-1], None)
        if given is None:
            return settings
        return settings.model_copy(update={key[-1]: self._absolute(given, *key)})

    def _absolute(self, given: str, *key: str) -> str:
        path = self._folder / given
        try:
            return str(path.resolve())
        except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a null byte
            raise ScenarioError(f"{path}: cannot be read: {input_files.why(error)}").at(*key) from None

    def _anchored_network(self, network: NetworkConfig) -> NetworkConfig:
        if network.edges is None:
            return network
        return network.model_copy(update={"edges": self._anchor(network.edges, "network", "edges", "file")})

    def _anchored_billing(self, bill_as: BillAs | None) -> BillAs | None:
        if bill_as is None:
            return None
        return bill_as.model_copy(
            update={
                side: self._absolute(architecture, "models", "bill_as", side)
                for side, architecture in bill_as
                if is_config_file(architecture)
            }
        )

    @property
    def measures(self) -> bool:
        """Whether models sample and score, so that rewards, losses and accuracy are measured and not made up by stand-ins."""
        return self.fidelity == "real"

    def resolved(self) -> dict[str, Any]:
        """Every setting with its default filled in, as plain data that `fedsim.scenario.read.scenario_from` reads back."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The resolved scenario as a scenario file, without the keys that are not set and would not be by default."""
        return to_yaml(_without_unset(self, self.resolved()))


def _without_unset(settings: BaseModel, written: Mapping[str, Any]) -> dict[str, Any]:
    """A model's plain data without nulls, but for those that replace a default which is something."""
    kept: dict[str, Any] = {}
    fields = {info.alias or name: (name, info) for name, info in type(settings).model_fields.items()}
    for key, plain in written.items():
        name, info = fields.get(key, (key, None))
        value = getattr(settings, name)
        if plain is None:
            if (
                info is not None
                and info.get_default(call_default_factory=True, validated_data={}) is not None
            ):
                kept[key] = None
        elif isinstance(value, BaseModel):
            kept[key] = _without_unset(value, plain)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            kept[key] = [_without_unset(one, data) for one, data in zip(value, plain, strict=True)]
        else:
            kept[key] = plain
    return kept


def scenario_model(protocol_name: str) -> type[Scenario]:
    """`Scenario` with the settings of one protocol, so that an error in them names its own key."""
    return _with_protocol(protocol_name, protocols.load(protocol_name).Config)


@cache
def _with_protocol(protocol_name: str, settings: type[StrictModel]) -> type[Scenario]:
    if "name" not in settings.model_fields:
        settings = _with_name(settings, protocol_name)
    description = Scenario.model_fields["protocol"].description
    return create_model("Scenario", __base__=Scenario, protocol=(settings, Field(description=description)))


def _with_name(settings: type[StrictModel], name: str) -> type[StrictModel]:
    kind: Any = Literal[name]
    return create_model(settings.__name__, __base__=settings, name=(kind, Field(description="the protocol")))


def protocol_settings() -> dict[str, type[StrictModel]]:
    """The settings model of every protocol that can be used, by name; see `fedsim.protocols.broken` for the others."""
    broken = protocols.broken().keys() - {*protocols.PROTOCOLS}
    usable = [name for name in protocols.names() if name not in broken]
    models: dict[str, Any] = {
        name: scenario_model(name).model_fields["protocol"].annotation for name in usable
    }
    return models
