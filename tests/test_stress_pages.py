"""What a sweep's tables and heat maps say (stress_rows.py, stress_pages.py, analysis): digits worked by hand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from sample_run import sample_run

from analysis.figures.stress_maps import stress_map
from analysis.figures.stress_why import stress_why
from analysis.stress_report import STRESS_FIGURES, main, write_stress_report
from analysis.stress_runs import read_sweep
from analysis.style import save
from fedsim.errors import RunFolderError
from fedsim.monitor import StopConfig
from fedsim.stress_file import Stress, StressRun
from fedsim.stress_pages import document, layout, page, ratio, why_page, write_stress
from fedsim.stress_rows import Row, read_row
from fedsim.workers import Ending

GRID = {
    "name": "hand", "base": "x", "seeds": [0, 1],
    "axes": {
        "dropout": {"key": "dropout.per_task", "levels": [0, 0.5]},
        "world": {"levels": [{"name": "calm"}, {"name": "rough"}]},
        "policy": {"levels": [{"name": "wait"}, {"name": "hurry"}]},
    },
}  # fmt: skip
SCENARIO = SimpleNamespace(fidelity="timing", protocol=SimpleNamespace(name="fedgrpo"))


def numbers(time_s, wasted=0.25, status="finished", reason=""):
    return {
        "status": status, "reason": reason, "stopped_by": "updates", "virtual_s": time_s or 9.0, "time_s": time_s,
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


def test_points_hold_means_of_what_finished_and_how_the_others_ended():
    stress, runs = hand_made({("0", "calm", "wait", 1): FAILED, ("0.5", "rough", "hurry", 0): LATE})
    found = document(stress, runs)
    first, last = found["points"][0], found["points"][-1]
    assert first["levels"] == {"dropout": "0", "world": "calm", "policy": "wait"}
    assert first["statuses"] == {"failed": 1, "finished": 1} and first["reasons"] == [
        "Deadlock: nobody ever comes back"
    ]
    assert (first["time_s"]["mean"], first["time_s"]["n"]) == (60.0, 1)
    assert (last["time_s"]["mean"], last["out_of_time_s"]) == (30.0, 9.0)
    assert first["wire_bytes"]["mean"] == 400.0
    assert found["layout"] == {"x": "dropout", "y": "world", "panels": "policy"}


def test_losses_add_up_over_points_and_seeds():
    stress, runs = hand_made()
    lost = document(stress, runs)["lost"]["hurry"]
    assert (lost["asked"], lost["lost"]) == (8 * 10, 8 * 4)
    assert lost["by_cause"] == {"device left": 24, "task dropout": 8}
    assert lost["by_phase"] == {"compute": 24, "queue": 8}
    assert lost["domains"] == {"gcd": {"groups": 32, "lost": 8}, "sum": {"groups": 16, "lost": 16}}
    text = "\n".join(why_page(stress, runs))
    assert "64 of 160 requests brought no reward (40.0%)" in text
    # By class: 24 of 48 asked phones, 8 of 32 asked laptops.
    assert "| hurry | 80 | 40.0% | 50.0% | 25.0% |" in text
    assert "| wait | 25.0% | 100.0% |" in text


def test_the_page_says_where_it_breaks_and_why():
    stress, runs = hand_made({("0", "calm", "wait", 1): FAILED, ("0.5", "rough", "hurry", 0): LATE})
    text = "\n".join(page(stress, runs))
    assert (
        "16 runs (2 dropout x 2 world x 2 policy, seeds 0, 1): 1 failed, 14 finished, 1 out of time." in text
    )
    assert "| 0 | calm | wait | 1 of 2 | failed | Deadlock: nobody ever comes back |" in text
    assert "| 0.5 | rough | hurry | 1 of 2 | out of time | stopped by updates |" in text
    assert "| wait | calm | 1 min 00 s (1/2) | 2 min 00 s |" in text
    assert "Every run finished." in "\n".join(page(*hand_made()))


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


# --------------------------------------------------------------------------------------------------- from a folder


def test_a_row_is_read_from_a_runs_summary_and_tables(tmp_path):
    run = sample_run(tmp_path / "run")
    row = read_row(run.folder, Ending("finished", "", 2.5), StopConfig(updates=30))
    groups, outcomes = run.groups, run.outcomes
    assert row.numbers["groups_lost_share"] == pytest.approx(
        1 - run.summary["groups"]["trained"] / groups.height
    )
    assert row.numbers["rewards_share"] == groups["num_answered"].sum() / groups["num_experts"].sum()
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


def test_a_heat_map_writes_each_mean_marks_the_best_and_says_what_did_not_finish(sweep):
    figure = stress_map(read_sweep(sweep), "time")
    wait, hurry = figure.axes[0], figure.axes[1]
    assert (wait.get_title(), hurry.get_title()) == ("wait", "hurry")
    texts = [text.get_text() for text in wait.texts]
    # Minutes; the largest mean is 3 min, so the unit is minutes. The cell of 0.5 and rough failed with both seeds.
    assert texts == ["1.0", "1/2", "2.0", "3.0", "failed"]
    # Hurry: mean of a half and an eighth of the base, 18.75 s, 37.5 s, 56.25 s, 75 s.
    assert [text.get_text() for text in hurry.texts] == ["0.3", "0.6", "0.9", "1.2"]
    assert [text.get_fontweight() for text in hurry.texts] == ["bold", "bold", "bold", "normal"]
    assert {text.get_fontweight() for text in wait.texts} == {"normal"}


def test_measures_that_no_run_has_have_no_map(sweep):
    assert stress_map(read_sweep(sweep), "accuracy") is None
    assert stress_map(read_sweep(sweep), "wasted") is not None


def test_the_figure_of_losses_stacks_to_the_share_that_was_lost(sweep):
    figure = stress_why(read_sweep(sweep))
    causes = figure.axes[0]
    right = max(bar.get_x() + bar.get_width() for bar in causes.patches)
    assert right == pytest.approx(40.0)
    assert [text.get_text() for text in causes.get_legend().get_texts()] == ["device left", "task dropout"]


def test_the_report_draws_what_there_is_and_the_same_bytes_again(sweep, capsys):
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
    assert main([str(sweep / "figures")]) == 2
    assert "not a finished sweep" in capsys.readouterr().err


def test_a_random_sweep_is_drawn_as_points(tmp_path):
    axes = {
        "rtt": {"key": "r", "low": 1.0, "high": 2.0},
        "loss": {"key": "l", "low": 0.1, "high": 10.0, "scale": "log"},
    }
    stress = Stress.model_validate_json(json.dumps({**GRID, "axes": axes, "random": {"runs": 3}}))
    runs = [
        (
            StressRun(point, {"rtt": f"{1 + point / 4}", "loss": "1"}, seed, SCENARIO, "k"),
            Row(numbers(60.0 * (point + 1))),
        )
        for point in range(3)
        for seed in (0, 1)
    ]
    write_stress(tmp_path, stress, runs)
    figure = stress_map(read_sweep(tmp_path), "time")
    (points,) = figure.axes[0].collections
    assert points.get_offsets().tolist() == [[1.0, 1.0], [1.25, 1.0], [1.5, 1.0]]
    assert figure.axes[0].get_yscale() == "log"
