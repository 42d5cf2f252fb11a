"""What a person sees of a run beside its results: progress, figures as its last phase, how to go on after an interruption."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.config.limits import MAX_MESSAGE_CHARS
from fedsim.errors import RunInterrupted

if TYPE_CHECKING:
    from fedsim.progress import Progress
    from fedsim.records.run import Run


class EndedError(Exception):
    """A command was interrupted; the message says how to go on."""


def one_line(text: str) -> str:
    """A message as one line that a terminal only shows: names from outside may hold anything."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    half = MAX_MESSAGE_CHARS // 2
    return shown if len(shown) <= MAX_MESSAGE_CHARS else f"{shown[:half]} ... {shown[-half:]}"


@contextlib.contextmanager
def shown(quiet: bool) -> Iterator[Progress]:
    """Progress on standard error until the command has ended, unless it is to be quiet."""
    from fedsim.progress import SilentProgress, progress_for

    progress = SilentProgress() if quiet else progress_for(sys.stderr)
    try:
        yield progress
    finally:
        progress.close()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Work on one run; a signal to end it, Ctrl-C or SIGTERM, is said with what to do next."""
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except RunInterrupted as interrupted:
        folder = shlex.quote(str(interrupted.folder))
        raise EndedError(f"interrupted; to go on: fedsim resume {folder}") from None
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def draw_figures(folder: Path, progress: Progress) -> None:
    """Draw a folder's figures; whoever interrupts that is told how to have them, since what they are of is whole."""
    try:
        with progress.phase("figures"):
            from fedsim.figures.draw import draw

            draw(folder)
    except KeyboardInterrupt:
        again = f"fedsim figures {shlex.quote(str(folder))}"
        raise EndedError(f"interrupted; what was run is kept; to draw it: {again}") from None


def print_run(finished: Run) -> None:
    """The few figures that a run is about, then its folder."""
    from fedsim.records.summary import summary_lines

    for label, text in summary_lines(finished.summary):
        print(f"{label}: {text}")
    print(finished.folder)
