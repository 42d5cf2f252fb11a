"""Building a federation's data: generate or read, remove duplicates, split once, spoil the public part, deal.

Order matters: duplicates go *before* the split, so no question text stands in two splits; the public corpus
gets its mistakes after it, so private rows, exemplars and test questions stay correct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedsim.errors import FederationError
from fedsim.sim import streams
from fedsim.tasks import domains as generated
from fedsim.tasks import worked
from fedsim.tasks.config import SPLITS, TasksConfig
from fedsim.tasks.file_splits import shuffled, split_rows
from fedsim.tasks.files import FileRow, read_questions
from fedsim.tasks.mistakes import corrupt, mistake, worked_with_mistakes
from fedsim.tasks.partition import Deal, count_rows, deal, draw_owners
from fedsim.tasks.questions import Question, TaskData, TextFormat


@dataclass(frozen=True, slots=True)
class _Raw:
    """One question before it has an id: its bare text, its true answer, and what else is known of it."""

    domain: str
    text: str
    answer: str
    accepted: tuple[str, ...] = ()
    solution: str = ""
    fact: str = ""


def build(config: TasksConfig, num_clients: int, seed: int, kept_in: Path | None = None) -> TaskData:
    """Build the data of a federation of ``num_clients`` clients; a pure function of arguments and file.

    Splits hold ``config.sizes`` questions and share no question text. Generated domains have equal parts
    in every split; an own file may name the splits of its rows, the rest is shuffled and cut.
    Splits are in random order: a prefix is a fair sample. Generated questions are kept in a folder, where one is given, for the
    next time.

    Raises:
        FederationError: no client.
        ScenarioError: an unknown domain or option, or a domain has too few different questions.
        DataFileError: the question file is wrong, too small for the sizes, without questions for a split, or names an
            unknown client.
    """
    if num_clients < 1:
        raise FederationError(f"num_clients is {num_clients}; must be at least 1")
    sizes, owned = split_sizes(config, num_clients), None
    if config.file is None:
        names = tuple(config.options)
        splits = _split_generated(config, sizes, seed, kept_in)
    else:
        rows = read_questions(config.file, config)
        names = tuple(sorted({row.domain for row in rows}))
        chosen = split_rows(config.file, rows, sizes, num_clients, seed)
        splits = {name: [_raw(row) for row in part] for name, part in chosen.items()}
        if any(row.clients for row in chosen["private"]):
            owned = [(row.domain, row.clients) for row in chosen["private"]]
    splits["public"] = _spoil(config, names, splits["public"], seed)

    private = {name: [row for row in splits["private"] if row.domain == name] for name in names}
    dealt = deal(config.partition, {name: len(rows) for name, rows in private.items()}, num_clients, seed)
    if owned is not None:
        dealt = _deal_by_file(names, owned, num_clients)

    counter = iter(range(10**12))
    public = _number(config, splits.pop("public"), counter)
    clients: list[list[Question]] = [[] for _ in range(num_clients)]
    for name in names:
        questions = _number(config, private[name], counter)
        for owners, question in zip(dealt.owners[name], questions, strict=True):
            for owner in owners:
                clients[owner].append(question)
    del splits["private"]
    asked = {name: _number(config, splits.pop(name), counter) for name in SPLITS if name in splits}
    return TaskData(
        domains=names,
        public=public,
        private=tuple(tuple(rows) for rows in clients),
        auxiliary=asked["auxiliary"],
        pool=asked["pool"],
        validation=asked["validation"],
        test=asked["test"],
        trusted=_trusted(config, names, asked["pool"], dealt, seed),
        partition=dealt.table,
        answers=config.answer_rule,
        format_rows=asked["format"],
        looks={name: _number(config, splits[name], counter) for name in sorted(splits)},
        text_format=TextFormat(config.answer_prefix, config.stop),
    )


def split_sizes(config: TasksConfig, num_clients: int) -> dict[str, int]:
    """Questions per split over all domains, as `build` will make them for generated domains."""
    sizes = {name: int(getattr(config.sizes, name)) for name in SPLITS}
    sizes["private"] = config.num_private(num_clients)
    return sizes


def domain_sizes(size: int, num_domains: int) -> list[int]:
    """Questions of each domain in a split of ``size``: equal parts, and one more in the first domains until they come out."""
    return [(size + num_domains - 1 - place) // num_domains for place in range(num_domains)]


def _split_generated(
    config: TasksConfig, sizes: Mapping[str, int], seed: int, kept_in: Path | None
) -> dict[str, list[_Raw]]:
    options = config.options
    splits: dict[str, list[_Raw]] = {name: [] for name in SPLITS}
    shares = {name: domain_sizes(sizes[name], len(options)) for name in SPLITS}
    for place, (domain, given) in enumerate(options.items()):
        parts = {name: shares[name][place] for name in SPLITS}
        rows = generated.generate(domain, given, sum(parts.values()), seed, kept_in)
        start = 0
        for name in SPLITS:
            splits[name] += [_generated(domain, *row) for row in rows[start : start + parts[name]]]
            start += parts[name]
    return {name: shuffled(rows, seed, name) for name, rows in splits.items()}


def _generated(domain: str, text: str, answer: str) -> _Raw:
    steps = worked.solution(domain, text).text if worked.is_worked(domain) else ""
    return _Raw(domain, text, answer, solution=steps)


def _raw(row: FileRow) -> _Raw:
    answer, *accepted = row.answers
    return _Raw(row.domain, row.question, answer, tuple(accepted), row.solution, row.fact)


def _spoil(config: TasksConfig, names: Sequence[str], public: Sequence[_Raw], seed: int) -> list[_Raw]:
    spoiled: dict[str, _Raw] = {}
    for name in names:
        rows = [row for row in public if row.domain == name]
        if config.file is None and worked.is_worked(name):
            solutions = worked_with_mistakes(config.errors, name, [row.text for row in rows], seed)
            made = [
                replace(row, answer=one.answer, solution=one.text)
                for row, one in zip(rows, solutions, strict=True)
            ]
        else:
            answers = corrupt(config.errors, name, [(row.text, row.answer) for row in rows], seed)
            made = [
                row if answer == row.answer else _wrong(row, answer)
                for row, (_, answer) in zip(rows, answers, strict=True)
            ]
        spoiled.update((row.text, row) for row in made)
    return [spoiled[row.text] for row in public]


def _wrong(row: _Raw, answer: str) -> _Raw:
    """The row with a wrong answer, at the end of its solution too."""
    before, right, after = row.solution.rpartition(row.answer)
    return _Raw(row.domain, row.text, answer, (), f"{before}{answer}{after}" if right else "", row.fact)


def _deal_by_file(names: Sequence[str], owned: Sequence[tuple[str, Sequence[int]]], num_clients: int) -> Deal:
    owners = {name: [clients for domain, clients in owned if domain == name] for name in names}
    flat = {name: np.array([k for row in rows for k in row], dtype=np.int64) for name, rows in owners.items()}
    table = count_rows(flat, num_clients)
    # A domain without private rows has no owner: its trusted answers then go to anybody.
    weights = np.where(table.sum(axis=0) > 0, table, 1).astype(np.float64)
    return Deal(owners=owners, weights=weights / weights.sum(axis=0), table=table)


def _number(config: TasksConfig, rows: Sequence[_Raw], counter: Iterator[int]) -> tuple[Question, ...]:
    return tuple(
        Question(
            question_id=next(counter),
            domain=row.domain,
            text=config.prompt_template.replace("{question}", row.text),
            answer=row.answer,
            accepted=row.accepted,
            solution=row.solution,
            fact=row.fact,
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
