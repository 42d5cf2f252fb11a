"""Names from users' files in figures: in a font that has their letters, and never read as mathematics.

Figures are in DejaVu Sans, which has Latin, Greek, Cyrillic and Arabic, but no Chinese and few pictures. For what it lacks, an
installed font is looked for that has it. Where there is none, one line says so, and matplotlib's own warnings are not shown.
"""

from __future__ import annotations

import contextlib
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterator
from functools import lru_cache

from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

FAMILY = "DejaVu Sans"
_MOST_FAMILIES = 4
_FORMATTED = re.compile(r"(\$\\mathdefault\{[^$]*\}\$)*")
"""What matplotlib's own formatters write on logarithmic axes."""

_log = logging.getLogger(__name__)
_unknown: set[str] = set()


def fit_text(figure: Figure) -> None:
    """Give every text of a figure a font for what its own lacks; only matplotlib's own numbers are mathematics."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # makes them
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        content = text.get_text()
        if "$" in content and not _FORMATTED.fullmatch(content):
            text.set_parse_math(False)
        lacking = _lacking(content)
        if lacking:
            families, unknown = _fallbacks(lacking)
            text.set_fontfamily([FAMILY, *families])
            _unknown.update(unknown)


@contextlib.contextmanager
def quiet_fonts() -> Iterator[None]:
    """Within it, matplotlib does not warn of glyphs that no font has; `told` says it once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


@contextlib.contextmanager
def told() -> Iterator[list[str]]:
    """Within it figures are drawn; then the list has a line on what no font could show, which is logged as well."""
    _unknown.clear()
    lines: list[str] = []
    yield lines
    if _unknown:
        found = sorted(_unknown)
        shown = " ".join(found[:8]) + (" ..." if len(found) > 8 else "")
        lines.append(
            f"figures: no installed font has {shown} ({len(found)} character{'' if len(found) == 1 else 's'}); each is drawn "
            "as a box; install a font for that script, such as Noto Sans CJK, and draw again with fedsim figures"
        )
        _log.warning("%s", lines[0])


def _lacking(content: str) -> frozenset[str]:
    """The characters of a text that the figures' font has no glyph for."""
    if content.isascii():
        return frozenset()
    default = _default()
    return frozenset(
        one for one in content if not one.isascii() and _is_seen(one) and not default.get_char_index(ord(one))
    )


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp", "Mn")


@lru_cache(maxsize=1024)
def _fallbacks(lacking: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have some of these characters, the one with most of them first; and what no font has."""
    families: list[str] = []
    while lacking and len(families) < _MOST_FAMILIES:
        known = [(entry, _known(entry.fname, lacking)) for entry in _candidates()]
        entry, best = max(known, key=lambda one: len(one[1]), default=(None, frozenset()))
        if entry is None or not best:
            break
        families.append(entry.name)
        lacking -= best
    return tuple(families), lacking


@lru_cache(maxsize=8192)
def _known(file: str, wanted: frozenset[str]) -> frozenset[str]:
    font = _opened(file)
    return frozenset() if font is None else frozenset(one for one in wanted if font.get_char_index(ord(one)))


def _candidates() -> list[FontEntry]:
    """Upright fonts of a usual weight, the most usual first; those that stand for any character are none."""
    found = [
        entry for entry in fontManager.ttflist if entry.name != FAMILY and "Last Resort" not in entry.name
    ]
    return sorted(found, key=lambda one: (one.style != "normal", _heaviness(one), one.name, one.fname))


def _heaviness(entry: FontEntry) -> int:
    return (
        abs(entry.weight - 400)
        if isinstance(entry.weight, int)
        else 0
        if entry.weight in ("normal", "regular")
        else 300
    )


@lru_cache(maxsize=1)
def _default() -> FT2Font:
    return FT2Font(fontManager.findfont(FAMILY))


@lru_cache(maxsize=256)
def _opened(file: str) -> FT2Font | None:
    """A font that can be drawn with; pictures in colour, for one, cannot."""
    try:
        font = FT2Font(file)
        font.set_size(8, 100)
    except (OSError, RuntimeError, ValueError):
        return None
    return font if font.scalable else None
