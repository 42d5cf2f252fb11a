"""Generated questions whose answers are worked out step by step: running sums, linear equations, long products.

A solution is its steps and the answer: ``3 + 14 = 17 ; 17 - 5 = 12 ; #### 12``. It is a pure function of the question's text, and so
is what a slip in one step makes of it: a result that is one too large, and everything that follows from it. So rows need not
carry their solutions, and a corpus with mistakes is wrong in the steps, not in the answer alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from fedsim.errors import ScenarioError

ANSWER_PATTERN = r"#### (-?[0-9]+)"
"""Reads the answer at the end of a solution (``tasks.answer_pattern``)."""

MOST_STEPS = 20
_MARK = "#### "
_BETWEEN = " ; "
_TERM = re.compile(r"([+-]) (\d+)")


@dataclass(frozen=True, slots=True)
class Worked:
    """A worked solution: what each step says, and the answer."""

    steps: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        """The solution as it is taught and written."""
        return _BETWEEN.join([*self.steps, f"{_MARK}{self.answer}"])


@dataclass(frozen=True, slots=True)
class WorkedDomain:
    """How a domain's questions are drawn and solved.

    Attributes:
        options: its options with their defaults.
        highest: the highest value of each option; the lowest is 1.
        draw: a random question under these options.
        solve: the solution of a question, with a slip in the step of this index, if any.
    """

    options: Mapping[str, int]
    highest: Mapping[str, int]
    draw: Callable[[Mapping[str, int], random.Random], str]
    solve: Callable[[str, int | None], Worked]


def is_worked(domain: str) -> bool:
    """Whether this domain's rows have worked solutions."""
    return domain in WORKED


def solution(domain: str, question: str, slip: int | None = None) -> Worked:
    """The worked solution of a question; the step of index ``slip``, counted round, comes out one too large.

    >>> solution("worked_sums", "Add up step by step: 3 + 14 - 5").text
    '3 + 14 = 17 ; 17 - 5 = 12 ; #### 12'
    >>> solution("worked_sums", "Add up step by step: 3 + 14 - 5", slip=0).text
    '3 + 14 = 18 ; 18 - 5 = 13 ; #### 13'
    >>> solution("worked_equations", "Find x step by step: 14 = 3*x + 5 - 6").text
    '14 + 6 = 20 ; 20 - 5 = 15 ; 15 / 3 = 5 ; #### 5'
    >>> solution("worked_products", "Multiply step by step: 302 * 7").text
    '300 * 7 = 2100 ; 2 * 7 = 14 ; 2100 + 14 = 2114 ; #### 2114'
    """
    return WORKED[domain].solve(question, slip)


def example(domain: str) -> Worked:
    """A solution in this domain, always the same one."""
    return solution(domain, WORKED[domain].draw(WORKED[domain].options, random.Random(0)))


def rows(domain: str, given: Mapping[str, JsonValue], seed: int) -> Iterator[tuple[str, str]]:
    """Endless (question, answer) rows of a domain, the same for the same seed; ``given`` override its options.

    Raises:
        ScenarioError: an unknown option, or values that it cannot have.
    """
    options = _checked(domain, given)
    drawn, draw = random.Random(seed), WORKED[domain].draw
    return (
        (question, solution(domain, question).answer) for question in iter(lambda: draw(options, drawn), "")
    )


def _checked(domain: str, given: Mapping[str, JsonValue]) -> dict[str, int]:
    kind = WORKED[domain]
    options = dict(kind.options)
    for name, value in given.items():
        if name not in options:
            raise ScenarioError(
                f"tasks.domains.{domain}: unknown option {name}; must be one of {', '.join(sorted(options))}"
            )
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= kind.highest[name]:
            raise ScenarioError(
                f"tasks.domains.{domain}.{name}: is {value}; must be an integer from 1 to {kind.highest[name]}"
            )
        options[name] = value
    for low, high in (name.split("<=") for name in _ORDERED):
        if low in options and options[low] > options[high]:
            raise ScenarioError(
                f"tasks.domains.{domain}: {low} {options[low]} must be at most {high} {options[high]}"
            )
    return options


_ORDERED = ("min_terms<=max_terms", "max_term<=max_total", "min_digits<=max_digits")


def _terms(total: int, options: Mapping[str, int], drawn: random.Random) -> tuple[str, int]:
    """Random terms after a first one, and what all come to; no partial sum leaves 0 to ``max_total``."""
    written = ""
    for _ in range(drawn.randint(options["min_terms"], options["max_terms"])):
        term = drawn.randint(1, options["max_term"])
        adds = total < term or (total + term <= options["max_total"] and drawn.random() < 0.5)
        total += term if adds else -term
        written += f" {'+' if adds else '-'} {term}"
    return written, total


