"""What a sweep's tables and heat maps say (stress/rows.py, stress/pages.py, analysis): digits worked by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
from matplotlib.text import Text

from fedsim.errors import RunFolderError
from fedsim.figures.stress.maps import stress_map
from fedsim.figures.stress.report import STRESS_FIGURES, write_stress_report
from fedsim.figures.stress.runs import read_sweep
from fedsim.figures.stress.why import stress_why
from fedsim.figures.style import save
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.sweeps.stress.endings import Ending
from fedsim.sweeps.stress.file import Stress, StressRun
from fedsim.sweeps.stress.losses import counted
from fedsim.sweeps.stress.pages import document, layout, named_seeds, page, why_page, write_stress
from fedsim.sweeps.stress.pairs import ratio, wins
from fedsim.sweeps.stress.rows import Row, first_clause, kind_of, read_row
from tests.samples.run import sample_run

GRID = {
    "name": "hand", "base": "x", "seeds": [0, 1],
    "axes": {
        "dropout": {"key": "dropout.per_task", "levels": [0, 0.5]},
        "world": {"levels": [{"name": "calm"}, {"name": "rough"}]},
        "policy": {"levels": [{"name": "wait"}, {"name": "hurry"}]},
    },
}  # fmt: skip
SCENARIO = SimpleNamespace(fidelity="timing", protocol=SimpleNamespace(name="fedgrpo"))


def numbers(time_s, wasted=0.25, status="finished", reason="", used=30):
    return {
        "status": status, "reason": reason, "stopped_by": "updates", "virtual_s": time_s or 9.0, "time_s": time_s,
        "time_per_reward_s": None if time_s is None else time_s / used, "rewards_used": used, "energy_j": 5.0,
        "wire_up_bytes": 100, "wire_down_bytes": 300, "wasted_share": wasted, "groups_lost_share": 0.5,
        "rewards_share": 0.75, "greedy_final": None, "wall_s": 1.0,
    }  # fmt: skip


def hand_made(rows=None):
    """Wait takes 60 s per level of trouble, hurry half of that with seed 0 and an eighth with seed 1."""
    stress = Stress.model_validate_json(json.dumps(GRID))
    runs, point = [], 0
    for dropout in ("0", "0.5"):
        for world in ("calm", "rough"):
            for policy in ("wait", "hurry"):
                for seed in (0, 1):
                    base_s = 60.0 * (1 + (dropout == "0.5") + 2 * (world == "rough"))
                    time_s = base_s if policy == "wait" else base_s / (2 if seed == 0 else 8)
                    levels = {"dropout": dropout, "world": world, "policy": policy}
                    lost = {
                        ("device left", "dropped", "compute", "phone"): 3,
                        ("task dropout", "dropped", "queue", "laptop"): 1,
                    }
                    row = Row(
                        numbers(time_s), {"phone": 6, "laptop": 4}, lost, {"gcd": (4, 1), "sum": (2, 2)}
                    )
                    row = (rows or {}).get((dropout, world, policy, seed), row)
                    runs.append((StressRun(point, levels, seed, SCENARIO, f"k{point}-{seed}"), row))
                point += 1
    return stress, runs


FAILED = Row(numbers(None, status="failed", reason="Deadlock: nobody ever comes back"))
LATE = Row(numbers(None, status="out_of_time"))


# ------------------------------------------------------------------------------------------------------- pairs


def raced(**times):
    """One place, four policies' times (minutes; None: failed) by seed, with the usable rewards that each run held."""
    return [
        (
            StressRun(point, {"policy": policy, "world": "rough"}, seed, SCENARIO, "k"),
            FAILED if minutes is None else Row(numbers(60.0 * minutes, used=used)),
        )
        for point, (policy, (used, found)) in enumerate(times.items())
        for seed, minutes in enumerate(found)
    ]


