"""The section on hostile experts (analysis): retained gains, their noise, merging of sweeps, detection."""

from __future__ import annotations

import math

import pytest

from analysis.hostile import section as hostile
from analysis.hostile.figure import hostile_map
from analysis.hostile.noise import between_seeds, sampling_error
from analysis.hostile.runs import read_grid, retained
from fedsim.errors import RunFolderError
from tests.samples.hostile import FULL, places, sweep


def page(folder):
    return "\n".join(hostile.lines(read_grid([folder])))


def test_a_share_is_of_what_mean_gains_where_as_many_are_left_out(tmp_path):
    grid = read_grid([sweep(tmp_path / "s", FULL)])
    found = retained(grid, "median", "inverted_2", "pass_at_1")
    assert found.by_seed == pytest.approx({0: 0.08 / 0.08, 1: 0.19 / 0.20}) and not found.stand_in
    assert retained(grid, "median", "none", "pass_at_1").by_seed == pytest.approx({0: 0.9, 1: 0.9})
    assert retained(grid, "mean", "inverted_2", "pass_at_1").by_seed == pytest.approx({0: 0.25, 1: 0.25})


def test_greedy_has_shares_of_its_own(tmp_path):
    grid = read_grid([sweep(tmp_path / "s", FULL)])
    assert grid.gain("mean", "none", 1, "greedy") == pytest.approx(0.4)
    assert retained(grid, "mean", "inverted_2", "greedy").interval["mean"] == pytest.approx(0.25)


def test_an_oracle_that_is_missing_is_replaced_by_a_stricter_one_and_marked(tmp_path):
    """Nobody is excluded_1: the oracle of one hostile client is `mean` with nobody hostile."""
    folder = sweep(tmp_path / "s", FULL)
    grid = read_grid([folder])
    found = retained(grid, "mean", "inverted_1", "pass_at_1")
    assert found.by_seed == pytest.approx({0: 0.5, 1: 0.5}) and found.stand_in
    assert "| inverted_1 | **0.50 [0.50, 0.50]**† | 1.00 [1.00, 1.00]† | median |" in page(folder)


def test_where_mean_was_not_run_the_rule_is_its_own_oracle(tmp_path):
    grid = read_grid([sweep(tmp_path / "s", places(median__excluded_2=[0.1], median__inverted_2=[0.05]))])
    found = retained(grid, "median", "inverted_2", "pass_at_1")
    assert found.by_seed == pytest.approx({0: 0.5}) and found.stand_in


def test_an_oracle_that_gained_nothing_gives_no_share(tmp_path):
    grid = read_grid(
        [sweep(tmp_path / "s", places(mean__excluded_2=[0.0, 0.1], mean__inverted_2=[0.05, 0.05]))]
    )
    found = retained(grid, "mean", "inverted_2", "pass_at_1")
    assert found.by_seed == {0: None, 1: pytest.approx(0.5)} and found.interval["n"] == 1


def test_an_oracle_whose_gain_is_noise_gives_no_share(tmp_path):
    """.215 of 2,000 questions has a standard error of .0092: a gain of .015 is within two of it, one of .03 is not."""
    folder = sweep(tmp_path / "s", places(mean__excluded_2=[0.015, 0.03], mean__inverted_2=[0.05, 0.03]))
    found = retained(read_grid([folder]), "mean", "inverted_2", "pass_at_1")
    assert found.by_seed == {0: None, 1: pytest.approx(1.0)}
    noise = sweep(tmp_path / "t", places(mean__excluded_2=[0.015], mean__inverted_2=[0.05]))
    assert "| inverted_2 | no oracle |" in page(noise)


def test_one_rule_that_keeps_enough_under_every_attack_is_named(tmp_path):
    """Median: inverted_2 (1, .95) mean .975; lazy_2 (.95, .93) mean .94: the worst."""
    text = page(sweep(tmp_path / "s", FULL))
    assert "* 2 of 8 hostile, 2 attacks: `median` retains at least 0.9 under every one of them" in text
    assert "Highest worst case: `median`, 0.94 [0.81, 1.07] under lazy_2." in text
    assert "For no rule do all intervals lie above it" in text
    assert "| worst of those by 2 | **0.25 (inverted_2)** | 0.94 (lazy_2) |  |" in text
    assert "| lazy_2 | 1.00 [1.00, 1.00] | 0.94 [0.81, 1.07] | median |" in text


def test_no_rule_that_keeps_enough_is_said_to_be_not_met(tmp_path):
    gains = FULL | places(median__lazy_2=[0.06, 0.15])
    text = page(sweep(tmp_path / "s", gains))
    assert "no rule retains 0.9 under every one of them: NOT met. Highest worst case: `median`, 0.75" in text
    assert "| lazy_2 | 1.00 [1.00, 1.00] | **0.75 [0.75, 0.75]** | median |" in text


def test_a_rule_that_missed_an_attack_is_not_judged(tmp_path):
    gains = {place: gain for place, gain in FULL.items() if place[:2] != ("median", "lazy_2")}
    text = page(sweep(tmp_path / "s", gains))
    assert "not measured under all attacks, so not judged: `median`" in text and "not under all |" in text


