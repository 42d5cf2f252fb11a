"""The one way in which fedsim writes CSV files (RFC 4180, UTF-8, lines end in LF), and reads its own back.

A spreadsheet takes a text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return for a formula, and names of
domains and levels come from users' files. Such a text, unless it is a number, has an apostrophe put before it, which
spreadsheets take for "this is text"; reading takes it away again.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = re.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r'[",\r\n]|^\s|\s$')


def csv_table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as a file's content: None is an empty cell, numbers stay numbers, and every text is quoted where it must be.

    >>> csv_table(["name", "x"], [["=1+1", -1.5], ["a, b", None]]).decode().splitlines()
    ['name,x', "'=1+1,-1.5", '"a, b",']
    """
    lines = [",".join(map(_cell, row)) for row in [head, *rows]]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def csv_records(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A table of rows by column name; the columns are in the order in which rows first have them."""
    found = list(rows)
    columns = list(dict.fromkeys(name for row in found for name in row))
    return csv_table(columns, ([row.get(name) for name in columns] for row in found))


def read_csv(content: bytes) -> list[list[str]]:
    """The cells of a table that `csv_table` wrote, its head first.

    Raises:
        ValueError: it is no CSV in UTF-8.
    """
    try:
        rows = [*csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [[text[1:] if text[:1] == "'" and _FORMULA.match(text) else text for text in row] for row in rows]


def read_csv_records(content: bytes) -> list[dict[str, str]]:
    """The rows of a table that `csv_records` wrote, by column name.

    Raises:
        ValueError: it is no CSV in UTF-8, or its rows differ in length.
    """
    head, *rows = read_csv(content) or [[]]
    return [dict(zip(head, row, strict=True)) for row in rows]


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        text = f"'{text}"
    if _QUOTED.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
