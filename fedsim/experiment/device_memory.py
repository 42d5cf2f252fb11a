"""Who can take part: a device must hold the model that the protocol runs on it, and may have to train or fetch it first.

A protocol's module may say what its clients run: ``CLIENT_RUNS = "clients"`` (their own model; the default), ``"server"`` (the
server's model, as when they tune adapters) or ``"nothing"`` (they only send what they have). The memory asked for is all
parameters and the cache of the longest question and candidate (``cost.resident_bytes``), unless the module has
``client_memory_bytes(config, spec, longest_tokens)``, for instance for gradients and an optimiser.

``CLIENTS_PRETRAINED`` says whether the clients' own models are trained on their rows before the run (by default where they run
them).

A device that is too small is away for good: nobody can ask it, and it is counted (``rows.Member``). What it takes to
train the clients' own models once, before the run, stands in the same records, apart from the run's own time and load. Memory
for that training is not asked for: it happens once, and its owner may do it on another machine. (Protocols that train
*during* the run ask for it: a phone may take part in FedGRPO with a model that it could not train.)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np

from fedsim import protocols
from fedsim.config.units import format_bytes
from fedsim.errors import FederationError
from fedsim.federation.billed_sizes import TokenCounts
from fedsim.models.config import ModelsConfig
from fedsim.models.sources import AdapterTuning, ScratchModel
from fedsim.records.rows import Member
from fedsim.sim.devices import adapters
from fedsim.sim.devices.architecture import ModelSpec, resident_bytes
from fedsim.sim.devices.cost import NO_WORK, Work, compute_energy_j, duration_s, training_work
from fedsim.sim.devices.population import Population
from fedsim.sim.devices.presence import Availability
from fedsim.sim.devices.profile import DeviceProfile
from fedsim.tasks.questions import Question

Runs = Literal["clients", "server", "nothing"]
BILLED_BATCH = 32
"""Rows per optimiser step in the one-off training of a billed client."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What every client must hold.

    Attributes:
        runs: whose model the clients run.
        needed_bytes: memory it takes; 0 where they run nothing.
        model_bytes: the parameters alone, 2 bytes each, billed or not: what a shipped base model weighs.
        pretrained: whether clients' own models are trained once, before the run.
    """

    runs: Runs
    needed_bytes: float
    model_bytes: int
    pretrained: bool


def requirement(
    config: Any, server_spec: ModelSpec, client_spec: ModelSpec, longest_tokens: int
) -> Requirement:
    """What a protocol with these settings asks of its clients' devices."""
    module = protocols.load(config.name)
    runs: Runs = getattr(module, "CLIENT_RUNS", "clients")
    if runs == "nothing" or not protocols.handlers(config):
        return Requirement("nothing", 0.0, 0, pretrained=False)
    spec = server_spec if runs == "server" else client_spec
    memory = getattr(module, "client_memory_bytes", None)
    needed = resident_bytes(spec, longest_tokens) if memory is None else memory(config, spec, longest_tokens)
    pretrained: bool = getattr(module, "CLIENTS_PRETRAINED", runs == "clients")
    return Requirement(runs, float(needed), round(resident_bytes(spec)), pretrained)


def too_small(needed: Sequence[Requirement], devices: Population) -> frozenset[int]:
    """Ids of the clients whose device cannot hold what they must: client k ``needed[k]``, or all the single one there is.

    Raises:
        FederationError: that is everybody.
    """
    memory = devices.columns["memory_bytes"]
    bounds = np.array([one.needed_bytes for one in needed])
    excluded = frozenset(np.flatnonzero(memory < bounds).tolist())
    if len(devices) and len(excluded) == len(devices):
        largest = {name: float(memory[devices.ids_of(name)].max()) for name in devices.class_names}
        have = ", ".join(f"{name} at most {format_bytes(size)}" for name, size in sorted(largest.items()))
        raise FederationError(
            f"no device can hold the model: {format_bytes(float(bounds.min()))} are needed, and there are {have}; "
            "choose larger devices or a smaller model"
        )
    return excluded


