"""The ``fedsim`` command: arguments, progress and exit codes; everything it does is a function elsewhere.

Exit codes: 0 done, 1 the run failed (one line says why), 2 what was given is wrong (one line says where), 130
interrupted. A bug in fedsim is neither: it shows its traceback. Heavy modules are imported by the commands
that need them, so that ``fedsim --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsim.config.limits import MAX_DIGITS, MAX_ECHO_CHARS, MAX_MESSAGE_CHARS, MAX_PROCESSES
from fedsim.errors import FedsimError, InputError, InvariantViolation, RunInterrupted
from fedsim.processes import gc_policy

if TYPE_CHECKING:
    from fedsim.progress import Progress
    from fedsim.records.run import Run

_ADDRESS = re.compile(r"local|auto|ray://.*|[^\s/]+:\d+")

app = typer.Typer(
    help="Simulate federated learning of language models: real small models, simulated devices and networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScenarioArgument = Annotated[
    str,
    typer.Argument(metavar="SCENARIO", help="A scenario file, or a shipped scenario's name (fedsim list)."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override path.to.key with a YAML value; repeatable."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FEDSIM_CACHE", file_okay=False, help="Where trained models are kept; else the user's cache."
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="[ADDRESS]",
        help="Perform the runs on a Ray cluster: auto, host:port or ray://host:port; one of its own without an address.",
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Override the scenario's seed.")]


@app.command()
def run(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    seed: SeedOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder itself; by default runs/<name>-<seed>-<n>.")
    ] = None,
    cache_dir: CacheOption = None,
    figures: Annotated[bool, typer.Option(help="Draw figures/ into the run folder.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run a scenario; the last line printed is the run folder."""
    with gc_policy.unsought():
        from fedsim.scenario.schema import read_scenario

        settings = read_scenario(scenario, assignments or (), seed)
        from fedsim.experiment import run as experiment

    with _shown(quiet) as progress:
        finished = experiment.run(settings, out=out, cache_dir=cache_dir, progress=progress)
        if figures:
            _draw(finished.folder, progress)
    _print_run(finished)


