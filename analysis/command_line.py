"""The one command line of the pages: a folder in, the place of what was written out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fedsim.errors import InputError


def write_page(
    write: Callable[[str], Sequence[Path]], usage: str, arguments: Sequence[str] | None = None
) -> int:
    """Write a folder's page and print where it lies; exit code 2 and one line if the folder is not one.

    Args:
        write: writes the page of a folder and returns its files, the index last.
        usage: what to say when not exactly one folder is given.
        arguments: the command line's; default those of the process.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print(f"usage: {usage}", file=sys.stderr)
        return 2
    try:
        written = write(given[0])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(written[-1].parent)
    return 0
