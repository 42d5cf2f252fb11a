"""Training jobs in worker processes: several models at once, each in one process with a fixed number of threads.

A worker is ``python -m fedsim.models.real.training_jobs``: it reads one job per line as JSON, trains, writes a model folder,
and answers with lines of progress. Plain processes and lines need no ``__main__`` guard in the caller's script.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError
from fedsim.models.cache import cache_key, cached, is_whole
from fedsim.models.config import StartTuning
from fedsim.models.folder import REPORT
from fedsim.models.real.training import Progress, Trained
from fedsim.models.sources import AdapterTuning, LoraConfig, ScratchModel
from fedsim.privacy.config import EvaluatorPrivacyConfig
from fedsim.records.content_hashes import check_sums
from fedsim.sim import streams
from fedsim.tasks.questions import Question, TextFormat

JobProgress = Callable[[str, int, int, float], None]
"""Called with (model name, steps done, steps in all, smoothed loss)."""

_REPORT_EVERY = 10
_FEW = 100  # steps, each of which is worth a report
Settings = ScratchModel | StartTuning | AdapterTuning | EvaluatorPrivacyConfig
_KINDS: dict[str, type[Settings]] = {
    "scratch": ScratchModel,
    "tune": StartTuning,
    "adapt": AdapterTuning,
    "private": EvaluatorPrivacyConfig,
}


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

    def drive() -> None:
        with _Worker(threads) as worker:
            while True:
                with lock:
                    if not waiting or failures:
                        return
                    job = waiting.pop(0)
                cached(root, job.key, lambda folder: worker.train(job, folder, _named(progress, job.name)))  # noqa: B023

    def guarded() -> None:
        try:
            drive()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            failures.append(error)

    drivers = [threading.Thread(target=guarded, daemon=True) for _ in range(min(processes, len(waiting)))]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
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


class _Worker:
    """One worker process, driven line by line."""

    def __init__(self, threads: int) -> None:
        # The worker imports this very package, also where it is not installed.
        home = str(Path(__file__).parents[3])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedsim.models.real.training_jobs", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
        self._said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue

    def train(self, job: Job, folder: Path, progress: Progress | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(_as_json(job, folder)) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                said = json.loads(line)
                if said == "done":
                    return
                if progress is not None:
                    progress(*said)
        except BrokenPipeError:
            pass
        self._process.wait()
        self._listener.join()
        tail = " ".join(" ".join(self._said[-5:]).split())
        raise FedsimError(
            f"the worker that trained {job.name} ended ({self._process.returncode}): {tail[-400:]}"
        )

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            del self._said[:-20]


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


def _as_json(job: Job, folder: Path) -> dict[str, Any]:
    return {
        "name": job.name,
        "key": job.key,
        "rows": [astuple(row) for row in job.rows],
        "kind": next(kind for kind, model in _KINDS.items() if isinstance(job.settings, model)),
        "settings": job.settings.model_dump(),
        "seed": job.seed,
        "tokenizer": str(job.tokenizer),
        "base": None if job.base is None else str(job.base),
        "text_format": asdict(job.text_format),
        "adapters": None if job.adapters is None else _adapters_as_json(job.adapters),
        "folder": str(folder),
    }


def _adapters_as_json(adapted: AdapterJob) -> dict[str, Any]:
    merged_lora = None if adapted.merged_lora is None else adapted.merged_lora.model_dump()
    return {
        "lora": adapted.lora.model_dump(),
        "merged_lora": merged_lora,
        "merged": list(map(str, adapted.merged)),
        "chat": adapted.chat,
    }


def _adapters_from_json(said: dict[str, Any]) -> AdapterJob:
    merged_lora = None if said["merged_lora"] is None else LoraConfig(**said["merged_lora"])
    return AdapterJob(LoraConfig(**said["lora"]), merged_lora, tuple(map(Path, said["merged"])), said["chat"])


def _from_json(said: dict[str, Any]) -> tuple[Job, Path]:
    settings = _KINDS[said["kind"]](**said["settings"])
    base = None if said["base"] is None else Path(said["base"])
    rows = tuple(
        Question(number, domain, text, answer, tuple(accepted), *rest)
        for number, domain, text, answer, accepted, *rest in said["rows"]
    )
    text_format = TextFormat(said["text_format"]["answer_prefix"], tuple(said["text_format"]["stop"]))
    adapted = None if said["adapters"] is None else _adapters_from_json(said["adapters"])
    job = Job(
        said["name"], said["key"], rows, settings, said["seed"], Path(said["tokenizer"]), base, text_format,
        adapted,
    )  # fmt: skip
    return job, Path(said["folder"])


def _serve(threads: int) -> None:
    """Train what the lines on standard input ask for, until it closes."""
    import torch

    torch.set_num_threads(threads)
    answers = sys.stdout
    sys.stdout = sys.stderr

    def say(what: object) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    def report(step: int, total: int, loss: float) -> None:
        if total < _FEW or step % _REPORT_EVERY == 0 or step == total:
            say((step, total, loss))

    for line in sys.stdin:
        job, folder = _from_json(json.loads(line))
        train(job, folder, report)
        say("done")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
