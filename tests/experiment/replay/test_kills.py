"""A run that is killed and resumed ends like one that was not: records, summary, metrics and policy, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def lives(folder: Path, cache: Path, *arguments: str) -> dict[str, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiment.replay.killed_runs", str(folder), str(cache), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("places", ["unlike", pytest.param("more", marks=pytest.mark.slow)])
def test_a_run_killed_at_any_place_of_its_tape_ends_like_one_that_was_not(tmp_path, models_cache, places):
    found = lives(tmp_path, models_cache, places)
    assert len(found) == 5
    for place, case in found.items():
        assert set(case["killed"]) == {-9}, place  # every life was really ended where it should be
        assert (case["resumed"], case["differing"]) == (0, []), place


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_quick_start_killed_at_twenty_places_ends_like_one_that_was_not(tmp_path, models_cache):
    import fedsim

    settings = [
        "faults=[{kind: crash, hazard: 180 /h, for: 2 s}, {kind: wrong_length, probability: 0.01}]",
        "compute.checkpoint_every=2 s",
    ]
    file = tmp_path / "quickstart.yaml"
    file.write_text(fedsim.read_scenario("quickstart", settings).to_yaml())
    found = lives(tmp_path, models_cache, str(file), "20")
    assert len(found) == 20
    for place, case in found.items():
        assert set(case["killed"]) == {-9}, place
        assert (case["resumed"], case["differing"]) == (0, []), place
