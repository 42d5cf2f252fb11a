"""Sweeps on Ray (ray_workers.py, ray_cluster.py): the records of a local sweep, whatever happens to the workers.

The cluster is started here, with two workers, and spoken to by ``fedsim`` in processes of its own. What needs no cluster is
tested without one, also where Ray is not installed.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsim.cli import _with_address, main
from fedsim.config.yaml import to_yaml
from fedsim.errors import FedsimError, InputError
from fedsim.processes.ray_cluster import LIVES, Cluster, worker_options
from fedsim.progress import SilentProgress
from fedsim.records.run_folder import packed, unpack
from fedsim.scenario.read import read_scenario
from fedsim.sweeps import ray_workers
from fedsim.sweeps.workers import ExecutionConfig
from tests.samples.real_runs import tiny

ROOT = Path(__file__).resolve().parents[2]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

BASE = """\
name: tiny
fidelity: timing
stop: {updates: 2}
protocol: {name: fedgrpo, group_size: 4, num_experts: 2, update: {groups_per_update: 4, in_flight: 6}}
tasks: {domains: [gcd, products], sizes: {public: 0, private: 60, auxiliary: 10, pool: 30, validation: 1, test: 1}}
clients: {file: devices.csv}
"""
GRID = "name: grid\nbase: base.yaml\nseeds: [0, 1]\naxes:\n  dropout: {key: dropout.per_task, levels: [0, 0.5]}\n"
LONG = """\
name: long
base: base.yaml
seeds: [0]
set: {stop.updates: 60}
axes: {doomed: {key: dropout.per_task, levels: [0, 0.2, 0.5]}}
"""
ENDLESS = """\
name: endless
base: base.yaml
seeds: [0]
axes: {length: {key: stop.updates, levels: [2, 100000000]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base scenario with devices from a file, and files of sweeps beside it."""
    made = tmp_path_factory.mktemp("sweeps")
    (made / "base.yaml").write_text(BASE)
    (made / "devices.csv").write_text("class\nphone\nphone\nphone\nlaptop\n")
    (made / "grid.yaml").write_text(GRID)
    (made / "long.yaml").write_text(LONG)
    (made / "endless.yaml").write_text(ENDLESS)
    return made


def fedsim(*arguments: object, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fedsim", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | (env or {}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], timeout_s: float = 270) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=timeout_s)
    return process.returncode, out, errors


def here(*arguments: object) -> int:
    """The exit code of a command on this machine's processes."""
    return main([*map(str, arguments), "--quiet"])


def hashes(out: Path) -> dict[str, str]:
    with (out / "stress.csv").open(newline="") as stream:
        return {row["folder"]: row["records_sha256"] for row in csv.DictReader(stream)}


def scratch_folders() -> set[Path]:
    return {*Path("/tmp").glob("fedsim-r*-*")}


# ------------------------------------------------------------------------------------- without a cluster


def test_without_ray_one_line_says_how_to_install_it_and_nothing_is_written(folder, tmp_path):
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')\n")
    out = tmp_path / "out"
    env = {"PYTHONPATH": str(tmp_path)}
    code, said, errors = ended(
        fedsim("stress", folder / "grid.yaml", "--out", out, "--ray", "--quiet", env=env)
    )
    assert (code, said) == (2, "")
    assert errors == "--ray needs Ray, which is not installed: pip install 'fedgrpo-sim[ray]'\n"
    assert not out.exists()


def test_the_option_takes_an_address_or_none_and_never_the_files_name():
    assert _with_address(["stress", "--ray", "grid.yaml"]) == ["stress", "--ray=local", "grid.yaml"]
    assert _with_address(["stress", "grid.yaml", "--ray"]) == ["stress", "grid.yaml", "--ray=local"]
    assert _with_address(["compare", "--ray", "--tune", "x"]) == ["compare", "--ray=local", "--tune", "x"]
    for address in ("auto", "local", "10.0.0.1:6379", "head:6379", "ray://head:10001", "[::1]:6379"):
        given = ["compare", "--ray", address, "evidence"]
        assert _with_address(given) == given


def test_a_folder_that_travels_as_bytes_arrives_as_it_was(tmp_path):
    (tmp_path / "run" / "records").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text("{}")
    (tmp_path / "run" / "records" / "moves.parquet").write_bytes(bytes(range(256)))
    (tmp_path / "run" / "link").symlink_to("/etc/passwd")
    archive = packed(tmp_path / "run")
    unpack(archive, tmp_path / "here")
    assert packed(tmp_path / "here") == archive
    assert [name for name, _ in archive] == ["manifest.json", "records/moves.parquet"]


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/tmp/out", "a//b", "", ".", "a/.", "C:/out", "a\\..\\out", "nul\0"]
)
def test_a_file_that_would_not_stay_in_the_runs_folder_is_refused_with_all_that_came_with_it(tmp_path, name):
    (tmp_path / "run").mkdir()
    with pytest.raises(FedsimError, match="does not stay in the run's folder"):
        unpack([("good", b""), (name, b"")], tmp_path / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


def order(folder: Path, scratch: Path, **more: Any) -> tuple[str, bytes]:
    """What a sweep would send for one run of the base scenario, and the file that goes with it."""
    scenario = read_scenario(folder / "base.yaml").anchored()
    devices = (folder / "devices.csv").read_bytes()
    files = [("clients.file", str(folder / "devices.csv"), ray_workers._digest(devices).hex())]
    said = {
        "key": "key", "scenario": scenario.to_yaml(), "cache_dir": None, "scratch": str(scratch),
        "facts": ray_workers.facts(), "protocol": scenario.protocol.name, "files": files,
    }  # fmt: skip
    return json.dumps(said | more), devices


def test_a_worker_that_has_not_got_the_input_files_performs_the_same_run(folder, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    told, archive = ray_workers.perform_order(*order(folder, here))
    assert json.loads(told)["status"] == "finished" and list(here.iterdir()) == []
    elsewhere = order(folder, here)[0].replace(str(folder), f"/nowhere/{folder.name}")
    told, other = ray_workers.perform_order(elsewhere, (folder / "devices.csv").read_bytes())
    assert json.loads(told)["status"] == "finished"
    sent = [dict(one) for one in (archive, other)]
    assert sent[0].keys() == sent[1].keys()
    found = [json.loads(one["summary.json"])["records_sha256"] for one in sent]
    assert found[0] == found[1]


def test_a_worker_with_other_code_or_another_processor_performs_nothing_and_says_what_differs(
    folder, tmp_path
):
    facts = ray_workers.facts() | {"fedsim's code": "0" * 32, "CPU features": "abacus"}
    told, archive = ray_workers.perform_order(*order(folder, tmp_path, facts=facts))
    report = json.loads(told)
    assert (report["status"], archive) == ("other", [])
    assert "other code of fedsim" in report["reason"] and "not 'abacus'" in report["reason"]


def test_a_run_that_breaks_on_a_worker_sends_its_traceback(folder, tmp_path):
    told, archive = ray_workers.perform_order(*order(folder, tmp_path, scenario="name: [\n"))
    report = json.loads(told)
    assert (report["status"], archive) == ("broke", [])
    assert "Traceback" in report["reason"] and "Error: " in report["reason"].splitlines()[-1]


def test_a_worker_takes_its_threads_of_a_node_and_its_share_of_a_gpu_where_it_computes_on_one():
    def taken(*asked: Any) -> tuple[float, float]:
        options = worker_options(*asked)
        return options["num_cpus"], options["num_gpus"]

    assert taken(1, "cpu", 1.0) == (1.0, 0.0)
    assert taken(4, "cpu", 0.5) == (4.0, 0.0)
    assert taken(1, "cuda", 0.5) == (1.0, 0.5)


class WorkerCrashedError(Exception):
    pass


class DyingRay:
    """A Ray whose workers all die."""

    exceptions = SimpleNamespace(
        WorkerCrashedError=WorkerCrashedError, NodeDiedError=WorkerCrashedError, LocalRayletDiedError=WorkerCrashedError,
        OutOfMemoryError=WorkerCrashedError, ObjectLostError=WorkerCrashedError, RayError=WorkerCrashedError,
    )  # fmt: skip

    def __init__(self) -> None:
        self.num_given = 0

    def remote(self, **options: Any) -> Any:
        return lambda function: self

    def options(self, **options: Any) -> Any:
        return SimpleNamespace(remote=self._given)

    def _given(self, *arguments: Any) -> int:
        self.num_given += 1
        return self.num_given

    def put(self, content: bytes) -> bytes:
        return content

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def wait(self, given: list[int], **how: Any) -> tuple[list[int], list[int]]:
        return given[:1], given[1:]

    def get(self, given: int) -> Any:
        raise WorkerCrashedError("it died")

    def cancel(self, given: int, force: bool = False) -> None:
        pass


def test_a_run_that_kills_every_worker_is_given_up_after_three(folder, tmp_path):
    @dataclass(frozen=True)
    class Run:
        name = "dropout 0, seed 0"
        key = "abc"
        scenario = read_scenario(folder / "base.yaml").anchored()

    ray = DyingRay()
    cluster: Any = SimpleNamespace(ray=ray, progress=SilentProgress(), scratch=None)
    pool = ray_workers.RayPool(cluster, tmp_path, ExecutionConfig(processes=1))
    pool.give(Run())
    with pytest.raises(FedsimError, match=r"dropout 0, seed 0: its worker died 3 times: .*it died"):
        while pool.at_work():
            assert list(pool.reports()) == []
    assert ray.num_given == LIVES == 3


# ------------------------------------------------------------------------------------- on a cluster


@needs_ray
@pytest.mark.slow
def test_a_comparison_starts_a_cluster_of_its_own_and_stops_it(folder, tmp_path):
    (folder / "pair.yaml").write_text(
        "name: pair\nbase: base.yaml\nseeds: [0]\nvariants:\n  - {name: a}\n  - {name: b, set: {protocol.group_size: 6}}\n"
    )
    before, found = scratch_folders(), []
    arguments = ["compare", folder / "pair.yaml", "--no-figures", "--quiet", "--out"]
    assert here(*arguments[:3], *arguments[4:], tmp_path / "local") == 0
    env = {"HOME": str(tmp_path)}  # where Ray keeps the token of a cluster that it starts
    assert ended(fedsim(*arguments, tmp_path / "far", "--ray", env=env))[::2] == (0, "")
    for out in ("local", "far"):
        document = json.loads((tmp_path / out / "comparison.json").read_text())
        places = [tmp_path / out / run["folder"] for run in document["runs"]]
        found.append([json.loads((place / "summary.json").read_text())["records_sha256"] for place in places])
    assert found[0] == found[1] and len(set(found[0])) == 2
    assert scratch_folders() == before


@dataclass(frozen=True)
class Started:
    address: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two workers, which ends with this file's tests."""
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    temporary = Path(tempfile.mkdtemp(prefix="fr-", dir="/tmp"))  # the path of a socket has 107 characters
    command = [sys.executable, "-c", CLUSTER, str(temporary)]
    with subprocess.Popen(
        command, env=os.environ | env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as head:
        try:
            yield Started(head.stdout.readline().strip(), env)
        finally:
            head.communicate(timeout=60)
            shutil.rmtree(temporary, ignore_errors=True)


CLUSTER = """\
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


def wait_until(true: Any, process: subprocess.Popen[Any], timeout_s: float = 90) -> None:
    until_s = time.monotonic() + timeout_s
    while not true():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < until_s, "it takes too long"
        time.sleep(0.1)


def workers_of(task: str) -> list[int]:
    """Processes that perform a task now: Ray gives a worker its task's name."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes().startswith(f"ray::fedsim {task}".encode()):
                found.append(int(place.parent.name))
    return found


@needs_ray
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("somewhere", "must be auto, host:port or ray://host:port"),
        ("127.0.0.1:1", "nobody answers there"),
        ("ray://127.0.0.1:1", "nobody answers there"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address, words):
    with pytest.raises(InputError) as refused:
        Cluster(address, 2, SilentProgress())
    assert str(refused.value).startswith(f"--ray {address}: ") and words in str(refused.value)


@needs_ray
def test_a_cluster_that_is_not_there_is_one_line_and_nothing_is_written(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert here("stress", folder / "grid.yaml", "--out", out, "--ray", "127.0.0.1:1") == 2
    said, errors = capsys.readouterr()
    assert (said, len(errors.splitlines())) == ("", 1) and "nobody answers there" in errors
    assert not out.exists()


@needs_ray
@pytest.mark.slow
def test_somebody_else_at_the_address_is_one_line_in_less_than_a_minute(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = fedsim("stress", folder / "grid.yaml", "--out", tmp_path / "out", f"--ray={address}", "-q")
        code, _, errors = ended(process, timeout_s=90)
    assert code == 2 and len(errors.splitlines()) == 1 and "no Ray cluster answers there" in errors


@needs_ray
@pytest.mark.slow
def test_a_sweep_on_a_cluster_has_the_records_of_a_local_one_though_a_worker_is_killed(
    cluster, folder, tmp_path
):
    local, far, before = tmp_path / "local", tmp_path / "far", scratch_folders()
    arguments = ["stress", folder / "long.yaml", "--no-figures", "--out"]
    process = fedsim(*arguments, far, "--ray", cluster.address, env=cluster.env)
    wait_until(lambda: workers_of("doomed"), process)
    os.kill(workers_of("doomed")[0], signal.SIGKILL)
    code, _, errors = ended(process)
    assert code == 0, errors
    assert errors.count("its worker died; it is done again") == 1
    assert "runs: done after" in errors and "3/3" in errors and "last doomed" in errors
    assert here(*arguments, local) == 0
    assert hashes(far) == hashes(local) and len(hashes(far)) == 3
    for place in hashes(far):
        names = [sorted(path.name for path in (out / place).rglob("*")) for out in (local, far)]
        assert names[0] == names[1]
    kept = [path.stat().st_mtime_ns for path in sorted(far.glob("runs/*/ending.json"))]
    assert here(*arguments, far) == 0
    assert [path.stat().st_mtime_ns for path in sorted(far.glob("runs/*/ending.json"))] == kept
    left = scratch_folders() - before  # what a killed worker had begun
    assert len(left) <= 1
    for path in left:
        shutil.rmtree(path)


@needs_ray
@pytest.mark.slow
def test_an_interrupted_sweep_on_a_cluster_keeps_what_is_finished_and_leaves_no_worker_at_work(
    cluster, folder, tmp_path
):
    out, before = tmp_path / "out", scratch_folders()
    arguments = ["stress", folder / "endless.yaml", "--out", out, "--no-figures", "-q"]
    process = fedsim(*arguments, "--ray", cluster.address, env=cluster.env)
    wait_until(lambda: [*out.glob("runs/*/ending.json")] and workers_of("length 100000000"), process)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "fedsim: interrupted\n")
    assert len([*out.glob("runs/*/ending.json")]) == 1
    until_s = time.monotonic() + 120  # Ray's workers run at nice 15
    while workers_of("length") or scratch_folders() - before:
        assert time.monotonic() < until_s
        time.sleep(0.1)


@needs_ray
@pytest.mark.slow
def test_real_models_on_a_cluster_have_the_records_of_a_local_run(cluster, tmp_path):
    (tmp_path / "base.yaml").write_text(to_yaml(tiny()))
    (tmp_path / "grid.yaml").write_text(GRID.replace("[0, 1]", "[0]"))
    env = cluster.env | {"FEDSIM_CACHE": str(tmp_path / "cache")}
    for out, more in (("far", ["--ray", cluster.address]), ("local", [])):
        arguments = ["stress", tmp_path / "grid.yaml", "--out", tmp_path / out, "--no-figures", *more]
        code, _, errors = ended(fedsim(*arguments, env=env), timeout_s=250)
        assert code == 0, errors
    assert hashes(tmp_path / "far") == hashes(tmp_path / "local")
