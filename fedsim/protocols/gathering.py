"""Asking every client once, each when it is there and again after a failure, and going on with those who answered."""

from __future__ import annotations

import asyncio

from pydantic import Field

from fedsim.config import StrictModel
from fedsim.errors import FederationError, RequestError
from fedsim.federation import Client, Federation
from fedsim.network import wire
from fedsim.request import Subject
from fedsim.units import PositiveSeconds


class GatheringConfig(StrictModel):
    """How long the server waits for what it asked everybody once."""

    attempts: int = Field(
        20, ge=1, description="requests to one client, counting the repeats after it failed or left (count)"
    )
    gather_deadline: PositiveSeconds | None = Field(
        None,
        description="go on with those who answered by then (with unit); default none: until all have answered or were given up",
    )


async def ask_until_answered(client: Client, message: wire.Message, attempts: int) -> wire.Message | None:
    """Ask one client whenever it is there, until it has answered; None when it is away for good or failed so often.

    Every attempt is a request of its own, charged with all that it moved and computed.
    """
    for attempt in range(attempts):
        try:
            await client.online()
        except FederationError:
            return None
        try:
            return await client.request(message, Subject(attempt=attempt))
        except RequestError:
            continue
    return None


async def gather(
    federation: Federation, message: wire.Message, config: GatheringConfig
) -> dict[int, wire.Message]:
    """Ask every client at once and return what came, by client id; those still out at the deadline are given up as late.

    A reply at the deadline's own instant is in time.

    Raises:
        FederationError: nobody answered.
    """
    tasks = {
        client.client_id: asyncio.create_task(
            ask_until_answered(client, message, config.attempts), name=f"request to client {client.client_id}"
        )
        for client in federation
    }
    try:
        _, pending = await asyncio.wait(tasks.values(), timeout=config.gather_deadline)
    except asyncio.CancelledError:
        for task in tasks.values():
            task.cancel("late")
        raise
    for task in tasks.values():  # in the order of asking, not in a set's order
        if task in pending:
            task.cancel("late")
    answered = {
        client_id: reply
        for client_id, task in tasks.items()
        if task not in pending and (reply := task.result()) is not None
    }
    if not answered:
        raise FederationError(
            "no client answered: each was away for good, failed too often, or missed the deadline"
        )
    return answered
