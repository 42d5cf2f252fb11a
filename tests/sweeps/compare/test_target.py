"""Bytes, time and updates to a validation accuracy: first look that finds it, the others censored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import RunFolderError
from fedsim.records.looks import Look
from fedsim.sweeps.compare.tables import write_comparison
from fedsim.sweeps.compare.target import (
    AMOUNTS,
    Target,
    TargetConfig,
    Way,
    censored_median,
    describe,
    resolve,
    way_along,
    way_to,
)
from tests.samples.learning import Made, write_run

HALF = TargetConfig(share_of_gain=0.5)


def way(reached, wire_bytes, paper_bytes, virtual_s, updates, value=0.0):
    return Way(reached, Look(updates, value, wire_bytes, paper_bytes, virtual_s, updates))


def looks_at(values):
    """Looks after every second of the updates, each of which takes a second, sends 110 bytes, and one of the paper's."""
    return [Look(2 * n, value, 220 * n, 2 * n, 2.0 * n, 2 * n) for n, value in enumerate(values)]


def summary(seed, initial, final):
    pair = {"initial": initial, "final": final}
    return {
        "protocol": "fedgrpo",
        "seed": seed,
        "virtual_s": 6.0,
        "accuracy": {"greedy": {"initial": 0.9, "final": 0.9}},
        "validation": {"greedy": pair},
        "bytes": {"paper": {"uplink": 6}, "wire": {"uplink": 600, "downlink": 60}},
        "leaves": ["scalars"],
    }


def test_the_way_ends_at_the_first_look_that_finds_the_target_also_if_accuracy_falls_later():
    seen = looks_at([0.2, 0.3, 0.5, 0.4])
    assert way_along(seen, 0.5) == way(
        True, wire_bytes=440, paper_bytes=4, virtual_s=4.0, updates=4, value=0.5
    )
    assert way_along(seen, 0.25) == way(True, 220, 2, 2.0, 2, value=0.3)


def test_who_starts_there_needs_nothing():
    assert way_along(looks_at([0.2, 0.3]), 0.2) == way(True, 0, 0, 0.0, 0, value=0.2)


def test_a_run_that_never_gets_there_is_censored_at_its_last_look():
    assert way_along(looks_at([0.2, 0.3, 0.5, 0.4]), 0.6) == way(False, 660, 6, 6.0, 6, value=0.4)


def test_a_way_is_along_the_looks_at_the_validation_questions_and_there_is_none_without_any(tmp_path):
    write_run(tmp_path / "a", Made(looks=[(0.0, 0.2), (10.0, 0.3)], test=(0.9, 0.9)), 0)
    assert way_to(tmp_path / "a", 0.3) == Way(True, Look(1, 0.3, 1000, 0, 10.0, 1, 8))
    assert not way_to(tmp_path / "a", 0.5).reached
    write_run(tmp_path / "b", Made(looks=[], test=(0.9, 0.9)), 0)
    assert way_to(tmp_path / "b", 0.5) is None


def test_a_run_without_metrics_is_said_to_be_broken(tmp_path):
    write_run(tmp_path / "run", Made(), 0)
    (tmp_path / "run/metrics.parquet").unlink()
    with pytest.raises(RunFolderError, match=r"metrics\.parquet is missing"):
        way_to(tmp_path / "run", 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_higher_target_is_never_reached_sooner(values, one, other):
    low, high = (way_along(looks_at(values), target) for target in sorted((one, other)))
    assert low.reached >= high.reached
    assert all(low.amounts()[amount] <= high.amounts()[amount] for amount in AMOUNTS)


def test_the_default_target_is_half_of_the_first_variants_mean_gain():
    # Initial 0.1 and 0.3, final 0.5 and 0.5: means 0.2 and 0.5, half way 0.35.
    found = resolve(HALF, "adapters", [summary(0, 0.1, 0.5), summary(1, 0.3, 0.5)])
    assert found.validation_greedy == pytest.approx(0.35)
    assert found.origin == "0.5 of the gain of adapters"


def test_a_stated_target_is_taken_as_it_is():
    assert resolve(TargetConfig(validation_greedy=0.4), "a", []) == Target(0.4, "the comparison file")


@pytest.mark.parametrize("final", [0.2, 0.1, None])
def test_a_first_variant_that_gains_nothing_gives_no_target(final):
    assert resolve(HALF, "zero_shot", [summary(0, 0.2, final)]) is None


def test_means_are_over_the_runs_that_got_there_and_the_others_are_listed():
    ways = [way(True, 100, 1, 10.0, 2), way(False, 900, 9, 90.0, 9), way(True, 300, 3, 30.0, 4), None]
    found = describe([5, 6, 7, 8], ways)
    assert (found["reached"], found["n"]) == (2, 3)
    assert (found["wire_bytes"]["mean"], found["wire_bytes"]["n"]) == (200, 2)
    # s = sqrt(2), t(0.975, 1) = 12.706205: 3 +- 12.706205 updates.
    assert found["updates"]["high"] == pytest.approx(3 + 12.706205, abs=1e-5)
    assert found["censored"] == [
        {"seed": 6, "wire_bytes": 900, "paper_bytes": 9, "virtual_s": 90.0, "updates": 9}
    ]
    assert describe([5], [None]) is None


def test_the_median_counts_a_run_that_never_got_there_as_more_than_any_other_whatever_it_had_spent():
    cheap_but_lost = way(False, 1, 0, 1.0, 1)
    ways = [way(True, 100, 1, 10.0, 2), cheap_but_lost, way(True, 300, 3, 30.0, 4), None]
    assert describe([5, 6, 7, 8], ways)["censored_median"] == {
        "wire_bytes": 300, "paper_bytes": 3, "virtual_s": 30.0, "updates": 4,
    }  # fmt: skip
    lost = describe([5, 6, 7], [ways[0], cheap_but_lost, cheap_but_lost])
    assert lost["censored_median"] == dict.fromkeys(AMOUNTS) and lost["wire_bytes"]["mean"] == 100


def test_a_median_is_one_of_the_amounts_that_arrived():
    assert censored_median([5, 1, 9], [True, True, True]) == 5
    # The censored run spent less than the others, and still needs more.
    assert censored_median([5, 1, 9], [True, False, True]) == 9
    assert censored_median([5, 1, 9], [True, False, False]) is None
    assert censored_median([4, 2], [True, False]) == 4
    assert censored_median([], []) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=7), st.data())
