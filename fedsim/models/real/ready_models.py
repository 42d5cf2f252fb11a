"""Models that come with weights (a package's, a folder, the hub): their bases, tuned starts, and adapters of each client.

A *base* is a folder's network with some adapters merged into it: those of the format tuning, which server and clients of one
folder have in common, and for the server those of ``start: dp_tuned``. On it the server has its adapters (or trains all its
weights), and every client has adapters of its own that were trained on its rows. What is trained is kept in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from fedsim.errors import DataFileError
from fedsim.models.config import ModelsConfig
from fedsim.models.pretrained import pretrained_folder
from fedsim.models.real import adapters
from fedsim.models.real.training_jobs import AdapterJob, Job, Training, keyed_job
from fedsim.models.real.zoo import convert, hub_folder, load_folder
from fedsim.models.sources import (
    AdapterTuning,
    FolderModel,
    LoadedModel,
    LoraConfig,
    PretrainedModel,
    ScratchModel,
)
from fedsim.sim import streams
from fedsim.tasks.questions import Question, TaskData


@dataclass(frozen=True, slots=True)
class Base:
    """A folder's network, and the adapters that are merged into it.

    Attributes:
        folder: the ``transformers`` folder.
        digest: hash of its files.
        merged: folders of the adapters, in the order of merging.
        lora: the shapes of those adapters.
    """

    folder: Path
    digest: str
    merged: tuple[Path, ...] = ()
    lora: LoraConfig | None = None

    @property
    def key(self) -> str:
        """What determines its weights."""
        return "-".join([self.digest, *(path.name for path in self.merged)])

    def load(self) -> tuple[Any, Any]:
        """Its network and tokenizer.

        Raises:
            ModelFileError: a file of it cannot be used.
        """
        network, tokenizer = load_folder(self.folder)
        if self.merged:
            assert self.lora is not None
            network = adapters.merged(network, self.lora, self.merged)
        return network.eval(), tokenizer


@dataclass(frozen=True, slots=True)
class ReadyModels:
    """Where the ready models of a federation lie; ``clients[k]`` is the folder of client k's adapters, None without any."""

    server: Base | None
    client_bases: tuple[Base, ...]
    clients: tuple[Path | None, ...]


def ready_models(models: ModelsConfig, data: TaskData, cache: Path, training: Training) -> ReadyModels:
    """Train what the cache lacks: format and start adapters first, then the clients'.

    Raises:
        ModelFileError: a named model cannot be used.
        DataFileError: a format tuning without format rows.
    """
    server = None
    sides = [source for source in (models.server, models.clients) if not isinstance(source, ScratchModel)]
    bases = {path: Base(path, _digest(path)) for source in sides for path in _paths(source, data, cache)}
    if models.format_tuning is not None:
        bases = _format_tuned(models, data, training, bases)
    if not isinstance(models.server, ScratchModel):
        server = bases[_paths(models.server, data, cache)[0]]
        if models.start == "dp_tuned":
            server = _tuned_on_dp(models, data, training, server)
    if isinstance(models.clients, ScratchModel):
        return ReadyModels(server, (), ())
    own = tuple(bases[path] for path in _paths(models.clients, data, cache, each=True))
    folders = _client_adapters(models, data, training, own)
    return ReadyModels(server, own, folders)


def _paths(source: LoadedModel, data: TaskData, cache: Path, each: bool = False) -> list[Path]:
    """The folders that a source names; ``each`` gives one for every client."""
    if isinstance(source, FolderModel) and source.is_one_for_each_client:
        return [Path(source.folder_of(client)) for client in range(data.num_clients)]
    if isinstance(source, FolderModel):
        path = Path(source.path)
    elif isinstance(source, PretrainedModel):
        path = pretrained_folder(source.pretrained, cache, convert)
    else:
        path = hub_folder(source)
    return [path] * (data.num_clients if each else 1)


def _digest(folder: Path) -> str:
    """Hash of a model folder's files."""
    state = blake2b(digest_size=16)
    for path in sorted(folder.glob("*")):
        if path.suffix in (".json", ".safetensors", ".jinja", ".model", ".txt"):
            with path.open("rb") as content:
                state.update(f"{path.name} {file_digest(content, 'sha256').hexdigest()}".encode())
    return state.hexdigest()


def _job(
    name: str,
    rows: Sequence[Question],
    settings: Any,
    lora: LoraConfig,
    base: Base,
    data: TaskData,
    training: Training,
    chat: bool,
) -> Job:
    made = AdapterJob(lora, base.lora, base.merged, chat)
    return keyed_job(
        name, rows, settings, streams.integer(training.seed, "train", name), training.threads, base.folder, base.folder,
        made_with=f"{adapters.adapters_source()} {base.key}", text_format=data.text_format, adapters=made,
    )  # fmt: skip


def _format_tuned(
    models: ModelsConfig, data: TaskData, training: Training, bases: dict[Path, Base]
) -> dict[Path, Base]:
    """The bases with adapters merged in that were trained on the format rows."""
    if not data.format_rows:
        raise DataFileError(
            "models.format_tuning has no rows to tune on; give tasks.sizes.format, or rows with split format in tasks.file"
        )
    assert not isinstance(models.server, ScratchModel) and models.server.lora is not None
    assert models.format_tuning is not None
    lora, tuning, chat = models.server.lora, models.format_tuning, models.server.chat
    settings = AdapterTuning(**tuning.model_dump())
    jobs = [
        _job(f"format-{number}", data.format_rows, settings, lora, base, data, training, chat)
        for number, base in enumerate(bases.values())
    ]
    folders = training.run(jobs)
    return {
        path: replace(base, merged=(folders[job.name],), lora=lora)
        for (path, base), job in zip(bases.items(), jobs, strict=True)
    }


def _tuned_on_dp(models: ModelsConfig, data: TaskData, training: Training, base: Base) -> Base:
    """The server's base with adapters merged in that were trained on Dp; without adapters, see `bundle`."""
    assert not isinstance(models.server, ScratchModel)
    if models.server.lora is None:
        return base
    lora, settings = models.server.lora, AdapterTuning(**models.dp_tuning.model_dump())
    job = _job("server-dp", data.auxiliary, settings, lora, base, data, training, models.server.chat)
    folder = training.run([job])[job.name]
    return replace(base, merged=(*base.merged, folder), lora=lora)


def _client_adapters(
    models: ModelsConfig, data: TaskData, training: Training, bases: Sequence[Base]
) -> tuple[Path | None, ...]:
    """Folders of every client's adapters; None for a client without rows, and where clients have none."""
    source = models.clients
    assert not isinstance(source, ScratchModel)
    if source.lora is None:
        return (None,) * data.num_clients
    settings = models.client_privacy or source.tuning or AdapterTuning()
    jobs = [
        _job(f"client-{client}", rows, settings, source.lora, bases[client], data, training, source.chat)
        for client, rows in enumerate(data.private)
        if rows
    ]
    folders = training.run(jobs)
    return tuple(folders.get(f"client-{client}") for client in range(data.num_clients))
