"""Questions of a timing run: numbered texts whose answers are short numbers, in the sizes and the partition of the scenario.

Own questions, and those with worked solutions, whose length matters, are those of a run with real models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from fedsim.sim import streams
from fedsim.tasks import worked
from fedsim.tasks.config import PartitionConfig, SizesConfig, TasksConfig
from fedsim.tasks.dataset import build, domain_sizes
from fedsim.tasks.partition import deal
from fedsim.tasks.questions import Question, TaskData


def task_data(config: TasksConfig, num_clients: int, seed: int) -> TaskData:
    """Numbered questions in the sizes and the partition that the scenario asks for, or those of its file or worked domains.

    What was made last is kept: a run asks for the same again after its deadline was checked. A file is read again.

    Raises:
        InputError: as for `fedsim.tasks.dataset.build`.
    """
    if config.file is not None or all(map(worked.is_worked, config.options)):
        return build(config, num_clients, seed)
    names = tuple(config.options)
    return _task_data(names, config.sizes, config.partition, config.answers.coverage, num_clients, seed)


@lru_cache(maxsize=1)
def _task_data(
    names: tuple[str, ...],
    sizes: SizesConfig,
    partition: PartitionConfig,
    coverage: float,
    num_clients: int,
    seed: int,
) -> TaskData:
    private_rows = dict(zip(names, domain_sizes(sizes.num_private(num_clients), len(names)), strict=True))
    dealt = deal(partition, private_rows, num_clients, seed)
    dealt.table.setflags(write=False)  # it may be shared
    # One bulk draw for all answers: a hash for each of them would be a tenth of what `fedsim check` takes.
    answers = _answers(sum(private_rows.values()) + sizes.pool + sizes.auxiliary, seed)
    numbered = enumerate(answers)

    def question(domain: str) -> Question:
        number, answer = next(numbered)
        return Question(number, domain, f"{domain} question {number:08d}", answer)

    def split(size: int) -> tuple[Question, ...]:
        return tuple(question(names[index % len(names)]) for index in range(size))

    clients: list[list[Question]] = [[] for _ in range(num_clients)]
    for name in names:
        for owners in dealt.owners[name]:
            row = question(name)
            for owner in owners:
                clients[owner].append(row)
    pool = split(sizes.pool)
    return TaskData(
        domains=names,
        public=(),
        private=tuple(tuple(rows) for rows in clients),
        auxiliary=split(sizes.auxiliary),
        pool=pool,
        validation=(),
        test=(),
        trusted=_trusted(pool, coverage, num_clients, seed),
        partition=dealt.table,
    )


def _answers(count: int, seed: int) -> list[str]:
    """Numbers of one to three digits; the first n of them are the same whatever ``count`` is."""
    digits = streams.generator(seed, "digits").integers(1, 4, count)
    shares = streams.generator(seed, "answer").random(count)
    return [str(number) for number in (shares * 10**digits).astype(np.int64).tolist()]


def _trusted(
    pool: Sequence[Question], coverage: float, num_clients: int, seed: int
) -> tuple[dict[int, str], ...]:
    """The covered questions' answers, each at one client."""
    if not coverage:
        return ({},) * num_clients  # nobody writes into them
    trusted: list[dict[int, str]] = [{} for _ in range(num_clients)]
    covered = [q for q in pool if streams.uniform(seed, "covered", q.question_id) < coverage]
    for q in covered:
        trusted[streams.integer(seed, "owner", q.question_id) % num_clients][q.question_id] = q.answer
    return tuple(trusted)
