"""DPSDA-FL: every client writes synthetic rows under a privacy mechanism and uploads them once; the server trains on them.

FedGRPO's second baseline, as FedGRPO uses it: a small language model on each client turns private rows into synthetic
question/answer text, and the server trains centrally on the union (``objective: sft | grpo``). After the one upload
nothing travels. The generator that clients start from is public: trained on the server's public corpus, disjoint from every
client's rows, mistakes included.

    server: ask every client for synthetic rows, each when it is there, again after a failure
    client: N rows from its rows by ``synthesis.mechanism``, malformed ones thrown away; upload the rest
    server: D = union of what came; train on D until the run's stop condition

``synthesis.mechanism: private_evolution`` is the paper's (its generator is only ever sampled); ``dp_sgd`` and ``none`` train
the generator on the client's rows, with and without protection. Protection is (epsilon, delta) per record of one client
(``fedsim/privacy/config.py`` states the trust model and what is not covered). A repeated upload after a failure is the very
same release, so it reveals nothing more. What every release was stands in the run folder (``privacy.json``).

Changed against the paper (images, a pre-trained diffusion model, federated averaging): text; no classes, so every private row
votes over all synthetic ones; stage 2, in which the pooled set goes down and clients train on it, does not exist here, as
in FedGRPO's comparison. The generator counts as the clients' base model: installed before the run, or downloaded and charged
before anything else (``models.base_model: shipped``).

Known limits. Votes choose among a public generator's samples and cannot repair their labels: where the public corpus has wrong
answers, so have the synthetic rows, whatever epsilon is (``models/real/private_evolution.py``). N should be well below a
client's rows, or its votes drown in the noise. The union weighs clients alike under ``rows_per_client``: who has 30 rows counts
as much as who has 3,000 (``rows_per_private_row`` weighs by rows, and tells how many there are).

References:
    Abacha et al., Synthetic Data Aided Federated Learning Using Foundation Models, arXiv 2407.05174 (DPSDA-FL).
    Lin et al., Differentially Private Synthetic Data via Foundation Model APIs 1: Images, ICLR 2024, algorithm 1.
    Zhu et al., FedGRPO, AAAI 2026, arXiv 2602.12014, section 4 (the baseline).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

from pydantic import Field

from fedsim.errors import FederationError
from fedsim.federation.clients import Federation
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.models.interfaces import Synthesis
from fedsim.privacy.config import SynthesisConfig
from fedsim.protocols.central_pooled import received_rows
from fedsim.protocols.shared.group_relative import ServerRewardedConfig
from fedsim.protocols.shared.one_shot import GatheringConfig, gather
from fedsim.protocols.shared.state import ClientState, ServerState
from fedsim.protocols.shared.supervised import Objective, learn_from_rows
from fedsim.sim.devices.adapters import local_training_bytes
from fedsim.sim.devices.architecture import ModelSpec, resident_bytes
from fedsim.sim.devices.cost import NO_WORK, Work, embedding_work, generate_work, training_work
from fedsim.sim.network import wire

CLIENT_RUNS = "clients"
"""Whose model the clients run: one of their own size, the public generator."""

CLIENTS_PRETRAINED = False
"""No client trains a model of its own before the run: the generator is public."""


class Config(ServerRewardedConfig, GatheringConfig):
    """DPSDA-FL: clients upload synthetic rows once; the server trains on them."""

    name: Literal["dpsda_fl"] = Field(
        "dpsda_fl", description="clients upload synthetic rows once; the server trains on them"
    )
    objective: Objective = Field(
        "sft", description="sft: fine-tuning on the rows; grpo: their answers as reward"
    )
    synthesis: SynthesisConfig = Field(
        SynthesisConfig.defaults(), description="how clients write synthetic rows, how many, and how private"
    )


async def run(federation: Federation, config: Config, state: ServerState) -> None:
    """Collect synthetic rows from every client, then train on all of them until the run's stop condition."""
    replies = await gather(federation, wire.SyntheticRequest(wire.pack_id(0)), config)
    rows = received_rows(replies.values(), "synthetic", state.data.answers)
    if not rows:
        num_asked, num_answered = len(federation.clients), len(replies)
        raise FederationError(
            f"no synthetic row came: of {num_asked} clients asked, {num_asked - num_answered} were lost or too late, and "
            f"{num_answered} answered, each with no row (it has fewer rows than protocol.synthesis.minimum_rows, or wrote "
            "malformed rows only)"
        )
    await learn_from_rows(federation, config, state, rows, config.objective)


def handlers_for(config: Config) -> Mapping[type[wire.Message], Handler]:
    """What clients answer to; how many rows to write is among their settings."""

    def synthesis(client: ClientState) -> Synthesis | None:
        count = config.synthesis.num_rows(len(client.rows))
        if not count:
            return None
        assert client.synthesiser is not None, "dpsda_fl plays with a synthesiser"
        return client.synthesiser.synthesise(client.client_id, client.rows, count)

    def run_synthesis(client: ClientState, message: wire.SyntheticRequest) -> HandlerResult:
        made = synthesis(client)
        rows = made.rows if made else ()
        texts, answers = tuple(text for text, _ in rows), tuple(answer for _, answer in rows)
        return HandlerResult(wire.SyntheticRows(message.draw, texts, answers))

    def work(client: ClientState, message: wire.SyntheticRequest) -> Work:
        made = synthesis(client)
        return synthesis_work(client, made) if made else NO_WORK

    return {wire.SyntheticRequest: Handler(run_synthesis, work, wire.SyntheticRows)}


def client_memory_bytes(config: Config, spec: ModelSpec, longest_tokens: int) -> float:
    """Memory [bytes] that a client's device needs to sample the generator and, unless Private Evolution, to train all of it.

    Training by ``adapters.local_training_bytes``, as for every protocol that trains on clients; clipping is given no memory of
    its own. Sampling with one row's cache.
    """
    sampling = resident_bytes(spec, longest_tokens)
    if config.synthesis.mechanism == "private_evolution":
        return sampling
    return max(sampling, local_training_bytes(spec, spec.num_parameters, longest_tokens))


def synthesis_work(client: ClientState, made: Synthesis) -> Work:
    """What making these rows costs: training steps, writing every sample from an empty prompt, embedding.

    Batches are computed one after the other, each with a pass of its own over the weights per token. A malformed sample is
    charged ``max_tokens``, or the longest row's tokens where texts are billed longer than that; a variation as a whole row,
    although its first tokens are kept. Clipping every row's gradient is charged as ordinary training: the arithmetic is the
    same, only the sum is taken later.
    """
    spec, tokens = client.spec, client.tokens

    @cache
    def length(question: str, *answers: str) -> int:
        """The texts, the mark between them, and the start (read) or the end (written)."""
        return tokens.question(question) + sum(map(tokens.candidate, answers)) + 2

    total = NO_WORK
    for step in made.steps:
        total += training_work(spec, [length(question, *answers) + 1 for question, answers in step])
    longest = max([made.max_tokens, *(length(*row) for batch in made.generated for row in batch.rows)])
    for batch in made.generated:
        written = [length(*row) for row in batch.rows] + [longest] * batch.num_malformed
        total += generate_work(spec, [1] * len(written), [[num_tokens] for num_tokens in written])
    for rows in made.embedded:
        total += embedding_work(spec, [length(*row) for row in rows])
    return total


HANDLERS: Mapping[type[wire.Message], Handler] = handlers_for(Config())
