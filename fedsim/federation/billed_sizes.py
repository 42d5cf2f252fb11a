"""How long a message and a text count: as they are, or as those of a bigger model that the run is billed as.

``AsEncoded`` is the length of the really encoded message and ``TokenizerCounts`` counts texts under the model's own
tokenizer. ``BilledSizes`` is the exact length of the encoding that the message would have, had every text its stated number
of bytes (``text_lengths.py``) and every adapter the shapes of the bigger model: worked out from msgpack's header sizes, so
that no long text is ever built. ``BilledCounts`` are the stated lengths for the cost model.

A base model on the wire (``wire.BaseModel``) is as long as it says, on top of its encoding, however a run is billed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Protocol

import msgspec

from fedsim.errors import PluginError
from fedsim.federation.text_lengths import TextLengths
from fedsim.sim.network import wire

Shapes = Mapping[str, tuple[int, ...]]
"""Names and shapes of the arrays of an adapter."""


class Sizes(Protocol):
    """Bytes of a message in both accounts."""

    def message_bytes(self, message: wire.Message) -> int:
        """Length of the encoded message."""

    def paper_bytes(self, message: wire.Message) -> int:
        """The paper's account of it."""


class TokenCounts(Protocol):
    """Tokens of a text by what it is, for the cost model."""

    def question(self, text: str) -> int:
        """Tokens of a prompt."""

    def candidate(self, text: str) -> int:
        """Tokens of a whole candidate, rationale and answer, without the end token."""

    def answer(self, text: str) -> int:
        """Tokens of a final answer alone, without the end token."""

    def sampled(self, text: str, num_tokens: int) -> int:
        """Tokens of a candidate that the simulated policy sampled as ``num_tokens`` tokens, end token included."""


class AsEncoded:
    """Every message is as long as its encoding; the last one is remembered, since many are sent what one is."""

    def __init__(self) -> None:
        self._last: wire.Message | None = None
        self._last_bytes = 0

    def message_bytes(self, message: wire.Message) -> int:
        """Length of the encoded message."""
        if message is not self._last:
            self._last_bytes = _encoded_bytes(message)
            self._last = message
        return self._last_bytes

    def paper_bytes(self, message: wire.Message) -> int:
        """The message's own account."""
        return _own_account(message)


@dataclass(frozen=True, slots=True)
class TokenizerCounts:
    """Every text has as many tokens as one tokenizer says, whatever it is."""

    count: Callable[[str], int]

    def question(self, text: str) -> int:
        """Tokens of a prompt."""
        return self.count(text)

    def candidate(self, text: str) -> int:
        """Tokens of a candidate."""
        return self.count(text)

    def answer(self, text: str) -> int:
        """Tokens of an answer."""
        return self.count(text)

    def sampled(self, text: str, num_tokens: int) -> int:
        """As many as were sampled."""
        return num_tokens


@dataclass(frozen=True, slots=True)
class BilledCounts:
    """Every text has its stated length."""

    lengths: TextLengths

    def question(self, text: str) -> int:
        """Tokens of a prompt."""
        return self.lengths.tokens("question", text)

    def candidate(self, text: str) -> int:
        """Tokens of a rationale and an answer."""
        return self.lengths.tokens("candidate", text)

    def answer(self, text: str) -> int:
        """Tokens of an answer."""
        return self.lengths.tokens("answer", text)

    def sampled(self, text: str, num_tokens: int) -> int:
        """The stated length of the candidate and its end token, however long it really is."""
        return self.lengths.tokens("candidate", text) + 1


