"""Messages as they really travel: frozen structs, encoded by msgpack, whose length is what the link carries.

A message type is on the register as soon as its class is made, ours below and those of third parties alike. It states its
``purpose``, by which bytes are added up, and, if it goes up, what it ``reveals``. Identifiers have a fixed width and
rewards are 8-byte floats, so that a message's size never depends on how large an id has grown or on which evaluator answered.
Fields travel in order without their names.

A message type with ``scalars_only = True`` declares that it carries registered scalars and nothing else; replies of
a scalar-only protocol must all be of that kind. ``texts`` names the fields that carry text, by kind, for runs whose texts are
billed at the lengths of a bigger model's (``fedsim.federation.billed_sizes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import msgspec
import numpy as np
import numpy.typing as npt

from fedsim.config.strict import plain_name
from fedsim.errors import PluginError
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

_NOT_IN_THE_PAPER = ("setup", "control", "cancel")

NumberType = Literal["float16", "float32"]
NUMBER_TYPE_BYTES: Mapping[str, int] = {"float16": 2, "float32": 4}
ArrayType = Literal["float16", "float32", "uint8", "uint16", "bits"]
DTYPES: Mapping[str, str] = {"float16": "<f2", "float32": "<f4", "uint8": "u1", "uint16": "<u2"}
"""Numbers of each type as numpy reads them."""

_REGISTER: dict[str, type[Message]] = {}
_ENCODER = msgspec.msgpack.Encoder()


@cache
def _decoder() -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(Union[kinds()])  # noqa: UP007 - made at run time


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class _Kind(msgspec.StructMeta):
    """Puts every type of message that has a purpose on the register (a struct's tag is not known to ``__init_subclass__``)."""

    def __init__(self, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace)
        kind: Any = self
        if not hasattr(kind, "purpose"):  # a base that several types share
            return
        plain_name(kind.purpose)
        config, own = kind.__struct_config__, _full_name(kind)
        tag, is_ours = config.tag, own.startswith("fedsim.")
        if not (isinstance(tag, str) and config.frozen and config.array_like and (is_ours or "." in tag)):
            raise TypeError(f"{own} must be frozen and array_like, with a tag like 'x.kind'; it is {tag!r}")
        if not {*kind.texts} <= {*kind.__struct_fields__}:
            raise TypeError(f"texts of {own} name {', '.join(kind.texts)}, which are not all fields of it")
        taken = _full_name(_REGISTER.get(tag, kind))
        if taken != own:  # else it is imported again
            raise TypeError(f"tag {tag!r} of {own} is {taken}'s; give it another")
        msgspec.msgpack.Decoder(
            kind
        )  # its fields' types are looked up now, while all that they name is there
        _REGISTER[tag] = kind
        _decoder.cache_clear()


class Message(
    msgspec.Struct, metaclass=_Kind, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True, gc=False
):  # fmt: skip
    """Root of all messages.

    Attributes:
        purpose: what its bytes are for: one of ``records.rows.PURPOSES``, or any plain name.
        reveals: what leaves a client with it, if it goes up ("item patterns"); empty: nothing. Left out it is "scalars" of
            ``scalars_only``, nothing where all fields are identifiers, and else told as undeclared.
        scalars_only: whether it carries registered scalars and nothing else.
        texts: which fields are text, and of which kind.
    """

    purpose: ClassVar[Purpose]
    reveals: ClassVar[str | None] = None
    scalars_only: ClassVar[bool] = False
    texts: ClassVar[Mapping[str, TextKind]] = {}

    def paper_bytes(self) -> int:
        """The paper's account of this message: numbers at their declared width and texts as UTF-8; no framing, no identifiers.

        Set-up, control and cancelling are not in it.
        """
        if self.purpose in _NOT_IN_THE_PAPER:
            return 0
        return sum(_paper_bytes(getattr(self, name)) for name in _counted(type(self)))


class OfDraw(Message, frozen=True, array_like=True):
    """What messages about one draw share."""

    draw: Id


class ProbeExemplars(OfDraw, frozen=True, array_like=True, tag="P"):
    """Down: labelled exemplars that the client answers with its own model (competence, eq. 5)."""

    purpose = "probe"
    texts: ClassVar[Mapping[str, TextKind]] = {"questions": "question", "answers": "answer"}

    questions: tuple[str, ...]
    answers: tuple[str, ...]


class ProbeBits(OfDraw, frozen=True, array_like=True, tag="B"):
    """Up (``probe: once``): one bit per exemplar, 1 where the client's own answer equals the label."""

    purpose = "probe"
    scalars_only = True

    bits: bytes


class ProbeNeighbours(ProbeExemplars, frozen=True, array_like=True, tag="N"):
    """Down (``probe: per_question``): the L exemplars nearest to one question, with their labels."""


class Competence(OfDraw, frozen=True, array_like=True, tag="K"):
    """Up (``probe: per_question``): the client's accuracy on the exemplars it was just sent, in [0, 1]."""

    purpose = "probe"
    scalars_only = True

    competence: float

    def __post_init__(self) -> None:
        """Refuse a number that would travel in another width."""
        _check_float(self.competence)


class Candidates(OfDraw, frozen=True, array_like=True, tag="C"):
    """Down: a question and its G candidate answers, to be scored."""

    purpose = "question"
    texts: ClassVar[Mapping[str, TextKind]] = {"question": "question", "candidates": "candidate"}

    question: str
    candidates: tuple[str, ...]


class Rewards(OfDraw, frozen=True, array_like=True, tag="R"):
    """Up: one scalar per candidate."""

    purpose = "reward"
    scalars_only = True

    rewards: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a number that would travel in another width."""
        for reward in self.rewards:
            _check_float(reward)

    def paper_bytes(self) -> int:
        """One number per candidate: what fields say by themselves, only quicker, since most replies are of this type."""
        return NUMBER_BYTES * len(self.rewards)


class PartialRewards(Rewards, frozen=True, array_like=True, tag="T"):
    """Up, after a ``Hurry``: one scalar for each of the first candidates, as many as were scored by then."""


class QuestionOnly(OfDraw, frozen=True, array_like=True, tag="Q"):
    """Down: a question to which the client is asked for its own answer (text will leave the client)."""

    purpose = "question"
    texts: ClassVar[Mapping[str, TextKind]] = {"question": "question"}

    question: str


class Answer(OfDraw, frozen=True, array_like=True, tag="A"):
    """Up: the client's own answer as text, with its rationale if it has one; not scalar-only."""

    purpose = "answer"
    reveals = "answers"
    texts: ClassVar[Mapping[str, TextKind]] = {"answer": "candidate"}

    answer: str


class FinalAnswer(Answer, frozen=True, array_like=True, tag="F"):
    """Up: the client's own final answer alone, as the paper's released code sends it; not scalar-only."""

    texts: ClassVar[Mapping[str, TextKind]] = {"answer": "answer"}


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """A named array on the wire: little-endian numbers of the message's type, row by row."""

    name: str
    shape: tuple[int, ...]
    data: bytes


class Array(msgspec.Struct, frozen=True, array_like=True):
    """A named array that says of which type its little-endian numbers are, row by row; bits are packed eight to a byte."""

    name: str
    shape: tuple[int, ...]
    number_type: ArrayType
    data: bytes

    @classmethod
    def of(cls, name: str, numbers: npt.ArrayLike, number_type: ArrayType = "float32") -> Array:
        """An array as it travels; numbers beyond float16's range become infinite."""
        array = np.asarray(numbers)
        with np.errstate(over="ignore"):
            packed = np.packbits(array != 0) if number_type == "bits" else array.astype(DTYPES[number_type])
        return cls(name, array.shape, number_type, packed.tobytes())

    def array(self) -> npt.NDArray[Any]:
        """The numbers that arrived; bits as 0 and 1."""
        if self.number_type == "bits":
            bits = np.frombuffer(self.data, np.uint8)
            return np.unpackbits(bits, count=prod(self.shape)).reshape(self.shape)
        return np.frombuffer(self.data, DTYPES[self.number_type]).reshape(self.shape)


class AdapterDown(Message, frozen=True, array_like=True, tag="D"):
    """Down: the trainable part of the model (an adapter, or all of it), to be trained on the client's rows."""

    purpose = "adapter"

    round_index: Id
    number_type: NumberType
    tensors: tuple[Tensor, ...]


class AdapterUp(Message, frozen=True, array_like=True, tag="U"):
    """Up: the same part after local training, and on how many rows it was trained; not scalar-only."""

    purpose = "adapter"
    reveals = "weights"

    round_index: Id
    num_rows: Id
    number_type: NumberType
    tensors: tuple[Tensor, ...]


class RowsRequest(OfDraw, frozen=True, array_like=True, tag="O"):
    """Down: the client is asked for its private rows, all of them (pooled training; nothing stays private)."""

    purpose = "control"


class Rows(OfDraw, frozen=True, array_like=True, tag="W"):
    """Up: (question, answer) rows as text; not scalar-only."""

    purpose = "data"
    reveals = "private rows"
    texts: ClassVar[Mapping[str, TextKind]] = {"questions": "question", "answers": "candidate"}

    questions: tuple[str, ...]
    answers: tuple[str, ...]


class SyntheticRequest(RowsRequest, frozen=True, array_like=True, tag="S"):
    """Down: the client is asked for synthetic rows that resemble its own."""


class SyntheticRows(Rows, frozen=True, array_like=True, tag="Y"):
    """Up: synthetic (question, answer) rows; text, but under the stated mechanism not the client's own."""

    purpose = "synthetic"
    reveals = "synthetic rows"


class BaseModel(Message, frozen=True, array_like=True, tag="M"):
    """Down: a base model's weights, before the client can do anything (``base_model: shipped``).

    The weights themselves are not built: ``num_bytes`` says how long they are, and that is what the link carries
    (``fedsim.federation.billed_sizes``).
    """

    purpose = "setup"

    num_bytes: Id


class Ready(Message, frozen=True, array_like=True, tag="G"):
    """Up: the base model is there."""

    purpose = "setup"
    scalars_only = True

    num_bytes: Id


class Cancel(OfDraw, frozen=True, array_like=True, tag="X"):
    """Down: stop working on a request."""

    purpose = "cancel"


class Hurry(OfDraw, frozen=True, array_like=True, tag="H"):
    """Down: stop working on a request and send what there is of its reply."""

    purpose = "control"


def kinds() -> tuple[type[Message], ...]:
    """Every type of message on the register, in the order in which their classes were made."""
    return tuple(_REGISTER.values())


def revealed(kind: type[Message]) -> str | None:
    """What leaves a client with a message of this type, in words; None: nothing."""
    if kind.reveals is not None or not _counted(kind):
        return str(kind.reveals) if kind.reveals else None
    return "scalars" if kind.scalars_only else f"{kind.purpose} (undeclared)"


def encode(message: Message) -> bytes:
    """The bytes that travel.

    Raises:
        PluginError: a field holds something that cannot travel.
    """
    try:
        return _ENCODER.encode(message)
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise PluginError(f"message {type(message).__qualname__} cannot travel: {error}") from error


def decode(raw: bytes) -> Message:
    """Read a message back; its tag, the number of fields and their types are checked.

    Raises:
        msgspec.DecodeError: the bytes are not exactly one message of a type on the register.
    """
    try:
        message: Message = _decoder().decode(raw)
    except UnicodeDecodeError as error:  # msgspec lets it through
        raise msgspec.DecodeError(f"a text is not UTF-8: {error}") from None
    return message


@cache
def _counted(kind: type[Message]) -> tuple[str, ...]:
    """The fields that are in the paper's account: neither identifiers nor names of types."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    return tuple(
        name
        for name, type_ in types.items()
        if type_ != Id and Id not in get_args(type_) and get_origin(type_) is not Literal
    )


def _paper_bytes(value: Any) -> int:
    if isinstance(value, float | int):
        return NUMBER_BYTES
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Tensor | Array):
        return len(value.data)
    if isinstance(value, tuple | list):
        return sum(map(_paper_bytes, value))
    raise PluginError(f"what a {type(value).__name__} counts in the paper's account, paper_bytes must say")


def _check_float(number: object) -> None:
    # msgpack writes an int in one to nine bytes: a reward of 1 would tell by its size who gave it.
    if type(number) is not float:
        raise TypeError(
            f"a number on the wire is a float of 8 bytes, not {type(number).__name__} ({number!r})"
        )
