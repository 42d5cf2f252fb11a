"""What the targets of the Makefile name is there: nobody runs the hours of `make evidence` to find out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("analysis", "benchmarks", "fedsim", "tests")


def recipes() -> str:
    """The Makefile with the loops of its recipes over words written out."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.sub(
        r"for (\w+) in ([\w ]+); do(.*?)done",
        lambda loop: "".join(loop[3].replace(f"$${loop[1]}", word) for word in loop[2].split()),
        text.replace("\\\n", " "),
        flags=re.S,
    )


def test_every_scenario_that_a_target_names_is_there():
    named = re.findall(r"scenarios/[^\s$]*\.yaml", recipes())
    assert {"scenarios/quickstart.yaml", "scenarios/skills.yaml"} <= set(named)
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_module_that_a_target_runs_is_there():
    named = [name for name in re.findall(r"-m ([\w.]+)", recipes()) if name.partition(".")[0] in OURS]
    assert {"analysis.results", "fedsim.scenario.docs"} < set(named)
    places = {name: ROOT / name.replace(".", "/") for name in named}
    assert [
        name
        for name, place in places.items()
        if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file()
    ] == []
