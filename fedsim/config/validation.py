"""What is wrong with a scenario, in one line: where it stands, what it is, what is allowed, what to do.

scenarios/x.yaml:14: network.server_link.up is '-5 Mbit/s'; must be greater than zero
scenarios/x.yaml:20: protocol.group_sise is not a key of protocol; did you mean 'group_size'? (allowed: ...)
"""

from __future__ import annotations

import difflib
import functools
import json
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fedsim.config.strict import SettingError
from fedsim.config.yaml import Document, Path
from fedsim.errors import InputError, ScenarioError


class HasOrigins(Protocol):
    """Settings that know where their keys were written."""

    def origin(self, key: Sequence[str | int]) -> str | None:
        """Where a key was written; None if that is not known."""


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=HasOrigins)

_REQUIREMENTS = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list, e.g. [a, b]",
    "list_type": "a list, e.g. [a, b]",
    "dict_type": "a mapping (lines of `key: value`)",
    "model_type": "a mapping (lines of `key: value`)",
    "model_attributes_type": "a mapping (lines of `key: value`)",
}


_KINDS = {"Comparison": "a comparison", "Stress": "a sweep"}


@dataclass(frozen=True, slots=True)
class _Problem:
    path: Path
    origin: str
    text: str
    requirement: str | None  # of a value that has the wrong type for one branch of a union


def scenario_error(error: ValidationError, document: Document, model: type[BaseModel]) -> ScenarioError:
    """The first problem by line as one line, and how many more there are."""
    problems = _merge_branches([_problem(details, document, model) for details in error.errors()])
    problems.sort(key=lambda problem: _position(problem.origin))
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ScenarioError(f"{first.origin}: {first.text}{more}")