def test_a_policy_wins_the_seeds_in_which_no_other_is_faster_whatever_its_slowest_seed_takes():
    runs = raced(deadline=(30, [7.4, 171.0, 8.5]), quorum=(30, [15.0, 16.0, 14.0]))
    assert wins(runs, "policy", "time_s") == {
        (0, 0): 1,
        (1, 0): 0,
        (0, 1): 0,
        (1, 1): 1,
        (0, 2): 1,
        (1, 2): 0,
    }


def test_who_is_fast_with_few_usable_rewards_loses_by_time_per_reward():
    runs = raced(deadline=(10, [7.0]), quorum=(30, [14.0]))  # 42 s and 28 s a reward
    assert wins(runs, "policy", "time_s") == {(0, 0): 1, (1, 0): 0}
    assert wins(runs, "policy", "time_per_reward_s") == {(0, 0): 0, (1, 0): 1}


def test_equals_share_a_win_and_who_did_not_finish_has_none():
    runs = raced(a=(1, [5, None, None]), b=(1, [5, 9, None]), c=(1, [5, 9, None]), d=(1, [6, 10, None]))
    found = wins(runs, "policy", "time_s")
    assert [found[point, 0] for point in range(4)] == [1 / 3, 1 / 3, 1 / 3, 0]
    assert [found[point, 1] for point in range(4)] == [0, 1 / 2, 1 / 2, 0]
    assert len(found) == 8  # seed 2, in which nobody finished, is in no share


def test_only_runs_of_the_same_seed_and_other_levels_compete():
    stress, runs = hand_made()
    found = wins(runs, "policy", "time_s")
    assert {found[run.point, run.seed] for run, _ in runs if run.levels["policy"] == "hurry"} == {1}
    assert {found[run.point, run.seed] for run, _ in runs if run.levels["policy"] == "wait"} == {0}
    text = "\n".join(page(stress, runs))
    # Wait: 60, 120, 180, 240 s, each twice: the fourth of eight is 120 s and the eighth 240 s. Hurry: 7.5, 15, 22.5, 30, 30,
    # 60, 90, 120 s.
    assert "| wait | 8 of 8 | 2 min 00 s (4 min 00 s) | 4.0 s (8.0 s) | 0.0% | 0.0% | 1 | 1 |" in text
    assert "| hurry | 8 of 8 | 30.0 s (2 min 00 s) | 1.0 s (4.0 s) | 100.0% | 100.0% | 0.250 [" in text


# ------------------------------------------------------------------------------------------------------- tables


def test_ratios_are_geometric_means_over_pairs_with_an_interval_over_seeds():
    _, runs = hand_made()
    wait = [pair for pair in runs if pair[0].levels["policy"] == "wait"]
    hurry = [pair for pair in runs if pair[0].levels["policy"] == "hurry"]
    found = ratio(hurry, wait, "policy", "time_s")
    # Per seed ln(1/2) and ln(1/8): the mean is ln(1/4); t(1 degree, 97.5%) = 12.7062, s / sqrt(2) = ln 4 / 2.
    half = 12.7062 * math.log(4) / 2
    assert found["mean"] == pytest.approx(0.25)
    assert found["high"] == pytest.approx(0.25 * math.exp(half), rel=1e-3) and found["n"] == 2
    assert ratio(wait, wait, "policy", "time_s")["mean"] == 1.0


def test_a_pair_of_which_one_did_not_finish_is_in_no_ratio():
    _, runs = hand_made(
        {
            ("0", "calm", "wait", 1): FAILED,
            **{(d, w, "wait", 1): FAILED for d in ("0", "0.5") for w in ("calm", "rough")},
        }
    )
    wait = [pair for pair in runs if pair[0].levels["policy"] == "wait"]
    hurry = [pair for pair in runs if pair[0].levels["policy"] == "hurry"]
    assert ratio(hurry, wait, "policy", "time_s") == {"mean": 0.5, "low": None, "high": None, "n": 1}


