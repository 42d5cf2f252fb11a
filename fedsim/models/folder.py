"""Whether a folder holds a model that may be loaded, told without torch: by its names and by the headers of its weights.

Weights are read from safetensors only: a pickle can run code, so it is refused.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from fedsim.config.files import read_json
from fedsim.errors import ModelFileError

REPORT = "training.json"
"""How a model of the cache was trained; its loss is NaN where there was nothing to train on."""

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def check_folder(folder: Path) -> None:
    """Refuse a folder without configuration, or whose weights are absent, pickled or not whole.

    Raises:
        ModelFileError: no such folder, no ``config.json``, a JSON file that is none, no tokenizer, no safetensors weights, or a
            file of them that is torn or foreign.
    """
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder}: no config.json; a transformers model folder is needed")
    for path in sorted(folder.glob("*.json")):
        if path.name == REPORT:  # ours, and no part of the model
            continue
        if not isinstance(read_json(path, ModelFileError), dict | list):
            raise ModelFileError(f"{path}: must be a JSON object")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelFileError(
            f"{folder}: no tokenizer ({_TOKENIZERS[0]}); save it beside the model with save_pretrained"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(path.name for suffix in ("*.bin", "*.pt", "*.pth") for path in folder.glob(suffix))
        found = f" (found {pickles[0]}, which can run code when read)" if pickles else ""
        raise ModelFileError(
            f"{folder}: no *.safetensors weights{found}; save them with save_pretrained(safe_serialization=True)"
        )
    for path in weights:
        _check_weights(path)


def _check_weights(path: Path) -> None:
    """Read the header: safetensors itself compares it with the file's length and finds gaps and overlaps."""
    try:
        with safe_open(path, framework="numpy") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error while deserializing header: ")
        raise ModelFileError(
            f"{path}: not whole safetensors weights: {reason}; save or download them again"
        ) from None
