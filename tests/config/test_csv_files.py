"""One writer for every CSV file: quoted, without formulas, and read back as it was (fedsim/config/csv_files.py)."""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.csv_files import csv_records, csv_table, read_csv, read_csv_records
from fedsim.figures.run.partition import read_partition
from fedsim.records.run_folder import RunFolder

NASTY = [
    '=HYPERLINK("http://x","y")', "a,b", "two\nlines", "a\rb", "\ttab", "\rcr", "+1 more", "-", "@sum", 'say "hi"', " space ",
    "'=quoted", "''-", "'plain'", "数学", "Größe & <b>", "$x_1$", "", "-1.5", "1e-3", "\uff1d1", "\u2028",
]  # fmt: skip
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(NASTY)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(TEXTS, min_size=n, max_size=n), min_size=1)))
def test_every_text_is_read_back_as_it_was(rows):
    if len(rows[0]) == 1:
        rows = [[*row, "end"] for row in rows]  # a line that is one empty cell is no row
    assert read_csv(csv_table(rows[0], rows[1:])) == rows


def test_rows_by_name_are_read_back_by_name():
    rows = [{"=a": "=1", "b": "2"}, {"=a": "x, y", "b": ""}]
    assert read_csv_records(csv_records(rows)) == rows
    assert read_csv_records(csv_records([])) == []
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        read_csv_records(b"a,b\n1\n")


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_no_cell_that_is_no_number_begins_as_a_formula(texts):
    (cells,) = csv.reader(io.StringIO(csv_table([*texts, "end"], []).decode(), newline=""))
    for cell in cells:
        if cell[:1] in tuple("=+-@\t\r"):
            float(cell)


@pytest.mark.parametrize("number", [-1.5, -3, 1e-9, -2.5e30, 0, float("inf")])
def test_numbers_stay_numbers(number):
    text = csv_table(["x"], [[number]]).decode().splitlines()[1]
    assert float(text) == number


def test_other_readers_read_the_same_cells():
    names = [name for name in NASTY if name]
    content = csv_records([{"name": name, "place": place} for place, name in enumerate(names)])
    frame = pl.read_csv(io.BytesIO(content))
    assert frame["place"].to_list() == list(range(len(names)))
    assert [name.lstrip("'") for name in frame["name"]] == [name.lstrip("'") for name in names]


def test_a_partition_has_its_domains_whatever_they_are_called(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "nasty", 0)
    names = [*NASTY, "client_id"]
    folder.write_partition(names, [[1] * len(names), [2] * len(names)])
    domains, counts = read_partition(folder.path)
    assert domains == names
    assert counts.tolist() == [[1] * len(names), [2] * len(names)]
    folder.finish("failed")


def test_nobody_else_writes_csv():
    root = Path(__file__).parents[2]
    found = []
    for path in (
        one for folder in ("fedsim", "analysis", "benchmarks") for one in (root / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_writer = isinstance(node, ast.Attribute) and node.attr in (
                "write_csv",
                "to_csv",
                "savetxt",
                "DictWriter",
            )
            is_csv = (
                isinstance(node, ast.Attribute)
                and node.attr == "writer"
                and getattr(node.value, "id", "") == "csv"
            )

            if is_writer or is_csv:
                found.append(path.relative_to(root).as_posix())
    assert not found
