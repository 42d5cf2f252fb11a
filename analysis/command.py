"""The command lines of pages and tables: paths in, what was written out; exit code 2 and one line if something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from fedsim.errors import InputError


def exit_code(work: Callable[[], object]) -> int:
    """Do the work and print what it comes to."""
    try:
        print(work())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def paths(arguments: list[str] | None, usage: str, *counts: int) -> list[Path]:
    """The command line as paths.

    Raises:
        InputError: there are more or fewer.
    """
    given = [Path(one) for one in (sys.argv[1:] if arguments is None else arguments)]
    if len(given) not in counts:
        raise InputError(f"usage: python -m {usage}")
    return given
