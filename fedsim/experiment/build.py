"""What a scenario asks for is made of its settings and models: links, clients as handlers know them, noise, limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from fedsim.config.strict import AtMostClients
from fedsim.errors import ScenarioError
from fedsim.experiment import billed, device_memory
from fedsim.federation.stragglers.config import StragglerConfig
from fedsim.federation.text_lengths import TextLengths
from fedsim.models.interfaces import Components
from fedsim.privacy.rewards import RewardNoise, RewardNoiseConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.records import invariants
from fedsim.records.rows import Direction
from fedsim.sim.clock import VirtualLoop
from fedsim.sim.lazy import LazySequence
from fedsim.sim.network.edges import EdgeTree
from fedsim.sim.network.link import SharedLink
from fedsim.tasks.matching import AnswerRule

if TYPE_CHECKING:
    from fedsim.scenario.schema import Scenario


def refuse_more_clients(
    scenario: Scenario, num_clients: int, there_are: str, section: str | None = None
) -> None:
    """Refuse counts that are marked as at most the number of clients, and are more.

    Args:
        scenario: the settings.
        num_clients: how many clients there are to ask.
        there_are: that in words, e.g. ``there are 6 clients``.
        section: the section to look at; None for all.

    Raises:
        ScenarioError: a count is more.
    """
    settings = scenario if section is None else getattr(scenario, section)
    for path, wanted in _counts_of_clients(settings, () if section is None else (section,)):
        if wanted > num_clients:
            raise ScenarioError(
                f"{'.'.join(path)} is {wanted}, but {there_are}; must be at most {num_clients}"
            ).at(*path)


def _counts_of_clients(model: BaseModel, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _counts_of_clients(value, (*path, name))
        elif value is not None and any(
            isinstance(mark, AtMostClients) and mark.is_read(model) for mark in field.metadata
        ):
            yield (*path, name), value


def link_of(
    loop: VirtualLoop, edges: EdgeTree | None, direction: Direction, bytes_per_s: float
) -> SharedLink:
    """The server's link in one direction, with the edges before it."""
    return (
        SharedLink(loop.timeline, bytes_per_s)
        if edges is None
        else edges.link(loop.timeline, direction, bytes_per_s)
    )


def client_states(
    scenario: Scenario,
    components: Components,
    lengths: TextLengths | None = None,
    runs: device_memory.Runs = "clients",
) -> Sequence[ClientState]:
    """[K] Every client as its handlers know it, made when it is first looked at.

    Args:
        scenario: whose protocol says what clients do.
        components: models and data.
        lengths: the stated lengths of texts; None counts every text as it is.
        runs: whose model the clients run, whose tokenizer counts.
    """
    data, config = components.data, getattr(scenario.protocol, "reward_noise", None)
    text_of = {question.question_id: question.text for question in data.pool}

    def state_of(client_id: int) -> ClientState:
        evaluator = components.evaluators[client_id]
        counting = components.policy.count_tokens if runs == "server" else evaluator.count_tokens
        return ClientState(
            client_id=client_id,
            evaluator=evaluator,
            spec=components.client_spec(client_id),
            trusted={text_of[number]: answer for number, answer in data.trusted[client_id].items()},
            answers=data.answers,
            tokens=billed.counts(lengths, counting),
            model_score=getattr(scenario.protocol, "model_score", "likelihood"),
            rows=data.private[client_id],
            trainer=components.trainer,
            synthesiser=components.synthesiser,
            trained_spec=components.server_spec,
            noise=_noise(config, scenario.seed, client_id, data.answers),
        )

    return LazySequence(len(components.evaluators), state_of)


def _noise(config: Any, seed: int, client_id: int, rule: AnswerRule) -> RewardNoise | None:
    """What a client adds to every number that it sends, or None where a protocol has no such settings."""
    if not isinstance(config, RewardNoiseConfig):
        return None
    return RewardNoise(config, seed, client_id, rule)


def limits_of(config: Any) -> invariants.Limits:
    """What a protocol's settings allow at once."""
    update = getattr(config, "update", None)
    groups = None if update is None else update.most_asked
    cohort, policy = getattr(config, "cohort_size", None), getattr(config, "stragglers", None)
    asked: int | None = cohort
    if cohort is not None and isinstance(policy, StragglerConfig):
        pairs = cohort if policy.policy == "hedged" else 0
        asked = cohort + pairs + (policy.extra or 0) + (policy.replacements or 0)
    return invariants.Limits(groups=groups, cohort=cohort, asked=asked)
