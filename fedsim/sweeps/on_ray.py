"""Runs on a Ray cluster (extra ``ray``): a crew whose workers may stand on other machines, with other disks.

* A run is one task. Orders are JSON and the bytes of the files that the scenario names; what comes back is a report and the
  run's folder as bytes, through Ray's object store, so a folder must fit into memory. Model folders do not travel: a
  scenario that names one needs it on every node, and every node trains and keeps the scratch models that its runs need.
* A run whose worker or node died is done again, at most `LIVES` times in all.
* Results do not depend on where a run was performed: a node with other code, other versions or a CPU with other features
  would give other bits, so its first report ends the sweep with what differs.
* Ray speaks pickle between its processes: connecting to a cluster means trusting it.

Ray is imported when a cluster is opened, and by nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.errors import FedsimError, InputError
from fedsim.progress import Progress
from fedsim.runfolder import platform_facts, versions, write_atomically
from fedsim.sweeps import cores
from fedsim.sweeps.comparison_file import this_code
from fedsim.sweeps.parcels import Parcel, packed, unpack
from fedsim.sweeps.workers import Planned, Report, broken, unfinished

if TYPE_CHECKING:
    from fedsim.sweeps.hiring import Where

LOCAL = "local"
"""The address of a cluster that is started here and stopped when it is no longer needed."""

_CLIENT = "ray://"

LIVES = 3
"""How often a run is begun whose worker dies: one that exhausts a node's memory would go on for ever."""

_MISSING = "--ray needs Ray, which is not installed: pip install 'fedgrpo-sim[ray]'"
_HINT = " (a cluster that asks for tokens needs RAY_AUTH_MODE=token)"
_LOOK_S = 0.2  # how often a signal to end is looked for while nothing happens
_ANSWER_S = 5.0  # how long a host may take to accept a connection
_GRACE_S = 5.0  # how long a run that was asked to end may take
_REACH_S = 45.0  # how long a cluster may take to take somebody in
_SPARE = 2  # runs given per run that fits the cluster, so that no node waits for the next one
_INITIAL = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


class Cluster:
    """A Ray cluster that runs are performed on: one that is started here, or one that is there already.

    Whether there is one is asked at once, so that a wrong address is refused while nothing is written; a cluster of our own is
    started only when the first crew is hired.

    Args:
        address: ``local``, ``auto``, ``host:port`` or ``ray://host:port``.
        num_cpus: of a cluster that is started here.
        progress: where notes are shown.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address in time.
    """

    def __init__(self, address: str, num_cpus: int, progress: Progress) -> None:
        self.ray = _ray()
        self.progress = progress
        self._address = address
        self._num_cpus = num_cpus
        self._folder: Path | None = None
        self._is_open = False
        if address.startswith(_CLIENT):  # Ray's client says in time that nobody answers
            _knock(address)
            self._open()
        elif address != LOCAL:
            _reach(address)

    def crew(self, store: Path, where: Where) -> RayCrew:
        """A crew on this cluster, which is opened if need be."""
        if not self._is_open:
            self._open()
        return RayCrew(self, store, where)

    @property
    def scratch(self) -> str | None:
        """Where a worker makes a run's folder; None: where its node puts temporary files."""
        return None if self._folder is None else str(self._folder)

    def close(self) -> None:
        """Leave the cluster, and stop it if it was started here."""
        if self._is_open:
            self.ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._is_open, self._folder = False, None

    def _open(self) -> None:
        with self.progress.phase("cluster", None), _own_signals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an address that does not answer is said in one line, by us
            self._is_open = True  # half an opened one must be closed too
            try:
                if self._address != LOCAL:
                    self.ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
                    return
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                # Ray's sockets lie in it, and the path of a socket may have 107 characters: not below TMPDIR.
                self._folder = Path(tempfile.mkdtemp(prefix="fedsim-ray-", dir="/tmp"))
                self.ray.init(address=LOCAL, num_cpus=self._num_cpus, _temp_dir=str(self._folder), **_INITIAL)
            except (ConnectionError, RuntimeError, OSError, ValueError) as error:
                self.close()
                raise InputError(f"--ray {self._address}: {_first_line(error)}{_HINT}") from None


