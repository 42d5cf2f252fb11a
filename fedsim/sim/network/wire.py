"""Messages as they really travel: frozen structs, encoded by msgpack, whose length is what the link carries.

Every message type states its ``purpose`` and what the paper's account sees in it. Identifiers have a fixed
width on the wire and rewards are 8-byte floats, so that a message's size never depends on how large an id has
grown or on which evaluator answered. Fields travel in order without their names.

A message type with ``scalars_only = True`` declares that it carries registered scalars and nothing else; replies of
a scalar-only protocol must all be of that kind. ``texts`` names the fields that carry text, by kind, for runs whose texts are
billed at the lengths of a bigger model's (``fedsim.federation.billed_sizes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from fedsim.records.rows import Purpose

NUMBER_BYTES = 8
"""Declared width of one number in the paper's account (its figure 2 fits 8 bytes a reward)."""

_ID_BYTES = 8

Id = Annotated[bytes, msgspec.Meta(min_length=_ID_BYTES, max_length=_ID_BYTES)]
"""An identifier as it travels; made by ``pack_id``."""


def pack_id(number: int) -> bytes:
    """An identifier of fixed width: 8 bytes, big-endian.

    Raises:
        OverflowError: the number is negative or takes more than 8 bytes.
    """
    return number.to_bytes(_ID_BYTES, "big")


def unpack_id(raw: bytes) -> int:
    """The number behind ``pack_id``."""
    return int.from_bytes(raw, "big")


TextKind = Literal["question", "candidate", "answer"]
"""What a text is: a question, a whole candidate (rationale and answer), or a final answer alone."""

_NOT_IN_THE_PAPER: frozenset[Purpose] = frozenset({"setup", "control", "cancel"})

NumberType = Literal["float16", "float32"]
NUMBER_TYPE_BYTES: Mapping[str, int] = {"float16": 2, "float32": 4}


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False):
    """Root of all messages."""

    purpose: ClassVar[Purpose]
    scalars_only: ClassVar[bool] = False
    texts: ClassVar[Mapping[str, TextKind]] = {}

    def paper_bytes(self) -> int:
        """The paper's account of this message: its texts as UTF-8 and, in messages that carry some, numbers; no framing.

        Set-up, control and cancelling are not in it.

        Raises:
            NotImplementedError: the message is of another purpose, has no text, and does not say what its numbers count.
        """
        if not self.texts and self.purpose not in _NOT_IN_THE_PAPER:
            raise NotImplementedError(f"{type(self).__name__} must define texts or paper_bytes")
        return sum(_utf8_bytes(getattr(self, name)) for name in self.texts)


class ProbeExemplars(Message, frozen=True, array_like=True, tag="P"):
    """Down: labelled exemplars that the client answers with its own model (competence, eq. 5)."""

    purpose: ClassVar[Purpose] = "probe"
    texts: ClassVar[Mapping[str, TextKind]] = {"questions": "question", "answers": "answer"}

    draw: Id
    questions: tuple[str, ...]
    answers: tuple[str, ...]


class ProbeBits(Message, frozen=True, array_like=True, tag="B"):
    """Up (``probe: once``): one bit per exemplar, 1 where the client's own answer equals the label."""

    purpose: ClassVar[Purpose] = "probe"
    scalars_only: ClassVar[bool] = True

    draw: Id
    bits: bytes

    def paper_bytes(self) -> int:
        """The bits, eight to a byte."""
        return len(self.bits)


class ProbeNeighbours(ProbeExemplars, frozen=True, array_like=True, tag="N"):
    """Down (``probe: per_question``): the L exemplars nearest to one question, with their labels."""


class Competence(Message, frozen=True, array_like=True, tag="K"):
    """Up (``probe: per_question``): the client's accuracy on the exemplars it was just sent, in [0, 1]."""

    purpose: ClassVar[Purpose] = "probe"
    scalars_only: ClassVar[bool] = True

    draw: Id
    competence: float

    def __post_init__(self) -> None:
        """Refuse a number that would travel in another width."""
        _check_float(self.competence)

    def paper_bytes(self) -> int:
        """One number."""
        return NUMBER_BYTES


class Candidates(Message, frozen=True, array_like=True, tag="C"):
    """Down: a question and its G candidate answers, to be scored."""

    purpose: ClassVar[Purpose] = "question"
    texts: ClassVar[Mapping[str, TextKind]] = {"question": "question", "candidates": "candidate"}

    draw: Id
    question: str
    candidates: tuple[str, ...]


class Rewards(Message, frozen=True, array_like=True, tag="R"):
    """Up: one scalar per candidate."""

    purpose: ClassVar[Purpose] = "reward"
    scalars_only: ClassVar[bool] = True

    draw: Id
    rewards: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a number that would travel in another width."""
        for reward in self.rewards:
            _check_float(reward)

    def paper_bytes(self) -> int:
        """One number per candidate."""
        return NUMBER_BYTES * len(self.rewards)


class PartialRewards(Rewards, frozen=True, array_like=True, tag="T"):
    """Up, after a ``Hurry``: one scalar for each of the first candidates, as many as were scored by then."""


class QuestionOnly(Message, frozen=True, array_like=True, tag="Q"):
    """Down: a question to which the client is asked for its own answer (text will leave the client)."""

    purpose: ClassVar[Purpose] = "question"
    texts: ClassVar[Mapping[str, TextKind]] = {"question": "question"}

    draw: Id
    question: str


class Answer(Message, frozen=True, array_like=True, tag="A"):
    """Up: the client's own answer as text, with its rationale if it has one; not scalar-only."""

    purpose: ClassVar[Purpose] = "answer"
    texts: ClassVar[Mapping[str, TextKind]] = {"answer": "candidate"}

    draw: Id
    answer: str


