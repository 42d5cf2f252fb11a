"""A page of figures: drawn and saved one by one, and an index that shows them."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from matplotlib.figure import Figure

from fedsim.figures.fonts import told
from fedsim.figures.style import save
from fedsim.records.run_folder import write_atomically

FIGURES_FOLDER = "figures"
_STYLE = (
    "body{max-width:75em;margin:auto;font-family:sans-serif}table{border-collapse:collapse;font-size:85%}"
    "td,th{padding:.15em .5em;text-align:left;border-bottom:1px solid #e6e6e6}"
)


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


def write_page(specs: Sequence[FigureSpec[T]], source: T, title: str, intro: str) -> list[Path]:
    """Draw figures into ``figures/`` as PNG and SVG, with an ``index.html`` that has ``intro`` (HTML) above them.

    A figure for which there is nothing is left out, what an earlier page left under its name is removed, and the index says
    why.

    Returns:
        The files written, the index last.
    """
    with told() as notes:
        files, sections = _draw_figures(specs, source)
    sections += [f"<p><em>{html.escape(note)}</em></p>" for note in notes]
    title = html.escape(title)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n<style>{_STYLE}</style></head>\n'
        f"<body>\n<h1>{title}</h1>\n{intro}\n" + "\n".join(sections) + "\n</body></html>\n"
    )
    return [*files, write_atomically(source.folder / FIGURES_FOLDER / "index.html", page.encode())]


def table_row(cells: Iterable[str], tag: str = "td") -> str:
    """A row of an HTML table, of cells that are plain text."""
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _draw_figures(specs: Sequence[FigureSpec[T]], source: T) -> tuple[list[Path], list[str]]:
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
