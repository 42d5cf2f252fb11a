"""Stress sweeps: a base scenario under every setting of some axes (or random settings), over seeds.

    name: stragglers
    base: crowd.yaml
    seeds: [0, 1, 2]
    set: {stop.updates: 10}
    axes:
      dropout: {key: dropout.per_task, levels: [0, 0.3, 0.9]}
      policy:
        levels:
          - {name: wait_all}
          - {name: patient, set: {protocol.stragglers: {policy: deadline, deadline: 5 min}}}

A point is one setting of every axis; a run is a point with a seed. A grid has the product of the axes' levels, the first
axis outermost. A random sweep (``random: {runs: 200}``) draws that many points; its axes may be ranges
(``low``, ``high``, ``scale``) and lists of levels. Every run is resolved before any starts.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from fedsim.config.limits import MAX_SWEPT_RUNS
from fedsim.config.strict import KeyPath as KeyText
from fedsim.config.strict import PlainName, Seed, SettingError, StrictModel
from fedsim.config.yaml import Document, Override, read
from fedsim.config.yaml import Path as KeyPath
from fedsim.errors import ScenarioError
from fedsim.experiment.checks import CheckedFiles
from fedsim.scenario.read import find_scenario, read_scenario
from fedsim.scenario.schema import Scenario
from fedsim.sim import streams
from fedsim.sweeps.compare.file import Seeds, base_of, run_key, validated

_AXIS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}")
_DIGITS = 6  # significant digits of a drawn value: enough to tell points apart, few enough to read


def axis_name(name: str) -> str:
    """The name, if it can head a column and be part of a file's name.

    Raises:
        ValueError: it cannot.
    """
    if _AXIS.fullmatch(name) is None:
        raise ValueError(
            f"the axis {name!r} must be called by 1 to 64 letters, digits, '.', '-', '_' or blanks"
        )
    return name


AxisName = Annotated[str, AfterValidator(axis_name)]


class Level(StrictModel):
    """A named setting of an axis."""

    name: PlainName = Field(description="what tables and figures call it")
    set: dict[KeyText, Any] = Field(
        default_factory=dict,
        description="overrides, path.to.key: value, as --set; a mapping replaces what stood there",
    )


class Axis(StrictModel):
    """One thing that is varied: a list of levels, or (random sweeps) a range."""

    key: KeyText | None = Field(None, description="path.to.key that a level or a drawn value sets")
    levels: tuple[Level | bool | int | float | str, ...] | None = Field(
        None, description="values for the key, or named levels with their own `set`"
    )
    low: float | None = Field(None, description="least value drawn")
    high: float | None = Field(None, description="largest value drawn")
    scale: Literal["linear", "log"] = Field("linear", description="in which the draw is uniform")
    whole: bool = Field(False, description="round what is drawn to a whole number")
    unit: str | None = Field(None, pattern=r"^[A-Za-z/%]+$", description="written after the number drawn")

    @model_validator(mode="after")
    def _one_kind(self) -> Axis:
        drawn = self.low is not None or self.high is not None
        if drawn == (self.levels is not None):
            raise ValueError("give either levels, or low and high")
        if self.levels is not None:
            self._check_levels(self.levels)
        elif self.key is None:
            raise ValueError("low and high need the key that they are drawn for")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("low and high must both be given, low below high")
        elif not math.isfinite(self.high - self.low):
            raise ValueError("low and high are too far apart to draw between them")
        elif self.scale == "log" and self.low <= 0:
            raise ValueError("scale log needs low above 0")
        return self

    def _check_levels(self, levels: Sequence[Any]) -> None:
        names = [level_name(level) for level in levels]
        if not names:
            raise ValueError("levels must hold at least one level")
        if len(set(names)) != len(names):
            raise ValueError("two levels have the same name")
        if self.key is None and not all(isinstance(level, Level) for level in levels):
            raise ValueError(
                "a level that is a value needs the axis's key; else write {name: ..., set: {...}}"
            )

    @property
    def names(self) -> tuple[str, ...] | None:
        """The levels' names in order; None for a range."""
        return None if self.levels is None else tuple(map(level_name, self.levels))


class RandomConfig(StrictModel):
    """Points drawn at random instead of a grid."""

    runs: int = Field(ge=1, le=MAX_SWEPT_RUNS, description="points drawn; each is run with every seed")
    seed: Seed = Field(0, description="root of the draws of points (not of the runs)")


class Stress(StrictModel):
    """What is varied, over which seeds."""

    name: PlainName = Field(description="name of the sweep and its folder")
    base: str = Field(
        description="scenario that every run starts from: a path beside this file, or a shipped name"
    )
    seeds: Seeds = Field(description="seeds; each redraws devices, data and luck")
    set: dict[KeyText, Any] = Field(
        default_factory=dict, description="overrides for every run, before the axes' own"
    )
    axes: dict[AxisName, Axis] = Field(
        min_length=1,
        description="what is varied, in order; figures have the first across, the second up, the third as panels",
    )
    random: RandomConfig | None = Field(None, description="draw points at random instead of a grid")

    @model_validator(mode="after")
    def _can_be_swept(self) -> Stress:
        for name, axis in self.axes.items():
            if self.random is None and axis.levels is None:
                raise SettingError(
                    f"axis {name} is a range, which a grid cannot have; add random: {{runs: ...}}",
                    *("axes", name, "low"),
                )
        if self.num_runs > MAX_SWEPT_RUNS:
            raise SettingError(f"{self.num_runs:,} runs; a sweep may have at most {MAX_SWEPT_RUNS:,}", "axes")
        return self

    @property
    def num_runs(self) -> int:
        """Points times seeds."""
        points = self.random.runs if self.random is not None else 1
        if self.random is None:
            for axis in self.axes.values():
                points *= len(axis.levels or ())
        return points * len(self.seeds)


