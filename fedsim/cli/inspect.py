"""What there is and what it would take: ``fedsim check``, ``devices``, ``list``, ``schema`` and ``show``; nothing is run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.compare import compare
from fedsim.cli.options import BudgetOption, ScenarioArgument, SeedOption, SetOption
from fedsim.cli.shown import one_line
from fedsim.cli.stress import stress
from fedsim.processes import gc_policy

if TYPE_CHECKING:
    from fedsim.experiment.forecast.estimate import Estimate


def check(
    scenario: ScenarioArgument,
    assignments: SetOption = None,
    seed: SeedOption = None,
    budget: BudgetOption = 10.0,
) -> None:
    """Validate a scenario, print it with every default filled in, and estimate what a run will take.

    Of a comparison or a sweep: validate every run, and say how many there are and what each will take.
    """
    with gc_policy.unsought():
        from fedsim.scenario.read import is_comparison, is_sweep, read_scenario

    if not assignments and seed is None and is_comparison(scenario):
        compare(scenario, check_only=True, budget=budget)
        return
    if not assignments and seed is None and is_sweep(scenario):
        stress(scenario, check_only=True, budget=budget)
        return
    with gc_policy.unsought():
        settings = read_scenario(scenario, assignments or (), seed)
        from fedsim.experiment.forecast.estimate import estimate
        from fedsim.progress import format_stats

    foreseen = estimate(settings, budget_s=budget)  # first, for it refuses what cannot be
    print(settings.to_yaml())
    print(f"# estimate{_how_far(foreseen, budget)}")
    for name, value in dataclasses.asdict(foreseen).items():
        if value is not None and name not in ("played", "to_play"):
            print(f"#   {format_stats({name: value})}")


def _how_far(foreseen: Estimate, budget_s: float) -> str:
    """What an estimate rests on, where the time was over before all updates were played that it should rest on."""
    if foreseen.played == foreseen.to_play:
        return ""
    what = "; what follows is what was played, not the run" if foreseen.why_not_extrapolated else ""
    return (
        f": {budget_s:g} s were over after {foreseen.played} of {foreseen.to_play} updates (--budget){what}"
    )


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
    from fedsim.scenario.read import read_scenario

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


def list_() -> None:
    """List protocols, device, link, model, text and world presets, and shipped scenarios."""
    from fedsim.federation.text_lengths import length_presets
    from fedsim.models.sources import PRESETS
    from fedsim.scenario.named_worlds import world_descriptions
    from fedsim.scenario.read import shipped_comparisons, shipped_scenarios, shipped_sweeps
    from fedsim.scenario.schema import protocol_settings
    from fedsim.sim.devices.presets import architectures, device_presets, link_descriptions

    protocols = {
        name: model.model_fields["name"].description or "" for name, model in protocol_settings().items()
    }
    _print_section("protocols (protocol.name)", protocols)
    _warn_of_broken_plugins()
    _print_section("device presets (clients, server.preset)", dict.fromkeys(device_presets(), ""))
    _print_section("links (clients.<class>.link)", link_descriptions())
    _print_section("model presets (models.server, models.clients)", dict.fromkeys(PRESETS, ""))
    _print_section("architectures (models.bill_as)", dict.fromkeys(architectures(), ""))
    _print_section("text lengths (text.question, text.answer)", dict.fromkeys(length_presets(), ""))
    _print_section("worlds (world)", world_descriptions())
    _print_files("scenarios", "fedsim run", shipped_scenarios())
    _print_files("comparisons", "fedsim compare", shipped_comparisons())
    _print_files("sweeps", "fedsim stress", shipped_sweeps())


def schema() -> None:
    """Print the JSON schema of a scenario file, for editors."""
    from fedsim.scenario.docs import scenario_schema

    print(json.dumps(scenario_schema(), indent=2))
    _warn_of_broken_plugins()


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


def _warn_of_broken_plugins() -> None:
    from fedsim.protocols import broken

    for line in broken().values():
        print(one_line(f"left out: {line}"), file=sys.stderr)


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


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
