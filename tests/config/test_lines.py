"""Mistakes that only several keys together, or the federation, show: the line, or the override, of the key to blame."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.errors import DataFileError, ScenarioError
from fedsim.experiment import run as experiment
from fedsim.experiment.forecast.estimate import estimate
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.sweeps.worker import perform

GOOD = """\
name: tiny
fidelity: timing
stop: {updates: 1}
protocol:
  name: fedgrpo
  group_size: 4
  update: {groups_per_update: 2, in_flight: 2}
tasks:
  domains: [gcd, lcm]
  sizes: {public: 0, private: 60, auxiliary: 10, pool: 20, validation: 1, test: 1}
clients: {phone: 3, laptop: 1}
"""
LAST = len(GOOD.splitlines())
OWN_DEVICES = """\
class,peak,memory_bandwidth,memory,compute_efficiency,memory_efficiency,overhead,link
phone,1 TFLOP/s,30 GB/s,8 GB,0.5,0.5,10 ms,wifi
"""

MISTAKES = [
    ("stragglers", "{policy: deadline, deadline: 1 ms}", "protocol.stragglers.deadline is 1 ms, but no client can"),
    ("stragglers", "{policy: over_select, extra: 40}", "protocol.stragglers.policy over_select asks 2 clients and 40"),
    ("stragglers", "{policy: quorum, quorum: 3}", "protocol: stragglers.quorum is 3, but num_experts: 2 asks"),
    ("num_experts", "9", "protocol.num_experts is 9, but there are 4 clients"),
    ("correlate", "{speed: domain, of: gdc}", "correlate.of: unknown domain 'gdc'; did you mean 'gcd'"),
    ("correlate", "{availability: domain}", "correlate.availability has nothing to order: devices"),
    ("faults", "[{kind: crash, at: 1 s, clients: [99]}]", "faults.0.clients names client 99, but there are 4"),
    ("faults", "[{kind: crash, at: 1 s, classes: [tablet]}]", "faults.0.classes names 'tablet', but no client is one"),
    ("slowdowns", "[{kind: fixed, share: 1, factor: 2, classes: [tablet]}]", "slowdowns.0.classes names 'tablet', but clients"),
    ("hostile", "[{kind: lazy, clients: [9]}]", "hostile.0.clients names 9, but there are 4 clients"),
    ("hostile", "[{kind: lazy, count: 5}]", "hostile.0 wants 5 clients, but 4 of 4 are left"),
]  # fmt: skip


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    return printed.err.removeprefix("error: ").removeprefix("fedsim: ").strip()


def with_setting(key: str, value: str) -> tuple[str, int]:
    """The scenario with this setting, and the line on which it stands."""
    if key in ("stragglers", "num_experts"):
        lines = GOOD.splitlines()
        lines.insert(5, f"  {key}: {value}")
        return "\n".join(lines) + "\n", 6
    return f"{GOOD}{key}: {value}\n", LAST + 1


@pytest.mark.parametrize(("key", "value", "words"), MISTAKES)
def test_a_mistake_that_is_found_late_names_the_line_of_its_key(key, value, words, tmp_path, capsys):
    path = tmp_path / "x.yaml"
    text, line = with_setting(key, value)
    path.write_text(text)
    assert told(capsys, "check", str(path)).startswith(f"{path}:{line}: {words}")


@pytest.mark.parametrize(("key", "value", "words"), MISTAKES)
def test_one_that_was_set_on_the_command_line_names_the_override(key, value, words, tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text(GOOD)
    inside = "protocol." if key in ("stragglers", "num_experts") else ""
    assignment = f"{inside}{key}={value}"
    assert told(capsys, "check", str(path), "--set", assignment).startswith(f"--set {assignment}: {words}")


@pytest.mark.parametrize("command", ["run", "devices"])
def test_other_commands_name_the_line_too(command, tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text(f"{GOOD}correlate: {{speed: domain, of: gdc}}\n")
    err = told(capsys, command, str(path), "--out", str(tmp_path / "out"))
    assert err.startswith(f"{path}:{LAST + 1}: correlate.of: unknown domain 'gdc'")


def test_a_missing_trace_names_the_line_and_its_own_path_once(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(f"{GOOD}availability:\n  kind: trace\n  file: none.csv\n")
    with pytest.raises(DataFileError) as caught:
        estimate(read_scenario(path))
    csv = tmp_path / "none.csv"
    assert str(caught.value) == f"{path}:{LAST + 3}: {csv}: cannot be read: No such file or directory"
    with pytest.raises(DataFileError) as caught:
        experiment.run(read_scenario(path), out=tmp_path / "run")
    assert str(caught.value).startswith(f"{path}:{LAST + 3}: {csv}: cannot be read")


def test_a_class_that_only_a_file_of_devices_lacks_is_told_by_its_line(tmp_path):
    (tmp_path / "own.csv").write_text(OWN_DEVICES)
    path = tmp_path / "x.yaml"
    own = GOOD.replace("{phone: 3, laptop: 1}", "{file: own.csv}").replace("group_size: 4", "num_experts: 1")
    path.write_text(f"{own}slowdowns:\n  - {{kind: fixed, share: 1, factor: 2, classes: [tablet]}}\n")
    with pytest.raises(ScenarioError) as caught:
        estimate(read_scenario(path))
    assert str(caught.value).startswith(f"{path}:{LAST + 2}: slowdowns.0.classes names 'tablet', of which")


def test_what_a_named_world_set_is_told_as_the_worlds(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(f"{GOOD}world: severe\n")
    scenario = read_scenario(path)
    assert scenario.origin(("dropout", "per_task")).startswith("world severe (worlds.yaml:")
    assert scenario.origin(("clients", "phone")) == f"{path}:{LAST}"
    assert scenario.origin(("server",)) is None  # written nowhere


def test_where_a_scenario_was_written_makes_no_other_scenario(tmp_path):
    for name in ("x.yaml", "y.yaml"):
        (tmp_path / name).write_text(GOOD if name == "x.yaml" else f"# elsewhere\n{GOOD}")
    x, y = read_scenario(tmp_path / "x.yaml"), read_scenario(tmp_path / "y.yaml")
    assert x == y and x.resolved() == y.resolved() and x.origin(("clients",)) != y.origin(("clients",))
    assert scenario_from(x.resolved(), tmp_path) == x
    assert x.anchored().origin(("clients",)) == x.origin(("clients",))


def test_without_a_file_and_in_a_sweeps_own_files_there_is_no_line(tmp_path: Path):
    text, _ = with_setting("num_experts", "9")
    (tmp_path / "x.yaml").write_text(text)
    data = read_scenario(tmp_path / "x.yaml").resolved()
    with pytest.raises(ScenarioError, match=r"^protocol\.num_experts is 9"):
        estimate(scenario_from(data))
    report = perform({"scenario": str(tmp_path / "x.yaml"), "out": str(tmp_path / "run")})
    assert report["status"] == "refused" and report["reason"].startswith("protocol.num_experts is 9")
