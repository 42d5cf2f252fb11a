"""The section on schedules (analysis): times to a target, who idles, and the verdict, worked by hand."""

from __future__ import annotations

import json
import math

import pytest

from analysis.finished import read
from analysis.schedules import passages
from analysis.schedules import section as schedules
from analysis.schedules.figure import schedule_curves, stepped
from analysis.schedules.passages import Ratio, bound, geometric, ratios, shown
from analysis.schedules.runs import read_families
from fedsim.errors import RunFolderError
from tests.samples.learning import BARRIER, BUFFERED, GROUP, ROUNDS, Made, compared

CLIMB = ((0.0, 0.3), (10.0, 0.35), (20.0, 0.4))
FAST = ((0.0, 0.3), (5.0, 0.4), (20.0, 0.45))
SLOW = ((0.0, 0.3), (10.0, 0.35), (20.0, 0.38))


def family(tmp_path, **variants):
    """The one family of a comparison of these variants."""
    (found,) = read_families(read(compared(tmp_path / "c", variants)))
    return found


def page(tmp_path, tuning=(), even=(), **variants):
    found = read(compared(tmp_path / "c", variants))
    return "\n".join(
        schedules.lines([(found, read_families(found))], list(tuning), [read(one) for one in even])
    )


# ------------------------------------------------------------------------------------------------------- passages


def test_a_target_is_a_share_of_the_references_gain_above_the_seeds_own_start(tmp_path):
    """The reference climbs .1 in 20 s, half of it in 10 s; ours stands there after 5 s in both cases."""
    found = family(tmp_path, barrier=[Made(CLIMB)], group=[Made(FAST, scenario=GROUP)])
    ours, theirs = found.runs["group"], found.runs["barrier"]
    assert ratios(ours, theirs, 1.0, "virtual_s") == [Ratio(0.25, "=")]
    assert ratios(ours, theirs, 0.5, "virtual_s") == [Ratio(0.5, "=")]
    # One step of 1,000 bytes against two, then against one.
    assert ratios(ours, theirs, 1.0, "wire_bytes") == [Ratio(0.5, "=")]
    assert ratios(ours, theirs, 0.5, "wire_bytes") == [Ratio(1.0, "=")]


def test_a_run_that_never_comes_there_bounds_the_ratio_from_below(tmp_path):
    found = family(tmp_path, barrier=[Made(CLIMB)], group=[Made(SLOW, scenario=GROUP)])
    assert ratios(found.runs["group"], found.runs["barrier"], 1.0, "virtual_s") == [Ratio(1.0, ">")]
    assert ratios(found.runs["group"], found.runs["barrier"], 0.5, "virtual_s") == [Ratio(1.0, "=")]


def test_a_reference_that_gained_nothing_says_nothing(tmp_path):
    flat = ((0.0, 0.3), (20.0, 0.3))
    found = family(tmp_path, barrier=[Made(flat)], group=[Made(FAST, scenario=GROUP)])
    assert ratios(found.runs["group"], found.runs["barrier"], 0.5, "virtual_s") == [None]
    text = page(tmp_path / "p", barrier=[Made(flat)], group=[Made(FAST, scenario=GROUP)])
    assert "Left out: every seed, where that is less than 2 standard errors of a look" in text
    assert "**group**: no seed can be judged, so NOT met." in text


def test_a_gain_within_the_noise_of_a_look_is_left_out_though_others_cross_it_soon(tmp_path):
    """Of 500 questions, .34 has a standard error of .021: a gain of .04 is noise, one of .1 is not."""
    faint = ((0.0, 0.3), (10.0, 0.32), (20.0, 0.34))
    text = page(tmp_path, barrier=[Made(faint), Made(CLIMB)], group=[Made(FAST, scenario=GROUP)] * 2)
    assert "`barrier` gains +0.040, +0.100 on validation questions, by seed. Left out: seed 0," in text
    assert "| group | no gain | 0.25 |" in text and "| group | 0.50 | 0.50 | 0.25 | 0.25 |" in text