def test_points_hold_quantiles_of_costs_means_of_shares_and_how_the_others_ended():
    stress, runs = hand_made({("0", "calm", "wait", 1): FAILED, ("0.5", "rough", "hurry", 0): LATE})
    found = document(stress, runs)
    first, last = found["points"][0], found["points"][-1]
    assert first["levels"] == {"dropout": "0", "world": "calm", "policy": "wait"}
    assert first["statuses"] == {"failed": 1, "finished": 1} and first["reasons"] == [
        "Deadlock: nobody ever comes back"
    ]
    # Of two the median is the first and the 90th percentile the second, which the failed one is.
    assert first["time_s"] == {"median": 60.0, "p90": None, "values": [60.0, None], "n": 1}
    assert first["time_per_reward_s"] == {"median": 2.0, "p90": None, "values": [2.0, None], "n": 1}
    assert first["wire_bytes"] == {"median": 400.0, "p90": None, "values": [400.0, None], "n": 1}
    assert (first["wasted_share"]["mean"], first["wasted_share"]["n"]) == (0.25, 2)
    assert (last["time_s"]["median"], last["out_of_time_s"]) == (30.0, 9.0)
    assert last["time_won"] == {"mean": 0.5, "n": 2}  # late with seed 0, first with seed 1
    assert found["layout"] == {"x": "dropout", "y": "world", "panels": "policy"}


def test_losses_add_up_over_points_and_seeds():
    stress, runs = hand_made()
    lost = document(stress, runs)["lost"]["hurry"]
    assert (lost["asked"], lost["lost"]) == (8 * 10, 8 * 4)
    assert lost["by_cause"] == {"device left": 24, "task dropout": 8}
    assert lost["by_phase"] == {"compute": 24, "queue": 8}
    assert lost["domains"] == {"gcd": {"groups": 32, "lost": 8}, "sum": {"groups": 16, "lost": 16}}
    text = "\n".join(why_page(stress, runs))
    assert "40.0% of the requests brought no reward (all together, 64 of 160)" in text
    # By class: 24 of 48 asked phones, 8 of 32 asked laptops.
    assert "| hurry | 80 | 40.0% | 50.0% | 25.0% |" in text
    assert "| wait | 25.0% | 100.0% |" in text


def test_shares_of_losses_weigh_every_run_alike_however_often_it_asked():
    """One seed of one point asks 10,000 times and loses everything: with sums it would be all that is seen."""
    many = Row(
        numbers(9.0), {"phone": 10_000}, {("late", "late", "queue", "phone"): 10_000}, {"gcd": (500, 500)}
    )
    nothing = Row(numbers(9.0))
    stress, runs = hand_made({("0", "calm", "hurry", 0): many, ("0", "calm", "hurry", 1): nothing})
    shares = document(stress, runs)["lost"]["hurry"]["shares"]
    # Six plain runs lose 3 + 1 of 10 (phones 3 of 6), one loses all, and one that asked nothing is in no mean.
    assert (shares["runs"], shares["lost"]) == (7, pytest.approx((6 * 0.4 + 1) / 7))
    assert shares["by_cause"] == pytest.approx(
        {"device left": 1.8 / 7, "task dropout": 0.6 / 7, "late": 1 / 7}
    )
    assert shares["by_device_class"] == pytest.approx({"laptop": 0.25, "phone": (6 * 0.5 + 1) / 7})
    assert shares["domains"] == pytest.approx({"gcd": (6 * 0.25 + 1) / 7, "sum": 1.0})
    text = "\n".join(why_page(stress, runs))
    assert "| hurry | 10,060 | 48.6% | 25.7% | 8.6% | 14.3% |" in text
    assert (
        "In the mean over 15 runs, 44.0% of the requests brought no reward (all together, 10,056 of 10,140)"
        in text
    )
    assert "each run weighs alike" in text


