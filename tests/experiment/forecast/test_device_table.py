"""The devices of a scenario as people see them: the table, its files, the figure and the command."""

from __future__ import annotations

import csv
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsim.cli import main
from fedsim.errors import RunFolderError
from fedsim.experiment.forecast.device_table import (
    QUANTITIES,
    PopulationTable,
    as_plain,
    lines,
    number,
    population_table,
    quantiles,
    write_population,
)
from fedsim.figures.devices.figure import MOST_DOTS, _round_numbers, population_figure, write_figure
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.scenario.schema import Scenario


def scenario(**keys: Any) -> Scenario:
    data: dict[str, Any] = {
        "name": "seen",
        "fidelity": "timing",
        "stop": {"updates": 2},
        "protocol": {"name": "fedgrpo", "num_experts": 1},
        "tasks": {"domains": ["gcd"], "sizes": {"private": 60, "auxiliary": 20, "pool": 60}},
        "clients": {"phone": 4, "laptop": 2},
    }
    return scenario_from({**data, **keys})


@pytest.fixture(scope="module")
def table() -> PopulationTable:
    return population_table(scenario())


def value(table: PopulationTable, column: str) -> list[float]:
    return [float(number) for number in table.columns[column]]


def test_there_is_a_row_for_every_device_and_a_block_for_every_class(table: PopulationTable) -> None:
    assert table.device_class == ("phone",) * 4 + ("laptop",) * 2
    assert all(len(table.columns[quantity.column]) == 6 for quantity in QUANTITIES)
    heads = [line.split(" devices")[0] for line in lines(table) if " devices  " in line]
    assert heads == ["phone: 4", "laptop: 2", "all: 6"]


def test_compute_and_bandwidth_are_what_the_runtime_reaches() -> None:
    exact = {"speeds": "lognormal", "speed_spread": 0.0, "peak": "2 TFLOP/s", "memory_bandwidth": "100 GB/s"}
    found = population_table(scenario(clients={"phone": {"count": 1, **exact}}))
    assert value(found, "flop_per_s") == [pytest.approx(0.25 * 2e12)]
    assert value(found, "memory_bytes_per_s") == [pytest.approx(0.6 * 100e9)]
    assert any(line.split() == ["compute,", "GFLOP/s", *["500"] * 5] for line in lines(found))


def test_presence_is_each_clients_own_long_run_share() -> None:
    sessions = {"kind": "sessions", "mean_on": "3 min", "mean_off": "1 min"}
    assert value(population_table(scenario(availability=sessions)), "there") == [0.75] * 6
    spread = value(population_table(scenario(availability={**sessions, "spread": 1.0})), "there")
    assert len(set(spread)) == 6
    assert all(0 < share < 1 for share in spread)


def test_giving_up_adds_the_hazard_over_the_phases_to_the_clients_own_risk() -> None:
    hazard = {"download": "1 /s", "compute": "2 /s", "upload": "4 /s"}
    found = population_table(scenario(dropout={"per_task": 0.1, "hazard": hazard}))
    for client_id in range(6):
        down, compute, up = (found.columns[name][client_id] for name in ("down_s", "compute_s", "up_s"))
        survives = 0.9 * math.exp(-(down + 2 * compute + 4 * up))
        assert found.columns["gives_up"][client_id] == pytest.approx(1 - survives)


def test_a_usable_reply_takes_the_request_over_presence_and_success() -> None:
    found = population_table(
        scenario(
            availability={"kind": "sessions", "mean_on": "1 min", "mean_off": "3 min"},
            dropout={"per_task": 0.2},
        )
    )
    assert found.columns["reply_s"] == pytest.approx(found.columns["drawn_s"] / (0.25 * 0.8))


def test_slow_owners_of_a_domain_show_in_the_correlation() -> None:
    keys = {
        "clients": {"phone": 40},
        "tasks": {
            "domains": ["gcd", "products"],
            "sizes": {"private": 4000, "auxiliary": 20, "pool": 60},
            "partition": {"kind": "dirichlet", "over": "clients", "beta": 0.3},
        },
        "protocol": {"name": "distil", "num_experts": 1},
        "dropout": {"per_task": 0.3, "spread": 1.0},
        "text": {"question": 100, "rationale": 200, "answer": 8},
    }
    owners = {"speed": "domain", "availability": "domain", "of": "gcd"}
    apart = population_table(scenario(**keys)).index
    together = population_table(scenario(**keys, correlate=owners)).index
    assert apart is not None and together is not None
    assert together.correlation is not None and apart.correlation is not None
    assert together.correlation > 0.6 > abs(apart.correlation)
    assert together.index > apart.index


def test_a_device_that_cannot_hold_the_model_has_no_times_and_counts_as_one_that_never_replies() -> None:
    found = population_table(
        scenario(
            clients={"phone": {"count": 2, "memory": "1 GiB"}, "edge-server": 1},
            models={"bill_as": {"server": "Qwen2.5-Math-7B", "clients": "Qwen2.5-Math-1.5B"}},
            text={"question": 100, "rationale": 200, "answer": 8},
        )
    )
    assert np.isnan(found.columns["request_s"]).tolist() == [True, True, False]
    assert found.index is not None
    assert (found.index.num_clients, found.index.num_never) == (1, 2)
    assert any(line.startswith("2 of 3 clients can never reply") for line in lines(found))


def test_a_protocol_that_asks_nothing_has_devices_but_no_request_and_no_index() -> None:
    found = population_table(scenario(protocol={"name": "central_grpo"}))
    assert found.times is None and found.index is None
    shown = list(lines(found))
    assert not any("request: " in line for line in shown)
    assert "asks its clients nothing" in shown[-1]
    population_figure(found)


