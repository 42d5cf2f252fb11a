"""Numbers over seeds (comparison.py) and fingerprints of code (provenance.py)."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.errors import RunFolderError
from fedsim.records.provenance import code_fingerprint
from fedsim.sweeps.compare.tables import aggregate, gain, show, table, wasted_share, write_comparison
from fedsim.sweeps.stats import interval, paired


def summary(seed=0, greedy=0.5, uplink=2**20, **others):
    accuracy = {name: {"initial": 0.25, "final": greedy} for name in ("greedy", "pass_at_1", "pass_at_8")}
    sizes = {"paper": {"uplink": uplink}, "wire": {"uplink": 2 * uplink, "downlink": 4 * uplink}}
    head = {"protocol": "fedgrpo", "seed": seed, "wall_s": 99.0, "virtual_s": 10.0}
    return head | {"accuracy": accuracy, "bytes": sizes} | others


# ------------------------------------------------------------------------------------- intervals


def test_an_interval_is_students_t_as_worked_by_hand():
    # Mean 2, s = 1, t(0.975, 2 degrees of freedom) = 4.302653 in the tables: 2 +- 4.302653 / sqrt(3).
    found = interval([1.0, 2.0, 3.0])
    assert (found["mean"], found["n"]) == (2.0, 3)
    assert found["low"] == pytest.approx(2 - 2.484138, abs=1e-6)
    assert found["high"] == pytest.approx(2 + 2.484138, abs=1e-6)


def test_two_values_have_the_wide_interval_of_one_degree_of_freedom():
    # s = sqrt(2), so the half width is t(0.975, 1) = 12.706205 times sqrt(2) / sqrt(2).
    found = interval([0.0, 2.0])
    assert found["high"] == pytest.approx(1 + 12.706205, abs=1e-6)


def test_one_value_has_no_interval_none_has_no_mean_and_an_undefined_one_is_left_out():
    assert interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}
    assert interval([None, None]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert interval([1.0, None, 2.0, 3.0]) == interval([1.0, 2.0, 3.0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(-1e3, 1e3))
def test_shifting_every_value_shifts_the_interval(values, shift):
    one, other = interval(values), interval([value + shift for value in values])
    for bound in ("mean", "low", "high"):
        assert other[bound] == pytest.approx(one[bound] + shift, abs=1e-3)


def test_paired_differences_cancel_what_the_seeds_have_in_common():
    ours, theirs = [0.9, 0.5, 0.1], [0.8, 0.4, 0.0]
    found = paired(ours, theirs)
    assert found["mean"] == pytest.approx(0.1)
    assert found["low"] == pytest.approx(0.1) and found["high"] == pytest.approx(0.1)
    alone = interval(ours)
    assert alone["high"] - alone["low"] > 1


def test_a_pair_that_one_side_lacks_is_left_out_and_sides_of_different_length_are_a_bug():
    assert paired([1.0, None, 3.0], [0.0, 0.0, 1.0])["n"] == 2
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [1.0, 2.0])


def test_an_interval_is_shown_with_its_bounds_and_a_difference_with_its_sign():
    assert show({"mean": 0.4123, "low": 0.398, "high": 0.426, "n": 5}) == "0.412 [0.398, 0.426]"
    assert show({"mean": 0.1, "low": -0.05, "high": 0.25, "n": 5}, signed=True) == "+0.100 [-0.050, +0.250]"
    assert show({"mean": -1e-9, "low": -0.1, "high": 0.1, "n": 5}) == "0.000 [-0.100, 0.100]"
    assert show(interval([0.5])) == "0.500"
    assert show(interval([])) == "not measured"


# ------------------------------------------------------------------------------------- aggregates


def test_aggregates_keep_the_summaries_keys_and_leave_texts_and_truths_out():
    found = aggregate([{"a": 1, "b": {"c": 2.0}, "t": "x", "f": True}, {"a": 3, "b": {"c": None, "d": 4}}])
    assert list(found) == ["a", "b"]
    assert found["a"]["mean"] == 2.0
    assert (found["a"]["median"], found["a"]["p90"]) == (1, 3)  # of two the first and the second
    assert found["b"] == {
        "c": interval([2.0]) | {"median": 2.0, "p90": 2.0},
        "d": interval([4.0]) | {"median": 4, "p90": 4},
    }


def test_virtual_times_are_medians_so_one_slow_seed_of_three_does_not_rank_a_method_last(tmp_path):
    runs = {
        name: [summary(seed, virtual_s=60.0 * minutes) for seed, minutes in enumerate(found)]
        for name, found in {"deadline": [7.4, 171.0, 8.5], "quorum": [15.0, 16.0, 14.0]}.items()
    }
    document, lines = written(tmp_path, runs)
    assert "| 8 min 30 s (2 h 51 min) |" in lines[2] and "| 15 min 00 s (16 min 00 s) |" in lines[3]
    first, second = (one["virtual_s"] for one in document["variants"])
    assert (first["median"], second["median"], first["p90"]) == (510, 900, 10260)
    assert first["mean"] > second["mean"]
    assert "Virtual time: median, in brackets the 90th percentile: of n values the ceil(n/2)-th" in lines[5]


def test_the_files_have_one_entry_per_variant_one_row_per_run_and_one_line_per_variant(tmp_path):
    runs = {
        "zero_shot": [summary(0, 0.25), summary(1, 0.25)],
        "fedgrpo": [summary(0, 0.5), summary(1, 0.75)],
    }
    listed = [
        {"variant": name, "seed": seed, "folder": f"runs/{name}{seed}"} for name in runs for seed in (0, 1)
    ]
    written = write_comparison(tmp_path, "named", (0, 1), runs, listed)
    assert [path.name for path in written] == ["comparison.json", "comparison.csv", "comparison.md"]

    document = json.loads(written[0].read_text())
    assert {key: document[key] for key in ("name", "seeds", "level", "runs")} == {
        "name": "named", "seeds": [0, 1], "level": 0.95, "runs": listed,
    }  # fmt: skip
    assert [(one["name"], one["protocol"]) for one in document["variants"]] == [
        ("zero_shot", "fedgrpo"), ("fedgrpo", "fedgrpo"),
    ]  # fmt: skip
    second = document["variants"][1]
    same = dict.fromkeys(("mean", "low", "high", "median", "p90"), 2**20)
    assert second["bytes"]["paper"]["uplink"] == same | {"n": 2}
    assert second["accuracy"]["greedy"]["final"]["mean"] == 0.625
    assert "seed" not in second and "wall_s" not in second

    rows = list(csv.DictReader(io.StringIO(written[1].read_text())))
    assert [(row["variant"], row["seed"], row["accuracy.greedy.final"]) for row in rows] == [
        ("zero_shot", "0", "0.25"), ("zero_shot", "1", "0.25"), ("fedgrpo", "0", "0.5"), ("fedgrpo", "1", "0.75"),
    ]  # fmt: skip
    lines = written[2].read_text().splitlines()
    assert lines[2].startswith("| zero_shot | not recorded | 0.250 [0.250, 0.250] |  | ")
    assert lines[3].startswith("| fedgrpo | not recorded | 0.625 [") and "| +0.375 [" in lines[3]
    assert lines[3].endswith("| 1.00 MiB | 2.00 MiB | 4.00 MiB |  | 10.0 s |  |")
    assert all(line.count("|") == lines[0].count("|") for line in lines[:4])


def test_what_was_not_measured_is_said_and_never_shown_as_a_number():
    line = table({"timing": [summary(greedy=None, leaves=[])]}).splitlines()[2]
    assert line.startswith("| timing | nothing | not measured |  | 1.00 MiB |")
    assert gain(summary(greedy=None)) is None
    assert gain(summary(greedy=0.75)) == 0.5


def written(folder, runs, **more):
    """comparison.json, and the lines of comparison.md."""
    seeds = [one["seed"] for one in next(iter(runs.values()))]
    listed = [
        {"variant": name, "seed": seed, "folder": f"runs/{name}{seed}"} for name in runs for seed in seeds
    ]
    write_comparison(folder, "named", seeds, runs, listed, **more)
    document = json.loads((folder / "comparison.json").read_text())
    return document, (folder / "comparison.md").read_text().splitlines()


def test_differences_to_the_first_variant_are_paired_by_seed_and_keep_the_summaries_keys(tmp_path):
    runs = {
        "adapters": [summary(0, 0.4, uplink=100), summary(1, 0.8, uplink=300)],
        "rewards": [summary(0, 0.5, uplink=1), summary(1, 0.9, uplink=201)],
    }
    first, second = written(tmp_path, runs)[0]["variants"]
    assert first["minus_first"] is None
    found = second["minus_first"]
    same = dict.fromkeys(("mean", "low", "high", "median", "p90"), 0.1)
    assert found["accuracy"]["greedy"]["final"] == pytest.approx(same | {"n": 2})
    assert found["gain"] == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1, "n": 2})
    same = dict.fromkeys(("mean", "low", "high", "median", "p90"), -198)
    assert found["bytes"]["wire"]["uplink"] == pytest.approx(same | {"n": 2})
    assert found["bytes"]["paper"]["uplink"]["mean"] == -99
    assert found["virtual_s"]["mean"] == 0.0
    assert second["gain"]["mean"] == pytest.approx(0.45)


def test_extra_sets_of_questions_have_a_table_of_their_own_where_there_are_any(tmp_path):
    def looked(seed, final):
        greedy = {"initial": 0.25, "final": final}
        return summary(seed, looks={"reworded": {"greedy": greedy, "num_questions": 4}})

    runs = {"a": [looked(0, 0.5), looked(1, 0.5)], "b": [looked(0, 0.75), looked(1, 0.75)]}
    document, lines = written(tmp_path, runs)
    assert document["variants"][1]["minus_first"]["looks"]["reworded"]["greedy"]["final"]["mean"] == 0.25
    start = lines.index("| method | greedy, reworded |")
    assert lines[start + 1] == "|---|---|"
    assert lines[start + 3].startswith("| b | 0.750 [0.750, 0.750], from 0.250 [0.250, 0.250] |")
    document, lines = written(tmp_path, {"a": [summary(0)], "b": [summary(0)]})
    assert "looks" not in document["variants"][1]["minus_first"]
    assert not any("reworded" in line for line in lines)


def test_a_seed_that_one_of_the_two_did_not_measure_is_no_pair(tmp_path):
    runs = {"a": [summary(0, 0.4), summary(1, None)], "b": [summary(0, 0.5), summary(1, 0.9)]}
    found = written(tmp_path, runs)[0]["variants"][1]["minus_first"]
    assert found["accuracy"]["greedy"]["final"]["n"] == found["gain"]["n"] == 1
    assert found["virtual_s"]["n"] == 2


def test_what_leaves_the_clients_and_what_is_billed_and_tuned_stand_beside_the_numbers(tmp_path):
    bill = "server as Big-7B, clients as Big-1B"
    runs = {
        "rewards": [
            summary(leaves=["scalars"], billed=bill),
            summary(1, leaves=["scalars", "answers"], billed=bill),
        ],
        "central": [summary(leaves=[]), summary(1, leaves=[])],
    }
    tuned = {"rewards": {"key": "protocol.learning_rate", "value": 3e-4, "by": "tuning"}, "central": None}
    document, lines = written(tmp_path, runs, tuned=tuned)
    first, second = document["variants"]
    assert (first["leaves"], first["billed"], first["tuned"]) == (
        ["scalars", "answers"],
        bill,
        tuned["rewards"],
    )
    assert (second["leaves"], second["billed"], second["tuned"]) == ([], None, None)
    assert lines[2].startswith("| rewards | scalars, answers |") and lines[3].startswith(
        "| central | nothing |"
    )
    notes = "\n".join(lines[4:])
    assert f"- {bill}: rewards" in notes.splitlines()
    assert "rewards: protocol.learning_rate 0.0003 (chosen on validation)" in notes
    tuned["rewards"]["by"] = "file"
    assert "0.0003 (the file's own, not chosen here)" in "\n".join(written(tmp_path, runs, tuned=tuned)[1])


def test_models_and_text_lengths_that_are_billed_are_said_once_each(tmp_path):
    small, large = (f"server as Big-{size}, clients as Big-1B" for size in ("3B", "7B"))
    drawn, fixed = "question lognormal (median 80, 95% 200), 4 bytes a token", "question 80, 4 bytes a token"
    runs = {
        "rewards-3b": [summary(billed=f"{small}; text lengths: {drawn}")],
        "rows-3b": [summary(billed=f"{small}; text lengths: {fixed}")],
        "rewards-7b": [summary(billed=f"{large}; text lengths: {drawn}")],
        "models-alone": [summary(billed=large)],
        "texts-alone": [summary(billed=f"text lengths: {drawn}")],
        "plain": [summary(billed=None)],
    }
    lines = written(tmp_path, runs)[1]
    assert [line for line in lines if line.startswith("- ")] == [
        f"- {small}: rewards-3b, rows-3b",
        f"- {large}: rewards-7b, models-alone",
        f"- text lengths: {drawn}: rewards-3b, rewards-7b, texts-alone",
        f"- text lengths: {fixed}: rows-3b",
    ]
    same = {name: [summary(billed=f"{small}; text lengths: {drawn}")] for name in "ab"}
    lines = written(tmp_path, same)[1]
    assert f"- {small}: all methods" in lines and f"- text lengths: {drawn}: all methods" in lines


def test_training_the_clients_own_models_is_said_to_be_outside_virtual_time(tmp_path):
    def trained(seed, longest_s):
        return summary(seed, one_off={"client_training": {"longest_s": longest_s, "device_s": 9 * longest_s}})

    runs = {
        "rewards": [trained(0, 60.0), trained(1, 7000.0)],  # the median of two is the lower
        "random": [trained(0, 60.0), trained(1, 60.0)],
        "slow": [trained(0, 200.0), trained(1, 200.0)],
        "adapters": [trained(0, 0.0), trained(1, 0.0)],
        "old": [summary(), summary(1)],
    }
    wanted = (
        "Not in virtual time: training the clients' own models once, 1 min 00 s on the slowest device: rewards, random; "
        "3 min 20 s on the slowest device: slow."
    )
    assert wanted in written(tmp_path, runs)[1]
    none = {name: runs[name] for name in ("adapters", "old")}
    assert "Not in virtual time" not in "\n".join(written(tmp_path, none)[1])


def test_synthetic_rows_name_the_epsilon_that_their_runs_promise(tmp_path):
    runs = {name: [summary(leaves=["synthetic rows"])] for name in ("private", "open", "unknown", "broken")}
    for name, epsilon in (("private", 8.0), ("open", "inf")):
        (tmp_path / f"runs/{name}0").mkdir(parents=True)
        ledger = [{"client_id": client_id, "epsilon": epsilon, "delta": None} for client_id in range(2)]
        (tmp_path / f"runs/{name}0" / "privacy.json").write_text(json.dumps(ledger))
    lines = written(tmp_path, runs)[1]
    assert lines[2].startswith("| private | synthetic rows (epsilon 8) |")
    assert lines[3].startswith("| open | synthetic rows (epsilon inf) |")
    assert lines[4].startswith("| unknown | synthetic rows |")
    (tmp_path / "runs/broken0").mkdir()
    (tmp_path / "runs/broken0" / "privacy.json").write_text("[{}]")
    with pytest.raises(RunFolderError, match=r"privacy\.json cannot be read"):
        written(tmp_path, runs)


def test_the_wasted_share_counts_every_byte_whose_fate_is_not_useful(tmp_path):
    one = summary(leaves=["scalars"])
    one["bytes"]["by_fate"] = {"useful": 60, "late": 30, "cut": 10}
    assert wasted_share(one) == pytest.approx(0.4)
    assert "| 40.0% |" in table({"a": [one]})
    one["bytes"]["by_fate"] = {"useful": 0, "late": 0}
    assert wasted_share(one) is None


def test_sizes_of_a_column_have_digits_enough_to_tell_them_apart():
    def cell(uplink):
        return table({"a": [summary(uplink=uplink)]}).splitlines()[2].split(" | ")[4]

    assert cell(6160.23 * 2**20) == "6160.2 MiB"
    assert cell(2.4414 * 2**20) == "2.44 MiB"
    assert cell(0.0123 * 2**20) == "0.012 MiB"
    assert cell(64) == "< 0.001 MiB"
    assert cell(0) == "0.00 MiB"


# ------------------------------------------------------------------------------------- fingerprints

PLAIN = "class A:\n    def f(self, x):\n        return x + 1\n"


@pytest.mark.parametrize(
    "same",
    [
        "# a comment\n" + PLAIN,
        '"""A module."""\n' + PLAIN,
        PLAIN.replace("        return", '        """Adds."""\n\n        return').replace(
            "x + 1", "(x\n + 1)"
        ),
    ],
    ids=["comment", "module docstring", "method docstring and layout"],
)
def test_comments_docstrings_and_layout_do_not_change_a_fingerprint(same):
    assert code_fingerprint(same) == code_fingerprint(PLAIN)


@pytest.mark.parametrize(
    "other",
    [PLAIN.replace("1", "2"), PLAIN.replace("+", "-"), PLAIN.replace("x", "y"), PLAIN + "g = 'text'\n"],
)
def test_anything_that_computes_changes_a_fingerprint(other):
    assert code_fingerprint(other) != code_fingerprint(PLAIN)


def test_a_text_that_is_not_a_docstring_counts():
    assert code_fingerprint("x = 1\n'text'\n") != code_fingerprint("x = 1\n'other'\n")
