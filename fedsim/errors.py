"""The whole exception tree of fedsim, drawn in one place.

    FedsimError
    ├── InputError            what a user wrote is wrong: one line, exit code 2
    │   ├── ScenarioError       a scenario file, a preset or a --set override
    │   │   └── PluginError       names a third party's protocol that does not keep the contract (docs/plugins.md)
    │   ├── DataFileError       a question file, a device file or a trace
    │   ├── ModelFileError      a model folder or a weight file
    │   ├── CacheError          a file of the cache that is not what was written into it
    │   └── RunFolderError      a run folder that is foreign, taken, torn or newer
    ├── RequestError          a client request that brought no usable reply (data, not a bug)
    │   ├── ClientOffline       the device was away when the request was sent
    │   ├── ClientDropped       the device left or gave up; carries the phase
    │   ├── TransferCut         the link was cut mid-transfer; carries the direction
    │   └── ReplyRejected       the reply came, and the server refused it at its boundary; carries the reason
    ├── Deadlock              tasks wait and nothing can ever happen any more
    ├── FederationError       a run that cannot go on: empty federation, nobody eligible, impossible quorum
    ├── LimitExceeded         the run's limit on virtual time or events was met
    │   └── OutOfTime           the real time of a look ahead was over
    ├── LostError             a child process ended without an answer; carries how, and the end of what it printed
    └── InvariantViolation    the books do not balance: a bug in fedsim

    KeyboardInterrupt
    └── RunInterrupted        a signal ended a run; carries the run's folder, with which `fedsim resume` goes on

Positional arguments only: SimPy rebuilds an exception from its ``args``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self


class FedsimError(Exception):
    """Root of every error that fedsim raises on purpose."""


class InputError(FedsimError):
    """What the user gave is wrong; the message is one line that says where, what and what is allowed.

    Attributes:
        key: the scenario's key that asks for it, if one is known and the message does not yet say where it was written;
            `fedsim.config.validation.located` puts that before the message.
    """

    key: tuple[str | int, ...] = ()

    def at(self, *key: str | int) -> Self:
        """The same error, which stands under this key of the scenario."""
        self.key = key
        return self


class ScenarioError(InputError):
    """A scenario, preset or override is wrong: ``file:line: key is X; must be Y``."""


class DataFileError(InputError):
    """A question, device or trace file is wrong."""


class ModelFileError(InputError):
    """A model folder or weight file cannot be used."""


class PluginError(ScenarioError):
    """A third party's protocol is not what the contract says; the message ends with the page that explains it."""

    def __str__(self) -> str:
        said, page = super().__str__(), "docs/plugins.md"
        return said if page in said else f"{said} (the contract: {page})"


class CacheError(InputError):
    """A file of the cache of models and questions has other bytes than were written; the folder is to go."""


class RunFolderError(InputError):
    """A run folder is taken, foreign, torn, or from a newer version."""


class RequestError(FedsimError):
    """A client request ended without a usable reply; siblings go on."""


class ClientOffline(RequestError):
    """The device was not available when the request was sent."""


class ClientDropped(RequestError):
    """The device left, or gave the task up, during a phase: ``down``, ``queue``, ``compute`` or ``up``."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.phase = phase


class TransferCut(RequestError):
    """A transfer was cut mid-way; carries its direction, ``down`` or ``up``."""

    def __init__(self, direction: str) -> None:
        super().__init__(direction)
        self.direction = direction


class ReplyRejected(RequestError):
    """A reply arrived that the server does not accept: of the wrong length, not finite, out of range; carries the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Deadlock(FedsimError):
    """Some task waits while no event can ever wake it; the message lists who waits for what."""


class FederationError(FedsimError):
    """The federation cannot do what the protocol asks, and waiting will not help."""


class LimitExceeded(FedsimError):
    """A run's limit on virtual time or number of events was met."""


class OutOfTime(LimitExceeded):
    """The real time that there was for a look ahead was over."""


class LostError(FedsimError):
    """A child process ended before it had answered.

    Attributes:
        ended: its exit code, or the signal's name.
        printed: the end of what it printed.
    """

    def __init__(self, ended: str, printed: str) -> None:
        super().__init__(ended, printed)
        self.ended = ended
        self.printed = printed

    def __str__(self) -> str:
        return f"ended ({self.ended}): {self.last_line}"

    @property
    def last_line(self) -> str:
        """The last of what it printed: of a traceback, what went wrong."""
        return (self.printed.splitlines() or ["it said nothing"])[-1]


class InvariantViolation(FedsimError):
    """A run-end check failed; the message holds the offending records."""


class RunInterrupted(KeyboardInterrupt):
    """A run was ended by a signal; carries its folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder
