"""The figures of a page: drawn and saved one by one, with the page's text for each."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from matplotlib.figure import Figure

from analysis.style import save

T = TypeVar("T", contravariant=True)


class FigureSpec(Protocol[T]):
    """A figure that a page may have."""

    @property
    def name(self) -> str:
        """Its file, without a suffix."""

    @property
    def caption(self) -> str:
        """What it shows."""

    @property
    def missing(self) -> str:
        """Why there is none, where there is nothing to draw."""

    @property
    def draw(self) -> Callable[[T], Figure | None]:
        """Draws it; None where there is nothing to draw."""


def draw_figures(specs: Iterable[FigureSpec[T]], source: T, target: Path) -> tuple[list[Path], list[str]]:
    """Save every figure as PNG and SVG into ``target``; returns the files, and a piece of HTML for each figure.

    One for which there is nothing is left out, what an earlier page left under its name is removed, and its piece says why.
    """
    written: list[Path] = []
    sections: list[str] = []
    for spec in specs:
        figure = spec.draw(source)
        caption = html.escape(spec.caption)
        if figure is None:
            for suffix in (".png", ".svg"):
                (target / (spec.name + suffix)).unlink(missing_ok=True)
            sections.append(f"<p><em>Left out, {html.escape(spec.missing)}:</em> {caption}</p>")
            continue
        written += save(figure, target / spec.name)
        sections.append(
            f'<figure><img src="{spec.name}.png" alt="{caption}" style="max-width:100%">'
            f'<figcaption>{caption} (<a href="{spec.name}.svg">SVG</a>)</figcaption></figure>'
        )
    return written, sections