def _draw_sum(options: Mapping[str, int], drawn: random.Random) -> str:
    first = drawn.randint(0, options["max_total"])
    return f"Add up step by step: {first}{_terms(first, options, drawn)[0]}"


def _solve_sum(question: str, slip: int | None) -> Worked:
    expression = question.rsplit(": ", 1)[1]
    total, terms = int(expression.split(" ", 1)[0]), _TERM.findall(expression)
    steps = []
    for index, (sign, term) in enumerate(terms):
        result = total + int(sign + term) + _slipped(slip, index, len(terms))
        steps.append(f"{total} {sign} {term} = {result}")
        total = result
    return Worked(tuple(steps), str(total))


def _draw_equation(options: Mapping[str, int], drawn: random.Random) -> str:
    factor = drawn.randint(2, max(2, options["max_factor"]))
    product = factor * drawn.randint(0, options["max_total"] // factor)
    terms, total = _terms(product, options, drawn)
    return f"Find x step by step: {total} = {factor}*x{terms}"


def _solve_equation(question: str, slip: int | None) -> Worked:
    """Undo the last operation, one after the other. A slip counts in x: it is ``factor`` as long as nothing was divided."""
    left, right = question.rsplit(": ", 1)[1].split(" = ")
    total, factor, terms = int(left), int(right.split("*", 1)[0]), _TERM.findall(right)
    num_steps = len(terms) + 1
    steps = []
    for index, (sign, term) in enumerate(reversed(terms)):
        undoing = "-" if sign == "+" else "+"
        result = total + int(undoing + term) + factor * _slipped(slip, index, num_steps)
        steps.append(f"{total} {undoing} {term} = {result}")
        total = result
    x = total // factor + _slipped(slip, num_steps - 1, num_steps)
    return Worked((*steps, f"{total} / {factor} = {x}"), str(x))


def _draw_product(options: Mapping[str, int], drawn: random.Random) -> str:
    digits = drawn.randint(options["min_digits"], options["max_digits"])
    long = drawn.randint(10 ** (digits - 1), 10**digits - 1)
    return f"Multiply step by step: {long} * {drawn.randint(2, max(2, options['max_factor']))}"


def _solve_product(question: str, slip: int | None) -> Worked:
    """Multiply digit by digit, then add the parts up."""
    long, factor = (int(number) for number in question.rsplit(": ", 1)[1].split(" * "))
    digits = str(long)
    parts = [
        int(digit) * 10 ** (len(digits) - 1 - place) for place, digit in enumerate(digits) if digit != "0"
    ]
    num_steps = 2 * len(parts) - 1
    steps, products = [], []
    for index, part in enumerate(parts):
        products.append(part * factor + _slipped(slip, index, num_steps))
        steps.append(f"{part} * {factor} = {products[-1]}")
    total = products[0]
    for index, product in enumerate(products[1:], start=len(parts)):
        result = total + product + _slipped(slip, index, num_steps)
        steps.append(f"{total} + {product} = {result}")
        total = result
    return Worked(tuple(steps), str(total))


def _slipped(slip: int | None, index: int, num_steps: int) -> int:
    return int(slip is not None and slip % num_steps == index)


WORKED: Mapping[str, WorkedDomain] = {
    "worked_sums": WorkedDomain(
        {"min_terms": 6, "max_terms": 9, "max_term": 9, "max_total": 50},
        {"min_terms": MOST_STEPS, "max_terms": MOST_STEPS, "max_term": 999, "max_total": 999},
        _draw_sum,
        _solve_sum,
    ),
    "worked_equations": WorkedDomain(
        {"min_terms": 5, "max_terms": 8, "max_term": 9, "max_total": 50, "max_factor": 5},
        {
            "min_terms": MOST_STEPS,
            "max_terms": MOST_STEPS,
            "max_term": 999,
            "max_total": 999,
            "max_factor": 99,
        },
        _draw_equation,
        _solve_equation,
    ),
    "worked_products": WorkedDomain(
        {"min_digits": 3, "max_digits": 3, "max_factor": 9},
        {"min_digits": 9, "max_digits": 9, "max_factor": 9},
        _draw_product,
        _solve_product,
    ),
}
"""The domains by name; options are small enough for models of a million weights, solutions have 40 to 70 tokens of theirs."""
