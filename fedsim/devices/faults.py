"""Devices that give a task up although they stay available: keyed draws, asked once per request.

``key`` is what tells a request from every other one: client, purpose, question and attempt.
"""

from __future__ import annotations

import math

from fedsim import streams
from fedsim.devices.config import DropoutConfig


def gives_up_at(config: DropoutConfig, seed: int, *key: streams.Part) -> float | None:
    """The share of this task's computation after which the device gives it up, in (0, 1); None = it does not.

    With probability ``per_task`` a uniform share, independent of everything else.
    """
    if streams.uniform(seed, "give-up", *key) >= config.per_task:
        return None
    return streams.uniform(seed, "give-up-at", *key)


def fails_after_s(config: DropoutConfig, seed: int, *key: streams.Part) -> float:
    """Seconds from the start of a request until the device fails it; infinity without a hazard.

    Exponential with rate ``hazard``: a request of duration d survives with probability ``exp(-hazard d)``, in
    whatever phase it is.
    """
    if not config.hazard:
        return math.inf
    return streams.exponential(1 / config.hazard, seed, "failure", *key)
