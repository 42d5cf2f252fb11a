from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fedsim import protocols
from fedsim.config.validation import branches
from fedsim.scenario.docs import scenario_page, scenario_schema
from fedsim.scenario.read import read_scenario, scenario_from, shipped_scenarios
from fedsim.scenario.schema import Scenario, protocol_settings

PAGE = Path(__file__).parents[2] / "docs" / "scenarios.md"


def keys(data: Any, prefix: str = "") -> Iterator[str]:
    """Every key path of a resolved scenario; names that a user chooses become ``<name>``."""
    if isinstance(data, dict):
        for key, value in data.items():
            path = f"{prefix}.{key}".lstrip(".")
            if prefix == "clients" and key != "file":
                path = "clients.<name>"
            yield path
            yield from keys(value, path)


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for info in model.model_fields.values():
        for inner in branches(info.annotation):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from models(inner)


def test_the_page_in_docs_is_current() -> None:
    assert PAGE.read_text() == scenario_page(), "run `make docs`"


@pytest.mark.parametrize("protocol", protocols.names())
def test_the_page_lists_every_key_of_a_resolved_scenario(protocol: str) -> None:
    page = scenario_page()
    scenario = scenario_from(
        {
            "name": "all-keys",
            "stop": {"updates": 1},
            "protocol": protocol,
            "clients": {"phone": 1},
            "availability": {"kind": "sessions", "mean_on": "1 h", "mean_off": "1 h"},
        }
    )
    missing = [key for key in keys(scenario.resolved()) if f"| `{key}` |" not in page]
    assert not missing


def test_every_key_says_what_it_means() -> None:
    for model in [Scenario, *protocol_settings().values()]:
        for inner in models(model):
            for name, info in inner.model_fields.items():
                assert info.description, f"{inner.__name__}.{name} has no description"


def test_defaults_stand_on_the_page_with_their_units() -> None:
    page = scenario_page()
    assert "| `limits.virtual` | quantity, like `30 s` | `30 d` |" in page
    assert "| `network.extra_rtt` | quantity, like `30 s` | `0 s` |" in page


def test_the_schema_is_json_and_knows_every_section_and_protocol() -> None:
    schema = json.loads(json.dumps(scenario_schema(), allow_nan=False))
    assert set(schema["properties"]) == set(Scenario.model_fields)
    assert set(schema["properties"]["protocol"]["discriminator"]["mapping"]) == set(protocols.names())
    assert schema["additionalProperties"] is False


def test_the_schema_writes_defaults_as_a_scenario_would() -> None:
    schema = scenario_schema()
    assert schema["$defs"]["LimitsConfig"]["properties"]["virtual"]["default"] == "30 d"


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = scenario_schema()

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    found = set(references(schema))
    assert found
    assert {reference.removeprefix("#/$defs/") for reference in found} <= set(schema["$defs"])


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_shipped_scenarios_use_only_keys_that_are_on_the_page(name: str) -> None:
    page = scenario_page()
    resolved = read_scenario(name).resolved()
    assert [key for key in keys(resolved) if f"| `{key}` |" not in page] == []
