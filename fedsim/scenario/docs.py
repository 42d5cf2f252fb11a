"""Every key of a scenario, with its type, unit and default: a JSON schema for editors, a page for people.

Both come from the settings models. ``python -m fedsim.scenario.docs docs/scenarios.md`` writes the page.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaSerializer, core_schema

from fedsim.config.units import Quantity
from fedsim.config.validation import branches, extra_type
from fedsim.records.run_folder import write_atomically
from fedsim.scenario.schema import Scenario, protocol_settings

_HEAD = """\
# Scenario files

One YAML file says everything about a run. This page is generated from the settings models (`make docs`).

Quantities carry a unit (`20 Mbit/s`, `35 ms`, `1.5 MiB`); a bare number where a unit is needed is refused.
`true` and `false` are the only booleans. `fedsim check FILE` prints a file with every default filled in,
`--set path.to.key=value` overrides one key, and `fedsim schema` prints the JSON schema for an editor.
Relative paths start at the scenario's own folder.
"""


class _Schema(GenerateJsonSchema):
    """Writes defaults as a scenario would, so that 86400 seconds stand as ``1 d``."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        described = super().default_schema(schema)
        if "default" in described and isinstance(described["default"], float):
            described["default"] = SchemaSerializer(schema["schema"]).to_python(
                schema["default"], mode="json"
            )
        return described


def scenario_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, with the settings of every known protocol."""
    settings = [
        create_model(f"{name} settings", __base__=model) for name, model in protocol_settings().items()
    ]
    choice: Any = Annotated[Union[tuple(settings)], Field(discriminator="name")]  # noqa: UP007 - made at run time
    description = Scenario.model_fields["protocol"].description
    whole = create_model("Scenario", __base__=Scenario, protocol=(choice, Field(description=description)))
    schema = whole.model_json_schema(schema_generator=_Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def scenario_page() -> str:
    """``docs/scenarios.md``: a table for each section of a scenario, with all keys in it."""
    parts = [_HEAD, *_section("A scenario", "", Scenario, skip_models=True)]
    for key, info in Scenario.model_fields.items():
        if key == "protocol":
            for name, model in protocol_settings().items():
                parts += _section(f"`protocol`, name `{name}`", "protocol", model)
        else:
            for form in _models(info.annotation):
                parts += _section(f"`{key}`{_tag(form)}", key, form)
    return "\n".join(parts)


def _section(title: str, prefix: str, model: type[BaseModel], *, skip_models: bool = False) -> list[str]:
    rows = [
        f"| `{key}` | {kind} | {default} | {meaning} |"
        for key, kind, default, meaning in _rows(prefix, model, deep=not skip_models)
    ]
    about = (model.__doc__ or "").strip().partition("\n")[0]
    return [
        f"## {title}\n",
        f"{about}\n",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _rows(prefix: str, model: type[BaseModel], *, deep: bool = True) -> Iterator[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every key of a model and of the models in it."""
    for name, info in model.model_fields.items():
        key = f"{prefix}.{info.alias or name}" if prefix else name
        yield key, _kind(info), _default(info), _escaped(info.description or "")
        if deep:
            for inner in _models(info.annotation):
                yield from _rows(key, inner)
    extra = extra_type(model)
    if extra is not None:
        for inner in _models(extra):
            yield f"{prefix}.<name>", "mapping", "", _escaped((inner.__doc__ or "").partition("\n")[0])
            yield from _rows(f"{prefix}.<name>", inner)


def _models(annotation: Any) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for place in branches(annotation):
        if isinstance(place, type) and issubclass(place, BaseModel):
            found.append(place)
        elif get_origin(place) in (dict, list, tuple):
            found += [model for argument in get_args(place) for model in _models(argument)]
    return found


def _tag(model: type[BaseModel]) -> str:
    """`` (kind: sessions)`` for one of several forms of a section."""
    for name, info in model.model_fields.items():
        choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
        if len(choices) == 1:
            return f", {name} `{choices[0]}`"
    return ""


def _kind(info: FieldInfo) -> str:
    return _escaped(_type_text(_annotation(info)))


def _annotation(info: FieldInfo) -> Any:
    return Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation


def _type_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        quantity = next((extra for extra in arguments[1:] if isinstance(extra, Quantity)), None)
        return _type_text(arguments[0]) if quantity is None else f"quantity, like `{quantity.example}`"
    if origin in (Union, types.UnionType):
        texts = [_type_text(part) for part in arguments if part is not type(None)]
        return " or ".join(dict.fromkeys(texts))
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin in (tuple, list):
        return f"list of {_type_text(arguments[0])}"
    names = {int: "integer", float: "number", str: "text", bool: "`true` or `false`"}
    return names.get(annotation, "mapping")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "see its keys"
    plain = TypeAdapter(_annotation(info)).dump_python(value, mode="json")
    shown = f"[{', '.join(map(str, plain))}]" if isinstance(plain, list) else str(plain)
    return f"`{shown}`" if not isinstance(plain, bool) else f"`{shown.lower()}`"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]), scenario_page().encode())
