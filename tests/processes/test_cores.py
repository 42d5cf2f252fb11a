"""Processes times threads never exceed the cores (cores.py, executors.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.processes.cores import environment, num_cores, runs_at_once
from fedsim.progress import SilentProgress
from fedsim.scenario.read import read_scenario
from fedsim.sweeps.executors import executor, fit_a_gpu, threads_of
from fedsim.sweeps.workers import ExecutionConfig, Processes, perform_missing

COUNTS = st.integers(1, 300)


@given(asked=st.none() | COUNTS, threads=COUNTS, cores=COUNTS)
def test_processes_times_threads_never_exceed_the_cores_and_one_run_is_always_possible(asked, threads, cores):
    found = runs_at_once(asked, threads, cores)
    assert found == 1 or found * threads <= cores
    assert found >= 1 and (asked is None or found <= asked)
    if asked is None:
        assert (found + 1) * threads > cores  # no core is left that another run would fit


def test_a_run_trains_as_many_models_at_a_time_as_its_share_of_the_cores_holds():
    assert environment(threads=2, share=5)["FEDSIM_PROCESSES"] == "5"
    assert environment(threads=2, share=0)["FEDSIM_PROCESSES"] == "1"


def test_every_library_has_a_runs_own_threads_whatever_the_machine_but_numpys_products_one():
    found = {key: value for key, value in environment(threads=3, share=8).items() if "THREADS" in key}
    assert found == {
        "OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "POLARS_MAX_THREADS": "3", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip


def test_the_command_line_sets_the_threads_of_numpys_products_before_numpy_is_there():
    code = (
        "import os, sys, fedsim.cli as cli; assert 'numpy' not in sys.modules; assert cli.main(['schema']) == 0;"
        "print(os.environ['OPENBLAS_NUM_THREADS'], file=sys.stderr)"
    )
    plain = {
        key: value
        for key, value in os.environ.items()
        if key not in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=plain, check=True)
    assert done.stderr == "1\n"


def test_a_run_counts_with_the_threads_of_all_its_scorers():
    few, many = (
        read_scenario("quickstart", [f"compute={json.dumps(keys)}"])
        for keys in ({"threads": 2}, {"threads": 2, "scorers": 3})
    )
    assert (threads_of([few]), threads_of([many]), threads_of([few, many])) == (2, 6, 6)


def test_runs_on_a_gpu_never_take_more_than_all_of_it():
    def runs(*settings):
        return [read_scenario("quickstart", [f"compute={json.dumps(keys)}"]) for keys in settings]

    assert fit_a_gpu(runs({}, {"gpu_share": 0.5})) is None
    assert fit_a_gpu(runs({"device": "cuda"})) == 1
    assert fit_a_gpu(runs({"device": "cuda", "gpu_share": 0.25}, {"device": "auto", "gpu_share": 0.3})) == 3


class Told(SilentProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Counting:
    """A pool that performs nothing and counts how many runs it has at a time."""

    def __init__(self, processes: Processes) -> None:
        self.busy: list[Any] = []
        self.most = 0
        self._has_room = processes.has_room
        self._inner = processes

    def has_room(self) -> bool:
        return len(self.busy) < self._inner._at_once

    def give(self, run: Any) -> None:
        self.busy.append(run)
        self.most = max(self.most, len(self.busy))

    def at_work(self) -> bool:
        return bool(self.busy)

    def reports(self) -> Any:
        yield self.busy.pop(0), {"status": "finished"}

    def close(self) -> None:
        self._inner.close()


class Nothing:
    """Rules that keep nothing."""

    def is_kept(self, folder: Any) -> bool:
        return False

    def keep(self, run: Any, report: Any, store: Any) -> None:
        pass


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), (64, 1), (1, 1), (64, 2), (None, 200)])
def test_no_more_runs_are_given_at_a_time_than_fit(tmp_path, asked, threads):
    scenario = read_scenario("quickstart", [f"compute.threads={threads}"])
    planned = [SimpleNamespace(name=str(n), key=str(n), scenario=scenario) for n in range(9)]
    progress = Told()
    pools: list[Counting] = []

    def counted(make_pool: Any) -> Any:
        def hired(store: Any) -> Counting:
            pools.append(Counting(make_pool(store)))
            return pools[-1]

        return hired

    with executor(ExecutionConfig(processes=asked), planned, progress) as make_pool:
        perform_missing(planned, tmp_path, counted(make_pool), Nothing(), progress)
    (pool,) = pools
    assert pool.most == runs_at_once(asked, threads, num_cores())
    assert pool.most == 1 or pool.most * threads <= num_cores()
    assert len(progress.notes) == (asked is not None and asked > pool.most)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert num_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert num_cores() == len(allowed)
