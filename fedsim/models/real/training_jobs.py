"""Training jobs: several models at once, each in one process with a fixed number of threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError, LostError
from fedsim.models.cache import cache_key, cached, is_whole
from fedsim.models.config import StartTuning
from fedsim.models.folder import REPORT
from fedsim.models.real.training import Progress, Trained
from fedsim.models.sources import AdapterTuning, LoraConfig, ScratchModel
from fedsim.privacy.config import EvaluatorPrivacyConfig
from fedsim.processes.children import Child, end, say
from fedsim.records.content_hashes import check_sums
from fedsim.sim import streams
from fedsim.tasks.questions import Question, TextFormat

JobProgress = Callable[[str, int, int, float], None]
"""Called with (model name, steps done, steps in all, smoothed loss)."""

_REPORT_EVERY = 10
_FEW = 100  # steps, each of which is worth a report
Settings = ScratchModel | StartTuning | AdapterTuning | EvaluatorPrivacyConfig


@dataclass(frozen=True, slots=True)
class AdapterJob:
    """That adapters are trained and kept, not whole weights.

    Attributes:
        lora: the adapters.
        merged_lora: shapes of the adapters that are merged into the base first; None: there are none.
        merged: their folders.
        chat: whether questions stand in the tokenizer's chat template.
    """

    lora: LoraConfig
    merged_lora: LoraConfig | None
    merged: tuple[Path, ...]
    chat: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One model to be trained: from scratch, or tuned further from a ``base`` folder, perhaps with DP-SGD or by adapters.

    ``tokenizer`` is a folder; ``key`` names the result in the cache.
    """

    name: str
    key: str
    rows: tuple[Question, ...]
    settings: Settings
    seed: int
    tokenizer: Path
    base: Path | None = None
    text_format: TextFormat = field(default_factory=TextFormat)
    adapters: AdapterJob | None = None


def keyed_job(
    name: str,
    rows: Sequence[Question],
    settings: Settings,
    seed: int,
    threads: int,
    tokenizer: Path,
    base: Path | None = None,
    made_with: str = "",
    text_format: TextFormat | None = None,
    adapters: AdapterJob | None = None,
) -> Job:
    """A job with its key; ``made_with`` is what determines the weights besides, such as the tokenizer's vocabulary."""
    text_format = text_format or TextFormat()
    parts = {
        "settings": settings.model_dump(),
        "seed": seed,
        "base": None if base is None else base.name,
        "made_with": made_with,
    }
    if text_format != TextFormat():
        parts["text_format"] = asdict(text_format)
    if adapters is not None:
        parts |= {
            "lora": adapters.lora.model_dump(),
            "chat": adapters.chat,
            "base": None,
        }  # made_with has the base
    key = cache_key(parts, rows, threads)
    return Job(name, key, tuple(rows), settings, seed, tokenizer, base, text_format, adapters)


def run_jobs(
    jobs: Sequence[Job], root: Path, processes: int, threads: int, progress: JobProgress | None
) -> dict[str, Path]:
    """Model folders by job name; what the cache lacks is trained, ``processes`` at a time, longest first.

    Raises:
        FedsimError: a worker died; the message holds the end of what it said.
        CacheError: a file of the cache is not what was written.
    """
    folders = {job.name: root / job.key for job in jobs}
    waiting = []
    for job in jobs:
        if is_whole(folders[job.name]):
            check_sums(folders[job.name])
        else:
            waiting.append(job)
    waiting.sort(key=lambda job: (-_work(job), job.name))
    alone = len(waiting) <= 1 and all(
        job.adapters is None for job in waiting
    )  # a big model's memory is not kept
    if not waiting or alone or processes == 1:
        for job in waiting:
            cached(root, job.key, lambda folder, job=job: train(job, folder, _named(progress, job.name)))  # type: ignore[misc]
        _loaded.cache_clear()
        return folders
    failures: list[BaseException] = []
    lock = threading.Lock()

    def drive(child: Child) -> None:
        try:
            while True:
                with lock:
                    if not waiting or failures:
                        return
                    job = waiting.pop(0)
                told = _named(progress, job.name)
                cached(root, job.key, lambda folder: _train_in(child, job, folder, threads, told))  # noqa: B023
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failures.append(error)

    children = [Child() for _ in range(min(processes, len(waiting)))]
    drivers = [threading.Thread(target=drive, args=(child,), daemon=True) for child in children]
    try:
        for driver in drivers:
            driver.start()
        for driver in drivers:
            driver.join()
    finally:
        end(children)
    if failures:
        raise failures[0]
    return folders