def test_censored_on_the_references_side_bounds_from_above(tmp_path):
    found = family(tmp_path, barrier=[Made(CLIMB)], group=[Made(FAST, scenario=GROUP)])
    ours = passages.passage(found.runs["group"][0], 0.12)
    theirs = passages.passage(found.runs["barrier"][0], 0.12)
    assert (ours.reached, theirs.reached) == (True, False)
    assert passages.ratio(ours, theirs, "virtual_s") == Ratio(1.0, "<")
    assert passages.ratio(theirs, theirs, "virtual_s") is None


def test_means_of_ratios_are_geometric_and_bounds_stay_bounds():
    exact = [Ratio(0.5, "="), Ratio(0.125, "=")]
    found = geometric(exact)
    # ln(1/2) and ln(1/8): mean ln(1/4), t(1, 97.5%) = 12.7062, s / sqrt 2 = ln 4 / 2.
    assert found["mean"] == pytest.approx(0.25) and bound(exact) is None
    assert found["high"] == pytest.approx(0.25 * math.exp(12.7062 * math.log(4) / 2), rel=1e-3)
    assert bound([Ratio(1.0, "="), Ratio(4.0, ">")]) == Ratio(pytest.approx(2.0), ">")
    assert bound([Ratio(1.0, "<"), Ratio(4.0, ">")]) is None
    assert bound([Ratio(1.0, ">"), None]) == Ratio(1.0, ">"), "a seed that says nothing is left out"
    assert shown([Ratio(1.0, "<"), None]) == "0 of 1 seeds; all: < 1.00" and shown([None]) == "no seed"


def test_a_time_ratio_is_questions_times_seconds_for_each(tmp_path):
    """Ours: one step of 8 in 5 s; reference: two steps of 8 in 20 s. 1/4 = 1/2 of the questions x 1/2 of the seconds."""
    found = family(tmp_path, barrier=[Made(CLIMB)], group=[Made(FAST, scenario=GROUP)])
    ours, theirs = found.runs["group"], found.runs["barrier"]
    assert ratios(ours, theirs, 1.0, "trained") == [Ratio(0.5, "=")]
    assert passages.s_per_trained_ratios(ours, theirs, 1.0) == [Ratio(0.5, "=")]


# ------------------------------------------------------------------------------------------------------ the runs


def test_idle_is_what_is_not_computed_and_work_after_the_end_does_not_count(tmp_path):
    run = family(tmp_path, barrier=[Made(CLIMB, server_s=5.0, device_s=30.0)]).runs["barrier"][0]
    assert run.server_idle == 0.75
    assert (run.devices_idle, run.busiest_idle) == (0.0, 0.0), "30 s of work in a run of 20 s"


def test_waiting_staleness_and_drops_are_read_from_the_groups(tmp_path):
    run = family(tmp_path, barrier=[Made(CLIMB, wait_s=3.0, stale=4)]).runs["barrier"][0]
    assert (run.under_way_s, run.trained) == (3.0, 16)
    assert run.stale_share == 4 / 20


def test_dropped_modules_are_read_from_the_books_of_averaging(tmp_path):
    folder = compared(
        tmp_path / "c",
        {
            "rounds": [Made(CLIMB, scenario=ROUNDS, step_groups=0)],
            "buffered": [Made(CLIMB, scenario=BUFFERED, step_groups=0)],
        },
    )
    book = {"merged": 30, "dropped_too_stale": 10}
    (folder / "runs/buffered-0/averaging.json").write_text(json.dumps(book))
    (found,) = read_families(read(folder))
    assert (found.unit, found.reference, found.others) == ("modules", "rounds", ["buffered"])
    assert found.runs["buffered"][0].stale_share == 0.25
    assert found.runs["rounds"][0].stale_share is None


def test_the_reference_is_the_best_that_waits_on_the_tuning_seeds_if_they_are_known(tmp_path):
    variants = {
        "barrier": [Made(CLIMB)],
        "barrier-quorum": [Made(SLOW)],
        "group": [Made(FAST, scenario=GROUP)],
    }
    found = read(compared(tmp_path / "c", variants))
    (by_end,) = read_families(found)
    (by_tuning,) = read_families(found, {"barrier": 0.4, "barrier-quorum": 0.5, "group": 0.9})
    (partly,) = read_families(found, {"barrier-quorum": 0.5})
    assert (by_end.reference, by_tuning.reference, partly.reference) == (
        "barrier",
        "barrier-quorum",
        "barrier",
    )
    assert "other seeds" in by_tuning.chosen_on and "the same seeds" in by_end.chosen_on


