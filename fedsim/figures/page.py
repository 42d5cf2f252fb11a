"""The figures of a page: drawn and saved one by one, with the page's text for each."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from matplotlib.figure import Figure

from fedsim.figures.style import save

FIGURES_FOLDER = "figures"


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


def draw_figures(specs: Sequence[FigureSpec[T]], source: T) -> tuple[list[Path], list[str]]:
    """Save every figure as PNG and SVG beside the source; returns the files, and a piece of HTML for each figure.

    One for which there is nothing is left out, what an earlier page left under its name is removed, and its piece says why.
    """
    files: list[Path] = []
    sections: list[str] = []
    for spec in specs:
        stem = source.folder / FIGURES_FOLDER / spec.name
        figure = spec.draw(source)
        if figure is None:
            for suffix in (".png", ".svg"):
                stem.with_suffix(suffix).unlink(missing_ok=True)
        else:
            files += save(figure, stem)
        sections.append(_section(spec.name, spec.caption, spec.missing, figure is not None))
    return files, sections


def _section(name: str, caption: str, missing: str, is_drawn: bool) -> str:
    caption = html.escape(caption)
    if not is_drawn:
        return f"<p><em>Left out, {html.escape(missing)}:</em> {caption}</p>"
    return (
        f'<figure><img src="{name}.png" alt="{caption}" style="max-width:100%">'
        f'<figcaption>{caption} (<a href="{name}.svg">SVG</a>)</figcaption></figure>'
    )
