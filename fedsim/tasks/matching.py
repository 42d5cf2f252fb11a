"""Finding the answer in a text, and comparing it with the truth.

An answer pattern comes from outside, and Python's ``re`` can take exponential time. Only a small subset is
accepted: no look-around, back-reference, flag or quantified group, at most two unbounded quantifiers and six
choices in all; and it only ever sees the last 300 characters of a text. Matching is then cheap whatever a
model writes.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

MAX_PATTERN_CHARS = 200
MAX_TEXT_CHARS = 300
MAX_UNBOUNDED = 2
MAX_CHOICES = 6

Match = Literal["exact", "numeric", "caseless", "normalized"]

_TOKEN = re.compile(
    r"""(?P<escape>\\.) | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\]) | (?P<open>\(\?:|\(\?|\() | (?P<close>\))
      | (?P<quantifier>(?:[*+?]|\{\d*,?\d*\})[?+]?) | (?P<choice>\|) | (?P<literal>.)""",
    re.VERBOSE | re.DOTALL,
)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3}){1,20}|\d{1,60})(?:\.\d{1,60})?|[+-]?\.\d{1,60}")


def check_pattern(pattern: str) -> None:
    """Refuse a pattern outside the safe subset.

    Raises:
        ValueError: too long, not a regular expression, or using what could take long; the message says which.
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"pattern has {len(pattern)} characters; at most {MAX_PATTERN_CHARS} are allowed")
    unbounded = choices = groups = 0
    previous = ""
    for token in _TOKEN.finditer(pattern):
        kind, text = str(token.lastgroup), token.group()
        if kind == "open" and text == "(?":
            raise ValueError("pattern uses (?...); only (...) and (?:...) are allowed")
        if kind == "escape" and text[1] in "123456789":
            raise ValueError(f"pattern uses the back-reference {text}; leave it out")
        groups += kind == "open" and text == "("
        if kind in ("quantifier", "choice"):
            choices += 1
            if kind == "quantifier" and previous == "close":
                raise ValueError(
                    f"pattern repeats a group with {text}; repeat single characters or [...] only"
                )
            if text[0] == "{" and not 0 < int(text.strip("{}?+").split(",")[-1] or 99) <= 20:
                raise ValueError(f"pattern uses {text}; a counted repeat may go up to 20")
            unbounded += text[0] in "*+"
        previous = kind
    if unbounded > MAX_UNBOUNDED or choices > MAX_CHOICES or groups > 1:
        raise ValueError(
            f"pattern has {unbounded} unbounded repeats, {choices} repeats and alternatives, {groups} "
            f"groups; at most {MAX_UNBOUNDED}, {MAX_CHOICES} and 1 are allowed"
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"pattern is not a regular expression: {error}") from None


def extract(text: str, pattern: str | None = None) -> str:
    r"""The answer in a model's text: the last match's group (or the whole match), without blanks around it.

    Without a pattern it is the whole text without blanks around it; without a match it is the empty string.

    >>> extract("so 3 + 4 is\n#### 7 ", r"#### ([-0-9./]+)")
    '7'
    """
    if pattern is None:
        return text.strip()
    place = span(text, pattern)
    return "" if place is None else text[slice(*place)].strip()


def span(text: str, pattern: str) -> tuple[int, int] | None:
    """From which character to before which one the answer stands that `extract` reads; None without a match."""
    before = max(0, len(text) - MAX_TEXT_CHARS)
    place = None
    for found in _compiled(pattern).finditer(text[before:]):
        start, end = found.span(found.re.groups)
        place = None if start < 0 else (before + start, before + end)
    return place


def matches(kind: Match | str, given: str, truth: str) -> bool:
    """Whether an extracted answer equals the truth. An empty answer never does.

    - ``exact`` compares texts without blanks around them.
    - ``caseless`` ignores case, Unicode's ways to write one character, blanks beyond one, and a full stop at the end.
    - ``normalized`` ignores case, ASCII punctuation, English articles and blanks beyond one, as SQuAD does. It also takes
      the sign and the point out of a number.
    - ``numeric`` compares values (``1,200`` = ``1200.0``, ``1/2`` = ``0.50``) within a relative 1e-6, or texts where the
      truth is not a number.

    Raises:
        ValueError: ``kind`` is none of these.

    References:
        Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text" (arXiv 1606.05250), section 6.1;
        ``normalize_answer`` of its evaluation script, version 1.1.
    """
    if kind not in ("numeric", *_NORMAL_FORMS):
        raise ValueError(f"match is {kind!r}; must be exact, numeric, caseless or normalized")
    if kind != "numeric":
        normal = _NORMAL_FORMS[kind]
        return normal(given) != "" and normal(given) == normal(truth)
    given, truth = given.strip(), truth.strip()
    if not given:
        return False
    if given == truth:
        return True
    wanted, value = _value(truth), _value(given)
    if wanted is None or value is None:
        return False
    return abs(value - wanted) <= abs(wanted) / 1_000_000


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """How an answer is read from a model's text, and when it counts as right.

    Attributes:
        match: how answers are compared, see `matches`.
        pattern: regular expression for ``extract``, or None for the whole text.
    """

    match: Match = "exact"
    pattern: str | None = None

    def extract(self, text: str) -> str:
        """The answer in a model's text."""
        return extract(text, self.pattern)

    def right(self, text: str, truth: str | Sequence[str]) -> bool:
        """Whether the answer in a model's text equals the truth, or any of several accepted answers."""
        given = self.extract(text)
        accepted = (truth,) if isinstance(truth, str) else truth
        return any(matches(self.match, given, one) for one in accepted)

    def span(self, text: str) -> tuple[int, int] | None:
        """From which character to before which one the answer stands in a model's text; None where there is none."""
        return (0, len(text)) if self.pattern is None else span(text, self.pattern)

    def key(self, text: str) -> str:
        """What all texts with the same answer have in common, for counting and grouping; empty without an answer.

        Two texts agree if and only if they have one key; but numbers that differ by a relative 1e-6 or less agree too.

        >>> AnswerRule("numeric").key("1,200.50"), AnswerRule("caseless").key(" New  York. ")
        ('2401/2', 'new york')
        """
        return self.normal(self.extract(text))

    def normal(self, answer: str) -> str:
        """The normal form of an answer that stands alone."""
        if self.match != "numeric":
            return _NORMAL_FORMS[self.match](answer)
        value = _value(answer.strip())
        return answer.strip() if value is None else str(value)


def _caseless(answer: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", answer).casefold())
    return " ".join(folded.split()).removesuffix(".").removesuffix("\N{IDEOGRAPHIC FULL STOP}").rstrip()


def _normalized(answer: str) -> str:
    return " ".join(_ARTICLE.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


_NORMAL_FORMS: Mapping[str, Callable[[str], str]] = {
    "exact": str.strip,
    "caseless": _caseless,
    "normalized": _normalized,
}


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    check_pattern(pattern)
    return re.compile(pattern)


def _value(text: str) -> Fraction | None:
    """An exact number, or None; no exponents, no infinities, bounded length."""
    top, slash, bottom = text.partition("/")
    parts = [part.strip() for part in ((top, bottom) if slash else (top,))]
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    numbers = [Fraction(part.replace(",", "")) for part in parts]
    if len(numbers) == 1:
        return numbers[0]
    return numbers[0] / numbers[1] if numbers[1] else None
