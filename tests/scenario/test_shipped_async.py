"""The comparisons of schedules resolve, and what they hold fixed is fixed (scenarios/async/)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.samples.comparison import read_comparison

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.mark.parametrize("name", ["async/schedules", "async/averaging"])
def test_every_run_is_another_one_in_the_world_middle(name):
    comparison, planned = read_comparison(SCENARIOS / f"{name}.yaml", seeds=[0])
    assert len({run.key for run in planned}) == len(planned) == len(comparison.variants)
    for run in planned:
        assert run.scenario.dropout.per_task == 0.08  # the world's, not the tiny job's
        assert run.scenario.network.extra_rtt == 0.06


def test_all_schedules_of_rewards_have_the_same_limit_of_questions_and_the_same_virtual_time():
    _, planned = read_comparison(SCENARIOS / "async/schedules.yaml", seeds=[0])
    updates = [run.scenario.protocol.update for run in planned if run.scenario.protocol.name == "fedgrpo"]
    assert {update.most_asked for update in updates} == {48}
    assert {update.schedule for update in updates} == {"barrier", "group", "buffer"}
    assert {run.scenario.stop.virtual for run in planned} == {40.0}
