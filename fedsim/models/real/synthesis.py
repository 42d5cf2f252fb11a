"""Synthetic rows from private ones with real models: the public generator, trained or only sampled, under a mechanism.

The generator is trained from scratch on the server's public corpus, mistakes included, and its tokenizer is read off
that corpus alone: nothing of a client is in it. It has the clients' architecture. What a client wrote is kept in the cache,
beside the models, under a key of all that determines it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import torch

from fedsim.errors import ScenarioError
from fedsim.models.cache import cache_folder, cache_key, cached, sources_hash
from fedsim.models.interfaces import Samples, Synthesis
from fedsim.models.real.dp_sgd import Protection, sampling_rate, tune
from fedsim.models.real.private_evolution import Row, evolve, well_formed
from fedsim.models.real.row_generator import TextGenerator, whole_row
from fedsim.models.real.tokenizer import build_tokenizer
from fedsim.models.real.training import encode_rows
from fedsim.models.real.training_jobs import JobProgress, keyed_job, run_jobs
from fedsim.models.real.weights import weights_sha256
from fedsim.models.real.zoo import load_folder
from fedsim.models.sources import PRESETS, ModelSource, ScratchModel
from fedsim.privacy.accounting import dp_sgd_noise_multiplier, gaussian_sigma
from fedsim.privacy.config import SynthesisConfig
from fedsim.privacy.releases import Release, Releases
from fedsim.sim import streams
from fedsim.tasks.questions import Question, TaskData

_DETERMINING_SOURCES = (
    "models/real/dp_sgd.py", "models/real/embedding.py", "models/real/row_generator.py", "models/real/language.py",
    "models/real/lean_llama.py", "models/real/private_evolution.py", "models/real/sampling.py",
    "models/real/synthesis.py", "privacy/accounting.py", "sim/streams.py",
)  # fmt: skip
_FILE = "synthesis.json"


def load_synthesiser(
    config: SynthesisConfig,
    clients: ModelSource,
    data: TaskData,
    seed: int,
    threads: int = 1,
    cache_dir: Path | None = None,
    progress: JobProgress | None = None,
) -> ModelSynthesiser:
    """Train or load the public generator, and return what makes synthetic rows with it.

    Raises:
        ScenarioError: there is no public corpus.
    """
    if not data.public:
        raise ScenarioError(
            "protocol dpsda_fl trains its generator on the public corpus; tasks.sizes.public must be above 0"
        )
    root = cache_folder(cache_dir) / "models"
    folder = _generator(config, clients, data, seed, threads, root, progress)
    return ModelSynthesiser(config, folder, seed, threads, root.parent / "synthesis")


class ModelSynthesiser:
    """Implements ``fedsim.models.interfaces.Synthesiser`` with a real generator.

    Args:
        config: the mechanism.
        folder: the public generator.
        seed: keys every draw, together with the client.
        threads: torch threads, part of the cache's key.
        cache: where what was made is kept.
    """

    def __init__(self, config: SynthesisConfig, folder: Path, seed: int, threads: int, cache: Path) -> None:
        self._config = config
        self._folder = folder
        self._seed = seed
        self._threads = threads
        self._cache = cache
        self._made: dict[tuple[int, int, tuple[Question, ...]], Synthesis] = {}
        self.releases = Releases(config)

    def synthesise(self, client_id: int, rows: Sequence[Question], count: int) -> Synthesis:
        """``count`` rows less the malformed ones; a pure function of its arguments, computed once."""
        key = (client_id, count, tuple(rows))
        known = self._made.get(key)
        if known is None:
            made = self._cached(client_id, rows, count)
            known = self._made[key] = _as_synthesis(made, rows, self._config)
            self.releases.add(client_id, made.release())
        return known

    def generator_sha256(self) -> str:
        """SHA-256 over the public generator's weights."""
        return weights_sha256(load_folder(self._folder)[0])

    def report(self) -> list[dict[str, Any]]:
        """What every client's release was (``privacy.json``)."""
        return self.releases.report()

    def _cached(self, client_id: int, rows: Sequence[Question], count: int) -> _Made:
        own_seed = streams.integer(self._seed, "synthesis", client_id)
        parts = {
            "settings": self._config.model_dump(include=_RELEVANT),
            "seed": own_seed,
            "count": count,
            "generator": self._folder.name,
            "source": sources_hash(_DETERMINING_SOURCES),
        }

        def build(folder: Path) -> None:
            (folder / _FILE).write_bytes(msgspec.json.encode(self._make(rows, count, own_seed)))

        folder = cached(self._cache, cache_key(parts, rows, self._threads), build)
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=_Made)

    def _make(self, rows: Sequence[Question], count: int, seed: int) -> _Made:
        config = self._config
        network, tokenizer = load_folder(self._folder)
        generator = TextGenerator(
            network, tokenizer, config.generator.max_tokens, config.generator.temperature
        )
        if config.mechanism == "private_evolution":
            sigma = gaussian_sigma(config.privacy_loss, config.delta, config.evolution.iterations)
            private = [(row.text, row.taught) for row in rows]
            evolved = evolve(generator, private, count, config.evolution, sigma, seed)
            return _Made(
                evolved.rows, evolved.generated, evolved.voted_on, [], sigma, 1.0, evolved.num_uniform
            )
        noise = 0.0
        rate = sampling_rate(len(rows), config.tuning)
        protection = None
        if config.mechanism == "dp_sgd":
            noise = dp_sgd_noise_multiplier(config.privacy_loss, config.delta, rate, config.tuning.steps)
            protection = Protection(config.tuning.clip_norm, noise)
        encoded = encode_rows(tokenizer, [whole_row(row) for row in rows])
        draws = tune(network, encoded, config.tuning, protection, streams.integer(seed, "tune"))
        sampled = well_formed(generator.random(count, streams.integer(seed, "sample")))
        return _Made(sampled.rows, (sampled,), (), draws, noise, rate, 0)