class Without:
    """An availability in which some clients are away for good."""

    def __init__(self, source: Availability, excluded: Collection[int]) -> None:
        self._source = source
        self._excluded = frozenset(excluded)

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client takes part and is there."""
        return client_id not in self._excluded and self._source.is_on(client_id, at_s)

    def next_change(self, client_id: int, at_s: float) -> float:
        """The next coming or going; infinity for a client that takes no part."""
        return math.inf if client_id in self._excluded else self._source.next_change(client_id, at_s)

    def intervals(self, client_id: int, start_at_s: float, end_at_s: float) -> list[tuple[float, float]]:
        """The client's intervals of presence; none for a client that takes no part."""
        if client_id in self._excluded:
            return []
        return self._source.intervals(client_id, start_at_s, end_at_s)


def training_steps(
    models: ModelsConfig, spec: ModelSpec, rows: Sequence[Question], tokens: TokenCounts
) -> tuple[int, Work]:
    """The one-off training of a client's own model on its rows: optimiser steps, and the work of one of them.

    A scratch model, and adapters of a ready one, take their settings' steps and rows per step (an early stop is not foreseen);
    a billed model ``client_epochs`` passes in steps of ``BILLED_BATCH`` rows. A ready model without adapters is used as it is.
    """
    lengths = [tokens.question(row.text) + tokens.candidate(row.taught) + 1 for row in rows]
    if not lengths:
        return 0, NO_WORK
    if models.bill_as is not None:
        num_rows = models.client_epochs * len(lengths)
        steps = -(-num_rows // BILLED_BATCH)
    elif isinstance(models.clients, ScratchModel):
        steps = models.clients.steps
        num_rows = steps * models.clients.batch_size
    elif models.clients.lora is not None:
        private = models.client_privacy
        tuning = (models.clients.tuning or AdapterTuning()) if private is None else private.tuning
        steps, num_rows = tuning.steps, tuning.steps * tuning.batch_size
    else:
        return 0, NO_WORK
    if not steps:
        return 0, NO_WORK
    whole = _pass_over(models, spec, lengths)
    # Rows are drawn alike, so a step's mean FLOP is its share of a whole pass; weights move once per step.
    return steps, replace(whole, flop=whole.flop * num_rows / (len(lengths) * steps))


def _pass_over(models: ModelsConfig, spec: ModelSpec, lengths: Sequence[int]) -> Work:
    """One optimiser step on rows of these lengths."""
    lora = None if isinstance(models.clients, ScratchModel) else models.clients.lora
    if lora is None:
        return training_work(spec, list(lengths))
    shapes = adapters.lora_shapes(spec, lora.rank, lora.targets, None if models.bill_as else lora.layers)
    return adapters.lora_training_work(spec, lengths, adapters.num_numbers(shapes))


def untrained(client_id: int, device_class: str, memory_bytes: float, needed: Requirement) -> Member:
    """One client's record where clients have no models of their own to train first."""
    return Member(
        client_id=client_id,
        device_class=device_class,
        memory_bytes=memory_bytes,
        needed_bytes=needed.needed_bytes,
        takes_part=memory_bytes >= needed.needed_bytes,
        training_s=0.0,
        training_flop=0.0,
        training_energy_j=0.0,
    )


def member(
    client_id: int, profile: DeviceProfile, needed: Requirement, training: tuple[int, Work] | None
) -> Member:
    """One client's record: whether it takes part, and its one-off training (None: it has none), without jitter."""
    alone = untrained(client_id, profile.device_class, profile.memory_bytes, needed)
    if training is None or not alone.takes_part:
        return alone
    steps, work = training
    seconds = steps * duration_s(profile, work) if steps else 0.0
    return msgspec.structs.replace(
        alone,
        training_s=seconds,
        training_flop=steps * work.flop,
        training_energy_j=compute_energy_j(profile, seconds),
    )
