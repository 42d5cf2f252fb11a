"""The privacy ledger: what every client's release was, for the run folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fedsim.privacy.config import TRUST_MODEL, SynthesisConfig

_ACCOUNTANTS = {
    "none": None,
    "dp_sgd": "Renyi, Poisson-sampled Gaussian",
    "private_evolution": "analytic Gaussian",
}
_NOISE_UNITS = {"none": None, "dp_sgd": "clipping norms", "private_evolution": "votes"}


@dataclass(frozen=True, slots=True)
class Release:
    """What one client's release was.

    Attributes:
        noise: standard deviation of the noise: in votes (private_evolution) or in clipping norms (dp_sgd); 0 without.
        sampling_rate: probability of a row to take part in a step or an iteration.
        num_sent: synthetic rows.
        num_malformed: samples that were thrown away.
        num_uniform: iterations of Private Evolution in which the noise left no vote.
    """

    noise: float
    sampling_rate: float
    num_sent: int
    num_malformed: int
    num_uniform: int


class Releases:
    """All releases of a run, by client; a client that took no part has none and lost nothing but that fact."""

    def __init__(self, config: SynthesisConfig) -> None:
        self._config = config
        self._by_client: dict[int, Release] = {}

    def add(self, client_id: int, release: Release) -> None:
        """Put a release on the books; the same again is the same release."""
        self._by_client[client_id] = release

    def report(self) -> list[dict[str, Any]]:
        """One entry per client that made rows; ``epsilon`` is ``inf`` as a word where nothing is promised.

        ``sensitivity`` is in the unit of ``noise``, so that their ratio is the accountant's: one vote of a private row, or
        one clipping norm, which ``clip_norm`` gives as an l2 norm of gradients. Mechanism none has no unit, sensitivity or
        neighbours.
        """
        config = self._config
        evolution = config.mechanism == "private_evolution"
        protected = config.mechanism != "none"
        epsilon = config.privacy_loss
        promised = math.isfinite(epsilon)
        return [
            {
                "client_id": client_id,
                "mechanism": config.mechanism,
                "epsilon": epsilon if promised else "inf",
                "delta": config.delta if promised else None,
                "neighbours": "one record added or removed" if protected else None,
                "noise": release.noise,
                "noise_unit": _NOISE_UNITS[config.mechanism],
                "sensitivity": 1.0 if protected else None,
                "clip_norm": config.tuning.clip_norm if config.mechanism == "dp_sgd" else None,
                "releases": config.evolution.iterations if evolution else config.tuning.steps,
                "sampling_rate": release.sampling_rate,
                "accountant": _ACCOUNTANTS[config.mechanism],
                "rows_sent": release.num_sent,
                "rows_malformed": release.num_malformed,
                "uniform_iterations": release.num_uniform,
                "trust_model": TRUST_MODEL,
            }
            for client_id, release in sorted(self._by_client.items())
        ]