_RELEVANT = {"mechanism", "epsilon", "delta", "generator", "tuning", "evolution"}


@dataclass(frozen=True)
class _Made:
    """What one client's synthesis came to, as it is kept: ``noise`` is in votes or in clipping norms."""

    rows: tuple[Row, ...]
    generated: tuple[Samples, ...]
    voted_on: tuple[tuple[Row, ...], ...]
    draws: list[list[int]]
    noise: float
    rate: float
    num_uniform: int

    def release(self) -> Release:
        num_malformed = sum(batch.num_malformed for batch in self.generated)
        return Release(self.noise, self.rate, len(self.rows), num_malformed, self.num_uniform)


def _as_synthesis(made: _Made, rows: Sequence[Question], config: SynthesisConfig) -> Synthesis:
    exercises = [(row.text, (row.taught,)) for row in rows]
    private = tuple((row.text, row.taught) for row in rows)
    return Synthesis(
        rows=made.rows,
        epsilon=config.privacy_loss,
        delta=config.delta if math.isfinite(config.privacy_loss) else 0.0,
        steps=tuple(tuple(exercises[i] for i in taken) for taken in made.draws),
        generated=made.generated,
        max_tokens=config.generator.max_tokens,
        embedded=(private, *made.voted_on) if config.mechanism == "private_evolution" else (),
    )


def _generator(
    config: SynthesisConfig,
    clients: ModelSource,
    data: TaskData,
    seed: int,
    threads: int,
    root: Path,
    progress: JobProgress | None,
) -> Path:
    """The folder of the public generator; a client model that is not from scratch lends no architecture."""
    base = clients if isinstance(clients, ScratchModel) else ScratchModel(**PRESETS["scratch-250k"])
    settings = base.model_copy(
        update={
            "preset": "generator",
            "steps": config.generator.steps,
            "batch_size": config.generator.batch_size,
            "stop_loss": 0.0,
        }
    )
    rows = tuple(whole_row(row) for row in data.public)
    tokenizer = build_tokenizer(data.public)
    own_seed = streams.integer(seed, "train", "generator")
    vocabulary = tokenizer.backend_tokenizer.to_str()
    torch.set_num_threads(threads)
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        made = keyed_job("generator", rows, settings, own_seed, threads, Path(folder), made_with=vocabulary)
        return run_jobs([made], root, 1, threads, progress)["generator"]