class RayCrew:
    """A crew of tasks on a cluster.

    Args:
        cluster: which.
        store: where runs are gathered.
        where: runs at a time, and where the nodes keep trained models.
    """

    def __init__(self, cluster: Cluster, store: Path, where: Where) -> None:
        self._cluster = cluster
        self._ray = cluster.ray
        self._store = store
        self._where = where
        self._facts = facts()
        self._busy: dict[Any, Planned] = {}
        self._lives: dict[str, int] = {}
        self._sent: dict[bytes, Any] = {}  # files in the object store, by the hash of their content
        lasting = self._ray.remote(max_retries=0)
        own_process = self._ray.remote(max_retries=0, max_calls=1)
        self._tasks = {"timing": lasting(perform_order), "real": own_process(perform_order)}
        self._has_noted = False

    def has_room(self) -> bool:
        """Whether fewer runs are given than the cluster, or ``processes``, has room for; a few wait on the cluster."""
        if self._where.processes is not None:
            return len(self._busy) < self._where.processes
        cpus = self._ray.cluster_resources().get("CPU", 0.0)
        return len(self._busy) < max(1, _SPARE * int(cpus))

    def at_work(self) -> bool:
        """Whether a run was given whose report has not come."""
        return bool(self._busy)

    def give(self, run: Planned) -> None:
        """Send a run to the cluster."""
        self._lives[run.key] = self._lives.get(run.key, 0) + 1
        unfinished(run, self._store)
        files = {key: path.read_bytes() for key, path in run.scenario.input_files().items()}
        order = {
            "key": run.key,
            "scenario": run.scenario.to_yaml(),
            "cache_dir": None if self._where.cache_dir is None else str(self._where.cache_dir),
            "scratch": self._cluster.scratch,
            "facts": self._facts,
            "files": [
                (key, str(run.scenario.input_files()[key]), _digest(content).hex())
                for key, content in files.items()
            ],
        }
        wanted = wanted_resources(run)
        self._note_if_nothing_fits(wanted)
        threads = run.scenario.compute.threads
        task = self._tasks[run.scenario.fidelity].options(
            name=f"fedsim {run.name}",
            num_cpus=wanted["CPU"],
            num_gpus=wanted.get("GPU", 0),
            runtime_env={"env_vars": cores.environment(threads, threads)},
        )
        given = task.remote(json.dumps(order), *[self._put(content) for content in files.values()])
        self._busy[given] = run

    def reports(self) -> Iterator[tuple[Planned, Report]]:
        """What runs have come to since the last look; one whose worker died is given again.

        Raises:
            FedsimError: a run broke, its worker died too often, or a node would give other results.
        """
        try:
            ended, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_LOOK_S)
        except ConnectionError as error:
            raise FedsimError(f"the Ray cluster is gone: {_first_line(error)}") from None
        for given in ended:
            run = self._busy.pop(given)
            try:
                said, parcel = self._ray.get(given)
            except self._deaths() as error:
                self._again(run, error)
                continue
            except (self._ray.exceptions.RayError, ConnectionError) as error:
                raise FedsimError(f"{run.name} could not be performed on Ray: {_first_line(error)}") from None
            yield run, self._received(run, json.loads(said), parcel)

    def close(self) -> None:
        """End every run: each is asked to, so that it leaves nothing on its node, and made to where it does not in time."""
        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):
            for given in self._busy:
                self._ray.cancel(given)
            if self._busy:
                self._ray.wait(list(self._busy), num_returns=len(self._busy), timeout=_GRACE_S)
            for given in self._busy:
                self._ray.cancel(given, force=True)
        self._busy.clear()

    def _received(self, run: Planned, report: Report, parcel: Parcel) -> Report:
        if report["status"] == "other":
            raise FedsimError(f"a node of the Ray cluster would give other results: {report['reason']}")
        if report["status"] == "broke":
            log = write_atomically(self._store / f"{run.key}.log", report["reason"].encode())
            raise broken(run, report["reason"], log)
        folder = unfinished(run, self._store)
        if parcel:
            folder.mkdir()
            unpack(parcel, folder)
        return report

    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises where a worker died with its run, be it that somebody killed it, its node, or its memory."""
        known = self._ray.exceptions
        return (
            known.WorkerCrashedError,
            known.NodeDiedError,
            known.LocalRayletDiedError,
            known.OutOfMemoryError,
            known.ObjectLostError,
        )

    def _again(self, run: Planned, error: Exception) -> None:
        if self._lives[run.key] >= LIVES:
            raise FedsimError(f"{run.name}: its worker died {LIVES} times: {_first_line(error)}") from None
        self._cluster.progress.note(f"{run.name}: its worker died; it is done again")
        self.give(run)

    def _put(self, content: bytes) -> Any:
        digest = _digest(content)
        if digest not in self._sent:
            self._sent[digest] = self._ray.put(content)
        return self._sent[digest]

    def _note_if_nothing_fits(self, wanted: Mapping[str, float]) -> None:
        """Say once that no node can take a run: an autoscaler may bring one, so it is no error."""
        if self._has_noted:
            return
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(name, 0.0) >= count for name, count in wanted.items()) for node in nodes):
            self._has_noted = True
            shown = " and ".join(f"{count:g} {name}" for name, count in wanted.items())
            self._cluster.progress.note(
                f"no node of the Ray cluster has {shown}; waiting for one (Ctrl-C ends)"
            )


def wanted_resources(run: Planned) -> dict[str, float]:
    """What a run takes of a node, in Ray's words."""
    return {"CPU": float(run.scenario.compute.threads)}


