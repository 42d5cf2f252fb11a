"""Rows as they stand in files and folders of several kinds, and what is refused before anybody asks what they mean."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.limits import MAX_DATA_BYTES
from fedsim.errors import DataFileError
from fedsim.tasks.sources import Place, data_files, items, kept_files

ROWS = [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]


def values(path):
    return [dict(item.values) for item in items(path)]


def of_splits(path):
    return [(item.values["question"], item.split) for item in items(path)]


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def arrow(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(list(rows)).write_ipc_stream(path)


def saved(folder, *shards):
    """A folder as ``Dataset.save_to_disk`` writes it."""
    names = [f"data-{n:05d}-of-{len(shards):05d}.arrow" for n in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        arrow(folder / name, *rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"question": {}, "answer": {}}}))


def test_a_list_of_objects_has_the_lines_where_they_begin(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(
        ' [\n {"question": "a",\n "answer": "1"}, {"question": "b", "answer": "2"}\n,\n{"x": [1]}]\n'
    )
    assert [(item.values, str(item.place)) for item in items(path)] == [
        (ROWS[0], f"{path}:2"),
        (ROWS[1], f"{path}:3"),
        ({"x": [1]}, f"{path}:5"),
    ]
    path.write_text("[ ]")
    assert values(path) == []
    path.write_text(lines(*ROWS))  # JSON lines by another name
    assert values(path) == ROWS


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[{"a": 1},\n]', ":2: not JSON: Expecting value"),
        ('[{"a": 1}\n{"a": 1}]', ":2: not JSON: the list must go on with ',' or end with ']'"),
        ('[{"a": 1}]\n\n7', ":1: not JSON: the list must go on"),
        ('[{"a": 1}', ":1: not JSON: the list must go on"),
        ("[\n[1]]", ":2: holds [1]; must be an object"),
        ('[\n{"a": 1, "a": 2}]', ":2: not JSON: the key 'a' stands twice"),
        ('[\n{"a": NaN}]', ":2: not JSON: NaN is not a number"),
        ("[" * 50_000, ":1: not JSON: it is nested too deeply"),
        ('[\n{"a": "' + "x" * 100_001 + '"}]', ":2: the object has more than 100,000 characters"),
    ],
)
def test_a_list_that_is_wrong_is_named_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataFileError) as caught:
        list(items(path))
    assert str(caught.value).startswith(f"{path}{complaint}")


@given(st.text(max_size=40))
def test_any_text_is_a_list_or_is_refused_by_name(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "rows.json"
    path.write_bytes(("[" + text).encode("utf-8", "surrogatepass"))
    with pytest.raises(DataFileError, match=r"rows\.json"):
        list(items(path))
        raise DataFileError(f"{path}: read")  # it may be whole


def test_a_table_of_texts_is_read_with_its_lines_and_without_its_empty_cells(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfquestion, answer,client\r\n"a\nb",1,\r\n\r\n"c ""d""",2,0 1\r\n')
    found = list(items(path))
    assert [item.values for item in found] == [
        {"question": "a\nb", "answer": "1"},
        {"question": 'c "d"', "answer": "2", "client": "0 1"},
    ]
    assert [str(item.place) for item in found] == [f"{path}:2", f"{path}:5"]
    assert all(item.only_texts for item in found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("question,answer\na\n", ":2: has 1 cells; the head has 2"),
        ("question,answer\n\na,b,c\n", ":3: has 3 cells; the head has 2"),
        ("question,question\na,b\n", ":1: a column's name stands twice"),
        ('question,answer\na,"b', ":2: not CSV: unexpected end of data"),
        ('question,answer\na,"b"c\n', ":2: not CSV: ',' expected after"),
    ],
)
def test_a_table_of_texts_that_is_wrong_is_named_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(DataFileError) as caught:
        list(items(path))
    assert str(caught.value).startswith(f"{path}{complaint}")


