"""Networks: a small Llama from scratch, a local folder, a hub id, and low-rank adapters for big ones.

Weights are read from safetensors only: a pickle can run code, so it is refused, as is a checkpoint that lacks tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from fedsim.errors import ModelFileError
from fedsim.models.config import FolderModel, HubModel, LoraConfig, ScratchModel
from fedsim.models.folder import check_folder

_LONGEST = 512

transformers_logging.disable_progress_bar()


def scratch_network(model: ScratchModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Llama with tied embeddings and random weights drawn from ``seed``; the global generator stays untouched."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        num_key_value_heads=model.num_heads,
        max_position_embeddings=_LONGEST,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def load_source(source: FolderModel | HubModel) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a network and tokenizer from a local folder or the hub, in float32.

    Raises:
        ModelFileError: no such folder, no safetensors weights, a torn or foreign file, missing tensors, or a
            tokenizer without an end token.
    """
    if isinstance(source, FolderModel):
        return load_folder(Path(source.path))
    return _load(source.hub, source.hub, revision=source.revision)


def load_folder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a network and tokenizer from a ``transformers`` folder, in float32.

    Raises:
        ModelFileError: see ``load_source``.
    """
    check_folder(folder)
    return _load(str(folder), str(folder))


def with_lora(network: PreTrainedModel, lora: LoraConfig, seed: int) -> Any:
    """Wrap a network in low-rank adapters (peft); only they are trainable.

    Raises:
        ModelFileError: no layer has one of the target names.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    config = PeftLoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), task_type="CAUSAL_LM"
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft still asks transformers 5 for a property by its old name.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(seed)
            return get_peft_model(network, config).eval()
    except ValueError as error:
        raise ModelFileError(
            f"lora.targets {', '.join(lora.targets)} name no layer of {type(network).__name__}: {_line(error)}"
        ) from error


class WithoutAdapters:
    """A network as it is without its adapters: the frozen initial policy of a LoRA run, without a second copy."""

    def __init__(self, adapted: Any) -> None:
        self._adapted = adapted
        self.dtype = adapted.dtype

    def __call__(self, **inputs: Any) -> Any:
        """Run the base network."""
        with self._adapted.disable_adapter():
            return self._adapted(**inputs)


def _load(name: str, shown: str, **options: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what does not fit is told below, in one line
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
        network, report = AutoModelForCausalLM.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are told below, in our words
            **options,
        )  # fmt: skip
    except Exception as error:  # a foreign file fails in any way it likes
        raise ModelFileError(f"{shown}: cannot be loaded: {_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    _check_tensors(network, report, shown)
    if tokenizer.eos_token_id is None:
        raise ModelFileError(f"{shown}: its tokenizer has no end token (eos_token)")
    return network.eval(), tokenizer


def _check_tensors(network: PreTrainedModel, report: Mapping[str, Any], shown: str) -> None:
    """Refuse weights that are not those of the configuration: a model that is half random would only be a bad model."""
    missing, foreign = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if report["mismatched_keys"]:
        name, found, wanted = min(report["mismatched_keys"])
        raise ModelFileError(
            f"{shown}: the tensor {name} has shape {list(found)}; config.json asks for {list(wanted)}"
        )
    if missing:
        raise ModelFileError(
            f"{shown}: {len(missing)} tensors are missing from the weights, first {missing[0]}"
        )
    if foreign:
        raise ModelFileError(
            f"{shown}: {len(foreign)} tensors of the weights have no place in the model of config.json, first {foreign[0]}"
        )
    for name, weight in network.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelFileError(f"{shown}: the tensor {name} holds a number that is not finite")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
