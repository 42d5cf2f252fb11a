"""Settings of the machine that runs the simulation: threads, where models score, and checkpoints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedsim.config.limits import MAX_PROCESSES
from fedsim.config.strict import StrictModel
from fedsim.config.units import Seconds


class ComputeConfig(StrictModel):
    """How the machine that runs the simulation computes; fixed here, because threads change bits."""

    threads: int = Field(1, ge=1, le=256, description="torch threads (count); others give other bits")
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu",
        description="where the clients' models score (auto: a GPU where there is one); others give other bits",
    )
    autocast: Literal["none", "bf16"] = Field(
        "none",
        description="precision in which the clients' models score: float32, or bfloat16; others give other bits",
    )
    gpu_share: float = Field(
        1.0, gt=0, le=1, description="share of one GPU and of its memory that a run may take, on Ray too"
    )
    scorers: int = Field(
        0,
        ge=0,
        le=MAX_PROCESSES,
        description="Ray actors that hold the clients' models and score (count; 0: the run's own process; needs the "
        "extra ray); changes no record",
    )
    checkpoint_every: Seconds = Field(
        5.0,
        description="least real time between two checkpoints of the policy (0 s: one at every update); changes no record",
    )
