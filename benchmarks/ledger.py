"""What a benchmark found: claims with their bounds, printed and kept for docs/benchmarks.md.

A benchmark is a file ``bench_*.py`` that measures, makes ``Claim``s and ends with ``raise SystemExit(report(...))``. It exits 0
also where a bound is not met, because a busy machine is no defect of the code; a wrong result (an event count, a value that
differs from the simple twin's) raises, and stops ``make bench``.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from fedsim.records.provenance import platform_facts, versions

KEPT = Path(__file__).resolve().parent.parent / ".bench"


@dataclass(frozen=True, slots=True)
class Claim:
    """One number that was measured, and what it must be.

    Attributes:
        what: the quantity, in a few words.
        value: what was measured.
        bound: what it must reach or keep; None: shown for the reader, promised to nobody.
        sense: whether the value must be at least or at most the bound.
        unit: of both, e.g. ``requests/s`` or ``x`` (a ratio of two things timed in this run).
        note: how it was measured, or its spread.
    """

    what: str
    value: float
    bound: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    unit: str = "x"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the bound holds; None where there is none."""
        if self.bound is None:
            return None
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


@dataclass(frozen=True, slots=True)
class Paired:
    """Two things timed in turn, several times: seconds of each, and the ratio of each pair ``[R]``."""

    first_s: tuple[float, ...]
    second_s: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Seconds of the first over seconds of the second, pair by pair."""
        return tuple(a / b for a, b in zip(self.first_s, self.second_s, strict=True))

    @property
    def ratio(self) -> float:
        """The middle one of the ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> str:
        """All of the ratios, for a note."""
        if len(self.ratios) == 1:
            return "1 pair"
        return f"{len(self.ratios)} pairs, {min(self.ratios):.2f} to {max(self.ratios):.2f}"


def paired(first: Callable[[], object], second: Callable[[], object], *, rounds: int = 5) -> Paired:
    """Time two things in turn, the order swapped from round to round, so that a drift of the machine strikes both.

    Both are run once before, untimed.
    """
    first(), second()
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_index in range(rounds):
        for which in (0, 1) if round_index % 2 == 0 else (1, 0):
            seconds[which].append(wall_s((first, second)[which]))
    return Paired(tuple(seconds[0]), tuple(seconds[1]))


def wall_s(action: Callable[[], object]) -> float:
    """Seconds that an action takes, garbage of what was before not included."""
    gc.collect()
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def report(name: str, title: str, claims: Sequence[Claim], facts: Mapping[str, str] | None = None) -> int:
    """Print a benchmark's table and keep it as ``.bench/<name>.json`` for the page.

    Args:
        name: of the file, without ``bench_`` and ``.py``.
        title: of its section.
        claims: its rows.
        facts: paragraphs below the table, by their first words, e.g. where the time goes.

    Returns:
        0, for ``raise SystemExit(...)``.
    """
    table = Table(title=title, title_justify="left")
    for column in ("what", "measured", "wanted", ""):
        table.add_column(column, overflow="fold")
    for claim in claims:
        table.add_row(claim.what, number(claim.value, claim.unit), wanted(claim), verdict(claim))
    console = Console(width=140)
    console.print(table)
    for label, text in (facts or {}).items():
        console.print(f"{label}: {text}", highlight=False)
    KEPT.mkdir(exist_ok=True)
    kept = {
        "name": name,
        "title": title,
        "claims": [asdict(claim) for claim in claims],
        "facts": dict(facts or {}),
        "machine": machine(),
        "date": date.today().isoformat(),
    }
    (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    return 0


def number(value: float, unit: str) -> str:
    """A number with its unit, to three digits or to the whole."""
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def wanted(claim: Claim) -> str:
    """The bound of a claim in words, blank where there is none."""
    return "" if claim.bound is None else f"{claim.sense} {number(claim.bound, claim.unit)}"


def verdict(claim: Claim) -> str:
    """``met``, ``NOT met`` or blank."""
    return {True: "met", False: "NOT met", None: ""}[claim.met]


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    known = platform_facts()
    return {
        "cpu": known["cpu"],
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": versions()["torch"],
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": _commit(),
    }


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=KEPT.parent,
    )
    return asked.stdout.strip() or "unknown"
