"""Generated questions: reasoning-gym data sets with options small enough for small models.

The five quick-start domains (and a few more) carry easy default options; any other reasoning_gym data set
can be named with its own options. reasoning_gym is imported inside ``generate`` only: it costs seconds.

What differs from reasoning_gym: our ``products`` multiplies one operand of up to ``max_long`` with one or two
one-digit operands (same wording; reasoning_gym's has only 1,100 different questions with one-digit
operands and a tiny model cannot learn its next size). Give ``products`` any option of reasoning_gym's own
to get that one. ``spell_backward`` keeps lower-case words only. Domains with worked solutions are ours as well (``worked.py``).
"""

from __future__ import annotations

import difflib
import json
import math
import platform
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from pydantic import JsonValue

from fedsim.errors import ScenarioError
from fedsim.records.content_hashes import keep, kept
from fedsim.records.provenance import code_fingerprint
from fedsim.sim import streams
from fedsim.tasks import worked

EASY_OPTIONS: Mapping[str, Mapping[str, JsonValue]] = {
    "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 1},
    "products": {"min_terms": 2, "max_terms": 3, "max_long": 19},
    "gcd": {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 99},
    "simple_equations": {
        "min_terms": 2, "max_terms": 2, "min_value": 1, "max_value": 15,
        "operators": ["+", "-"], "operators_weights": [0.5, 0.5],
    },
    "spell_backward": {"min_word_len": 3, "max_word_len": 5},
    "lcm": {"min_numbers": 2, "max_numbers": 2, "min_value": 1, "max_value": 60},
    "count_bits": {"min_n": 1, "max_n": 9999},
    "fraction_simplification": {
        "min_value": 1, "max_value": 40, "min_factor": 1, "max_factor": 20, "styles": ["plain"],
    },
}  # fmt: skip

Row = tuple[str, str]


@lru_cache(maxsize=64)
def _cached(name: str, options_json: str, count: int, seed: int) -> tuple[Row, ...]:
    given: dict[str, JsonValue] = json.loads(options_json)
    draws = _source(name, given, count, seed)
    rows: dict[str, str] = {}
    idle = 0
    for question, answer in draws:
        if len(rows) >= count:
            break
        if question in rows:
            idle += 1
            # After so many repeats in a row all but a vanishing part of the domain has been seen.
            if idle > 2000 + 10 * len(rows):
                break
        else:
            rows[question] = answer
            idle = 0
    if len(rows) < count:
        raise ScenarioError(
            f"tasks.domains: {name} has about {len(rows)} different questions with these options; {count} "
            f"are asked for over all splits; ask for fewer (tasks.sizes) or widen its options"
        )
    # Frequent questions come first in the order of generation: shuffle, or the splits would differ in kind.
    order = streams.generator(seed, "domain order", name).permutation(count)
    listed = list(rows.items())
    return tuple(listed[i] for i in order)


def generate(
    name: str, options: Mapping[str, JsonValue], count: int, seed: int, kept_in: Path | None = None
) -> tuple[Row, ...]:
    """Generate ``count`` different (question, answer) rows of one domain, in random order.

    A pure function of the first four arguments. ``options`` override the easy defaults of ``EASY_OPTIONS``. Where a folder
    is given, rows are read back from it, or kept there: reasoning_gym takes seconds.

    Raises:
        ScenarioError: unknown domain or option, options that reasoning_gym refuses, answers that are not
            texts, or fewer different questions than ``count``; the message says how many there are.
        CacheError: the rows that were kept are not what was written.
    """
    if count == 0:
        return ()
    options_json = json.dumps(options, sort_keys=True)
    if kept_in is None or worked.is_worked(name):
        return _cached(name, options_json, count, seed)
    path = kept_in / f"{_key(name, options_json, count, seed)}.kept"
    content = kept(path)
    if content is not None:
        return msgspec.json.decode(content, type=tuple[Row, ...])
    rows = _cached(name, options_json, count, seed)
    keep(path, msgspec.json.encode(rows))
    return rows


def _key(name: str, options_json: str, count: int, seed: int) -> str:
    """Everything that rows depend on: arguments, the generators' versions and this module."""
    versions = [version("reasoning_gym"), version("sympy"), version("numpy"), platform.python_version()]
    source = code_fingerprint(Path(__file__).read_text(encoding="utf-8"))
    material = [name, options_json, count, seed, *versions, source]
    return blake2b(json.dumps(material).encode(), digest_size=16).hexdigest()