def test_the_page_says_where_it_breaks_and_why():
    stress, runs = hand_made({("0", "calm", "wait", 1): FAILED, ("0.5", "rough", "hurry", 0): LATE})
    text = "\n".join(page(stress, runs))
    assert (
        "16 runs (2 dropout x 2 world x 2 policy, seeds 0, 1): 1 failed, 14 finished, 1 out of time." in text
    )
    assert "| 1 | failed | Deadlock: nobody ever comes back | 1 | runs/k0-1 |" in text
    assert "| 2 | out of time | stopped by updates | 1 | runs/k7-0 |" in text
    assert "| 0 | calm | wait | 1 of 2 | failed | (1) |" in text
    assert "| 0.5 | rough | hurry | 1 of 2 | out of time | (2) |" in text
    assert "| wait | calm | 1 min 00 s (-) 1/2 | 2 min 00 s |" in text
    assert "| hurry | calm | 7.5 s (30.0 s) | 15.0 s (1 min 00 s) |" in text
    # Wait wins where hurry was late with seed 0, and nowhere else.
    assert "| wait | rough | 0.0% | 50.0% |" in text and "| hurry | rough | 100.0% | 50.0% |" in text
    assert "Every run finished." in "\n".join(page(*hand_made()))


def test_failures_that_differ_in_their_numbers_alone_are_one_line_and_shared_numbers_stay():
    def failed(at_s):
        return Row(numbers(None, status="failed", reason=f"Deadlock: at {at_s} s 87 tasks wait"))

    stress, runs = hand_made(
        {("0", "calm", "wait", 0): failed("21.3061"), ("0", "calm", "wait", 1): failed("20")}
    )
    text = "\n".join(page(stress, runs))
    assert "| 1 | failed | Deadlock: at … s 87 tasks wait | 2 | runs/k0-0 |" in text
    assert "| 0 | calm | wait | 2 of 2 | failed | (1) |" in text and "21.3061" not in text


@pytest.mark.parametrize(
    ("message", "short"),
    [
        (
            "Deadlock: at 20 s 27 tasks wait and nothing can wake them (2 daemon events are left): main: Play.main at "
            "/work/main/fedsim/experiment.py:180 waits for wait",
            "Deadlock: at 20 s 27 tasks wait and nothing can wake them",
        ),
        (
            "FederationError: no client answered the probe: each was away for good",
            "FederationError: no client answered the probe",
        ),
        (
            "/home/me/my/crowd.yaml:12: protocol.num_experts is 30, but there are 24 clients; must be at most 24",
            "crowd.yaml:12: protocol.num_experts is 30, but there are 24 clients",
        ),
        ("too few", "too few"),
        ("", ""),
    ],
)
def test_a_reason_is_an_errors_name_and_first_clause_without_folders_of_this_machine(message, short):
    assert first_clause(message) == short


def test_causes_that_differ_from_reply_to_reply_are_one_kind():
    assert kind_of("rejected: 7 rewards for 8 candidates") == "rejected"
    assert (
        kind_of("rejected: reward 3.25 (of 8) is above 1 (fault: corrupt_reward)")
        == "rejected (fault: corrupt_reward)"
    )
    for cause in ("device left", "fault: hang", "device left (during fault: hang)", ""):
        assert kind_of(cause) == cause


def test_csv_tables_have_a_row_per_run_and_a_row_per_loss(tmp_path):
    stress, runs = hand_made()
    write_stress(tmp_path, stress, runs)
    lines = (tmp_path / "stress.csv").read_text().splitlines()
    assert len(lines) == 17 and lines[0].startswith("point,dropout,world,policy,seed,status,reason")
    why = (tmp_path / "why.csv").read_text().splitlines()
    assert why[1] == "0,0,calm,wait,device left,dropped,compute,phone,6,12,0.5" and len(why) == 17
    assert (tmp_path / "domains.csv").read_text().splitlines()[1] == "0,0,calm,wait,gcd,8,2,0.25"


def test_a_random_sweep_has_its_ranges_across_and_up_and_its_levels_as_panels():
    axes = {
        "policy": {"levels": [{"name": "a"}]}, "rtt": {"key": "r", "low": 1, "high": 2},
        "loss": {"key": "l", "low": 1, "high": 2}, "kind": {"levels": [{"name": "b"}]},
    }  # fmt: skip
    stress = Stress.model_validate({**GRID, "seeds": (0,), "axes": axes, "random": {"runs": 2}}, strict=False)
    found = layout(stress)
    assert (found.x, found.y, found.panels) == ("rtt", "loss", "policy")