def test_families_are_told_apart_by_what_a_step_is_made_of(tmp_path):
    variants = {
        "barrier": [Made(scenario=BARRIER)], "group": [Made(scenario=GROUP)],
        "rounds": [Made(scenario=ROUNDS)], "buffered": [Made(scenario=BUFFERED)],
    }  # fmt: skip
    titles = [
        (one.title, one.reference, list(one.runs))
        for one in read_families(read(compared(tmp_path, variants)))
    ]
    assert titles == [
        ("Rewarding candidates", "barrier", ["barrier", "group"]),
        ("Averaging modules", "rounds", ["rounds", "buffered"]),
    ]


# --------------------------------------------------------------------------------------------------- the section


def test_half_of_the_time_with_every_seed_meets_what_was_looked_for(tmp_path):
    text = page(tmp_path, barrier=[Made(CLIMB)] * 3, group=[Made(FAST, scenario=GROUP)] * 3)
    assert (
        "**group**: 0.25 [0.25, 0.25] of the time to the full gain. Wanted: at most 0.5; met. Faster" in text
    )
    assert "0.50 [0.50, 0.50] times the questions, at 0.50 [0.50, 0.50] times the seconds for each" in text
    assert "3 of 5 wanted seeds." in text and "Every seed can be judged." in text
    # The server computes 5 of 20 s, the device 10 of 20 s.
    assert "the server computes 25% and the busiest device 50% of the time" in text
    assert "| group | 75.0% | 50.0% | 50.0% | 2.00 s | 125.00 s | 0.0% | 10.00 s |" in text


def test_half_of_the_time_with_two_seeds_or_an_interval_that_reaches_1_is_not_met(tmp_path):
    few = page(tmp_path / "a", barrier=[Made(CLIMB)] * 2, group=[Made(FAST, scenario=GROUP)] * 2)
    assert "it is, but 2 seeds are too few to say so: NOT met." in few
    slower = ((0.0, 0.3), (19.0, 0.4), (20.0, 0.45))
    late = [Made(FAST, scenario=GROUP), Made(FAST, scenario=GROUP), Made(slower, scenario=GROUP)]
    # .25, .25, .95: geometric mean .39, but the interval of the logarithms is wider than ln(1 / .39).
    unsure = page(tmp_path / "b", barrier=[Made(CLIMB)] * 3, group=late)
    assert "**group**: 0.39 [0.06, 2.65] of the time" in unsure
    assert "it is in the mean, but the interval reaches 1: NOT met." in unsure


def test_the_ends_of_the_runs_are_compared_beside_the_times(tmp_path):
    better = [Made(FAST, (0.3, 0.43), scenario=GROUP), Made(FAST, (0.3, 0.43), scenario=GROUP)]
    text = page(tmp_path, barrier=[Made(CLIMB)] * 2, group=better)
    assert "At the end of the runs: +0.030 [+0.030, +0.030] pass@1 on test questions, better." in text


def test_more_than_half_or_a_bound_above_it_is_not_met(tmp_path):
    same = page(tmp_path / "a", barrier=[Made(CLIMB)] * 2, group=[Made(CLIMB, scenario=GROUP)] * 2)
    assert (
        "1.00 [1.00, 1.00] of the time to the full gain. Wanted: at most 0.5; NOT met. The interval holds 1"
        in same
    )
    never = page(tmp_path / "b", barrier=[Made(CLIMB)] * 2, group=[Made(SLOW, scenario=GROUP)] * 2)
    assert (
        "**group**: 0 of 2 seeds; all: > 1.00 of the time to the full gain. Wanted: at most 0.5; NOT met."
        in never
    )
    assert "To 0.75 of the gain it took 1.00 [1.00, 1.00]" in never, (
        "the largest share that all seeds of both reached"
    )
    assert "| group | > 1.00 | > 1.00 |" in never


