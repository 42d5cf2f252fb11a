"""Whether a folder holds a model that may be loaded, told without torch: by its names and by the headers of its weights.

Weights are read from safetensors only: a pickle can run code, so it is refused.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from fedsim.errors import ModelFileError
from fedsim.input_files import read_json


def check_folder(folder: Path) -> None:
    """Refuse a folder without configuration, or whose weights are absent, pickled or not whole.

    Raises:
        ModelFileError: no such folder, no ``config.json`` with a JSON object, no safetensors weights, or a file of them that is
            torn or foreign.
    """
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder}: no config.json; a transformers model folder is needed")
    if not isinstance(read_json(folder / "config.json", ModelFileError), dict):
        raise ModelFileError(f"{folder / 'config.json'}: must be a JSON object with a model's configuration")
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
