"""One tiny real run from its scenario to its policy, and one that is interrupted and resumed: what `make test-quick` runs."""

from __future__ import annotations

import json
import signal
from functools import partial

import pytest

from fedsim.experiment import run as experiment
from fedsim.experiment.resume import resume
from fedsim.scenario.read import scenario_from
from tests.samples.progress import AtUpdate
from tests.samples.real_runs import tiny


def test_a_tiny_real_run_that_is_interrupted_and_resumed_ends_like_one_that_was_not(tmp_path, models_cache):
    scenario = scenario_from(tiny(compute={"checkpoint_every": "0 s"}))
    whole = experiment.run(scenario, out=tmp_path / "whole", cache_dir=models_cache)
    assert (whole.manifest["status"], whole.summary["updates"]) == ("finished", 3)
    out, interrupt = tmp_path / "run", partial(signal.raise_signal, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(scenario, out=out, cache_dir=models_cache, progress=AtUpdate(2, interrupt))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    again = resume(out, cache_dir=models_cache)
    assert again.summary | {"wall_s": 0} == whole.summary | {"wall_s": 0}
    assert again.metrics.equals(whole.metrics, null_equal=True)
    policies = [
        (folder / "policy" / "model.safetensors").read_bytes() for folder in (out, tmp_path / "whole")
    ]
    assert policies[0] == policies[1]
