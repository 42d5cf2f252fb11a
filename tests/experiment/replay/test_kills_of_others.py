"""Kills of every other kind of run; a file of its own, so that two processes share the kills."""

from tests.experiment.replay.killed_runs import OTHERS
from tests.experiment.replay.test_kills import lives


def test_every_kind_of_run_goes_on_after_a_kill(tmp_path, models_cache):
    found = lives(tmp_path, models_cache, "others", "2")
    assert len(found) == 2 * len(OTHERS)
    for place, case in found.items():
        assert set(case["killed"]) == {-9}, place
        assert (case["resumed"], case["differing"]) == (0, []), place
