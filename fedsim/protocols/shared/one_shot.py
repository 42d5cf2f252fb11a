"""Asking every client once, each when it is there and again after a failure, and going on with those who answered."""

from __future__ import annotations

from pydantic import Field, model_validator

from fedsim.config.strict import SettingError, StrictModel
from fedsim.errors import ClientOffline, FederationError, RequestError
from fedsim.federation.clients import Client, Federation
from fedsim.federation.handlers import Subject
from fedsim.federation.stragglers.config import StragglerConfig, refuse_impossible, refuse_rules_for_rewards
from fedsim.federation.stragglers.policies import Stragglers
from fedsim.sim.network import wire


class GatheringConfig(StrictModel):
    """How long the server waits for what it asked everybody once."""

    attempts: int = Field(
        20, ge=1, description="requests to one client, counting the repeats after it failed or left (count)"
    )
    stragglers: StragglerConfig = Field(
        StragglerConfig.defaults(),
        description="how long the server waits for them; default: until all have answered or were given up",
    )

    @model_validator(mode="after")
    def _everybody_is_asked_once(self) -> GatheringConfig:
        refuse_rules_for_rewards(self.stragglers, "what was asked of everybody")
        if self.stragglers.policy == "adaptive":
            raise SettingError(
                "stragglers.policy adaptive needs a history, but everybody is asked once",
                *("stragglers", "policy"),
            )
        refuse_impossible(self.stragglers, self.cohort_size, "the one collection of this protocol")
        return self

    @property
    def cohort_size(self) -> int | None:
        """How many clients are asked: everybody."""
        return None


async def ask_until_answered(client: Client, message: wire.Message, attempts: int) -> wire.Message:
    """Ask one client whenever it is there, until it has answered.

    Every attempt is a request of its own, charged with all that it moved and computed.

    Raises:
        RequestError: it is away for good, or the last of so many attempts failed.
    """
    last: RequestError | None = None
    for attempt in range(attempts):
        try:
            await client.online()
        except FederationError:
            raise ClientOffline from None
        try:
            return await client.request(message, Subject(attempt=attempt))
        except RequestError as error:
            last = error
    raise last or ClientOffline()


async def gather(
    federation: Federation, message: wire.Message, config: GatheringConfig
) -> dict[int, wire.Message]:
    """Ask every client at once and return what came, by client id; the rest is given up as ``stragglers`` says.

    Raises:
        FederationError: nobody answered.
    """
    stragglers = Stragglers(config.stragglers, federation.now_s)
    answered = await stragglers.collect(
        lambda client_id, _: ask_until_answered(federation.clients[client_id], message, config.attempts),
        [client.client_id for client in federation],
    )
    if not answered:
        raise FederationError(
            "no client answered: each was away for good, failed too often, or missed the deadline"
        )
    return answered
