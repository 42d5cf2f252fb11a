"""Hostile experts: clients whose replies are not what the protocol asked for, on purpose.

They are the simulator's: who is hostile is written into the run folder (``detection.json``) and told to nobody else. A hostile
client's handlers are wrapped, so that it sees what an honest one sees (its own state and the message) and replies something
else; its draws are keyed by (seed, client, the message), never by when it is asked. What needs no model costs no work: a random
expert is quicker than an honest one. All but ``liar`` answer probes honestly, so they are chosen for what they know.

Rewards that are not numbers in [0, 1] are refused at the server's boundary (``protocols/shared/boundary.py``); all others look
like rewards, and only fusion (``rl/fusion.py``) stands between them and the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from fedsim.errors import ScenarioError
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.federation.hostile_config import (
    Colluding,
    CompetenceLiar,
    ConstantScores,
    Excluded,
    HostileConfig,
    InvertedScores,
    Lazy,
    NonFiniteScores,
    OutOfRangeScores,
    RandomScores,
    SlowOnPurpose,
)
from fedsim.sim import streams
from fedsim.sim.devices.cost import NO_WORK, Work
from fedsim.sim.network import wire

Roles = Mapping[int, HostileConfig]
"""What each hostile client does, by id; whoever is not in it is honest."""

Rewards = tuple[float, ...]


def roles_of(
    configs: Sequence[HostileConfig],
    num_clients: int,
    seed: int,
    handlers: Mapping[type[wire.Message], Handler],
) -> Roles:
    """Who is hostile, and how.

    Raises:
        ScenarioError: a client that there is not, or that is named twice, or more hostile clients than there are; or clients
            that send no rewards under these handlers.
    """
    if not configs:
        return {}
    if not sends_rewards(handlers):
        raise ScenarioError(
            "hostile names experts that score falsely, but under these settings no client of the protocol sends scores; "
            "choose a protocol with scores, e.g. fedgrpo with wire scores_up, or remove hostile"
        ).at("hostile")
    roles: dict[int, HostileConfig] = {}
    for place, config in enumerate(configs):
        for client_id in config.clients or ():
            if client_id >= num_clients:
                raise ScenarioError(
                    f"hostile.{place}.clients names {client_id}, but there are {num_clients} clients; "
                    f"must be below {num_clients}"
                ).at("hostile", place, "clients")
            if client_id in roles:
                raise ScenarioError(
                    f"hostile.{place}.clients names {client_id}, which an entry before does; one each"
                ).at("hostile", place, "clients")
            roles[client_id] = config
    free = sorted(
        set(range(num_clients)) - set(roles),
        key=lambda client_id: streams.uniform(seed, "hostile", client_id),
    )
    for place, config in enumerate(configs):
        wanted = config.count or 0
        if config.share is not None:
            wanted = math.ceil(config.share * num_clients)
        if wanted > len(free):
            raise ScenarioError(
                f"hostile.{place} wants {wanted} clients, but {len(free)} of {num_clients} are left; lower it"
            ).at("hostile", place)
        roles |= dict.fromkeys(free[:wanted], config)
        del free[:wanted]
    return dict(sorted(roles.items()))


def sends_rewards(handlers: Mapping[type[wire.Message], Handler]) -> bool:
    """Whether clients answer candidates with rewards, which can be false."""
    return wire.Candidates in handlers and issubclass(handlers[wire.Candidates].replies, wire.Rewards)


def excluded(roles: Roles) -> list[int]:
    """Ids of the clients that take no part (the oracle's control)."""
    return [client_id for client_id, config in roles.items() if isinstance(config, Excluded)]


def with_hostile(
    handlers: Mapping[type[wire.Message], Handler], roles: Roles, seed: int
) -> Mapping[type[wire.Message], Handler]:
    """The handlers of a federation some of whose clients are hostile; the same object where none is."""
    if not roles:
        return handlers
    wrapped = dict(handlers)
    if wire.Candidates in handlers:
        wrapped[wire.Candidates] = _scoring(handlers[wire.Candidates], roles, seed)
    for kind, claim in _CLAIMS.items():
        if kind in handlers:
            wrapped[kind] = _claiming(handlers[kind], roles, claim)
    return wrapped


def _scoring(honest: Handler, roles: Roles, seed: int) -> Handler:
    def run(client: Any, message: wire.Candidates) -> HandlerResult:
        config = roles.get(client.client_id)
        if config is None:
            return honest.run(client, message)
        if isinstance(config, SlowOnPurpose):
            return msgspec.structs.replace(honest.run(client, message), delay_s=config.delay)
        if not _computes(config):
            made = _MADE_UP[type(config)](config, seed, client, message)
            return HandlerResult(_rewards(message, made), evaluator="hostile")
        reply = honest.run(client, message)
        if not isinstance(reply.message, wire.Rewards):
            return reply
        bent = tuple(_bent(config, reward) for reward in reply.message.rewards)
        return HandlerResult(_rewards(message, bent), reply.evaluator)

    def work(client: Any, message: wire.Candidates) -> Work:
        return honest.work(client, message) if _computes(roles.get(client.client_id)) else NO_WORK

    def expect(client: Any, message: wire.Candidates) -> None:
        if honest.expect is not None and _computes(roles.get(client.client_id)):
            honest.expect(client, message)

    return replace(honest, run=run, work=work, expect=expect)


def _claiming(honest: Handler, roles: Roles, claim: Callable[[Any], wire.Message]) -> Handler:
    """A probe's handler: a liar claims to be right on everything; the rest of them tell the truth."""

    def run(client: Any, message: Any) -> HandlerResult:
        if isinstance(roles.get(client.client_id), CompetenceLiar):
            return HandlerResult(claim(message))
        return honest.run(client, message)

    def work(client: Any, message: Any) -> Work:
        liar = isinstance(roles.get(client.client_id), CompetenceLiar)
        return NO_WORK if liar else honest.work(client, message)

    return replace(honest, run=run, work=work)


def _all_bits(message: wire.ProbeExemplars) -> wire.ProbeBits:
    num_bits = len(message.questions)
    whole = (1 << num_bits) - 1 << (-num_bits) % 8
    return wire.ProbeBits(message.draw, whole.to_bytes(-(-num_bits // 8), "big"))


def _full_competence(message: wire.ProbeNeighbours) -> wire.Competence:
    return wire.Competence(message.draw, 1.0)


_CLAIMS: Mapping[type[wire.Message], Callable[[Any], wire.Message]] = {
    wire.ProbeExemplars: _all_bits,
    wire.ProbeNeighbours: _full_competence,
}


def _computes(config: HostileConfig | None) -> bool:
    """Whether a client of this kind needs its model's own scores."""
    if isinstance(config, CompetenceLiar):
        return config.scores == "inverted"
    return type(config) not in _MADE_UP


def _bent(config: HostileConfig, reward: float) -> float:
    """What is sent in place of a true reward."""
    if isinstance(config, OutOfRangeScores):
        return 1.0 + config.factor * (1.0 + reward)
    if isinstance(config, InvertedScores | CompetenceLiar):
        return 1.0 - reward
    return reward


def _rewards(message: wire.Candidates, rewards: Rewards) -> wire.Rewards:
    return msgspec.structs.replace(wire.Rewards(message.draw, (0.0,) * len(rewards)), rewards=rewards)


def _random(config: Any, seed: int, client: Any, message: wire.Candidates) -> Rewards:
    key = (seed, "hostile random", client.client_id, message.draw)
    return tuple(streams.uniform(*key, place) for place in range(len(message.candidates)))


def _constant(config: ConstantScores, seed: int, client: Any, message: wire.Candidates) -> Rewards:
    return (config.value,) * len(message.candidates)


def _target(config: Any, seed: int, client: Any, message: wire.Candidates) -> Rewards:
    """1 for the answer that the colluders agree on without a word: that of the first in a keyed order of the texts."""
    target = min(
        message.candidates, key=lambda text: streams.uniform(seed, "collusion", message.question, text)
    )
    key = client.answers.key
    return tuple(float(key(text) == key(target)) for text in message.candidates)


def _fixed(config: Any, seed: int, client: Any, message: wire.Candidates) -> Rewards:
    return tuple(
        streams.uniform(seed, "lazy", client.client_id, place) for place in range(len(message.candidates))
    )


def _not_numbers(config: Any, seed: int, client: Any, message: wire.Candidates) -> Rewards:
    return tuple(math.inf if place % 2 else math.nan for place in range(len(message.candidates)))


_MADE_UP: Mapping[type[Any], Callable[[Any, int, Any, wire.Candidates], Rewards]] = {
    RandomScores: _random,
    ConstantScores: _constant,
    Colluding: _target,
    Lazy: _fixed,
    NonFiniteScores: _not_numbers,
    CompetenceLiar: _random,
}
