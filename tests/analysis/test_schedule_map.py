"""Where not waiting helps (analysis/schedule_map): ratios and bounds worked by hand, and tables that are wrong."""

from __future__ import annotations

import pytest

from analysis.schedule_map.__main__ import main
from analysis.schedule_map.figure import schedule_map
from analysis.schedule_map.section import lines
from analysis.schedule_map.tables import AXES, POINT_AXES, cells, collect, read
from fedsim.config.csv_files import csv_records, read_csv_records
from fedsim.errors import DataFileError, InputError
from tests.samples.run import sample_run

PLACE = {"clients": "8", "spread": "0", "server": "1"}


def run(schedule, seed=0, time=4.0, place=PLACE, **columns):
    """A row of a table."""
    return {**place, "schedule": schedule, "seed": seed} | {
        "time_per_reward_s": time, "rewards_used": 768, "updates": 24, "groups": 400,
        "groups_too_stale": 16 * (schedule == "group"),
        "staleness_mean": 0.9 * (schedule == "group"), "server_share": 0.25, "busiest_share": 0.5, "slow_rewards": 0.25,
        "server_flop_per_group": 1e12, "flop_per_request": 2e12, "looks": "", "commit": "0123456789",
    } | columns  # fmt: skip


def pair(rounds, arrival, seed=0, place=PLACE, **columns):
    """Both schedules at one place and seed."""
    return [run("barrier", seed, rounds, place, **columns), run("group", seed, arrival, place, **columns)]


def table(path, rows):
    path.write_bytes(csv_records(rows))
    return path


def only(path, axes=AXES):
    """The one cell of a table."""
    ((_, cell),) = cells(path, axes).items()
    return cell


def test_the_ratio_is_a_geometric_mean_over_seeds(tmp_path):
    cell = only(table(tmp_path / "map.csv", pair(8.0, 1.0, seed=0) + pair(2.0, 1.0, seed=1)))
    assert cell.value == pytest.approx(
        4.0
    )  # sqrt(8 x 2); the mean of the ratios is 5, the ratio of the means as well
    assert cell.ratio["n"] == 2


def test_ratios_are_paired_by_seed_whatever_the_order_of_the_rows(tmp_path):
    """Every seed's ratio is 2, so the interval has no width; of any other pairing it has."""
    rows = pair(8.0, 4.0, seed=0) + pair(2.0, 1.0, seed=1)
    cell = only(table(tmp_path / "map.csv", [rows[2], rows[1], rows[3], rows[0]]))
    assert [cell.ratio[end] for end in ("low", "mean", "high")] == pytest.approx([2.0, 2.0, 2.0])
    assert cell.is_told_from_one
    mixed = only(table(tmp_path / "mixed.csv", pair(8.0, 1.0, seed=0) + pair(2.0, 4.0, seed=1)))
    assert mixed.value == pytest.approx(2.0)
    assert not mixed.is_told_from_one


def test_overlap_gives_at_most_one_over_the_share_of_whoever_is_busiest_in_rounds(tmp_path):
    """Shares as rewards arrive do not count, and the bound is of the means over seeds."""
    rows = [
        run("barrier", 0, server_share=0.2, busiest_share=0.3), run("group", 0, server_share=0.9, busiest_share=0.9),
        run("barrier", 1, server_share=0.2, busiest_share=0.5), run("group", 1, server_share=0.9, busiest_share=0.9),
    ]  # fmt: skip
    assert only(table(tmp_path / "map.csv", rows)).bound == pytest.approx(1 / 0.4)


def test_one_seed_has_no_interval_and_is_not_told_from_one(tmp_path):
    cell = only(table(tmp_path / "map.csv", pair(9.0, 1.0)))
    assert cell.value == pytest.approx(9.0)
    assert not cell.is_told_from_one


