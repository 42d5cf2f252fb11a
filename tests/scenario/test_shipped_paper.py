"""The paper's figure 2, from records of timing runs: architecture configs and protocol settings alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsim.experiment import run as experiment
from fedsim.records.run import Run
from fedsim.scenario.read import shipped_comparisons
from tests.samples.comparison import read_comparison

MIB = 2**20
FEDPETUNING_MIB = {"1.5b": 665.6, "3b": 2249.6, "7b": 6160.2}
PARAMETERS_PER_RANK = {"1.5b": 136_192, "3b": 230_400, "7b": 315_392}
RANK = {"1.5b": 8, "3b": 16, "7b": 32}


PARTS = pytest.mark.parametrize("parts", [10, pytest.param(1, marks=pytest.mark.slow)])
"""One of so many equal parts of a training, which must move that part of the published bytes; slow: all of it."""


def run(variant: str, folder: Path, parts: int = 1) -> Run:
    planned = {run.variant: run for run in read_comparison("paper/figure2")[1]}
    scenario = planned[variant].scenario
    stop = scenario.stop.model_copy(update={"updates": scenario.stop.updates // parts})
    return experiment.run(scenario.model_copy(update={"stop": stop}), out=folder)


def paper_uplink(found: Run) -> int:
    return int(found.transfers["paper_bytes"].sum())


@PARTS
@pytest.mark.parametrize("size", list(FEDPETUNING_MIB))
def test_fedpetuning_moves_what_the_paper_published(size: str, parts: int, tmp_path: Path) -> None:
    found = run(f"fedpetuning-{size}", tmp_path / "run", parts)
    up = found.transfers.filter(found.transfers["direction"] == "up")
    assert len(up) * parts == 320
    assert paper_uplink(found) * parts == 320 * 2 * RANK[size] * PARAMETERS_PER_RANK[size]
    assert paper_uplink(found) * parts / MIB == pytest.approx(FEDPETUNING_MIB[size], rel=0.01)
    # The wire's account has what the figure leaves out: the way down, and every header.
    assert found.summary["bytes"]["wire"]["downlink"] > paper_uplink(found)


@PARTS
def test_fedgrpo_sends_rewards_as_published_and_candidates_that_the_figure_leaves_out(
    parts: int, tmp_path: Path
) -> None:
    """2,000 questions x 8 candidates x 20 clients x 8 bytes = 2.44 MiB up; the texts going down are 200 times that."""
    found = run("fedgrpo-7b", tmp_path / "run", parts)
    assert paper_uplink(found) * parts == 2_000 * 8 * 20 * 8
    assert paper_uplink(found) * parts / MIB == pytest.approx(2.44, rel=0.01)
    assert found.summary["bytes"]["wire"]["downlink"] > 200 * paper_uplink(found)
    assert found.summary["leaves"] == ["scalars"]
    assert "Qwen2.5-Math-7B" in found.summary["billed"]


@PARTS
def test_two_experts_cost_a_tenth_of_twenty(parts: int, tmp_path: Path) -> None:
    found = run("fedgrpo-1.5b-m2", tmp_path / "run", parts)
    rewards = found.transfers.filter(found.transfers["purpose"] == "reward")
    assert int(rewards["paper_bytes"].sum()) * parts == 2_000 * 8 * 2 * 8


def test_the_fitted_setting_of_dpsda_fl_gives_the_published_number(tmp_path: Path) -> None:
    found = run("dpsda_fl-1.5b", tmp_path / "run")
    assert paper_uplink(found) == 20 * 2_000 * 672 * 4
    assert paper_uplink(found) / MIB == pytest.approx(102.5, rel=0.01)


@pytest.mark.parametrize("name", sorted(name for name in shipped_comparisons() if name.startswith("paper/")))
def test_a_paper_scenario_names_its_source_and_every_run_of_it_is_valid(name: str) -> None:
    text = shipped_comparisons()[name].read_text(encoding="utf-8")
    head = text[: text.index("name:")]
    assert "# Source: " in head and ("arXiv 2602.12014" in head or "ours" in head)
    assert "Same" in head or "Smaller" in head or "Timing" in head
    comparison, planned = read_comparison(name)
    assert comparison.name == name.replace("/", "-")
    assert len(planned) == len(comparison.seeds) * len(comparison.variants)
    assert len({run.key for run in planned}) == len(planned)  # no variant says what another says
