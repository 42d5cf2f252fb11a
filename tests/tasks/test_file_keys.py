"""Files that call our keys otherwise: what is read under which name, and what is refused."""

import json

import polars as pl
import pytest

from fedsim.errors import DataFileError
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.dataset import build
from fedsim.tasks.files import read_questions

MATH = {
    "problem": "1 + 1?",
    "solution": r"It is \boxed{2}.",
    "meta": {"type": "sums", "of": ["x"]},
    "level": 3,
}


def write(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def read(path, keys=None, splits=None, **settings):
    return read_questions(path, TasksConfig(file=str(path), keys=keys, splits=splits or {}, **settings))


def test_keys_are_mapped_into_what_is_nested_and_others_are_ignored(tmp_path):
    path = write(tmp_path / "math.jsonl", MATH)
    keys = {"question": "problem", "answer": "solution", "domain": "meta.type", "fact": "meta.of.0"}
    (row,) = read(path, keys, answer_pattern=r"\\boxed\{([^}]*)\}")
    assert (row.question, row.answers, row.solution) == ("1 + 1?", ("2",), MATH["solution"])
    assert (row.domain, row.fact) == ("sums", "x")


def test_a_key_of_a_file_that_is_mapped_is_not_read_under_its_own_name_too(tmp_path):
    row = {"question": "a", "answer": "1", "split": "b", "solution": "c"}
    path = write(tmp_path / "rows.jsonl", row)
    (found,) = read(path, {"domain": "split", "fact": "solution"})
    assert (found.answers, found.domain, found.fact, found.solution, found.split) == (
        ("1",),
        "b",
        "c",
        "",
        None,
    )


def test_messages_of_a_chat_and_keys_with_dots_in_them_can_be_named(tmp_path):
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "1"}],
        "my.domain": "d",
    }
    path = write(tmp_path / "chat.jsonl", row)
    keys = {"question": "messages.0.content", "answer": "messages.1.content", "domain": "my.domain"}
    (found,) = read(path, keys)
    assert (found.question, found.answers, found.domain) == ("a", ("1",), "d")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"question": "text"}, ":1: question is missing: the line has no 'text'; it has problem, solution, meta, level"),
        ({"question": "meta.text", "answer": "solution"}, ":1: question is missing: the line has no 'meta.text'"),
        ({"question": "problem", "answer": "meta.of.1"}, ":1: answer is missing: the line has no 'meta.of.1'"),
        ({"question": "problem"}, ":1: answer is missing: the line has no 'answer'"),
        (
            {"question": "problem", "answer": "solution", "domain": "meta.kind"},
            ":1: neither this row nor any other has 'meta.kind'",
        ),
        ({"question": "problem", "answer": "meta"}, ":1: answer is {"),
    ],
)  # fmt: skip
def test_a_mapping_to_a_key_that_is_not_there_is_named_with_its_line(tmp_path, keys, complaint):
    path = write(tmp_path / "math.jsonl", MATH)
    with pytest.raises(DataFileError) as caught:
        read(path, keys)
    assert str(caught.value).startswith(f"{path}{complaint}")


def test_a_key_that_only_some_rows_have_may_be_mapped(tmp_path):
    path = write(
        tmp_path / "math.jsonl", {"question": "a", "answer": "1"}, {"question": "b", "answer": "2", "of": "d"}
    )
    assert [row.domain for row in read(path, {"domain": "of"})] == ["own", "d"]


def test_without_a_mapping_foreign_keys_are_refused(tmp_path):
    with pytest.raises(DataFileError, match=r":1: unknown key 'problem'; must be one of question, answer"):
        read(write(tmp_path / "math.jsonl", MATH))