def test_accuracy_is_compared_at_the_last_instant_that_both_schedules_have_reached(tmp_path):
    rows = [run("barrier", looks="0:0.2 10:0.3 21:0.9"), run("group", looks="0:0.2 10:0.4 20:0.5")]
    assert only(table(tmp_path / "map.csv", rows)).ahead["mean"] == pytest.approx(0.5 - 0.3)
    assert only(table(tmp_path / "none.csv", pair(2.0, 1.0))).ahead["mean"] is None


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (pair(2.0, 1.0)[:1], r"clients 8, spread 0, server 1, seed 0 has barrier; must be one run of barrier and one of group"),
        ([run("barrier"), run("group", 1)], "seed 0 has barrier; must be"),
        ([*pair(2.0, 1.0), run("buffer")], "seed 0 has barrier and buffer and group; must be"),
        ([*pair(2.0, 1.0), run("group")], "seed 0 has two runs of group"),
        ([run("barrier"), run("group", time="")], r"map.csv:3: this run did not finish"),
        ([run("barrier", status="finished"), run("group", status="out_of_time")], r"map.csv:3: this run did not finish"),
        ([{key: cell for key, cell in run("barrier").items() if key != "server_share"}], "the column server_share is missing"),
        ([{key: cell for key, cell in run("barrier").items() if key != "spread"}], "the column spread is missing"),
        ([], "is missing, or there is no row"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_table_that_is_no_whole_map_is_refused_in_one_line(tmp_path, rows, says):
    with pytest.raises(InputError, match=says) as error:
        cells(table(tmp_path / "map.csv", rows), AXES)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_one_line(tmp_path):
    with pytest.raises(DataFileError, match=r"gone\.csv cannot be read"):
        read(tmp_path / "gone.csv", ())


# -------------------------------------------------------------------------------------------------------- from a sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep's folder with one run of a made-up log (tests/samples/run.py)."""
    folder = tmp_path_factory.mktemp("sweep")
    made = sample_run(folder / "runs" / "a", num_updates=4)
    numbers = {
        "time_per_reward_s": 1.23456789, "rewards_used": 40, "updates": 4, "groups": 24, "groups_too_stale": 0,
        "staleness_mean": 1.5,
    }  # fmt: skip
    row = {
        "point": 0,
        **PLACE,
        "schedule": "group",
        "seed": 0,
        "status": "finished",
        **numbers,
        "folder": "runs/a",
    }
    table(folder / "stress.csv", [row])
    return folder, made, row


def test_shares_of_time_are_those_of_the_records(sweep, tmp_path):
    """Held against the summary's sums, and against the rows added up one by one."""
    folder, made, _ = sweep
    collect(folder, tmp_path / "map.csv")
    (kept,) = read_csv_records((tmp_path / "map.csv").read_bytes())
    virtual_s = made.summary["virtual_s"]
    busy = {}
    for one in made.records["computes"].iter_rows(named=True):
        spent = busy.setdefault(one["client_id"], [0.0, 0.0, 0])
        spent[0] += min(one["end_at_s"], virtual_s) - one["start_at_s"]
        spent[1] += one["flop"]
        spent[2] += 1
    server, devices = busy[-1], [spent for client, spent in busy.items() if client >= 0]
    wanted = {
        "server_share": server[0] / virtual_s,
        "busiest_share": max(spent[0] for spent in devices) / virtual_s,
        "server_flop_per_group": server[1] / made.records["groups"].height,
        "flop_per_request": sum(spent[1] for spent in devices) / sum(spent[2] for spent in devices),
    }
    assert {name: float(kept[name]) for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert 0 < wanted["server_share"] < wanted["busiest_share"] * 100
    assert float(kept["server_share"]) == pytest.approx(
        made.summary["load"]["server"]["busy_s"] / virtual_s, rel=1e-5
    )
    assert kept["time_per_reward_s"] == "1.23457"
    assert list(kept)[:5] == [*AXES, "schedule", "seed"]


def test_rewards_of_the_slowest_quarter_are_counted_among_those_used(sweep, tmp_path):
    folder, made, _ = sweep
    collect(folder, tmp_path / "map.csv")
    (kept,) = read_csv_records((tmp_path / "map.csv").read_bytes())
    trained = {
        one["draw"] for one in made.records["groups"].iter_rows(named=True) if one["fate"] == "trained"
    }
    used = [
        one["client_id"]
        for one in made.records["outcomes"].iter_rows(named=True)
        if one["status"] == "ok" and one["subject"] in trained
    ]
    speed = {}
    for one in made.records["computes"].iter_rows(named=True):
        flop, seconds = speed.get(one["client_id"], (0.0, 0.0))
        speed[one["client_id"]] = (flop + one["flop"], seconds + one["end_at_s"] - one["start_at_s"])
    del speed[-1]
    slowest = sorted(speed, key=lambda client: (speed[client][0] / speed[client][1], client))[
        : -(-len(speed) // 4)
    ]
    assert float(kept["slow_rewards"]) == pytest.approx(
        sum(one in slowest for one in used) / len(used), rel=1e-5
    )
    assert used


def test_an_unfinished_run_of_a_sweep_writes_no_table(sweep, tmp_path, capsys):
    _, _, row = sweep
    table(tmp_path / "stress.csv", [row, row | {"status": "failed", "time_per_reward_s": ""}])
    assert main([str(tmp_path), str(tmp_path / "map.csv")]) == 2
    said = capsys.readouterr().err
    assert "stress.csv:3: this run did not finish" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "map.csv").exists()


# -------------------------------------------------------------------------------------------------- section and figure


@pytest.fixture
def tables(tmp_path):
    """Map (two cells), one of them with real models, and with more steps."""
    wide = PLACE | {"clients": "256"}
    both = [one for seed in (0, 1) for one in pair(3.0, 1.0, seed) + pair(1.0 + 0.5 * seed, 1.2, seed, wide)]
    point = {"cell": "8_0_1", "experts": "random"}
    real = {"server_flop_per_group": 0.9e12, "flop_per_request": 2.2e12, "commit": "abcdef0123"}
    points = [
        one
        for seed in (0, 1)
        for one in pair(3.0 + 0.2 * seed, 1.0, seed, point | {"models": "timing"})
        + pair(2.9 + 0.1 * seed, 1.0, seed, point | {"models": "real"}, **real)
    ]
    long = [one for seed in (0, 1) for one in pair(2.5, 1.0, seed, updates=96)]
    return [
        table(tmp_path / f"{name}.csv", rows)
        for name, rows in (("map", both), ("points", points), ("long", long))
    ]


def rows_of(page, first_title, after=0):
    """Cells of the table that begins with this title, behind the n-th line."""
    start = next(i for i, line in enumerate(page) if i >= after and line.startswith(f"| {first_title}"))
    end = next((i for i in range(start, len(page)) if not page[i].startswith("|")), len(page))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page[start + 2 : end]]


def test_the_section_says_what_the_tables_say(tables):
    page = lines(*tables)
    assert page[0] == "Runs are of commit 0123456789, abcdef0123."
    corners = rows_of(page, "clients")
    assert corners[0] == [
        "8",
        "0",
        "1",
        "25%",
        "50%",
        "2.00",
        "3.00 [3.00, 3.00]",
        "0.90",
        "4.0%",
        "25%, 25%",
    ]
    text = "\n".join(page)
    assert "32 rewards in each of 24 steps, 768 usable rewards" in text
    assert "Of 2 cells not waiting is faster in 1 and slower in 0; in 1 the interval includes 1." in text
    more = rows_of(page, "clients", after=page.index(next(one for one in page if "The run's end" in one)))
    assert more == [["8", "0", "1", "24", "3.00 [3.00, 3.00]", "96", "2.50 [2.50, 2.50]", "2.00"]]
    (point,) = rows_of(page, "clients", after=page.index("### Two points with real models"))
    assert point[:5] == ["8", "0", "1", "random", "3.00 [3.00, 3.00]"]
    assert point[7:] == ["yes", "-10%", "+10%", "not measured"]


@pytest.mark.parametrize(
    ("which", "change", "says"),
    [
        (2, {"clients": "9"}, "clients 9, spread 0, server 1 is no cell of the map"),
        (1, {"cell": "9_0_1"}, "cell 9_0_1, experts random must have runs of models timing and real, and be a cell of the map"),
        (1, {"models": "real"}, "has two runs of barrier"),
    ],
)  # fmt: skip
def test_cells_that_the_map_lacks_are_refused(tables, which, change, says):
    table(tables[which], [one | change for one in read_csv_records(tables[which].read_bytes())])
    with pytest.raises(InputError, match=says):
        lines(*tables)


def test_a_cell_whose_interval_includes_one_is_hatched_and_one_with_real_models_framed(tables):
    found = cells(tables[0], AXES)
    figure = schedule_map(found, {("8", "0", "1")})
    patches = figure.axes[0].patches
    assert [bool(patch.get_hatch()) for patch in patches if patch.get_fill()] == [False, True]
    assert [patch.get_x() for patch in patches if not patch.get_fill()] == [pytest.approx(-0.48)]
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["3.00", "25%", f"{found['256', '0', '1'].value:.2f}", "25%"]


def test_colours_turn_at_one(tables):
    colours, norm = (lambda bar: (bar.cmap, bar.norm))(
        schedule_map(cells(tables[0], AXES)).axes[-1].collections[-1]
    )
    assert norm(1.0) == pytest.approx(0.5)
    assert norm(2.0) - 0.5 == pytest.approx(0.5 - norm(0.5))
    assert colours.name == "PuOr_r"


def test_a_section_without_points_says_nothing_of_them(tables):
    text = "\n".join(lines(tables[0]))
    assert "real models" not in text
    assert "The run's end" not in text


def test_a_redraw_needs_the_tables_alone(tables, tmp_path, capsys):
    figure = tmp_path / "new" / "async_map.png"
    figure.parent.mkdir()
    assert main([*map(str, tables), str(figure)]) == 0
    assert capsys.readouterr().out.startswith("Runs are of commit 0123456789")
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in figure.parent.iterdir()] == ["async_map.png"]


def test_points_are_read_by_their_own_axes(tables):
    assert set(cells(tables[1], POINT_AXES)) == {("8_0_1", "random", "timing"), ("8_0_1", "random", "real")}


def test_a_wrong_command_line_says_how_it_is_used(capsys):
    assert main(["one"]) == 2
    assert "usage: python -m analysis.schedule_map SWEEP_FOLDER TABLE.csv" in capsys.readouterr().err
