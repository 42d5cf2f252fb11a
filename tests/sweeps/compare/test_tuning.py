"""Choosing settings on a grid: the same values for all, judged on validation questions, listed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.cli import main
from fedsim.errors import FedsimError, ScenarioError
from fedsim.scenario.read import scenario_from
from fedsim.sweeps.compare.file import open_comparison
from fedsim.sweeps.compare.tuning import Trial, best, choose, write_tuning
from tests.samples.comparison import read_comparison
from tests.samples.real_runs import tiny

HEAD = "name: tuned\nbase: base.yaml\nseeds: [0]\n"
GRID = "tune: {seeds: [100, 101], values: [1.0e-3, 1.0e-5, 1.0e-4]}\n"
VARIANTS = """\
variants:
  - {name: rewards, tune: protocol.learning_rate}
  - {name: labels, protocol: dp_sft, tune: protocol.fit_learning_rate}
  - {name: start, protocol: zero_shot}
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(scenario_from(tiny()).to_yaml())

    def written(text):
        path = tmp_path / "tuned.yaml"
        path.write_text(text)
        return path

    return written


def trial(value, *accuracies):
    return Trial(value, tuple(range(len(accuracies))), accuracies)


# ------------------------------------------------------------------------------------- choosing


def test_the_value_with_the_highest_mean_is_chosen_and_of_equals_the_smallest():
    assert best([trial(1, 0.2, 0.4), trial(3, 0.4, 0.4), trial(10, 0.5, 0.1)]) == 3
    assert best([trial(10, 0.5, 0.3), trial(1, 0.25, 0.5), trial(3, 0.5, 0.25)]) == 10
    assert best([trial(10, 0.5, 0.25), trial(1, 0.25, 0.5), trial(3, 0.5, 0.25)]) == 1


def test_a_value_that_one_seed_did_not_measure_is_never_chosen():
    assert best([trial(1, 0.2, 0.2), trial(3, 0.9, None)]) == 1
    assert best([trial(1, None), trial(3, None)]) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6))
def test_no_value_has_a_higher_mean_than_the_chosen_one(measured):
    trials = [trial(value, *accuracies) for value, accuracies in enumerate(measured, 1)]
    chosen = next(one for one in trials if one.value == best(trials))
    assert all(one.mean <= chosen.mean for one in trials)
    assert all(one.value > chosen.value for one in trials if one.mean == chosen.mean and one is not chosen)
    assert best(trials[::-1]) == chosen.value


# ------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + VARIANTS, "there is no grid"),
        (HEAD + GRID + "variants:\n  - {name: a}\n", "a grid for no variant"),
        (HEAD + GRID.replace("[100, 101]", "[0]") + VARIANTS, "seed 0 is both tuned on and compared on"),
        (HEAD + GRID.replace("[100, 101]", "[100, 100]") + VARIANTS, "a value stands twice"),
        (HEAD + GRID.replace("1.0e-5", "1.0e-3") + VARIANTS, "a value stands twice"),
        (HEAD + GRID.replace(", 1.0e-5, 1.0e-4", "") + VARIANTS, "tune.values"),
        (HEAD + GRID.replace("1.0e-5", "-1.0e-5") + VARIANTS, ": variant rewards: protocol.learning_rate is -1e-05"),
        (HEAD + GRID + VARIANTS.replace("fit_learning", "fit_lerning"), "did you mean 'fit_learning_rate'"),
        (HEAD + GRID + VARIANTS + "  - {name: t, set: {fidelity: timing}, tune: protocol.learning_rate}\n", "fidelity timing"),
    ],
)  # fmt: skip
def test_a_grid_that_cannot_be_is_refused_before_anything_runs(write, text, words):
    with pytest.raises(ScenarioError) as error:
        read_comparison(write(text))
    assert words in str(error.value)


def test_seeds_from_the_command_line_must_not_be_tuned_on_either(write):
    with pytest.raises(ScenarioError, match="seed 101 is both"):
        read_comparison(write(HEAD + GRID + VARIANTS), (101,))


def test_every_tuned_variant_gets_the_same_values_and_seeds_and_no_run_of_the_grid_sees_test_questions(write):
    opened = open_comparison(write(HEAD + GRID + VARIANTS))
    grid = opened.grid()
    for name in ("rewards", "labels"):
        assert [(run.value, run.seed) for run in grid if run.variant == name] == [
            (value, seed) for value in (1e-3, 1e-5, 1e-4) for seed in (100, 101)
        ]
    assert {run.variant for run in grid} == {"rewards", "labels"}
    assert not any(run.scenario.evaluation.test for run in grid)
    assert [run.scenario.protocol.fit_learning_rate for run in grid[6:]] == [
        1e-3,
        1e-3,
        1e-5,
        1e-5,
        1e-4,
        1e-4,
    ]
    plain, chosen = opened.runs(), opened.runs({"labels": 1e-5})
    assert [run.value for run in chosen] == [None, 1e-5, None]
    assert chosen[1].scenario.protocol.fit_learning_rate == 1e-5
    assert [one.key == other.key for one, other in zip(plain, chosen, strict=True)] == [True, False, True]
    assert all(run.scenario.evaluation.test for run in chosen)