class FinalAnswer(Answer, frozen=True, array_like=True, tag="F"):
    """Up: the client's own final answer alone, as the paper's released code sends it; not scalar-only."""

    texts: ClassVar[Mapping[str, TextKind]] = {"answer": "answer"}


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """A named array on the wire: little-endian numbers of the message's type, row by row."""

    name: str
    shape: tuple[int, ...]
    data: bytes


class AdapterDown(Message, frozen=True, array_like=True, tag="D"):
    """Down: the trainable part of the model (an adapter, or all of it), to be trained on the client's rows."""

    purpose: ClassVar[Purpose] = "adapter"

    round_index: Id
    number_type: NumberType
    tensors: tuple[Tensor, ...]

    def paper_bytes(self) -> int:
        """Numbers at their declared width."""
        return sum(prod(tensor.shape) for tensor in self.tensors) * NUMBER_TYPE_BYTES[self.number_type]


class AdapterUp(Message, frozen=True, array_like=True, tag="U"):
    """Up: the same part after local training, and on how many rows it was trained; not scalar-only."""

    purpose: ClassVar[Purpose] = "adapter"

    round_index: Id
    num_rows: Id
    number_type: NumberType
    tensors: tuple[Tensor, ...]

    def paper_bytes(self) -> int:
        """Numbers at their declared width; the row count is framing."""
        return sum(prod(tensor.shape) for tensor in self.tensors) * NUMBER_TYPE_BYTES[self.number_type]


class RowsRequest(Message, frozen=True, array_like=True, tag="O"):
    """Down: the client is asked for its private rows, all of them (pooled training; nothing stays private)."""

    purpose: ClassVar[Purpose] = "control"

    draw: Id


class Rows(Message, frozen=True, array_like=True, tag="W"):
    """Up: (question, answer) rows as text; not scalar-only."""

    purpose: ClassVar[Purpose] = "data"
    texts: ClassVar[Mapping[str, TextKind]] = {"questions": "question", "answers": "candidate"}

    draw: Id
    questions: tuple[str, ...]
    answers: tuple[str, ...]


class SyntheticRequest(RowsRequest, frozen=True, array_like=True, tag="S"):
    """Down: the client is asked for synthetic rows that resemble its own."""


class SyntheticRows(Rows, frozen=True, array_like=True, tag="Y"):
    """Up: synthetic (question, answer) rows; text, but under the stated mechanism not the client's own."""

    purpose: ClassVar[Purpose] = "synthetic"


class BaseModel(Message, frozen=True, array_like=True, tag="M"):
    """Down: a base model's weights, before the client can do anything (``base_model: shipped``).

    The weights themselves are not built: ``num_bytes`` says how long they are, and that is what the link carries
    (``fedsim.federation.billed_sizes``).
    """

    purpose: ClassVar[Purpose] = "setup"

    num_bytes: Id


class Ready(Message, frozen=True, array_like=True, tag="G"):
    """Up: the base model is there."""

    purpose: ClassVar[Purpose] = "setup"
    scalars_only: ClassVar[bool] = True

    num_bytes: Id


class Cancel(Message, frozen=True, array_like=True, tag="X"):
    """Down: stop working on a request."""

    purpose: ClassVar[Purpose] = "cancel"

    draw: Id


class Hurry(Message, frozen=True, array_like=True, tag="H"):
    """Down: stop working on a request and send what there is of its reply."""

    purpose: ClassVar[Purpose] = "control"

    draw: Id


AnyMessage = (
    ProbeExemplars
    | ProbeBits
    | ProbeNeighbours
    | Competence
    | Candidates
    | Rewards
    | PartialRewards
    | QuestionOnly
    | Answer
    | FinalAnswer
    | AdapterDown
    | AdapterUp
    | RowsRequest
    | Rows
    | SyntheticRequest
    | SyntheticRows
    | BaseModel
    | Ready
    | Cancel
    | Hurry
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """The bytes that travel."""
    return _ENCODER.encode(message)


def decode(raw: bytes) -> Message:
    """Read a message back; its tag, the number of fields and their types are checked.

    Raises:
        msgspec.DecodeError: the bytes are not exactly one of our messages.
    """
    try:
        message: Message = _DECODER.decode(raw)
    except UnicodeDecodeError as error:  # msgspec lets it through
        raise msgspec.DecodeError(f"a text is not UTF-8: {error}") from None
    return message


def _check_float(number: object) -> None:
    # msgpack writes an int in one to nine bytes: a reward of 1 would tell by its size who gave it.
    if type(number) is not float:
        raise TypeError(
            f"a number on the wire is a float of 8 bytes, not {type(number).__name__} ({number!r})"
        )


def _utf8_bytes(text: str | tuple[str, ...]) -> int:
    return len(text.encode()) if isinstance(text, str) else sum(len(one.encode()) for one in text)
