"""Write ``docs/learning_evidence.md`` and its figures from finished runs: schedules, losses, hostile experts, privacy.

    python -m analysis.learning --async .evidence/async --losses .evidence/losses docs/learning_evidence.md

Every number is read from folders of ``fedsim compare`` and ``fedsim stress``; a section whose folder is not given is left out,
and the page says so. Each section is a package beside it, figures beside the page as ``learning_*.png``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from matplotlib.figure import Figure

from analysis.command import exit_code
from analysis.finished import provenance, read
from analysis.hostile import section as hostile
from analysis.hostile.figure import hostile_map
from analysis.hostile.runs import read_grid
from analysis.losses import section as losses
from analysis.losses.figure import loss_figure
from analysis.privacy import section as privacy
from analysis.privacy.figure import privacy_map
from analysis.privacy.runs import read_leaks, read_promises
from analysis.schedules import section as schedules
from analysis.schedules.figure import schedule_curves
from analysis.schedules.runs import read_families
from fedsim.errors import InputError
from fedsim.figures.style import save_png
from fedsim.records.run_folder import write_atomically

Section = tuple[list[str], dict[str, tuple[Figure | None, str]]]
"""Lines, and by file name its figures with what they show."""


class _Parser(argparse.ArgumentParser):
    """One that says in one line what is wrong, like every other command here."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see python -m analysis.learning --help")


def write(given: argparse.Namespace) -> Path:
    """Write the page and its figures; nothing is written if a folder is wrong.

    Raises:
        InputError: a folder is not what its option says.
    """
    sections = [
        ("Schedules: is it worth not to wait?", "--async", given.schedules, _schedules),
        ("Losses: what each makes of the same rewards", "--losses", given.losses, _losses),
        ("Hostile experts: which fusion survives whom", "--byzantine", given.byzantine, _byzantine),
        ("Hostile experts where the only expert may be one", "--byzantine-hard", given.byzantine_hard, _hard),
        ("Privacy: promises, attacks, costs", "--privacy", given.privacy, _privacy),
    ]
    lines: list[str] = []
    figures: dict[str, Figure] = {}
    for title, option, folder, make in sections:
        lines += ["", f"## {title}", ""]
        if not folder:
            lines.append(f"Left out: no folder was given ({option}).")
            continue
        text, drawn = make(given)
        lines += text
        for name, (figure, caption) in drawn.items():
            lines += [
                "",
                f"![{caption}]({name}.png)"
                if figure
                else f"No figure: {caption[0].lower()}{caption[1:]}: nothing to draw.",
            ]
        figures |= {name: figure for name, (figure, _) in drawn.items() if figure is not None}
    lines = [*_head(provenance(lines)), *lines]
    page: Path = given.page
    for name, figure in figures.items():
        save_png(figure, page.parent / name)
    return write_atomically(page, ("\n".join(lines) + "\n").encode())


def _head(runs: str) -> Iterator[str]:
    yield "# Evidence: how the server learns"
    yield ""
    yield runs
    yield ""
    yield (
        "Written by `make evidence-learning` from finished runs of real models; no number or verdict here is typed by hand. A "
        "seed fixes models, questions, devices and their luck for all variants, so differences are paired by seed. Intervals "
        "are 95% Student-t over seeds unless said otherwise; they are not corrected for the number of comparisons. Equations "
        "and settings: [learning.md](learning.md)."
    )


def _schedules(given: argparse.Namespace) -> Section:
    tuning = list(given.tuning)
    validation: dict[str, float] = {}
    for folder in tuning:
        validation |= schedules.tuned_validation(folder)
    found = [(compared, read_families(compared, validation)) for compared in map(read, given.schedules)]
    even = [read(folder) for folder in given.even]
    figure = schedule_curves([family for _, families in found for family in families])
    caption = "Accuracy on the validation questions over virtual time and over bytes"
    return [*schedules.lines(found, tuning, even)], {"learning_async": (figure, caption)}


def _losses(given: argparse.Namespace) -> Section:
    compared = read(given.losses)
    stale = losses.read_stale(compared)
    caption = "Losses against the first, and what stale samples are worth"
    return [*losses.lines(compared, stale)], {"learning_losses": (loss_figure(compared, stale), caption)}


def _byzantine(given: argparse.Namespace) -> Section:
    return _hostile(given.byzantine, "learning_byzantine")


def _hard(given: argparse.Namespace) -> Section:
    return _hostile(given.byzantine_hard, "learning_byzantine_hard")


def _hostile(folders: Sequence[Path], name: str) -> Section:
    grid = read_grid(folders)
    return [*hostile.lines(grid)], {
        name: (hostile_map(grid), "Retained share of the oracle's gain, by attack and rule")
    }


def _privacy(given: argparse.Namespace) -> Section:
    compared = read(given.privacy)
    leaks = read_leaks(compared)
    caption = "Gain against the strongest membership attack"
    return (
        [*privacy.lines(compared, read_promises(compared), leaks)],
        {"learning_privacy": (privacy_map(compared, leaks), caption)},
    )


def _parser() -> _Parser:
    parser = _Parser(prog="python -m analysis.learning", description="Write a page from finished runs.")
    add = parser.add_argument

    def add_many(option: str, dest: str, description: str) -> None:
        add(option, dest=dest, nargs="+", type=Path, default=[], metavar="FOLDER", help=description)

    add_many("--async", "schedules", "comparisons of schedules")
    add_many("--async-tune", "tuning", "where their settings were chosen")
    add_many("--async-bytes", "even", "comparisons at equal bytes")
    add("--losses", type=Path, metavar="FOLDER", help="comparison of losses")
    add_many("--byzantine", "byzantine", "sweeps over fusion and hostile, merged")
    add_many("--byzantine-hard", "byzantine_hard", "the same where experts are scarce")
    add("--privacy", type=Path, metavar="FOLDER", help="comparison of privacy settings")
    add("--page", type=Path, required=True, metavar="PAGE", help="the page to write; figures go beside it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line: folders by section and the page."""
    return exit_code(lambda: write(_parser().parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
