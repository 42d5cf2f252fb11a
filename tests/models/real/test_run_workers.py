"""Worker processes (workers.py, worker.py, work_parts.py): the same bits with and without, and nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from fedsim.experiment import run as experiment
from fedsim.experiment.components import real_models, workers_of
from fedsim.experiment.run import refuse_early, simulate
from fedsim.experiment.simulation import Simulation
from fedsim.models.config import PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.models.real.bundle import share_out
from fedsim.models.real.evaluator import ModelEvaluator, in_company
from fedsim.models.real.language import LanguageModel, Shapes, Tokens
from fedsim.models.real.policy import LanguagePolicy
from fedsim.models.real.run_workers import Workers, _Process, _SharedPart
from fedsim.models.real.work_parts import LookPart, ScorePart, Sharing, shared_out
from fedsim.models.real.zoo import scratch_network
from fedsim.progress import SilentProgress
from fedsim.protocols.shared.monitor import ClientAccuracy
from fedsim.records.log import RecordLog
from fedsim.scenario.read import read_scenario, scenario_from
from fedsim.sweeps.compare.file import run_key
from fedsim.sweeps.cores import threads_of
from tests.samples.real_runs import tiny
from tests.samples.tiny_models import TINY, questions, tokenizer, trained_network

ROOT = Path(__file__).resolve().parents[3]
DRAWS = [Draw(index, question) for index, question in enumerate(questions()[:40])]
TEXTS = [question.text for question in questions()[:30]]
CONFIG = PolicyConfig(warmup_updates=1, learning_rate=1e-2, questions_per_pass=16)


class Side:
    """A policy and three clients' evaluators, alone or with workers."""

    def __init__(self, sharing: Sharing | None = None) -> None:
        tokens, shapes = Tokens(tokenizer()), Shapes(8, prompt_rows=8, answer_rows=16, decode_rows=32)

        def language(network) -> LanguageModel:
            return LanguageModel(network, tokenizer(), shapes, tokens)

        live = language(deepcopy(trained_network()))
        initial = language(deepcopy(trained_network()).requires_grad_(False))
        self.policy = LanguagePolicy(
            live, initial, CONFIG, lambda given, truth: given in truth, 7, [], sharing=sharing
        )
        clients = [language(scratch_network(TINY, tokenizer(), seed)) for seed in range(3)]
        evaluators = [ModelEvaluator(one, max_new_tokens=4) for one in clients]
        if isinstance(sharing, Workers):
            share_out(sharing, self.policy, evaluators, 7)
        self.evaluators = in_company(evaluators, sharing)

    def said(self, start: int = 0) -> list[object]:
        """Everything that models can be asked, and one step of learning in the middle."""
        found: list[object] = [self.policy.evaluate(questions(), 0)]
        draws = [Draw(start + draw.index, draw.question) for draw in DRAWS]
        groups = self.policy.sample(draws)
        found += [groups, self.remembered()]
        for client, evaluator in enumerate(self.evaluators):
            for text in TEXTS[client:]:
                evaluator.expect(text, ["7", "12", "tac"])
                evaluator.expect_answer(text)
        found += [[one.likelihood(text, ["7", "12", "tac"]) for text in TEXTS] for one in self.evaluators]
        found += [one.answers(TEXTS) for one in self.evaluators]
        gains = [torch.linspace(-1, 1, len(group.candidates)).double().numpy() for group in groups]
        found += [self.policy.update(groups, gains), repr(self.policy.evaluate(questions(), 8))]
        return [*found, self.policy.sample(draws), self.remembered(), self.policy.weights_sha256()]

    def remembered(self) -> str:
        return json.dumps(self.policy._memory()["behaviours"])


@pytest.fixture
def workers() -> Iterator[Workers]:
    with closing(Workers(1, 1, NOTES.append)) as started:
        NOTES.clear()
        started.worth_sharing_s = 0.0
        yield started


NOTES: list[str] = []


def until(done: Callable[[], bool]) -> None:
    for _ in range(1200):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within two minutes")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_with_a_worker_everything_that_models_say_has_the_same_bits(workers: Workers):
    side = Side(workers)
    before = workers.num_done
    until(lambda: workers.num_processes == 2)
    assert side.said() == Side().said()
    assert workers.num_done - before > 10  # and it was asked for some of it
    assert NOTES == []


