"""Kills of every other kind of run; a file of its own, so that two processes share the kills."""

import pytest

from tests.experiment.replay.test_kills import lives
from tests.samples.real_runs import OTHERS

UNLIKE = (
    "client_centric",
    "synthetic",
    "buffer",
)  # moments of many clients; rows; trust, and questions asked again


@pytest.mark.parametrize(
    ("kinds", "num_places"), [(UNLIKE, 1), pytest.param(tuple(OTHERS), 4, marks=pytest.mark.slow)], ids=str
)
def test_every_kind_of_run_goes_on_after_a_kill(tmp_path, models_cache, kinds, num_places):
    found = lives(tmp_path, models_cache, ",".join(kinds), str(num_places))
    assert len(found) == num_places * len(kinds)
    for place, case in found.items():
        assert set(case["killed"]) == {-9}, place
        assert (case["resumed"], case["differing"]) == (0, []), place
