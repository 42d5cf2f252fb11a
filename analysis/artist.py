"""A second process that draws some of a page's figures, so that a page takes half as long where there is a second core.

    with artist_for("run", folder) as artist:
        ...                                     # it imports matplotlib while the page's data is still being written
        report.write_report(folder, artist)     # and draws its share

Figures have the same bytes whoever draws them. An artist that dies costs time alone: the figures it has not drawn are drawn
here. It ends when its standard input does, so it outlives nobody by more than a figure.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from fedsim import garbage

PAGES = {
    "run": "analysis.report",
    "stress": "analysis.stress_report",
    "comparison": "analysis.comparison_report",
}
"""The modules whose ``PAGE`` an artist can draw, by the name it is hired for."""

_READY = "ready"
_DRAWN = {True: "drawn", False: "left out"}


class LostError(Exception):
    """The artist has died."""


class Artist:
    """A process that was started to draw figures of one page; `draw` may be called as soon as the page's folder is written.

    Args:
        page: one of ``PAGES``.
        folder: the run's, comparison's or sweep's folder.
    """

    def __init__(self, page: str, folder: Path) -> None:
        home = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "analysis.artist", page, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what fails there fails here again, and is told
            env=os.environ | {"PYTHONPATH": path},
            text=True,
            process_group=0,  # Ctrl-C is for whoever hired it
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def await_ready(self) -> None:
        """Return when it has imported all that it needs.

        Raises:
            LostError: it has died.
        """
        self._hear(_READY)

    def draw(self, name: str) -> bool:
        """Have a figure drawn and saved, and await it; False where there is nothing to draw.

        Raises:
            LostError: it has died.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(f"{name}\n")
            self._child.stdin.flush()
        except (OSError, ValueError):
            raise LostError from None
        return self._hear(*_DRAWN.values()) == _DRAWN[True]

    def _hear(self, *expected: str) -> str:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            said = self._child.stdout.readline().strip()
            if said in expected:
                return said
        raise LostError

    def close(self) -> None:
        """End it, whatever it is doing; harmless when called twice."""
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def artist_for(page: str, folder: Path, *, if_worth_it: bool = True) -> AbstractContextManager[Artist | None]:
    """An artist for as long as the block lasts.

    None where it is not worth it (no figures, or no second core for them), and where no process can be started.
    """
    with contextlib.suppress(OSError):
        if if_worth_it:
            return contextlib.closing(Artist(page, folder))
    return contextlib.nullcontext()


def main(arguments: list[str] | None = None) -> int:
    """Draw what standard input names, a line each, until it ends."""
    name, folder = sys.argv[1:] if arguments is None else arguments
    with garbage.unsought():
        page = importlib.import_module(PAGES[name]).PAGE
    specs = {spec.name: spec for spec in page.specs}
    print(_READY, flush=True)
    source = None
    for line in sys.stdin:
        source = source or page.read(folder)
        print(_DRAWN[page.draw(specs[line.strip()], source)], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
