"""Comparison files: a base scenario, variants of it and seeds, resolved into runs before anything starts.

Every run has a key: the hash of its resolved scenario and of the files it names, of the code that decides results (syntax
trees without docstrings) and of the platform. Under it a finished run is kept, so a change that cannot change a result
(a comment, the scenario's name, how figures look) repeats nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from fedsim import protocols
from fedsim.config import StrictModel
from fedsim.errors import DataFileError, ScenarioError
from fedsim.runfolder import FORMAT_VERSION, platform_facts
from fedsim.scenario import Scenario, find_scenario, read_scenario
from fedsim.scenario_errors import nearest, scenario_error
from fedsim.scenario_yaml import parse
from fedsim.source import code_fingerprint

_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
_WITH_FILE = ("tasks", "clients")  # sections that may name a file, by the key `file`


class Variant(StrictModel):
    """One column of a comparison: the base scenario with some keys set otherwise."""

    name: str = Field(pattern=_NAME, description="what tables and figures call it")
    protocol: str | None = Field(
        None, description="another protocol, with its defaults and the base's shared keys"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="overrides, path.to.key: value, as --set")


class Comparison(StrictModel):
    """What is compared with what, over which seeds."""

    name: str = Field(pattern=_NAME, description="name of the comparison and its folder")
    base: str = Field(
        description="scenario that every variant starts from: a path beside this file, or a shipped name"
    )
    seeds: tuple[int, ...] = Field(
        min_length=1, description="seeds; each redraws partition, training and sampling"
    )
    variants: tuple[Variant, ...] = Field(
        min_length=1, description="what is compared; the first is the reference"
    )

    @field_validator("variants")
    @classmethod
    def _named_once(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have the same name")
        return variants

    @field_validator("seeds")
    @classmethod
    def _counted_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands twice; one run is one observation")
        return seeds


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a comparison: its scenario, and the key under which its result is kept."""

    variant: str
    seed: int
    scenario: Scenario
    key: str


def read_comparison(source: Path | str) -> tuple[Comparison, list[PlannedRun]]:
    """Read a comparison file and resolve every run in it, so that nothing starts unless all of it is valid.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong; one line says where.
        DataFileError: a file that a scenario names cannot be read.
    """
    path = find_scenario(source)
    document = parse(path.read_bytes(), str(path))
    if not {"base", "seeds", "variants"} & document.data.keys():
        raise ScenarioError(
            f"{path} is one scenario; give it to fedsim run (a comparison has name, base, seeds, variants)"
        )
    try:
        comparison = Comparison.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise scenario_error(error, document, Comparison) from None
    beside = path.parent / comparison.base
    base = find_scenario(beside if beside.is_file() else comparison.base)
    planned = []
    for variant in comparison.variants:
        assignments = [f"{key}={json.dumps(value)}" for key, value in variant.set.items()]
        try:
            if variant.protocol is not None:
                assignments.insert(0, _other_protocol(base, variant.protocol))
            for seed in comparison.seeds:
                scenario = read_scenario(base, assignments, seed).anchored()
                planned.append(PlannedRun(variant.name, seed, scenario, run_key(scenario)))
        except ScenarioError as error:
            raise ScenarioError(f"{path}: variant {variant.name}: {error}") from None
    return comparison, planned


def _other_protocol(base: Path, name: str) -> str:
    """The assignment that puts another protocol into the base scenario and keeps the settings both protocols have."""
    known_names = protocols.names()
    if name not in known_names:
        hint = nearest(name, known_names)
        raise ScenarioError(f"protocol is {name!r}; must be one of {', '.join(known_names)}{hint}")
    known = protocols.load(name).Config.model_fields
    settings = parse(base.read_bytes(), str(base)).data.get("protocol", {})
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
        resolved[section] |= {"file": _content(scenario, resolved[section]["file"])}
    material = {
        "scenario": resolved,
        "code": result_code_hash(),
        "platform": platform_facts(),
        "format": FORMAT_VERSION,
    }
    return blake2b(json.dumps(material, sort_keys=True).encode(), digest_size=12).hexdigest()


def _content(scenario: Scenario, file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return blake2b((scenario.folder / file).read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DataFileError(f"{scenario.folder / file}: cannot be read: {error.strerror}") from None


_WITHOUT_RESULTS = {
    "__main__.py",
    "cli.py",
    "comparison.py",
    "comparison_file.py",
    "estimate.py",
    "progress.py",
    "scenario_docs.py",
    "scenario_errors.py",
    "show.py",
    "source.py",
    "sweep.py",
}


@cache
def result_code_hash(root: Path = Path(__file__).parent) -> str:
    """Hash of the package's code without docstrings and comments, but for files that only show results."""
    state = blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name not in _WITHOUT_RESULTS:
            state.update(f"{name}\0{code_fingerprint(path.read_text(encoding='utf-8'))}\0".encode())
    for path in sorted((root / "presets").glob("*.*")):
        if path.suffix in (".yaml", ".csv", ".json"):
            state.update(path.read_bytes())
    return state.hexdigest()