@dataclass(frozen=True, slots=True)
class Training:
    """How the models of a run are trained that the cache lacks.

    Attributes:
        seed: of the run.
        root: the cache's folder of models.
        threads: torch threads of each process.
        processes: how many train at once.
        progress: told of every model's steps.
    """

    seed: int
    root: Path
    threads: int = 1
    processes: int = 1
    progress: JobProgress | None = None

    def run(self, jobs: Sequence[Job]) -> dict[str, Path]:
        """Model folders by job name; see `run_jobs`."""
        return run_jobs(jobs, self.root, self.processes, self.threads, self.progress)


def train(job: Job, folder: Path, progress: Progress | None) -> None:
    """Train one job in this process and write its model folder."""
    from transformers import AutoTokenizer

    from fedsim.models.real.dp_sgd import tuned_privately
    from fedsim.models.real.training import encode_rows, fine_tune, train_from_scratch
    from fedsim.models.real.weights import save_model
    from fedsim.models.real.zoo import load_folder

    if job.adapters is not None:
        done = _train_adapters(job, job.adapters, folder, progress)
    elif isinstance(job.settings, ScratchModel):
        tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
        network, done = train_from_scratch(
            job.settings, tokenizer, job.rows, job.seed, progress, job.text_format
        )
        save_model(network, tokenizer, folder)
    else:
        assert job.base is not None and not isinstance(job.settings, AdapterTuning)
        network, tokenizer = load_folder(job.base)
        if isinstance(job.settings, StartTuning):
            done = fine_tune(network, tokenizer, job.rows, job.settings, job.seed, progress, job.text_format)
        else:
            encoded = encode_rows(tokenizer, job.rows, job.text_format)
            done = tuned_privately(network, encoded, job.settings, job.seed)
        save_model(network, tokenizer, folder)
    report = {"name": job.name, "rows": len(job.rows), "steps": done.steps, "loss": done.loss}
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")


def _train_adapters(job: Job, adapted: AdapterJob, folder: Path, progress: Progress | None) -> Trained:
    from fedsim.models.real import adapters
    from fedsim.models.real.dp_sgd import tuned_privately
    from fedsim.models.real.language import LanguageModel, Shapes
    from fedsim.models.real.packed import SharedLayers
    from fedsim.models.real.tokens import Tokens
    from fedsim.models.real.training import encode_rows

    assert job.base is not None
    base, tokenizer = _loaded(job.base, adapted.merged_lora, adapted.merged)
    network = adapters.with_lora(
        adapters.shared_copy(base), adapted.lora, streams.integer(job.seed, "weights")
    )
    if isinstance(job.settings, EvaluatorPrivacyConfig):
        encoded = encode_rows(tokenizer, job.rows, job.text_format, adapted.chat)
        done = tuned_privately(network, encoded, job.settings, job.seed)
    else:
        assert isinstance(job.settings, AdapterTuning)
        tokens = Tokens(tokenizer, job.text_format, adapted.chat)
        longest = max(len(tokens.prompt_ids(row.text)) for row in job.rows)
        shared = SharedLayers(network, adapters.num_shared_layers([adapted.lora]))
        language = LanguageModel(network, tokenizer, Shapes.of(network, longest), tokens, shared)
        done = adapters.train_adapters(language, job.rows, job.settings, job.seed, progress)
    adapters.save_adapters(network, folder)
    return done


@lru_cache(maxsize=1)
def _loaded(folder: Path, lora: LoraConfig | None, merged: tuple[Path, ...]) -> tuple[Any, Any]:
    """A base, frozen; the last one is kept, for jobs on one base follow each other."""
    from fedsim.models.real import adapters
    from fedsim.models.real.zoo import load_folder

    network, tokenizer = load_folder(folder)
    if lora is not None:
        network = adapters.merged(network, lora, merged)
    return network.eval().requires_grad_(False), tokenizer


def _train_in(child: Child, job: Job, folder: Path, threads: int, progress: Progress | None) -> None:
    child.ask(_train_there, job, folder, threads)
    try:
        child.answer(progress)
    except LostError as lost:
        tail = " ".join(lost.printed.split())[-400:]
        raise FedsimError(f"the worker that trained {job.name} ended ({lost.ended}): {tail}") from None


def _train_there(job: Job, folder: Path, threads: int) -> None:
    import torch

    def report(step: int, total: int, loss: float) -> None:
        if total < _FEW or step % _REPORT_EVERY == 0 or step == total:
            say(step, total, loss)

    torch.set_num_threads(threads)
    train(job, folder, report)


def _work(job: Job) -> float:
    """Rough cost of a job, to start the longest first; never affects results."""
    settings = job.settings
    if not isinstance(settings, ScratchModel) or not job.rows:
        return 0.0
    rows = min(settings.batch_size, len(job.rows))
    return float(
        settings.steps * rows * settings.num_layers * settings.hidden_size * settings.intermediate_size
    )


def _named(progress: JobProgress | None, name: str) -> Progress | None:
    if progress is None:
        return None

    def report(step: int, total: int, loss: float) -> None:
        progress(name, step, total, loss)

    return report