def test_losing_a_run_never_lowers_the_median(runs, data):
    def as_number(outcomes):
        found = censored_median(*zip(*outcomes, strict=True))
        return float("inf") if found is None else found

    lost = data.draw(st.integers(0, len(runs) - 1))
    fewer = [(amount, good and place != lost) for place, (amount, good) in enumerate(runs)]
    assert as_number(runs) <= as_number(fewer)


def test_a_comparison_says_for_every_variant_how_it_got_there(tmp_path):
    curves = {"first": [[0.2, 0.3, 0.6], [0.2, 0.6, 0.6]], "second": [[0.2, 0.3, 0.3], [0.2, 0.4, 0.6]]}
    runs = [
        {"variant": name, "seed": seed, "folder": f"runs/{name}-{seed}"} for name in curves for seed in (0, 1)
    ]
    for run in runs:
        curve = [(10.0 * n, value) for n, value in enumerate(curves[run["variant"]][run["seed"]])]
        write_run(tmp_path / run["folder"], Made(looks=curve, step_bytes=220), run["seed"])
    summaries = {
        name: [summary(seed, looks[0], looks[-1]) for seed, looks in enumerate(found)]
        for name, found in curves.items()
    }
    _, rows, page = write_comparison(tmp_path, "named", (0, 1), summaries, runs)
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["target"] == pytest.approx(0.4)
    assert document["target_origin"] == "0.5 of the gain of first"
    first, second = (one["to_target"] for one in document["variants"])
    assert (first["reached"], first["n"], first["wire_bytes"]["mean"]) == (2, 2, 330)
    assert (second["reached"], second["n"], second["wire_bytes"]["mean"]) == (1, 2, 220)
    assert [one["seed"] for one in second["censored"]] == [0]
    assert [line.split(",")[-5] for line in rows.read_text().splitlines()] == [
        "to_target.reached", "True", "True", "False", "True",
    ]  # fmt: skip
    lines = page.read_text().splitlines()
    # 330 of 440 and 220 bytes would be the mean; the lower of the two is the median. Bytes beside a lost run are the other's.
    assert lines[2].endswith("| < 0.001 MiB; reached 2 of 2 |")
    assert lines[3].endswith("| < 0.001 MiB; reached 1 of 2 |")
    assert first["censored_median"]["wire_bytes"] == second["censored_median"]["wire_bytes"] == 220
    assert "rounded up to the next look at the validation questions" in page.read_text()
    assert (
        "Target: greedy accuracy 0.400 on the validation questions (0.5 of the gain of first)"
        in page.read_text()
    )


def test_where_nobody_gets_to_the_stated_target_the_table_says_so(tmp_path):
    write_run(tmp_path / "run", Made(looks=[(0.0, 0.2), (10.0, 0.3)]), 0)
    runs = [{"variant": "a", "seed": 0, "folder": "run"}]
    config = TargetConfig(validation_greedy=0.9)
    page = write_comparison(tmp_path, "named", (0,), {"a": [summary(0, 0.2, 0.3)]}, runs, target=config)[2]
    assert page.read_text().splitlines()[2].endswith("| reached 0 of 1 |")