# ------------------------------------------------------------------------------------- what is written


def grid_summaries(grid, accuracy):
    """Summaries of the grid's runs with stated validation accuracies and nothing else, so that nothing else is read."""
    return {run.key: {"validation": {"greedy": {"final": accuracy(run)}}} for run in grid}


def test_every_value_is_listed_with_its_accuracy_and_an_edge_is_said_to_be_one(write, tmp_path):
    opened = open_comparison(write(HEAD + GRID + VARIANTS))
    grid, planned = opened.grid(), opened.runs()
    wanted = {"rewards": {1e-5: 0.1, 1e-4: 0.3, 1e-3: 0.2}, "labels": {1e-5: 0.1, 1e-4: 0.2, 1e-3: 0.4}}
    found = grid_summaries(grid, lambda run: wanted[run.variant][run.value] + 0.1 * (run.seed == 101))
    choices = choose(opened.comparison, planned, grid, found, {run.key: f"runs/{run.key}" for run in grid})
    assert [(one.variant, one.chosen, one.at_edge, one.own) for one in choices] == [
        ("rewards", 1e-4, False, 1e-3), ("labels", 1e-3, True, 5e-4),
    ]  # fmt: skip
    write_tuning(tmp_path, opened.comparison, choices)
    document = json.loads((tmp_path / "tuning.json").read_text())
    assert (document["by"], document["seeds"]) == ("validation.greedy.final", [100, 101])
    assert document["values"] == [1e-5, 1e-4, 1e-3]
    first, _, last = document["variants"]
    assert [one["validation"]["mean"] for one in first["tried"]] == pytest.approx([0.15, 0.35, 0.25])
    assert [one["seed"] for one in first["tried"][0]["runs"]] == [100, 101]
    assert last == {"name": "start", "key": None}
    lines = (tmp_path / "tuning.md").read_text().splitlines()
    assert "| rewards | protocol.learning_rate | 0.150 | **0.350** | 0.250 | 0.0001 |" in lines
    edge = "0.001, at the edge of the grid"
    assert f"| labels | protocol.fit_learning_rate | 0.150 | 0.250 | **0.450** | {edge} |" in lines
    assert lines[-1].startswith("| start | not tuned |")
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_without_any_validation_accuracy_nothing_is_chosen(write):
    opened = open_comparison(write(HEAD + GRID + VARIANTS))
    grid = opened.grid()
    found = grid_summaries(grid, lambda run: None)
    with pytest.raises(FedsimError, match="variant rewards: no run of the grid has a validation accuracy"):
        choose(opened.comparison, opened.runs(), grid, found, {run.key: "" for run in grid})


def test_tuning_needs_a_grid(write, tmp_path, capsys):
    path = write(HEAD + "variants:\n  - {name: a}\n")
    assert main(["compare", str(path), "--out", str(tmp_path / "out"), "--tune"]) == 2
    assert "there is no grid to tune by" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------- real models


@pytest.mark.slow
def test_a_tuned_comparison_of_real_models_uses_what_was_chosen_and_is_not_done_twice(
    write, tmp_path, models_cache, capsys
):
    grid = "tune: {seeds: [100], values: [1.0e-5, 1.0e-2]}\n"
    text = HEAD + grid + "variants:\n  - {name: labels, protocol: dp_sft, tune: protocol.fit_learning_rate}\n"
    out = tmp_path / "out"
    command = [
        "compare",
        str(write(text)),
        "--out",
        str(out),
        "--cache-dir",
        str(models_cache),
        "--processes",
        "2",
        "--quiet",
    ]
    assert main([*command, "--tune"]) == 0
    printed = capsys.readouterr().out
    assert "| labels | protocol.fit_learning_rate |" in printed and "(chosen on validation)" in printed
    assert printed.splitlines()[-2:] == [str(out / "figures" / "index.html"), str(out)]

    tuning = json.loads((out / "tuning.json").read_text())["variants"][0]
    for tried in tuning["tried"]:
        (run,) = tried["runs"]
        summary = json.loads((out / run["folder"] / "summary.json").read_text())
        assert summary["validation"]["greedy"]["final"] == run["validation"]
        assert summary["accuracy"]["greedy"] == {"initial": None, "final": None}
    document = json.loads((out / "comparison.json").read_text())
    (variant,) = document["variants"]
    assert variant["tuned"] == {
        "key": "protocol.fit_learning_rate", "value": tuning["chosen"], "by": "tuning",
    }  # fmt: skip
    assert variant["accuracy"]["greedy"]["final"]["mean"] is not None
    manifest = json.loads((out / document["runs"][0]["folder"] / "manifest.json").read_text())
    assert manifest["scenario"]["protocol"]["fit_learning_rate"] == tuning["chosen"]

    runs = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    assert main([*command, "--tune", "--no-figures"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")} == runs
