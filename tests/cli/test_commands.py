from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedsim.cli import main
from fedsim.config.yaml import parse
from fedsim.protocols import names
from fedsim.scenario.read import scenario_from

REPOSITORY = Path(__file__).parents[2]
HEAVY = (
    "torch", "transformers", "reasoning_gym", "polars", "matplotlib", "peft", "accelerate", "scipy", "networkx",
)  # fmt: skip

TIMING = """\
# A federation on token counts alone.
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, update: {groups_per_update: 8, in_flight: 16}}
tasks: {domains: [gcd], sizes: {public: 50, private: 60, auxiliary: 20, pool: 60, validation: 20, test: 20}}
clients: {phone: 3, laptop: 1}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TIMING)
    return path


def python(code: str) -> str:
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return shown.stdout


def test_a_run_prints_its_folder_last_and_leaves_its_results_there(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["run", str(scenario), "--out", str(out), "--no-figures", "--quiet", "--seed", "5"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == str(out)
    assert printed.err == ""
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["seed"], summary["updates"]) == (5, 2)
    manifest = json.loads((out / "manifest.json").read_text())
    assert scenario_from(manifest["scenario"]).seed == 5


def test_a_run_that_is_not_on_a_terminal_reports_progress_in_plain_lines(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(scenario), "--out", str(tmp_path / "run"), "--no-figures"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "federation: started" in lines
    assert any(line.startswith("federation: done after ") and ", 2/2" in line for line in lines)


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(scenario), "--out", str(tmp_path / "run"), "--no-figures", "--quiet"]
    assert main(arguments) == 0
    before = (tmp_path / "run" / "summary.json").read_bytes()
    capsys.readouterr()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert str(tmp_path / "run") in printed.err
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_bad_input_is_one_line_and_exit_code_2(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(scenario), "--set", "protocol.group_size=0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "--set protocol.group_size=0: protocol.group_size is 0; must be at least 1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["fly"],
        ["check", "quickstart", "--sett", "a=b"],
        ["check", "quickstart", "--seed", "x"],
        ["check", "no-such-scenario"],
        ["show", "no-such-folder"],
        ["check", "quickstart", "--set", "seed"],
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


def test_a_run_that_fails_is_one_line_and_exit_code_1(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["run", str(scenario), "--out", str(out), "--quiet", "--set", "limits.events=10"]
    assert main(arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fedsim: LimitExceeded: ")
    assert json.loads((out / "manifest.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("limit", ["limits.events=10", "limits.events=3000", "limits.virtual=0.5 s"])
def test_a_run_that_meets_its_limit_says_one_line_and_cleans_up_in_silence(
    scenario: Path, tmp_path: Path, limit: str, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", str(scenario), "--out", str(tmp_path / "run"), "--quiet", "--set", limit]
    assert main([*arguments, "--set", "stop.updates=1000"]) == 1
    gc.collect()  # what is left of the run's tasks would speak now
    printed = capfd.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("fedsim: LimitExceeded: the limit of ")


def test_ctrl_c_ends_a_run_with_exit_code_130_and_says_so_in_the_manifest(
    scenario: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ["run", str(scenario), "--out", str(out), "--no-figures", "--set", "stop.updates=1000000"]
    with subprocess.Popen(
        [sys.executable, "-m", "fedsim", *arguments], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("federation: ") and "/1000000" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == f"fedsim: interrupted; to go on: fedsim resume {out}"
    assert "Traceback" not in rest
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"


def test_check_prints_a_scenario_that_reads_back_as_itself_and_an_estimate(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(scenario)]) == 0
    printed = capsys.readouterr().out
    resolved = parse(printed.encode(), "printed").data
    assert scenario_from(resolved).to_yaml().strip() == printed.partition("# estimate")[0].strip()
    estimate = printed.partition("# estimate\n")[2]
    for figure in ("requests ", "wire up ", "wire down ", "virtual ", "expected staleness 2.000"):
        assert figure in estimate


def test_check_says_how_far_an_estimate_came_in_the_time_it_had(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["--set", "protocol.update.groups_per_update=400", "--set", "stop={updates: 900}"]
    assert main(["check", str(scenario), "--budget", "0", *large]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert (
        told[0]
        == "# estimate: 0 s were over after 0 of 6 updates (--budget); what follows is what was played, not the run"
    )
    assert told[1].startswith("#   updates 0")


def test_check_tells_a_misspelt_domain_without_importing_its_package() -> None:
    code = "import sys; from fedsim.cli import main; main(['check', 'quickstart', '--set', 'tasks.domains=[gcd, chain_sun]'])"
    shown = subprocess.run(
        [sys.executable, "-c", code + "; print('reasoning_gym' in sys.modules)"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout.splitlines()[-1] == "False"
    assert (
        shown.stderr == "tasks.domains: chain_sun is not a reasoning_gym data set; did you mean chain_sum?\n"
    )


def test_check_tells_the_wrong_line_of_a_question_file_beside_the_scenario(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = '{"question": "1 + %d =", "answer": "%d"}\n'
    rows = [row % (n, n + 1) for n in range(300)]
    questions = scenario.parent / "own.jsonl"
    settings = ["check", str(scenario), "--set", "fidelity=real", "--set", "tasks.file=own.jsonl"]
    questions.write_text("".join(rows))
    assert main(settings) == 0
    questions.write_text("".join([*rows[:6], '{"question": "1 + 6 ="}\n', *rows[7:]]))
    assert main(settings) == 2
    assert capsys.readouterr().err.startswith(f"{questions}:7: ")


def test_list_names_every_protocol_preset_and_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    words = capsys.readouterr().out.split()
    assert {*names(), "phone", "edge-server", "wifi", "scratch-1m", "quickstart"} <= set(words)


def test_list_groups_what_lies_in_sub_folders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    sections = [text.splitlines() for text in capsys.readouterr().out.strip().split("\n\n")]
    rows = {lines[0]: [line.split()[0] for line in lines[1:]] for lines in sections}
    assert "evidence" in rows["comparisons (fedsim compare NAME):"]
    nested = rows["comparisons in paper (fedsim compare paper/NAME):"]
    assert "paper/figure2" in nested and all(name.startswith("paper/") for name in nested)
    assert not any("/" in name for name in rows["scenarios (fedsim run NAME):"])


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Scenario"


def test_show_prints_the_summary_or_one_entitys_story(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["run", str(scenario), "--out", str(out), "--no-figures", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    assert parse(capsys.readouterr().out.encode(), "printed").data["protocol"] == "fedgrpo"
    assert main(["show", str(out), "--client", "0"]) == 0
    assert "client 0" in capsys.readouterr().out
    assert main(["show", str(out), "--request", "0"]) == 0
    assert capsys.readouterr().out.startswith("request 0 ")
    assert main(["show", str(out), "--request", "99999999"]) == 2
    assert "no request 99999999" in capsys.readouterr().err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedsim 0.")


def test_help_imports_nothing_that_takes_time() -> None:
    code = "import sys; from fedsim.cli import main; main(['--help']); print(sorted(sys.modules))"
    loaded = python(code).splitlines()[-1]
    assert not [name for name in (*HEAVY, "numpy", "pydantic") if f"'{name}'" in loaded]


def test_commands_that_do_not_run_import_no_model_library_and_no_statistics(scenario: Path) -> None:
    path = scenario.parent / "pair.yaml"
    path.write_text("name: pair\nbase: tiny.yaml\nseeds: [0]\nvariants: [{name: a}]\n")
    commands = [["check", "quickstart"], ["list"], ["schema"], ["check", str(path)]]
    code = (
        "import sys; from fedsim.cli import main; from json import dumps;"
        f"told = [main(one) for one in {commands!r}]; print(dumps([told, sorted(sys.modules)]))"
    )
    shown = python(code)
    codes, loaded = json.loads(shown.splitlines()[-1])
    assert codes == [0, 0, 0, 0] and "pair: 1 runs, 0 kept" in shown
    assert not {*HEAVY} & {*loaded}


def test_the_module_and_the_command_are_the_same(scenario: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "fedsim", "check", str(scenario), "--set", "seed=-1"],
        cwd=REPOSITORY, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "--set seed=-1: seed is -1; must be at least 0\n"
