"""Building a federation's data: generate or read, remove duplicates, split once, spoil the public part, deal.

Order matters: duplicates go *before* the split, so no question text stands in two splits; the public corpus
gets its mistakes after it, so private rows, exemplars and test questions stay correct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.errors import DataFileError, FederationError
from fedsim.sim import streams
from fedsim.tasks import domains as generated
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.files import FileRow, read_questions
from fedsim.tasks.matching import AnswerRule
from fedsim.tasks.mistakes import corrupt, mistake
from fedsim.tasks.partition import Deal, count_rows, deal, draw_owners
from fedsim.tasks.questions import Question, TaskData

SPLITS = ("public", "private", "auxiliary", "pool", "validation", "test")


@dataclass(frozen=True, slots=True)
class _Raw:
    """One question before it has an id: its domain, bare text and true answer."""

    domain: str
    text: str
    answer: str


def build(config: TasksConfig, num_clients: int, seed: int, kept_in: Path | None = None) -> TaskData:
    """Build the data of a federation of ``num_clients`` clients; a pure function of arguments and file.

    Splits hold ``config.sizes`` questions and share no question text. Generated domains have equal parts
    in every split; an own file is shuffled and cut. Splits are in random order: a prefix is a fair sample. Generated questions
    are kept in a folder, where one is given, for the next time.

    Raises:
        FederationError: no client.
        ScenarioError: an unknown domain or option, or a domain has too few different questions.
        DataFileError: the question file is wrong, too small for the sizes, or names an unknown client.
    """
    if num_clients < 1:
        raise FederationError(f"num_clients is {num_clients}; must be at least 1")
    own: list[tuple[int, _Raw]] = []
    if config.file is None:
        names = tuple(config.options)
        splits = _split_generated(config, num_clients, seed, kept_in)
    else:
        rows = read_questions(config.file)
        names = tuple(sorted({row.domain for row in rows}))
        own = [(row.client, _raw(row)) for row in rows if row.client is not None]
        _check_clients(config.file, rows, num_clients)
        splits = _split_file(
            config, [row for row in rows if row.client is None], num_clients, seed, bool(own)
        )
    splits["public"] = _spoil(config, names, splits["public"], seed)

    private = {name: [row for row in splits["private"] if row.domain == name] for name in names}
    dealt = deal(config.partition, {name: len(rows) for name, rows in private.items()}, num_clients, seed)
    if own:
        dealt = _deal_by_file(names, own, num_clients)
        private = {name: [row for _, row in own if row.domain == name] for name in names}

    counter = iter(range(10**12))
    public = _number(config, splits["public"], counter)
    clients: list[list[Question]] = [[] for _ in range(num_clients)]
    for name in names:
        questions = _number(config, private[name], counter)
        for owners, question in zip(dealt.owners[name], questions, strict=True):
            for owner in owners:
                clients[owner].append(question)
    auxiliary, pool, validation, test = (_number(config, splits[name], counter) for name in SPLITS[2:])
    return TaskData(
        domains=names,
        public=public,
        private=tuple(tuple(rows) for rows in clients),
        auxiliary=auxiliary,
        pool=pool,
        validation=validation,
        test=test,
        trusted=_trusted(config, names, pool, dealt, seed),
        partition=dealt.table,
        answers=AnswerRule(config.match, config.answer_pattern),
    )


def split_sizes(config: TasksConfig, num_clients: int) -> dict[str, int]:
    """Questions per split over all domains, as `build` will make them for generated domains."""
    sizes = {name: int(getattr(config.sizes, name)) for name in SPLITS}
    sizes["private"] = config.num_private(num_clients)
    return sizes


def _split_generated(
    config: TasksConfig, num_clients: int, seed: int, kept_in: Path | None
) -> dict[str, list[_Raw]]:
    sizes = split_sizes(config, num_clients)
    options = config.options
    splits: dict[str, list[_Raw]] = {name: [] for name in SPLITS}
    for place, (domain, given) in enumerate(options.items()):
        parts = {name: (sizes[name] + len(options) - 1 - place) // len(options) for name in SPLITS}
        rows = generated.generate(domain, given, sum(parts.values()), seed, kept_in)
        start = 0
        for name in SPLITS:
            splits[name] += [_Raw(domain, text, answer) for text, answer in rows[start : start + parts[name]]]
            start += parts[name]
    return {name: _shuffled(rows, seed, name) for name, rows in splits.items()}


def _split_file(
    config: TasksConfig, rows: Sequence[FileRow], num_clients: int, seed: int, clients_named: bool
) -> dict[str, list[_Raw]]:
    sizes = split_sizes(config, num_clients)
    if clients_named:
        sizes["private"] = 0
    needed = sum(sizes.values())
    if len(rows) < needed:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataFileError(
            f"{config.file}: {len(rows)} questions without a client; tasks.sizes ask for {needed} "
            f"({listed}); lower tasks.sizes"
        )
    shuffled = _shuffled([_raw(row) for row in rows], seed, "file")
    splits: dict[str, list[_Raw]] = {}
    start = 0
    for name in SPLITS:
        splits[name] = shuffled[start : start + sizes[name]]
        start += sizes[name]
    return splits


def _shuffled(rows: Sequence[_Raw], seed: int, name: str) -> list[_Raw]:
    return [rows[i] for i in streams.generator(seed, "split order", name).permutation(len(rows))]


def _raw(row: FileRow) -> _Raw:
    return _Raw(row.domain, row.question, row.answer)


def _check_clients(path: str, rows: Sequence[FileRow], num_clients: int) -> None:
    for row in rows:
        if row.client is not None and row.client >= num_clients:
            raise DataFileError(
                f"{path}:{row.line}: client is {row.client}; must be below {num_clients}, the number of "
                "clients"
            )


def _spoil(config: TasksConfig, names: Sequence[str], public: Sequence[_Raw], seed: int) -> list[_Raw]:
    answers: dict[str, str] = {}
    for name in names:
        rows = [(row.text, row.answer) for row in public if row.domain == name]
        answers.update(corrupt(config.errors, name, rows, seed))
    return [_Raw(row.domain, row.text, answers[row.text]) for row in public]


def _deal_by_file(names: Sequence[str], own: Sequence[tuple[int, _Raw]], num_clients: int) -> Deal:
    owners = {
        name: np.array([[client] for client, row in own if row.domain == name], dtype=np.int64).reshape(-1, 1)
        for name in names
    }
    table = count_rows(owners, num_clients)
    # A domain without private rows has no owner: its trusted answers then go to anybody.
    weights = np.where(table.sum(axis=0) > 0, table, 1).astype(np.float64)
    return Deal(owners=owners, weights=weights / weights.sum(axis=0), table=table)


def _number(config: TasksConfig, rows: Sequence[_Raw], counter: Iterator[int]) -> tuple[Question, ...]:
    return tuple(
        Question(
            next(counter), row.domain, config.prompt_template.replace("{question}", row.text), row.answer
        )
        for row in rows
    )


def _trusted(
    config: TasksConfig, names: Sequence[str], pool: Sequence[Question], dealt: Deal, seed: int
) -> tuple[Mapping[int, str], ...]:
    owned: list[dict[int, str]] = [{} for _ in range(dealt.weights.shape[0])]
    if config.answers.coverage == 0:
        return tuple(owned)
    for column, name in enumerate(names):
        questions = [question for question in pool if question.domain == name]
        owners = draw_owners(dealt.weights[:, column], len(questions), seed, "answer owner", name)
        for owner, question in zip(owners, questions, strict=True):
            if streams.uniform(seed, "trusted answer", question.text) < config.answers.coverage:
                wrong = streams.uniform(seed, "trusted noise", question.text) < config.answers.noise
                answer = mistake("auto", question.answer) if wrong else question.answer
                owned[owner][question.question_id] = answer
    return tuple(owned)
