"""Arguments and options that several commands share, and the seeds that one of them lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsim.config.limits import MAX_DIGITS, MAX_ECHO_CHARS, MAX_PROCESSES
from fedsim.errors import InputError

ScenarioArgument = Annotated[
    str,
    typer.Argument(metavar="SCENARIO", help="A scenario file, or a shipped scenario's name (fedsim list)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override path.to.key with a YAML value; repeatable."),
]
SeedOption = Annotated[int | None, typer.Option(help="Override the scenario's seed.")]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FEDSIM_CACHE", file_okay=False, help="Where trained models are kept; else the user's cache."
    ),
]
RunFiguresOption = Annotated[bool, typer.Option(help="Draw figures/ into the run folder.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# Of commands that make many runs.
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, max=MAX_PROCESSES, help="Runs at a time; by default one per core.")
]
SeedsOption = Annotated[
    str | None, typer.Option(metavar="N,N,...", help="Seeds instead of the file's, e.g. 0 or 0,1.")
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Run nothing; say how many runs there are and what they take.")
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Perform the runs on a Ray cluster: auto, host:port or ray://host:port; one of its own without an address.",
    ),
]


def seeds_in(text: str | None) -> tuple[int, ...] | None:
    """Seeds as typed for `SeedsOption`, separated by commas.

    Raises:
        InputError: it is anything else.
    """
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS for word in words):
        raise InputError(
            f"--seeds {text:.{MAX_ECHO_CHARS}}: must be whole numbers separated by commas, e.g. 0,1,2; at most "
            f"{MAX_DIGITS} digits each"
        )
    return tuple(int(word) for word in words)
