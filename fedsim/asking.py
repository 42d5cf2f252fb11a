"""What a request is about and what comes back: plain values, of which a run makes one each for every request."""

from __future__ import annotations

import msgspec

from fedsim.network import wire


class Subject(msgspec.Struct, frozen=True, gc=False):
    """What a request is about: a question, which time it is asked, and the draw that asks; or a round and its try.

    Client, the message's purpose, question and attempt are the key of all random draws of a request: a client that is asked
    the same has the same luck in every protocol, whatever else happens in the run. ``attempt`` counts the times that a
    client is asked the same in one run: the epoch of the stream of questions (``Draw.epoch``), the try of a probe or of a
    round. ``draw`` is for the records alone, except where a request is about no question: then it is the round, and a part
    of the key. No two requests of a run may agree in their keys (``fedsim.invariants``).
    """

    draw: int = -1
    question_id: int = -1
    attempt: int = 0


class Reply(msgspec.Struct, frozen=True, gc=False):
    """What a client's handler produced: the message that travels, and notes that only the simulator sees.

    Attributes:
        message: what travels.
        evaluator: how it was come by, for the records.
        delay_s: how long the device holds it back on purpose before it sends it.
    """

    message: wire.Message
    evaluator: str = ""
    delay_s: float = 0.0