def test_ends_are_paired_with_the_reference(tmp_path):
    text = page(
        tmp_path,
        barrier=[Made(CLIMB, test=(0.3, 0.4)), Made(CLIMB, test=(0.3, 0.5))],
        group=[Made(FAST, (0.3, 0.42), stale=4, scenario=GROUP), Made(FAST, (0.3, 0.52), scenario=GROUP)],
    )
    row = next(line for line in text.splitlines() if line.startswith("| group | 2 | 16 |"))
    assert "+0.020 [+0.020, +0.020]" in row and "| 0.50 (2) | 10.0% |" in row


def test_without_a_comparison_at_equal_bytes_the_budget_that_all_spent_is_read_off(tmp_path):
    """The reference spends 4,000 bytes, group 2,000 with its two steps: within 2,000 the reference has made one step."""
    text = page(tmp_path, barrier=[Made(CLIMB, step_bytes=2000)], group=[Made(FAST, scenario=GROUP)])
    assert "within 2.0 KiB" in text
    assert "| barrier | 0.350 |  | 10.00 s |" in text and "| group | 0.450 | +0.100 | 20.00 s |" in text


def test_a_comparison_at_equal_bytes_is_read_where_it_is_given(tmp_path):
    variants = {"barrier": [Made(CLIMB)], "group": [Made(FAST, (0.3, 0.44), scenario=GROUP)]}
    even = compared(tmp_path / "even", variants, name="even")
    text = page(tmp_path, even=[even], **variants)
    section = text.partition("equal bytes")[2]
    assert "Comparison `even`" in section and "read off" not in section
    assert "| group | 2.0 KiB | 2 | 0.450 | 0.440 | +0.040 | 0.340 | +0.040 |" in section


def test_a_folder_of_tuning_gives_the_reference_and_its_table(tmp_path):
    tried = {"value": 3e-4, "validation": {"mean": 0.5}}
    worse = {"value": 1e-4, "validation": {"mean": 0.9}}
    document = {
        "variants": [
            {"name": "barrier", "key": "k", "chosen": 3e-4, "tried": [worse, tried]},
            {"name": "x", "key": None},
        ]
    }
    (tmp_path / "tuning.json").write_text(json.dumps(document))
    (tmp_path / "tuning.md").write_text("| method | chosen |\n")
    assert schedules.tuned_validation(tmp_path) == {"barrier": 0.5}
    text = page(tmp_path / "p", tuning=[tmp_path], barrier=[Made(CLIMB)], group=[Made(FAST, scenario=GROUP)])
    assert "| method | chosen |" in text
    (tmp_path / "tuning.json").write_text("{")
    with pytest.raises(RunFolderError, match="tune again"):
        schedules.tuned_validation(tmp_path)


def test_a_plain_comparison_on_other_seeds_will_do_for_tuning(tmp_path):
    folder = compared(tmp_path / "t", {"barrier": [Made(CLIMB)], "barrier-quorum": [Made(SLOW)]}, seeds=[100])
    assert schedules.tuned_validation(folder) == {"barrier": 0.4, "barrier-quorum": 0.38}
    text = page(tmp_path / "p", tuning=[folder], barrier=[Made(CLIMB)], group=[Made(FAST, scenario=GROUP)])
    assert "| barrier-quorum | 0.380 | 2 |" in text


def test_runs_without_looks_are_said_to_be_unmeasured(tmp_path):
    text = page(tmp_path, barrier=[Made(())], group=[Made((), scenario=GROUP)])
    assert (
        "gains not measured on validation questions" in text
        and "Not measured: some run was never looked at." in text
    )


# ------------------------------------------------------------------------------------------------------ the figure


def test_a_curve_holds_the_last_look_above_the_start_and_its_interval(tmp_path):
    found = family(tmp_path, barrier=[Made(CLIMB), Made(FAST)], group=[Made(FAST, scenario=GROUP)] * 2)
    steps = stepped(found.runs["barrier"], lambda look: look.virtual_s, [0.0, 7.0, 12.0])
    # At 7 s: 0 and .1; at 12 s: .05 and .1.
    assert [one["mean"] for one in steps] == pytest.approx([0.0, 0.05, 0.075])
    figure = schedule_curves([found])
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["virtual time (s)", "wire, both ways (KiB)"]
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == ["barrier *", "group"]
    assert not figure.axes[0].collections, "two seeds have no band"
    assert schedule_curves([]) is None
