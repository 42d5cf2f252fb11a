from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedsim
from fedsim import protocols
from fedsim.config.strict import StrictModel
from fedsim.config.yaml import parse
from fedsim.errors import ScenarioError
from fedsim.protocols import zero_shot
from fedsim.scenario.read import (
    find_scenario,
    is_comparison,
    read_scenario,
    scenario_from,
    shipped_comparisons,
    shipped_scenarios,
)
from fedsim.scenario.schema import Scenario

REPOSITORY = Path(__file__).parents[2]


def plain(**sections: object) -> dict[str, object]:
    """The smallest scenario, with some sections replaced or added."""
    return {
        "name": "tiny",
        "stop": {"updates": 3},
        "protocol": {"name": "fedgrpo"},
        "clients": {"phone": 2},
    } | sections


def read_back(scenario: Scenario) -> Scenario:
    return scenario_from(parse(scenario.to_yaml().encode(), "resolved.yaml").data)


def test_the_smallest_scenario_gets_every_default() -> None:
    scenario = scenario_from(plain())
    assert (scenario.seed, scenario.fidelity, scenario.compute.threads) == (0, "real", 1)
    assert scenario.availability.kind == "always"
    assert scenario.protocol.group_size == 8
    assert scenario.limits.virtual == 30 * 86_400


def settings_models() -> list[type[StrictModel]]:
    """Every settings model that a scenario may hold, from the bottom up."""
    for name in protocols.PROTOCOLS:
        protocols.load(name)
    found: list[type[StrictModel]] = []
    waiting = [StrictModel]
    while waiting:
        found += (children := waiting.pop().__subclasses__())
        waiting += children
    return found


def test_defaults_that_were_not_validated_are_what_validation_makes_of_nothing() -> None:
    defaults = {
        (model.__name__, key): info.default
        for model in settings_models()
        for key, info in model.model_fields.items()
        if isinstance(info.default, StrictModel) and not info.default.model_fields_set
    }
    assert ("Scenario", "network") in defaults
    for place, default in defaults.items():
        validated = type(default).model_validate({})
        assert default == validated, place
        assert repr(default) == repr(validated), place
        assert not validated.model_fields_set, place


def test_lists_become_tuples_and_units_become_base_units() -> None:
    scenario = scenario_from(
        plain(tasks={"domains": ["gcd", "lcm"]}, stop={"virtual": "2 h", "wire_bytes": "1.5 MiB"})
    )
    assert scenario.tasks.domains == ("gcd", "lcm")
    assert scenario.stop.virtual == 7200.0
    assert scenario.stop.wire_bytes == 1_572_864.0


def test_a_protocol_may_be_named_in_short() -> None:
    short = scenario_from(plain(protocol="zero_shot"))
    assert isinstance(short.protocol, zero_shot.Config)
    assert short == scenario_from(plain(protocol={"name": "zero_shot"}))


def test_a_preset_may_be_counted_or_overridden() -> None:
    scenario = scenario_from(plain(clients={"phone": 4, "laptop": {"count": 3, "up": "5 Mbit/s"}}))
    assert scenario.clients.classes["phone"].count == 4
    assert scenario.clients.classes["laptop"].up == 625_000.0
    assert scenario.clients.classes["laptop"].down is None


def test_a_scenario_cannot_be_changed_afterwards() -> None:
    scenario = scenario_from(plain())
    with pytest.raises(ValueError, match="frozen"):
        scenario.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_a_shipped_scenario_is_valid_and_survives_being_resolved(name: str) -> None:
    scenario = read_scenario(name)
    assert scenario.name == name.replace("/", "-")
    assert read_back(scenario).resolved() == scenario.resolved()
    assert scenario_from(scenario.resolved()).resolved() == scenario.resolved()


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
def test_a_shipped_scenario_opens_with_a_comment_that_says_what_it_is_for(name: str) -> None:
    assert find_scenario(name).read_text().startswith("# ")


def test_a_null_in_place_of_a_default_is_written_out() -> None:
    disco = {"name": "fedgrpo", "loss": "disco_constrained", "grouping": "candidates", "disco": {"tau": None}}
    scenario = scenario_from(plain(protocol=disco))
    assert "tau: null" in scenario.to_yaml() and "quorum" not in scenario.to_yaml()
    assert read_back(scenario).protocol.disco.tau is None


ALTERNATING = {
    "sessions": {"availability": {"kind": "sessions", "mean_on": "{s} ms", "mean_off": "{s} ms"}},
    "outages": {
        "availability": {"kind": "always", "outage": {"mean_between": "{s} ms", "mean_length": "{s} ms"}}
    },
    "slow spells": {
        "slowdowns": [{"kind": "on_off", "factor": 2, "mean_fast": "{s} ms", "mean_slow": "{s} ms"}]
    },
    "faults": {"faults": [{"kind": "crash", "hazard": "1e9 /s", "for": "{twice} ms"}]},
}


