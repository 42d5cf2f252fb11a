"""Own questions: a JSON-lines file, read strictly, every complaint with its file and line.

A line is an object with ``question`` and ``answer`` (texts; an answer may also be a number) and optionally
``domain`` (text) and ``client`` (0 to K - 1). Rows with a client are that client's private rows; the rest is
split by ``tasks.sizes``.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

from fedsim.config.files import not_json, parse_json, read_text
from fedsim.config.limits import MAX_CLIENT_ID, MAX_DATA_BYTES, MAX_LINE_CHARS
from fedsim.errors import DataFileError

KEYS = ("question", "answer", "domain", "client")
DEFAULT_DOMAIN = "own"


@dataclass(frozen=True, slots=True)
class FileRow:
    """One line of a question file; ``client`` is None where the line names none."""

    question: str
    answer: str
    domain: str
    client: int | None
    line: int


def read_questions(path: str | Path) -> list[FileRow]:
    """Read a question file.

    Raises:
        DataFileError: the file cannot be read, is empty or over 256 MiB, or a line is not a JSON object,
            lacks a key, has an unknown or doubled key, an empty text, a NaN, or an earlier question.
    """
    path = Path(path)
    rows: list[FileRow] = []
    first_line: dict[str, int] = {}
    try:
        content = read_text(path, MAX_DATA_BYTES, DataFileError)
    except DataFileError as error:
        raise error.at("tasks", "file") from None
    for number, text in enumerate(io.StringIO(content, newline="\n"), start=1):
        if len(text) > MAX_LINE_CHARS:
            raise DataFileError(f"{path}:{number}: the line has more than {MAX_LINE_CHARS:,} characters")
        if not text.strip():
            continue
        row = _row(text, f"{path}:{number}", number)
        if row.question in first_line:
            raise DataFileError(
                f"{path}:{number}: the question of line {first_line[row.question]} stands here again; keep one of them"
            )
        first_line[row.question] = number
        rows.append(row)
    if not rows:
        raise DataFileError(f"{path}: holds no question; needs one JSON object per line")
    return rows


def _row(text: str, where: str, line: int) -> FileRow:
    try:
        item = parse_json(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise DataFileError(f"{where}: {not_json(error)}") from None
    except ValueError as error:
        raise DataFileError(f"{where}: not JSON: {error}") from None
    if not isinstance(item, dict):
        raise DataFileError(
            f'{where}: holds {item!s:.60}; must be an object, e.g. {{"question": "1 + 1", "answer": "2"}}'
        )
    for key in item:
        if key not in KEYS:
            raise DataFileError(f"{where}: unknown key {key!r:.60}; must be one of {', '.join(KEYS)}")
    for key in ("question", "answer"):
        if key not in item:
            raise DataFileError(f"{where}: {key} is missing; a line must have question and answer")
    return FileRow(
        question=_text(item["question"], "question", where),
        answer=_text(_number_as_text(item["answer"], where), "answer", where),
        domain=_text(item.get("domain", DEFAULT_DOMAIN), "domain", where),
        client=_client(item.get("client"), where),
        line=line,
    )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    item: dict[str, object] = {}
    for key, value in pairs:
        if key in item:
            raise ValueError(f"the key {key!r:.60} stands twice")
        item[key] = value
    return item


def _number_as_text(value: object, where: str) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise DataFileError(f"{where}: answer is {value}; must be a text or a finite number")
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataFileError(f"{where}: {key} is {json.dumps(value):.60}; must be a text that is not blank")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise DataFileError(f"{where}: {key} holds half a surrogate pair, which is not text")
    return value.strip()


def _client(value: object, where: str) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_CLIENT_ID:
        raise DataFileError(
            f"{where}: client is {value!r:.60}; must be a whole number from 0 to {MAX_CLIENT_ID:,}"
        )
    return value
