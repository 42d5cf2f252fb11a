"""Kills of every other kind of run; a file of its own, so that two processes share the kills."""

import pytest

from tests.experiment.replay.test_kills import lives
from tests.samples.real_runs import OTHERS


@pytest.mark.parametrize("num_places", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_every_kind_of_run_goes_on_after_a_kill(tmp_path, models_cache, num_places):
    found = lives(tmp_path, models_cache, "others", str(num_places))
    assert len(found) == num_places * len(OTHERS)
    for place, case in found.items():
        assert set(case["killed"]) == {-9}, place
        assert (case["resumed"], case["differing"]) == (0, []), place