def test_tables_keep_types_and_nests_and_name_rows(tmp_path):
    rows = [
        {"question": "a", "answer": [1, 2], "meta": {"type": "x"}},
        {"question": "b", "answer": None, "meta": None},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    pl.DataFrame(rows).write_ipc_stream(tmp_path / "rows.arrow")
    pl.DataFrame(rows).write_ipc(tmp_path / "file.arrow")
    for name in ("rows.parquet", "rows.arrow", "file.arrow"):
        first, second = items(tmp_path / name)
        assert first.values == rows[0]
        assert (second.values["question"], second.values["answer"]) == ("b", None)
        assert str(second.place) == f"{tmp_path / name}: row 2"
        assert second.place.beside(first.place) == "row 2"
        assert second.place.beside(Place("elsewhere", 1)) == str(second.place)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_table_that_is_torn_or_none_at_all_is_refused(tmp_path, name):
    path = tmp_path / name
    table = pl.DataFrame(ROWS * 100)
    table.write_parquet(path) if name == "rows.parquet" else table.write_ipc_stream(path)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", b"no table at all", whole[:30], whole[: len(whole) // 3], whole[40:]):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=rf"{name}: cannot be read as an? (Parquet file|Arrow table)"):
            list(items(path))


def test_a_data_set_that_was_saved_to_disk_is_read_by_its_lists(tmp_path):
    saved(tmp_path / "one", ROWS[:1], ROWS[1:])
    arrow(tmp_path / "one" / "cache-1.arrow", {"question": "stray", "answer": "3"})
    assert of_splits(tmp_path / "one") == [("a", None), ("b", None)]
    for split, row in (("train", ROWS[0]), ("test", ROWS[1])):
        saved(tmp_path / "many" / split, [row])
    (tmp_path / "many" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert of_splits(tmp_path / "many") == [("a", "train"), ("b", "test")]
    assert [path.as_posix() for path in kept_files(tmp_path / "many")] == [
        "train/data-00000-of-00001.arrow",
        "test/data-00000-of-00001.arrow",
        "dataset_dict.json",
        "test/state.json",
        "train/state.json",
    ]


def test_a_snapshot_of_the_hub_has_the_splits_of_its_files_names(tmp_path):
    folder = tmp_path / "snapshot"
    (folder / "data").mkdir(parents=True)
    for name, row in (("train-00000-of-00002", ROWS[0]), ("train-00001-of-00002-0a1b", ROWS[1])):
        pl.DataFrame([row]).write_parquet(folder / "data" / f"{name}.parquet")
    (folder / "README.md").write_text("a card")
    (folder / "dataset_infos.json").write_text("{}")
    (folder / ".gitattributes").write_text("")
    assert of_splits(folder) == [("a", "train"), ("b", "train")]
    (folder / "test.jsonl").write_text(lines({"question": "c", "answer": "3"}))
    assert of_splits(folder) == [("c", "test")]  # files beside the card go first


def test_a_folder_of_several_data_sets_is_refused_and_of_one_is_that(tmp_path):
    for name in ("main", "socratic"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text("question,answer\na,1\n")
        if name == "main":
            assert of_splits(tmp_path) == [("a", "train")]
    with pytest.raises(
        DataFileError, match="holds several data sets; name the folder of one: main, socratic"
    ):
        list(items(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="empty: holds no data set; needs what save_to_disk"):
        list(items(tmp_path / "empty"))


def test_no_link_is_followed_out_of_a_folder_but_to_the_blobs_of_the_hubs_cache(tmp_path):
    cache = tmp_path / "datasets--us--ours"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "b10b").write_text(lines(*ROWS))
    (snapshot / "train.jsonl").symlink_to("../../blobs/b10b")
    assert of_splits(snapshot) == [("a", "train"), ("b", "train")]
    (tmp_path / "secret").write_text(lines(*ROWS))
    (snapshot / "test.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(DataFileError, match=r"test\.jsonl: is a link out of .*0123, which is not followed"):
        list(items(snapshot))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "train.jsonl").symlink_to("../datasets--us--ours/blobs/b10b")
    with pytest.raises(DataFileError, match="is a link out of"):
        list(items(plain))
    (plain / "train.jsonl").unlink()
    (plain / "train.jsonl").symlink_to("train.jsonl")
    with pytest.raises(DataFileError, match=r"train\.jsonl: cannot be read"):
        list(items(plain))


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', r"names the file '\.\./x\.arrow'"),
        ("state.json", '{"_data_files": [{}]}', "names the file None"),
        ("state.json", "[]", "has no list '_data_files'; save the data set again"),
        (
            "state.json",
            '{"_data_files": [{"filename": "x.arrow"}]}',
            r"x\.arrow: cannot be read: No such file",
        ),
        ("dataset_dict.json", '{"splits": ["/etc"]}', "names the file '/etc'"),
        ("dataset_dict.json", '{"splits": ["train"]}', r"state\.json: cannot be read"),
        ("dataset_dict.json", "{", r"dataset_dict\.json:1: not JSON"),
        ("tr ain.csv", "question\n", "names the file 'tr ain.csv'"),
    ],
)
def test_a_folder_whose_lists_are_wrong_is_named(tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataFileError, match=complaint):
        list(items(tmp_path))


def test_a_folder_over_the_limit_is_refused_by_its_sizes(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(MAX_DATA_BYTES // 2 + 1)  # a hole: nothing is written
    with pytest.raises(
        DataFileError, match="its files have 268,435,458 bytes; must have at most 268,435,456"
    ):
        data_files(tmp_path)
