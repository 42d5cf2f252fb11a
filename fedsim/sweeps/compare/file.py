"""Comparison files: a base scenario, variants of it and seeds, resolved into runs before anything starts.

A file may also say what accuracy counts as reached (``target``) and which settings are chosen how (``tune``): one grid of
values and seeds for every method, judged on validation questions alone (`fedsim.sweeps.compare.tuning`).

Every run has a key: the hash of its resolved scenario and of the files it names, of the code that decides results (syntax
trees without docstrings) and of the platform. Under it a finished run is kept, so a change that cannot change a result
(a comment, the scenario's name, how figures look) repeats nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from fedsim import protocols
from fedsim.config.limits import MAX_COMPARED_RUNS
from fedsim.config.strict import KeyPath as KeyText
from fedsim.config.strict import PlainName, Seed, SettingError, StrictModel
from fedsim.config.validation import nearest, scenario_error
from fedsim.config.yaml import Document, Override, assign, read
from fedsim.config.yaml import Path as KeyPath
from fedsim.errors import DataFileError, ScenarioError
from fedsim.experiment.checks import CheckedFiles
from fedsim.models.config import is_config_file
from fedsim.records.provenance import platform_facts
from fedsim.records.run_folder import FORMAT_VERSION
from fedsim.scenario.read import find_scenario, read_scenario
from fedsim.scenario.schema import Scenario
from fedsim.sweeps.code import this_code
from fedsim.sweeps.compare.target import TargetConfig
from fedsim.tasks.sources import kept_files

M = TypeVar("M", bound=StrictModel)

_WITH_FILE = ("tasks", "clients", "availability")  # sections that may name a file, by the key `file`


def _counted_once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("a seed stands twice; one run is one observation")
    return seeds


Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), AfterValidator(_counted_once)]
"""The seeds of a comparison or a sweep."""


class Variant(StrictModel):
    """One column of a comparison: the base scenario with some keys set otherwise."""

    name: PlainName = Field(description="what tables and figures call it")
    protocol: str | None = Field(
        None, description="another protocol, with its defaults and the base's shared keys"
    )
    set: dict[KeyText, Any] = Field(
        default_factory=dict,
        description="overrides, path.to.key: value, as --set; a mapping replaces what stood there",
    )
    tune: KeyText | None = Field(
        None, description="path.to.key in which `fedsim compare --tune` tries the grid's values"
    )


class TuneConfig(StrictModel):
    """The grid in which every method's setting is chosen: the same values and seeds for all."""

    seeds: tuple[Seed, ...] = Field(
        min_length=1, description="seeds of the grid's runs; none of the comparison's own"
    )
    values: tuple[int | float, ...] = Field(min_length=2, description="values tried in each variant's key")

    @field_validator("values", "seeds")
    @classmethod
    def _tried_once(cls, given: tuple[int | float, ...]) -> tuple[int | float, ...]:
        if len(set(given)) != len(given):
            raise ValueError("a value stands twice")
        return given


