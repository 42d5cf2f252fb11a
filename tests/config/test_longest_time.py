"""A time beyond which the clock is too coarse is refused where it is written (fedsim/config/limits.py)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from fedsim.cli import main
from fedsim.config import units
from fedsim.config.limits import MAX_VIRTUAL_S
from fedsim.errors import InputError
from fedsim.scenario.read import read_scenario
from fedsim.scenario.schema import scenario_model

KEYS = [
    ("stop", "{updates: 1, virtual: 1e15 s}", "stop.virtual"),
    ("limits.virtual", "3.2e8 d", "limits.virtual"),
    ("faults", "[{kind: crash, at: 1e12 s, for: 1 s, share: 0.5}]", "at"),
    ("protocol.stragglers", "{policy: deadline, deadline: 1e11 s}", "protocol.stragglers.deadline"),
    ("availability", "{kind: sessions, mean_on: 1e14 s, mean_off: 1 s}", "availability.mean_on"),
    ("network.extra_rtt", "9e10 s", "network.extra_rtt"),
]


def test_up_to_the_bound_the_clock_tells_two_microseconds_and_no_longer():
    below = math.nextafter(MAX_VIRTUAL_S, 0)
    assert MAX_VIRTUAL_S - below < 2e-6 < math.ulp(MAX_VIRTUAL_S)
    assert MAX_VIRTUAL_S > 4 * 1.8e9, "Unix time is within"


@pytest.mark.parametrize(("key", "value", "named"), KEYS)
def test_a_longer_time_is_refused_in_one_line_that_names_its_key(key, value, named):
    words = ["fidelity=timing", f"{key}={value}"]
    with pytest.raises(InputError) as caught:
        read_scenario("quickstart", words)
    said = str(caught.value)
    assert named in said and "must be at most 17179869184 s (544 years)" in said and "\n" not in said


def seconds_of(model: Any) -> Iterator[units.Quantity]:
    """Every quantity in seconds of a settings model."""
    todo, seen = [model], set()
    while todo:
        one = todo.pop()
        if isinstance(one, units.Quantity):
            if one.units is units._SECONDS:
                yield one
        elif isinstance(one, type) and issubclass(one, BaseModel):
            if one not in seen:
                seen.add(one)
                todo += [
                    part
                    for field in one.model_fields.values()
                    for part in (field.annotation, *field.metadata)
                ]
        else:
            todo += [*get_args(one), *getattr(one, "__metadata__", ())]


def test_every_setting_in_seconds_has_the_bound():
    found = list(seconds_of(scenario_model("fedgrpo")))
    assert found and {one.most for one in found} == {MAX_VIRTUAL_S}


def test_a_trace_with_such_an_instant_is_refused_by_its_line_and_unix_time_is_not(tmp_path, capsys):
    scenario = tmp_path / "traced.yaml"
    scenario.write_text(
        json.dumps(
            {
                "name": "traced", "fidelity": "timing", "stop": {"updates": 1}, "protocol": {"name": "fedgrpo"},
                "tasks": {"domains": ["gcd"], "sizes": {"private": 40, "auxiliary": 20, "pool": 50}},
                "clients": {"phone": 2}, "availability": {"kind": "trace", "file": "trace.csv"},
                "limits": {"virtual": "60 d"},
            }
        )
    )  # fmt: skip
    trace = tmp_path / "trace.csv"
    trace.write_text("client,start,end\n0,0,100\n1,1700000000,1700003600000\n")
    assert main(["run", str(scenario), "--out", str(tmp_path / "run"), "-q"]) == 2
    said = capsys.readouterr().err
    assert "trace.csv:3: end is '1700003600000'; must be at most 17179869184 s (544 years)" in said
    trace.write_text("client,start,end\n0,0,100\n1,1700000000,1700003600\n")
    assert main(["run", str(scenario), "--out", str(tmp_path / "run"), "-q", "--no-figures"]) == 0
