"""Stress sweeps as files (stress/file.py): points, levels, random draws, and what is refused."""

from __future__ import annotations

import math

import pytest

from fedsim.cli import main
from fedsim.errors import ScenarioError
from fedsim.scenario.read import is_sweep, shipped_comparisons, shipped_scenarios, shipped_sweeps
from fedsim.sweeps.stress.file import open_stress, points

BASE = """\
name: tiny
fidelity: timing
stop: {updates: 1}
protocol: {name: fedgrpo, group_size: 4, num_experts: 2, update: {groups_per_update: 2, in_flight: 2}}
tasks: {domains: [gcd], sizes: {public: 0, private: 60, auxiliary: 10, pool: 20, validation: 1, test: 1}}
clients: {phone: 3, laptop: 1}
"""
HEAD = "name: grid\nbase: base.yaml\nseeds: [0, 1]\n"
DROPOUT = "  dropout: {key: dropout.per_task, levels: [0, 0.25]}\n"
GROUP = "  group:\n    levels:\n      - {name: small}\n      - {name: wide, set: {protocol.group_size: 6}}\n"
GRID = HEAD + "axes:\n" + DROPOUT + GROUP


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def written(text, name="grid.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


def test_a_grid_is_the_product_of_its_axes_with_every_seed_and_the_first_axis_outermost(write):
    runs = open_stress(write(GRID)).runs()
    assert [(run.point, *run.levels.values(), run.seed) for run in runs] == [
        (0, "0", "small", 0), (0, "0", "small", 1), (1, "0", "wide", 0), (1, "0", "wide", 1),
        (2, "0.25", "small", 0), (2, "0.25", "small", 1), (3, "0.25", "wide", 0), (3, "0.25", "wide", 1),
    ]  # fmt: skip
    assert [run.scenario.dropout.per_task for run in runs] == [0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25]
    assert [run.scenario.protocol.group_size for run in runs] == [4, 4, 6, 6] * 2
    assert [run.scenario.seed for run in runs] == [0, 1] * 4
    assert len({run.key for run in runs}) == 8
    assert runs[-1].name == "dropout 0.25, group wide, seed 1"


def test_what_the_file_sets_for_every_run_gives_way_to_the_axes(write):
    shared = GRID.replace("axes:", "set: {protocol.group_size: 5, stop.updates: 3}\naxes:")
    runs = open_stress(write(shared), seeds=[7]).runs()
    assert [run.scenario.protocol.group_size for run in runs] == [5, 6, 5, 6]
    assert {run.scenario.stop.updates for run in runs} == {3}
    assert {run.seed for run in runs} == {7}


def test_one_axis_may_mix_values_with_named_levels(write):
    axis = "axes:\n  size: {key: protocol.group_size, levels: [3, {name: none}, 6]}\n"
    runs = open_stress(write(HEAD + axis), seeds=[0]).runs()
    assert [(run.levels["size"], run.scenario.protocol.group_size) for run in runs] == [
        ("3", 3),
        ("none", 4),
        ("6", 6),
    ]


RANDOM = HEAD + (
    "random: {runs: 400, seed: 3}\naxes:\n"
    "  loss: {key: network.loss, low: 0.0001, high: 0.01, scale: log}\n"
    "  rtt: {key: network.extra_rtt, low: 10, high: 30, unit: ms}\n"
    "  group: {key: protocol.group_size, low: 2, high: 9, whole: true}\n"
    "  dropout: {key: dropout.per_task, levels: [0, 0.5]}\n"
)


def test_random_points_are_uniform_on_their_scale(write):
    drawn = list(points(open_stress(write(RANDOM)).stress))
    losses = [float(point["loss"][0]) for point in drawn]
    assert len(drawn) == 400 and min(losses) >= 1e-4 and max(losses) <= 1e-2
    # log10(loss) is uniform on [-4, -2]: mean -3, standard deviation of a mean of 400 is 2/sqrt(12)/20 = .029.
    assert sum(map(math.log10, losses)) / 400 == pytest.approx(-3, abs=4 * 0.029)
    # Uniform on [10, 30]: mean 20, standard deviation of a mean of 400 is 20/sqrt(12)/20 = .29.
    assert sum(float(point["rtt"][0]) for point in drawn) / 400 == pytest.approx(20, abs=4 * 0.29)
    # A fair coin 400 times: standard deviation 10.
    assert sum(point["dropout"][0] == "0" for point in drawn) == pytest.approx(200, abs=40)
    assert {point["group"][0] for point in drawn} == set("23456789")


def test_what_is_drawn_is_what_is_run(write):
    runs = open_stress(write(RANDOM.replace("runs: 400", "runs: 6")), seeds=[0, 1]).runs()
    assert [run.point for run in runs] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for run in runs:
        assert run.scenario.network.loss == float(run.levels["loss"])
        assert run.scenario.network.extra_rtt == pytest.approx(float(run.levels["rtt"]) / 1000)
        assert run.scenario.protocol.group_size == int(run.levels["group"])
        assert run.scenario.dropout.per_task == float(run.levels["dropout"])


def test_another_axis_moves_no_drawn_value_and_another_seed_moves_them_all(write):
    def losses(text):
        return [run.levels["loss"] for run in open_stress(write(text), seeds=[0]).runs()]

    few = RANDOM.replace("runs: 400", "runs: 5")
    without = "\n".join(line for line in few.splitlines() if "extra_rtt" not in line)
    assert losses(few) == losses(without)
    assert not set(losses(few)) & set(losses(few.replace("seed: 3", "seed: 4")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "axes: {}\n", ("axes",)),
        (GRID.replace("dropout.per_task", "dropout.per_tusk"),
         ("grid.yaml:5: axes.dropout.key: dropout.per_tusk is not a key of dropout; did you mean 'per_task'",)),
        (GRID.replace("key: dropout.per_task", "key: dropout..per_task"),
         ("grid.yaml:5: axes.dropout.key is 'dropout..per_task'; must look like path.to.key",)),
        (GRID.replace("0.25]", "\n    2]"), ("grid.yaml:6: axes.dropout.levels.1: dropout.per_task is 2; must be at most 1",)),
        (GRID.replace("protocol.group_size", "protocol.grp_size"),
         ("grid.yaml:9: axes.group.levels.1.set.protocol.grp_size: protocol.grp_size is not a key",)),
        (GRID.replace("group_size: 6", "group_size: -6"),
         ("grid.yaml:9: axes.group.levels.1.set.protocol.group_size: protocol.group_size is -6",)),
        (GRID + "set:\n  dropout.spred: 1\n", ("grid.yaml:11: set.dropout.spred: dropout.spred is not a key",)),
        (RANDOM.replace("low: 10, high: 30", "low: -30, high: -20"), ("grid.yaml:7: axes.rtt: network.extra_rtt is '-",)),
        (GRID.replace("[0, 0.25]", "[0.25, 0.25]"), ("two levels have the same name",)),
        (GRID.replace("{key: dropout.per_task, levels", "{levels"), ("needs the axis's key",)),
        (GRID.replace("levels: [0, 0.25]", "low: 0, high: 1"), ("grid.yaml:5: axis dropout is a range", "random")),
        (RANDOM.replace("low: 10, high: 30", "low: 30, high: 10"), ("low below high",)),
        (RANDOM.replace("low: 0.0001", "low: 0"), ("scale log needs low above 0",)),
        (RANDOM.replace("low: 10, high: 30", "low: 10"), ("low and high must both",)),
        (RANDOM.replace("low: 10, high: 30", "low: 1, high: 3, levels: [1]"), ("either levels, or low and high",)),
        (GRID.replace("[0, 1]", "[0, 0]"), ("seed stands twice",)),
        (GRID.replace("base.yaml", "bose.yaml"), ("grid.yaml:2: base: bose.yaml: no such file",)),
        (GRID + "speeds: 3\n", ("speeds",)),
        (RANDOM.replace("runs: 400", "runs: 60000"), ("120,000 runs", "at most 100,000")),
        (BASE, ("no axes", "fedsim run")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_anything_is_written(write, tmp_path, capsys, text, words):
    assert main(["stress", str(write(text)), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert all(word in printed.err for word in words), printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "compare"])
def test_other_commands_say_which_one_takes_a_sweep(write, capsys, command):
    assert main([command, str(write(GRID))]) == 2
    assert "fedsim stress" in capsys.readouterr().err


def test_shipped_sweeps_are_neither_scenarios_nor_comparisons():
    assert "stragglers" in shipped_sweeps() and is_sweep("stragglers") and not is_sweep("quickstart")
    assert not set(shipped_sweeps()) & (set(shipped_scenarios()) | set(shipped_comparisons()))


@pytest.mark.parametrize("name", sorted(shipped_sweeps()))
def test_every_shipped_sweep_resolves(name):
    opened = open_stress(name, seeds=[0])
    runs = opened.runs()
    assert opened.path.read_text(encoding="utf-8").startswith("# ")
    assert len(runs) == opened.stress.num_runs and len({run.key for run in runs}) == len(runs)


def test_stragglers_has_five_dropout_levels_up_to_nine_tenths_four_worlds_six_policies_and_20_seeds():
    stress = open_stress("stragglers").stress
    assert {name: len(axis.names) for name, axis in stress.axes.items()} == {
        "dropout": 5,
        "world": 4,
        "policy": 6,
    }
    assert stress.axes["dropout"].names[-1] == "0.9" and len(stress.seeds) >= 20


def test_a_missing_file_names_what_is_shipped():
    with pytest.raises(ScenarioError, match="no such file"):
        open_stress("straglers-of-another-day.yaml")
