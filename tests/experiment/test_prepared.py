"""The parts of a run that need no model and no clock: made once, handed on, and made anew where settings differ."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fedsim.errors import ScenarioError
from fedsim.experiment import run as experiment
from fedsim.experiment.checks import refuse_early
from fedsim.scenario.read import scenario_from
from fedsim.scenario.schema import Scenario

PARTS = (
    "drawn",
    "devices",
    "data",
    "presence_scores",
    "availability",
    "edges",
    "handlers",
    "faults",
    "roles",
)


def scenario(**keys: Any) -> Scenario:
    """A federation with every part: a deadline, edges, faults, hostile experts, devices dealt by what clients own."""
    data: dict[str, Any] = {
        "name": "prepared",
        "fidelity": "timing",
        "stop": {"updates": 2},
        "protocol": {
            "name": "fedgrpo",
            "num_experts": 2,
            "stragglers": {"policy": "deadline", "deadline": "1 min"},
        },
        "tasks": {"domains": ["gcd"], "sizes": {"private": 60, "auxiliary": 20, "pool": 60}},
        "clients": {"phone": 3, "laptop": 3},
        "network": {"edges": {"mast": {"up": "1 Mbit/s", "down": "unlimited", "clients": [2]}}},
        "availability": {"kind": "sessions", "mean_on": "3 h", "mean_off": "1 min", "spread": 1.0},
        "correlate": {"speed": "data_size", "availability": "data_size"},
        "faults": [{"kind": "slow_link", "factor": 0.5, "at": "1 s", "for": "1 s"}],
        "hostile": [{"kind": "random", "count": 1}],
    }
    return scenario_from({**data, **keys})


def test_every_part_is_made_once_and_kept() -> None:
    prepared = refuse_early(scenario())
    assert all(getattr(prepared, part) is getattr(prepared, part) for part in PARTS)
    assert prepared.num_clients == len(prepared.devices) == 6


MAKERS = {
    "draw": "population.py",
    "availability": "availability.py",
    "edge_tree": "edges.py",
    "roles_of": "hostile.py",
    "deal_devices": "correlate.py",
    "presence_scores": "correlate.py",
    "_task_data": "tasks.py",
    "spec_without_weights": "billed.py",
}


def test_a_run_makes_its_devices_questions_availability_and_edges_once(tmp_path: Path) -> None:
    made: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.endswith(f"/{MAKERS.get(code.co_name, '-')}"):
            made[code.co_name] += 1

    settings = scenario(seed=31)  # questions of another seed are not kept from a test before
    sys.setprofile(count)
    try:
        experiment.run(settings, out=tmp_path / "run")
    finally:
        sys.setprofile(None)
    once = {name: made[name] for name in MAKERS if name not in ("roles_of", "spec_without_weights")}
    assert once == dict.fromkeys(once, 1)
    # The rehearsal of the deadline leaves hostile experts out, and weighs its own stand-ins.
    assert made["roles_of"] <= 2


def test_other_settings_keep_the_parts_that_do_not_depend_on_them() -> None:
    prepared = refuse_early(scenario())
    honest = prepared.varied(faults=(), hostile=(), fidelity="timing")
    shared = ("drawn", "devices", "data", "presence_scores", "availability", "edges", "handlers")
    assert all(getattr(honest, part) is getattr(prepared, part) for part in shared)
    assert honest.faults is None and not honest.roles
    assert prepared.faults is not None and prepared.roles


def test_other_settings_make_the_parts_that_depend_on_them_anew() -> None:
    prepared = refuse_early(scenario())
    undealt = prepared.varied(correlate=None)
    assert undealt.drawn is prepared.drawn
    assert undealt.devices is prepared.drawn and undealt.presence_scores is None
    assert undealt.availability is not prepared.availability
    assert prepared.varied(fidelity="real").devices is prepared.devices
    assert "data" not in vars(prepared.varied(fidelity="real"))
    assert "data" in vars(prepared.varied(fidelity="timing"))


def test_a_part_that_cannot_be_is_refused_by_the_checks_and_not_by_the_run() -> None:
    elsewhere = {"mast": {"up": "1 Mbit/s", "down": "unlimited", "clients": [6]}}
    with pytest.raises(ScenarioError, match="6"):
        refuse_early(scenario(network={"edges": elsewhere}))
    with pytest.raises(ScenarioError, match=r"faults\.0"):
        refuse_early(scenario(faults=[{"kind": "crash", "clients": [9], "at": "1 s"}]))