def test_splits_of_a_file_are_mapped_to_ours(tmp_path):
    rows = [
        {"question": f"q{n}", "answer": "1", "split": split}
        for n, split in enumerate(("Train", "dev", "cut", "mine"))
    ]
    path = write(tmp_path / "rows.jsonl", *rows)
    found = read(path, splits={"Train": "pool", "dev": "validation", "cut": None})
    assert [row.split for row in found] == ["pool", "validation", None, "mine"]
    with pytest.raises(DataFileError, match=r":1: split is 'Train'; must be one of public"):
        read(path)
    with pytest.raises(
        DataFileError, match=r":1: neither .* is in split 'tset'; splits are: Train, cut, dev, mine"
    ):
        read(path, splits={"Train": "pool", "tset": "test"})


def test_of_a_folders_splits_only_our_names_count_by_themselves(tmp_path):
    for place, name in enumerate(("train", "test", "unsupervised")):
        write(tmp_path / f"{name}.jsonl", {"question": f"q{place}", "answer": "1"})
    write(tmp_path / "validation.jsonl", {"question": "q3", "answer": "1", "split": "pool"})
    by_name = {row.question: row.split for row in read(tmp_path)}
    assert by_name == {"q0": None, "q1": "test", "q2": None, "q3": "pool"}
    mapped = {row.question: row.split for row in read(tmp_path, splits={"train": "pool", "test": "unseen"})}
    assert mapped == {"q0": "pool", "q1": "unseen", "q2": None, "q3": "pool"}


def test_a_table_of_texts_gives_clients_as_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,client,domain\na,1,0 2,\nb,2,1,d\nc,3,,\n")
    assert [(row.clients, row.domain, row.answers) for row in read(path)] == [
        ((0, 2), "own", ("1",)),
        ((1,), "d", ("2",)),
        ((), "own", ("3",)),
    ]
    path.write_text("question,answer,client\na,1,-1\n")
    with pytest.raises(DataFileError, match=r"rows\.csv:2: client is '-1'; must be a whole number"):
        read(path)


def test_a_row_of_a_table_is_named_by_its_number(tmp_path):
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"question": ["a", "b", "a"], "answer": [1.5, 2, 1e16]}).write_parquet(path)
    with pytest.raises(DataFileError, match=r"rows\.parquet: row 3: the question of row 1 stands here again"):
        read(path)
    pl.DataFrame({"question": ["a", "b"], "answer": [1.5, 1e16]}).write_parquet(path)
    assert [row.answers for row in read(path)] == [("1.5",), ("10000000000000000",)]
    pl.DataFrame({"question": ["a", "b"], "answer": ["1", None]}).write_parquet(path)
    with pytest.raises(DataFileError, match=r"rows\.parquet: row 2: answer is null"):
        read(path)


def test_gsm8k_as_the_hub_has_it_is_read_with_two_settings(tmp_path):
    """The published file's form: worked steps, calculator marks, and ``#### 1,200`` at the end."""
    rows = [
        {
            "question": f"What is {n} + 600?",
            "answer": f"We add. <<{n}+600={n + 600}>>{n + 600}\n#### {n + 600:,}",
        }
        for n in range(600, 640)
    ]
    for split, part in (("train", rows[:30]), ("test", rows[30:])):
        pl.DataFrame(part).write_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    tasks = TasksConfig.model_validate_json(
        json.dumps(
            {
                "file": str(tmp_path),
                "answer_pattern": r"#### ([-0-9.,]+)",
                "match": "numeric",
                "sizes": {"public": 5, "private": 10, "auxiliary": 3, "pool": 8, "validation": 4},
            }
        )
    )
    data = build(tasks, 2, 0)
    assert {q.text for q in data.test} == {row["question"] for row in rows[30:]}
    assert [len(split) for split in (data.public, data.auxiliary, data.pool, data.validation)] == [5, 3, 8, 4]
    one = next(q for q in data.test if q.text == "What is 639 + 600?")
    assert (one.answer, one.taught) == ("1,239", rows[39]["answer"])
    assert data.answers.right("So it is\n#### 1239", one.answers)