class Comparison(StrictModel):
    """What is compared with what, over which seeds."""

    name: PlainName = Field(description="name of the comparison and its folder")
    base: str = Field(
        description="scenario that every variant starts from: a path beside this file, or a shipped name"
    )
    seeds: Seeds = Field(description="seeds; each redraws partition, training and sampling")
    set: dict[KeyText, Any] = Field(
        default_factory=dict, description="overrides for every run, before the variants' own"
    )
    variants: tuple[Variant, ...] = Field(
        min_length=1, description="what is compared; the first is the reference"
    )
    target: TargetConfig = Field(
        TargetConfig(share_of_gain=0.5), description="validation accuracy that counts as reached"
    )
    tune: TuneConfig | None = Field(None, description="the grid of `fedsim compare --tune`")

    @field_validator("variants")
    @classmethod
    def _named_once(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have the same name")
        return variants

    @model_validator(mode="after")
    def _few_enough(self) -> Comparison:
        num_runs = len(self.variants) * len(self.seeds)
        if num_runs > MAX_COMPARED_RUNS:
            raise SettingError(
                f"{num_runs:,} runs; a comparison may have at most {MAX_COMPARED_RUNS:,}", "seeds"
            )
        return self

    @model_validator(mode="after")
    def _tuned_apart(self) -> Comparison:
        tuned = [place for place, variant in enumerate(self.variants) if variant.tune is not None]
        if self.tune is None and tuned:
            raise SettingError(
                f"variant {self.variants[tuned[0]].name} names a key to tune, but there is no grid; "
                "give tune: {seeds: [...], values: [...]}",
                *("variants", tuned[0], "tune"),
            )
        if self.tune is not None:
            if not tuned:
                raise SettingError("tune is a grid for no variant; give a variant tune: path.to.key", "tune")
            shared = sorted(set(self.tune.seeds) & set(self.seeds))
            if shared:
                raise SettingError(
                    f"seed {shared[0]} is both tuned on and compared on; a setting is judged on runs that it was not chosen by",
                    *("tune", "seeds"),
                )
        return self


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a comparison: its scenario, and the key under which its result is kept.

    ``value`` is what the variant's tuned key is set to, None where the file's own value is used.
    """

    variant: str
    seed: int
    scenario: Scenario
    key: str
    value: float | None = None

    @property
    def name(self) -> str:
        """For people: ``variant deadline, seed 1``."""
        return f"variant {self.variant}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class ComparisonFile:
    """A comparison as read, and the base scenario that its runs are made from."""

    path: Path
    base: Path
    comparison: Comparison
    document: Document
    _files: CheckedFiles = field(default_factory=CheckedFiles, compare=False, repr=False)

    def runs(self, chosen: Mapping[str, float] | None = None) -> list[PlannedRun]:
        """Every variant with every seed; ``chosen`` are tuned values by variant.

        Raises:
            ScenarioError: one of the scenarios is wrong; one line says which variant, and where.
            DataFileError: a file that a scenario names cannot be read.
        """
        values = chosen or {}
        return [
            run
            for variant in self.comparison.variants
            for run in self._runs(variant, self.comparison.seeds, values.get(variant.name))
        ]

    def grid(self) -> list[PlannedRun]:
        """The runs of the grid: every tuned variant with every value and every seed of ``tune``.

        They never look at the test questions (``evaluation.test: false``), so nothing can be chosen by them.

        Raises:
            ScenarioError: as for `runs`, or a tuned variant has stand-in models, which learn nothing.
        """
        grid = self.comparison.tune
        if grid is None:
            return []
        planned = [
            run
            for variant in self.comparison.variants
            if variant.tune is not None
            for value in grid.values
            for run in self._runs(variant, grid.seeds, value, "evaluation.test=false")
        ]
        for run in planned:
            if run.scenario.fidelity == "timing":
                raise ScenarioError(
                    f"{self.path}: variant {run.variant}: nothing can be tuned with fidelity timing, whose models learn nothing"
                )
        return planned

    def _runs(
        self, variant: Variant, seeds: Sequence[int], value: float | None, *more: str
    ) -> list[PlannedRun]:
        place: KeyPath = ("variants", self.comparison.variants.index(variant))
        told = f": variant {variant.name}"
        assignments: list[str | Override] = []
        if variant.protocol is not None:
            named_at = self.document.origin((*place, "protocol")) + told
            assignments.append(_other_protocol(self.base, variant.protocol, named_at))
        for settings, settings_place in ((self.comparison.set, ("set",)), (variant.set, (*place, "set"))):
            for key, setting in settings.items():
                where = self.document.origin((*settings_place, key)) + told
                assignments.append(Override(f"{key}={json.dumps(setting)}", where, where))
        if value is not None:
            tried = self.document.origin(("tune", "values")) + told
            key_place = self.document.origin((*place, "tune")) + told
            assignments.append(Override(f"{variant.tune}={json.dumps(value)}", tried, key_place))
        planned = []
        try:
            for seed in seeds:
                named = read_scenario(self.base, [*assignments, *more], seed)
                scenario = named.anchored()
                self._files.check(named)
                planned.append(PlannedRun(variant.name, seed, scenario, run_key(scenario), value))
        except ScenarioError as error:
            if str(error).startswith(f"{self.path}:"):
                raise  # it names a line of this file
            raise ScenarioError(f"{self.path}: variant {variant.name}: {error}") from None
        return planned


def open_comparison(source: Path | str, seeds: Sequence[int] | None = None) -> ComparisonFile:
    """Read a comparison file; ``seeds`` replace the file's own.

    Raises:
        ScenarioError: the file is wrong, or there is none; one line says where.
    """
    path = find_scenario(source)
    document = read(path)
    if "axes" in document.data:
        raise ScenarioError(f"{path} is a sweep over axes; give it to fedsim stress")
    if not {"base", "seeds", "variants"} & document.data.keys():
        raise ScenarioError(
            f"{path} is one scenario; give it to fedsim run (a comparison has name, base, seeds, variants)"
        )
    comparison = validated(Comparison, document, seeds)
    return ComparisonFile(path, base_of(document, path, comparison.base), comparison, document)


def validated(kind: type[M], document: Document, seeds: Sequence[int] | None) -> M:
    """What a document with ``seeds`` holds; given ones replace its own.

    Raises:
        ScenarioError: it is wrong; one line says where.
    """
    if seeds is not None:
        assign(document, f"seeds={json.dumps(list(seeds))}", origin="--seeds")
    try:
        return kind.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise scenario_error(error, document, kind) from None


def base_of(document: Document, path: Path, base: str) -> Path:
    """The scenario that the key ``base`` of a file means: one beside the file, else a path or a shipped one's name.

    Raises:
        ScenarioError: there is none; the message names the key's line.
    """
    beside = path.parent / base
    try:
        return find_scenario(
            beside if os.path.lexists(beside) else base
        )  # unlike a Path's, this never raises
    except ScenarioError as error:
        raise ScenarioError(f"{document.origin(('base',))}: base: {error}") from None


def _other_protocol(base: Path, name: str, named_at: str) -> str:
    """The assignment that puts another protocol into the base scenario and keeps the settings both protocols have."""
    known_names = protocols.names()
    if name not in known_names:
        hint = nearest(name, known_names)
        raise ScenarioError(
            f"{named_at}: protocol is {name!r}; must be one of {', '.join(known_names)}{hint}"
        )
    known = protocols.load(name).Config.model_fields
    settings = read(base).data.get("protocol", {})
    given = settings if isinstance(settings, dict) else {}
    kept = {key: value for key, value in given.items() if key in known}
    return f"protocol={json.dumps(kept | {'name': name})}"


def run_key(scenario: Scenario) -> str:
    """Hash of everything that decides a run's records: resolved scenario (but its name), files, code, platform.

    Raises:
        DataFileError: a file that the scenario names cannot be read.
    """
    resolved = {key: value for key, value in scenario.resolved().items() if key != "name"}
    for section in _WITH_FILE:
        if resolved[section].get("file") is not None:
            resolved[section] |= {"file": _content(scenario, resolved[section]["file"])}
    if (edges := resolved["network"].get("edges")) is not None:
        edges |= {"file": _content(scenario, edges.get("file"))}
    for side, architecture in (resolved["models"].get("bill_as") or {}).items():
        if is_config_file(architecture):
            resolved["models"]["bill_as"] |= {side: _content(scenario, architecture)}
    material = {
        "scenario": resolved,
        "code": this_code(),
        **_plugins(scenario.protocol.name),
        "platform": platform_facts(),
        "format": FORMAT_VERSION,
    }
    return blake2b(json.dumps(material, sort_keys=True).encode(), digest_size=12).hexdigest()


def _plugins(protocol: str) -> dict[str, Any]:
    """What third parties' code adds to a run's key: nothing where the protocol is ours."""
    found = protocols.plugins_of(protocol)
    return {"plugins": found} if found else {}


def _content(scenario: Scenario, file: str | None) -> str | None:
    if file is None:
        return None
    path = scenario.folder / file
    state = blake2b(digest_size=16)
    try:
        for part in kept_files(path) if path.is_dir() else [Path()]:
            state.update(str(part).encode() if part.name else b"")
            state.update((path / part).read_bytes())
        return state.hexdigest()
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error.strerror}") from None
