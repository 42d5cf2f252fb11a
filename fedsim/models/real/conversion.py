"""From a GGUF file to a ``transformers`` folder: dequantised, in bfloat16 safetensors, with its tokenizer and chat template."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from fedsim.errors import ModelFileError
from fedsim.models.real.zoo import one_line


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
