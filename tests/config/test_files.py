"""Reading what a user names: never more than a limit, never a pipe, and every complaint is one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.files import finite_decimal, parse_json, read_bytes, read_json, read_text
from fedsim.config.limits import MAX_COMPARED_RUNS, MAX_JSON_DIGITS
from fedsim.config.yaml import parse
from fedsim.errors import DataFileError, ScenarioError
from fedsim.records.run_folder import RunFolder
from fedsim.scenario.migrations import OLD_KEYS
from fedsim.sweeps.compare.file import open_comparison


def error_of(read, path, *more):
    with pytest.raises(DataFileError) as caught:
        read(path, *more)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_refused(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5, DataFileError) == b"12345"
    assert error_of(read_bytes, path, 4, DataFileError) == ": has 5 bytes; must have at most 4"


def test_a_file_that_says_it_is_empty_is_read_up_to_the_limit():
    path = Path("/proc/self/status")  # its size is 0, whatever it holds
    if path.exists():
        assert error_of(read_bytes, path, 10, DataFileError) == ": has 11 bytes; must have at most 10"


def test_a_pipe_a_folder_and_nothing_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert (
        error_of(read_bytes, tmp_path / "pipe", 9, DataFileError) == ": cannot be read: it is no regular file"
    )
    assert error_of(read_bytes, tmp_path, 9, DataFileError) == ": cannot be read: it is a folder"
    assert (
        error_of(read_bytes, tmp_path / "x", 9, DataFileError)
        == ": cannot be read: No such file or directory"
    )
    assert error_of(read_bytes, tmp_path / "a\0b", 9, DataFileError) == ": cannot be read: embedded null byte"


def test_a_byte_that_is_no_text_is_named_by_its_line(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n\xff\n")
    assert error_of(read_text, path, 99, DataFileError) == ":3: not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{\n"a": }', ":2: not JSON: Expecting value at column 6"),
        ("[" * 100_000, ": not JSON: it is nested too deeply"),
        ("[NaN]", ": not JSON: NaN is not a number that JSON has"),
        ("9" * (MAX_JSON_DIGITS + 1), f": not JSON: a number has {MAX_JSON_DIGITS + 1} digits; at most {MAX_JSON_DIGITS}"),
        ("9" * 5000, f": not JSON: a number has 5000 digits; at most {MAX_JSON_DIGITS}"),
    ],
)  # fmt: skip
def test_what_is_not_json_is_told_in_our_words(tmp_path, text, complaint):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert error_of(read_json, path, DataFileError) == complaint


def test_a_number_of_as_many_digits_as_are_allowed_is_read_exactly():
    assert parse_json("9" * MAX_JSON_DIGITS) == 10**MAX_JSON_DIGITS - 1


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_back_from_a_cell(number):
    assert finite_decimal(repr(number)) == number


@pytest.mark.parametrize(
    "cell", ["nan", "inf", "1e999", "1_000", "٣", "0x10", "1.2.3", "", " 1", "1 s", "9" * 400]
)
def test_what_is_no_plain_finite_decimal_is_none(cell):
    assert finite_decimal(cell) is None


def test_a_discarded_folder_takes_the_folders_made_for_it_along_and_leaves_others(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    RunFolder.create(kept / "a" / "b" / "run", "x", 0).discard()
    assert list(kept.iterdir()) == []
    root = tmp_path / "runs"
    first, second = (RunFolder.create(None, "x", 0, root=root) for _ in range(2))
    first.discard()
    assert [path.name for path in root.iterdir()] == ["x-0-1"]  # another run has begun beside it
    second.discard()
    assert root.exists()  # it did not make the root


def test_a_folder_that_was_there_before_is_emptied_and_stays(tmp_path):
    (tmp_path / "out").mkdir()
    folder = RunFolder.create(tmp_path / "out", "x", 0)
    folder.write_text("notes.txt", "x")
    folder.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_a_comparison_of_too_many_runs_is_refused_before_they_are_resolved(tmp_path):
    seeds = list(range(MAX_COMPARED_RUNS // 2 + 1))
    path = tmp_path / "c.yaml"
    path.write_text(f"name: c\nbase: quickstart\nvariants: [{{name: a}}, {{name: b}}]\nseeds: {seeds}\n")
    with pytest.raises(ScenarioError, match=r"c\.yaml:4: 10,002 runs; a comparison may have at most 10,000"):
        open_comparison(path)


def test_an_old_key_is_no_key_of_today():
    from fedsim.scenario.docs import scenario_schema

    schema = str(scenario_schema())
    assert OLD_KEYS
    for _, key in OLD_KEYS:
        assert f"'{key}'" not in schema


def test_what_a_quoted_merge_key_is_remains_a_word():
    assert parse(b'"<<": 1\n', "s.yaml").data == {"<<": 1}
