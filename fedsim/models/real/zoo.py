"""Networks: a small Llama from scratch, and ready ones from a local folder or the hub.

Weights are read from safetensors only: a pickle can run code, so it is refused, as is a checkpoint that lacks tensors.
"""

from __future__ import annotations

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
from fedsim.models.folder import check_folder
from fedsim.models.sources import FolderModel, HubModel, ScratchModel

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
        raise ModelFileError(f"{shown}: cannot be loaded: {one_line(error)}") from error
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


def one_line(error: Exception) -> str:
    """An error's text in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
