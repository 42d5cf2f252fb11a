"""Weights on disk: a loadable model folder, a learning state to resume from, and their hashes. Safetensors, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedsim.errors import ModelFileError

_STATE, _MEMORY = "learning.safetensors", "learning.json"


def weights_sha256(network: PreTrainedModel) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights, sorted by name."""
    state = sha256()
    for name, weight in sorted(network.state_dict().items()):
        state.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        state.update(weight.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def save_model(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a ``transformers`` folder; adapters are merged into a copy first, so that any loader can read it."""
    if hasattr(network, "merge_and_unload"):
        network = deepcopy(network).merge_and_unload()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_learning_state(
    folder: Path,
    weights: Sequence[Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    memory: Mapping[str, Any],
) -> None:
    """Write trainable weights, every optimiser's tensors per weight, and a JSON memory.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"weight.{index}": weight.detach().contiguous().clone() for index, weight in enumerate(weights)
    }
    for whose, optimizer in optimizers.items():
        for index, weight in enumerate(weights):
            for name, value in optimizer.state.get(weight, {}).items():
                tensors[f"{whose}.{index}.{name}"] = value.detach().contiguous().clone()
    (folder / _STATE).write_bytes(save(tensors))
    (folder / _MEMORY).write_text(json.dumps(memory), encoding="utf-8")


def load_learning_state(
    folder: Path, weights: Sequence[Tensor], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Read back what ``save_learning_state`` wrote, in place, and return the memory.

    Raises:
        ModelFileError: a file is missing or torn, or a weight has another shape.
    """
    try:
        tensors = load_file(folder / _STATE)
        memory: dict[str, Any] = json.loads((folder / _MEMORY).read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelFileError(f"{folder}: no learning state can be read here: {error}") from error
    stored = [tensors.get(f"weight.{index}") for index in range(len(weights))]
    if any(kept is None or kept.shape != weight.shape for kept, weight in zip(stored, weights, strict=True)):
        raise ModelFileError(f"{folder}: the learning state belongs to another model")
    for index, (weight, kept) in enumerate(zip(weights, stored, strict=True)):
        assert kept is not None
        weight.data.copy_(kept)
        for whose, optimizer in optimizers.items():
            prefix = f"{whose}.{index}."
            moments = {
                name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
            }
            if moments:
                optimizer.state[weight] = moments
    return memory
