"""Messages: what is sent is what is read, and a size that tells nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fedsim.errors import PluginError
from fedsim.sim.network import wire

ids = st.integers(0, 2**64 - 1).map(wire.pack_id)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.floats(allow_nan=False)
many_texts = st.lists(texts, max_size=5).map(tuple)
shapes = st.lists(st.integers(0, 300), max_size=3).map(tuple)
tensors = st.lists(st.builds(wire.Tensor, texts, shapes, st.binary(max_size=20)), max_size=3).map(tuple)

messages: st.SearchStrategy[wire.Message] = st.one_of(
    st.builds(wire.ProbeExemplars, ids, many_texts, many_texts),
    st.builds(wire.ProbeBits, ids, st.binary(max_size=20)),
    st.builds(wire.ProbeNeighbours, ids, many_texts, many_texts),
    st.builds(wire.Competence, ids, numbers),
    st.builds(wire.Candidates, ids, texts, many_texts),
    st.builds(wire.Rewards, ids, st.lists(numbers, max_size=5).map(tuple)),
    st.builds(wire.PartialRewards, ids, st.lists(numbers, max_size=5).map(tuple)),
    st.builds(wire.QuestionOnly, ids, texts),
    st.builds(wire.Answer, ids, texts),
    st.builds(wire.FinalAnswer, ids, texts),
    st.builds(wire.AdapterDown, ids, st.sampled_from(["float16", "float32"]), tensors),
    st.builds(wire.AdapterUp, ids, ids, st.sampled_from(["float16", "float32"]), tensors),
    st.builds(wire.RowsRequest, ids),
    st.builds(wire.Rows, ids, many_texts, many_texts),
    st.builds(wire.SyntheticRequest, ids),
    st.builds(wire.SyntheticRows, ids, many_texts, many_texts),
    st.builds(wire.BaseModel, ids),
    st.builds(wire.Ready, ids),
    st.builds(wire.Cancel, ids),
    st.builds(wire.Hurry, ids),
)


OURS = [kind for kind in wire.kinds() if kind.__module__ == wire.__name__]


@given(messages)
def test_every_message_is_read_back_as_it_was_sent(message: wire.Message) -> None:
    again = wire.decode(wire.encode(message))
    assert again == message and type(again) is type(message)


def test_every_message_type_can_be_decoded_and_is_tried_above() -> None:
    tried = {branch.wrapped_strategy.target for branch in messages.element_strategies}
    assert tried == set(OURS) and len(OURS) == 20


def test_the_text_fields_that_a_message_names_are_all_of_its_texts() -> None:
    for kind in OURS:
        fields = {field.name for field in msgspec.structs.fields(kind) if "str" in str(field.type)}
        assert set(kind.texts) == fields - {"number_type"}


@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused(raw: bytes) -> None:
    """Whatever comes in, ``DecodeError`` is the only error; what passes (hardly ever) is one of our messages."""
    try:
        message = wire.decode(raw)
    except msgspec.DecodeError:
        return
    assert isinstance(message, wire.Message)


@given(messages, st.data())
def test_a_torn_message_is_refused(message: wire.Message, data: st.DataObject) -> None:
    raw = wire.encode(message)
    with pytest.raises(msgspec.DecodeError):
        wire.decode(raw[: data.draw(st.integers(0, len(raw) - 1))])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (["Z", wire.pack_id(1)], "Invalid value 'Z'"),
        (["X"], "at least length"),
        (["X", wire.pack_id(1), "more"], "at most length"),
        (["X", b"short"], "length >= 8"),
        (["X", b"nine byte"], "length <= 8"),
        (["X", "text"], "Expected `bytes`"),
        (["R", wire.pack_id(1), ["0.5"]], "Expected `float`"),
        (["R", wire.pack_id(1), [None]], "Expected `float`"),
        ({"type": "X"}, "Expected `array`"),
    ],
)
def test_a_message_of_another_shape_is_refused_with_its_reason(content: Any, why: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=why):
        wire.decode(msgspec.msgpack.encode(content))


@pytest.mark.parametrize("message", [wire.Cancel(wire.pack_id(1)), wire.Answer(wire.pack_id(1), "X")])
def test_text_that_is_not_utf_8_is_refused(message: wire.Message) -> None:
    with pytest.raises(msgspec.DecodeError, match="not UTF-8"):
        wire.decode(wire.encode(message).replace(b"X", b"\xff"))


def test_bytes_after_a_message_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.decode(wire.encode(wire.Cancel(wire.pack_id(1))) + b"\x00")


def test_sizes_worked_by_hand() -> None:
    # array head 1, tag 2, id 2 + 8; then text head + text, or array head 1 and 9 a float.
    draw = wire.pack_id(3)
    assert len(wire.encode(wire.Cancel(draw))) == 13
    assert len(wire.encode(wire.Rewards(draw, (0.0,) * 8))) == 13 + 1 + 8 * 9
    assert len(wire.encode(wire.Competence(draw, 0.25))) == 13 + 9
    assert len(wire.encode(wire.QuestionOnly(draw, "12 + 5"))) == 13 + 1 + 6
    assert len(wire.encode(wire.Candidates(draw, "12 + 5", ("17", "18")))) == 13 + 7 + 1 + 3 + 3
    assert len(wire.encode(wire.ProbeBits(draw, bytes(13)))) == 13 + 2 + 13


@given(st.integers(0, 2**64 - 1), texts)
def test_a_messages_size_does_not_depend_on_how_large_its_id_has_grown(number: int, text: str) -> None:
    small, large = (wire.QuestionOnly(wire.pack_id(n), text) for n in (0, number))
    assert len(wire.encode(small)) == len(wire.encode(large))
    assert wire.unpack_id(large.draw) == number


@given(st.lists(st.booleans(), max_size=9), st.data())
def test_exact_and_real_valued_rewards_have_one_size(right: list[bool], data: st.DataObject) -> None:
    exact = wire.Rewards(wire.pack_id(0), tuple(float(one) for one in right))
    scores = data.draw(st.lists(numbers, min_size=len(right), max_size=len(right)))
    assert len(wire.encode(exact)) == len(wire.encode(wire.Rewards(wire.pack_id(0), tuple(scores))))


@pytest.mark.parametrize("reward", [1, True, "1", None])
def test_a_reward_that_would_travel_in_another_width_is_refused(reward: Any) -> None:
    with pytest.raises(TypeError, match="float of 8 bytes"):
        wire.Rewards(wire.pack_id(0), (0.5, reward))
    with pytest.raises(TypeError, match="float of 8 bytes"):
        wire.Competence(wire.pack_id(0), reward)


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_does_not_fit_an_id_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        wire.pack_id(number)


def test_the_papers_account_counts_numbers_at_eight_bytes_and_text_as_utf_8() -> None:
    draw = wire.pack_id(0)
    assert wire.Rewards(draw, (0.5,) * 8).paper_bytes() == 64
    assert wire.Competence(draw, 0.5).paper_bytes() == 8
    assert wire.ProbeBits(draw, bytes(13)).paper_bytes() == 13
    assert wire.Answer(draw, "42").paper_bytes() == 2
    assert wire.QuestionOnly(draw, "π").paper_bytes() == 2
    assert wire.Candidates(draw, "π", ("1", "22")).paper_bytes() == 5
    assert wire.ProbeExemplars(draw, ("ab", "c"), ("1", "2")).paper_bytes() == 5
    assert wire.ProbeNeighbours(draw, ("ab", "c"), ("1", "2")).paper_bytes() == 5
    assert wire.Cancel(draw).paper_bytes() == 0
    assert wire.FinalAnswer(draw, "42").paper_bytes() == 2
    half, whole = wire.Tensor("a", (2, 3), bytes(12)), wire.Tensor("a", (2, 3), bytes(24))
    assert wire.AdapterDown(draw, "float16", (half, half)).paper_bytes() == 2 * 6 * 2
    assert wire.AdapterUp(draw, draw, "float32", (whole,)).paper_bytes() == 6 * 4
    assert wire.Rows(draw, ("π", "b"), ("1", "22")).paper_bytes() == 6
    assert wire.SyntheticRows(draw, ("a",), ("1",)).paper_bytes() == 2
    assert wire.RowsRequest(draw).paper_bytes() == wire.SyntheticRequest(draw).paper_bytes() == 0
    assert wire.BaseModel(draw).paper_bytes() == wire.Ready(draw).paper_bytes() == 0


class Votes(wire.OfDraw, frozen=True, array_like=True, tag="test_wire.votes"):
    purpose = "ballots"
    names: tuple[wire.Id, ...] = ()
    number_type: wire.NumberType = "float16"
    votes: tuple[int, ...] = ()
    text: str = ""
    raw: bytes = b""
    arrays: tuple[wire.Array, ...] = ()
    other: dict[str, int] | None = None


def test_what_a_message_counts_in_the_papers_account_is_read_from_its_fields() -> None:
    one = wire.pack_id(1)
    array = wire.Array.of("a", [[1, 0], [0, 1]], "uint16")
    assert Votes(one, (one, one), other=()).paper_bytes() == 0
    assert Votes(one, (), "float32", (1, 2), "π", b"raw", (array,), other=()).paper_bytes() == 16 + 2 + 3 + 8
    with pytest.raises(PluginError, match=r"what a dict counts in the paper's account, paper_bytes must say"):
        Votes(one, other={}).paper_bytes()


def test_a_message_of_somebody_else_is_read_back_as_it_was_sent() -> None:
    message = Votes(wire.pack_id(1), votes=(3, 1), arrays=(wire.Array.of("m", [0.5], "float16"),))
    assert Votes in wire.kinds()
    assert wire.decode(wire.encode(message)) == message


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=5, min_side=0), elements=st.integers(0, 200)))
def test_arrays_of_every_type_are_read_back_and_as_long_as_they_say(array: Any) -> None:
    for number_type, bits in {"float16": 16, "float32": 32, "uint8": 8, "uint16": 16, "bits": 1}.items():
        sent = wire.Array.of("a", array, number_type)  # type: ignore[arg-type]
        assert len(sent.data) == -(-array.size * bits // 8)
        assert np.array_equal(sent.array(), array != 0 if number_type == "bits" else array)


def test_what_a_message_reveals_is_declared_or_scalars_or_nothing_or_called_undeclared() -> None:
    class Patterns(Votes, frozen=True, array_like=True, tag="test_wire.patterns"):
        reveals = "item patterns"

    class Nothing(Votes, frozen=True, array_like=True, tag="test_wire.nothing"):
        reveals = ""

    told = [wire.revealed(kind) for kind in (Votes, Patterns, Nothing, wire.Rewards, wire.Ready, wire.Rows)]
    assert told == ["ballots (undeclared)", "item patterns", None, "scalars", None, "private rows"]


def test_a_tag_that_is_taken_a_tag_without_a_name_before_it_and_an_odd_purpose_are_refused() -> None:
    def made(name: str, base: type = wire.Message, purpose: str = "ballots", **options: Any) -> None:
        body = {"purpose": purpose, "__module__": __name__, "__qualname__": name}
        type(wire.Message)(name, (base,), body, **{"frozen": True, "array_like": True, **options})

    with pytest.raises(
        TypeError, match=r"tag 'test_wire.votes' of .*\.Other is .*\.Votes's; give it another"
    ):
        made("Other", tag="test_wire.votes")
    with pytest.raises(TypeError, match=r"tag 'test_wire.votes' of .*\.Heir is"):
        made("Heir", Votes)
    with pytest.raises(TypeError, match=r"a tag like 'x.kind'; it is 'R'"):
        made("Other", tag="R")
    with pytest.raises(TypeError, match=r"a tag like 'x.kind'; it is 'Other'"):
        made("Other")
    with pytest.raises(TypeError, match="frozen and array_like"):
        made("Other", tag="test_wire.other", array_like=False)
    with pytest.raises(ValueError, match="'item factors' must be 1 to 64 of a-z"):
        made("Other", tag="test_wire.other", purpose="item factors")
    assert not {"Other", "Heir"} & {kind.__name__ for kind in wire.kinds()}
    for _ in range(2):  # a module may be imported again
        made("Again", tag="test_wire.again")
    assert [kind.__name__ for kind in wire.kinds()].count("Again") == 1


def test_what_cannot_travel_is_refused_by_the_messages_name() -> None:
    with pytest.raises(PluginError, match="message Votes cannot travel: Encoding objects of type object"):
        wire.encode(Votes(wire.pack_id(1), votes=(object(),)))  # type: ignore[arg-type]


def test_only_scalars_and_bits_go_up_in_a_scalar_only_protocol() -> None:
    scalar = {kind for kind in OURS if kind.scalars_only}
    assert scalar == {wire.ProbeBits, wire.Competence, wire.Rewards, wire.PartialRewards, wire.Ready}
    for kind in scalar:
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        assert str not in fields.values() and tuple[str, ...] not in fields.values()
