from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from scipy.special import gammaincc

from fedsim.cli import main
from fedsim.config.yaml import parse
from fedsim.errors import ScenarioError
from fedsim.experiment import run as experiment
from fedsim.scenario.named_worlds import expand, world_descriptions, world_names, world_settings
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.scenario.schema import Scenario
from fedsim.sim.devices.slowdown import Slowdowns

WORLDS = ("mild", "middle", "severe")
SECTIONS = {"network", "availability", "dropout", "slowdowns"}

FILE = """\
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, update: {schedule: group, groups_per_update: 4, in_flight: 8, max_staleness: 4}}
clients: {phone: 5, laptop: 3}
"""


def tiny(world: object = None, **sections: object) -> Scenario:
    plain = parse(FILE.encode(), "tiny").data
    return scenario_from(plain | {"world": world} | sections)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(FILE + text, encoding="utf-8")
    return path


def test_worlds_are_named_from_mild_to_severe_and_described() -> None:
    assert world_names() == WORLDS
    assert all(len(text) > 20 for text in world_descriptions().values())


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_says_how_it_is_out_there_and_nothing_of_who_takes_part(name: str) -> None:
    assert world_settings(name).keys() == SECTIONS


@pytest.mark.parametrize("name", WORLDS)
def test_every_key_of_a_world_is_in_the_scenario_that_names_it(name: str) -> None:
    plain = parse(FILE.encode(), "tiny").data
    assert tiny(name) == scenario_from(plain | world_settings(name))


def test_no_world_is_the_scenario_as_it_stands() -> None:
    plain = scenario_from(parse(FILE.encode(), "tiny").data)
    assert tiny("none") == tiny(None) == plain
    assert plain.slowdowns == ()


@pytest.mark.parametrize("name", WORLDS)
def test_a_resolved_scenario_says_every_number_and_no_name(name: str) -> None:
    scenario = tiny(name)
    assert scenario.world is None
    assert "world" not in scenario.to_yaml()
    assert scenario_from(parse(scenario.to_yaml().encode(), "resolved").data) == scenario
    assert scenario_from(scenario.resolved()) == scenario


def test_a_scenarios_own_keys_win_and_the_rest_is_the_worlds() -> None:
    own = tiny("severe", dropout={"per_task": 0.0}, network={"server_link": {"up": "7 Mbit/s"}})
    severe = tiny("severe")
    assert own.dropout == severe.dropout.model_copy(update={"per_task": 0.0})
    assert own.network.server_link.up == 875_000.0
    assert own.network.server_link.down == severe.network.server_link.down
    assert (own.network.loss, own.availability) == (severe.network.loss, severe.availability)


def test_a_scenarios_own_list_of_slow_downs_replaces_the_worlds() -> None:
    assert tiny("severe", slowdowns=[]).slowdowns == ()
    (law,) = tiny("severe", slowdowns=[{"kind": "pareto", "shape": 9.0}]).slowdowns
    assert (law.kind, law.shape) == ("pareto", 9.0)  # type: ignore[union-attr]


def test_a_section_of_another_kind_is_the_scenarios_alone() -> None:
    always = {"kind": "always"}
    assert tiny("severe", availability=always).availability == tiny(availability=always).availability
    longer = tiny("severe", availability={"mean_on": "1 h"}).availability
    assert (longer.kind, longer.mean_on) == ("sessions", 3600.0)
    assert longer.mean_off == tiny("severe").availability.mean_off


def test_a_world_given_on_the_command_line_lies_under_keys_given_there_and_in_the_file(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "dropout: {per_task: 0.5}\n")
    scenario = read_scenario(path, ["world=severe", "network.loss=0.01"])
    assert (scenario.dropout.per_task, scenario.network.loss) == (0.5, 0.01)
    assert scenario.slowdowns == tiny("severe").slowdowns


def test_an_unknown_world_names_its_line_and_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "world: sever\n")
    with pytest.raises(
        ScenarioError,
        match=r"tiny\.yaml:6: world is 'sever'; must be one of none, mild, middle, severe; did you mean 'severe'\?",
    ):
        read_scenario(path)
    with pytest.raises(ScenarioError, match="world is 3; must be one of"):
        tiny(3)


def test_a_wrong_own_key_is_found_where_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path, "world: middle\navailability:\n  mean_on: 5\n")
    with pytest.raises(ScenarioError, match=r"tiny\.yaml:8: availability\.mean_on is 5, which has no unit"):
        read_scenario(path)


