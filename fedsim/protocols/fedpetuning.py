"""FedPETuning: clients tune the server's model on their own rows and send what they tuned; the server averages it.

Zhang, Yang, Dai, Wang, Yu, Qu, Xu: FedPETuning: When Federated Learning Meets the Parameter-Efficient Tuning Methods of
Pre-trained Language Models, Findings of ACL 2023, arXiv 2212.10025. A round, repeated until the run stops:

1. the server samples a cohort among the clients that are there and have rows,
2. broadcasts the trainable module: low-rank adapters (LoRA on q and v; ``module: full`` is FedAvg over all weights),
3. each client loads it into the frozen base model that it has, trains for some epochs on its private rows with a
   fresh AdamW, at its own device's speed, and sends the module back,
4. the server averages what came back and installs the average as its policy.

All clients start from one seeded module (A random, B zero), which the first broadcast carries. Text stays on the clients,
but the module is not scalar-only. What a client trains from is what arrived: in float16 the numbers are really rounded.

What differs from the paper and its released code, on purpose:

* Generation, not classification: a decoder that writes the answer replaces RoBERTa, so there is no classification head to
  tune and to ship (there it is two thirds of LoRA's payload). Of the paper's modules LoRA and full tuning are here;
  adapters, prefixes and bias-only tuning are not.
* ``objective: grpo`` is FedGRPO's variant of this baseline (its table 1): a client samples G candidates for its own
  questions, rewards 1[candidate = private answer], and steps on group-relative advantages (PAPER eqs. 7 to 9 with the client
  itself as the only expert).
* ``weighting: uniform`` is what the released code does; ``samples`` is FedAvg's. ``averaging: factors`` averages A and B apart,
  as the code does, which is not the average of the products B A; ``product`` is (``protocols/shared/aggregation.py``,
  FlexLoRA).
* Only what is trained travels. The released code serialises the frozen weights too and counts parameters for its figure.
* Clients come and go, and are slow: a round ends as ``stragglers`` says, and takes the average of those who answered. A
  round that nobody answered is repeated with a newly drawn cohort. A late module is dropped, not merged.
* The local rate is constant within and over rounds, gradients are clipped (``max_grad_norm``), there is no weight decay in
  SFT, and the last round's model is the result; the paper tests the round that was best on validation.

* In rounds nothing but the module is averaged: no proximal term (FedProx), no server optimiser (FedAdam), no client state.
  A client whose numbers are not finite ends the run with an error rather than being left out. The server keeps the average in
  float32 and measures that one; clients start from what arrives of it.

``schedule`` goes beyond the paper: ``buffered`` (FedBuff) and ``client_centric`` average as modules arrive
(``async_averaging.py``, ``protocols/shared/server_optimizers.py``).

One round, or one full buffer, is one update of the policy. That a client has rows at all is known to the server, as from an
enrolment.

The cost of a client's work is that of training the server's model on the texts it really trained on (backward passes only to
where gradients are needed), plus, for GRPO, of sampling the candidates; the server's is stated in ``aggregation_flop``.
Time and memory are both lower bounds, of two ways to run: time takes a local batch side by side, memory one row or group at
a time.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fedsim.config.strict import AtMostClients
from fedsim.errors import FederationError, ScenarioError
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult, Hurry, Subject
from fedsim.federation.stragglers.config import StragglerConfig, refuse_impossible, refuse_rules_for_rewards
from fedsim.federation.stragglers.policies import Stragglers
from fedsim.models.client_training_config import LocalTrainingConfig
from fedsim.models.interfaces import LocalUpdate, UpdateStats, Weights
from fedsim.protocols.shared.aggregation import aggregation_flop, average, client_shares
from fedsim.protocols.shared.async_averaging import Averaging, Settings
from fedsim.protocols.shared.server_optimizers import AveragingConfig
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.protocols.shared.weights_on_the_wire import distance, packed, received, unpacked
from fedsim.sim import streams
from fedsim.sim.devices import adapters
from fedsim.sim.devices.architecture import ModelSpec
from fedsim.sim.devices.cost import NO_WORK, Work, generate_work, training_work
from fedsim.sim.network import wire

CLIENT_RUNS = "server"
"""A client must hold the server's model: it trains that one, and its own plays no part."""

HOPELESS_ROUNDS = 100
"""So many rounds in a row that nobody answered end the run with an error."""


