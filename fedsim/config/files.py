"""Reading a file that a user names: only a regular one, never more than a limit, and whatever is wrong in one line.

A pipe would block, a device might never end, and a sparse file of a terabyte costs nothing to make: none of them is read.
"""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any, TypeVar

from fedsim.config.limits import MAX_JSON_BYTES, MAX_JSON_DIGITS
from fedsim.errors import InputError

_E = TypeVar("_E", bound=InputError)

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def read_bytes(path: Path, most_bytes: int, error: type[_E]) -> bytes:
    """The content of a regular file of at most ``most_bytes``.

    Raises:
        error: there is no such file, it cannot be read, it is no regular file, or it is larger.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # before it is opened: a pipe would wait for its writer
            kind = "it is a folder" if stat.S_ISDIR(found.st_mode) else "it is no regular file"
            raise error(f"{path}: cannot be read: {kind}")
        num_bytes = found.st_size
        if num_bytes <= most_bytes:
            with path.open("rb") as stream:
                content = stream.read(most_bytes + 1)  # some files say that they are empty, or grow meanwhile
            num_bytes = max(num_bytes, len(content))
    except (OSError, ValueError) as reason:  # a path with a null byte is a ValueError
        raise error(f"{path}: cannot be read: {why(reason)}") from None
    if num_bytes > most_bytes:
        raise error(f"{path}: has {num_bytes:,} bytes; must have at most {most_bytes:,}")
    return content


def read_text(path: Path, most_bytes: int, error: type[_E]) -> str:
    """The content of a UTF-8 file, with or without a byte order mark.

    Raises:
        error: as for `read_bytes`, or it is not UTF-8; the message names the line.
    """
    return decoded(read_bytes(path, most_bytes, error), str(path), error)


def decoded(content: bytes, source: str, error: type[_E]) -> str:
    """UTF-8 content as text, without the byte order mark that may stand before it.

    Raises:
        error: it is not UTF-8; the message names the line.
    """
    try:
        # Not "utf-8-sig", which counts from behind the mark, so that the line of a wrong byte could be one too low.
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as reason:
        line = content[: reason.start].count(b"\n") + 1
        raise error(f"{source}:{line}: not UTF-8 text") from None


def read_json(path: Path, error: type[_E], most_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value in a JSON file; of a key that stands twice the last counts.

    Raises:
        error: as for `read_text`, or it is not JSON, too deep, or holds NaN or a number of too many digits.
    """
    text = read_text(path, most_bytes, error)
    try:
        return parse_json(text)
    except json.JSONDecodeError as reason:
        raise error(f"{path}:{reason.lineno}: {not_json(reason)}") from None
    except ValueError as reason:
        raise error(f"{path}: not JSON: {reason}") from None


def parse_json(text: str, **hooks: Any) -> Any:
    """``json.loads``, strict about numbers.

    Raises:
        ValueError: not JSON (a ``JSONDecodeError``), too deep, NaN, an infinity, or too many digits.
    """
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=_integer, **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_decoder(**hooks: Any) -> json.JSONDecoder:
    """A decoder that is strict about numbers, as `parse_json` is."""
    return json.JSONDecoder(parse_constant=_no_constant, parse_int=_integer, **hooks)


def not_json(error: json.JSONDecodeError) -> str:
    """What a decoder complains of, and where in the line."""
    return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def finite_decimal(text: str) -> float | None:
    """The number that a cell of a table holds in plain ASCII decimals, or None: no ``nan``, ``inf``, ``1_000`` or ``1e999``."""
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def why(error: Exception) -> str:
    """An operating system's reason, without number and path."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON has")


def _integer(digits: str) -> int:
    if len(digits) > MAX_JSON_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; at most {MAX_JSON_DIGITS}")
    return int(digits)
