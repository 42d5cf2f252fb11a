"""The one entry to real models: load or train all that a federation needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fedsim.models.cache import cache_folder
from fedsim.models.client_training_config import LocalTrainingConfig
from fedsim.models.config import ModelsConfig, PolicyConfig
from fedsim.models.real.adapters import (
    adapted_sha256,
    load_adapters,
    num_shared_layers,
    shared_copy,
    with_lora,
)
from fedsim.models.real.client_training import PolicyTrainer
from fedsim.models.real.dp_sgd import dp_sgd_source
from fedsim.models.real.evaluator import ModelEvaluator, in_company
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.lean_llama import is_lean
from fedsim.models.real.packed import SharedLayers
from fedsim.models.real.policy import LanguagePolicy
from fedsim.models.real.ready_models import ReadyModels, ready_models
from fedsim.models.real.tokenizer import build_tokenizer
from fedsim.models.real.tokens import Tokens
from fedsim.models.real.training import fine_tune
from fedsim.models.real.training_jobs import JobProgress, Training, keyed_job
from fedsim.models.real.weights import weights_sha256
from fedsim.models.real.zoo import load_folder
from fedsim.models.sources import LoraConfig, ScratchModel
from fedsim.processes.cores import cores_of_a_run
from fedsim.sim import streams
from fedsim.tasks.questions import Question, TaskData, TextFormat

_Pair = tuple[PreTrainedModel, PreTrainedTokenizerBase]
_CENTRE_QUESTIONS = 1000
_TYPICAL = 0.99
_PUBLIC_CLIENT = "client-public"


@dataclass(frozen=True)
class Bundle:
    """The models of one federation.

    Attributes:
        policy: the server's policy.
        evaluators: one per client, by client id.
        reference: the frozen initial server model as an evaluator (the ``self`` control).
        hashes: SHA-256 of every model's initial weights, by name (``server``, ``client-0`` ...).
        trainer: trains the server's model on clients' rows, where the protocol's settings are a ``LocalTrainingConfig``.
    """

    policy: LanguagePolicy
    evaluators: list[ModelEvaluator]
    reference: ModelEvaluator
    hashes: dict[str, str]
    trainer: PolicyTrainer | None = None


def load_models(
    models: ModelsConfig,
    policy: PolicyConfig,
    data: TaskData,
    seed: int,
    threads: int = 1,
    cache_dir: Path | None = None,
    progress: JobProgress | None = None,
    processes: int | None = None,
) -> Bundle:
    """Load the server's policy and the clients' evaluators; train what the cache lacks.

    Scratch models are trained in ``processes`` worker processes (1: in this one), by default as many as fit the
    cores (or ``FEDSIM_PROCESSES``) at ``threads`` each. Sets torch's threads for this process.

    Raises:
        ModelFileError: a named model cannot be used.
    """
    torch.set_num_threads(threads)
    cache = cache_folder(cache_dir)
    processes = processes or max(1, cores_of_a_run() // threads)
    training = Training(seed, cache / "models", threads, processes, progress)
    folders = _trained(models, data, training)
    ready = ready_models(models, data, cache, training)
    network, tokenizer = _server(models, data, seed, folders, ready)
    hashes = {"server": weights_sha256(network)}
    read = _Readings([question.text for question in _questions(data)], data.text_format)
    chats = not isinstance(models.server, ScratchModel) and models.server.chat
    tokens, shapes = read.by(network, tokenizer, chats)
    lora = _adapters(models, policy)
    base = network
    frozen: Any = deepcopy(network).requires_grad_(False) if lora is None else None
    if lora is not None:
        frozen = shared_copy(network.requires_grad_(False))
        network = with_lora(shared_copy(base), lora, streams.integer(seed, "lora"))
    shared = _shared_layers(models, ready, lora, frozen)
    initial = LanguageModel(frozen, tokenizer, shapes, tokens, shared)
    centre = [question.text for question in [*data.auxiliary, *data.pool][:_CENTRE_QUESTIONS]]
    right = data.answers.right
    live = LanguagePolicy(
        LanguageModel(network, tokenizer, shapes, tokens, shared),
        initial,
        policy,
        right,
        seed,
        centre,
    )
    counted = data.answers if getattr(policy, "model_score", None) == "answer_likelihood" else None
    evaluators = []
    server = _ServerBase(base, tokenizer, hashes["server"], lora, shared)
    for client, (language, sha256) in enumerate(_clients(models, data, folders, ready, read, server)):
        hashes[f"client-{client}"] = sha256
        evaluators.append(ModelEvaluator(language, policy.max_new_tokens, counted))
    return Bundle(
        policy=live,
        evaluators=list(in_company(evaluators)),
        reference=ModelEvaluator(initial, policy.max_new_tokens),
        hashes=hashes,
        trainer=PolicyTrainer(live, policy, right, seed) if isinstance(policy, LocalTrainingConfig) else None,
    )


def _adapters(models: ModelsConfig, policy: PolicyConfig) -> LoraConfig | None:
    """The server's adapters: a protocol that trains on clients says itself what is trained."""
    if isinstance(policy, LocalTrainingConfig):
        return policy.lora if policy.module == "lora" else None
    return None if isinstance(models.server, ScratchModel) else models.server.lora