def located(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a function's errors about a key of its settings say first where that key was written, where that is known."""

    @functools.wraps(function)
    def telling(settings: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(settings, *args, **kwargs)
        except InputError as error:
            origin = settings.origin(error.key) if error.key else None
            if origin is not None:
                error.args, error.key = (f"{origin}: {error}",), ()
            raise

    return telling


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known word, or nothing if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _problem(details: ErrorDetails, document: Document, model: type[BaseModel]) -> _Problem:
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    path = _real_path(details["loc"], document.data, missing=kind == "missing")
    requirement = None
    if kind == "missing":
        text = f"{_name(path)} is missing; it must be given"
    elif kind == "extra_forbidden":
        text = _unknown_key(path, document, model)
    elif kind == "union_tag_invalid":
        path = (*path, str(context["discriminator"]).strip("'").removesuffix("()"))
        text = _wrong_tag(path, context)
    elif kind == "union_tag_not_found":
        text = f"{_name(path)} must say which kind it is: give it the key {context['discriminator']}"
    elif kind in ("value_error", "assertion_error"):
        text = _own_words(path, value, str(context.get("error", details["msg"])))
    else:
        if kind in _REQUIREMENTS:
            requirement = _REQUIREMENTS[kind]
        text = f"{_name(path)} is {_shown(value)}; {_must(details)}{_near_choice(kind, value, context)}"
    return _Problem(path, _origin(details, path, document), text, requirement)


def _origin(details: ErrorDetails, path: Path, document: Document) -> str:
    """Where a problem was written: the name of a key that nobody knows, the key that a validator blames, or the value."""
    if details["type"] == "extra_forbidden":
        return document.key_origin(path)
    error = details.get("ctx", {}).get("error")
    return document.origin((*path, *error.key) if isinstance(error, SettingError) else path)


def _must(details: ErrorDetails) -> str:
    """What the value must be, from pydantic's own sentence where we have no better one."""
    if details["type"] in _REQUIREMENTS:
        return f"must be {_REQUIREMENTS[details['type']]}"
    if details["type"] == "too_short":
        fewest = details["ctx"]["min_length"]
        return f"must hold at least {fewest} value{'s' if fewest > 1 else ''}"
    _, should, rest = details["msg"].partition(" should ")
    rest = rest.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return f"must {rest}" if should else details["msg"]


def _own_words(path: Path, value: object, words: str) -> str:
    """A message of one of our own validators, without saying the value or the key twice."""
    name, shown = _name(path), _shown(value)
    for start in (repr(value), shown):
        if words.startswith(start + " must "):
            return f"{name} is {shown}; {words.removeprefix(start).strip()}"
        if words.startswith(start + " "):
            return f"{name} is {shown}, which {words.removeprefix(start).strip()}"
    return f"{name}: {words}" if path else words


def _unknown_key(path: Path, document: Document, model: type[BaseModel]) -> str:
    owner = _name(path[:-1]) or _KINDS.get(model.__name__, "a scenario")
    allowed = _allowed_keys(model, path[:-1], str(path[-1]), document.data)
    listed = f" (allowed: {', '.join(allowed)})" if allowed else ""
    hint = nearest(str(path[-1]), allowed)
    return f"{_name(path)} is not a key of {owner}{hint}{listed}"


def _wrong_tag(path: Path, context: dict[str, Any]) -> str:
    expected = [tag.strip().strip("'") for tag in str(context["expected_tags"]).split(",")]
    hint = nearest(str(context["tag"]), expected)
    return f"{_name(path)} is {context['tag']!r}; must be one of {', '.join(expected)}{hint}"


def _near_choice(kind: str, value: object, context: dict[str, Any]) -> str:
    if kind != "literal_error" or not isinstance(value, str):
        return ""
    return nearest(
        value, [choice.strip("' ") for choice in str(context["expected"]).replace(" or ", ",").split(",")]
    )


def _merge_branches(problems: Sequence[_Problem]) -> list[_Problem]:
    """One problem per value: pydantic reports every branch of a union that did not fit."""
    merged: dict[Path, _Problem] = {}
    for problem in problems:
        deeper = any(len(other.path) > len(problem.path) and other.path[: len(problem.path)] == problem.path
                     for other in problems)  # fmt: skip
        if problem.requirement is not None and deeper:
            continue  # the branch that fits the value's type says more
        earlier = merged.get(problem.path)
        if earlier is None or (earlier.requirement is not None and problem.requirement is None):
            merged[problem.path] = problem
        elif earlier.requirement and problem.requirement and problem.requirement not in earlier.text:
            either = f"{earlier.text} or {problem.requirement}"
            merged[problem.path] = _Problem(problem.path, problem.origin, either, earlier.requirement)
    return list(merged.values())


def _real_path(location: Sequence[str | int], data: Any, *, missing: bool) -> Path:
    """The keys of a pydantic location, without the names of union branches that pydantic mixes in."""
    path: Path = ()
    for index, step in enumerate(location):
        inside = (
            step in data if isinstance(data, dict) else isinstance(data, list) and step in range(len(data))
        )
        if inside:
            path, data = (*path, step), data[step]
        elif missing and index == len(location) - 1:
            path = (*path, step)
    return path


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = json.dumps(value) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _position(origin: str) -> tuple[int, int]:
    """File lines in order, then overrides, then what stands nowhere."""
    _, _, line = origin.rpartition(":")
    if origin.startswith("--"):
        return (1, 0)
    return (0, int(line)) if line.isdecimal() else (2, 0)


def _allowed_keys(model: type[BaseModel], path: Path, unknown: str, data: Any) -> list[str]:
    """The keys that may stand beside ``unknown`` at ``path``, by walking the settings models along it."""
    places: list[Any] = [model]
    for step in path:
        places = [inner for place in places for inner in _descend(place, step, data)]
        data = data[step]
    fitting = [place for place in places if _is_model(place) and _fits(place, data)]
    lacking = [place for place in fitting if unknown not in _keys(place)]
    most = max((_shared(place, data) for place in lacking), default=0)
    nearest_forms = [place for place in lacking if _shared(place, data) == most]
    return list(dict.fromkeys(key for place in nearest_forms for key in _keys(place)))


def _shared(model: type[BaseModel], data: dict[str, Any]) -> int:
    """How many of the written keys are this form's: which of several forms was meant."""
    return len(set(_keys(model)) & data.keys())


def _keys(model: type[BaseModel]) -> list[str]:
    """A model's keys as they are written (``for`` is no name in Python)."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _descend(place: Any, step: str | int, data: Any) -> list[Any]:
    if _is_model(place):
        if not _fits(place, data):
            return []
        if step in place.model_fields:
            return branches(place.model_fields[str(step)].annotation)
        extra = extra_type(place)
        return [] if extra is None else branches(extra)
    arguments = get_args(place)
    if get_origin(place) in (dict, list) and arguments:
        return branches(arguments[-1])
    if get_origin(place) is tuple and arguments:
        return branches(arguments[0])
    return []


def branches(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without ``Annotated``, unions and None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return branches(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [inner for part in get_args(annotation) for inner in branches(part)]
    return [] if annotation is type(None) else [annotation]


def extra_type(model: type[BaseModel]) -> Any | None:
    """The type of a model's free keys (``clients: {phone: ...}``), or None if it has none."""
    if model.model_config.get("extra") != "allow":
        return None
    hint = get_type_hints(model, include_extras=True)["__pydantic_extra__"]
    return get_args(hint)[-1]


def only_choice(info: FieldInfo) -> str | None:
    """The one value of a key that tells one form of a section from others (``kind: sessions``); None of other keys."""
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    return choices[0] if len(choices) == 1 else None


def _is_model(place: Any) -> bool:
    return isinstance(place, type) and issubclass(place, BaseModel)


def _fits(model: type[BaseModel], data: Any) -> bool:
    """Whether the discriminating keys in ``data`` (such as ``kind``) are this model's."""
    if not isinstance(data, dict):
        return False
    tags = {key: only_choice(info) for key, info in model.model_fields.items()}
    return all(tag is None or data.get(key, tag) == tag for key, tag in tags.items())
