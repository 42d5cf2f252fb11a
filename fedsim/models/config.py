"""Settings of the models: where the server's and the clients' language models come from, and how the policy learns.

No torch here: a scenario is checked without it. A model is one of three things, told apart by its keys:
a *scratch* model trained from random weights on first use (``scratch-450k`` or ``{preset: scratch-450k, steps: 600}``),
a local *folder* (``{path: models/mine}``) or a *hub* id (``{hub: HuggingFaceTB/SmolLM2-135M, revision: main}``).
Training budgets are optimiser steps, never seconds, so that weights do not depend on the machine's speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from fedsim.config.limits import MAX_BATCH, MAX_GROUP_SIZE, MAX_LAYERS, MAX_TOKENS, MAX_WIDTH
from fedsim.config.strict import StrictModel
from fedsim.privacy.config import EvaluatorPrivacyConfig
from fedsim.sim.devices.presets import architectures, unknown_name

PRESETS: dict[str, dict[str, Any]] = {
    "scratch-1m": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_layers": 2,
        "num_heads": 4,
        "steps": 300,
        "batch_size": 64,
        "warmup_steps": 40,
        "muon_learning_rate": 0.02,
        "weight_decay": 0.1,
    },
    "scratch-450k": {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_layers": 2,
        "num_heads": 4,
        "steps": 900,
        "batch_size": 64,
        "warmup_steps": 30,
        "muon_learning_rate": 0.02,
        "weight_decay": 0.3,
    },
    "scratch-250k": {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_layers": 2,
        "num_heads": 3,
        "steps": 1000,
        "batch_size": 32,
        "warmup_steps": 30,
        "muon_learning_rate": 0.01,
        "weight_decay": 0.3,
        "stop_loss": 0.01,
    },
}
"""Architectures with their training budgets; every key can be overridden beside ``preset``."""


class ScratchModel(StrictModel):
    """A Llama trained from random weights: architecture and training budget."""

    preset: str = Field("custom", description="name of the preset that the other keys override (no unit)")
    hidden_size: int = Field(ge=8, le=MAX_WIDTH, description="width of the residual stream (numbers)")
    intermediate_size: int = Field(
        ge=8, le=MAX_WIDTH, description="width of the feed-forward layers (numbers)"
    )
    num_layers: int = Field(ge=1, le=MAX_LAYERS, description="transformer layers (count)")
    num_heads: int = Field(ge=1, le=MAX_LAYERS, description="attention heads per layer (count)")
    steps: int = Field(ge=0, description="most optimiser steps of the training from scratch (count)")
    batch_size: int = Field(64, ge=1, le=MAX_BATCH, description="rows per optimiser step (count)")
    warmup_steps: int = Field(
        30, ge=0, description="steps of linear warm-up, then linear decay to zero (count)"
    )
    muon_learning_rate: float = Field(0.02, gt=0, description="Muon's rate, for matrices (per step)")
    adamw_learning_rate: float = Field(
        0.003, gt=0, description="AdamW's rate, for all other weights (per step)"
    )
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="decoupled weight decay; what makes small models generalise (per step, times the rate)",
    )
    stop_loss: float = Field(
        0.0, ge=0, description="stop early when the smoothed training loss falls below this (nats; 0: never)"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchModel:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x num_heads ({2 * self.num_heads})"
            )
        return self


class LoraConfig(StrictModel):
    """Low-rank adapters, so that a big server model can learn: only they are trained."""

    rank: int = Field(8, ge=1, le=MAX_LAYERS, description="rank of the adapters (count)")
    alpha: float = Field(
        16.0, gt=0, description="scale of the adapters' output, divided by the rank (factor)"
    )
    targets: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), strict=False, description="names of the linear layers that get an adapter"
    )


class FolderModel(StrictModel):
    """A causal language model in a local ``transformers`` folder (safetensors weights only)."""

    path: str = Field(min_length=1, description="folder with config.json, tokenizer and safetensors weights")
    lora: LoraConfig | None = Field(None, description="train low-rank adapters instead of all weights")


class HubModel(StrictModel):
    """A causal language model on the Hugging Face hub (safetensors weights only)."""

    hub: str = Field(min_length=1, description="hub id, such as HuggingFaceTB/SmolLM2-135M")
    revision: str = Field("main", min_length=1, description="branch, tag or commit; a commit repeats exactly")
    lora: LoraConfig | None = Field(None, description="train low-rank adapters instead of all weights")


def _expand(value: object) -> object:
    """Turn a preset's name, or a mapping that names one, into the full mapping."""
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, Mapping) or "path" in value or "hub" in value:
        return value
    name = value.get("preset", "custom")
    if name == "custom":
        return dict(value)
    if name not in PRESETS:
        near = get_close_matches(str(name), PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name!r} is not a model preset (one of {', '.join(PRESETS)}){hint}")
    return {**PRESETS[name], **value}


