"""Whatever validates must run, and whatever is wrong must be told in one line: whole scenarios (``make fuzz`` for more)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsim import protocols
from fedsim.config.yaml import to_yaml
from tests.end_to_end.fuzzing import examined
from tests.end_to_end.scenario_strategies import scenarios, spoiled

CASES = sorted((Path(__file__).parent / "fuzz_cases").glob("*.yaml"))

fixed = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_scenario_that_once_broke_something_does_so_no_more(case: Path) -> None:
    examined(case.read_text(encoding="utf-8"))


@pytest.mark.parametrize("protocol", protocols.names())
def test_whatever_validates_runs_within_its_steps_and_balances_its_books(protocol: str) -> None:
    @settings(fixed, max_examples=5)
    @given(scenarios(protocol))
    def runs(data: dict[str, Any]) -> None:
        examined(to_yaml(data))

    runs()


@settings(fixed, max_examples=60)
@given(st.sampled_from(protocols.names()).flatmap(spoiled))
def test_what_does_not_belong_where_it_is_written_is_refused_in_one_line_or_runs(
    data: dict[str, Any],
) -> None:
    examined(to_yaml(data))
