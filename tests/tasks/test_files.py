"""Own question files: what is read, and what is refused with file and line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.limits import MAX_DATA_BYTES, MAX_LINE_CHARS
from fedsim.errors import DataFileError
from fedsim.tasks.config import TasksConfig
from fedsim.tasks.files import FileRow, Place, read_questions


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
        FileRow("1+1", ("2",), Place(str(path), 1)),
        FileRow("capital of Peru?", ("Lima",), Place(str(path), 3), "geo", (3,), "private"),
        FileRow("2.5*2", ("5",), Place(str(path), 4)),
    ]


def test_a_row_may_have_wordings_accepted_answers_owners_a_split_a_fact_and_a_solution(tmp_path):
    path = write(
        tmp_path,
        '{"question": ["5+5", "add 5 to 5"], "answer": [10, "ten", "10"], "split": "pool", "fact": 3, "solution": "#### 10"}',
        '{"question": ["capital of Peru?", "Peru: capital?"], "answer": "Lima", "client": [2, 0]}',
        '{"question": "2*2", "answer": "4", "split": "never_asked", "fact": null, "solution": null, "domain": null}',
    )
    first, second = Place(str(path), 1), Place(str(path), 2)
    assert read_questions(path, TasksConfig(answer_pattern=r"#### (\d+)")) == [
        FileRow("5+5", ("10", "ten"), first, "own", (), "pool", "3", "#### 10"),
        FileRow("add 5 to 5", ("10", "ten"), first, "own", (), "pool", "3", "#### 10"),
        FileRow("capital of Peru?", ("Lima",), second, "own", (2, 0), "private", "capital of Peru?"),
        FileRow("Peru: capital?", ("Lima",), second, "own", (2, 0), "private", "capital of Peru?"),
        FileRow("2*2", ("4",), Place(str(path), 3), split="never_asked"),
    ]


def test_a_private_question_may_stand_in_lines_of_several_clients(tmp_path):
    path = write(
        tmp_path,
        '{"question": "a", "answer": ["b", "B"], "client": [0, 2]}',
        '{"question": "a", "answer": "b", "client": 1}',
    )
    assert [row.clients for row in read_questions(path)] == [(0, 2), (1,)]


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
        ('{"question": "c", "answer": "d", "client": [1, "2"]}', "client is '2'"),
        ('{"question": "c", "answer": "d", "client": [1, 1]}', "client names 1 twice"),
        ('{"question": "c", "answer": "d", "client": []}', "client is a list of 0; must have 1 to 100 texts"),
        ('{"question": [], "answer": "d"}', "question is a list of 0"),
        ('{"question": ["c", 5], "answer": "d"}', "question is 5"),
        ('{"question": ["c", "c "], "answer": "d"}', "the question of line 2 stands here again"),
        ('{"question": "c", "answer": []}', "answer is a list of 0"),
        ('{"question": "c", "answer": ["d", ""]}', 'answer is ""'),
        ('{"question": "c", "answer": ["d", null]}', "answer is null"),
        ('{"question": "c", "answer": {"text": "d"}}', 'answer is {"text": "d"}'),
        ('{"question": "c", "answer": "d", "fact": true}', "fact is true"),
        ('{"question": "c", "answer": "d", "solution": 5}', "solution is 5"),
        ('{"question": "c", "answer": "d", "solution": "so d"}', "a solution needs tasks.answer_pattern"),
        ('{"question": "c", "answer": "d", "split": 1}', "split is 1"),
        (
            '{"question": "c", "answer": "d", "split": "Train"}',
            "split is 'Train'; must be one of public, private",
        ),
        ('{"question": "c", "answer": "d", "split": "../x"}', "or the name of an extra set: 1 to 32 of a-z"),
        ('{"question": "c", "answer": "d", "split": "test", "client": 1}', "only private rows have a client"),
        (
            '{"question": "a", "answer": "b", "client": 1}',
            "the question of line 1 stands here again (in split private",
        ),
        (
            '{"question": "a", "answer": "b", "split": "test"}',
            "stands here again (in split test, there in no split); keep one of them",
        ),
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


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        (
            {"client": 1},
            {"client": 1},
            "the question of line 1 stands here again for client 1; keep one of them",
        ),
        (
            {"client": [0, 1]},
            {"client": [2, 1]},
            "the question of line 1 stands here again for client 1; keep one of them",
        ),
        (
            {"client": 0},
            {"client": 1, "answer": "z"},
            'stands here again with the answer "z", there "b"; only one can be right',
        ),
        ({"split": "pool"}, {"split": "pool"}, "the question of line 1 stands here again; keep one of them"),
        ({"split": "seen"}, {"split": "pool"}, "stands here again (in split pool, there in split seen)"),
        (
            {"split": "pool", "fact": "Peru"},
            {"split": "test", "fact": "Peru", "question": "c"},
            'fact "Peru" of line 1, which is in split pool, is in split test here; what is tested must not be asked or shown',
        ),
        (
            {"split": "validation", "fact": 1},
            {"split": "format", "fact": "1", "question": "c"},
            'fact "1" of line 1, which is in split validation, is in split format here',
        ),
        (
            {"split": "pool", "fact": "Peru"},
            {"fact": "Peru", "question": "c"},
            "which is in split pool, is here in no split; rows of this fact must name their split",
        ),
        (
            {"fact": "Peru"},
            {"split": "test", "fact": "Peru", "question": "c"},
            "which is in no split, is here in split test; rows of this fact must name their split",
        ),
    ],
)
def test_a_question_or_fact_in_two_places_is_named_with_both(tmp_path, first, second, complaint):
    row = {"question": "a", "answer": "b"}
    path = write(tmp_path, json.dumps(row | first), json.dumps(row | second))
    with pytest.raises(DataFileError) as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)


def test_a_fact_may_be_private_in_extra_sets_and_in_one_of_what_is_asked_and_what_is_tested(tmp_path):
    for splits in (
        ("private", "pool", "reworded", "public", "pool"),
        ("test", "validation", "reworded", "private"),
    ):
        rows = [
            {"question": f"q{n}", "answer": "b", "fact": "Peru", "split": split}
            for n, split in enumerate(splits)
        ]
        assert len(read_questions(write(tmp_path, *map(json.dumps, rows)))) == len(splits)


def test_an_answer_of_which_nothing_is_left_and_a_stop_text_in_an_answer_are_named(tmp_path):
    path = write(tmp_path, GOOD, '{"question": "c", "answer": ["d, then e", "the"]}')
    with pytest.raises(
        DataFileError, match=r':2: nothing is left of the answer "the" under tasks.match normalized'
    ):
        read_questions(path, TasksConfig(match="normalized"))
    with pytest.raises(DataFileError, match=r':2: the answer holds the text ", " of tasks.stop'):
        read_questions(path, TasksConfig(stop=("\n", ", ")))


def test_a_solution_ends_in_its_answer(tmp_path):
    config = TasksConfig(answer_pattern=r"is (\d+)", match="numeric")
    lines = [
        json.dumps({"question": "a", "answer": [5, 6], "solution": f"2+3 is 4, no, is {end}"})
        for end in (5.0, 6, 7)
    ]
    assert len(read_questions(write(tmp_path, lines[0]), config)) == 1
    assert len(read_questions(write(tmp_path, lines[1]), config)) == 1
    with pytest.raises(DataFileError, match='finds in the solution is "7"; must be "5"'):
        read_questions(write(tmp_path, lines[2]), config)


def test_answers_that_are_worked_solutions_are_parted(tmp_path):
    config = TasksConfig(answer_pattern=r"#### ([-0-9.,]+)", match="numeric")
    path = write(tmp_path, '{"question": "a", "answer": "1200 + 34 = 1234\\n#### 1,234"}')
    (row,) = read_questions(path, config)
    assert (row.answers, row.solution) == (("1,234",), "1200 + 34 = 1234\n#### 1,234")


def test_where_the_pattern_finds_an_answer_in_one_row_it_must_in_all(tmp_path):
    config = TasksConfig(answer_pattern=r"#### (\d+)")
    path = write(tmp_path, '{"question": "c", "answer": "so\\n#### 7"}', GOOD)
    with pytest.raises(
        DataFileError, match=r'my.jsonl:2: tasks.answer_pattern finds nothing in the answer "b"'
    ):
        read_questions(path, config)
    # A model that writes its answers in a form of its own is compared with bare ones.
    (row,) = read_questions(write(tmp_path, GOOD), config)
    assert (row.answers, row.solution) == (("b",), "")
    # What the pattern finds in a bare answer is that answer.
    (row,) = read_questions(
        write(tmp_path, '{"question": "c", "answer": 7}'), TasksConfig(answer_pattern=r"(\d+)")
    )
    assert (row.answers, row.solution) == (("7",), "")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, complaint in (
        (tmp_path / "absent.jsonl", "cannot be read"),
        (tmp_path, "holds no data set"),
        (tmp_path / "\0", "cannot be read"),
    ):
        with pytest.raises(DataFileError, match=complaint):
            read_questions(path)
    with pytest.raises(DataFileError, match=r"holds no question; needs one JSON object per line"):
        read_questions(write(tmp_path))
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
    assert (row.question, row.answers) == (f"q{question}q", (f"a{answer}a",))
