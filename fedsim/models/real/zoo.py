"""Networks: a small Llama from scratch, and ready ones from a local folder, the hub or a GGUF file.

Weights are read from safetensors only: a pickle can run code, so it is refused, as is a checkpoint that lacks tensors.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import save_file
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
from fedsim.models.sources import HubModel, ScratchModel

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


def hub_folder(source: HubModel) -> Path:
    """The local folder of a hub model; downloaded where it is not yet.

    Raises:
        ModelFileError: it is neither here nor to be had.
    """
    kinds = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(source.hub, revision=source.revision, allow_patterns=kinds))
    except Exception as error:  # the network fails in any way it likes
        raise ModelFileError(f"{source.hub}: cannot be loaded: {one_line(error)}") from error


def load_folder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a network and tokenizer from a ``transformers`` folder, in float32.

    Raises:
        ModelFileError: no such folder, no safetensors weights, a torn or foreign file, missing tensors, or no end token.
    """
    check_folder(folder)
    return _load(str(folder))


def convert(gguf: Path, folder: Path) -> None:
    """Write a folder that ``from_pretrained`` reads; a tied head is left out, as ``transformers`` does.

    Raises:
        ModelFileError: ``transformers`` cannot read the file.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it draws a progress bar that nobody can turn off
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            network = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
    except Exception as error:  # a foreign file fails in any way it likes
        raise ModelFileError(f"{gguf}: cannot be converted: {one_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    config = network.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # what is written is not quantised
    weights = {
        name: weight.to(torch.bfloat16).contiguous()
        for name, weight in network.state_dict().items()
        if not (config.tie_word_embeddings and name == "lm_head.weight")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what does not fit is told below, in one line
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        network, report = AutoModelForCausalLM.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are told below, in our words
        )  # fmt: skip
    except Exception as error:  # a foreign file fails in any way it likes
        raise ModelFileError(f"{name}: cannot be loaded: {one_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    _check_tensors(network, report, name)
    if tokenizer.eos_token_id is None:  # rows that are taught end with it
        raise ModelFileError(f"{name}: its tokenizer has no end token (eos_token)")
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
