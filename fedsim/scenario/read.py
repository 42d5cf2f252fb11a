"""Reading scenarios: a file, or a shipped one by its name, becomes a checked `Scenario`.

`read_scenario` reads a file, applies ``--set`` overrides, fills in a named world, validates strictly and names the line of an
error. What is shipped lies in ``scenarios/`` of the repository, which ``shipped`` beside this file is a link to; in an
installed fedsim it is a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fedsim import protocols
from fedsim.config import files as input_files
from fedsim.config.limits import MAX_YAML_BYTES
from fedsim.config.validation import nearest, scenario_error
from fedsim.config.yaml import Document, Override, assign, read
from fedsim.errors import ScenarioError
from fedsim.scenario import migrations, named_worlds
from fedsim.scenario.schema import Scenario, scenario_model

_SHIPPED = Path(__file__).parent / "shipped"


def read_scenario(
    source: str | Path, assignments: Sequence[str | Override] = (), seed: int | None = None
) -> Scenario:
    """Read a scenario file, or a shipped scenario by its bare name.

    Args:
        source: path, or name such as ``quickstart``.
        assignments: overrides ``path.to.key=value``, whose values are YAML, or where else they were written.
        seed: replaces the scenario's seed.

    Raises:
        ScenarioError: something is wrong; the message is one line that says where, what, and what is allowed.
    """
    path = find_scenario(source)
    document = read(path)
    if "variants" in document.data:
        raise ScenarioError(f"{path} is a comparison of several runs; give it to fedsim compare")
    if "axes" in document.data:
        raise ScenarioError(f"{path} is a sweep of many runs; give it to fedsim stress")
    for assignment in assignments:
        assign(document, assignment)
    if seed is not None:
        assign(document, f"seed={seed}", origin=f"--seed {seed}")
    return _validate(document, path.parent)


def scenario_from(data: Mapping[str, Any], folder: Path | str = ".") -> Scenario:
    """Build a scenario from plain data, e.g. a dictionary in a notebook or a manifest's resolved scenario.

    Raises:
        ScenarioError: as for `read_scenario`, without lines.
    """
    try:
        plain = json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ScenarioError(f"scenario: must be plain data, as in YAML: {error}") from error
    if not isinstance(plain, dict):
        raise ScenarioError(f"scenario: is {plain!s:.60}; must be a mapping")
    return _validate(Document(plain, {}, "scenario"), Path(folder))


def _validate(document: Document, folder: Path) -> Scenario:
    named_worlds.expand(document)
    name = _protocol_name(document)
    migrations.refuse_old_keys(document, name)
    model = scenario_model(name)
    try:
        scenario = model.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise scenario_error(error, document, model) from None
    scenario.set_source(document, folder)
    return scenario


def _protocol_name(document: Document) -> str:
    """The name under ``protocol``; the short form ``protocol: fedgrpo`` is written out in place."""
    protocol = document.data.get("protocol")
    if isinstance(protocol, str):
        document.data["protocol"] = protocol = {"name": protocol}
    given = protocol.get("name") if isinstance(protocol, dict) else None
    if isinstance(given, str) and protocols.is_known(given):
        return given
    known = protocols.names()
    where = document.origin(("protocol", "name"))
    allowed = f"must be one of {', '.join(known)}"
    if given is None:
        raise ScenarioError(f"{where}: protocol.name is missing; {allowed}")
    raise ScenarioError(f"{where}: protocol.name is {given!r}; {allowed}{nearest(str(given), known)}")


def shipped_scenarios() -> dict[str, Path]:
    """Scenarios that come with fedsim, by bare name; one in a sub-folder by ``folder/name``."""
    return {name: path for name, path in _shipped_files().items() if _kind(path) == "scenario"}


def shipped_comparisons() -> dict[str, Path]:
    """Comparisons (a scenario in several variants and seeds) that come with fedsim, by name likewise."""
    return {name: path for name, path in _shipped_files().items() if _kind(path) == "comparison"}


def shipped_sweeps() -> dict[str, Path]:
    """Stress sweeps (a scenario under every setting of some axes) that come with fedsim, by name likewise."""
    return {name: path for name, path in _shipped_files().items() if _kind(path) == "sweep"}


_FIRST_OF_FOLDER = {"async": "async/schedules", "byzantine": "byzantine/attacks", "dropout": "dropout/cost"}


def find_scenario(source: str | Path) -> Path:
    """The file that a path or a shipped name means, be it a scenario or a comparison; a bare folder means its first file.

    Raises:
        ScenarioError: there is no such file and nothing shipped under that name.
    """
    path, shipped = Path(source), _shipped_files()
    try:
        if path.is_file():
            return path
        name = _FIRST_OF_FOLDER.get(str(source), str(source))
        if name in shipped:
            return shipped[name]
        if path.is_dir():
            raise ScenarioError(f"{path} is a folder; give a scenario file")
        if path.exists():
            raise ScenarioError(f"{path}: cannot be read: not a regular file")
    except OSError as error:  # e.g. a name that is too long
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    hint = nearest(path.with_suffix("").as_posix(), shipped) or nearest(path.stem, shipped)
    known = (
        ", ".join(shipped) or f"none: {_SHIPPED} is no folder; was this checkout made without symbolic links?"
    )
    raise ScenarioError(f"{source}: no such file{hint} (shipped: {known})")


def is_comparison(source: str | Path) -> bool:
    """Whether a path or a shipped name means a comparison of several runs, not one scenario.

    Raises:
        ScenarioError: as for `find_scenario`, or the file cannot be read.
    """
    return _kind_of(source) == "comparison"


def is_sweep(source: str | Path) -> bool:
    """Whether a path or a shipped name means a stress sweep.

    Raises:
        ScenarioError: as for `find_scenario`, or the file cannot be read.
    """
    return _kind_of(source) == "sweep"


def _kind_of(source: str | Path) -> str:
    return _kind(find_scenario(source))


def _shipped_files() -> dict[str, Path]:
    root = _SHIPPED.resolve()  # messages name the file that a person edits, and not the link
    files = sorted(root.rglob("*.yaml"), key=lambda path: (len(path.relative_to(root).parts), path))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files}


def _kind(path: Path) -> Literal["scenario", "comparison", "sweep"]:
    content = input_files.read_bytes(path, MAX_YAML_BYTES, ScenarioError)
    lines = content.decode(errors="replace").splitlines()  # whoever reads the file names a wrong byte's line
    if any(line.startswith("variants:") for line in lines):
        return "comparison"
    return "sweep" if any(line.startswith("axes:") for line in lines) else "scenario"
