"""Sessions from a file: CSV with the columns client, start and end, in seconds.

    client,start,end
    0,0,600
    0,1200,1500.5
    1,,
    2,30,90

Clients are numbered from 0 without a gap and stand in this order; a client's sessions stand in order of time, with time between
them. A client that is never there has one row without start and end. Device k of a run lives the trace of client k modulo the
number of clients in the file. After the trace's end it starts again, or everybody stays away.
"""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from fedsim.config.files import finite_decimal, read_text
from fedsim.config.limits import MAX_DATA_BYTES, MAX_VIRTUAL_S
from fedsim.config.strict import SHORTEST_CYCLE_S
from fedsim.config.units import LONGEST
from fedsim.errors import DataFileError
from fedsim.sim.devices.availability_config import TraceConfig
from fedsim.sim.devices.presence import StatedAvailability

COLUMNS = ("client", "start", "end")

Span = tuple[float, float]


class Trace(StatedAvailability):
    """The sessions of a trace file, lived by the devices of a run.

    Args:
        config: the scenario's settings.
        folder: where a relative file is looked up.
        scores: one score per client: the traces that these devices would live are dealt anew, so that the client with the
            highest score lives the one with the smallest share of time.

    Raises:
        DataFileError: the file is missing or wrong; the message starts with ``file:line``.
    """

    def __init__(self, config: TraceConfig, folder: Path, scores: Sequence[float] | None = None) -> None:
        path = folder / config.file
        self._sessions = read_trace(path)
        last_s = max((end for spans_of in self._sessions for _, end in spans_of), default=0.0)
        self._length_s = last_s if config.length is None else config.length
        if last_s > self._length_s:
            raise DataFileError(
                f"availability.length is {self._length_s:g} s; must be at least {last_s:g} s, the end of {path}'s last session"
            ).at("availability", "length")
        if config.at_end == "repeat" and last_s > 0 and self._length_s < SHORTEST_CYCLE_S:
            raise DataFileError(
                f"{path}: the trace repeats every {self._length_s:g} s; must be at least {SHORTEST_CYCLE_S:g} s"
            )
        self._repeats = config.at_end == "repeat" and last_s > 0
        self._changes = [self._changes_of(spans_of) for spans_of in self._sessions]
        self._dealt = None if scores is None else self._deal(scores)

    def is_on(self, client_id: int, at_s: float) -> bool:
        """Whether the client is in a session of its trace."""
        trace = self._trace_of(client_id)
        starts_on, changes = self._changes[trace]
        return starts_on ^ bool(self._changes_until(changes, at_s) & 1)

    def next_change(self, client_id: int, at_s: float) -> float:
        """The next start or end of a session; infinity after the last."""
        _, changes = self._changes[self._trace_of(client_id)]
        n = self._changes_until(changes, at_s)
        if not changes or (not self._repeats and n == len(changes)):
            return math.inf
        return self._instant(changes, n)

    def share_of(self, client_id: int) -> float:
        """The share of the trace that is sessions."""
        return self._share(self._trace_of(client_id))

    def _trace_of(self, client_id: int) -> int:
        if self._dealt is not None:
            return self._dealt[client_id]
        return client_id % len(self._sessions)

    def _share(self, trace: int) -> float:
        return math.fsum(end - start for start, end in self._sessions[trace]) / (self._length_s or 1.0)

    def _changes_of(self, sessions: Sequence[Span]) -> tuple[bool, list[float]]:
        """Whether the client is there at 0, and when that changes in (0, length], over and over again if the trace repeats."""
        starts_on = bool(sessions) and sessions[0][0] == 0.0
        changes = [instant for session in sessions for instant in session if instant > 0]
        if self._repeats and starts_on:
            # A session that ends with the trace goes on in the first one; else that one begins anew.
            touches = changes[-1] == self._length_s
            changes = changes[:-1] if touches else [*changes, self._length_s]
        return starts_on, changes

    def _changes_until(self, changes: Sequence[float], at_s: float) -> int:
        """How many changes there were up to and at this instant."""
        if not changes or not self._repeats:
            return bisect_right(changes, at_s)
        # By comparing the very instants that next_change gives: their sums are rounded.
        n = max(int(at_s // self._length_s) - 1, 0) * len(changes)
        while self._instant(changes, n + len(changes) - 1) <= at_s:
            n += len(changes)
        while self._instant(changes, n) <= at_s:
            n += 1
        return n

    def _instant(self, changes: Sequence[float], n: int) -> float:
        turn, index = divmod(n, len(changes))
        return turn * self._length_s + changes[index]

    def _deal(self, scores: Sequence[float]) -> list[int]:
        traces = sorted(
            (client_id % len(self._sessions) for client_id in range(len(scores))),
            key=self._share,
            reverse=True,
        )
        dealt = [0] * len(scores)
        for trace, client_id in zip(traces, sorted(range(len(scores)), key=scores.__getitem__), strict=True):
            dealt[client_id] = trace
        return dealt


def read_trace(path: Path) -> list[list[Span]]:
    """The sessions [start, end) of every client of a trace file, in seconds.

    Raises:
        DataFileError: it cannot be read, is over 256 MiB or has no row; a row is not three cells, not numbers, ends before it
            starts, lies before zero, or is out of order; clients are not 0, 1, 2 ... in the order of the file.
    """
    sessions: list[list[Span]] = []
    never: set[int] = set()
    try:
        text = read_text(path, MAX_DATA_BYTES, DataFileError)
    except DataFileError as error:
        raise error.at("availability", "file") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if tuple(cell.strip() for cell in header) != COLUMNS:
            raise DataFileError(f"{path}:1: the header is {','.join(header)!r}; must be client,start,end")
        for cells in reader:
            if cells:
                _add_row(sessions, never, [cell.strip() for cell in cells], f"{path}:{reader.line_num}")
    except csv.Error as error:
        raise DataFileError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    if not sessions:
        raise DataFileError(f"{path}:1: the file has a header and no session; add a row client,start,end")
    return sessions


def _add_row(sessions: list[list[Span]], never: set[int], cells: Sequence[str], where: str) -> None:
    if len(cells) != len(COLUMNS):
        raise DataFileError(f"{where}: the row has {len(cells)} cells; must be client,start,end")
    client_id = _client(cells[0], len(sessions), where)
    if client_id == len(sessions):
        sessions.append([])
    mine = sessions[client_id]
    if cells[1:] == ["", ""]:
        if mine or client_id in never:
            raise DataFileError(
                f"{where}: client {client_id} has other rows; a row without times stands alone"
            )
        never.add(client_id)
        return
    start_s, end_s = (_seconds(name, cell, where) for name, cell in zip(COLUMNS[1:], cells[1:], strict=True))
    if client_id in never:
        raise DataFileError(f"{where}: client {client_id} is never there, as an earlier row says")
    if end_s <= start_s:
        raise DataFileError(
            f"{where}: the session ends at {end_s:g} s; must be after its start, {start_s:g} s"
        )
    if mine and start_s <= mine[-1][1]:
        raise DataFileError(
            f"{where}: the session starts at {start_s:g} s; must be after the end of client {client_id}'s session before, "
            f"{mine[-1][1]:g} s"
        )
    mine.append((start_s, end_s))


def _client(cell: str, num_clients: int, where: str) -> int:
    expected = f"{num_clients - 1} or {num_clients}" if num_clients else "0"
    for client_id in (num_clients - 1, num_clients):
        if client_id >= 0 and cell == str(client_id):
            return client_id
    raise DataFileError(
        f"{where}: client is {_shown(cell)}; must be {expected}: clients are numbered from 0 in the order of the file"
    )


def _seconds(name: str, cell: str, where: str) -> float:
    seconds = finite_decimal(cell)
    if seconds is None or seconds < 0:
        raise DataFileError(
            f"{where}: {name} is {_shown(cell)}; must be a finite number of seconds, zero or more"
        )
    if seconds > MAX_VIRTUAL_S:
        raise DataFileError(f"{where}: {name} is {_shown(cell)}; must be at most {LONGEST}")
    return seconds


def _shown(cell: str) -> str:
    return repr(cell) if len(cell) <= 60 else f"{cell[:57]!r}..."
