"""Write the evidence pages, their figures and README's results from the tables in ``docs/results/``: no run is needed.

    python -m analysis.pages                  # all of them
    python -m analysis.pages docs/dropout.md  # one

Every number and every verdict is computed here from the tables; what is not finished is listed. The first line of a page names
the commit of its runs and says whether the code that decides results has changed since: a test finds a page that does not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis import dropout, evidence, learning
from analysis.command import exit_code
from analysis.readme import filled
from analysis.results import RESULTS, read
from analysis.tables import Part, Tables
from fedsim.errors import InputError
from fedsim.figures.style import save_png
from fedsim.records.provenance import SOURCE, git
from fedsim.records.run_folder import write_atomically

LEARNING_CODE = ("models", "rl", "protocols", "tasks", "privacy")
"""Packages of ``fedsim/`` that decide what is learnt."""

WORLD_CODE = ("sim", "federation")
"""Packages of ``fedsim/`` that decide what it costs: devices, links and requests."""

PAGES: Mapping[str, tuple[str, Callable[[Tables], Part]]] = {
    "evidence.md": ("Evidence", evidence.parts),
    "learning_evidence.md": ("Evidence: how the server learns", learning.parts),
    "dropout.md": ("What dropout costs FedGRPO", dropout.parts),
}

README = Path("README.md")
"""Of this page only the parts that state results are written (`analysis.readme`)."""

_MADE_BY = re.compile(r"^\*\*Runs are of commit ([0-9a-f, ]+)\.\*\* (.*)$", re.MULTILINE)
NOW = "The code that decides what is learnt and what it costs has not changed since."


def write(page: Path, tables: Tables) -> Path:
    """Write a page and the figures it shows, beside it.

    Raises:
        InputError: there is no such page, or a table that it is made of is damaged.
    """
    if page.name == README.name:
        return write_atomically(page, filled(page.read_text(encoding="utf-8"), tables).encode())
    if page.name not in PAGES:
        raise InputError(f"{page}: no page of that name; there are {', '.join([*PAGES, README.name])}")
    title, parts = PAGES[page.name]
    lines, figures = [], dict[str, Figure]()
    for part in parts(tables):
        if isinstance(part, str):
            lines.append(part)
        else:
            figures[part[0]] = part[1]
    commits = sorted({commit for one in tables.values() for commit in one.commits})
    text = "\n".join([f"# {title}", "", made_by(commits), "", *lines]) + "\n"
    for name, figure in figures.items():
        save_png(figure, page.parent / name)
    return write_atomically(page, text.encode())


def made_by(commits: Sequence[str], checkout: Path = SOURCE) -> str:
    """The first line of a page: which commits made its runs, and what has changed since."""
    return f"**Runs are of commit {', '.join(commits) or 'unknown'}.** {since(commits, checkout)}"


def since(commits: Sequence[str], checkout: Path = SOURCE) -> str:
    """Whether the checkout's code gives the same results as these commits, in words.

    >>> since([])
    'Which code made them is not known.'
    """
    if not commits:
        return "Which code made them is not known."
    changed = {
        name
        for commit in commits
        for name, packages in (("learning", LEARNING_CODE), ("world", WORLD_CODE))
        if _differs(commit, packages, checkout)
    }
    if not changed:
        return NOW
    said = {
        "learning": "newer code learns otherwise",
        "world": "newer code has other virtual times, bytes of cut messages and energy",
    }
    return f"STALE: {'; '.join(said[name] for name in sorted(changed))}."


def stale_line(page: str, checkout: Path = SOURCE) -> str | None:
    """What is wrong with the first line of a page; None where it says what is so."""
    found = _MADE_BY.search(page)
    if found is None:
        return "it does not name the commit of its runs"
    expected = since(found[1].split(", "), checkout)
    return None if found[2] == expected else f"it says {found[2]!r} where {expected!r} is so"


def _differs(commit: str, packages: Sequence[str], checkout: Path) -> bool:
    places = [f":(glob)fedsim/{package}/**/*.py" for package in packages]
    changed = git("diff", "--name-only", commit, "HEAD", "--", *places, checkout=checkout)
    return changed is None or bool(changed)


def tables_in(folder: Path) -> Tables:
    """Every table of results in a folder, by its file's name.

    Raises:
        InputError: one is damaged.
    """
    return {path.stem: read(path) for path in sorted(folder.glob("*.jsonl"))}


def main(arguments: list[str] | None = None) -> int:
    """Command line: the pages to write; all of them without one."""
    given = [Path(one) for one in (sys.argv[1:] if arguments is None else arguments)]

    def pages() -> str:
        tables = tables_in(RESULTS)
        return "\n".join(
            str(write(page, tables)) for page in given or [*(Path("docs") / name for name in PAGES), README]
        )

    return exit_code(pages)


if __name__ == "__main__":
    sys.exit(main())
