"""Systematic mistakes: which questions the public corpus gets wrong, and how.

A question's *operand class* is its first operand (its last two digits), or the initial of its last word
where it holds no number. A seeded half of each domain's classes is mostly wrong and the other half mostly
right, so that what there is to learn is one bit per class. Classes are paired by how often they occur and
a keyed coin decides which of each pair is the wrong one: both halves are about equally
frequent and the overall rate is met.

A row with a worked solution is wrong in its steps: the first result is off by one, and what follows is worked out from it. A
small model does not learn a slip in a later step, far from the operand that decides about it.

Right answers stay in the corpus for both halves (10% and 90% by default), so a policy trained on it samples
the right answer now and then, and rewards can teach it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from fedsim.sim import streams
from fedsim.tasks.config import PublicErrorsConfig
from fedsim.tasks.worked import Worked, solution

_INTEGER = re.compile(r"\d+")
_LAST_INTEGER = re.compile(r"(?<![\w.])-?\d+(?=\D*$)|\d+(?=\D*$)")


def operand_class(question: str) -> str:
    """The class that decides whether a question is mostly wrong in the public corpus.

    >>> operand_class("Find the Greatest Common Divisor (GCD) of these numbers: 49, 29.")
    '49'
    >>> operand_class("Spell this word backward (example: sun -> nus): neon")
    'n'
    """
    number = _INTEGER.search(question)
    if number is not None:
        return str(int(number.group()[-2:]))
    words = question.split()
    return words[-1][0].lower() if words else ""


def wrong_classes(domain: str, questions: Sequence[str], seed: int) -> frozenset[str]:
    """The mostly wrong half of the classes that occur in ``questions``, chosen in pairs of like frequency."""
    counts = Counter(map(operand_class, questions))
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    wrong = set()
    for first in range(0, len(ranked), 2):
        pair = ranked[first : first + 2]
        heads = streams.uniform(seed, "wrong half", domain, pair[0]) < 0.5
        if heads:
            wrong.add(pair[0])
        elif len(pair) == 2:
            wrong.add(pair[1])
    return frozenset(wrong)


def corrupt(
    config: PublicErrorsConfig, domain: str, rows: Sequence[tuple[str, str]], seed: int
) -> list[tuple[str, str]]:
    """Rows (question, answer) of one domain with the configured mistakes put in; a pure function."""
    questions = [question for question, _ in rows]
    spoiled = list(rows)
    for index in _spoiled(config, domain, questions, seed):
        question, answer = rows[index]
        spoiled[index] = question, mistake(config.kind, answer, rows[_another(index, questions, seed)][1])
    return spoiled


def worked_with_mistakes(
    config: PublicErrorsConfig, domain: str, questions: Sequence[str], seed: int
) -> list[Worked]:
    """Worked solutions of one domain's questions with the configured mistakes in their steps; a pure function.

    The result of the first step is one too large, and all that follows is worked out from it. ``shuffled`` takes another
    question's whole solution.
    """
    solutions = [solution(domain, question) for question in questions]
    for index in _spoiled(config, domain, questions, seed):
        shuffled = config.kind == "shuffled"
        question = questions[_another(index, questions, seed) if shuffled else index]
        solutions[index] = solution(domain, question, slip=0 if shuffled else 1)
    return solutions


def _spoiled(config: PublicErrorsConfig, domain: str, questions: Sequence[str], seed: int) -> Iterator[int]:
    """Places of the questions that the corpus gets wrong."""
    high, low = config.class_rates()
    wrong = wrong_classes(domain, questions, seed)
    for index, question in enumerate(questions):
        rate = high if operand_class(question) in wrong else low
        if streams.uniform(seed, "public error", domain, question) < rate:
            yield index


def _another(index: int, questions: Sequence[str], seed: int) -> int:
    """The place of another question, whose answer a ``shuffled`` one is given."""
    return (index + 1 + streams.integer(seed, "other row", questions[index])) % len(questions)


def mistake(kind: str, answer: str, other: str = "") -> str:
    """A wrong answer of the given kind; never equal to ``answer``.

    >>> mistake("auto", "-12"), mistake("auto", "noen"), mistake("auto", "mom")
    ('-11', 'neon', 'momm')
    """
    if kind == "auto":
        kind = "off_by_one" if _INTEGER.search(answer) else "reversed"
    if kind == "shuffled" and other and other != answer:
        return other
    if kind == "reversed" and answer[::-1] != answer:
        return answer[::-1]
    if kind != "reversed" and _LAST_INTEGER.search(answer):
        return _LAST_INTEGER.sub(lambda found: str(int(found.group()) + 1), answer, count=1)
    return answer + answer[-1:]


def undone(kind: str, answer: str) -> str:
    """What ``answer`` was before the mistake of this kind (not ``shuffled``, which cannot be told from the answer alone).

    >>> undone("auto", "-11"), undone("auto", "neon"), undone("off_by_one", "x = 10")
    ('-12', 'noen', 'x = 9')
    """
    if kind == "auto":
        kind = "off_by_one" if _INTEGER.search(answer) else "reversed"
    if kind == "reversed":
        return answer[::-1]
    return _LAST_INTEGER.sub(lambda found: str(int(found.group()) - 1), answer, count=1)