def _trained(models: ModelsConfig, data: TaskData, training: Training) -> dict[str, Path]:
    """Cache folders of all models that are trained from scratch, by name."""
    seed, threads = training.seed, training.threads
    wanted: list[tuple[str, ScratchModel, Sequence[Question]]] = []
    if isinstance(models.server, ScratchModel):
        wanted.append(("server", models.server, data.public))
    if isinstance(models.clients, ScratchModel):
        if models.client_privacy is None:
            wanted += [(f"client-{k}", models.clients, rows) for k, rows in enumerate(data.private)]
        else:
            wanted.append((_PUBLIC_CLIENT, models.clients, data.public))
    if not wanted:
        return {}
    tokenizer = build_tokenizer(_questions(data))
    vocabulary = tokenizer.backend_tokenizer.to_str()
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        jobs = []
        for name, settings, rows in wanted:
            own_seed = streams.integer(seed, "train", name)
            jobs.append(
                keyed_job(
                    name, rows, settings, own_seed, threads, Path(folder), None, vocabulary, data.text_format
                )
            )
        folders = training.run(jobs)
    if models.client_privacy is not None and isinstance(models.clients, ScratchModel):
        folders |= _private_clients(models, data, training, folders)
    if models.start == "dp_tuned" and "server" in folders:
        own_seed = streams.integer(seed, "train", "server-dp")
        base = folders["server"]
        tuning = keyed_job(
            "server", data.auxiliary, models.dp_tuning, own_seed, threads, base, base, "", data.text_format
        )
        folders |= training.run([tuning])
    return folders


def _private_clients(
    models: ModelsConfig, data: TaskData, training: Training, folders: dict[str, Path]
) -> dict[str, Path]:
    """Cache folders of the clients' models: the public one, tuned with DP-SGD on each client's rows; as it is without rows."""
    settings, base = models.client_privacy, folders[_PUBLIC_CLIENT]
    assert settings is not None
    jobs = []
    for client_id, rows in enumerate(data.private):
        if rows:
            own_seed = streams.integer(training.seed, "train", f"client-{client_id}-private")
            name, source = f"client-{client_id}", dp_sgd_source()
            jobs.append(
                keyed_job(
                    name, rows, settings, own_seed, training.threads, base, base, source, data.text_format
                )
            )
    without_rows = {f"client-{k}": base for k, rows in enumerate(data.private) if not rows}
    return training.run(jobs) | without_rows


def _server(
    models: ModelsConfig, data: TaskData, seed: int, folders: dict[str, Path], ready: ReadyModels
) -> _Pair:
    """The server's network where the run starts."""
    if isinstance(models.server, ScratchModel):
        return load_folder(folders["server"])
    assert ready.server is not None
    network, tokenizer = ready.server.load()
    if models.start == "dp_tuned" and models.server.lora is None:
        own_seed = streams.integer(seed, "train", "server-dp")
        fine_tune(network, tokenizer, data.auxiliary, models.dp_tuning, own_seed, None, data.text_format)
    return network, tokenizer


