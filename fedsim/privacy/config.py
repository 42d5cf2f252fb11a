"""Settings of synthetic data: which mechanism makes it, how much of it, and what it may reveal.

Trust model, for every mechanism: a client computes, clips and adds noise on its own device and trusts itself; the server and
the other clients are honest but curious and see only what was sent. Protection is per *record* of one client (neighbouring data
sets differ by one added or removed row), not per client: whoever owns many like rows is protected less.

What is not covered by epsilon and said here instead: that a client takes part at all (it has at least ``minimum_rows`` rows),
how many rows it sends where that is proportional to how many it has, its sampling rate (which the noise is
calibrated by), and when and how fast it answers. Settings count for nothing either, although whoever chose a clip norm, steps,
a learning rate, a threshold or N by looking at results on private data (a tuning grid, for instance) learned from these data.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.config.limits import MAX_BATCH
from fedsim.config.strict import StrictModel

Mechanism = Literal["none", "dp_sgd", "private_evolution"]

TRUST_MODEL = (
    "each client adds the noise on its own device; the server and all others see only the rows sent; "
    "the simulator's randomness is keyed and reproducible, so a simulated release protects nobody"
)


class GeneratorConfig(StrictModel):
    """The public generator: a full-text model of the clients' size, trained on the server's public corpus alone."""

    steps: int = Field(
        1500, ge=1, description="optimiser steps of the training from scratch on the public corpus (count)"
    )
    batch_size: int = Field(64, ge=1, le=MAX_BATCH, description="rows per step of that training (count)")
    temperature: float = Field(
        1.0, gt=0, description="sampling temperature, of public and of tuned generators (factor)"
    )
    max_tokens: int = Field(
        64,
        ge=4,
        description="longest synthetic row, question and answer together (tokens); longer is malformed",
    )


class TuningConfig(StrictModel):
    """How a client trains the generator on its own rows (mechanisms none and dp_sgd)."""

    steps: int = Field(400, ge=1, description="optimiser steps (count)")
    batch_size: int = Field(
        64,
        ge=1,
        le=MAX_BATCH,
        description="expected rows per step, each drawn independently (Poisson sampling; rows)",
    )
    learning_rate: float = Field(3e-3, gt=0, description="AdamW rate, falling linearly to zero (per step)")
    clip_norm: float = Field(
        0.5, gt=0, description="C, l2 norm to which each row's gradient is clipped (dp_sgd; norm)"
    )


class EvolutionConfig(StrictModel):
    """Private Evolution: noisy votes of private rows for synthetic ones, instead of training."""

    iterations: int = Field(
        5, ge=1, description="T, histograms that are released (count); more share one epsilon"
    )
    threshold: float = Field(
        1.0, ge=0, description="H, taken off every noisy vote count, in standard deviations of the noise"
    )
    keep_first: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of a row's tokens that the first variation keeps; the rest is regenerated",
    )
    keep_last: float = Field(
        0.8, ge=0, le=1, description="share that the last variation keeps; it rises linearly in between"
    )


class SynthesisConfig(StrictModel):
    """What makes the synthetic rows, how many, and how private."""

    mechanism: Mechanism = Field(
        "private_evolution",
        description="none: the client trains the public generator on its rows without protection (epsilon: inf); "
        "dp_sgd: with clipping and noise; private_evolution: its rows vote with noise for public samples",
    )
    epsilon: Annotated[float, Field(gt=0)] | Literal["inf"] = Field(
        10.0,
        description="privacy loss of a client's whole release, per record (nats); inf: nothing is promised",
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="probability that epsilon does not cover; far below 1 / rows"
    )
    rows_per_client: int = Field(
        400,
        ge=1,
        description="N, synthetic rows that each client sends (count); says nothing about its own rows",
    )
    rows_per_private_row: float | None = Field(
        None,
        gt=0,
        description="N in proportion to the client's own rows instead (factor), which tells how many it has",
    )
    minimum_rows: int = Field(
        10, ge=1, description="clients with fewer own rows take no part, which is visible (rows)"
    )
    generator: GeneratorConfig = Field(
        GeneratorConfig.defaults(), description="the public generator that all start from"
    )
    tuning: TuningConfig = Field(TuningConfig.defaults(), description="how a client trains the generator")
    evolution: EvolutionConfig = Field(EvolutionConfig.defaults(), description="how Private Evolution goes")

    @model_validator(mode="after")
    def _none_promises_nothing(self) -> SynthesisConfig:
        if self.mechanism == "none" and self.epsilon != "inf":
            raise ValueError(
                "mechanism none protects nothing; write epsilon: inf beside it, or choose another mechanism"
            )
        return self

    @property
    def privacy_loss(self) -> float:
        """Epsilon as a number."""
        return math.inf if self.epsilon == "inf" else self.epsilon

    def num_rows(self, own_rows: int) -> int:
        """Synthetic rows that a client with so many own rows sends; 0 if it takes no part."""
        if own_rows < self.minimum_rows:
            return 0
        if self.rows_per_private_row is None:
            return self.rows_per_client
        return max(1, round(self.rows_per_private_row * own_rows))


class EvaluatorPrivacyConfig(StrictModel):
    """DP-SGD for the clients' own models: whatever such a model says is then free post-processing, per training row."""

    epsilon: float = Field(8.0, gt=0, description="privacy loss of a client's model, per training row (nats)")
    delta: float = Field(
        1e-5, gt=0, lt=1, description="probability that epsilon does not cover; far below 1 / rows"
    )
    tuning: TuningConfig = Field(
        TuningConfig.defaults(),
        description="how a client trains the public model on its rows, clipped and with noise",
    )

    def noise_multiplier(self, num_rows: int) -> float:
        """Noise over clipping norm for a client with so many rows, each drawn with probability min(1, batch / rows)."""
        from fedsim.privacy.accounting import dp_sgd_noise_multiplier

        rate = min(1.0, self.tuning.batch_size / num_rows)
        return dp_sgd_noise_multiplier(self.epsilon, self.delta, rate, self.tuning.steps)
