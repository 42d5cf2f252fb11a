"""The figures of a page: drawn and saved one by one, with the page's text for each."""

from __future__ import annotations

import html
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from matplotlib.figure import Figure

from analysis.artist import Artist, LostError
from analysis.style import save

FIGURES_FOLDER = "figures"
PATIENCE_S = 60.0
"""Real seconds that an artist may take for a last figure when all others are drawn."""

_SUFFIXES = (".png", ".svg")


class Source(Protocol):
    """What figures are drawn from: a run, a comparison or a sweep."""

    @property
    def folder(self) -> Path:
        """Where it was read."""


T = TypeVar("T", bound=Source)


@dataclass(frozen=True, slots=True)
class FigureSpec(Generic[T]):
    """One figure of a page: its file without a suffix, how it is drawn, what it shows, and why it may be missing."""

    name: str
    draw: Callable[[T], Figure | None]
    caption: str
    missing: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of figures: how its source is read from a folder, and what may be drawn of it."""

    read: Callable[[Path | str], T]
    specs: Sequence[FigureSpec[T]]

    def files(self, spec: FigureSpec[T], source: T) -> list[Path]:
        """Where a figure is saved."""
        return [source.folder / FIGURES_FOLDER / (spec.name + suffix) for suffix in _SUFFIXES]

    def draw(self, spec: FigureSpec[T], source: T) -> bool:
        """Save one figure; False where there is nothing to draw, and nothing is left under its name."""
        figure = spec.draw(source)
        if figure is None:
            for path in self.files(spec, source):
                path.unlink(missing_ok=True)
            return False
        save(figure, source.folder / FIGURES_FOLDER / spec.name)
        return True


def draw_figures(page: Page[T], source: T, artist: Artist | None = None) -> tuple[list[Path], list[str]]:
    """Save every figure as PNG and SVG beside the source; returns the files, and a piece of HTML for each figure.

    One for which there is nothing is left out, what an earlier page left under its name is removed, and its piece says why.
    An artist draws the first ones meanwhile.
    """
    waiting = deque(page.specs)
    drawn: dict[str, bool] = {}

    def hand_over() -> None:
        assert artist is not None
        try:
            artist.await_ready()
            while waiting:
                spec = waiting.popleft()
                drawn[spec.name] = artist.draw(spec.name)
        except (LostError, IndexError):  # the figure under way is drawn below; or there is none left
            return

    helper = threading.Thread(target=hand_over, daemon=True)
    if artist is not None:
        helper.start()
    while waiting:
        spec = waiting.pop()
        drawn[spec.name] = page.draw(spec, source)
    if artist is not None:
        helper.join(PATIENCE_S)
        if helper.is_alive():  # it hangs: without it the figure under way is drawn below
            artist.close()
            helper.join()
    for spec in page.specs:
        if spec.name not in drawn:
            drawn[spec.name] = page.draw(spec, source)
    files = [path for spec in page.specs if drawn[spec.name] for path in page.files(spec, source)]
    return files, [_section(spec.name, spec.caption, spec.missing, drawn[spec.name]) for spec in page.specs]


def _section(name: str, caption: str, missing: str, is_drawn: bool) -> str:
    caption = html.escape(caption)
    if not is_drawn:
        return f"<p><em>Left out, {html.escape(missing)}:</em> {caption}</p>"
    return (
        f'<figure><img src="{name}.png" alt="{caption}" style="max-width:100%">'
        f'<figcaption>{caption} (<a href="{name}.svg">SVG</a>)</figcaption></figure>'
    )