def test_scores_that_are_announced_are_begun_by_a_worker_before_they_are_due(workers: Workers):
    side, alone = Side(workers), Side()
    until(lambda: workers.num_processes == 2)
    candidates = [str(number) for number in range(8)]
    for one in side.evaluators:
        for text in TEXTS:
            one.expect(text, candidates)
    assert sum(one.num_queued for one in side.evaluators) < len(TEXTS) * len(candidates)
    for one in side.evaluators:
        for text in TEXTS:
            one.expect(text, candidates)  # as a request does that was anticipated: nothing is begun twice
    assert sum(one.num_queued for one in side.evaluators) < len(TEXTS) * len(candidates)
    for one, other in zip(side.evaluators, alone.evaluators, strict=True):
        for text in TEXTS:
            assert one.likelihood(text, candidates) == other.likelihood(text, candidates)
    assert workers.num_done >= 2
    (pid,) = workers.pids
    for text in TEXTS:  # and those that it has begun when it dies are computed here
        for one in side.evaluators:
            one.expect(text, ["x" + candidate for candidate in candidates])
    os.kill(pid, signal.SIGKILL)
    given = [side.evaluators[1].likelihood(text, ["x3"]) for text in TEXTS]
    assert given == [alone.evaluators[1].likelihood(text, ["x3"]) for text in TEXTS]
    assert len(NOTES) == 1


def test_what_takes_less_than_sending_it_is_done_here(workers: Workers):
    side = Side(workers)
    until(lambda: workers.num_processes == 2)
    side.policy.sample(DRAWS)
    before = workers.num_done
    assert before > 0
    workers.worth_sharing_s = 3600.0
    assert side.policy.sample(DRAWS) == Side().policy.sample(DRAWS)
    assert workers.num_done == before


def test_until_a_worker_is_ready_and_after_it_is_closed_the_process_computes_alone(workers: Workers):
    side, alone = Side(workers), Side()
    assert workers.num_processes == 1
    assert side.policy.sample(DRAWS) == alone.policy.sample(DRAWS)
    workers.close()
    assert side.said(100) == alone.said(100)
    assert workers.num_done == 0


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP])
def test_the_share_of_a_worker_that_dies_or_hangs_is_done_here(workers: Workers, ending: signal.Signals):
    side = Side(workers)
    until(lambda: workers.num_processes == 2)
    workers.patience_s = 1.0
    (pid,) = workers.pids
    os.kill(pid, ending)
    assert side.said() == Side().said()
    (note,) = NOTES
    assert "worker process is lost" in note
    assert not is_alive(pid)