def drawn(axes, seeds=(0, 1)):
    stress = Stress.model_validate_json(
        json.dumps({**GRID, "seeds": list(seeds), "axes": axes, "random": {"runs": 3}})
    )
    runs = [
        (
            StressRun(
                point,
                {"rtt": f"{1 + point / 4}", "loss": "1", "experts": "3", "policy": "ab"[point % 2]},
                seed,
                SCENARIO,
                "k",
            ),
            Row(numbers(60.0 * (point + 1))),
        )
        for point in range(3)
        for seed in seeds
    ]
    return stress, runs


DRAWN = {
    "rtt": {"key": "r", "low": 1.0, "high": 2.0, "unit": "ms"},
    "loss": {"key": "l", "low": 0.1, "high": 10.0, "scale": "log"},
    "experts": {"key": "e", "low": 1, "high": 4, "whole": True},
    "policy": {"levels": [{"name": "a"}, {"name": "b"}]},
}


def test_one_of_a_kind_is_written_in_the_singular():
    assert (counted(1, "seed"), counted(1200, "random point")) == ("1 seed", "1,200 random points")
    assert (named_seeds((0,)), named_seeds((0, 2))) == ("seed 0", "seeds 0, 2")
    assert (named_seeds(range(20), ":"), named_seeds((0, 1, 2, 4))) == ("seeds: 0 to 19", "seeds 0, 1, 2, 4")


def test_random_points_have_no_twins_so_their_page_has_no_ratios():
    text = "\n".join(page(*drawn(DRAWN, seeds=(0,))))
    assert "3 runs (3 random points of rtt, loss, experts, policy, seed 0): 3 finished." in text
    assert (
        "| policy | finished | time | time per usable reward | rewards that came | wasted bytes | groups lost |"
        in text
    )
    assert "| a | 2 of 2 | 1 min 00 s (3 min 00 s) | 2.0 s (6.0 s) |" in text
    assert "ratio" not in text.lower() and "not measured" not in text and "grid" not in text


# --------------------------------------------------------------------------------------------------- from a folder


def test_a_row_is_read_from_a_runs_summary_and_tables(tmp_path):
    run = sample_run(tmp_path / "run")
    row = read_row(run.folder, Ending("finished", "", 2.5), StopConfig(updates=30))
    groups, outcomes = run.groups, run.outcomes
    assert row.numbers["groups_lost_share"] == pytest.approx(
        1 - run.summary["groups"]["trained"] / groups.height
    )
    assert row.numbers["rewards_share"] == groups["num_answered"].sum() / groups["num_experts"].sum()
    used = sum(row["num_answered"] for row in groups.iter_rows(named=True) if row["fate"] == "trained")
    assert row.numbers["rewards_used"] == used > 0
    assert row.numbers["time_per_reward_s"] == run.summary["virtual_s"] / used
    lost = outcomes.filter(~outcomes["status"].is_in(["ok", "over_selected"]))
    assert sum(row.lost.values()) == lost.height > 0
    assert sum(row.asked.values()) == outcomes.filter(outcomes["status"] != "over_selected").height
    assert sum(groups for groups, _ in row.domains.values()) == groups.height
    assert row.numbers["wall_s"] == 2.5


def test_a_run_that_virtual_time_ended_is_out_of_time_only_if_it_was_asked_for_more(tmp_path):
    run = sample_run(tmp_path / "run")
    summary = {**run.summary, "stopped_by": "virtual"}
    (run.folder / "summary.json").write_text(json.dumps(summary))
    ending = Ending("finished", "", 1.0)
    assert (
        read_row(run.folder, ending, StopConfig(updates=99, virtual="5 s")).numbers["status"] == "out_of_time"
    )
    asked = read_row(run.folder, ending, StopConfig(virtual="5 s")).numbers
    assert (asked["status"], asked["time_s"]) == ("finished", run.summary["virtual_s"])