def test_an_unknown_key_beside_those_of_the_world_is_found_where_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path, "world: middle\nnetwork: {server_link: {up: 1 Gbit/s, sideways: 2}}\n")
    with pytest.raises(ScenarioError, match=r"tiny\.yaml:7: network\.server_link\.sideways is not a key"):
        read_scenario(path)


def test_what_the_world_filled_in_says_where_it_comes_from() -> None:
    document = parse((FILE + "world: middle\nnetwork: {loss: 0.1}\n").encode(), "tiny.yaml")
    expand(document)
    assert document.origin(("network", "loss")) == "tiny.yaml:7"
    for path in (("network", "extra_rtt"), ("dropout",), ("slowdowns", 1, "factor")):
        assert re.fullmatch(r"world middle \(worlds\.yaml:\d+\)", document.origin(path))


def test_the_command_line_lists_the_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name:6}  {text}" in shown for name, text in world_descriptions().items())


def test_a_slow_class_that_the_scenario_lacks_is_refused() -> None:
    law = {"kind": "pareto", "shape": 2.0, "classes": ["tablet"]}
    with pytest.raises(ScenarioError, match=r"slowdowns\.0\.classes names 'tablet', but clients has none"):
        tiny(slowdowns=[law])


def share_there(sessions: Any) -> float:
    """Of the time that a device takes part, how long it is there; outages apart."""
    return (
        1.0 if sessions.kind == "always" else float(sessions.mean_on / (sessions.mean_on + sessions.mean_off))
    )


def test_worlds_are_graded() -> None:
    scenarios = [tiny(name) for name in ("none", *WORLDS)]
    shares = [share_there(scenario.availability) for scenario in scenarios]
    assert shares == sorted(shares, reverse=True)
    assert min(shares) > 0.25  # a federation of eight is rarely without anybody
    for values in (
        [scenario.dropout.per_task for scenario in scenarios],
        [scenario.network.loss for scenario in scenarios],
        [scenario.network.extra_rtt for scenario in scenarios],
        [-scenario.network.server_link.up for scenario in scenarios],
        [mean_factor(scenario) for scenario in scenarios],
    ):
        assert values == sorted(values)
    assert mean_factor(scenarios[1]) == 1.0
    # middle: Pareto 3 / 2, spells 1 / (1 - 1/6 * 2/3), load 1 / .85; severe with 1 + .2 * 2 over the devices.
    assert mean_factor(scenarios[2]) == pytest.approx(1.5 / (8 / 9) / 0.85)
    assert mean_factor(scenarios[3]) == pytest.approx(1.4 * (2.5 / 1.5) / (1 - 7 / 48) / 0.75, rel=0.05)


def mean_factor(scenario: Scenario) -> float:
    """Over 4,000 devices: how many times longer tasks take in the long run."""
    source = Slowdowns(scenario.slowdowns, 0, ["phone"] * 4000)
    return math.fsum(source.mean_factor(k) for k in range(4000)) / 4000


@pytest.mark.parametrize("name", WORLDS)
def test_sessions_are_as_long_as_the_measured_ones(name: str) -> None:
    # FLASH, 710 phones: mean 1,931 s, median 138 s; a phone that is there stays 60 / 300 / 600 / 1800 s with these chances.
    sessions = tiny(name).availability
    mean_s, shape = sessions.mean_on, sessions.shape
    scale_s = mean_s / math.gamma(1 + 1 / shape)
    assert mean_s == pytest.approx(1931, rel=0.01)
    assert scale_s * math.log(2) ** (1 / shape) == pytest.approx(138, rel=0.05)
    for stay_s, chance in {60: 0.979, 300: 0.920, 600: 0.863, 1800: 0.713}.items():
        assert gammaincc(1 / shape, (stay_s / scale_s) ** shape) == pytest.approx(chance, abs=0.011)


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("per_task", [0.0, 0.9])
def test_a_world_goes_with_any_dropout(name: str, per_task: float) -> None:
    assert tiny(name, dropout={"per_task": per_task}).dropout.per_task == per_task


def test_a_run_in_a_world_repeats_itself_and_takes_longer_than_none(tmp_path: Path) -> None:
    runs = [
        experiment.run(tiny(world), out=tmp_path / folder)
        for world, folder in (("none", "none"), ("middle", "first"), ("middle", "again"))
    ]
    none, first, again = (run.summary for run in runs)
    assert first["records_sha256"] == again["records_sha256"] != none["records_sha256"]
    assert first["virtual_s"] > none["virtual_s"]