@dataclass(frozen=True, slots=True)
class StressRun:
    """One run: which point it is, how tables name the point's levels, its seed, and the key under which it is kept."""

    point: int
    levels: Mapping[str, str]
    seed: int
    scenario: Scenario
    key: str

    @property
    def name(self) -> str:
        """For people: ``dropout 0.9, policy quorum, seed 1``."""
        return ", ".join([*(f"{axis} {level}" for axis, level in self.levels.items()), f"seed {self.seed}"])


class Setting(NamedTuple):
    """One override of a point, and where in the sweep's file its value and its key stand."""

    assignment: str
    place: KeyPath
    key_place: KeyPath


@dataclass(frozen=True, slots=True)
class StressFile:
    """A sweep as read, the base scenario that its runs are made from, and the file's lines."""

    path: Path
    base: Path
    stress: Stress
    document: Document

    def runs(self) -> list[StressRun]:
        """Every point with every seed.

        Raises:
            ScenarioError: one of the scenarios is wrong; one line says at which point, and where.
            DataFileError: a file that a scenario names cannot be read.
        """
        return list(self._runs())

    def _runs(self) -> Iterator[StressRun]:
        files = CheckedFiles()
        shared = [self._override(setting) for setting in _settings(self.stress.set, ("set",))]
        for point, settings in enumerate(points(self.stress)):
            levels = {axis: name for axis, (name, _) in settings.items()}
            own = [self._override(setting) for _, chosen in settings.values() for setting in chosen]
            for seed in self.stress.seeds:
                try:
                    named = read_scenario(self.base, [*shared, *own], seed)
                    scenario = named.anchored()
                    files.check(named)
                except ScenarioError as error:
                    if str(error).startswith(f"{self.path}:"):
                        raise  # it names a line of this file
                    where = ", ".join(f"{axis} {level}" for axis, level in levels.items())
                    raise ScenarioError(f"{self.path}: {where}: {error}") from None
                yield StressRun(point, levels, seed, scenario, run_key(scenario))

    def _override(self, setting: Setting) -> Override:
        return Override(setting.assignment, self._origin(setting.place), self._origin(setting.key_place))

    def _origin(self, place: KeyPath) -> str:
        return f"{self.document.origin(place)}: {'.'.join(map(str, place))}"


def points(stress: Stress) -> Iterator[dict[str, tuple[str, list[Setting]]]]:
    """Each point: per axis, the level's name and its overrides.

    A drawn value is ``low + u (high - low)``, or ``low (high / low)^u`` on a log scale, with u uniform in [0, 1), a
    function of (``random.seed``, the axis's name, the point's number): adding an axis moves no other.
    """
    if stress.random is not None:
        for number in range(stress.random.runs):
            yield {name: _drawn(name, axis, stress.random.seed, number) for name, axis in stress.axes.items()}
        return
    choices = [
        [(name, _chosen(name, axis, number)) for number in range(len(axis.levels or ()))]
        for name, axis in stress.axes.items()
    ]
    for chosen in itertools.product(*choices):
        yield dict(chosen)


def level_name(level: Any) -> str:
    """What tables call a level."""
    if isinstance(level, Level):
        return level.name
    if isinstance(level, bool):
        return "true" if level else "false"
    return f"{level:g}" if isinstance(level, float) else str(level)


def _drawn(name: str, axis: Axis, seed: int, number: int) -> tuple[str, list[Setting]]:
    u = streams.uniform(seed, "stress axis", name, number)
    if axis.levels is not None:
        return _chosen(name, axis, int(u * len(axis.levels)))
    low, high = float(axis.low or 0.0), float(axis.high or 0.0)
    drawn = low * (high / low) ** u if axis.scale == "log" else low + u * (high - low)
    value = round(drawn) if axis.whole else float(f"{drawn:.{_DIGITS}g}")
    written = value if axis.unit is None else f"{value:g} {axis.unit}"
    place = ("axes", name)
    return f"{value:g}", [Setting(_assignment(str(axis.key), written), place, (*place, "key"))]


def _chosen(name: str, axis: Axis, number: int) -> tuple[str, list[Setting]]:
    level = (axis.levels or ())[number]
    place = ("axes", name, "levels", number)
    if isinstance(level, Level):
        return level.name, _settings(level.set, (*place, "set"))
    return level_name(level), [Setting(_assignment(str(axis.key), level), place, ("axes", name, "key"))]


def _settings(overrides: Mapping[str, Any], place: KeyPath) -> list[Setting]:
    return [
        Setting(_assignment(key, value), (*place, key), (*place, key)) for key, value in overrides.items()
    ]


def _assignment(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value)}"


def open_stress(source: Path | str, seeds: Sequence[int] | None = None) -> StressFile:
    """Read a sweep's file; ``seeds`` replace its own.

    Raises:
        ScenarioError: the file is wrong, or there is none; one line says where.
    """
    path = find_scenario(source)
    document = read(path)
    if "axes" not in document.data:
        other = "compare" if "variants" in document.data else "run"
        raise ScenarioError(
            f"{path} has no axes to sweep over; give it to fedsim {other} (a sweep has name, base, seeds, axes)"
        )
    stress = validated(Stress, document, seeds)
    return StressFile(path, base_of(document, path, stress.base), stress, document)