def test_a_run_without_a_summary_is_a_row_with_its_reason_and_a_damaged_one_is_named(tmp_path):
    row = read_row(tmp_path, Ending("refused", "too few", 0.1), StopConfig(updates=1))
    assert row.numbers == {"status": "refused", "reason": "too few", "wall_s": 0.1} and not row.lost
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        read_row(tmp_path, Ending("finished", "", 0.1), StopConfig(updates=1))


# --------------------------------------------------------------------------------------------------------- figures


@pytest.fixture
def sweep(tmp_path):
    both = {("0.5", "rough", "wait", seed): FAILED for seed in (0, 1)}
    write_stress(tmp_path, *hand_made({**both, ("0", "calm", "wait", 1): FAILED}))
    return tmp_path


def test_a_sweep_of_an_earlier_version_is_refused_in_one_line(sweep):
    document = json.loads((sweep / "stress.json").read_text())
    for point in document["points"]:
        del point["time_won"]
    (sweep / "stress.json").write_text(json.dumps(document))
    with pytest.raises(RunFolderError, match="is of an earlier version; sweep again"):
        read_sweep(sweep)


def test_a_heat_map_writes_median_and_p90_marks_the_best_and_says_what_did_not_finish(sweep):
    figure = stress_map(read_sweep(sweep), "time")
    wait, hurry = figure.axes[0], figure.axes[1]
    assert (wait.get_title(), hurry.get_title()) == ("wait", "hurry")
    assert "virtual time to finish: median (90th percentile) of 2 seeds" in footers(figure)
    texts = [text.get_text() for text in wait.texts]
    # Seconds: the middle between 7.5 s and 3 min is below 3 min. The cell of 0.5 and rough failed with both seeds.
    assert texts == ["60", "(-)\n1/2", "120", "(120)", "180", "(180)", "failed"]
    # Hurry: an eighth and a half of the base.
    assert [text.get_text() for text in hurry.texts] == [
        "7.5", "(30)", "15", "(60)", "22", "(90)", "30", "(120)",
    ]  # fmt: skip
    medians = hurry.texts[::2]
    assert [text.get_fontweight() for text in medians] == ["bold", "bold", "bold", "normal"]
    assert {text.get_fontweight() for text in wait.texts} == {"normal"}


def test_a_median_that_is_not_reached_is_no_number_and_says_how_many_finished(tmp_path):
    stress, runs = hand_made()
    three = [
        (dataclasses.replace(run, seed=seed), row if seed == 0 or run.levels["policy"] == "hurry" else FAILED)
        for run, row in runs
        if run.seed == 0
        for seed in range(3)
    ]
    write_stress(tmp_path, stress.model_copy(update={"seeds": (0, 1, 2)}), three)
    wait, hurry, *_ = stress_map(read_sweep(tmp_path), "time").axes
    assert [text.get_text() for text in wait.texts] == ["failed\n1/3"] * 4
    assert [text.get_text() for text in hurry.texts] == [
        "30", "(30)", "60", "(60)", "90", "(90)", "120", "(120)",
    ]  # fmt: skip


def test_maps_rank_by_the_median_and_wins_where_the_mean_ranks_otherwise(tmp_path):
    axes = {"world": GRID["axes"]["world"], "policy": {"levels": [{"name": "deadline"}, {"name": "quorum"}]}}
    stress = Stress.model_validate_json(json.dumps(GRID | {"seeds": [0, 1, 2], "axes": axes}))
    write_stress(tmp_path, stress, raced(deadline=(10, [7.4, 171.0, 8.5]), quorum=(30, [15.0, 16.0, 14.0])))
    read = read_sweep(tmp_path)

    def cells(name):
        return [text.get_text() for text in stress_map(read, name).axes[0].texts if text.get_text() != "none"]

    assert cells("time") == ["8.5", "(171)", "15", "(16)"]
    assert cells("won") == ["67", "33"]
    # Per reward: 44.4, 1026 and 51 s against 30, 32 and 28 s.
    assert cells("time_per_reward") == ["51", "(1026)", "30", "(32)"]
    assert cells("won_per_reward") == ["0", "100"]


