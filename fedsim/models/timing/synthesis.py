"""A stand-in for synthetic data in timing fidelity: rows in the shape of the questions, and the work they would have cost.

No model is trained and nothing is protected: noise is calculated from epsilon as in a real run, and what a client sends
are numbers written as long as questions and answers of its own rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedsim.models.interfaces import Exercise, Samples, Synthesis
from fedsim.models.timing.stand_ins import as_long_as
from fedsim.privacy.accounting import dp_sgd_noise_multiplier, gaussian_sigma
from fedsim.privacy.config import SynthesisConfig
from fedsim.privacy.releases import Release, Releases
from fedsim.sim import streams
from fedsim.tasks.questions import Question


class StandInSynthesiser:
    """Implements ``fedsim.models.interfaces.Synthesiser`` without a model; every sample is well formed."""

    def __init__(self, config: SynthesisConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._made: dict[tuple[int, int, tuple[Question, ...]], Synthesis] = {}
        self.releases = Releases(config)

    def synthesise(self, client_id: int, rows: Sequence[Question], count: int) -> Synthesis:
        """``count`` numbered rows in the client's mix of domains, and the texts that the mechanism would have worked on."""
        key = (client_id, count, tuple(rows))
        known = self._made.get(key)
        if known is None:
            known = self._made[key] = self._make(client_id, rows, count)
        return known

    def report(self) -> list[dict[str, Any]]:
        """What every client's release was (``privacy.json``)."""
        return self.releases.report()

    def _make(self, client_id: int, rows: Sequence[Question], count: int) -> Synthesis:
        config = self._config
        own_seed = streams.integer(self._seed, "synthesis", client_id)
        made = self._rows(rows, count, own_seed)
        written = Samples(made)
        loss = config.privacy_loss
        delta = config.delta if math.isfinite(loss) else 0.0
        if config.mechanism == "private_evolution":
            iterations = config.evolution.iterations
            noise, rate = gaussian_sigma(loss, config.delta, iterations), 1.0
            private = tuple((row.text, row.taught) for row in rows)
            result = Synthesis(
                made,
                loss,
                delta,
                generated=(written,) * (iterations + 1),
                embedded=(private, *((made,) * iterations)),
            )
        else:
            rate = min(1.0, config.tuning.batch_size / len(rows))
            protected = config.mechanism == "dp_sgd"
            noise = (
                dp_sgd_noise_multiplier(loss, config.delta, rate, config.tuning.steps) if protected else 0.0
            )
            result = Synthesis(
                made, loss, delta, steps=self._steps(rows, rate, own_seed), generated=(written,)
            )
        self.releases.add(client_id, Release(noise, rate, len(made), 0, 0))
        return result

    def _rows(self, rows: Sequence[Question], count: int, seed: int) -> tuple[tuple[str, str], ...]:
        draws = streams.generator(seed, "stand-in rows")
        owners = draws.integers(len(rows), size=count).tolist()
        numbers = draws.integers(10**8, size=count).tolist()
        return tuple(
            (as_long_as(rows[owner].text, number), as_long_as(rows[owner].taught, number))
            for owner, number in zip(owners, numbers, strict=True)
        )

    def _steps(self, rows: Sequence[Question], rate: float, seed: int) -> tuple[tuple[Exercise, ...], ...]:
        exercises: list[Exercise] = [(row.text, (row.taught,)) for row in rows]
        coins = streams.generator(seed, "poisson")
        return tuple(
            tuple(exercises[i] for i in (coins.random(len(rows)) < rate).nonzero()[0].tolist())
            for _ in range(self._config.tuning.steps)
        )
