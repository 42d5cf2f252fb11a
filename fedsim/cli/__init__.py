"""The ``fedsim`` command: arguments, progress and exit codes; everything it does is a function elsewhere.

Exit codes: 0 done, 1 the run failed (one line says why), 2 what was given is wrong (one line says where), 130
interrupted. A bug in fedsim is neither: it shows its traceback. Heavy modules are imported by the commands
that need them, so that ``fedsim --help`` answers at once.

In reading order: ``run``, ``resume``, ``compare``, ``stress``, ``figures``, ``inspect``, ``leakage``, ``models``; they share
``options`` and ``shown``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any

import typer
import typer.main

from fedsim.cli import compare, figures, inspect, leakage, models, resume, run, stress
from fedsim.cli.shown import EndedError, one_line
from fedsim.errors import FedsimError, InputError, InvariantViolation

_ADDRESS = re.compile(r"local|auto|ray://.*|[^\s/]+:\d+")
_COMMANDS: dict[str, Callable[..., None]] = {  # as --help lists them
    "run": run.run,
    "resume": resume.resume,
    "verify": resume.verify,
    "compare": compare.compare,
    "stress": stress.stress,
    "figures": figures.figures,
    "check": inspect.check,
    "leakage": leakage.leakage,
    "devices": inspect.devices,
    "list": inspect.list_,
    "schema": inspect.schema,
    "show": inspect.show,
}

app = typer.Typer(
    help="Simulate federated learning of language models: real small models, simulated devices and networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(models.app, name="models")


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


@cache
def _parser() -> Any:
    """The parser of all commands, which is made once: that takes longer than many a command."""
    return typer.main.get_command(app)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; ``argv`` is without the program's name."""
    # Before numpy is imported: the bits of its products depend on the number of threads (fedsim.processes.cores.BLAS).
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Before pydantic is used: looking for plugins, which fedsim has no use for, reads what every installed package declares.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        # typer turns Ctrl-C, and typer.Exit, into a returned exit code.
        exit_code = _parser()(
            args=_with_address(sys.argv[1:] if argv is None else argv),
            prog_name="fedsim",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except EndedError as ended:
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


def _say(text: str, exit_code: int) -> int:
    print(one_line(f"fedsim: {text}" if exit_code != 2 else text), file=sys.stderr)
    return exit_code
