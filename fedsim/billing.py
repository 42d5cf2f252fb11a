"""How long a message and a text count: as they are, or as those of a bigger model that the run is billed as.

``AsEncoded`` is the length of the really encoded message and of the texts under the model's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fedsim.network import wire


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
    """Every message is as long as its encoding."""

    def message_bytes(self, message: wire.Message) -> int:
        """Length of the encoded message."""
        return len(wire.encode(message))

    def paper_bytes(self, message: wire.Message) -> int:
        """The message's own account."""
        return message.paper_bytes()


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
