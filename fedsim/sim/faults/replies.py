"""What a fault does to one reply: sent twice, held back, or with other rewards than the device computed.

References:
    Stone and Partridge, When the CRC and TCP checksum disagree (SIGCOMM 2000): that bits flip underneath a checksum.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from fedsim.sim import streams
from fedsim.sim.network import wire

M = TypeVar("M", bound=wire.Message)


@dataclass(frozen=True, slots=True)
class ReplyFault:
    """What happens to one reply.

    Attributes:
        kind: the fault's name: ``duplicate_reply`` (send it twice), ``late_reply`` or one that changes the rewards.
        delay_s: how long the reply is held back before it is sent; 0 for all other kinds.
        how: of a corrupt reward: ``inverted``, ``random`` or ``bit_flip``.
        by: of a wrong length: how many rewards too many or too few.
        luck: this reply's own number, from which what remains to be drawn is drawn.
    """

    kind: str
    delay_s: float = 0.0
    how: str = ""
    by: int = 0
    luck: int = 0

    @property
    def cause(self) -> str:
        """Its name in the records: ``fault: late_reply``."""
        return f"fault: {self.kind}"

    def apply(self, message: M) -> M:
        """The message that is sent instead; the same object where this fault changes nothing about it."""
        change = _CHANGES.get(self.kind)
        rewards: tuple[float, ...] | None = getattr(message, "rewards", None)
        if change is None or not rewards:
            return message
        return msgspec.structs.replace(message, rewards=change(self, rewards))


def _corrupt(fault: ReplyFault, rewards: tuple[float, ...]) -> tuple[float, ...]:
    if fault.how == "inverted":
        return tuple(1.0 - reward for reward in rewards)
    if fault.how == "random":
        return tuple(streams.uniform("corrupt", fault.luck, place) for place in range(len(rewards)))
    place, bit = _place(fault, rewards), streams.integer("bit", fault.luck) % 64
    (pattern,) = struct.unpack("<Q", struct.pack("<d", rewards[place]))
    (flipped,) = struct.unpack("<d", struct.pack("<Q", pattern ^ 1 << bit))
    return (*rewards[:place], flipped, *rewards[place + 1 :])


def _not_a_number(fault: ReplyFault, rewards: tuple[float, ...]) -> tuple[float, ...]:
    place = _place(fault, rewards)
    return (*rewards[:place], math.nan, *rewards[place + 1 :])


def _other_length(fault: ReplyFault, rewards: tuple[float, ...]) -> tuple[float, ...]:
    """Without its last rewards, or with its last one again and again."""
    return rewards[: max(len(rewards) + fault.by, 0)] if fault.by < 0 else rewards + rewards[-1:] * fault.by


def _place(fault: ReplyFault, rewards: tuple[float, ...]) -> int:
    return streams.integer("place", fault.luck) % len(rewards)


_CHANGES: Mapping[str, Callable[[ReplyFault, tuple[float, ...]], tuple[float, ...]]] = {
    "corrupt_reward": _corrupt,
    "non_finite_reward": _not_a_number,
    "wrong_length": _other_length,
}
