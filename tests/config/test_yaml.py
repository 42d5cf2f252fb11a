from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.config.limits import MAX_DEPTH, MAX_YAML_BYTES
from fedsim.config.yaml import Document, assign, parse, to_yaml
from fedsim.errors import ScenarioError


def value_of(text: str) -> object:
    return parse(f"x: {text}\n".encode(), "s.yaml").data["x"]


def error_of(content: str | bytes) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(content.encode() if isinstance(content, str) else content, "s.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("true", True), ("False", False),
        ("1:30", "1:30"), ("0123", "0123"), ("-0", 0), ("0x1f", "0x1f"), ("2026-01-01", "2026-01-01"),
        ("1e6", 1e6), ("1.5e-4", 1.5e-4), (".5", 0.5), ("1_000", 1000), ("12.", 12.0), ("~", None),
        ("", None), ("null", None), ("'5'", "5"), ('"true"', "true"), ("20 Mbit/s", "20 Mbit/s"), ("=", "="),
    ],
)  # fmt: skip
def test_a_plain_word_means_what_a_person_reads(text: str, value: object) -> None:
    read = value_of(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "s.yaml:3: a stands twice (first on line 1)"),
        ("a:\n  b: 1\n  b: 2\n", "s.yaml:3: a.b stands twice (first on line 2)"),
        ("a: &x [1]\n", "s.yaml:1: anchors and aliases (&, *) are not supported; write the value out"),
        ("a: 1\nb: *x\n", "s.yaml:2: anchors and aliases (&, *) are not supported; write the value out"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "s.yaml:1: tags are not supported (tag:yaml.org,2002:python/object/apply:os.system); "
            "write the plain value",
        ),
        (
            "a: !!str 5\n",
            "s.yaml:1: tags are not supported (tag:yaml.org,2002:str); write the plain value",
        ),
        ("a:\n  - 1\n  - .nan\n", "s.yaml:3: a.1 is .nan; must be a finite number"),
        ("a: -.inf\n", "s.yaml:1: a is -.inf; must be a finite number"),
        ("a: 1e999\n", "s.yaml:1: a is 1e999; must be a finite number"),
        ("a: 1234567890123456789\n", "s.yaml:1: a has 19 digits; at most 18"),
        ("- 1\n", "s.yaml must hold a mapping at its top level (lines like `name: my-run`)"),
        ("just words\n", "s.yaml must hold a mapping at its top level (lines like `name: my-run`)"),
        ("", "s.yaml must hold a mapping at its top level (lines like `name: my-run`)"),
        ("a: 1\n? [b]\n: 2\n", "s.yaml:2: a key must be a word"),
        (b"a: 1\nb: \xff\n", "s.yaml:2: not UTF-8 text"),
        ("a: 1\nb: \x07\n", "s.yaml:2: the character U+0007 is not allowed"),
    ],
)
def test_what_yaml_allows_and_scenarios_do_not_is_refused_with_its_line(
    content: str | bytes, message: str
) -> None:
    assert error_of(content) == message


def test_broken_yaml_is_one_line_with_the_line_number() -> None:
    message = error_of("a: 1\nb: [1, 2\nc: 3\n")
    assert message == "s.yaml:2: a list that starts with '[' on this line is not closed; close it with ']'"
    assert "\n" not in message


def test_a_second_document_in_the_file_is_refused() -> None:
    assert error_of("a: 1\n---\nb: 2\n").startswith("s.yaml:2: ")


def test_a_deeply_nested_file_is_refused_before_the_stack_overflows() -> None:
    message = f"s.yaml:1: values are nested more than {MAX_DEPTH} deep"
    assert error_of("a: " + "[" * 10_000) == message


def test_a_file_of_many_values_or_bytes_is_refused() -> None:
    assert error_of("a: [" + "1," * 20_001 + "]") == "s.yaml:1: the file holds more than 20,000 values"
    assert "must have at most 262,144" in error_of(b"#" * (MAX_YAML_BYTES + 1))


def test_every_key_and_list_item_knows_its_line() -> None:
    document = parse(b"# head\na: 1\nb:\n  c: [x,\n      y]\n", "s.yaml")
    assert document.origin(("a",)) == "s.yaml:2"
    assert document.origin(("b", "c")) == "s.yaml:4"
    assert document.origin(("b", "c", 1)) == "s.yaml:5"
    assert document.origin(("b", "missing", "deeper")) == "s.yaml:3"
    assert document.origin(("nowhere",)) == "s.yaml"


def document() -> Document:
    return parse(b"a:\n  b: 1\n  list: [x, y]\nc: word\n", "s.yaml")


def test_an_assignment_changes_one_value_and_becomes_its_origin() -> None:
    changed = document()
    assign(changed, "a.b=[1, two]")
    assign(changed, "a.list.1=z")
    assign(changed, "new.inner=5 s")
    assert changed.data == {"a": {"b": [1, "two"], "list": ["x", "z"]}, "c": "word", "new": {"inner": "5 s"}}
    assert changed.origin(("a", "b")) == "--set a.b=[1, two]"
    assert changed.origin(("a", "list", 0)) == "s.yaml:3"
    assert changed.origin(("new", "inner")) == "--set new.inner=5 s"


def test_an_assignment_forgets_the_lines_of_what_it_replaces() -> None:
    changed = document()
    assign(changed, "a={b: 2}")
    assert changed.origin(("a", "b")) == "--set a={b: 2}"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a.b", "--set a.b: must look like path.to.key=value"),
        ("=5", "--set =5: must look like path.to.key=value"),
        ("a..b=5", "--set a..b=5: must look like path.to.key=value"),
        ("c.d=5", "--set c.d=5: c is 'word', which has no keys; set c itself"),
        ("c.d.e=5", "--set c.d.e=5: c is 'word', which has no keys; set c itself"),
        ("a.list.2=z", "--set a.list.2=z: a.list is a list; 2 must be an index from 0 to 1"),
        ("a.list.x=z", "--set a.list.x=z: a.list is a list; x must be an index from 0 to 1"),
        ("a.b=.inf", "--set a.b=.inf: a.b is .inf; must be a finite number"),
    ],
)
def test_an_impossible_assignment_says_why(assignment: str, message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        assign(document(), assignment)
    assert str(caught.value) == message


words = st.text(max_size=30)
numbers = st.one_of(st.integers(-(10**18) + 1, 10**18 - 1), st.floats(allow_nan=False, allow_infinity=False))
scalars = st.one_of(st.none(), st.booleans(), numbers, words)


def nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.lists(inner, max_size=4), st.dictionaries(words.filter(bool), inner, max_size=4))


trees = st.recursive(scalars, nested, max_leaves=12)
yaml_like = st.text("ab:-[]{}&*!|>'\"#%@ \n\t,?0.", max_size=60).map(str.encode)


@given(st.dictionaries(words.filter(bool), trees, max_size=5))
def test_whatever_is_written_is_read_back_the_same(data: dict[str, object]) -> None:
    assert parse(to_yaml(data).encode(), "s.yaml").data == data


@given(st.one_of(st.binary(max_size=80), yaml_like))
def test_no_content_raises_anything_but_a_one_line_scenario_error(content: bytes) -> None:
    try:
        parse(content, "s.yaml")
    except ScenarioError as error:
        assert "\n" not in str(error)