@app.command()
def resume(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run that was interrupted or killed.")
    ],
    cache_dir: CacheOption = None,
    figures: Annotated[bool, typer.Option(help="Draw figures/ into the run folder.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Go on with a run to the very end it would have had; the last line printed is the run folder."""
    from fedsim.records.run_folder import read_manifest

    if read_manifest(folder)["status"] == "finished":
        print(f"{folder} has finished; there is nothing to resume")
        return
    from fedsim.experiment.replay import resume as resuming

    with _shown(quiet) as progress:
        finished = resuming.resume(folder, cache_dir=cache_dir, progress=progress)
        if figures:
            _draw(finished.folder, progress)
    _print_run(finished)


class How(enum.StrEnum):
    """How a run is verified."""

    RECOMPUTED = "recomputed"
    REPLAYED = "replayed"


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    how: Annotated[
        How | None,
        typer.Option(
            help="By default recomputed where program and machine are the run's own, else replayed."
        ),
    ] = None,
    cache_dir: CacheOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Repeat a finished run and compare every record; exit code 1 if one differs. Nothing is written into the folder."""
    from fedsim.experiment.replay import verify as verifying

    with _shown(quiet) as progress:
        verdict = verifying.verify(
            folder, how=None if how is None else how.value, cache_dir=cache_dir, progress=progress
        )
    if verdict.why is not None:
        print(f"replayed, not recomputed: {verdict.why}")
    for line in (*verdict.drift, *verdict.differences):
        print(line)
    if verdict.differences:
        print(f"{folder} does NOT repeat")
        raise typer.Exit(1)
    what = "records, summary and final policy" if verdict.how == "recomputed" else "records and summary"
    print(f"{folder} repeats: {what} are the same, {verdict.how}")


@app.command()
def compare(
    comparison: Annotated[
        str,
        typer.Argument(
            metavar="COMPARISON", help="A comparison file, or a shipped one's name, e.g. evidence."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The comparison's folder itself; by default runs/<name>. Finished runs in it are kept."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=MAX_PROCESSES, help="Runs at a time; by default one per core.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Seeds instead of the file's, e.g. 0 or 0,1.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="First choose settings on the file's grid (validation questions).")
    ] = False,
    check_only: Annotated[
        bool, typer.Option("--check", help="Run nothing; say how many runs there are and what they take.")
    ] = False,
    cache_dir: CacheOption = None,
    ray: RayOption = None,
    figures: Annotated[bool, typer.Option(help="Draw figures/ into the comparison's folder.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run a scenario in several variants and seeds, in parallel; the last line printed is the folder."""
    chosen = _seeds(seeds)
    if check_only:
        _print_outlook(comparison, out, processes, chosen)
        return
    with gc_policy.unsought():
        from fedsim.progress import SilentProgress, progress_for
        from fedsim.sweeps.compare import run as sweep
        from fedsim.sweeps.workers import Where

    progress = SilentProgress() if quiet else progress_for(sys.stderr)
    try:
        folder = sweep.compare(
            comparison,
            out,
            where=Where(processes, cache_dir, ray),
            progress=progress,
            seeds=chosen,
            tune=tune,
        )
        if figures:
            _draw(folder, progress)
    finally:
        progress.close()
    if tune:
        print((folder / "tuning.md").read_text(encoding="utf-8"))
    print((folder / "comparison.md").read_text(encoding="utf-8"))
    if figures:
        print(folder / "figures" / "index.html")
    print(folder)


@app.command()
def stress(
    sweep: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A sweep's file, or a shipped one's name, e.g. stragglers.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The sweep's folder itself; by default runs/<name>. Finished runs in it are kept."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=MAX_PROCESSES, help="Runs at a time; by default one per core.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Seeds instead of the file's, e.g. 0 or 0,1.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Run nothing; say how many runs there are and what they take.")
    ] = False,
    cache_dir: CacheOption = None,
    ray: RayOption = None,
    figures: Annotated[bool, typer.Option(help="Draw heat maps into the sweep's folder.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run a scenario under every setting of some axes (or random ones); the last line printed is the folder."""
    with gc_policy.unsought():
        from fedsim.sweeps.stress import run as stressing

    chosen = _seeds(seeds)
    if check_only:
        for line in stressing.outlook_lines(sweep, out, processes=processes, seeds=chosen):
            print(line)
        return
    from fedsim.progress import SilentProgress, progress_for
    from fedsim.sweeps.workers import Where

    progress = SilentProgress() if quiet else progress_for(sys.stderr)
    try:
        folder = stressing.stress(
            sweep,
            out,
            where=Where(processes, cache_dir, ray),
            progress=progress,
            seeds=chosen,
        )
        if figures:
            _draw(folder, progress)
    finally:
        progress.close()
    print((folder / "stress.md").read_text(encoding="utf-8").partition("\n## Time to finish")[0])
    for name in ("stress.md", "why.md", *(["figures/index.html"] if figures else [])):
        print(folder / name)
    print(folder)


@app.command()
def figures(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders of runs, of comparisons and of stress sweeps."),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Draw figures/ into folders that runs, comparisons and stress sweeps left (again); the pages are printed."""
    with gc_policy.unsought():
        import fedsim.figures.draw  # noqa: F401

    for folder in folders:
        with _shown(quiet) as progress:
            _draw(folder, progress)
        print(folder / "figures" / "index.html")


@app.command()
def check(scenario: ScenarioArgument, assignments: SetOption = None, seed: SeedOption = None) -> None:
    """Validate a scenario, print it with every default filled in, and estimate what a run will take.

    Of a comparison or a sweep: validate every run, and say how many there are and what each will take.
    """
    with gc_policy.unsought():
        from fedsim.scenario.schema import is_comparison, is_sweep, read_scenario

    if not assignments and seed is None and is_comparison(scenario):
        _print_outlook(scenario, None, None, None)
        return
    if not assignments and seed is None and is_sweep(scenario):
        stress(scenario, check_only=True)
        return
    with gc_policy.unsought():
        settings = read_scenario(scenario, assignments or (), seed)
        from fedsim.experiment.forecast.estimate import estimate

    foreseen = estimate(settings)  # first of all: it also looks at the files that the scenario names
    print(settings.to_yaml())
    print("# estimate")
    for line in _figures(dataclasses.asdict(foreseen)):
        print(f"#   {line}")


@app.command()
def leakage(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run with real models.")
    ],
    rows: Annotated[
        int, typer.Option(min=1, help="Most rows of a client that are attacked, and as many others.")
    ] = 200,
    cache_dir: CacheOption = None,
) -> None:
    """Attack a finished run: membership inference and disclosed answers; the last line printed is leakage.json."""
    from fedsim.experiment import leakage as attacks
    from fedsim.figures.leakage import table

    report = attacks.measure(folder, cache_dir=cache_dir, rows_per_client=rows)
    print(table({folder.name: report}))
    print(folder / attacks.LEAKAGE)


@app.command()
def devices(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    seed: SeedOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the tables and the figure; by default runs/<name>-devices."),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw devices.png and devices.svg.")] = True,
) -> None:
    """Show a scenario's devices: quantiles per class, what one request takes, how unequal they are; last line: the folder."""
    from fedsim.scenario.schema import read_scenario

    settings = read_scenario(scenario, assignments or (), seed)
    from fedsim.experiment.forecast import device_table

    table = device_table.population_table(settings)
    folder = out or Path("runs") / f"{settings.name}-devices"
    device_table.write_population(table, folder)
    for line in device_table.lines(table):
        print(line)
    if figures:
        from fedsim.figures.devices.figure import write_figure

        print(write_figure(table, folder)[0])
    print(folder)


@app.command(name="list")
def list_() -> None:
    """List protocols, device, link, model, text and world presets, and shipped scenarios."""
    from fedsim.federation.text_lengths import length_presets
    from fedsim.models.config import PRESETS
    from fedsim.scenario.named_worlds import world_descriptions
    from fedsim.scenario.schema import (
        protocol_settings,
        shipped_comparisons,
        shipped_scenarios,
        shipped_sweeps,
    )
    from fedsim.sim.devices.presets import architectures, device_presets, link_names

    protocols = {
        name: model.model_fields["name"].description or "" for name, model in protocol_settings().items()
    }
    _print_section("protocols (protocol.name)", protocols)
    _print_section("device presets (clients, server.preset)", dict.fromkeys(device_presets(), ""))
    _print_section("links (clients.<class>.link)", dict.fromkeys(link_names(), ""))
    _print_section("model presets (models.server, models.clients)", dict.fromkeys(PRESETS, ""))
    _print_section("architectures (models.bill_as)", dict.fromkeys(architectures(), ""))
    _print_section("text lengths (text.question, text.answer)", dict.fromkeys(length_presets(), ""))
    _print_section("worlds (world)", world_descriptions())
    _print_files("scenarios", "fedsim run", shipped_scenarios())
    _print_files("comparisons", "fedsim compare", shipped_comparisons())
    _print_files("sweeps", "fedsim stress", shipped_sweeps())


@app.command()
def schema() -> None:
    """Print the JSON schema of a scenario file, for editors."""
    from fedsim.scenario.docs import scenario_schema

    print(json.dumps(scenario_schema(), indent=2))


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    request: Annotated[int | None, typer.Option(min=0, help="Tell the story of one request.")] = None,
    client: Annotated[int | None, typer.Option(min=0, help="Tell the story of one client.")] = None,
) -> None:
    """Show a run's summary, or what happened to one request or client, line by line in virtual time."""
    from fedsim.config.yaml import to_yaml
    from fedsim.records.run import load
    from fedsim.records.story import story

    loaded = load(folder)
    if request is None and client is None:
        print(to_yaml(loaded.summary), end="")
        return
    for line in story(loaded, request=request, client=client):
        print(line)


def _print_version(wanted: bool) -> None:
    if wanted:
        from fedsim.records.provenance import versions

        print(f"fedsim {versions()['fedsim']}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; ``argv`` is without the program's name."""
    # Before numpy is imported: the bits of its products depend on the number of threads (fedsim.sweeps.cores.BLAS).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Before pydantic is used: looking for plugins, which fedsim has no use for, reads what every installed package declares.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        # typer turns Ctrl-C, and typer.Exit, into a returned exit code.
        exit_code = app(
            args=_with_address(sys.argv[1:] if argv is None else argv),
            prog_name="fedsim",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except _EndedError as ended:
        return _say(str(ended), 130)
    except InvariantViolation:
        raise
    except InputError as error:
        return _say(str(error), 2)
    except FedsimError as error:
        return _say(f"{type(error).__name__}: {error}", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: not our failure
        return 0
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a usage error of the parser
            return _say(error.format_message(), 2)
        raise
    if exit_code == 130:
        return _say("interrupted", 130)
    return exit_code if isinstance(exit_code, int) else 0


def _with_address(argv: Sequence[str]) -> list[str]:
    """The arguments with an address for every ``--ray`` that has none: the parser knows no option with a value or without.

    >>> _with_address(["stress", "--ray", "auto", "grid.yaml"]), _with_address(["stress", "--ray", "grid.yaml"])
    (['stress', '--ray', 'auto', 'grid.yaml'], ['stress', '--ray=local', 'grid.yaml'])
    """
    return [
        "--ray=local" if word == "--ray" and not _ADDRESS.fullmatch(following) else word
        for word, following in zip(argv, [*argv[1:], ""], strict=True)
    ]


def _figures(values: Mapping[str, Any]) -> Iterable[str]:
    """Named figures, one a line, with units from their names."""
    from fedsim.progress import format_stats

    for name, value in values.items():
        if value is not None:
            yield format_stats({name: value})


def _print_section(title: str, rows: Mapping[str, str]) -> None:
    width = max(map(len, rows), default=0)
    print(f"{title}:")
    for name, text in rows.items():
        print(f"  {name:{width}}  {text}".rstrip())
    print()


def _print_files(kind: str, command: str, files: Mapping[str, Path]) -> None:
    """Shipped files with their first comments, a section for each folder."""
    folders: dict[str, dict[str, str]] = {}
    for name, path in files.items():
        folders.setdefault(name.rpartition("/")[0], {})[name] = _first_comment(path)
    for folder, rows in folders.items():
        where = f" in {folder}" if folder else ""
        _print_section(f"{kind}{where} ({command} {f'{folder}/' if folder else ''}NAME)", rows)


def _print_outlook(
    comparison: str, out: Path | None, processes: int | None, seeds: tuple[int, ...] | None
) -> None:
    from fedsim.sweeps.compare import outlook

    for line in outlook.lines(outlook.outlook(comparison, out, processes=processes, seeds=seeds)):
        print(line)


class _EndedError(Exception):
    """A run was interrupted; the message says how to go on with it."""


@contextlib.contextmanager
def _shown(quiet: bool) -> Iterator[Progress]:
    """Progress for a command that works on one run; a signal to end it, Ctrl-C or SIGTERM, is said with what to do next."""
    from fedsim.progress import SilentProgress, progress_for

    progress = SilentProgress() if quiet else progress_for(sys.stderr)
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield progress
    except RunInterrupted as interrupted:
        progress.close()
        raise _EndedError(
            f"interrupted; to go on: fedsim resume {shlex.quote(str(interrupted.folder))}"
        ) from None
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)
        progress.close()


def _draw(folder: Path, progress: Progress) -> None:
    """Draw a folder's figures; whoever interrupts that is told how to have them, since what they are of is whole."""
    try:
        with progress.phase("figures"):
            from fedsim.figures.draw import draw

            draw(folder)
    except KeyboardInterrupt:
        progress.close()
        raise _EndedError(
            f"interrupted; what was run is kept; to draw it: fedsim figures {shlex.quote(str(folder))}"
        ) from None


def _print_run(finished: Run) -> None:
    from fedsim.records.summary import summary_lines

    for label, text in summary_lines(finished.summary):
        print(f"{label}: {text}")
    print(finished.folder)


def _seeds(text: str | None) -> tuple[int, ...] | None:
    """Seeds as typed, separated by commas."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS for word in words):
        raise InputError(
            f"--seeds {text:.{MAX_ECHO_CHARS}}: must be whole numbers separated by commas, e.g. 0,1,2; at most "
            f"{MAX_DIGITS} digits each"
        )
    return tuple(int(word) for word in words)


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _say(text: str, exit_code: int) -> int:
    print(_one_line(f"fedsim: {text}" if exit_code != 2 else text), file=sys.stderr)
    return exit_code


def _one_line(text: str) -> str:
    """A message as one line that a terminal only shows: names from outside may hold anything."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    half = MAX_MESSAGE_CHARS // 2
    return shown if len(shown) <= MAX_MESSAGE_CHARS else f"{shown[:half]} ... {shown[-half:]}"