def test_an_axis_that_no_map_shows_is_pooled_and_not_a_mean_of_medians(tmp_path):
    stress, runs = hand_made()
    axes = json.loads(json.dumps(GRID["axes"])) | {"size": {"key": "s", "levels": [1, 2, 3]}}
    stress = Stress.model_validate_json(json.dumps(GRID | {"axes": axes}))
    more = [
        (
            dataclasses.replace(run, point=run.point + 100 * size, levels={**run.levels, "size": str(size)}),
            Row(numbers(row.numbers["time_s"] * (100 if size == 3 else size))),
        )
        for run, row in runs
        for size in (1, 2, 3)
    ]
    write_stress(tmp_path, stress, more)
    figure = stress_map(read_sweep(tmp_path), "time")
    assert "median (90th percentile) of 6 runs" in footers(figure)
    # Wait at 0 and calm: 1, 1, 2, 2, 100, 100 min. The third is 2 min and the sixth 100.
    assert [text.get_text() for text in figure.axes[0].texts[:2]] == ["2.0", "(100)"]


def test_measures_that_no_run_has_have_no_map(sweep):
    assert stress_map(read_sweep(sweep), "accuracy") is None
    assert stress_map(read_sweep(sweep), "wasted") is not None


def test_the_figure_of_losses_stacks_to_the_share_that_was_lost(sweep):
    figure = stress_why(read_sweep(sweep))
    causes = figure.axes[0]
    right = max(bar.get_x() + bar.get_width() for bar in causes.patches)
    assert right == pytest.approx(40.0)
    assert [text.get_text() for text in causes.get_legend().get_texts()] == ["device left", "task dropout"]


def test_the_report_draws_what_there_is_and_the_same_bytes_again(sweep):
    written = write_stress_report(sweep)
    names = {path.name for path in written}
    assert names == {
        f"{figure.name}{suffix}"
        for figure in STRESS_FIGURES
        if figure.name != "stress_accuracy"
        for suffix in (".png", ".svg")
    } | {"index.html"}
    for path in save(stress_map(read_sweep(sweep), "time"), sweep / "again" / "stress_time"):
        assert path.read_bytes() == (sweep / "figures" / path.name).read_bytes()
    index = written[-1].read_text()
    assert "Deadlock: nobody ever comes back" in index and "timing fidelity has no accuracy" in index
    with pytest.raises(RunFolderError, match="not a finished sweep"):
        write_stress_report(sweep / "figures")


def footers(figure):
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


def test_a_random_sweeps_figure_says_what_a_mark_is_and_its_axes_have_units(tmp_path):
    write_stress(tmp_path / "one", *drawn(DRAWN, seeds=(0,)))
    figure = stress_map(read_sweep(tmp_path / "one"), "time")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("rtt (ms)", "loss")
    assert "hand: a mark is one random point, seed 0; experts differs as well. Darker is worse." in footers(
        figure
    )
    write_stress(tmp_path / "two", *drawn(DRAWN))
    figure = stress_map(read_sweep(tmp_path / "two"), "time")
    assert "a mark is one random point, the median over seeds 0, 1; experts differs" in footers(figure)


def test_a_grid_of_one_seed_speaks_of_no_mean_over_seeds(tmp_path):
    stress, runs = hand_made()
    one = stress.model_copy(update={"seeds": (0,)})
    write_stress(tmp_path, one, [pair for pair in runs if pair[0].seed == 0])
    figure = stress_map(read_sweep(tmp_path), "time")
    assert "hand: seed 0. Darker is worse." in footers(figure) and "median" not in footers(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["60", "120", "180", "240"]


def test_a_random_sweep_is_drawn_as_points(tmp_path):
    write_stress(tmp_path, *drawn({name: DRAWN[name] for name in ("rtt", "loss")}))
    figure = stress_map(read_sweep(tmp_path), "time")
    (points,) = figure.axes[0].collections
    assert points.get_offsets().tolist() == [[1.0, 1.0], [1.25, 1.0], [1.5, 1.0]]
    assert figure.axes[0].get_yscale() == "log"