@pytest.mark.parametrize("sections", ALTERNATING.values(), ids=ALTERNATING)
def test_what_would_come_and_go_a_million_times_a_day_is_refused(sections: dict[str, Any]) -> None:
    def written(half_ms: float) -> dict[str, Any]:
        text = json.dumps(sections).replace("{s}", str(half_ms)).replace("{twice}", str(2 * half_ms))
        return dict(json.loads(text))

    with pytest.raises(ScenarioError, match=r"come to 0\.4.* s together; must be at least 1 s$"):
        scenario_from(plain(**written(200)))
    assert scenario_from(plain(**written(500))).name == "tiny"


def quantities(numbers: st.SearchStrategy[float], *units: str) -> st.SearchStrategy[str]:
    return st.builds("{} {}".format, numbers, st.sampled_from(units))


durations = quantities(st.floats(1e-6, 1e5), "us", "ms", "s", "min", "h", "d")
rates = quantities(st.floats(1e-3, 1e6), "bit/s", "kbit/s", "MB/s", "Gbit/s", "MiB/s")
sizes = quantities(st.integers(1, 10**9), "B", "kB", "MiB", "GiB")


@settings(max_examples=50, deadline=None)
@given(duration=durations, up=rates, size=sizes)
def test_a_quantity_keeps_every_bit_when_the_scenario_is_written_and_read_again(
    duration: str, up: str, size: str
) -> None:
    scenario = scenario_from(
        plain(
            stop={"virtual": duration, "wire_bytes": size},
            network={"server_link": {"up": up, "down": "unlimited"}},
            clients={"phone": {"count": 1, "rtt": duration, "up": up}},
        )
    )
    assert read_back(scenario) == scenario


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**53 - 1))
def test_a_seed_option_replaces_the_seed_and_nothing_else(seed: int) -> None:
    changed = read_scenario("quickstart", seed=seed).resolved()
    assert changed == read_scenario("quickstart").resolved() | {"seed": seed}


def test_later_overrides_win(tmp_path: Path) -> None:
    scenario = read_scenario("quickstart", ["protocol.group_size=4", "protocol.group_size=6"])
    assert scenario.protocol.group_size == 6


def test_an_override_may_replace_a_whole_section() -> None:
    scenario = read_scenario("quickstart", ["clients={workstation: 2}", "availability={kind: always}"])
    assert list(scenario.clients.classes) == ["workstation"]
    assert scenario.availability.kind == "always"


def test_relative_paths_start_at_the_scenario_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nstop: {updates: 1}\nprotocol: zero_shot\nclients: {file: devices.csv}\n")
    assert read_scenario(path).folder == tmp_path


def test_a_missing_file_names_the_nearest_shipped_scenario() -> None:
    with pytest.raises(ScenarioError) as caught:
        find_scenario("quickstrat")
    assert str(caught.value).startswith("quickstrat: no such file; did you mean 'quickstart'? (shipped: ")


def test_shipped_files_in_sub_folders_are_named_with_their_folder() -> None:
    found = find_scenario("paper/figure2")
    assert found.parts[-3:] == ("scenarios", "paper", "figure2.yaml")
    assert {"paper/figure2", "paper/table1"} <= set(shipped_comparisons())
    assert "figure2" not in shipped_comparisons()
    with pytest.raises(ScenarioError, match="did you mean 'paper/figure2'"):
        find_scenario("paper/figur2")


@pytest.mark.parametrize("first", ["async/schedules", "byzantine/attacks", "dropout/cost"])
def test_the_bare_name_of_a_folder_of_shipped_files_means_its_first_file(first: str) -> None:
    assert find_scenario(first.partition("/")[0]) == find_scenario(first)


def test_what_is_a_comparison_is_told_without_reading_it_as_one(tmp_path: Path) -> None:
    assert is_comparison("evidence") and not is_comparison("quickstart")
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: \xff\nvariants: [\n")
    assert is_comparison(path)  # what is wrong in it is told, with its line, by whoever reads it


def test_a_folder_is_not_a_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="is a folder; give a scenario file"):
        find_scenario(tmp_path)


def test_a_comparison_is_not_mistaken_for_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nbase: quickstart\nvariants: [{name: a}]\n")
    with pytest.raises(ScenarioError, match="is a comparison of several runs; give it to fedsim compare"):
        read_scenario(path)
    assert not set(shipped_comparisons()) & set(shipped_scenarios())


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(ScenarioError, match=r"x\.yaml:1: not UTF-8 text"):
        read_scenario(path)


def test_an_installed_package_can_bring_its_own_protocol(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "from pydantic import Field\n"
        "from fedsim.config.strict import StrictModel\n"
        "class Config(StrictModel):\n"
        '    knob: int = Field(3, description="a knob (count)")\n'
        "HANDLERS = {}\n"
        "async def run(federation, config, state): pass\n"
    )
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedsim.protocols]\ntheirs = theirs\n")
    code = (
        "from fedsim.scenario.read import read_scenario\n"
        "s = read_scenario('quickstart', ['protocol={name: theirs, knob: 5}'])\n"
        "print(s.protocol.name, s.protocol.knob, s.resolved()['protocol'])\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout == "theirs 5 {'knob': 5, 'name': 'theirs'}\n"


def test_the_package_offers_its_functions_by_name() -> None:
    assert fedsim.read_scenario is read_scenario
    assert {"run", "load", "__version__"} <= set(dir(fedsim))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fedsim.nothing
