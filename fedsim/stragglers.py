"""Straggler policies: how long the server waits for replies, as a few lines of ordinary asyncio.

A policy starts requests and returns the replies it is content with. A request that is given up is cancelled with the
fate its bytes will carry (``late``): the device does not know, and goes on computing and sending, unless
``on_deadline: cancel`` sends it a message that arrives in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from fedsim.config import StrictModel
from fedsim.errors import RequestError
from fedsim.units import PositiveSeconds

T = TypeVar("T")


class StragglerConfig(StrictModel):
    """How the server treats slow and lost experts."""

    policy: Literal["wait_all", "deadline"] = Field(
        "wait_all",
        description="wait_all: until every asked client has answered or failed; deadline: until then or the deadline",
    )
    deadline: PositiveSeconds | None = Field(
        None, description="how long a group waits for its rewards (with unit); needed by policy deadline"
    )
    on_deadline: Literal["abandon", "cancel"] = Field(
        "abandon",
        description="abandon: the device goes on and its reply comes late; cancel: it is told to stop",
    )
    missing: Literal["mask", "zero", "drop_group"] = Field(
        "mask",
        description="a reward that did not come: mask it, count it as zero (the released code's bias), or drop the whole group",
    )

    @model_validator(mode="after")
    def _deadline_belongs_to_its_policy(self) -> StragglerConfig:
        if (self.policy == "deadline") != (self.deadline is not None):
            raise ValueError("policy deadline needs a deadline, and only that policy takes one")
        return self


async def collect(requests: Mapping[int, Coroutine[Any, Any, T]], config: StragglerConfig) -> dict[int, T]:
    """Run the requests at once and return the replies that came in time, by client id.

    A reply at the deadline's own instant is in time. A request that fails with a ``RequestError`` is simply absent: its
    cause stands in the records. Any other exception is a bug and propagates. If ``collect`` itself is cancelled (the run
    ends), the requests under way are given up as ``late``.
    """
    tasks = {client_id: asyncio.ensure_future(request) for client_id, request in requests.items()}
    if not tasks:
        return {}
    try:
        done, pending = await asyncio.wait(tasks.values(), timeout=config.deadline)
    except asyncio.CancelledError:
        for task in tasks.values():
            task.cancel("late")
        _replies(tasks)
        raise
    for task in tasks.values():  # in the order of asking, not in a set's order
        if task in pending:
            task.cancel("cancel" if config.on_deadline == "cancel" else "late")
    return _replies({client_id: task for client_id, task in tasks.items() if task in done})


def _replies(tasks: Mapping[int, asyncio.Task[T]]) -> dict[int, T]:
    """The replies that are there; looks at every error, so that asyncio reports none as never retrieved."""
    ended = {client_id: task for client_id, task in tasks.items() if task.done()}
    errors = {client_id: task.exception() for client_id, task in ended.items()}
    for error in errors.values():
        if error is not None and not isinstance(error, RequestError):
            raise error
    return {client_id: task.result() for client_id, task in ended.items() if errors[client_id] is None}