@dataclass(frozen=True, slots=True)
class _ServerBase:
    """What clients may have in common with the server: its base, its hash, its adapters, the layers computed once."""

    network: Any
    tokenizer: PreTrainedTokenizerBase
    sha256: str
    lora: LoraConfig | None
    shared: SharedLayers | None


def _shared_layers(
    models: ModelsConfig, ready: ReadyModels, lora: LoraConfig | None, frozen: Any
) -> SharedLayers | None:
    """The lowest layers, where neither the server nor clients of its base change them; None where there are none."""
    if lora is None or isinstance(models.server, ScratchModel) or not is_lean(frozen):
        return None
    same = ready.server in ready.client_bases and not isinstance(models.clients, ScratchModel)
    num = num_shared_layers([lora, models.clients.lora if same else None])  # type: ignore[union-attr]
    return SharedLayers(frozen, num) if num else None


def _clients(
    models: ModelsConfig,
    data: TaskData,
    folders: dict[str, Path],
    ready: ReadyModels,
    read: _Readings,
    server: _ServerBase,
) -> Iterator[tuple[LanguageModel, str]]:
    """Every client's model, and the hash of its weights. Ready ones share the weights of their base."""
    if isinstance(models.clients, ScratchModel):
        for client in range(data.num_clients):
            network, tokenizer = load_folder(folders[f"client-{client}"])
            tokens, shapes = read.by(network, tokenizer)
            yield LanguageModel(network, tokenizer, shapes, tokens), weights_sha256(network)
        return
    source, loaded = models.clients, {}
    for base, folder in zip(ready.client_bases, ready.clients, strict=True):
        if base.key not in loaded:
            of_server = base == ready.server and server.lora is not None
            network, tokenizer = (server.network, server.tokenizer) if of_server else base.load()
            loaded[base.key] = (
                network.requires_grad_(False), tokenizer,
                server.sha256 if of_server else weights_sha256(network),
                server.shared if of_server else None,
            )  # fmt: skip
        network, tokenizer, sha256, shared = loaded[base.key]
        if source.lora is not None:
            network = with_lora(shared_copy(network), source.lora, 0)
            if folder is not None:
                load_adapters(network, folder)
            network.requires_grad_(False)
            sha256 = adapted_sha256(sha256, network)
        tokens, shapes = read.by(network, tokenizer, source.chat)
        yield LanguageModel(network, tokenizer, shapes, tokens, shared), sha256


def _questions(data: TaskData) -> list[Question]:
    """All questions of a data set, in a fixed order."""
    splits = [data.public, data.auxiliary, data.pool, data.validation, data.test, *data.private]
    more = [*data.looks.values(), data.format_rows]
    return [question for split in [*splits, *more] for question in split]


class _Readings:
    """All questions as tokens, once for every vocabulary: remembered ids, and shapes that fit them."""

    def __init__(self, texts: Sequence[str], text_format: TextFormat) -> None:
        self._texts = texts
        self._format = text_format
        self._known: dict[tuple[str | int, bool], tuple[Tokens, int]] = {}

    def by(
        self, network: Any, tokenizer: PreTrainedTokenizerBase, chat: bool = False
    ) -> tuple[Tokens, Shapes]:
        """What a tokenizer, or another one of the same vocabulary, reads."""
        vocabulary = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else id(tokenizer)
        if (vocabulary, chat) not in self._known:
            tokens = Tokens(tokenizer, self._format, chat)
            tokens.read(self._texts)
            lengths = sorted(len(tokens.prompt_ids(text)) for text in self._texts)
            # The width holds nearly all questions; the few longer ones take wider batches of their own.
            typical = lengths[min(len(lengths) - 1, int(_TYPICAL * len(lengths)))]
            self._known[vocabulary, chat] = tokens, typical
        tokens, typical = self._known[vocabulary, chat]
        return tokens, Shapes.of(network, typical)
