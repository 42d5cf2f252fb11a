"""What a run folder says of how its run can be made again: its scenario, its program, its machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.errors import RunFolderError
from fedsim.protocols import plugins_of
from fedsim.protocols.plugins import differences
from fedsim.records.provenance import platform_facts, source_hash, versions

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario

_SAME_BITS = ("system", "machine", "cpu_features")  # a CPU's name says less than its features
_NUMERIC = (
    "python", "torch", "transformers", "peft", "safetensors", "numpy", "scipy", "simpy", "networkx", "msgspec",
    "reasoning-gym",
)  # fmt: skip


def scenario_of(manifest: Mapping[str, Any], folder: Path) -> Scenario:
    """The scenario of a run, whose files are the copies in the run's own folder.

    Raises:
        RunFolderError: the run ended before its scenario was written, or this version cannot read it.
    """
    from fedsim.errors import ScenarioError
    from fedsim.scenario.read import scenario_from

    if manifest.get("scenario") is None:
        raise RunFolderError(f"{folder}: the run ended before it began; run its scenario again")
    data = dict(manifest["scenario"])
    for key, place in manifest.get("inputs", {}).items():
        data = _with(data, key.split("."), str((folder / place).resolve()))
    try:
        return scenario_from(data, folder).anchored()
    except ScenarioError as error:
        raise RunFolderError(
            f"{folder}: this version of fedsim cannot read the run's scenario: {error}"
        ) from None


def other_program(manifest: Mapping[str, Any]) -> str | None:
    """In what the program that made a run differs from this one; None if in nothing that could change a bit."""
    named = str(manifest["scenario"]["protocol"]["name"])
    found = list(differences(manifest.get("plugins", {}), plugins_of(named)))
    if manifest.get("code") != source_hash():
        return "; ".join([*found, "fedsim's code differs"])
    ours, theirs = versions(), manifest.get("versions", {})
    for name in [name for name in _NUMERIC if ours.get(name) != theirs.get(name)][:1]:
        found.append(f"{name} was {theirs.get(name)}, here it is {ours.get(name)}")
    return "; ".join(found) or None


def other_platform(manifest: Mapping[str, Any]) -> str | None:
    """In what the machine that made a run differs from this one; None if both compute the same bits."""
    ours, theirs = platform_facts(), manifest.get("platform", {})
    differing = [name for name in _SAME_BITS if ours.get(name) != theirs.get(name)]
    return f"its machine's {differing[0].replace('_', ' ')} differ" if differing else None


def _with(data: Mapping[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    first, *rest = keys
    return {**data, first: _with(data[first], rest, value) if rest else value}
