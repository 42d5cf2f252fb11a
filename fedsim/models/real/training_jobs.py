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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.errors import FedsimError
from fedsim.models.cache import cache_key, cached
from fedsim.models.config import StartTuning
from fedsim.models.folder import REPORT
from fedsim.models.real.training import Progress
from fedsim.models.sources import ScratchModel
from fedsim.privacy.config import EvaluatorPrivacyConfig
from fedsim.tasks.questions import Question

JobProgress = Callable[[str, int, int, float], None]
"""Called with (model name, steps done, steps in all, smoothed loss)."""

_REPORT_EVERY = 10
_KINDS: dict[str, type[ScratchModel] | type[StartTuning] | type[EvaluatorPrivacyConfig]] = {
    "scratch": ScratchModel,
    "tune": StartTuning,
    "private": EvaluatorPrivacyConfig,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One model to be trained: from scratch, or tuned further from a ``base`` folder, perhaps with DP-SGD.

    ``tokenizer`` is a folder; ``key`` names the result in the cache.
    """

    name: str
    key: str
    rows: tuple[Question, ...]
    settings: ScratchModel | StartTuning | EvaluatorPrivacyConfig
    seed: int
    tokenizer: Path
    base: Path | None = None


def keyed_job(
    name: str,
    rows: Sequence[Question],
    settings: ScratchModel | StartTuning | EvaluatorPrivacyConfig,
    seed: int,
    threads: int,
    tokenizer: Path,
    base: Path | None = None,
    made_with: str = "",
) -> Job:
    """A job with its key; ``made_with`` is what determines the weights besides, such as the tokenizer's vocabulary."""
    parts = {
        "settings": settings.model_dump(),
        "seed": seed,
        "base": None if base is None else base.name,
        "made_with": made_with,
    }
    return Job(name, cache_key(parts, rows, threads), tuple(rows), settings, seed, tokenizer, base)


def run_jobs(
    jobs: Sequence[Job], root: Path, processes: int, threads: int, progress: JobProgress | None
) -> dict[str, Path]:
    """Model folders by job name; what the cache lacks is trained, ``processes`` at a time, longest first.

    Raises:
        FedsimError: a worker died; the message holds the end of what it said.
    """
    folders = {job.name: root / job.key for job in jobs}
    waiting = [job for job in jobs if not folders[job.name].is_dir()]
    waiting.sort(key=lambda job: (-_work(job), job.name))
    if len(waiting) <= 1 or processes == 1:
        for job in waiting:
            cached(root, job.key, lambda folder, job=job: train(job, folder, _named(progress, job.name)))  # type: ignore[misc]
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


def train(job: Job, folder: Path, progress: Progress | None) -> None:
    """Train one job in this process and write its model folder."""
    from transformers import AutoTokenizer

    from fedsim.models.real.dp_evaluator import tuned_privately
    from fedsim.models.real.training import fine_tune, train_from_scratch
    from fedsim.models.real.weights import save_model
    from fedsim.models.real.zoo import load_folder

    if isinstance(job.settings, ScratchModel):
        tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
        network, done = train_from_scratch(job.settings, tokenizer, job.rows, job.seed, progress)
    else:
        assert job.base is not None
        network, tokenizer = load_folder(job.base)
        if isinstance(job.settings, StartTuning):
            done = fine_tune(network, tokenizer, job.rows, job.settings, job.seed, progress)
        else:
            done = tuned_privately(network, tokenizer, job.rows, job.settings, job.seed)
    save_model(network, tokenizer, folder)
    report = {"name": job.name, "rows": len(job.rows), "steps": done.steps, "loss": done.loss}
    (folder / REPORT).write_text(json.dumps(report), encoding="utf-8")


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
        "rows": [(row.question_id, row.domain, row.text, row.taught) for row in job.rows],
        "kind": next(kind for kind, model in _KINDS.items() if isinstance(job.settings, model)),
        "settings": job.settings.model_dump(),
        "seed": job.seed,
        "tokenizer": str(job.tokenizer),
        "base": None if job.base is None else str(job.base),
        "folder": str(folder),
    }


def _from_json(said: dict[str, Any]) -> tuple[Job, Path]:
    settings = _KINDS[said["kind"]](**said["settings"])
    base = None if said["base"] is None else Path(said["base"])
    rows = tuple(Question(*row) for row in said["rows"])
    job = Job(said["name"], said["key"], rows, settings, said["seed"], Path(said["tokenizer"]), base)
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
        if step % _REPORT_EVERY == 0 or step == total:
            say((step, total, loss))

    for line in sys.stdin:
        job, folder = _from_json(json.loads(line))
        train(job, folder, report)
        say("done")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
