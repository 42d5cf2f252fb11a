from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedsim import protocols
from fedsim.config.yaml import parse
from fedsim.scenario.docs import scenario_page, scenario_schema
from fedsim.scenario.read import scenario_from
from fedsim.scenario.schema import Scenario

PAGE = Path(__file__).parents[2] / "docs" / "scenarios.md"
SMALLEST = {"name": "tiny", "stop": {"updates": 1}, "protocol": "fedgrpo", "clients": {"phone": 4}}
LINK = re.compile(r"\[[^\]]*\]\(#([^)]*)\)")


@dataclass(frozen=True)
class Section:
    """A section as a reader of the page sees it."""

    title: str
    prose: str
    example: str
    rows: Mapping[str, tuple[str, str, str]]  # type, default, meaning by key

    @property
    def anchor(self) -> str:
        """As GitHub makes it: lower case, without punctuation but - and _, blanks as dashes."""
        kept = [letter for letter in self.title.lower() if letter.isalnum() or letter in "-_ "]
        return "".join(kept).replace(" ", "-")

    @property
    def paths(self) -> list[str]:
        return re.findall(r"(?<![a-z] )`([a-z_.<>]+)`", self.title) or [""]

    @property
    def tag(self) -> dict[str, str]:
        """``{"kind": "sessions"}`` where the title names the value that asks for the section."""
        named = re.search(r", ([a-z]+) `([^`]+)`$", self.title)
        return {named[1]: named[2]} if named else {}

    @property
    def others(self) -> list[str]:
        """Anchors of the sections whose keys it has too."""
        return LINK.findall(self.prose.partition("Plus the keys of ")[2])


@pytest.fixture(scope="module")
def page() -> str:
    return scenario_page()


@pytest.fixture(scope="module")
def sections(page: str) -> dict[str, Section]:
    """The page's sections by anchor."""
    found = []
    for part in page.split("\n## ")[1:]:
        prose, rest = part.split("\n```yaml\n")
        example, table = rest.split("\n```\n")
        title, prose = prose.split("\n", 1)
        rows = [line.split(" | ") for line in table.splitlines() if line.startswith("`")]
        assert all(len(row) == 4 and all(row) for row in rows), rows
        assert len({row[0] for row in rows}) == len(rows)
        cells = {row[0].strip("`"): (row[1], row[2], row[3]) for row in rows}
        found.append(Section(title, prose.strip(), example, cells))
    by_anchor = {section.anchor: section for section in found}
    assert len(by_anchor) == len(found)
    return by_anchor


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json.loads(json.dumps(scenario_schema(), allow_nan=False))


@dataclass(frozen=True)
class Form:
    """Settings that may stand at a key path, as the JSON schema has them."""

    path: str
    tag: Mapping[str, str]
    required: Mapping[str, bool]  # by key, but for the tag


@pytest.fixture(scope="module")
def forms(schema: dict[str, Any]) -> list[Form]:
    """All settings that a scenario may hold, each once at each of its key paths."""
    found = {}

    def visit(node: dict[str, Any], path: str) -> None:
        name = node.get("$ref", "").removeprefix("#/$defs/")
        node = schema["$defs"][name] if name else node
        for inner in [*node.get("anyOf", []), *node.get("oneOf", []), *filter(None, [node.get("items")])]:
            visit(inner, path)
        keys = dict(node.get("properties", {}))
        if keys and (path, name) not in found:
            if isinstance(free := node.get("additionalProperties"), dict):
                keys["<name>"] = free
            tag = {key: inner["const"] for key, inner in keys.items() if "const" in inner}
            required = {key: key in node.get("required", []) for key in keys if key not in tag}
            found[path, name] = Form(path, tag, required)
            for key, inner in keys.items():
                visit(inner, f"{path}.{key}".lstrip("."))

    visit(schema, "")
    return list(found.values())


def test_the_page_in_docs_is_current(page: str) -> None:
    assert PAGE.read_text() == page, "run `make docs`"


def test_titles_and_rows_give_all_key_paths_of_the_schema_and_no_other(
    sections: dict[str, Section], forms: list[Form]
) -> None:
    said = {
        f"{path}.{key}".lstrip(".")
        for section in sections.values()
        for path in section.paths
        for key in [*section.rows, *section.tag]
    }
    assert said == {f"{form.path}.{key}".lstrip(".") for form in forms for key in [*form.required, *form.tag]}


def test_each_form_of_settings_has_one_section_that_leads_to_its_keys_and_to_no_others(
    sections: dict[str, Section], forms: list[Form]
) -> None:
    told = []
    for section in sections.values():
        rows: dict[str, tuple[str, str, str]] = {}
        for part in [*(sections[anchor] for anchor in section.others), section]:
            assert set(section.paths) <= set(part.paths)
            rows |= part.rows
        required = {key: default == "**required**" for key, (_, default, _) in rows.items()}
        told += [Form(path, section.tag, required) for path in section.paths]
        assert told[-1] in forms or "Shared by" in section.prose, section.title
    assert [form for form in forms if told.count(form) != forms.count(form)] == []