def _kind(value: object) -> str:
    keys = value if isinstance(value, Mapping) else set(vars(value)) if hasattr(value, "__dict__") else ()
    return "folder" if "path" in keys else "hub" if "hub" in keys else "scratch"


ModelSource = Annotated[
    Annotated[ScratchModel, Tag("scratch")]
    | Annotated[FolderModel, Tag("folder")]
    | Annotated[HubModel, Tag("hub")],
    Discriminator(_kind),
    BeforeValidator(_expand),
]


class DpTuning(StrictModel):
    """Supervised fine-tuning of the server on its own labelled set Dp before the run (``start: dp_tuned``)."""

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
        default_factory=lambda: ScratchModel(**_expand("scratch-450k")),  # type: ignore[arg-type]
        description="the server's language model: a preset name, or a mapping with preset, path or hub",
    )
    clients: ModelSource = Field(
        default_factory=lambda: ScratchModel(**_expand("scratch-250k")),  # type: ignore[arg-type]
        description="every client's own language model: a preset name, or a mapping with preset, path or hub",
    )
    start: Literal["public", "dp_tuned"] = Field(
        "public", description="the server starts as pre-trained on the public corpus, or further tuned on Dp"
    )
    dp_tuning: DpTuning = Field(default_factory=DpTuning, description="how `start: dp_tuned` tunes")
    bill_as: (
        Annotated[BillAs, BeforeValidator(_same_for_both, json_schema_input_type=str | BillAs)] | None
    ) = Field(
        None,
        description="count time, energy, memory and adapter bytes as those of bigger models: one architecture for both sides, "
        "or a mapping; needs `text`",
    )
    base_model: Literal["preinstalled", "shipped"] = Field(
        "preinstalled",
        description="whether clients have the base model, or download it before anything else (2 bytes per parameter)",
    )
    client_epochs: int = Field(
        1,
        ge=1,
        le=1000,
        description="passes of a billed client over its own rows in the one-off training of its model (count)",
    )
    client_privacy: EvaluatorPrivacyConfig | None = Field(
        None,
        description="train the clients' models with DP-SGD, from one model of their size that is trained on the public corpus; "
        "default none: plainly, from scratch",
    )

    @model_validator(mode="after")
    def _private_clients_are_trained_here(self) -> ModelsConfig:
        if self.client_privacy is not None and not isinstance(self.clients, ScratchModel):
            raise ValueError(
                "client_privacy trains the clients' models, so clients must be a scratch model, e.g. scratch-250k"
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
        1e-4,
        ge=0,
        description="delta, divergence from the sampling policy that is free (nats per token)",
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
        description="grpo: averaged as loss_mean says; dr_grpo: over candidates times max_new_tokens; bnpo: token mean of each "
        "local batch of bnpo_groups; disco_constrained: DisCO's objective on right and wrong answers",
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
        description="clipped: around the policy that sampled; decoupled: around the policy at the start of the update, times a "
        "truncated weight for who sampled",
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
