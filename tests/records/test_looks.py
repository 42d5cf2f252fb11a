"""Looks at questions that are only measured (looks.py): what was found, and what had been spent by then."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from fedsim.records.looks import Look, looks
from fedsim.records.metrics import METRIC_COLUMNS
from fedsim.records.run import Run


def run_of(*events):
    """A run that sends 100 bytes up (10 of the paper's) and 10 down a second, and steps on 8 questions, then 7, 6 ..."""
    rows = [
        {"at_s": float(at_s), "wire_up_bytes": 100 * at_s, "wire_down_bytes": 10 * at_s, "paper_up_bytes": 10 * at_s} | event
        for at_s, event in events
    ]  # fmt: skip
    num_updates = sum(row["event"] == "update" for row in rows)
    updates = pl.DataFrame({"num_groups": [8 - place for place in range(num_updates)]}, {"num_groups": int})
    return Run(Path(), {}, {}, pl.DataFrame(rows, METRIC_COLUMNS), {"updates": updates})


def step(at_s, version):
    return at_s, {"event": "update", "policy_version": version}


def look(at_s, version, split="validation", **values):
    return at_s, {"event": "evaluation", "policy_version": version, "split": split, **values}


def test_a_look_has_what_was_spent_until_then_both_ways_and_in_the_papers_account():
    run = run_of(look(0, 0, greedy=0.2), step(1, 1), step(3, 2), look(3, 2, greedy=0.5), step(4, 3))
    assert looks(run) == (Look(0, 0.2, 0, 0, 0.0, 0, 0), Look(2, 0.5, 330, 30, 3.0, 2, 8 + 7))


def test_only_the_questions_that_are_asked_for_count():
    run = run_of(look(1, 0, greedy=0.2), look(1, 0, "test", greedy=0.3), look(2, 0, "reworded", greedy=0.4))
    assert [[one.value for one in looks(run, split=split)] for split in ("test", "reworded", "other")] == [
        [0.3],
        [0.4],
        [],
    ]


@pytest.mark.parametrize("unmeasured", [None, float("nan")])
def test_a_look_at_which_something_was_not_measured_is_none_of_it(unmeasured):
    run = run_of(
        look(0, 0, greedy=0.2, pass_at_8=0.6), step(1, 1), look(1, 1, greedy=0.3, pass_at_8=unmeasured)
    )
    assert [one.version for one in looks(run)] == [0, 1]
    assert [(one.version, one.value) for one in looks(run, "pass_at_8")] == [(0, 0.6)]
    assert looks(run, "pass_at_1") == ()


def test_a_run_without_a_look_has_none():
    assert looks(run_of(step(1, 1))) == looks(run_of()) == ()