def test_no_row_is_said_twice_of_one_key(sections: dict[str, Section]) -> None:
    rows = Counter(
        (path, key, row) for one in sections.values() for path in one.paths for key, row in one.rows.items()
    )
    twice = {(path.partition(".")[0], key) for (path, key, _), times in rows.items() if times > 1}
    assert twice == {("protocol", "objective"), ("text", "at_most")}  # two settings models with the same key


def test_a_key_that_one_form_requires_is_in_no_other_form_of_a_model_source(
    sections: dict[str, Section],
) -> None:
    sources = [
        section for section in sections.values() if section.paths == ["models.server", "models.clients"]
    ]
    required = [
        key for source in sources for key, (_, default, _) in source.rows.items() if default == "**required**"
    ]
    assert {"path", "hub", "hidden_size"} <= set(required)
    assert all(sum(key in source.rows for source in sources) == 1 for key in required)


def test_a_section_names_all_that_share_it(sections: dict[str, Section]) -> None:
    for anchor, section in sections.items():
        sharers = LINK.findall(section.prose.partition("Shared by ")[2].partition("Plus the keys of ")[0])
        assert set(sharers) == {other for other in sections if anchor in sections[other].others}


def test_every_link_of_the_page_leads_to_one_of_its_sections(page: str, sections: dict[str, Section]) -> None:
    links = LINK.findall(page)
    assert len(links) > len(sections)
    assert set(links) == set(sections), "every section is in the contents"


def test_a_key_that_holds_settings_links_to_all_forms_that_they_may_have(
    sections: dict[str, Section],
) -> None:
    found: dict[str, set[str]] = {}
    for section in sections.values():
        for key, (kind, _, _) in section.rows.items():
            for path in section.paths:
                found.setdefault(f"{path}.{key}".lstrip("."), set()).update(LINK.findall(kind))
    linked = {path: anchors for path, anchors in found.items() if anchors}
    assert all(path in sections[anchor].paths for path, anchors in linked.items() for anchor in anchors)
    assert linked.keys() == {path for section in sections.values() for path in section.paths} - {""}
    assert linked["models.bill_as"] == {"modelsbill_as"}
    assert len(linked["availability"]) == 5


def test_every_example_is_short_and_valid_and_sets_a_key_of_its_own_section(
    sections: dict[str, Section],
) -> None:
    for section in sections.values():
        assert 1 <= len(section.example.splitlines()) <= 6, section.title
        data = parse(section.example.encode(), section.title).data
        scenario_from(SMALLEST | data)
        settings = [place for path in section.paths for place in reached(data, path)]
        told = [place for place in settings if section.tag.items() <= place.items()]
        assert any((section.rows or section.tag).keys() & place.keys() for place in told), section.title


def reached(data: Any, path: str) -> list[dict[str, Any]]:
    """The mappings at a key path of plain data; ``<name>`` is any key, and a list stands for its items."""
    places = [data]
    for step in path.split(".") if path else []:
        steps = [place.values() if step == "<name>" else [place.get(step)] for place in places]
        inner = [value for values in steps for value in values]
        places = [one for value in inner for one in (value if isinstance(value, list) else [value])]
        places = [place for place in places if isinstance(place, dict)]
    return places


def test_defaults_stand_on_the_page_with_their_units(sections: dict[str, Section]) -> None:
    assert sections["limits"].rows["virtual"][:2] == ("like `30 s`", "`30 d`")
    assert sections["network"].rows["extra_rtt"][:2] == ("like `30 s`", "`0 s`")
    assert sections["network"].rows["server_link"][1] == "`{up: 1 Gbit/s, down: 1 Gbit/s}`"
    assert sections["a-scenario"].rows["availability"][1] == "`always`"
    assert sections["faults-kind-corrupt_reward"].rows["how"][1] == "`inverted`"


def test_the_schema_knows_every_section_and_protocol(schema: dict[str, Any]) -> None:
    assert set(schema["properties"]) == set(Scenario.model_fields)
    assert set(schema["properties"]["protocol"]["discriminator"]["mapping"]) == set(protocols.names())
    assert schema["additionalProperties"] is False


def test_the_schema_writes_defaults_as_a_scenario_would(schema: dict[str, Any]) -> None:
    assert schema["$defs"]["LimitsConfig"]["properties"]["virtual"]["default"] == "30 d"


def test_every_reference_in_the_schema_leads_somewhere(schema: dict[str, Any]) -> None:
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
