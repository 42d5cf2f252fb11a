"""All attacks on a finished run: ``measure(folder)`` writes ``leakage.json`` into it.

The run's models and data are built again (from the cache), and the server is played against its clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsim.errors import RunFolderError, ScenarioError
from fedsim.experiment.build import client_states
from fedsim.experiment.checks import check_files
from fedsim.experiment.components import load_components
from fedsim.experiment.leakage.replies import by_asking, by_recorded_rewards
from fedsim.experiment.leakage.suspects import Attack, Suspect, suspects
from fedsim.experiment.leakage.synthetic_rows import by_synthetic_rows
from fedsim.experiment.leakage.trusted_answers import Disclosure, disclosed
from fedsim.experiment.leakage.weights import by_adapters, by_final_policy
from fedsim.experiment.prepared import Prepared
from fedsim.experiment.replay.origin import scenario_of
from fedsim.models.interfaces import Components
from fedsim.progress import Progress, SilentProgress
from fedsim.records.provenance import git_commit
from fedsim.records.run_folder import MANIFEST, write_json

if TYPE_CHECKING:
    from fedsim.records.run import Run
    from fedsim.scenario.schema import Scenario

LEAKAGE = "leakage.json"
ROWS_PER_CLIENT = 200


def measure(
    folder: Path | str,
    *,
    cache_dir: Path | str | None = None,
    rows_per_client: int = ROWS_PER_CLIENT,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Attack a finished run with real models, write ``leakage.json`` and return it.

    Args:
        folder: the run's folder.
        cache_dir: where trained models are kept.
        rows_per_client: most rows of a client that are attacked, and as many others.
        progress: where progress is shown; default nowhere.

    Raises:
        RunFolderError: no finished run with real models, or one of a protocol whose clients send nothing.
        InputError: its scenario names something that cannot be used any more.
    """
    from fedsim.records.run import load
    from fedsim.scenario.read import scenario_from

    run = load(folder)
    if run.manifest["status"] != "finished":
        raise RunFolderError(f"{folder} is {run.manifest['status']}; leakage is measured on a finished run")
    try:
        scenario_from(run.manifest.get("scenario"), Path(folder))  # type: ignore[arg-type]
    except ScenarioError as error:
        raise RunFolderError(f"{Path(folder) / MANIFEST}: {error}") from None
    scenario = scenario_of(run.manifest, Path(folder))  # with the run's own copies of its files
    if scenario.fidelity != "real":
        raise RunFolderError(f"{folder} ran on token counts (fidelity timing): there is nothing to attack")
    check_files(scenario)
    shown = progress or SilentProgress()
    components = load_components(Prepared(scenario, cache_dir), shown)
    rows = list(suspects(components, scenario.seed, rows_per_client))
    attacks, disclosures = _attacks(run, scenario, components, rows)
    if not attacks:
        raise RunFolderError(
            f"{folder} is of protocol {scenario.protocol.name}, whose clients send nothing that is attacked here"
        )
    report = {
        "protocol": scenario.protocol.name,
        "git_commit": git_commit(),  # of the attacks; the run's own stands in its manifest
        "seed": scenario.seed,
        "rows_per_client": rows_per_client,
        "attacks": [asdict(attack) for attack in attacks],
        "disclosures": [asdict(disclosure) for disclosure in disclosures],
    }
    write_json(Path(folder) / LEAKAGE, report)
    return report


def _attacks(
    run: Run, scenario: Scenario, components: Components, rows: Sequence[Suspect]
) -> tuple[list[Attack], list[Disclosure]]:
    settings, seed = scenario.protocol, scenario.seed
    attacks: list[Attack] = []
    disclosures: list[Disclosure] = []
    if settings.name in ("fedgrpo", "distil"):
        states = client_states(scenario, components)  # with fresh noise
        if getattr(settings, "wire", None) == "scores_up":
            attacks += by_recorded_rewards(run, components, seed)
        attacks += by_asking(scenario, components, states, rows)
        disclosures += disclosed(run, scenario, components, states)
    elif settings.name == "fedpetuning":
        attacks += by_adapters(scenario, components, rows)
    elif settings.name == "dpsda_fl":
        attacks.append(by_synthetic_rows(scenario, components, rows))
    if attacks:
        attacks.append(by_final_policy(run, components, rows, seed))
    return attacks, disclosures
