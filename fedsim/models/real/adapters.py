"""Low-rank adapters on a base that many models share: wrapped, trained on a client's rows, kept in files, merged.

A client's model is the base with adapters of its own: its network shares every weight of the base (``shared_copy``), so that
a hundred clients cost a hundred adapters and one base. Adapters lie in ``peft``'s own files.

References:
    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, eq. 3.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from fedsim.errors import FedsimError, ModelFileError
from fedsim.models.cache import sources_hash
from fedsim.models.real.language import LanguageModel
from fedsim.models.real.likelihood import answer_scores
from fedsim.models.real.training import Progress, Trained
from fedsim.models.real.zoo import one_line
from fedsim.models.sources import AdapterTuning, LoraConfig
from fedsim.sim import streams
from fedsim.tasks.questions import Question

ADAPTERS = "adapters.safetensors"
"""The file of a model's adapters."""

_MAX_GRAD_NORM = 1.0
_SMOOTHING = 0.9
_DETERMINING_SOURCES = (
    "models/real/adapters.py", "models/real/language.py", "models/real/lean_llama.py",
    "models/real/likelihood.py", "models/real/packed.py", "models/real/tokens.py", "models/real/zoo.py",
    "sim/streams.py",
)  # fmt: skip


def adapters_source() -> str:
    """Hash of the code that determines adapters, for the cache's key."""
    return sources_hash(_DETERMINING_SOURCES)


def shared_copy(network: Any) -> Any:
    """A network with modules of its own that shares every frozen weight; what learns is copied."""
    shared = chain(network.parameters(), network.buffers())
    return deepcopy(network, {id(one): one for one in shared if not one.requires_grad})


def with_lora(network: Any, lora: LoraConfig, seed: int) -> Any:
    """Wrap a network in low-rank adapters (peft), in place; only they are trainable. A is drawn from ``seed``, B is zero.

    Raises:
        ModelFileError: no layer has one of the target names, a target is a tied layer, or there are not so many layers.
    """
    depth = network.config.num_hidden_layers
    if lora.layers is not None and lora.layers[1] >= depth:
        raise ModelFileError(
            f"lora.layers is {list(lora.layers)}, but {type(network).__name__} has {depth} layers, 0 to {depth - 1}"
        )
    tied = (
        {"lm_head", "embed_tokens"}.intersection(lora.targets) if network.config.tie_word_embeddings else ()
    )
    if tied:
        raise ModelFileError(
            f"lora.targets holds {min(tied)}, which is one matrix for embedding and head in {type(network).__name__}: "
            "merged, it would be another policy than was trained; leave it out"
        )
    config = PeftLoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), task_type="CAUSAL_LM",
        layers_to_transform=None if lora.layers is None else list(range(lora.layers[0], lora.layers[1] + 1)),
    )  # fmt: skip
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # peft still asks transformers 5 for a property by its old name.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(seed)
            return get_peft_model(network, config).eval()
    except ValueError as error:
        raise ModelFileError(
            f"lora.targets {', '.join(lora.targets)} name no layer of {type(network).__name__}: {one_line(error)}"
        ) from error


def num_shared_layers(loras: Sequence[LoraConfig | None]) -> int:
    """Layers from the lowest on that none of these adapters changes, where at least one is limited to higher ones."""
    return min(
        (0 if lora.layers is None else lora.layers[0] for lora in loras if lora is not None), default=0
    )


def save_adapters(network: Any, folder: Path) -> None:
    """Write a network's adapters."""
    state = get_peft_model_state_dict(network, save_embedding_layers=False)
    save_file({name: weight.detach().contiguous() for name, weight in state.items()}, folder / ADAPTERS)


def load_adapters(network: Any, folder: Path) -> None:
    """Read what ``save_adapters`` wrote into a network with adapters of the same shapes.

    Raises:
        ModelFileError: they are those of another model.
    """
    state = load_file(folder / ADAPTERS)
    own = get_peft_model_state_dict(network, save_embedding_layers=False)
    if {name: weight.shape for name, weight in own.items()} != {k: w.shape for k, w in state.items()}:
        raise ModelFileError(f"{folder}: these adapters belong to another model")
    set_peft_model_state_dict(network, state)


def merged(network: Any, lora: LoraConfig, folders: Sequence[Path]) -> Any:
    """The network after adapters from these folders were added to its weights, one after the other, in place."""
    for folder in folders:
        adapted = with_lora(network, lora, 0)
        load_adapters(adapted, folder)
        network = adapted.merge_and_unload()
    return network


def adapted_sha256(base: str, network: Any) -> str:
    """SHA-256 over the hash of a base and the names, shapes and bytes of the adapters on it."""
    state = sha256(base.encode())
    for name, weight in sorted(get_peft_model_state_dict(network, save_embedding_layers=False).items()):
        state.update(f"{name} {tuple(weight.shape)}".encode())
        state.update(weight.detach().contiguous().numpy().tobytes())
    return state.hexdigest()


def train_adapters(
    language: LanguageModel,
    rows: Sequence[Question],
    tuning: AdapterTuning,
    seed: int,
    progress: Progress | None = None,
) -> Trained:
    """Supervised training of a model's adapters on (question, answer) rows, in place.

    AdamW at a constant rate, gradients scaled to norm 1; the loss is the mean negative log-likelihood per answer token (nats).

    Raises:
        FedsimError: the loss is not finite.
    """
    weights = [weight for weight in language.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=tuning.learning_rate, weight_decay=0.0)
    mean, weight_of_mean = 0.0, 0.0
    for step, batch in zip(range(tuning.steps), row_batches(rows, tuning.batch_size, seed), strict=False):
        value = packed_backward(language, batch)
        if not math.isfinite(value):
            raise FedsimError(
                f"the training of adapters reached a loss of {value} at step {step + 1}; lower its learning_rate "
                f"({tuning.learning_rate:g})"
            )
        torch.nn.utils.clip_grad_norm_(weights, _MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * value
        weight_of_mean = _SMOOTHING * weight_of_mean + (1 - _SMOOTHING)
        if progress is not None:
            progress(step + 1, tuning.steps, mean / weight_of_mean)
        if mean / weight_of_mean < tuning.stop_loss:
            return Trained(step + 1, mean / weight_of_mean)
    return Trained(tuning.steps, mean / weight_of_mean)


def packed_backward(language: LanguageModel, rows: Sequence[Question]) -> float:
    """Give what learns the gradient of the mean negative log-likelihood per answer token, a few rows at a time."""
    answers = [language.answer_ids(row.taught) for row in rows]
    num_tokens, total = sum(map(len, answers)), 0.0
    size = 2 * language.shapes.prompt_rows
    for start in range(0, len(rows), size):
        prompts = [language.prompt_ids(row.text) for row in rows[start : start + size]]
        places = {ids: place for place, ids in enumerate(dict.fromkeys(prompts))}
        owners = [places[ids] for ids in prompts]
        scores = answer_scores(language, list(places), owners, answers[start : start + size])
        loss = -scores.log_probs.sum() / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def row_batches(rows: Sequence[Question], size: int, seed: int) -> Iterator[list[Question]]:
    """Endless batches: every epoch is a keyed permutation of the rows; fewer rows than ``size`` make one batch."""
    epoch = 0
    while rows:
        order = streams.generator(seed, "adapter rows", epoch).permutation(len(rows)).tolist()
        whole = max(size, len(order) - len(order) % size)  # a rest would be a step of few rows
        for start in range(0, min(whole, len(order)), size):
            yield [rows[index] for index in order[start : start + size]]
        epoch += 1
