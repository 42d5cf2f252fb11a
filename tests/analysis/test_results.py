"""Tables of finished runs (analysis/results.py): what is kept of a real run, and numbers worked by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from analysis.results import PLAN, Results, Run, difference, halves, read, share, write
from fedsim.errors import RunFolderError
from fedsim.sweeps.compare.file import open_comparison
from fedsim.sweeps.worker import perform

ROOT = Path(__file__).resolve().parents[2]


def run(name="fedgrpo", seed=0, start=0.2, end=0.5, **keys):
    """A run of a table, with what the pages read."""
    summary = {
        "accuracy": {"greedy": {"initial": start, "final": end}, "by_domain": {"gcd": {"initial": start, "final": end}}},
        "validation": {"greedy": {"initial": start, "final": end}},
        "looks": {"reworded": {"greedy": {"initial": 0.1, "final": 0.3}}},
        "bytes": {"wire": {"uplink": 2**20, "downlink": 2**21}, "paper": {"uplink": 2**10}},
        "leaves": ["scalars"], "requests": {"total": 100}, "virtual_s": 10.0, "updates": 20, "wall_s": 30.0,
        "staleness": {"mean": 1.0},
    }  # fmt: skip
    rewards = {"wanted": 100, "came": 80, "used": 70, "asked": 100, "lost": {"dropout": 20}}
    given = {
        "commit": "aaaaaaaaaa",
        "looks": {},
        "rewards": rewards,
        "summary": summary,
    } | keys
    return Run(name=name, seed=seed, **given)


def results(*runs, planned=None):
    """A table of these runs."""
    seeds: dict[str, list[int]] = {}
    for one in runs:
        seeds.setdefault(one.name, []).append(one.seed)
    return Results("job", planned or seeds, {}, {}, runs)


def test_a_share_of_a_gain_is_a_ratio_of_means_over_the_seeds_that_both_have():
    ours, theirs = {0: 0.1, 1: 0.2, 2: 0.3, 9: 5.0}, {0: 0.2, 1: 0.2, 2: 0.4, 8: 7.0}
    found = share(ours, theirs)
    assert found["mean"] == pytest.approx(0.6 / 0.8) and found["n"] == 3
    # Pseudo-values 3 r - 2 r_(i): r_(i) without each seed are .5/.6, .4/.6 and .3/.4.
    pseudo = [3 * 0.75 - 2 * one for one in (0.5 / 0.6, 0.4 / 0.6, 0.3 / 0.4)]
    spread = (sum((one - sum(pseudo) / 3) ** 2 for one in pseudo) / 2) ** 0.5
    assert found["high"] - found["mean"] == pytest.approx(4.302653 * spread / 3**0.5, rel=1e-6)
    assert share(ours, {0: -1.0, 1: 0.5})["mean"] is None, "there is no gain to share"
    assert share({0: 0.1, 1: 0.2}, {0: 0.2, 1: 0.2})["low"] is None, "two seeds have no interval of a ratio"


def test_differences_are_paired_by_seed_whatever_the_order():
    assert difference({2: 0.5, 0: 0.1}, {0: 0.0, 1: 9.0, 2: 0.3})["mean"] == pytest.approx(0.15)


def test_halves_are_gains_apart_and_what_the_bits_alone_would_give():
    planted = {
        "start_corrupted": 0.1, "end_corrupted": 0.5, "start_clean": 0.6, "end_clean": 0.5, "end": 0.5, "planted_bits": 0.55,
    }  # fmt: skip
    found = halves(results(run(planted=planted), run(seed=1)), "fedgrpo")
    assert found["corrupted"] == {0: pytest.approx(0.4)}
    assert found["clean"] == {0: pytest.approx(-0.1)}
    assert found["bits"] == {0: pytest.approx(-0.05)}
    assert halves(results(run(seed=1)), "fedgrpo") == {}


def test_the_table_of_a_comparison_holds_what_its_run_folders_say_and_what_is_missing(tmp_path, models_cache):
    """Two runs in timing fidelity are planned and one is made: nothing of what was not measured is invented."""
    (tmp_path / "two.yaml").write_text(
        f"name: two\nbase: {ROOT / 'scenarios/tiny.yaml'}\nseeds: [0, 1]\nset: {{fidelity: timing, stop: {{updates: 2}}}}\n"
        "variants:\n  - {name: fedgrpo, set: {dropout.per_task: 0.5}}\n"
    )
    first = open_comparison(tmp_path / "two.yaml").runs()[0]
    store = tmp_path / "out/runs"
    store.mkdir(parents=True)
    scenario = store / "scenario.yaml"
    scenario.write_bytes(first.scenario.to_yaml().encode())
    assert write(tmp_path / "two.yaml", tmp_path / "out", tmp_path / "two.jsonl") is None
    report = perform({"scenario": scenario, "out": store / first.key, "cache_dir": models_cache})
    assert report["status"] == "finished"
    table = write(tmp_path / "two.yaml", tmp_path / "out", tmp_path / "two.jsonl")
    assert table is not None
    found = read(table)
    assert (found.planned, found.missing) == ({"fedgrpo": [0, 1]}, 1)
    (one,) = found.runs
    assert (one.name, one.seed, one.end, one.gain) == ("fedgrpo", 0, None, None)
    assert one.number("updates") == 2 and one.wire_bytes > 0
    assert one.rewards["came"] < one.rewards["wanted"] and sum(one.rewards["lost"].values()) > 0
    second = open_comparison(tmp_path / "two.yaml").runs()[1]
    scenario.write_bytes(second.scenario.to_yaml().encode())
    assert (
        perform(
            {"scenario": scenario, "out": tmp_path / "other/runs" / second.key, "cache_dir": models_cache}
        )["status"]
        == "finished"
    )
    table.write_text(table.read_text() + json.dumps(asdict(run(key="0" * 24, seed=1))) + "\n")
    assert write(tmp_path / "two.yaml", tmp_path / "other", tmp_path / "two.jsonl") == table
    both = read(table)
    assert [(one.seed, one.key) for one in both.runs] == [(0, first.key), (1, second.key)], (
        "what would be the same again is kept"
    )
    assert both.runs[0] == one
    table.write_text("{}\n")
    with pytest.raises(RunFolderError, match=r"two.jsonl is not a table of results"):
        read(table)


def test_every_table_that_is_planned_has_a_file_with_runs_and_the_makefile_makes_it():
    makefile = (ROOT / "Makefile").read_text()
    for name, file in PLAN.items():
        assert (ROOT / "scenarios" / file).is_file(), file
        assert f"{name}:{file.removesuffix('.yaml')}" in makefile.split(), (
            f"make evidence does not run {name}"
        )
