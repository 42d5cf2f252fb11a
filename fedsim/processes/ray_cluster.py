"""A Ray cluster (extra ``ray``): one that is there already, or one that is started here and stopped again.

Ray is imported when a cluster is asked for, and by nothing else. Ray speaks pickle between its processes: connecting to a
cluster means trusting it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedsim.errors import InputError, LostError
from fedsim.processes.children import Child, ready
from fedsim.processes.cores import environment
from fedsim.progress import Progress

LOCAL = "local"
"""The address of a cluster that is started here and stopped when it is no longer needed."""

ON_RAY = "FEDSIM_ON_RAY"
"""Set in the environment of a run that Ray performs."""

LIVES = 3
"""How often what a worker does is begun that dies: what exhausts a node's memory would go on for ever."""

_CLIENT = "ray://"
_HINT = " (a cluster that asks for tokens needs RAY_AUTH_MODE=token)"
_ANSWER_S = 5.0  # how long a host may take to accept a connection
_REACH_S = 45.0  # how long a cluster may take to take somebody in


class Cluster:
    """A Ray cluster that runs are performed on: one that is started here, or one that is there already.

    Whether there is one is asked at once, so that a wrong address is refused while nothing is written; a cluster of our own is
    started only by `open`.

    Args:
        address: ``local``, ``auto``, ``host:port`` or ``ray://host:port``.
        num_cpus: of a cluster that is started here.
        progress: where notes are shown.
        asker: the option or key that asks for it, for messages.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address in time.
    """

    def __init__(self, address: str, num_cpus: int, progress: Progress, asker: str = "--ray") -> None:
        self.ray = _ray(asker)
        self.progress = progress
        self._address = address
        self._asked = f"{asker} {address}"
        self._num_cpus = num_cpus
        self._folder: Path | None = None
        self._is_open = False
        if address.startswith(_CLIENT):  # Ray's client says in time that nobody answers
            _knock(address, self._asked)
            self._open()
        elif address != LOCAL:
            _reach(address, self._asked)

    def open(self) -> None:
        """Connect, or start it; harmless when called twice, and where this process is connected already."""
        if not self.ray.is_initialized():
            self._open()

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
                self.ray.init(
                    address=LOCAL,
                    num_cpus=self._num_cpus,
                    include_dashboard=False,
                    _temp_dir=str(self._folder),
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            except (ConnectionError, RuntimeError, OSError, ValueError) as error:
                self.close()
                hint = "" if self._address == LOCAL else _HINT
                raise InputError(f"{self._asked}: {first_line(error)}{hint}") from None


def _ray(asker: str) -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise InputError(
            f"{asker} needs Ray, which is not installed: pip install 'fedgrpo-sim[ray]'"
        ) from None


def _reach(address: str, asked: str) -> None:
    """Refuse an address at which no cluster takes us in.

    Ray waits for a minute for one that is not there, and may end the process then: so a child asks first.

    Raises:
        InputError: nobody listens there, or it is no Ray cluster.
    """
    _knock(address, asked)
    refused = f"{asked}: no Ray cluster answers there"
    with contextlib.closing(Child()) as child:
        child.ask(_visit, address)
        if not ready([child], _REACH_S):
            raise InputError(f"{refused} within {_REACH_S:g} s")
        try:
            child.answer()
        except LostError as lost:
            raise InputError(f"{refused}: {lost.last_line}{_HINT}") from None


def _visit(address: str) -> None:
    ray = importlib.import_module("ray")
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ray.shutdown()


def _knock(address: str, asked: str) -> None:
    if address == "auto":
        return
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InputError(f"{asked}: must be auto, host:port or ray://host:port")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise InputError(f"{asked}: nobody answers there: {error}") from None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handlers of this process: Ray puts its own in the place of that of SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(ValueError, TypeError):  # not in the main thread, or not one of Python's
                signal.signal(number, handler)


def worker_options(threads: int, device: str, gpu_share: float) -> dict[str, Any]:
    """What a worker takes of its node and finds in its environment, as Ray's options of a task or an actor."""
    return {
        "num_cpus": float(threads),
        "num_gpus": gpu_share if device == "cuda" else 0.0,
        "runtime_env": {"env_vars": environment(threads, threads) | {ON_RAY: "1"}},
    }


def first_line(error: BaseException) -> str:
    """An error as one line: its name and the first thing it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
