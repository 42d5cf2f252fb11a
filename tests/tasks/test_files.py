"""Own question files: what is read, and what is refused with file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.limits import MAX_DATA_BYTES, MAX_LINE_CHARS
from fedsim.errors import DataFileError
from fedsim.tasks.files import FileRow, read_questions


def write(tmp_path, *lines):
    path = tmp_path / "my.jsonl"
    path.write_bytes("\n".join(lines).encode() if lines and isinstance(lines[0], str) else b"".join(lines))
    return path


def test_questions_are_read_with_their_defaults(tmp_path):
    path = write(
        tmp_path,
        '{"question": " 1+1 ", "answer": "2"}',
        "",
        '{"question": "capital of Peru?", "answer": "Lima", "domain": "geo", "client": 3}',
        '{"question": "2.5*2", "answer": 5, "client": null}\r',
    )
    assert read_questions(path) == [
        FileRow("1+1", "2", "own", None, 1),
        FileRow("capital of Peru?", "Lima", "geo", 3, 3),
        FileRow("2.5*2", "5", "own", None, 4),
    ]


GOOD = '{"question": "a", "answer": "b"}'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "holds [1]; must be an object"),
        ('{"question": "c"}', "answer is missing"),
        ('{"answer": "c"}', "question is missing"),
        ('{"question": "c", "answer": "d", "label": 1}', "unknown key 'label'; must be one of question"),
        ('{"question": "c", "question": "e", "answer": "d"}', "the key 'question' stands twice"),
        ('{"question": "a", "answer": "z"}', "the question of line 1 stands here again"),
        ('{"question": " a ", "answer": "z"}', "the question of line 1 stands here again"),
        ('{"question": "", "answer": "d"}', 'question is ""'),
        ('{"question": "c", "answer": "  "}', 'answer is "  "'),
        ('{"question": "c", "answer": NaN}', "NaN is not a number that JSON has"),
        ('{"question": "c", "answer": 1e999}', "answer is inf"),
        ('{"question": "c", "answer": true}', "answer is true"),
        ('{"question": "c", "answer": null}', "answer is null"),
        ('{"question": 5, "answer": "d"}', "question is 5"),
        ('{"question": "c\\ud800", "answer": "d"}', "surrogate"),
        ('{"question": "c", "answer": "d", "client": -1}', "client is -1"),
        ('{"question": "c", "answer": "d", "client": 1.0}', "client is 1.0"),
        ('{"question": "c", "answer": "d", "client": true}', "client is True"),
        ('{"question": "c", "answer": "d", "client": "2"}', "client is '2'"),
        ("[" * 50_000, "not JSON"),
        ('{"question": "c", "answer": ' + "9" * 5000 + "}", "not JSON"),
        ("x" * (MAX_LINE_CHARS + 1), "more than 100,000 characters"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path, line, complaint):
    path = write(tmp_path, GOOD, line)
    with pytest.raises(DataFileError) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, complaint in (
        (tmp_path / "absent.jsonl", "cannot be read"),
        (tmp_path, "cannot be read"),
        (write(tmp_path), "holds no question"),
    ):
        with pytest.raises(DataFileError, match=complaint):
            read_questions(path)
    with pytest.raises(DataFileError, match="not UTF-8"):
        read_questions(write(tmp_path, b"\xff\xfe"))


def test_a_file_over_the_limit_is_refused_by_its_size(tmp_path):
    path = write(tmp_path, GOOD)
    with path.open("ab") as stream:
        stream.truncate(MAX_DATA_BYTES + 1)  # a hole: nothing is written
    with pytest.raises(
        DataFileError, match=r"my\.jsonl: has 268,435,457 bytes; must have at most 268,435,456"
    ):
        read_questions(path)


@given(st.text(max_size=60))
def test_any_line_is_either_read_or_refused_by_name(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "my.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataFileError, match=r"my\.jsonl"):
        read_questions(path)


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_text_survives_the_file(tmp_path_factory, question, answer):
    path = tmp_path_factory.mktemp("fuzz") / "my.jsonl"
    path.write_text(json.dumps({"question": f"q{question}q", "answer": f"a{answer}a"}), encoding="utf-8")
    (row,) = read_questions(path)
    assert (row.question, row.answer) == (f"q{question}q", f"a{answer}a")
