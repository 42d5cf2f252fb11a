"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from fedsim.config.limits import MAX_DIGITS, MAX_ECHO_CHARS, MAX_PROCESSES
from fedsim.errors import InputError

T = TypeVar("T")

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
BudgetOption = Annotated[
    float,
    typer.Option(
        min=0, help="Real seconds for what a check estimates; it refuses what cannot be in any case."
    ),
]
RunFiguresOption = Annotated[bool, typer.Option(help="Draw figures/ into the run folder.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@dataclass(frozen=True)
class SweepOptions:
    """What the commands that make many runs share: an option for each field."""

    out: Annotated[
        Path | None,
        typer.Option(help="The folder itself; by default runs/<name>. Finished runs in it are kept."),
    ] = None
    processes: Annotated[
        int | None, typer.Option(min=1, max=MAX_PROCESSES, help="Runs at a time; by default one per core.")
    ] = None
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Seeds instead of the file's, e.g. 0 or 0,1.")
    ] = None
    check_only: Annotated[
        bool, typer.Option("--check", help="Run nothing; say how many runs there are and what they take.")
    ] = False
    budget: BudgetOption = 10.0
    cache_dir: CacheOption = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Perform the runs on a Ray cluster: auto, host:port or ray://host:port; one of its own without an address.",
        ),
    ] = None
    figures: Annotated[bool, typer.Option(help="Draw figures/ into the folder.")] = True
    quiet: QuietOption = False

    def foresee(self, outlook: Callable[..., T], source: str) -> T:
        """What the runs would take."""
        seeds = seeds_in(self.seeds)
        return outlook(source, self.out, processes=self.processes, seeds=seeds, budget_s=self.budget)

    def perform(self, sweep: Callable[..., Path], source: str, **more: Any) -> Path:
        """Make the runs and draw their figures; the folder."""
        from fedsim.cli.shown import draw_figures, shown
        from fedsim.sweeps.workers import ExecutionConfig

        where, seeds = ExecutionConfig(self.processes, self.cache_dir, self.ray), seeds_in(self.seeds)
        with shown(self.quiet) as progress:
            folder = sweep(source, self.out, where=where, progress=progress, seeds=seeds, **more)
            if self.figures:
                draw_figures(folder, progress)
        return folder


def with_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that is given its parameter ``options`` as the options of `SweepOptions`, beside its own arguments."""
    shared = {field.name: field for field in fields(SweepOptions)}
    hints = get_type_hints(SweepOptions, include_extras=True)

    @functools.wraps(command)
    def called(*arguments: Any, **given: Any) -> None:
        options = SweepOptions(**{name: given.pop(name) for name in shared if name in given})
        command(*arguments, **given, options=options)

    own = inspect.signature(command, eval_str=True).parameters.values()
    named = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, named, default=field.default, annotation=hints[name])
        for name, field in shared.items()
    ]
    kept = [parameter for parameter in own if parameter.name != "options"]
    called.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined] # typer reads it
    return called


def seeds_in(text: str | None) -> tuple[int, ...] | None:
    """Seeds as typed for ``--seeds``, separated by commas.

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
