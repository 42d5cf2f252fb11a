"""YAML as scenarios use it: plain data with the line each key stands on, and no surprises.

A safe subset, read by PyYAML's parser with our own rules on top:

* ``true`` and ``false`` are the only booleans, so ``no``, ``on`` and ``yes`` stay words; ``1e6`` is a number;
  ``1:30`` is text, not 90; ``0123`` is text, not octal; dates are text.
* A key that stands twice, a tag (``!!python/...``), an anchor, an alias, ``.nan`` and ``.inf`` are refused.
* Bytes, values and depth of a file are limited (`fedsim.config.limits`), so that no file can exhaust the machine.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from fedsim.config import files as input_files
from fedsim.config.limits import MAX_DEPTH, MAX_DIGITS, MAX_ECHO_CHARS, MAX_YAML_BYTES, MAX_YAML_VALUES
from fedsim.errors import ScenarioError

Path = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_INDEX = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")
_OCTAL = re.compile(r"[-+]?0[0-9]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_ORDER_MARK = "\ufeff"
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_CONSTANTS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and where each part of it was written.

    Attributes:
        data: mappings, lists, text, numbers, booleans and None.
        origins: path of a key -> what an error message says first: ``file:line`` or ``--set key=value``.
        source: the file, for messages about nothing in particular.
        key_origins: the same for the name of a key, where it was not written beside its value.
    """

    data: dict[str, Any]
    origins: dict[Path, str] = field(repr=False)
    source: str
    key_origins: dict[Path, str] = field(default_factory=dict, repr=False)

    def origin(self, path: Path) -> str:
        """Where ``path`` was written, or the innermost part of it that was written at all."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return self.source

    def key_origin(self, path: Path) -> str:
        """Where the name of ``path`` was written."""
        return self.key_origins.get(path) or self.origin(path)


@dataclass(frozen=True, slots=True)
class Override:
    """An assignment that was written elsewhere than in ``--set``.

    Attributes:
        assignment: ``path.to.key=value``.
        origin: where its value was written, for messages.
        key_origin: where its key was.
    """

    assignment: str
    origin: str
    key_origin: str


def read(path: pathlib.Path) -> Document:
    """Read a YAML file; see `parse`.

    Raises:
        ScenarioError: it cannot be read, or as for `parse`.
    """
    return parse(input_files.read_bytes(path, MAX_YAML_BYTES, ScenarioError), str(path))


def parse(content: bytes, source: str) -> Document:
    """Read one YAML document whose top level is a mapping.

    Raises:
        ScenarioError: it is too large, is not UTF-8, is not YAML, or uses what the module docstring refuses.
    """
    if len(content) > MAX_YAML_BYTES:
        raise ScenarioError(f"{source}: has {len(content):,} bytes; must have at most {MAX_YAML_BYTES:,}")
    node = _compose(input_files.decoded(content, source, ScenarioError), source)
    if not isinstance(node, yaml.MappingNode):
        raise ScenarioError(f"{source} must hold a mapping at its top level (lines like `name: my-run`)")
    origins: dict[Path, str] = {}
    data = _Reader(source, origins).value(node, ())
    return Document(data, origins, source)


def parse_value(text: str, origin: str, path: Path = ()) -> Any:
    """Read the value of a ``--set key=value`` as YAML; ``path`` names it in messages.

    Raises:
        ScenarioError: as for `parse`.
    """
    node = _compose(text, origin, numbered=False)
    return None if node is None else _Reader(origin, {}, numbered=False).value(node, path)


def assign(document: Document, assignment: str | Override, origin: str | None = None) -> None:
    """Apply one ``path.to.key=value`` to the document in place; messages name ``--set`` and the assignment, or its origin.

    Raises:
        ScenarioError: there is no ``=``, no key, or the path runs through something that holds no keys.
    """
    if not isinstance(assignment, Override):
        origin = origin or f"--set {_echo(assignment)}"
        assignment = Override(assignment, origin, origin)
    origin, key_origin = assignment.origin, assignment.key_origin
    path_text, separator, value_text = assignment.assignment.partition("=")
    keys = path_text.strip().split(".")
    if not separator or not all(keys):
        raise ScenarioError(f"{key_origin}: must look like path.to.key=value")
    if len(keys) > MAX_DEPTH:
        raise ScenarioError(f"{key_origin}: names {len(keys)} keys, one in the other; at most {MAX_DEPTH}")
    value = parse_value(value_text, origin, tuple(keys))
    place: Any = document.data
    path: Path = ()
    for depth, key in enumerate(keys):
        step = _step(place, key, ".".join(keys[:depth]), key_origin)
        path = (*path, step)
        if depth == len(keys) - 1:
            place[step] = value
        elif isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
            document.origins[path] = key_origin
        place = place[step]
    for stale in [known for known in document.origins if known[: len(path)] == path]:
        del document.origins[stale]
    document.origins[path], document.key_origins[path] = origin, key_origin


def _step(place: Any, key: str, name: str, origin: str) -> str | int:
    """The key or list index by which an assignment goes one level down."""
    if isinstance(place, dict):
        return key
    if not isinstance(place, list):
        raise ScenarioError(f"{origin}: {name} is {place!r}, which has no keys; set {name} itself")
    index = int(key) if _INDEX.fullmatch(key) else -1
    if not 0 <= index < len(place):
        allowed = f"must be an index from 0 to {len(place) - 1}" if place else "it holds nothing"
        raise ScenarioError(f"{origin}: {name} is a list; {_echo(key)} {allowed}")
    return index


def _echo(text: str) -> str:
    """What a message repeats of a word on the command line."""
    return text if len(text) <= MAX_ECHO_CHARS else f"{text[: MAX_ECHO_CHARS - 3]}..."


def to_yaml(data: Mapping[str, Any]) -> str:
    """Write plain data as YAML that `parse` reads back to the same data."""
    text: str = yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=100)
    return text


class _Composer(yaml.SafeLoader):
    """PyYAML's parser, refusing what makes a small file large or a key mean something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute
    nodes = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused(event, "anchors and aliases (&, *) are not supported; write the value out")
        if getattr(event, "tag", None) is not None:
            raise _refused(event, f"tags are not supported ({event.tag}); write the plain value")
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_YAML_VALUES:
            raise _refused(event, f"the file holds more than {MAX_YAML_VALUES:,} values")
        if self.depth > MAX_DEPTH:
            raise _refused(event, f"values are nested more than {MAX_DEPTH} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _refused(event: yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]


def _compose(text: str, source: str, *, numbered: bool = True) -> yaml.Node | None:
    def at(line: int) -> str:
        return f"{source}:{line + 1}" if numbered else source

    if _BYTE_ORDER_MARK in text:
        line = text[: text.index(_BYTE_ORDER_MARK)].count("\n")
        raise ScenarioError(f"{at(line)}: the character U+FEFF (a byte order mark) is not allowed")
    try:
        loader = _Composer(text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n")
        raise ScenarioError(f"{at(line)}: the character U+{error.character:04X} is not allowed") from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line, problem = _in_words(error)
        raise ScenarioError(f"{at(line)}: {problem}") from None
    except (ValueError, OverflowError):  # PyYAML asks chr() for what "\UFFFFFFFF" is
        problem = "an escape (\\x, \\u, \\U) names no character; Unicode ends at \\U0010FFFF"
        raise ScenarioError(f"{at(loader.line)}: {problem}") from None


def _in_words(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """The line (from 0) of a syntax error and what to do about it; PyYAML's own words where we have no better ones.

    Where something was opened and never closed, the line is that of its beginning.
    """
    problem, context = error.problem or "", error.context or ""
    line = 0 if error.problem_mark is None else error.problem_mark.line
    opened = line if error.context_mark is None else error.context_mark.line
    found = problem.partition("got ")[2] or problem.partition("found ")[2]
    if "'\\t'" in problem:
        return line, "a tab stands where YAML allows only spaces; indent with spaces"
    if problem.startswith("found character"):
        return line, f"a value cannot start with {found.split()[1]}; write it in quotes"
    if problem == "mapping values are not allowed here":
        return (
            line,
            "a key cannot stand here; keys of one mapping stand in one column, and text with ': ' in quotes",
        )
    if "flow sequence" in context:
        return opened, "a list that starts with '[' on this line is not closed; close it with ']'"
    if "flow mapping" in context:
        return opened, "a mapping that starts with '{' on this line is not closed; close it with '}'"
    if "quoted scalar" in context and "end of stream" in problem:
        return opened, "a quote that opens on this line is never closed"
    if problem.startswith("could not find expected ':'"):
        return opened, "a key without its value; write `key: value`, with a space after the colon"
    if problem.startswith("but found another document"):
        return line, "a second document starts here (---); a file holds one"
    if problem.startswith("expected '<document start>'"):
        return line, "this does not belong to the document above; check brackets, indentation and `...`"
    if problem.startswith("expected <block end>"):
        return (
            line,
            "this does not fit the lines above; keys of one mapping stand in one column, as do dashes of a list",
        )
    if problem.startswith("found unknown escape character"):
        return (
            line,
            f"the escape \\{problem.split()[-1][1:-1]} in double quotes is unknown; single quotes keep backslashes",
        )
    return line, _one_line(" ".join(part for part in (problem, context) if part))


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Reader:
    """Turns nodes into plain data and notes the line of every key."""

    def __init__(self, source: str, origins: dict[Path, str], *, numbered: bool = True) -> None:
        self._source = source
        self._origins = origins
        self._numbered = numbered

    def value(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(child, (*path, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # YAML has no fourth kind of node
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "":
                raise ScenarioError(f"{self._at(key_node)}: a key must be a word")
            key = self._text(key_node, "the key")
            where = ".".join(map(str, (*path, key)))
            if key == "<<" and key_node.style is None:
                raise ScenarioError(
                    f"{self._at(key_node)}: merge keys (<<) are not supported; write the keys out"
                )
            if key in mapping:
                raise ScenarioError(
                    f"{self._at(key_node)}: {where} stands twice (first on line {lines[key]})"
                )
            lines[key] = line
            self._origins[(*path, key)] = self._at(key_node)
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _item(self, node: yaml.Node, path: Path) -> Any:
        self._origins[path] = self._at(node)
        return self.value(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        where = ".".join(map(str, path)) or "the value"
        text = self._text(node, where)
        if node.style is not None:  # quoted, or a block: always text
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _NOT_FINITE.fullmatch(text):
            raise self._not_finite(node, where)
        if _INTEGER.fullmatch(text):
            num_digits = sum(map(str.isdigit, text))
            if num_digits > MAX_DIGITS:
                raise ScenarioError(
                    f"{self._at(node)}: {where} has {num_digits} digits; at most {MAX_DIGITS}"
                )
            return int(text)
        if _NUMBER.fullmatch(text) and not _OCTAL.match(text):
            if not math.isfinite(float(text)):
                raise self._not_finite(node, where)
            return float(text)
        return text

    def _text(self, node: yaml.ScalarNode, where: str) -> str:
        text: str = node.value
        if _SURROGATE.search(text):  # from an escape such as "\\ud800"
            raise ScenarioError(f"{self._at(node)}: {where} holds half a surrogate pair, which is not text")
        return text

    def _not_finite(self, node: yaml.ScalarNode, where: str) -> ScenarioError:
        return ScenarioError(f"{self._at(node)}: {where} is {_echo(node.value)}; must be a finite number")

    def _at(self, node: yaml.Node) -> str:
        return f"{self._source}:{node.start_mark.line + 1}" if self._numbered else self._source


class _Writer(yaml.SafeDumper):
    """Writes short lists on one line and quotes exactly what `parse` would read as something else.

    Without PyYAML's implicit resolvers every scalar is written as it stands, so the quotes are ours to set.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def ignore_aliases(self, data: Any) -> bool:
        return True


_TEXT_TAG = "tag:yaml.org,2002:str"


def _write_text(writer: yaml.SafeDumper, text: str) -> yaml.Node:
    special = text in _CONSTANTS or _NUMBER.fullmatch(text) or _INTEGER.fullmatch(text)
    quoted = special or _NOT_FINITE.fullmatch(text) or not text.isprintable()
    return writer.represent_scalar(_TEXT_TAG, text, style='"' if quoted else None)


def _write_constant(writer: yaml.SafeDumper, value: Any) -> yaml.Node:
    return writer.represent_scalar(_TEXT_TAG, {None: "null", True: "true", False: "false"}[value])


def _write_number(writer: yaml.SafeDumper, number: float) -> yaml.Node:
    return writer.represent_scalar(_TEXT_TAG, repr(number))


def _write_list(writer: yaml.SafeDumper, items: list[Any] | tuple[Any, ...]) -> yaml.Node:
    flat = not any(isinstance(item, dict | list | tuple) for item in items)
    return writer.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Writer.add_representer(str, _write_text)
_Writer.add_representer(bool, _write_constant)
_Writer.add_representer(type(None), _write_constant)
_Writer.add_representer(int, _write_number)
_Writer.add_representer(float, _write_number)
_Writer.add_representer(list, _write_list)
_Writer.add_representer(tuple, _write_list)