def test_where_every_request_is_given_up_there_is_no_index() -> None:
    found = population_table(scenario(dropout={"per_task": 1.0}))
    assert found.index is None
    assert set(value(found, "reply_s")) == {math.inf}
    assert list(lines(found))[-1].endswith("no client can be expected to reply")
    population_figure(found)


def test_quantiles_interpolate_and_know_never_from_nothing() -> None:
    assert quantiles(np.arange(101.0)).tolist() == [5.0, 25.0, 50.0, 75.0, 95.0]
    assert quantiles(np.array([1.0, 2.0, 3.0, math.inf])).tolist()[-1] == math.inf
    assert np.isnan(quantiles(np.array([math.nan]))).all()
    assert [number(each) for each in (0.01234, 4.5, 1234.5, math.inf, math.nan)] == [
        "0.0123",
        "4.5",
        "1234",
        "never",
        "-",
    ]


@pytest.mark.parametrize("world", ["none", "mild", "middle", "severe"])
def test_the_page_on_the_world_states_the_heterogeneity_of_the_crowd_as_it_is(world: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "world.md").read_text(encoding="utf-8")
    table = page.partition("H of `scenarios/crowd.yaml` (24 devices, seed 0), measured:")[2].partition("###")[
        0
    ]
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if row.startswith("|")
    ]
    stated = {cells[0]: cells[1:] for cells in rows}
    index = population_table(read_scenario("crowd", [f"world={world}"])).index
    assert index is not None and list(stated) == ["world", "---", "none", "mild", "middle", "severe"]
    shown = [f"{each:.2f}" for each in (index.index, index.device, index.state, index.luck)]
    assert stated[world] == [*shown, f"{index.p90_over_p10:.3g}"]


@pytest.mark.parametrize(
    ("low", "high"), [(106.0, 281.0), (3.2, 1100.0), (20.0, 190.0), (45.0, 3400.0), (1.0, 3e9)]
)
def test_ticks_of_a_logarithmic_axis_are_few_and_apart(low: float, high: float) -> None:
    ticks = _round_numbers(low, high)
    assert 2 <= len(ticks) <= 6
    apart = math.log(high / low) / 12  # a label of four digits is about a tenth of a panel wide
    assert all(math.log(b / a) > apart for a, b in pairwise(ticks)) and low <= ticks[0] and ticks[-1] <= high


# ------------------------------------------------------------------------------------------------- files and figure


def test_the_files_hold_the_same_numbers_as_the_table(table: PopulationTable, tmp_path: Path) -> None:
    write_population(table, tmp_path / "devices")
    with (tmp_path / "devices" / "devices.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["device_class"] for row in rows] == list(table.device_class)
    assert [float(row["request_s"]) for row in rows] == pytest.approx(value(table, "request_s"), rel=1e-5)
    plain = json.loads((tmp_path / "devices" / "devices.json").read_text())
    assert plain["classes"]["phone"]["num_clients"] == 4
    assert plain["classes"]["all"]["rtt_s"] == pytest.approx([0.035] * 5)
    assert table.index is not None
    assert plain["heterogeneity"]["index"] == table.index.index
    assert plain["heterogeneity"] == as_plain(table)["heterogeneity"]


def test_an_earlier_look_is_written_over_and_a_foreign_folder_is_left_alone(
    table: PopulationTable, tmp_path: Path
) -> None:
    write_population(table, tmp_path / "devices")
    write_population(table, tmp_path / "devices")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="is not empty"):
        write_population(table, tmp_path / "mine")
    with pytest.raises(RunFolderError, match="is a file"):
        write_population(table, tmp_path / "mine" / "thesis.tex")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_figure_has_nine_panels_and_the_same_bytes_every_time(
    table: PopulationTable, tmp_path: Path
) -> None:
    titles = [axes.get_title(loc="left") for axes in population_figure(table).axes]
    assert len(titles) == 9
    assert titles[0].startswith("compute (") and titles[-1].startswith("one request, mean by phase (")
    first = [path.read_bytes() for path in write_figure(table, tmp_path / "first")]
    second = [path.read_bytes() for path in write_figure(table, tmp_path / "second")]
    assert first == second


def test_small_classes_are_drawn_device_by_device_and_large_ones_by_their_quantiles() -> None:
    found = population_table(scenario(clients={"phone": MOST_DOTS + 1, "laptop": MOST_DOTS}))
    panel = population_figure(found).axes[0]
    points = [len(line.get_xdata()) for line in panel.lines]  # type: ignore[arg-type]
    assert points == [2, 2, 1, MOST_DOTS]


# ------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_the_table_and_its_folder_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "devices"
    assert main(["devices", "quickstart", "--out", str(out), "--seed", "3"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("phone: 4 devices")
    assert printed[-2:] == [str(out / "devices.png"), str(out)]
    assert any(line.startswith("heterogeneity index: ") for line in printed)
    assert json.loads((out / "devices.json").read_text())["seed"] == 3
    assert sorted(path.name for path in out.iterdir()) == [
        "devices.csv",
        "devices.json",
        "devices.png",
        "devices.svg",
    ]


def test_without_figures_and_without_a_folder_the_tables_lie_under_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["devices", "quickstart", "--no-figures"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(Path("runs") / "quickstart-devices")
    folder = tmp_path / "runs" / "quickstart-devices"
    assert sorted(path.name for path in folder.iterdir()) == ["devices.csv", "devices.json"]


def test_a_deadline_that_nobody_can_meet_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--set", "protocol.stragglers.deadline=1 ms", "--set", "fidelity=timing"]
    assert main(["check", "quickstart", *given]) == 2
    assert main(["run", "quickstart", "--quiet", "--out", str(tmp_path / "run"), *given]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(
        "no client can answer by then: the fastest, client 7 (edge-server), takes about" in line
        for line in errors
    )