class BilledSizes:
    """Texts count their stated bytes and adapters the stated shapes; what is not stated counts as it is.

    Args:
        lengths: lengths of texts; None: as they are.
        adapter_shapes: arrays of an adapter message, in order; None: as they are.
    """

    def __init__(self, lengths: TextLengths | None = None, adapter_shapes: Shapes | None = None) -> None:
        self._text_bytes = _utf8_bytes if lengths is None else lengths.text_bytes
        self._shapes = adapter_shapes
        self._adapter_bytes = cache(self._shaped_bytes)

    def message_bytes(self, message: wire.Message) -> int:
        """Length of the encoding that the message would have."""
        kinds = message.texts
        shaped = None
        if self._shapes is not None and isinstance(message, wire.AdapterDown | wire.AdapterUp):
            shaped = message
        if not kinds and shaped is None:
            return _encoded_bytes(message)
        total = _envelope_bytes(type(message))
        for name in message.__struct_fields__:
            value = getattr(message, name)
            if name in kinds:
                total += self._coded_bytes(kinds[name], value)
            elif shaped is not None and name == "tensors":
                total += self._adapter_bytes(shaped.number_type)
            else:
                total += len(msgspec.msgpack.encode(value))
        return total

    def paper_bytes(self, message: wire.Message) -> int:
        """The message's own account, with texts and adapters at their stated sizes."""
        if self._shapes is not None and isinstance(message, wire.AdapterDown | wire.AdapterUp):
            numbers = sum(prod(shape) for shape in self._shapes.values())
            return numbers * wire.NUMBER_TYPE_BYTES[message.number_type]
        total = _own_account(message)
        for name, kind in message.texts.items():
            for text in _texts(getattr(message, name)):
                total += self._text_bytes(kind, text) - len(text.encode())
        return total

    def _coded_bytes(self, kind: wire.TextKind, value: str | tuple[str, ...]) -> int:
        """A text, or an array of texts, with its headers."""
        total = 0 if isinstance(value, str) else _array_header_bytes(len(value))
        for text in _texts(value):
            num_bytes = self._text_bytes(kind, text)
            total += num_bytes + _text_header_bytes(num_bytes)
        return total

    def _shaped_bytes(self, number_type: str) -> int:
        """The ``tensors`` field of an adapter message."""
        assert self._shapes is not None
        total = _array_header_bytes(len(self._shapes))
        for name, shape in self._shapes.items():
            data_bytes = prod(shape) * wire.NUMBER_TYPE_BYTES[number_type]
            total += _array_header_bytes(len(wire.Tensor.__struct_fields__))
            total += len(msgspec.msgpack.encode(name)) + len(msgspec.msgpack.encode(shape))
            total += _binary_header_bytes(data_bytes) + data_bytes
        return total


def _encoded_bytes(message: wire.Message) -> int:
    num_bytes = len(wire.encode(message))
    return num_bytes + wire.unpack_id(message.num_bytes) if isinstance(message, wire.BaseModel) else num_bytes


def _own_account(message: wire.Message) -> int:
    num_bytes = message.paper_bytes()
    if type(num_bytes) is not int or num_bytes < 0:
        raise PluginError(
            f"paper_bytes of {type(message).__name__} must be a number of bytes, not {num_bytes!r:.60}"
        )
    return num_bytes


def _utf8_bytes(kind: wire.TextKind, text: str) -> int:
    return len(text.encode())


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


@cache
def _envelope_bytes(kind: type[wire.Message]) -> int:
    """Header of the array that a message is, and its tag."""
    tag = len(msgspec.msgpack.encode(kind.__struct_config__.tag))
    return _array_header_bytes(1 + len(kind.__struct_fields__)) + tag


# Header sizes of msgpack's str, bin and array formats (specification, "formats"); 32-bit lengths are its limit.


def _text_header_bytes(num_bytes: int) -> int:
    return 1 if num_bytes < 32 else 2 if num_bytes < 256 else 3 if num_bytes < 65_536 else 5


def _binary_header_bytes(num_bytes: int) -> int:
    return 2 if num_bytes < 256 else 3 if num_bytes < 65_536 else 5


def _array_header_bytes(num_items: int) -> int:
    return 1 if num_items < 16 else 3 if num_items < 65_536 else 5
