"""Runs on a Ray cluster (extra ``ray``): a pool whose workers may stand on other machines, with other disks.

* A run is one task. Orders are JSON and the bytes of the files that the scenario names; what comes back is a report and the
  run's folder as bytes, through Ray's object store, so a folder must fit into memory. Model folders do not travel: a
  scenario that names one needs it on every node, and every node trains and keeps the scratch models that its runs need.
* A run whose worker or node died is done again, at most `LIVES` times in all.
* Results do not depend on where a run was performed: a node with other code, other versions or a CPU with other features
  would give other bits, so its first report ends the sweep with what differs.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fedsim import protocols
from fedsim.errors import FedsimError
from fedsim.processes.ray_cluster import LIVES, Cluster, first_line, worker_options
from fedsim.records.provenance import platform_facts, versions
from fedsim.records.run_folder import Archive, packed, unpack, write_atomically
from fedsim.sweeps.code import this_code
from fedsim.sweeps.workers import ExecutionConfig, Planned, Report, broken, unfinished

_LOOK_S = 0.2  # how often a signal to end is looked for while nothing happens
_GRACE_S = 5.0  # how long a run that was asked to end may take
_SPARE = 2  # runs given per run that fits the cluster, so that no node waits for the next one


class RayPool:
    """A pool of tasks on a cluster.

    Args:
        cluster: which.
        store: where runs are gathered.
        where: runs at a time, and where the nodes keep trained models.
    """

    def __init__(self, cluster: Cluster, store: Path, where: ExecutionConfig) -> None:
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
        files = {key: _content(key, path) for key, path in run.scenario.input_files().items()}
        order = {
            "key": run.key,
            "scenario": run.scenario.to_yaml(),
            "cache_dir": None if self._where.cache_dir is None else str(self._where.cache_dir),
            "scratch": self._cluster.scratch,
            "facts": self._facts | plugin_facts(run.scenario.protocol.name),
            "protocol": run.scenario.protocol.name,
            "files": [
                (key, str(run.scenario.input_files()[key]), _digest(content).hex())
                for key, content in files.items()
            ],
        }
        compute = run.scenario.compute
        options = worker_options(compute.threads, compute.device, compute.gpu_share)
        self._note_if_nothing_fits({"CPU": options["num_cpus"], "GPU": options["num_gpus"]})
        task = self._tasks[run.scenario.fidelity].options(name=f"fedsim {run.name}", **options)
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
            raise FedsimError(f"the Ray cluster is gone: {first_line(error)}") from None
        for given in ended:
            run = self._busy.pop(given)
            try:
                said, archive = self._ray.get(given)
            except self._deaths() as error:
                self._again(run, error)
                continue
            except (self._ray.exceptions.RayError, ConnectionError) as error:
                raise FedsimError(f"{run.name} could not be performed on Ray: {first_line(error)}") from None
            yield run, self._received(run, json.loads(said), archive)

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

    def _received(self, run: Planned, report: Report, archive: Archive) -> Report:
        if report["status"] == "other":
            raise FedsimError(f"a node of the Ray cluster would give other results: {report['reason']}")
        if report["status"] == "broke":
            log = write_atomically(self._store / f"{run.key}.log", report["reason"].encode())
            raise broken(run, report["reason"].splitlines()[-1], log)
        folder = unfinished(run, self._store)
        if archive:
            folder.mkdir()
            unpack(archive, folder)
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
            raise FedsimError(f"{run.name}: its worker died {LIVES} times: {first_line(error)}") from None
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
            shown = " and ".join(f"{count:g} {name}" for name, count in wanted.items() if count)
            self._cluster.progress.note(
                f"no node of the Ray cluster has {shown}; waiting for one (Ctrl-C ends)"
            )


def facts() -> dict[str, str]:
    """What two machines must have in common to give the same bits."""
    platform = platform_facts()
    return {
        "fedsim's code": this_code(),
        "machine": platform["machine"],
        "CPU features": platform["cpu_features"],
        **versions(),
    }


def plugin_facts(protocol: str) -> dict[str, str]:
    """Version and source of every plug-in that a protocol may depend on, as more of `facts`."""
    return {
        f"plug-in {name}": f"{about['version']} {about['source']}"
        for name, about in protocols.plugins_of(protocol).items()
    }


def perform_order(said: str, *files: bytes) -> tuple[str, Archive]:
    """What a worker does: perform an order's run in a folder of its own, and send report and folder back.

    The report is that of `fedsim.sweeps.worker.perform`, or has the status ``broke`` (the reason is a traceback) or ``other``
    (this node would give other results).
    """
    from fedsim.sweeps.worker import perform

    order = json.loads(said)
    differing = _differing(order["facts"], order["protocol"])
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
    from fedsim.config.yaml import parse, to_yaml

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


def _content(key: str, path: Path) -> bytes:
    if path.is_dir():
        raise FedsimError(f"{key} is the folder {path}, which nodes of a Ray cluster do not get; give a file")
    return path.read_bytes()


def _differing(wanted: Mapping[str, str], protocol: str) -> str:
    here = facts() | plugin_facts(protocol)
    found = [
        f"other code of fedsim ({here[name]:.8}, not {value:.8})"
        if name == "fedsim's code"
        else f"{name} {here.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if here.get(name) != value
    ]
    return "; ".join(found)


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()