def facts() -> dict[str, str]:
    """What two machines must have in common to give the same bits."""
    platform = platform_facts()
    return {
        "fedsim's code": this_code(),
        "machine": platform["machine"],
        "CPU features": platform["cpu_features"],
        **versions(),
    }


def perform_order(said: str, *files: bytes) -> tuple[str, Parcel]:
    """What a worker does: perform an order's run in a folder of its own, and send report and folder back.

    The report is that of `fedsim.sweeps.worker.perform`, or has the status ``broke`` (the reason is a traceback) or ``other``
    (this node would give other results).
    """
    from fedsim.sweeps.worker import perform

    order = json.loads(said)
    differing = _differing(order["facts"])
    if differing:
        return json.dumps({"status": "other", "reason": f"{socket.gethostname()} has {differing}"}), []
    with tempfile.TemporaryDirectory(prefix="fedsim-run-", dir=order["scratch"]) as made:
        folder = Path(made)
        try:
            scenario = _scenario_here(order, files, folder)
            report = perform(
                {"scenario": str(scenario), "out": str(folder / "run"), "cache_dir": order["cache_dir"]}
            )
        except Exception:  # noqa: BLE001 - raised again where the run was ordered
            return json.dumps({"status": "broke", "reason": traceback.format_exc()}), []
        return json.dumps(report), packed(folder / "run")


def _scenario_here(order: Mapping[str, Any], files: tuple[bytes, ...], folder: Path) -> Path:
    """The scenario's file on this node; an input file that is not here, or has another content, is put beside it."""
    from fedsim.scenario_yaml import parse, to_yaml

    data = parse(order["scenario"].encode(), order["key"]).data
    for place, ((key, name, digest), content) in enumerate(zip(order["files"], files, strict=True)):
        here = Path(name)
        if here.is_file() and _digest(here.read_bytes()).hex() == digest:
            continue
        copy = folder / "inputs" / str(place) / here.parent.name / here.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(content)
        *sections, last = key.split(".")
        section = data
        for word in sections:
            section = section[word]
        section[last] = str(copy)
    return write_atomically(folder / "scenario.yaml", to_yaml(data).encode())


def _differing(wanted: Mapping[str, str]) -> str:
    here = facts()
    found = [
        f"other code of fedsim ({here[name]:.8}, not {value:.8})"
        if "code" in name
        else f"{name} {here.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if here.get(name) != value
    ]
    return "; ".join(found)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise InputError(_MISSING) from None


def _reach(address: str) -> None:
    """Refuse an address at which no cluster takes us in.

    Ray waits for a minute for one that is not there, and may end the process then: so a child asks first.

    Raises:
        InputError: nobody listens there, or it is no Ray cluster.
    """
    _knock(address)
    code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); ray.shutdown()"
    refused = f"--ray {address}: no Ray cluster answers there"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", code, address],
            capture_output=True,
            text=True,
            timeout=_REACH_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{refused} within {_REACH_S:g} s") from None
    if asked.returncode != 0:
        said = asked.stderr.strip().splitlines()
        raise InputError(f"{refused}: {said[-1] if said else f'exit code {asked.returncode}'}{_HINT}")


def _knock(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InputError(f"--ray {address}: must be auto, host:port or ray://host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise InputError(f"--ray {address}: nobody answers there: {error}") from None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of this process: Ray puts its own in the place of that of SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError):  # only the main thread has any
                signal.signal(number, handler)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
