"""Kills of every other kind of run; a file of its own, so that two processes share the kills."""

import pytest
from killed_runs import OTHERS
from test_replay_kills import lives


@pytest.mark.parametrize("places", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_kind_of_run_goes_on_after_a_kill(tmp_path, places):
    found = lives(tmp_path, "others", str(places))
    assert len(found) == places * len(OTHERS)
    for place, case in found.items():
        assert set(case["killed"]) == {-9}, place
        assert (case["resumed"], case["differing"]) == (0, []), place
