"""Every key of a scenario, with its type, unit and default: a JSON schema for editors, a page for people.

Both come from the settings models. ``python -m fedsim.scenario.docs docs/scenarios.md`` writes the page.
"""

from __future__ import annotations

import re
import sys
import types
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, core_schema

from fedsim import protocols
from fedsim.config.units import Quantity
from fedsim.config.validation import extra_type, only_choice
from fedsim.config.yaml import read
from fedsim.records.run_folder import write_atomically
from fedsim.scenario.schema import Scenario, protocol_settings

_Model = type[BaseModel]

_HEAD = """\
# Scenario files

One YAML file says everything about a run. This page is generated from the settings models (`make docs`).

Quantities carry a unit (`20 Mbit/s`, `35 ms`, `1.5 MiB`); a bare number where a unit is needed is refused.
Relative paths start at the scenario's own folder. `fedsim check FILE` prints a file with every default filled in,
`--set path.to.key=value` overrides one key, and `fedsim schema` prints the JSON schema for an editor.

A section's title says where its keys stand (`path` of "`models.server`, `models.clients`: folder model" is
`models.server.path` or `models.clients.path`), and which value of a key, such as `kind`, asks for them.
"""


class _Schema(GenerateJsonSchema):
    """Writes defaults as a scenario would, so that 86400 seconds stand as ``1 d``."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        described = super().default_schema(schema)
        if isinstance(described.get("default"), float):
            default = SchemaSerializer(schema["schema"]).to_python(schema["default"], mode="json")
            described["default"] = default
        return described


def scenario_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, with the settings of every known protocol."""
    forms = [create_model(f"{name} settings", __base__=model) for name, model in protocol_settings().items()]
    choice: Any = Annotated[Union[tuple(forms)], Field(discriminator="name")]  # noqa: UP007 - made at run time
    description = Scenario.model_fields["protocol"].description
    whole = create_model("Scenario", __base__=Scenario, protocol=(choice, Field(description=description)))
    schema = whole.model_json_schema(schema_generator=_Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def scenario_page() -> str:
    """``docs/scenarios.md``: a section for each settings model, with an example and the keys that it defines itself."""
    examples = read(Path(__file__).with_name("examples.yaml")).data
    chapters: dict[str, dict[_Model, None]] = {}
    for forms in _places().values():
        for model in [*forms, *chain(*map(_lineage, forms))]:
            chapters.setdefault(_paths(model)[0].partition(".")[0], {})[model] = None
    contents = [f"* {top or 'all'}: {', '.join(map(_link, models))}" for top, models in chapters.items()]
    sections = [
        _section(model, examples[_title(model).replace("`", "")]) for model in chain(*chapters.values())
    ]
    return "\n".join([_HEAD, *contents, "", *chain(*sections)])


def _section(model: _Model, example: str) -> list[str]:
    forms = dict.fromkeys(chain(*_places().values()))
    about = (model.__doc__ or "").partition("\n")[0]
    if sharers := [_link(form) for form in forms if form is not model and model in _lineage(form)]:
        about += f" Shared by {', '.join(sharers)}."
    if model in forms and (bases := [_link(base) for base in _lineage(model) if base is not model]):
        about += f" Plus the keys of {', '.join(bases)}."
    keys = {key: info for form in forms for key, info in _lineage(form).get(model, {}).items()}
    table = ["", "key | type | default | meaning", "---|---|---|---"] if keys else []
    for key, info in keys.items():
        annotation: Any = Annotated[(info.annotation, "", *info.metadata)]  # which may be none
        table.append(f"`{key}` | {_type(annotation)} | {_default(info, annotation)} | {info.description}")
    return [f"## {_title(model)}", "", about, "", "```yaml", example.strip(), "```", *table, ""]


@cache
def _places() -> dict[str, dict[_Model, None]]:
    """The key paths at which settings stand, each with its forms: the models of which a scenario has one there."""
    places: dict[str, dict[_Model, None]] = {}
    waiting: list[tuple[str, _Model]] = [("", Scenario)]
    for path, form in waiting:
        places.setdefault(path, {})[form] = None
        inner = [(key, model) for key, info in _keys(form).items() for model in _models(info.annotation)]
        waiting += [(f"{path}.{key}".lstrip("."), model) for key, model in inner]
    return places


def _keys(model: _Model) -> dict[str, FieldInfo]:
    """The keys of a model as they are written, but for its tag; ``<name>`` stands for names that users give."""
    keys = {info.alias or name: info for name, info in model.model_fields.items() if not only_choice(info)}
    free = FieldInfo(annotation=extra_type(model), default=None, description="settings by name")
    return keys | {"<name>": free} if free.annotation else keys


@cache
def _lineage(form: _Model) -> dict[_Model, dict[str, FieldInfo]]:
    """A model and those that it inherits keys from, each with the keys that are as it defines them."""
    lineage: dict[_Model, dict[str, FieldInfo]] = {form: {}}
    for key, info in _keys(form).items():
        bases = [base for base in form.__mro__ if issubclass(base, BaseModel)]
        owner = [base for base in bases if repr(_keys(base).get(key)) == repr(info)][-1]
        lineage.setdefault(owner, {})[key] = info
    return lineage


@cache
def _paths(model: _Model) -> list[str]:
    return [path for path, forms in _places().items() if model in chain(*map(_lineage, forms))]


def _title(model: _Model) -> str:
    return (", ".join(f"`{path}`" for path in _paths(model) if path) or "A scenario") + "".join(_label(model))


def _label(model: _Model) -> tuple[str, str]:
    """What tells a model from others at its key paths: its tag, or its name in words."""
    if all(list(_places()[path]) == [model] for path in _paths(model)):
        return "", ""
    for name, info in model.model_fields.items():
        if tag := only_choice(info):
            return f", {name} ", f"`{tag}`"
    return ": ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", model.__name__.strip("_").removesuffix("Config")).lower()


def _link(model: _Model, text: str = "") -> str:
    anchor = re.sub(r"[^\w -]", "", _title(model).lower()).replace(" ", "-")  # as GitHub makes them
    return f"[{_label(model)[1] or text or _title(model)}](#{anchor})"


def _models(annotation: Any) -> list[_Model]:
    """The settings models that an annotation names; `Any` stands for the settings of a protocol."""
    if annotation is Any:
        return [protocol_settings()[name] for name in protocols.PROTOCOLS]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if quantities := [extra for extra in arguments[1:] if isinstance(extra, Quantity)]:
        return f"like `{quantities[0].example}`"
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return ", ".join(dict.fromkeys(_type(part) for part in arguments if part is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (tuple, list):
        return f"list of {_type(arguments[0])}"
    names = {int: "integer", float: "number", str: "text", bool: "boolean"}
    linked = ", ".join(_link(form, "mapping") for form in _models(annotation))
    return names.get(annotation) or linked or "mapping"


def _default(info: FieldInfo, annotation: Any) -> str:
    value = info.get_default(call_default_factory=True, validated_data={})
    if info.is_required() or value is None:
        return "**required**" if info.is_required() else "none"
    plain = TypeAdapter(annotation).dump_python(value, mode="json", exclude_defaults=True)
    if isinstance(value, BaseModel) and not plain:
        return _label(type(value))[1] or "see its keys"
    return f"`{yaml.safe_dump([plain], default_flow_style=True, sort_keys=False, width=1000)[1:-2]}`"


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]), scenario_page().encode())
