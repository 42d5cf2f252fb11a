"""Generated questions whose answers are worked out step by step: running sums, linear equations, long products.

A solution is its steps and the answer: ``3 + 14 = 17 ; 17 - 5 = 12 ; #### 12``. It is a pure function of the question's text,
and so is what a slip in its first step makes of it: a result that is one too large, and everything that follows from it. So
rows need not carry their solutions, and a corpus with mistakes is wrong in the steps, not in the answer alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from fedsim.errors import ScenarioError

ANSWER_PATTERN = r"#### (-?[0-9]+)"
"""Reads the answer at the end of a solution (``tasks.answer_pattern``)."""

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
        options: its options: default, lowest and highest value.
        draw: a random question under such options.
        solve: the solution of a question; its first result is so much too large (0: none is).
    """

    options: Mapping[str, tuple[int, int, int]]
    draw: Callable[[Mapping[str, int], random.Random], str]
    solve: Callable[[str, int], Worked]


def is_worked(domain: str) -> bool:
    """Whether this domain's rows have worked solutions."""
    return domain in WORKED


def solution(domain: str, question: str, slip: int = 0) -> Worked:
    """The worked solution of a question; with a slip of 1 its first step comes out one too large, and so does what follows.

    >>> solution("worked_sums", "Add up step by step: 3 + 14 - 5").text
    '3 + 14 = 17 ; 17 - 5 = 12 ; #### 12'
    >>> solution("worked_sums", "Add up step by step: 3 + 14 - 5", slip=1).text
    '3 + 14 = 18 ; 18 - 5 = 13 ; #### 13'
    >>> solution("worked_equations", "Find x step by step: 14 = 3*x + 5 - 6").text
    '14 + 6 = 20 ; 20 - 5 = 15 ; 15 / 3 = 5 ; #### 5'
    >>> solution("worked_products", "Multiply step by step: 32 * 7").text
    '30 * 7 = 210 ; 2 * 7 = 14 ; 210 + 14 = 224 ; #### 224'
    """
    return WORKED[domain].solve(question, slip)


def example(domain: str) -> Worked:
    """A solution in this domain, always the same one."""
    return solution(domain, WORKED[domain].draw(_checked(domain, {}), random.Random(0)))


def rows(domain: str, given: Mapping[str, JsonValue], seed: int) -> Iterator[tuple[str, str]]:
    """Endless (question, answer) rows of a domain, the same for the same seed; ``given`` override its options.

    Raises:
        ScenarioError: an unknown option, or values that it cannot have.
    """
    options, drawn = _checked(domain, given), random.Random(seed)
    while True:
        question = WORKED[domain].draw(options, drawn)
        yield question, solution(domain, question).answer


def _checked(domain: str, given: Mapping[str, JsonValue]) -> dict[str, int]:
    """The options with what is given."""
    known = WORKED[domain].options
    options = {name: default for name, (default, _, _) in known.items()}
    for name, value in given.items():
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise ScenarioError(f"tasks.domains.{domain}: unknown option {name}; must be one of {allowed}")
        _, lowest, highest = known[name]
        if type(value) is not int or not lowest <= value <= highest:
            raise ScenarioError(
                f"tasks.domains.{domain}: {name} is {value}; must be an integer from {lowest} to {highest}"
            )
        options[name] = value
    for low, high, times in _ORDERED:
        if low in options and times * options[low] > options[high]:
            raise ScenarioError(
                f"tasks.domains.{domain}: {low} is {options[low]}; must be at most {options[high] // times} where {high} is "
                f"{options[high]}"
            )
    return options


_ORDERED = (("min_terms", "max_terms", 1), ("max_term", "max_total", 2), ("min_digits", "max_digits", 1))
"""Which option times what may not exceed which other one."""


def _terms(total: int, options: Mapping[str, int], drawn: random.Random) -> tuple[str, int]:
    """Random terms after a first one, and what all come to; no partial sum leaves the range from 0 to ``max_total``."""
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


def _solve_sum(question: str, slip: int) -> Worked:
    expression = question.rsplit(": ", 1)[1]
    return _summed(int(expression.split(" ", 1)[0]), _TERM.findall(expression), slip)


def _summed(total: int, terms: Sequence[tuple[str, str]], slip: int) -> Worked:
    """Add signed terms to a number, one after the other; the first sum is so much too large."""
    steps = []
    for sign, term in terms:
        result = total + int(sign + term) + slip
        steps.append(f"{total} {sign} {term} = {result}")
        total, slip = result, 0
    return Worked(tuple(steps), str(total))


def _draw_equation(options: Mapping[str, int], drawn: random.Random) -> str:
    factor = drawn.randint(2, options["max_factor"])
    product = factor * drawn.randint(0, options["max_total"] // factor)
    terms, total = _terms(product, options, drawn)
    return f"Find x step by step: {total} = {factor}*x{terms}"


def _solve_equation(question: str, slip: int) -> Worked:
    """Undo the last operation, then the one before. A slip counts in x, so that it can still be divided by its factor."""
    left, right = question.rsplit(": ", 1)[1].split(" = ")
    factor = int(right.split("*", 1)[0])
    undoing = [("-" if sign == "+" else "+", term) for sign, term in reversed(_TERM.findall(right))]
    product = _summed(int(left), undoing, slip * factor)
    x = str(int(product.answer) // factor)
    return Worked((*product.steps, f"{product.answer} / {factor} = {x}"), x)


def _draw_product(options: Mapping[str, int], drawn: random.Random) -> str:
    num_digits = drawn.randint(options["min_digits"], options["max_digits"])
    long = "".join(str(drawn.randint(1, 9)) for _ in range(num_digits))
    return f"Multiply step by step: {long} * {drawn.randint(2, options['max_factor'])}"


def _solve_product(question: str, slip: int) -> Worked:
    """Multiply digit by digit, then add the parts up."""
    long, factor = question.rsplit(": ", 1)[1].split(" * ")
    parts = [digit + "0" * zeros for zeros, digit in zip(reversed(range(len(long))), long, strict=True)]
    products = [int(part) * int(factor) for part in parts]
    products[0] += slip
    steps = [f"{part} * {factor} = {product}" for part, product in zip(parts, products, strict=True)]
    added = _summed(products[0], [("+", str(product)) for product in products[1:]], 0)
    return Worked((*steps, *added.steps), added.answer)


_RUNNING = {"max_term": (9, 1, 999), "max_total": (30, 2, 9999)}

WORKED: Mapping[str, WorkedDomain] = {
    "worked_sums": WorkedDomain(
        {"min_terms": (6, 1, 20), "max_terms": (9, 1, 20), **_RUNNING}, _draw_sum, _solve_sum
    ),
    "worked_equations": WorkedDomain(
        {"min_terms": (5, 1, 20), "max_terms": (8, 1, 20), "max_factor": (5, 2, 99), **_RUNNING},
        _draw_equation,
        _solve_equation,
    ),
    "worked_products": WorkedDomain(
        {"min_digits": (3, 2, 9), "max_digits": (3, 2, 9), "max_factor": (5, 2, 9)},
        _draw_product,
        _solve_product,
    ),
}
"""The domains by name. Solutions have 38 to 56 tokens of a scratch model's, and models of 0.1 million weights learn them."""
