"""Training the server's policy on a fixed set of rows: supervised fine-tuning, or GRPO with the rows' answers as truth.

Both run until the run's stop condition ends them. One optimiser step is one update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from fedsim.errors import FederationError
from fedsim.federation.clients import Federation
from fedsim.protocols.shared.group_relative import GroupRelativeConfig, train
from fedsim.protocols.shared.learner import truth_judge
from fedsim.protocols.shared.state import ServerState
from fedsim.sim import streams
from fedsim.sim.devices.cost import training_work
from fedsim.tasks.questions import Question

Objective = Literal["sft", "grpo"]


async def learn_from_rows(
    federation: Federation,
    config: GroupRelativeConfig,
    state: ServerState,
    rows: Sequence[Question],
    objective: Objective,
) -> None:
    """Train on the rows by one objective or the other; GRPO is rewarded by 1[candidate = the row's answer].

    Raises:
        FederationError: there is no row.
    """
    if objective == "sft":
        await fine_tune(federation, state, rows, config.fit_batch_size)
    else:
        await train(federation, config, state, rows, truth_judge(state))


async def fine_tune(
    federation: Federation, state: ServerState, rows: Sequence[Question], batch_size: int
) -> None:
    """SFT steps of ``batch_size`` rows each, epoch after epoch in keyed order, in the server's virtual time.

    Raises:
        FederationError: there is no row.
    """
    tokens = state.tokens
    for batch in row_batches(rows, batch_size, state.seed):
        lengths = [tokens.question(row.text) + tokens.candidate(row.taught) + 1 for row in batch]
        work = training_work(state.spec, lengths)
        await federation.server.compute(work, "update", state.policy.version)
        stats = state.policy.fit(batch, steps=1)
        state.monitor.updated(stats, [], len(batch), 0.0)
        await state.monitor.pause_if_over()


def row_batches(rows: Sequence[Question], batch_size: int, seed: int) -> Iterator[list[Question]]:
    """Endless batches; every epoch holds each row once, in an order keyed by (seed, epoch), and drops what fills no batch.

    Fewer rows than ``batch_size`` make one batch of them all.

    Raises:
        FederationError: there is no row.
    """
    if not rows:
        raise FederationError("there is no row to learn from")
    size = min(batch_size, len(rows))
    epoch = 0
    while True:
        order = streams.generator(seed, "row order", epoch).permutation(len(rows)).tolist()
        for start in range(0, len(rows) - size + 1, size):
            yield [rows[index] for index in order[start : start + size]]
        epoch += 1
