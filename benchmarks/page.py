"""Write docs/benchmarks.md from what the benchmarks of ``make bench`` have kept in ``.bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ledger import KEPT, Claim, number, verdict, wanted

HEAD = """# Benchmarks

`make bench` measures these and writes this page. A ratio (`x`) is of two things that were timed in turn in one process or one
run; its row shows the middle one. Absolute figures hold for the machine that is named below the table.
"""


def page(folder: Path) -> str:
    """The page, from every benchmark's file in a folder, in the order of their names."""
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return "\n".join([HEAD, *(line for found in kept for line in _section(found))])


def _section(found: dict[str, Any]) -> Iterator[str]:
    yield f"## {found['title']}"
    yield ""
    yield "| what | measured | wanted | | how |"
    yield "|---|---|---|---|---|"
    for kept in found["claims"]:
        claim = Claim(**kept)
        cells = (claim.what, number(claim.value, claim.unit), wanted(claim), verdict(claim), claim.note)
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    yield ""
    for label, text in found["facts"].items():
        yield f"**{label}.** {text}"
        yield ""
    machine = found["machine"]
    yield (
        f"`bench_{found['name']}.py`, {found['date']}, commit {machine['commit']}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}; load at its end {machine['load']}."
    )
    yield ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(KEPT))
