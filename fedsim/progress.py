"""What a person sees while a run works: phases with totals, and live figures beside them.

Code that works for a while takes a `Progress` and never asks where it is shown:

    with progress.phase("federation", total=80) as phase:
        phase.advance(1, virtual_s=12.5, accuracy=0.31, in_flight=192, dropped=3, wire_bytes=2_400_000)

A figure's name ends in its unit, as everywhere: ``_s`` is shown as a duration, ``_bytes`` as a size, other
floats with three decimals. Progress is for people: nothing is read back from it, and no record depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

from fedsim.config.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.console import Group as RichGroup
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

Stat = float | int | str


class Phase(Protocol):
    """One stretch of work under way; a context manager that finishes itself."""

    def advance(self, n: int = 1, **stats: Stat) -> None:
        """Report ``n`` more units done, and the figures as they are now (the others stay)."""

    def __enter__(self) -> Phase:
        """Return the phase itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the phase; an exception passes through and the phase is shown as stopped."""


class Progress(Protocol):
    """Where phases are shown."""

    def phase(self, name: str, total: int | None = None) -> Phase:
        """Start a phase of ``total`` units (None: not known beforehand)."""

    def note(self, text: str) -> None:
        """Show one line that stays."""

    def close(self) -> None:
        """Leave the terminal clean; harmless when called twice."""


def format_stats(stats: dict[str, Stat]) -> str:
    """Figures in one line for people: ``virtual 12.5 s · accuracy 0.310 · wire 2.3 MiB``; one that is not a number is left out.

    >>> format_stats({"virtual_s": 12.5, "accuracy": 0.31, "in_flight": 4, "wire_bytes": 2_400_000})
    'virtual 12.5 s · accuracy 0.310 · in flight 4 · wire 2.3 MiB'
    """
    known = {name: value for name, value in stats.items() if value == value}  # NaN is not equal to itself
    return " · ".join(_format_stat(name, value) for name, value in known.items())


def _format_stat(name: str, value: Stat) -> str:
    if isinstance(value, str):
        shown = value
    elif name.endswith("_s"):
        name, shown = name.removesuffix("_s"), format_seconds(value)
    elif name.endswith("_bytes"):
        name, shown = name.removesuffix("_bytes"), format_bytes(value)
    else:
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {shown}"


class SilentProgress:
    """Shows nothing; the default of `fedsim.run` called from Python, and of tests."""

    def phase(self, name: str, total: int | None = None) -> Phase:
        """Start a phase that nobody sees."""
        return _SilentPhase()

    def note(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class _SilentPhase:
    def advance(self, n: int = 1, **stats: Stat) -> None:
        pass

    def __enter__(self) -> Phase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class PlainProgress:
    """Lines of text for logs and pipes: one when a phase starts, one every few seconds, one when it ends.

    Args:
        stream: where the lines go.
        interval_s: real seconds between two lines of one phase.
        now_s: a monotonic clock; tests give their own.
    """

    def __init__(
        self, stream: TextIO, interval_s: float = 5.0, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self._now_s = now_s

    def phase(self, name: str, total: int | None = None) -> Phase:
        """Start a phase and say so."""
        return _PlainPhase(self.note, self._now_s, self._interval_s, name, total)

    def note(self, text: str) -> None:
        """Write one line."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: every line is complete already."""


class _PlainPhase:
    def __init__(
        self,
        write: Callable[[str], None],
        now_s: Callable[[], float],
        interval_s: float,
        name: str,
        total: int | None,
    ) -> None:
        self._write, self._now_s, self._interval_s = write, now_s, interval_s
        self._name, self._total = name, total
        self._done = 0
        self._stats: dict[str, Stat] = {}
        self._start_at_s = self._shown_at_s = now_s()
        write(f"{name}: started")

    def advance(self, n: int = 1, **stats: Stat) -> None:
        self._done += n
        self._stats |= stats
        now_s = self._now_s()
        if now_s - self._shown_at_s >= self._interval_s:
            self._shown_at_s = now_s
            self._write(self._line(f"{self._name}: {self._count()}", self._eta(now_s)))

    def __enter__(self) -> Phase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took = format_seconds(self._now_s() - self._start_at_s)
        verb = "done" if kind is None else "stopped"
        self._write(self._line(f"{self._name}: {verb} after {took}, {self._count()}", ""))

    def _count(self) -> str:
        return f"{self._done}/{self._total}" if self._total is not None else str(self._done)

    def _eta(self, now_s: float) -> str:
        if self._total is None or not 0 < self._done < self._total:
            return ""
        per_unit_s = (now_s - self._start_at_s) / self._done
        return f"ETA {format_seconds(per_unit_s * (self._total - self._done))}"

    def _line(self, head: str, eta: str) -> str:
        return " · ".join(part for part in (head, format_stats(self._stats), eta) if part)


class RichProgress:
    """Live bars on a terminal: phase, bar, count and time left, with the latest figures on the line below."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichBars

        self._console = Console(stderr=True)
        self._bars: RichBars = RichBars(
            SpinnerColumn(finished_text="*"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._figures = ""
        self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4)
        self._started = False

    def phase(self, name: str, total: int | None = None) -> Phase:
        """Start a phase with its own bar."""
        if not self._started:
            self._live.start()
            self._started = True
        return _RichPhase(self._bars, self._bars.add_task(name, total=total), self._show)

    def note(self, text: str) -> None:
        """Show one line above the bars."""
        self._console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Stop the live display and give the cursor back."""
        if self._started:
            self._live.stop()
            self._started = False

    def _show(self, stats: dict[str, Stat]) -> None:
        self._figures = format_stats(stats)

    def _render(self) -> RichGroup:
        from rich.console import Group
        from rich.text import Text

        return Group(self._bars.get_renderable(), Text(f"  {self._figures}", style="dim"))


class _RichPhase:
    def __init__(self, bars: RichBars, task: TaskID, show: Callable[[dict[str, Stat]], None]) -> None:
        self._bars, self._task, self._show = bars, task, show
        self._stats: dict[str, Stat] = {}

    def advance(self, n: int = 1, **stats: Stat) -> None:
        self._stats |= stats
        self._bars.update(self._task, advance=n)
        self._show(self._stats)

    def __enter__(self) -> Phase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            done = next(task.completed for task in self._bars.tasks if task.id == self._task)
            self._bars.update(self._task, total=done, completed=done)
        self._bars.stop_task(self._task)


def progress_for(stream: TextIO) -> Progress:
    """Live bars if ``stream`` is a terminal, plain lines otherwise."""
    return RichProgress() if stream.isatty() else PlainProgress(stream)
