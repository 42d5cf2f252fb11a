"""Own questions: what the rows of a file mean, read strictly, every complaint with its file and line.

A row has ``question`` (a text, or a list of wordings: a row for each) and ``answer`` (a text, a number, or a list of accepted
ones, of which the first is taught), and optionally ``domain``, ``client`` (0 to K - 1, or a list of them), ``split``, ``fact``
(what the question is about) and ``solution`` (what is taught; it ends in the answer). ``fedsim.tasks.file_splits`` says which
row goes where.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from fedsim.config.limits import MAX_CLIENT_ID, MAX_LINE_CHARS
from fedsim.errors import DataFileError
from fedsim.tasks.config import TasksConfig, look_name
from fedsim.tasks.file_keys import FileKeys
from fedsim.tasks.matching import AnswerRule, extract
from fedsim.tasks.sources import Place, items

DEFAULT_DOMAIN = "own"
MOST_TEXTS = 100
"""Wordings of one question, and accepted answers to it."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One wording of one row of a question file.

    Attributes:
        answers: all that are right; the first is taught.
        clients: whose private row it is; nobody's by name where empty.
        split: where it goes; None: nothing is said.
    """

    question: str
    answers: tuple[str, ...]
    place: Place
    domain: str = DEFAULT_DOMAIN
    clients: tuple[int, ...] = ()
    split: str | None = None
    fact: str = ""
    solution: str = ""


def read_questions(path: str | Path, config: TasksConfig | None = None) -> list[FileRow]:
    """Read a question file as the settings say.

    Raises:
        DataFileError: the file cannot be read, is empty or over 256 MiB, or a row is not a JSON object, lacks a key, has an
            unknown or doubled key, an empty text, a NaN, a question or a fact that is elsewhere, or no answer in its answer;
            or no row has a key or a split that the settings name.
    """
    config = config or TasksConfig.defaults()
    keys = FileKeys(config)
    rows = [row for item in items(Path(path)) for row in _rows(keys.values(item), item.place)]
    if not rows:
        raise DataFileError(
            f"{path}: holds no question{'; needs one JSON object per line' if Path(path).suffix == '.jsonl' else ''}"
        )
    keys.refuse_unmet(rows[0].place)
    rows = _with_answers_found(rows, config.answer_pattern)
    _check_answers(rows, config)
    _check_questions(rows)
    _check_facts(rows)
    return rows


# ------------------------------------------------------------------------------------------------------------ one row


def _rows(given: Mapping[str, object], place: Place) -> Iterator[FileRow]:
    """A row for every wording."""
    wordings = [_text(one, "question", place) for one in _several(given["question"], "question", place)]
    answers = [
        _text(_number_as_text(one, "answer", place), "answer", place)
        for one in _several(given["answer"], "answer", place)
    ]
    fact = ""
    if "fact" in given:
        fact = _text(_number_as_text(given["fact"], "fact", place), "fact", place)
    clients = tuple(_clients(given["client"], place)) if "client" in given else ()
    row = FileRow(
        question=wordings[0],
        answers=tuple(dict.fromkeys(answers)),
        place=place,
        domain=_text(given.get("domain", DEFAULT_DOMAIN), "domain", place),
        clients=clients,
        split=_split(given.get("split"), clients, place),
        fact=fact or (wordings[0] if len(wordings) > 1 else ""),
        solution=_text(given["solution"], "solution", place) if "solution" in given else "",
    )
    yield from (replace(row, question=wording) for wording in wordings)


def _several(value: object, key: str, place: Place) -> Sequence[object]:
    if not isinstance(value, list):
        return [value]
    if not 0 < len(value) <= MOST_TEXTS:
        raise DataFileError(f"{place}: {key} is a list of {len(value)}; must have 1 to {MOST_TEXTS} texts")
    return value


def _number_as_text(value: object, key: str, place: Place) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise DataFileError(f"{place}: {key} is {value}; must be a text or a finite number")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    text = str(value)
    return f"{Decimal(text):f}" if "e" in text else text


def _text(value: object, key: str, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataFileError(f"{place}: {key} is {_shown(value)}; must be a text that is not blank")
    if len(value) > MAX_LINE_CHARS:
        raise DataFileError(f"{place}: {key} has more than {MAX_LINE_CHARS:,} characters")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise DataFileError(f"{place}: {key} holds half a surrogate pair, which is not text")
    return value.strip()


def _clients(value: object, place: Place) -> Iterator[int]:
    seen: set[int] = set()
    for one in _several(value, "client", place):
        if type(one) is not int or not 0 <= one <= MAX_CLIENT_ID:
            raise DataFileError(
                f"{place}: client is {one!r:.60}; must be a whole number from 0 to {MAX_CLIENT_ID:,}"
            )
        if one in seen:
            raise DataFileError(f"{place}: client names {one} twice")
        seen.add(one)
        yield one


def _split(value: object, clients: Sequence[int], place: Place) -> str | None:
    if value is None:
        return "private" if clients else None
    split = _text(value, "split", place)
    try:
        look_name(split)
    except ValueError as error:
        raise DataFileError(f"{place}: split is {split!r:.60}; {error}") from None
    if clients and split != "private":
        raise DataFileError(
            f"{place}: split is {split}, and client is given; only private rows have a client"
        )
    return split


def _shown(value: object) -> str:
    return f"{json.dumps(value, default=str):.60}"


# ----------------------------------------------------------------------------------------------------------- all rows


def _with_answers_found(rows: list[FileRow], pattern: str | None) -> list[FileRow]:
    """Answers that are worked solutions, as of GSM8K (``... #### 42``), parted into solution and answer.

    They are where the pattern finds an answer in those of any row without a solution of its own; else they stand alone.

    Raises:
        DataFileError: the pattern finds an answer in one row and none in another.
    """
    if pattern is None:
        return rows
    whole = [row for row in rows if not row.solution]
    if not any(extract(answer, pattern) for row in whole for answer in row.answers):
        return rows
    return [row if row.solution else _with_answer_found(row, pattern) for row in rows]


def _with_answer_found(row: FileRow, pattern: str) -> FileRow:
    found = [extract(answer, pattern) for answer in row.answers]
    for answer, part in zip(row.answers, found, strict=True):
        if not part:
            raise DataFileError(
                f"{row.place}: tasks.answer_pattern finds nothing in the answer {_shown(answer)}; it must find one in every "
                "row, or in none"
            )
    solution = row.answers[0] if found[0] != row.answers[0] else ""
    return replace(row, answers=tuple(dict.fromkeys(found)), solution=solution)


def _check_answers(rows: Iterable[FileRow], config: TasksConfig) -> None:
    """Refuse an answer that no text can match, and a solution that does not end in its answer."""
    rule = AnswerRule(config.match, config.answer_pattern)
    for row in rows:
        for answer in row.answers:
            if not rule.normal(answer):
                raise DataFileError(
                    f"{row.place}: nothing is left of the answer {_shown(answer)} under tasks.match {config.match}; "
                    "choose another match"
                )
        if row.solution and not rule.right(row.solution, row.answers):
            if config.answer_pattern is None:
                raise DataFileError(
                    f"{row.place}: a solution needs tasks.answer_pattern, which finds the answer in it"
                )
            raise DataFileError(
                f"{row.place}: the answer that tasks.answer_pattern finds in the solution is "
                f"{_shown(rule.extract(row.solution))}; must be {_shown(row.answers[0])}"
            )
        for stop in config.stop:
            if stop in (row.solution or row.answers[0]):
                raise DataFileError(
                    f"{row.place}: the {'solution' if row.solution else 'answer'} holds the text {_shown(stop)} of tasks.stop, "
                    "where it would be cut off"
                )


def _check_questions(rows: Iterable[FileRow]) -> None:
    """Refuse a question twice, but as private rows of different clients with one answer."""
    earlier: dict[str, list[FileRow]] = {}
    for row in rows:
        for other in earlier.setdefault(row.question, []):
            again = f"{row.place}: the question of {other.place.beside(row.place)} stands here again"
            if not (row.clients and other.clients):
                parted = "" if row.split == other.split else f" (in {_in(row)}, there in {_in(other)})"
                raise DataFileError(f"{again}{parted}; keep one of them")
            if row.answers[0] != other.answers[0]:
                raise DataFileError(
                    f"{again} with the answer {_shown(row.answers[0])}, there {_shown(other.answers[0])}; only one can be right"
                )
            if both := set(row.clients) & set(other.clients):
                raise DataFileError(f"{again} for client {min(both)}; keep one of them")
        earlier[row.question].append(row)


_UNSEEN = ("validation", "test")
_SEEN = ("format", "auxiliary", "pool")
_APART: Mapping[str, tuple[str, ...]] = (
    {"": (*_UNSEEN, *_SEEN)} | dict.fromkeys(_UNSEEN, ("", *_SEEN)) | dict.fromkeys(_SEEN, ("", *_UNSEEN))
)
"""With which other splits a split shares no fact; the empty name is that of rows without a split."""


def _check_facts(rows: Iterable[FileRow]) -> None:
    """Refuse a fact of validation or test that the server asks about or is shown in other words: unseen is unseen."""
    first: dict[tuple[str, str], FileRow] = {}
    for row in rows:
        if not row.fact:
            continue
        for split in _APART.get(row.split or "", ()):
            other = first.get((row.fact, split))
            if other is None:
                continue
            about = f"{row.place}: fact {_shown(row.fact)} of {other.place.beside(row.place)}, which is in {_in(other)}"
            if None in (row.split, other.split):
                raise DataFileError(
                    f"{about}, is here in {_in(row)}; rows of this fact must name their split"
                )
            raise DataFileError(f"{about}, is in {_in(row)} here; what is tested must not be asked or shown")
        first.setdefault((row.fact, row.split or ""), row)


def _in(row: FileRow) -> str:
    return "no split" if row.split is None else f"split {row.split}"
