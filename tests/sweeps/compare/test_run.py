"""Comparisons: planned as a whole (compare/file.py), run in processes, kept, resumed (compare/run.py). In timing fidelity."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from fedsim.cli import main
from fedsim.errors import DataFileError, RunFolderError, ScenarioError
from fedsim.scenario.read import read_scenario
from fedsim.sweeps.code import _WITHOUT_RESULTS, result_code_hash
from fedsim.sweeps.compare import run as sweep
from fedsim.sweeps.compare.file import open_comparison, run_key
from fedsim.sweeps.compare.outlook import lines, outlook
from tests.samples.comparison import read_comparison

ROOT = Path(__file__).resolve().parents[3]

BASE = """\
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, group_size: 4, num_experts: 2, kl_weight: 0.125, update: {groups_per_update: 8, in_flight: 16}}
tasks: {domains: [gcd], sizes: {public: 50, private: 60, auxiliary: 20, pool: 60, validation: 20, test: 20}}
clients: {phone: 3, laptop: 1}
"""
HEAD = "name: pair\nbase: base.yaml\nseeds: [0, 1]\n"
TWO = "variants:\n  - {name: as-it-is}\n  - {name: wider, set: {protocol.group_size: 6}}\n"
SLOW = "variants:\n  - {name: quick}\n  - {name: endless, set: {stop.updates: 100000000}}\n"


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)

    def written(text, name="pair.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


def compare(path, out, *more):
    given = ["compare", str(path), "--out", str(out), "--quiet", "--processes", "1", "--no-figures"]
    return main([*given, *more])


def kept(out):
    """Finished runs, and when each was written."""
    folders = [path for path in (out / "runs").iterdir() if path.is_dir() and path.suffix != ".unfinished"]
    return {path.name: (path / "summary.json").stat().st_mtime_ns for path in folders}


# ------------------------------------------------------------------------------------- planning


def test_a_comparison_is_every_variant_with_every_seed(write):
    comparison, planned = read_comparison(write(HEAD + TWO))
    assert comparison.name == "pair"
    assert [(run.variant, run.seed) for run in planned] == [
        ("as-it-is", 0), ("as-it-is", 1), ("wider", 0), ("wider", 1),
    ]  # fmt: skip
    assert [run.scenario.seed for run in planned] == [0, 1, 0, 1]
    assert [run.scenario.protocol.group_size for run in planned] == [4, 4, 6, 6]
    assert len({run.key for run in planned}) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "variants:\n  - {name: a}\n  - {name: b, set: {protocol.grop_size: 6}}\n", ("variant b", "group_size")),
        (HEAD + "variants:\n  - {name: a, set: {protocol.group_size: 0}}\n", ("variant a", "at least 1")),
        (HEAD + "variants:\n  - {name: a, protocol: fedgrop}\n", ("variant a", "did you mean 'fedgrpo'")),
        (HEAD + "variants:\n  - {name: a}\n  - {name: a}\n", ("same name",)),
        (HEAD + "variants: []\n", ("variants",)),
        (HEAD, ("variants",)),
        (HEAD.replace("[0, 1]", "[0, 0]") + TWO, ("seed stands twice",)),
        (HEAD.replace("[0, 1]", "[-1]") + TWO, ("seeds.0 is -1",)),
        (HEAD.replace("base.yaml", "bose.yaml") + TWO, ("bose.yaml",)),
        (HEAD + "speeds: 3\n" + TWO, ("speeds",)),
        (BASE, ("fedsim run",)),
    ],
)  # fmt: skip
def test_what_is_wrong_anywhere_is_one_line_before_anything_is_written(write, tmp_path, capsys, text, words):
    assert compare(write(text), tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert all(word in printed.err for word in words), printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        (
            "  - name: b\n    set:\n      protocol.grop_size: 6\n",
            "variant b: protocol.grop_size is not a key",
        ),
        (
            "  - name: b\n    set:\n      protocol.group_size: 0\n",
            "variant b: protocol.group_size is 0; must be",
        ),
    ],
)
def test_a_mistake_in_a_variant_names_its_own_line_and_no_override_that_nobody_typed(write, variants, said):
    text = HEAD + "variants:\n  - {name: a}\n" + variants
    line = len(text.splitlines())
    with pytest.raises(ScenarioError) as error:
        read_comparison(path := write(text))
    assert str(error.value).startswith(f"{path}:{line}: {said}")
    assert "--set" not in str(error.value)


def test_another_protocol_keeps_the_settings_that_both_have_and_takes_its_own_defaults(write):
    path = write(
        HEAD + "variants:\n  - {name: a, protocol: central_grpo, set: {protocol.temperature: 0.5}}\n"
    )
    settings = read_comparison(path)[1][0].scenario.protocol
    assert (settings.name, settings.group_size, settings.kl_weight) == ("central_grpo", 4, 0.125)
    assert settings.temperature == 0.5
    assert not hasattr(settings, "num_experts")


def test_a_key_changes_with_seed_and_setting_and_not_with_the_scenarios_name(write):
    path = write(BASE, "one.yaml")
    plain = run_key(read_scenario(path))
    assert run_key(read_scenario(path, ["name=other"])) == plain
    assert run_key(read_scenario(path, seed=7)) != plain
    assert run_key(read_scenario(path, ["protocol.group_size=5"])) != plain
    assert run_key(read_scenario(path, ["protocol.group_size=4"])) == plain


def test_a_key_changes_with_what_a_named_file_holds_and_not_with_where_it_lies(write, tmp_path):
    scenario = BASE.replace("{phone: 3, laptop: 1}", "{file: devices.csv}")
    keys = []
    for folder, devices in (("a", "class\nphone\n"), ("b", "class\nphone\n"), ("c", "class\nlaptop\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "devices.csv").write_text(devices)
        keys.append(run_key(read_scenario(write(scenario, f"{folder}/one.yaml"))))
    assert keys[0] == keys[1] != keys[2]
    (tmp_path / "a" / "devices.csv").unlink()
    with pytest.raises(DataFileError, match=r"devices\.csv: cannot be read"):
        run_key(read_scenario(tmp_path / "a" / "one.yaml"))


def test_a_key_changes_with_what_the_folder_of_a_data_set_holds(write, tmp_path):
    keys = []
    path = write(BASE, "one.yaml")
    (tmp_path / "data").mkdir()
    for name, text in (("train.jsonl", "a"), ("README.md", "a"), ("test.jsonl", "b"), ("test.jsonl", "c")):
        (tmp_path / "data" / name).write_text(text)
        keys.append(run_key(read_scenario(path, ["tasks.file=data"])))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.slow
def test_the_code_hash_changes_with_code_that_computes_and_not_with_docstrings_or_what_only_shows(tmp_path):
    left_out = shutil.ignore_patterns(
        "__pycache__", "federation", "figures", "models", "protocols", "rl", "tasks"
    )
    part = shutil.copytree(ROOT / "fedsim", tmp_path / "part", ignore=left_out)

    def hash_after(name, change):
        folder = shutil.copytree(part, tmp_path / name)
        change(folder)
        return result_code_hash(folder)

    def prepend(file, text):
        return lambda folder: (folder / file).write_text(text + (folder / file).read_text())

    plain = hash_after("plain", lambda folder: None)
    whole = shutil.copytree(ROOT / "fedsim", tmp_path / "whole", ignore=shutil.ignore_patterns("__pycache__"))
    assert result_code_hash(whole) == result_code_hash() != plain
    assert hash_after("comment", prepend("sim/network/link.py", "# note\n")) == plain
    assert hash_after("shown", prepend("cli/__init__.py", "EXTRA = 1\n")) == plain
    assert hash_after("code", prepend("sim/network/tcp.py", "EXTRA = 1\n")) != plain
    assert (
        hash_after(
            "all shown", lambda folder: [prepend(name, "EXTRA = 1\n")(folder) for name in _WITHOUT_RESULTS]
        )
        == plain
    )
    assert hash_after("preset", prepend("sim/presets/devices.yaml", "# other\n")) != plain


def test_a_mapping_that_a_variant_sets_replaces_what_stood_there(write):
    path = write(HEAD + "variants:\n  - {name: a, set: {clients: {edge-server: 20}}}\n")
    (first, _) = read_comparison(path)[1]
    classes = {name for name, settings in first.scenario.resolved()["clients"].items() if settings}
    assert classes == {"edge-server"}


def test_seeds_can_be_given_instead_of_the_files_own(write, tmp_path, capsys):
    path, out = write(HEAD + TWO), tmp_path / "out"
    assert [run.seed for run in read_comparison(path, (7,))[1]] == [7, 7]
    assert compare(path, out, "--seeds", "5") == 0
    assert json.loads((out / "comparison.json").read_text())["seeds"] == [5]
    capsys.readouterr()
    for wrong, words in (("1,x", "whole numbers"), ("1,1", "a seed stands twice"), ("", "whole numbers")):
        assert compare(path, tmp_path / "new", "--seeds", wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--seeds" in line and words in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("target: {validation_greedy: 1.5}\n", ("pair.yaml:4", "validation_greedy is 1.5")),
        ("target: {}\n", ("pair.yaml:4", "either validation_greedy or share_of_gain")),
        ("target: {share_of_gain: 0.9, validation_greedy: 0.4}\n", ("either",)),
        ("target: {validation: 0.4}\n", ("did you mean 'validation_greedy'",)),
    ],
)
def test_a_target_that_means_nothing_is_refused(write, text, words):
    with pytest.raises(ScenarioError) as error:
        read_comparison(write(HEAD + text + TWO))
    assert all(word in str(error.value) for word in words), error.value


# ------------------------------------------------------------------------------------- running


def test_a_comparison_draws_its_figures_and_says_where_they_are(write, tmp_path, capsys):
    out = tmp_path / "out"
    path = write(HEAD.replace("[0, 1]", "[0]") + "variants:\n  - {name: a}\n")
    assert compare(path, out, "--figures") == 0
    index = out / "figures" / "index.html"
    assert capsys.readouterr().out.splitlines()[-2:] == [str(index), str(out)]
    assert "<img" in index.read_text()


def test_to_check_a_comparison_runs_nothing_and_counts_what_is_kept(write, tmp_path, capsys):
    path, out = write(HEAD + TWO), tmp_path / "out"
    assert compare(path, out, "--check") == 0
    assert not out.exists()
    assert compare(path, out, "--seeds", "0") == 0
    capsys.readouterr()
    assert compare(path, out, "--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"pair: 4 runs, 2 kept in {out}, 2 to do"
    assert lines[1].startswith("real time about ")
    assert lines[3].split()[:3] == ["as-it-is", "1/2", "kept"] and "requests " in lines[3]
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.startswith("pair: 4 runs, 0 kept in runs/pair, 4 to do")


def test_an_estimate_takes_bounded_time_and_says_what_it_left_out(write):
    large = "variants:\n  - {name: a, set: {protocol.update.groups_per_update: 900}}\n"
    found = outlook(write(HEAD + large), budget_s=0.0)
    assert [variant.estimate for variant in found.variants] == [None]
    assert "kept · no estimate: the time for it was over after 0 of " in "\n".join(lines(found))


def test_a_check_refuses_a_variant_that_can_never_begin_as_the_comparison_would(write, capsys):
    path = write(HEAD + "variants:\n  - {name: a}\n  - {name: b, set: {protocol.num_experts: 9}}\n")
    assert main(["check", str(path), "--budget", "0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "variant b: " in printed.err and "there are 4 clients" in printed.err


def test_a_comparison_leaves_its_tables_and_is_not_done_twice(write, tmp_path, capsys):
    path, out = write(HEAD + TWO), tmp_path / "out"
    assert compare(path, out, "--processes", "2") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out)
    assert "| as-it-is |" in printed.out
    document = json.loads((out / "comparison.json").read_text())
    assert [one["name"] for one in document["variants"]] == ["as-it-is", "wider"]
    assert {one["protocol"] for one in document["variants"]} == {"fedgrpo"}
    for one in document["variants"]:
        found = one["bytes"]["paper"]["uplink"]
        assert (
            set(found) == {"mean", "low", "high", "n", "median", "p90"}
            and found["n"] == 2
            and found["mean"] > 0
        )
        assert one["accuracy"]["greedy"]["final"]["mean"] is None
    for run in document["runs"]:
        summary = json.loads((out / run["folder"] / "summary.json").read_text())
        assert summary["seed"] == run["seed"]
    before = kept(out)
    assert len(before) == 4

    shutil.rmtree(out / document["runs"][1]["folder"])
    assert compare(path, out) == 0
    after = kept(out)
    again = [key for key in before if after[key] != before[key]]
    assert again == [Path(document["runs"][1]["folder"]).name]
    assert json.loads((out / "comparison.json").read_text()) == document


def test_two_variants_that_come_to_the_same_scenario_are_run_once(write, tmp_path):
    same = "variants:\n  - {name: a}\n  - {name: b, set: {protocol.group_size: 4}}\n"
    out = tmp_path / "out"
    assert compare(write(HEAD + same), out) == 0
    assert len(kept(out)) == 2
    document = json.loads((out / "comparison.json").read_text())
    first, second = (
        {key: value for key, value in one.items() if key not in ("name", "minus_first")}
        for one in document["variants"]
    )
    assert first == second
    assert document["variants"][1]["minus_first"]["bytes"]["wire"]["uplink"]["mean"] == 0.0


def test_devices_from_a_file_beside_the_base_are_found_by_the_runs(write, tmp_path):
    write(BASE.replace("{phone: 3, laptop: 1}", "{file: devices.csv}"), "base.yaml")
    write("class\nphone\nphone\nlaptop\n", "devices.csv")
    out = tmp_path / "out"
    assert compare(write(HEAD.replace("[0, 1]", "[0]") + "variants:\n  - {name: a}\n"), out) == 0
    (key,) = kept(out)
    assert len(json.loads((out / "runs" / key / "clients.json").read_text())) == 3


def test_a_run_that_fails_is_named_with_variant_and_seed_and_the_finished_ones_are_kept(
    write, tmp_path, capsys
):
    text = "variants:\n  - {name: good}\n  - {name: stuck, set: {limits.events: 10}}\n"
    out = tmp_path / "out"
    assert compare(write(HEAD.replace("[0, 1]", "[3]") + text), out) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "variant stuck, seed 3 failed: " in line and "LimitExceeded" in line and ".log" in line
    assert sum(sweep.is_finished(path) and path.suffix == "" for path in (out / "runs").iterdir()) == 1
    assert not (out / "comparison.json").exists()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_comparison_keeps_what_is_finished_and_leaves_no_child(write, tmp_path, number):
    path, out = write(HEAD.replace("[0, 1]", "[0]") + SLOW), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "fedsim",
        "compare",
        str(path),
        "--out",
        str(out),
        "--processes",
        "2",
        "--quiet",
        "--no-figures",
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        runs = out / "runs"
        for _ in range(600):
            names = [one.name for one in runs.iterdir()] if runs.is_dir() else []
            folders = [name for name in names if (runs / name / "summary.json").exists() and "." not in name]
            if folders and any(name.endswith(".unfinished") for name in names):
                break
            time.sleep(0.1)
        children = _children(process.pid)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "fedsim: interrupted\n")
    assert len(children) == 2 and not any(_alive(child) for child in children)
    (left,) = out.glob("runs/*.unfinished")
    assert not sweep.is_finished(runs / left.stem)
    assert list(kept(out)) == folders

    if number != signal.SIGINT:
        return
    before = kept(out)
    again = path.read_text().replace("{stop.updates: 100000000}", "{stop.updates: 3}")
    path.write_text(again)
    assert compare(path, out) == 0
    assert kept(out)[folders[0]] == before[folders[0]]
    assert len(json.loads((out / "comparison.json").read_text())["variants"]) == 2


def _children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("stranger", ["manifest.json", "thesis.tex"])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(write, tmp_path, capsys, stranger):
    out = tmp_path / "out"
    out.mkdir()
    (out / stranger).write_text("mine")
    assert compare(write(HEAD + TWO), out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(out) in line and stranger in line and "not a comparison" in line
    assert [path.name for path in out.iterdir()] == [stranger]


def test_a_file_in_the_folders_place_is_refused(write, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert compare(write(HEAD + TWO), tmp_path / "out") == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_notes_that_somebody_adds_to_a_comparisons_folder_do_not_stop_it(tmp_path):
    out = tmp_path / "out"
    with sweep.taken(out):
        (out / sweep.MARKER).write_text("name: x\n")
    (out / "notes.txt").write_text("mine")
    with sweep.taken(out):
        assert (out / "notes.txt").read_text() == "mine"


def test_of_two_comparisons_on_one_folder_the_second_is_refused_in_one_line(write, tmp_path, capsys):
    out = tmp_path / "out"
    with sweep.taken(out):
        assert compare(write(HEAD + TWO), out) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(out) in line and "another comparison is running" in line
        assert list((out / "runs").iterdir()) == []
    with FileLock(out / sweep.LOCK).acquire(timeout=0):
        pass


def test_the_lock_is_given_back_when_a_comparison_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), sweep.taken(tmp_path / "out"):
        raise ZeroDivisionError
    with sweep.taken(tmp_path / "out"):
        pass


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"), sweep.taken(tmp_path / "file" / "out"):
        pass


def test_the_shipped_comparisons_are_valid():
    from fedsim.scenario.read import shipped_comparisons

    for path in shipped_comparisons().values():
        try:  # with one seed: the others make the same runs
            comparison, planned = read_comparison(path, open_comparison(path).comparison.seeds[:1])
        except ScenarioError as error:
            pytest.fail(str(error))
        assert len(planned) == len(comparison.seeds) * len(comparison.variants)
