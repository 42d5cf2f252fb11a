"""Settings of the models: which the server's and the clients' are, how they start, and how the policy learns.

No torch here: a scenario is checked without it. Where a model comes from is in ``sources``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fedsim.config.limits import MAX_BATCH, MAX_GROUP_SIZE, MAX_TOKENS
from fedsim.config.strict import StrictModel
from fedsim.models.sources import FolderModel, ModelSource, ScratchModel, scratch
from fedsim.privacy.config import EvaluatorPrivacyConfig
from fedsim.sim.devices.presets import architectures, unknown_name


class StartTuning(StrictModel):
    """Supervised fine-tuning before the run: of the server on Dp (``start: dp_tuned``), or of a base on the format rows."""

    steps: int = Field(40, ge=1, description="optimiser steps (count)")
    batch_size: int = Field(32, ge=1, le=MAX_BATCH, description="rows per step (count)")
    learning_rate: float = Field(3e-4, gt=0, description="AdamW learning rate (per step)")


def is_config_file(architecture: str) -> bool:
    """Whether an architecture is named by a file (``models/mine/config.json``) rather than by its preset's name."""
    return architecture not in architectures() and ("/" in architecture or architecture.endswith(".json"))


class BillAs(StrictModel):
    """Bigger models whose costs are counted instead of those of the models that really compute."""

    server: str = Field(description="architecture of the server's model: a preset name or a config.json file")
    clients: str = Field(
        description="architecture of the clients' models: a preset name or a config.json file"
    )

    @field_validator("server", "clients")
    @classmethod
    def _known(cls, architecture: str) -> str:
        if architecture not in architectures() and not is_config_file(architecture):
            known = unknown_name("architecture", architecture, architectures())
            raise ValueError(f"{known}, or a path to a config.json")
        return architecture

    @property
    def server_name(self) -> str:
        """What people call the server's architecture."""
        return _short(self.server)

    @property
    def clients_name(self) -> str:
        """What people call the clients' architecture."""
        return _short(self.clients)


def _short(architecture: str) -> str:
    """A preset's name; of a file its folder's name, or its own where it is not called config.json."""
    if not is_config_file(architecture):
        return architecture
    path = Path(architecture)
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _same_for_both(value: object) -> object:
    return {"server": value, "clients": value} if isinstance(value, str) else value


class ModelsConfig(StrictModel):
    """The server's policy model and the clients' evaluator models."""

    server: ModelSource = Field(
        default_factory=lambda: scratch("scratch-450k"),
        description="the server's language model: a preset name, or a mapping with preset, pretrained, path or hub",
    )
    clients: ModelSource = Field(
        default_factory=lambda: scratch("scratch-250k"),
        description="every client's language model, likewise; a path may hold {client}, the client's number: a folder "
        "for each, of any size and architecture",
    )
    start: Literal["public", "dp_tuned"] = Field(
        "public", description="the server starts as pre-trained on the public corpus, or further tuned on Dp"
    )
    dp_tuning: StartTuning = Field(default_factory=StartTuning, description="how `start: dp_tuned` tunes")
    format_tuning: StartTuning | None = Field(
        None,
        description="tune ready models on the format rows first, by adapters that are merged: the common start of "
        "server and clients",
    )
    bill_as: (
        Annotated[BillAs, BeforeValidator(_same_for_both, json_schema_input_type=str | BillAs)] | None
    ) = Field(
        None,
        description="count time, energy, memory and adapter bytes as those of bigger models: one architecture for both "
        "sides, or each its own; needs `text`",
    )
    base_model: Literal["preinstalled", "shipped"] = Field(
        "preinstalled",
        description="whether clients have the base model, or download it first (2 bytes per parameter)",
    )
    client_epochs: int = Field(
        1,
        ge=1,
        le=1000,
        description="passes of a billed client over its own rows in the one-off training of its model (count)",
    )
    client_privacy: EvaluatorPrivacyConfig | None = Field(
        None,
        description="train the clients' models with DP-SGD: scratch models from one of their size trained on the "
        "public corpus, others by their adapters",
    )

    @model_validator(mode="after")
    def _used_or_refused(self) -> ModelsConfig:
        server, clients = self.server, self.clients
        if isinstance(server, FolderModel) and server.is_one_for_each_client:
            raise ValueError("server.path holds {client}; the server has one model")
        if not isinstance(server, ScratchModel) and server.tuning is not None:
            raise ValueError(
                "server.tuning is given, but the server's adapters are trained by the protocol; see format_tuning and start"
            )
        if self.format_tuning is not None and (isinstance(server, ScratchModel) or server.lora is None):
            raise ValueError(
                "format_tuning tunes by adapters, so server must be a pretrained, path or hub model with lora"
            )
        if isinstance(clients, ScratchModel):
            return self
        if clients.lora is None and (clients.tuning is not None or self.client_privacy is not None):
            key = "client_privacy" if clients.tuning is None else "clients.tuning"
            raise ValueError(f"{key} trains the clients' adapters; give clients.lora, e.g. {{rank: 8}}")
        if clients.tuning is not None and self.client_privacy is not None:
            raise ValueError(
                "clients.tuning and client_privacy are both given; client_privacy.tuning is what trains then"
            )
        return self