def check_names(names: Iterable[str]) -> None:
    """Refuse a name that no data set has, without the seconds that importing reasoning_gym takes.

    Its data sets' names are read from its source files. Where that finds none, nothing is refused here: `generate` will.

    Raises:
        ScenarioError: a name is unknown; the message names the nearest one.
    """
    for name in names:
        known = name in EASY_OPTIONS or worked.is_worked(name)
        if not known and registered_names() and name not in registered_names():
            raise _unknown(name, registered_names())


@lru_cache(maxsize=1)
def registered_names() -> frozenset[str]:
    """The data sets that reasoning_gym registers, by its source text; empty if it is not installed as source files."""
    package = find_spec("reasoning_gym")
    if package is None or package.origin is None:
        return frozenset()
    texts = (path.read_text("utf-8", "replace") for path in Path(package.origin).parent.rglob("*.py"))
    return frozenset(name for text in texts for names in _REGISTERED.findall(text) for name in names if name)


_REGISTERED = re.compile(r'^DATASET_NAME\s*=\s*"(\w+)"|^register_dataset\(\s*"(\w+)"', re.MULTILINE)


def _unknown(name: str, known: Iterable[str]) -> ScenarioError:
    nearest = difflib.get_close_matches(name, sorted({*known, *worked.WORKED}), n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; see reasoning_gym for its data sets"
    return ScenarioError(f"tasks.domains: {name} is not a reasoning_gym data set{hint}")


def _source(name: str, given: dict[str, JsonValue], count: int, seed: int) -> Iterable[Row]:
    options = dict(EASY_OPTIONS.get(name, {})) | given
    key = streams.integer(seed, "domain", name) % 2**31
    if worked.is_worked(name):
        return worked.rows(name, given, key)
    if name == "products" and set(given) <= set(EASY_OPTIONS["products"]):
        return _products(options, key)
    if name == "products":
        options = given
    rows = _reasoning_gym(name, options, count, key)
    keep = _KEEP.get(name)
    return (row for row in rows if keep(row[0])) if keep else rows


def _products(options: Mapping[str, JsonValue], seed: int) -> Iterator[Row]:
    values = [options[name] for name in ("min_terms", "max_terms", "max_long")]
    numbers = [value for value in values if type(value) is int and 1 <= value <= 999]
    if len(numbers) != 3 or numbers[0] > numbers[1]:
        raise ScenarioError(
            f"tasks.domains.products: min_terms, max_terms, max_long are {values}; must be integers "
            "from 1 to 999 with min_terms <= max_terms"
        )
    low, high, long = numbers
    rng = random.Random(seed)
    while True:
        operands = [rng.randint(0, 9) for _ in range(rng.randint(low, high))]
        operands[rng.randrange(len(operands))] = rng.randint(0, long)
        expression = " * ".join(map(str, operands))
        question = (
            f"Solve the following multiplication: {expression}. Give only the result as your final answer."
        )
        yield question, str(math.prod(operands))


def _reasoning_gym(name: str, options: Mapping[str, JsonValue], count: int, seed: int) -> Iterator[Row]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        raise _unknown(name, DATASETS)
    allowed = sorted(set(DATASETS[name][1].__dataclass_fields__) - {"seed", "size"})
    for option in options:
        if option not in allowed:
            raise ScenarioError(
                f"tasks.domains.{name}: unknown option {option}; must be one of {', '.join(allowed)}"
            )
    limit = 200 * count + 100_000
    try:
        dataset: Any = reasoning_gym.create_dataset(name, seed=seed, size=limit, **options)
    except (AssertionError, ValueError, TypeError) as error:
        raise ScenarioError(f"tasks.domains.{name}: reasoning_gym refuses these options: {error}") from None
    return _entries(name, dataset, limit)


def _entries(name: str, dataset: Any, limit: int) -> Iterator[Row]:
    for index in range(limit):
        entry = dataset[index]
        if not isinstance(entry["answer"], str) or not entry["answer"].strip():
            raise ScenarioError(
                f"tasks.domains: {name} has answers that are not texts; choose another data set"
            )
        yield entry["question"], entry["answer"]


_KEEP: Mapping[str, Callable[[str], bool]] = {
    "spell_backward": lambda question: question.rsplit(" ", 1)[-1].islower(),
}
