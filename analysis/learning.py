"""``docs/learning_evidence.md``: schedules, losses, hostile experts, and what noise on rewards costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from analysis.results import RESULTS, Results, difference, share
from analysis.schedule_map import section
from analysis.schedule_map.figure import schedule_map
from analysis.schedule_map.tables import AXES, POINT_AXES, cells
from analysis.tables import (
    DOWN,
    END,
    GAIN,
    SEEDS,
    UP,
    Column,
    Part,
    Tables,
    head,
    made_of,
    mean_of,
    methods,
    minus,
    row,
    shown,
)

STEPS = Column("updates", lambda results, name: shown_number(results, name, "updates"))
STALE = Column("staleness", lambda results, name: shown_number(results, name, "staleness", "mean"))


def shown_number(results: Results, name: str, *path: str) -> str:
    """The mean over seeds, with two digits after the point where it has any."""
    mean = mean_of(results.values(name, *path))["mean"]
    return "" if mean is None else f"{mean:.2f}".removesuffix(".00")


def parts(tables: Tables) -> Part:
    """The page, line by line."""
    yield (
        "Written by `make pages` from the tables in `docs/results/`; no number or verdict is typed by hand. Real "
        "models of 0.25 M parameters (`scenarios/tiny.yaml`); a seed fixes models, questions, devices and their luck "
        "for all variants, so differences are paired. Intervals are 95% Student-t over seeds, not corrected for the "
        "number of comparisons. Equations and settings: [learning.md](learning.md)."
    )
    for name, file, heading, said in (
        (
            "schedules",
            "async/schedules.yaml",
            "Schedules: is it worth not to wait?",
            "Equal virtual time (40 s) in the world `middle`.",
        ),
        (
            "averaging",
            "async/averaging.yaml",
            "Averaging adapters: rounds, buffers, client-centric steps",
            "Equal virtual time (15 s).",
        ),
        (
            "losses",
            "losses.yaml",
            "Losses: what each makes of the same rewards",
            "One rate for all; DISCO and DisCO take other steps for it.",
        ),
        (
            "privacy",
            "privacy.yaml",
            "Privacy: what protection costs",
            "Attacks on these runs: [evidence.md](evidence.md).",
        ),
    ):
        results = tables.get(name)
        yield from ("", f"## {heading}", "")
        if results is None:
            yield f"Not run at this version: `scenarios/{file}`."
            continue
        first = next(iter(results.planned))
        yield from (f"{made_of(results, f'scenarios/{file}')} {said}", "")
        yield from methods(
            results, list(results.planned), SEEDS, END, GAIN, minus(first), STEPS, STALE, UP, DOWN
        )
        yield from (
            "",
            f"Told apart from {first} (the interval of the difference leaves out 0): {_apart(results, first)}.",
        )
    yield from _map(RESULTS)
    for name, file, heading in (
        ("byzantine", "byzantine/attacks.yaml", "Hostile experts: which fusion survives whom"),
        ("byzantine_hard", "byzantine/hard.yaml", "Hostile experts where the only expert may be one"),
    ):
        yield from ("", f"## {heading}", "")
        results = tables.get(name)
        if results is None:
            yield f"Not run at this version: `scenarios/{file}`."
        else:
            yield from _hostile(results, file)


def _map(folder: Path) -> Part:
    """Where stepping as rewards arrive helps, in timing fidelity, from tables with the columns that it needs."""
    table, points, long = (folder / f"async_{name}.csv" for name in ("map", "points", "map_long"))
    if not table.is_file():
        return
    extra = [path if path.is_file() else None for path in (points, long)]
    yield from ("", *section.lines(table, *extra))
    framed = {tuple(name.split("_")) for name, *_ in cells(points, POINT_AXES)} if extra[0] else set()
    yield ("async_map", schedule_map(cells(table, AXES), framed))


def _apart(results: Results, first: str) -> str:
    found = []
    for name in results.planned:
        more = difference(results.values(name, "end"), results.values(first, "end"))
        if (
            name != first
            and more["low"] is not None
            and more["high"] is not None
            and (more["low"] > 0 or more["high"] < 0)
        ):
            found.append(f"{name} ({more['mean']:+.3f})")
    return ", ".join(found) or "none"


def _hostile(results: Results, file: str) -> Iterator[str]:
    """Shares of the oracle's gain that every rule keeps under every attack; the oracle leaves the hostile clients out."""
    yield made_of(results, f"scenarios/{file}") + (
        " Two of eight clients are hostile. What can be reached: `excluded`, where the same two take no part."
    )
    yield ""
    rules = list(dict.fromkeys(name.split()[0] for name in results.planned))
    attacks = [
        one for one in dict.fromkeys(name.split()[1] for name in results.planned) if one != "excluded_2"
    ]
    yield from head("fusion", "gain, excluded", *(f"{attack}: share of it kept" for attack in attacks))
    for rule in rules:
        oracle = results.values(f"{rule} excluded_2", "gain")
        cells = [shown(share(results.values(f"{rule} {attack}", "gain"), oracle)) for attack in attacks]
        yield row([rule, shown(mean_of(oracle), signed=True), *cells])
    yield ""
    yield (
        "A share below 0: the server ends worse than it started. What this does not show: attacks "
        "that know the rule, other numbers of hostile clients."
    )