class Config(LocalTrainingConfig):
    """FedPETuning (ACL 2023), and FedAvg: clients train adapters, or all weights, that are averaged."""

    name: Literal["fedpetuning"] = Field("fedpetuning", description="FedPETuning (ACL 2023), and FedAvg")
    averaging: Literal["factors", "product"] = Field(
        "factors",
        description="average the adapters' A and B apart, or their products B A, factored again at the same rank "
        "(module lora)",
    )
    weighting: Literal["uniform", "samples"] = Field(
        "uniform", description="what a client counts in the average: all alike, or by its number of rows"
    )
    number_type: wire.NumberType = Field("float16", description="how numbers travel, either way (type)")
    clients_per_round: Annotated[int | None, AtMostClients()] = Field(
        None, ge=1, description="clients asked in one round, drawn among those there (count; default all)"
    )
    schedule: AveragingConfig = Field(
        AveragingConfig.defaults(), description="when the server averages: in rounds, or as modules arrive"
    )
    stragglers: StragglerConfig = Field(
        StragglerConfig.defaults(),
        description="how long a round, or one asynchronous task, waits for its clients",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if self.averaging == "product" and self.module == "full":
            raise ValueError("averaging product needs module lora: full weights have no factors")
        refuse_rules_for_rewards(self.stragglers, "a trained module")
        key = "clients_per_round" if self.clients_per_round else "clients_per_round (not set)"
        refuse_impossible(self.stragglers, self.cohort_size, key)
        return self

    @model_validator(mode="after")
    def _fits_without_rounds(self) -> Config:
        if not self.schedule.is_asynchronous:
            return self
        kind = self.schedule.kind
        if self.averaging == "product":
            raise ValueError(
                f"schedule.kind {kind} adds differences, factor by factor; use averaging factors, or kind rounds"
            )
        if self.clients_per_round is not None:
            raise ValueError(
                f"schedule.kind {kind} has no rounds; use schedule.in_flight for clients_per_round"
            )
        if self.stragglers.policy not in ("wait_all", "deadline", "adaptive"):
            raise ValueError(
                f"stragglers.policy {self.stragglers.policy} is for cohorts, and under schedule.kind {kind} clients are asked "
                "one by one; use wait_all, deadline or adaptive"
            )
        return self

    @property
    def cohort_size(self) -> int | None:
        """How many clients a round asks; None for everybody."""
        return self.clients_per_round


def client_memory_bytes(config: Config, spec: ModelSpec, longest_tokens: int) -> float:
    """Memory a client needs to train the server's model on rows of so many tokens (``adapters.local_training_bytes``).

    For GRPO at least the weights and the key-value cache of one group of G candidates.
    """
    num_trainable = adapters.num_numbers(config.adapter_shapes(spec))
    training = adapters.local_training_bytes(spec, num_trainable, longest_tokens)
    if config.objective == "sft":
        return training
    at_rest = adapters.local_training_bytes(spec, num_trainable, 0)
    return max(training, at_rest + config.group_size * longest_tokens * spec.kv_bytes_per_token)


# ---------------------------------------------------------------------------------------------- the server's half


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Broadcast, local training and averaging, in rounds or without; ends when the run's stop condition cancels it.

    Raises:
        ScenarioError: more clients are to be asked at once than have rows.
        FederationError: no client has rows, nobody will ever be there, ``HOPELESS_ROUNDS`` rounds in a row brought nothing,
            or a client's numbers are not finite.
    """
    assert state.trainer is not None, "the experiment builds a trainer for these settings"
    with_rows = [client_id for client_id, rows in enumerate(state.data.private) if rows]
    if not with_rows:
        raise FederationError("no client has rows to train on; see tasks.sizes.private and tasks.partition")
    most, sizes = len(with_rows), (config.clients_per_round, config.schedule.in_flight)
    for key, wanted in zip((("clients_per_round",), ("schedule", "in_flight")), sizes, strict=True):
        if wanted is not None and wanted > most:
            raise ScenarioError(
                f"protocol.{'.'.join(key)} is {wanted}, but only {most} clients have rows to train on (tasks.partition); "
                f"must be at most {most}"
            ).at("protocol", *key)
    weights = state.trainer.start()
    if config.schedule.is_asynchronous:
        shapes = config.adapter_shapes(state.spec)
        settings = Settings(config.schedule, config.stragglers, config.weighting, config.number_type, shapes)
        await Averaging(federation, settings, state, with_rows, weights).run()
    stragglers = Stragglers(config.stragglers, federation.now_s)
    for round_index in count():
        uploads = await _answered_round(
            federation, config, state, stragglers, with_rows, round_index, weights
        )
        num_rows = [wire.unpack_id(upload.num_rows) for upload in uploads.values()]
        updates = [received(client_id, round_index, upload) for client_id, upload in uploads.items()]
        await federation.server.compute(_averaging_work(config, state, len(updates)), "update", round_index)
        averaged = average(updates, client_shares(config.weighting, num_rows), config.averaging)
        moved = distance(weights, averaged)
        weights = {name: array.astype(np.float32) for name, array in averaged.items()}
        state.trainer.install(weights)
        # The clients' losses stay with them; the size of the round's step is what the server can see.
        stats = UpdateStats(loss=np.nan, entropy=np.nan, clip_fraction=0.0, grad_norm=moved)
        state.monitor.updated(stats, [], sum(num_rows), 0.0)
        await state.monitor.pause_if_over()


async def _answered_round(
    federation: Federation,
    config: Config,
    state: ServerState,
    stragglers: Stragglers,
    with_rows: Sequence[int],
    round_index: int,
    weights: Weights,
) -> dict[int, wire.AdapterUp]:
    """One round, repeated until somebody answers: modules by client id."""
    message = wire.AdapterDown(
        wire.pack_id(round_index), config.number_type, packed(weights, config.number_type)
    )
    has_rows = frozenset(with_rows)
    for attempt in range(HOPELESS_ROUNDS):
        await federation.any_online(with_rows)
        there = [client_id for client_id in federation.online() if client_id in has_rows]
        chosen = cohort(there, config.clients_per_round, state.seed, round_index, attempt)
        replies = await stragglers.collect(
            partial(_request, federation, message, Subject(draw=round_index, attempt=attempt)),
            chosen,
            _spares(federation, with_rows, chosen, state.seed, round_index, attempt),
        )
        uploads = {
            client_id: reply for client_id, reply in replies.items() if isinstance(reply, wire.AdapterUp)
        }
        if uploads:
            return uploads
    raise FederationError(
        f"round {round_index} was repeated {HOPELESS_ROUNDS} times and nobody answered (every client left, gave up, or missed "
        "the deadline; local training may take longer than clients stay); see the outcomes in the run folder"
    )


def cohort(
    there: Sequence[int], size: int | None, seed: int, round_index: int, attempt: int
) -> tuple[int, ...]:
    """A uniform sample without replacement of the clients that are there, ascending; all of them without a size.

    Each client draws a keyed number and the smallest are taken, so who else is there changes nobody's draw.
    """
    return tuple(sorted(_drawn(there, seed, round_index, attempt)[:size]))


def _drawn(there: Sequence[int], seed: int, round_index: int, attempt: int) -> list[int]:
    return sorted(
        there, key=lambda client_id: streams.uniform(seed, "cohort", round_index, attempt, client_id)
    )


def _spares(
    federation: Federation,
    with_rows: Sequence[int],
    chosen: Sequence[int],
    seed: int,
    round_index: int,
    attempt: int,
) -> Iterator[int]:
    """Who would have been drawn next, one by one, of those who are there when one is needed."""
    asked = set(chosen)
    for client_id in _drawn(with_rows, seed, round_index, attempt):
        if client_id not in asked and federation.clients[client_id].is_online:
            yield client_id


def _request(
    federation: Federation, message: wire.Message, subject: Subject, client_id: int, _: Hurry | None
) -> Coroutine[Any, Any, wire.Message]:
    return federation.clients[client_id].request(message, subject)


def _averaging_work(config: Config, state: ServerState, num_clients: int) -> Work:
    """Averaging in memory: every client's numbers are read once and the result is written, 4 bytes each."""
    shapes = config.adapter_shapes(state.spec)
    traffic = 4.0 * (num_clients + 1) * adapters.num_numbers(shapes)
    return Work(aggregation_flop(shapes, num_clients, config.averaging), traffic)


# ---------------------------------------------------------------------------------------------- the client's half


def tune(client: ClientState, message: wire.AdapterDown) -> HandlerResult:
    """Local training from the module that arrived; the module afterwards, and on how many rows."""
    update = client.once.due(message, lambda: _local_update(client, message))
    tensors = packed(update.weights, message.number_type)
    num_rows = wire.pack_id(len(client.rows))
    return HandlerResult(wire.AdapterUp(message.round_index, num_rows, message.number_type, tensors))


def tune_cost(client: ClientState, message: wire.AdapterDown) -> Work:
    """Every local step: training on its rows, and (GRPO) sampling its candidates first."""
    update = client.once.early(message, lambda: _local_update(client, message))
    spec, tokens = client.trained_spec or client.spec, client.tokens
    is_lora = any(name.endswith(".lora_A") for name in update.weights)
    shapes = adapters.like(spec, {name: array.shape for name, array in update.weights.items()})
    num_trainable = adapters.num_numbers(shapes)
    work = NO_WORK
    for step in update.steps:
        prompts = [tokens.question(question) for question, _ in step]
        answers = [[tokens.candidate(text) + 1 for text in texts] for _, texts in step]
        if update.sampled:
            work += generate_work(spec, prompts, answers)
        rows = [prompt + length for prompt, own in zip(prompts, answers, strict=True) for length in own]
        work += (
            adapters.lora_training_work(spec, rows, num_trainable) if is_lora else training_work(spec, rows)
        )
    return work


def _local_update(client: ClientState, message: wire.AdapterDown) -> LocalUpdate:
    assert client.trainer is not None
    weights = unpacked(message.tensors, message.number_type)
    return client.trainer.tune(client.client_id, wire.unpack_id(message.round_index), weights, client.rows)


HANDLERS: Mapping[type[wire.Message], Handler] = {wire.AdapterDown: Handler(tune, tune_cost, wire.AdapterUp)}