class DiscriminativeConfig(StrictModel):
    """DisCO's objective and its constraint (``loss: disco_constrained``)."""

    score: Literal["log_likelihood", "likelihood_ratio"] = Field(
        "log_likelihood",
        description="an answer's score: token mean of log pi, or of the ratio to the policy that sampled it",
    )
    tau: float | None = Field(
        10.0,
        gt=0,
        description="temperature of the emphasis on wrong answers with a high score (10 suits log_likelihood, 1 "
        "likelihood_ratio; null: all wrong answers count alike)",
    )
    max_kl: float = Field(
        1e-4, ge=0, description="delta, divergence from the sampling policy that is free (nats per token)"
    )
    penalty: float = Field(
        1e3, ge=0, description="beta, weight of the squared excess over max_kl (per squared nat)"
    )
    threshold: float = Field(
        0.5, description="fused rewards above it are right answers, below it wrong ones (reward)"
    )


class PolicyConfig(StrictModel):
    """How the server samples candidates and learns from their advantages (GRPO)."""

    group_size: int = Field(8, ge=1, le=MAX_GROUP_SIZE, description="G, candidates per question (count)")
    temperature: float = Field(1.0, gt=0, description="sampling temperature (factor)")
    max_new_tokens: int = Field(
        8, ge=1, le=MAX_TOKENS, description="longest answer, end token included (tokens)"
    )
    learning_rate: float = Field(1.5e-4, gt=0, description="AdamW learning rate after warm-up (per update)")
    warmup_updates: int = Field(10, ge=0, description="updates of linear warm-up (count)")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay (per update, times the rate)")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this l2 norm (norm)")
    clip_low: float = Field(0.2, gt=0, lt=1, description="lower clip range of the probability ratio (factor)")
    clip_high: float = Field(0.3, gt=0, description="upper clip range of the probability ratio (factor)")
    kl_weight: float = Field(0.0, ge=0, description="beta, weight of the KL to the initial policy (factor)")
    inner_passes: int = Field(
        1, ge=1, le=MAX_BATCH, description="optimisation passes over the groups of one update (count)"
    )
    loss: Literal["grpo", "dr_grpo", "bnpo", "disco_constrained"] = Field(
        "grpo",
        description="grpo: averaged as loss_mean says; dr_grpo: over candidates times max_new_tokens; bnpo: token mean "
        "of each local batch of bnpo_groups; disco_constrained: DisCO's objective on right and wrong answers",
    )
    loss_mean: Literal["tokens", "sequences"] = Field(
        "tokens",
        description="loss grpo averages over all scored tokens, or over candidates' own token means (as published)",
    )
    bnpo_groups: int = Field(
        8,
        ge=1,
        le=MAX_BATCH,
        description="question groups in a local batch, whose tokens are averaged together (bnpo; count)",
    )
    disco: DiscriminativeConfig = Field(
        DiscriminativeConfig.defaults(), description="settings of loss disco_constrained"
    )
    ratio: Literal["clipped", "decoupled"] = Field(
        "clipped",
        description="clipped: around the policy that sampled; decoupled: around the policy at the start of the update, "
        "times a truncated weight for who sampled",
    )
    behaviour_weight_cap: float = Field(
        2.0, gt=0, description="most that a stale token may count (ratio decoupled; factor)"
    )
    record_ratios: bool = Field(
        False,
        description="put effective sample share, clip fraction and divergence by staleness on record (records/ratios.parquet)",
    )
    questions_per_pass: int = Field(
        128,
        ge=1,
        le=MAX_BATCH,
        description="most questions that are sampled or back-propagated at once (count; memory, not results)",
    )
    fit_learning_rate: float = Field(
        5e-4, gt=0, description="AdamW rate of supervised fine-tuning (per step; every SFT at the server)"
    )
    fit_batch_size: int = Field(
        32, ge=1, le=MAX_BATCH, description="rows per step of supervised fine-tuning (count)"
    )

    @model_validator(mode="after")
    def _loss_reads_its_settings(self) -> PolicyConfig:
        if self.loss != "grpo" and self.loss_mean != "tokens":
            raise ValueError(
                f"loss_mean {self.loss_mean} is a choice of loss grpo; loss {self.loss} has its own length handling"
            )
        if self.loss == "disco_constrained":
            if self.ratio != "clipped":
                raise ValueError(
                    "ratio decoupled corrects a clipped loss; loss disco_constrained clips nothing and has disco.max_kl"
                )
            if self.kl_weight:
                raise ValueError(
                    "kl_weight must be 0 under loss disco_constrained, whose only divergence is that from the sampling policy"
                )
        return self