def test_a_worker_that_cannot_start_is_told_in_a_line(workers: Workers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with closing(Workers(1, 1, NOTES.append)) as broken:
        side = Side(broken)
        until(lambda: broken.num_processes == 1 and bool(NOTES))
        assert side.policy.sample(DRAWS) == Side().policy.sample(DRAWS)
    assert len(NOTES) == 1 and "exit status" in NOTES[0]


def test_an_error_in_this_processs_own_share_ends_the_workers(workers: Workers):
    side = Side(workers)
    until(lambda: workers.num_processes == 2)
    (pid,) = workers.pids
    with pytest.raises(ZeroDivisionError):
        workers.shared(_parts(side), lambda part: 1 / 0)
    assert workers.num_processes == 1 and not is_alive(pid)


def _parts(side: Side) -> list:
    from fedsim.models.real.work_parts import AnswerPart

    ids = [side.policy.language.prompt_ids(text) for text in TEXTS[:4]]
    return [AnswerPart(0, (prompt,)) for prompt in ids]


def test_a_worker_does_not_outlive_a_process_that_is_killed():
    code = (
        "import time\nfrom fedsim.models.real.run_workers import Workers, _SharedPart, _Process\n"
        "workers = Workers(1, 1, print)\nprint(*workers.pids, flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    until(lambda: not is_alive(pid))


def test_work_is_shared_out_evenly_and_completely():
    sizes = [128, 128, 7, 128, 1, 64]
    lists = shared_out(sizes, [0.0, 0.0])
    assert sorted(place for places in lists for place in places) == list(range(6))
    totals = [sum(sizes[place] for place in places) for places in lists]
    assert max(totals) - min(totals) <= 64
    assert shared_out([3], [0.0] * 4) == [[0], [], [], []]


def test_what_a_worker_has_under_way_counts_as_rows_of_what_is_to_be_shared():
    """And who has that much to do gets less of it."""
    scores = ScorePart((0,), ((1,),), (0,) * 10, ((2,),) * 10)
    looks = LookPart(((1,),) * 3, (0, 1, 2), 8)
    silent, end = os.pipe()
    with (
        closing(Workers(0, 1, NOTES.append)) as workers,
        os.fdopen(silent, "rb") as stdout,
        os.fdopen(end, "wb"),
    ):
        process = _Process.__new__(_Process)
        process._stdout = stdout
        process._under_way = deque(_SharedPart(part, process) for part in (scores, looks, looks))
        workers._processes.append(process)
        assert workers._load(process, ScorePart) == 0.0  # nobody knows yet how long anything takes
        workers._last_s = {ScorePart: 0.01, LookPart: 0.1}
        assert workers._load(process, ScorePart) == pytest.approx(10 + 10 * 6)
        assert workers._load(process, LookPart) == pytest.approx(1 + 6)
        workers._processes.clear()
    assert shared_out([10] * 4, [0.0, 0.0]) == [[0, 2], [1, 3]]
    assert shared_out([10] * 4, [0.0, 20.0]) == [[0, 1, 2], [3]]
    assert shared_out([10] * 4, [0.0, 70.0]) == [[0, 1, 2, 3], []]


def scenario(**keys):
    return scenario_from(tiny(stop={"updates": 12}) | keys)


@pytest.mark.parametrize(
    ("cores", "keys", "number"),
    [
        ("2", {}, 1),
        ("1", {}, 0),
        ("8", {}, 1),
        ("8", {"compute": {"processes": 4}}, 3),
        ("3", {"compute": {"processes": 4}}, 2),
        ("4", {"compute": {"processes": 4, "threads": 2}}, 1),
        ("2", {"compute": {"threads": 2}}, 0),
        ("2", {"compute": {"processes": 1}}, 0),
        ("2", {"compute": {"autocast": "bf16"}}, 0),
        ("2", {"stop": {"updates": 3}}, 0),
        ("2", {"stop": {"updates": 3}, "compute": {"processes": 2}}, 1),
    ],
)
def test_processes_times_threads_never_exceed_the_cores_of_the_run(monkeypatch, cores, keys, number):
    monkeypatch.setenv("FEDSIM_PROCESSES", cores)
    started = workers_of(scenario(**keys), SilentProgress())
    assert (0 if started is None else len(started.pids)) == number
    if started is not None:
        started.close()


def test_processes_are_no_part_of_a_kept_runs_key_and_count_as_threads_of_a_sweep():
    two = scenario(compute={"processes": 2})
    assert run_key(two) == run_key(scenario())
    assert run_key(two) != run_key(scenario(compute={"threads": 2}))
    assert threads_of([scenario(), two]) == 2


def test_a_run_with_a_worker_has_the_records_of_one_without(tmp_path: Path, workers: Workers):
    def records(sharing: Workers | None) -> str:
        settings = scenario(stop={"updates": 4})
        devices = refuse_early(settings)
        components = real_models(settings, len(devices), tmp_path, SilentProgress(), workers=sharing)
        if sharing is not None:
            until(lambda: sharing.num_processes == 2)
        log = RecordLog()
        simulate(
            Simulation(
                settings,
                devices,
                components,
                log,
                SilentProgress().phase(""),
                ClientAccuracy(components.data, components.evaluators),
            )
        )
        return log.sha256()

    assert records(workers) == records(None)
    assert workers.num_done > 5


def test_a_run_with_workers_that_is_interrupted_and_killed_goes_on_to_the_same_end(tmp_path: Path):
    """Of each of its three lives no worker is left."""
    source = tmp_path / "scenario.yaml"
    source.write_text(
        json.dumps(tiny(stop={"updates": 80}, compute={"processes": 2, "checkpoint_every": "0.5 s"}))
    )
    env = os.environ | {
        "FEDSIM_CACHE": str(tmp_path / "cache"),
        "FEDSIM_PROCESSES": "2",
        "OMP_NUM_THREADS": "1",
    }
    cli, out = [sys.executable, "-m", "fedsim"], tmp_path / "out"

    def started(*command: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*cli, *command, "-q", "--no-figures"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL
        )

    def ended_by(how: signal.Signals, run: subprocess.Popen, updates: int) -> int:
        checkpoints, children = out / "checkpoints", Path(f"/proc/{run.pid}/task/{run.pid}/children")
        known = max(
            (path.name for path in checkpoints.glob("0*")), default=""
        )  # of an earlier life, which may be ahead
        until(
            lambda: (
                run.poll() is not None
                or any(path.name > max(known, f"{updates:08d}") for path in checkpoints.glob("0*"))
            )
        )
        (child,) = children.read_text().split()
        run.send_signal(how)
        code = run.wait(120)
        until(lambda: not is_alive(int(child)))
        return code

    assert ended_by(signal.SIGINT, started("run", str(source), "--out", str(out)), 4) == 130
    assert ended_by(signal.SIGKILL, started("resume", str(out)), 12) == -signal.SIGKILL
    assert started("resume", str(out)).wait(300) == 0
    alone = experiment.run(
        read_scenario(source, ["compute.processes=1"]), out=tmp_path / "alone", cache_dir=tmp_path / "cache"
    )
    assert json.loads((out / "summary.json").read_text())["records_sha256"] == alone.summary["records_sha256"]