def test_intervals_that_lie_above_the_bound_are_sure(tmp_path):
    gains = FULL | places(median__lazy_2=[0.08, 0.2], median__inverted_2=[0.08, 0.2])
    assert "With all intervals above it: `median`." in page(sweep(tmp_path / "s", gains))


def test_sweeps_over_parts_of_the_grid_are_merged(tmp_path):
    first = sweep(tmp_path / "a", {place: gain for place, gain in FULL.items() if place[2] == 0})
    second = sweep(
        tmp_path / "b",
        {place: gain for place, gain in FULL.items() if place[2] == 1 and place[1] != "lazy_2"},
    )
    grid = read_grid([first, second])
    assert grid.seeds_of("mean", "lazy_2") == [0] and grid.seeds_of("mean", "none") == [0, 1]
    text = "\n".join(hostile.lines(grid))
    assert "| lazy_2 | 1.00 (n 1) | 0.95 (n 1) | median |" in text
    assert "7 with 2, 2 with 1, 1 with 0." in text, (
        "of 10 cells: lazy_2 has one seed, median has no excluded_2"
    )
    assert read_grid([first, first]).summaries.keys() == read_grid([first]).summaries.keys()


def test_two_results_for_one_place_are_refused(tmp_path):
    first = sweep(tmp_path / "a", places(mean__none=[0.1]))
    second = sweep(tmp_path / "b", places(mean__none=[0.2]))
    with pytest.raises(RunFolderError, match="other results for mean none 0"):
        read_grid([first, second])


def test_sweeps_with_other_settings_are_said_to_differ(tmp_path):
    first = sweep(tmp_path / "a", places(mean__none=[0.1]))
    second = sweep(tmp_path / "b", places(mean__lazy_2=[0.1]), updates=30)
    text = "\n".join(hostile.lines(read_grid([first, second])))
    assert "The sweeps are not alike in stop.updates." in text and "Runs made 30 to 60 updates" in text


def test_runs_that_failed_are_counted_with_their_reason(tmp_path):
    text = page(sweep(tmp_path / "s", FULL | places(median__lazy_2=[None, 0.2])))
    assert "Ended without a result: 1 (Deadlock: nobody)." in text


def test_other_sweeps_are_refused_in_one_line(tmp_path):
    folder = sweep(tmp_path / "s", places(mean__none=[0.1]), axes=("fusion", "world"))
    with pytest.raises(RunFolderError, match="must be a grid over fusion and hostile"):
        read_grid([folder])
    with pytest.raises(RunFolderError, match="no run has a summary"):
        read_grid([sweep(tmp_path / "t", places(mean__none=[None]))])


def test_the_noise_of_a_share_follows_from_questions_samples_and_gain(tmp_path):
    """Oracles of `mean` end at .3, .4, .28, .4; their mean gain is .145; sqrt(p (1 - p) / 2000) each, times sqrt 2 / .145."""
    grid = read_grid([sweep(tmp_path / "s", FULL)])
    errors = [math.sqrt(p * (1 - p) / 2000) for p in (0.30, 0.40, 0.28, 0.40)]
    high = math.sqrt(2) * sum(errors) / 4 / 0.145
    assert sampling_error(grid, "pass_at_1", 8) == pytest.approx((high / math.sqrt(8), high, 0.145))
    spread, cells = between_seeds(grid, "pass_at_1")
    # Only median's inverted_2 (1, .95) and lazy_2 (.95, .93) differ between seeds: squares .00125 and .0002, 6 cells of 2.
    assert cells == 7 and spread == pytest.approx(math.sqrt((0.00125 + 0.0002) / 7))
    assert "standard error 0.04 to 0.10 from the test questions" in page(tmp_path / "s")


def test_numbers_of_hostile_clients_stand_beside_nobody_hostile(tmp_path):
    section = page(sweep(tmp_path / "s", FULL)).partition("By number")[2].partition("####")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    assert rows == ["| hostile", "| 0", "| 1", "| 2"]
    assert "lazy" not in section


def test_detection_is_read_from_the_summaries(tmp_path):
    def report(flagged, precision, recall, **kinds):
        return {"flagged": flagged, "precision": precision, "recall": recall, "recall_by_kind": kinds}

    detection = {
        ("median", "none", 0): report([3], 0.0, None),
        ("median", "none", 1): report([], None, None),
        ("median", "inverted_2", 0): report([0, 1], 1.0, 1.0, inverted=1.0),
        ("median", "inverted_2", 1): report([0, 4], 0.5, 0.5, inverted=0.5),
        ("median", "inverted_1", 0): report([], None, 0.0, inverted=0.0),
    }
    text = page(sweep(tmp_path / "s", FULL, detection=detection)).partition("found out")[2]
    assert "| none |  | 0.5 flagged |" in text
    assert "| inverted_2 |  | 0.75 / 0.75 |" in text
    assert "| inverted_1 |  | none / 0.00 |" in text
    assert "| inverted |  | 0.50 |" in text
    assert "No run has a report on trust." in page(sweep(tmp_path / "without", FULL))


def test_the_map_writes_each_mean_and_failing_ones_bold(tmp_path):
    figure = hostile_map(read_grid([sweep(tmp_path / "s", FULL)]))
    texts = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}
    assert texts["0.25"] == "bold" and texts["0.94"] == "normal" and len(figure.axes[0].texts) == 8
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["mean", "median"]
