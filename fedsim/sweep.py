"""Comparisons: the same scenario in several variants and seeds, in parallel processes, resumable.

A comparison file names a base scenario, variants (overrides) and seeds. Every run is a process of its own (``python -m fedsim
run``), so runs share nothing but the cache of trained models. A finished run is kept under a key: the hash of its resolved
scenario, the code that decides results (syntax trees without docstrings) and the platform. A comparison that is started again
does only what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator

from fedsim import protocols
from fedsim.config import StrictModel
from fedsim.errors import FedsimError, RunFolderError, ScenarioError
from fedsim.progress import Progress
from fedsim.runfolder import FORMAT_VERSION, MANIFEST, SUMMARY, platform_facts, write_atomically
from fedsim.scenario import Scenario, find_scenario, read_scenario
from fedsim.scenario_errors import scenario_error
from fedsim.scenario_yaml import parse
from fedsim.source import code_fingerprint


class Variant(StrictModel):
    """One column of a comparison: the base scenario with some keys set otherwise."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="what tables and figures call it")
    protocol: str | None = Field(
        None, description="another protocol, with its defaults and the base's shared keys"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="overrides, path.to.key: value, as --set")


class Comparison(StrictModel):
    """What is compared with what, over which seeds."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$", description="name of the comparison and its folder"
    )
    base: str = Field(
        description="scenario that every variant starts from: a path beside this file, or a shipped name"
    )
    seeds: tuple[int, ...] = Field(
        min_length=1, description="seeds; each redraws partition, training and sampling"
    )
    variants: tuple[Variant, ...] = Field(
        min_length=1, description="what is compared; the first is the reference"
    )

    @field_validator("variants")
    @classmethod
    def _named_once(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        names = [variant.name for variant in variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have the same name")
        return variants


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One run of a comparison: its scenario, and the key under which its result is kept."""

    variant: str
    seed: int
    scenario: Scenario
    key: str


def read_comparison(source: Path | str) -> tuple[Comparison, list[PlannedRun]]:
    """Read a comparison file and resolve every run in it, so that nothing starts unless all of it is valid.

    Raises:
        ScenarioError: the file or one of the scenarios it makes is wrong; one line says where.
    """
    path = find_scenario(source)
    document = parse(path.read_bytes(), str(path))
    try:
        comparison = Comparison.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise scenario_error(error, document, Comparison) from None
    beside = path.parent / comparison.base
    base = find_scenario(beside if beside.is_file() else comparison.base)
    planned = []
    for variant in comparison.variants:
        assignments = [f"{key}={json.dumps(value)}" for key, value in variant.set.items()]
        if variant.protocol is not None:
            assignments.insert(0, _other_protocol(base, variant.protocol, str(path)))
        for seed in comparison.seeds:
            try:
                scenario = read_scenario(base, assignments, seed)
            except ScenarioError as error:
                raise ScenarioError(f"{path}: variant {variant.name}: {error}") from None
            planned.append(PlannedRun(variant.name, seed, scenario, run_key(scenario)))
    return comparison, planned


def _other_protocol(base: Path, name: str, source: str) -> str:
    """The assignment that puts another protocol into the base scenario and keeps the settings both protocols have."""
    if name not in protocols.names():
        raise ScenarioError(f"{source}: protocol is {name!r}; must be one of {', '.join(protocols.names())}")
    known = protocols.load(name).Config.model_fields
    settings = parse(base.read_bytes(), str(base)).data.get("protocol", {})
    kept = (
        {key: value for key, value in settings.items() if key in known} if isinstance(settings, dict) else {}
    )
    return f"protocol={json.dumps(kept | {'name': name})}"


def run_key(scenario: Scenario) -> str:
    """Hash of everything that decides a run's records: resolved scenario (but its name), code, platform."""
    material = {
        "scenario": {key: value for key, value in scenario.resolved().items() if key != "name"},
        "code": result_code_hash(),
        "platform": platform_facts(),
        "format": FORMAT_VERSION,
    }
    return blake2b(json.dumps(material, sort_keys=True).encode(), digest_size=12).hexdigest()


_WITHOUT_RESULTS = {
    "cli.py",
    "__main__.py",
    "show.py",
    "progress.py",
    "sweep.py",
    "scenario_docs.py",
    "scenario_errors.py",
    "estimate.py",
    "comparison.py",
    "report.py",
}


@cache
def result_code_hash() -> str:
    """Hash of the package's code without docstrings and comments, but for files that only show results."""
    root = Path(__file__).parent
    state = blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        if path.name not in _WITHOUT_RESULTS:
            state.update(path.relative_to(root).as_posix().encode())
            state.update(code_fingerprint(path.read_text(encoding="utf-8")).encode())
    for path in sorted((root / "presets").glob("*.*")):
        if path.suffix in (".yaml", ".csv", ".json"):
            state.update(path.read_bytes())
    return state.hexdigest()


def run_all(
    planned: Sequence[PlannedRun],
    folder: Path,
    *,
    processes: int,
    cache_dir: Path | None,
    progress: Progress,
) -> dict[str, Path]:
    """Run what is missing, ``processes`` at a time, and return every run's folder by key.

    Interrupting stops the children and keeps what is finished.

    Raises:
        FedsimError: a run failed; the message ends with what it said, and the others are kept.
    """
    store = folder / "runs"
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}") from None
    waiting = [run for run in planned if not is_finished(store / run.key)]
    children: dict[subprocess.Popen[bytes], PlannedRun] = {}
    with progress.phase("runs", len(planned)) as phase:
        phase.advance(len(planned) - len(waiting), kept=len(planned) - len(waiting))
        try:
            while waiting or children:
                while waiting and len(children) < processes:
                    run = waiting.pop(0)
                    children[_start(run, store, cache_dir, processes)] = run
                for child in [child for child in children if child.poll() is not None]:
                    run = children.pop(child)
                    _keep(child, run, store)
                    phase.advance(1, last=f"{run.variant}, seed {run.seed}")
                time.sleep(0.05)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait()
    return {run.key: store / run.key for run in planned}


def is_finished(folder: Path) -> bool:
    """Whether a kept run is whole."""
    return (folder / SUMMARY).is_file() and (folder / MANIFEST).is_file()


def summaries(planned: Sequence[PlannedRun], folders: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Each variant's summaries, in the order of the seeds."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in planned:
        summary = json.loads((folders[run.key] / SUMMARY).read_text(encoding="utf-8"))
        found.setdefault(run.variant, []).append(summary)
    return found


def compare(
    source: Path | str, out: Path | None, *, processes: int | None, cache_dir: Path | None, progress: Progress
) -> Path:
    """Run a comparison (what is missing of it) and write its tables; returns its folder.

    Args:
        source: the comparison file, or a shipped one's bare name.
        out: exactly the folder; default ``runs/<name>``. It may hold finished runs of an earlier start.
        processes: runs at a time; default one per core and thread of the base scenario.
        cache_dir: where trained models are kept.
        progress: where progress is shown.
    """
    from fedsim.comparison import write_comparison

    comparison, planned = read_comparison(source)
    folder = out or Path("runs") / comparison.name
    threads = max(run.scenario.compute.threads for run in planned)
    at_once = processes or max(1, (os.cpu_count() or 1) // threads)
    folders = run_all(planned, folder, processes=at_once, cache_dir=cache_dir, progress=progress)
    runs = [
        {"variant": run.variant, "seed": run.seed, "folder": folders[run.key].relative_to(folder).as_posix()}
        for run in planned
    ]
    write_comparison(folder, comparison.name, comparison.seeds, summaries(planned, folders), runs)
    return folder


def _start(run: PlannedRun, store: Path, cache_dir: Path | None, processes: int) -> subprocess.Popen[bytes]:
    unfinished = store / f"{run.key}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    scenario = write_atomically(store / f"{run.key}.yaml", run.scenario.to_yaml().encode())
    command = [sys.executable, "-m", "fedsim", "run", str(scenario), "--out", str(unfinished), "--no-figures"]
    if cache_dir is not None:
        command += ["--cache-dir", str(cache_dir)]
    # Processes times threads never exceeds the cores: with several runs at once, each trains one model at a time.
    cores = os.cpu_count() or 1
    environment = os.environ | {"FEDSIM_PROCESSES": str(max(1, cores // processes))}
    with (store / f"{run.key}.log").open("wb") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _keep(child: subprocess.Popen[bytes], run: PlannedRun, store: Path) -> None:
    if child.returncode != 0:
        said = (store / f"{run.key}.log").read_text(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {child.returncode}"
        raise FedsimError(
            f"variant {run.variant}, seed {run.seed} failed: {reason} (log: {store / run.key}.log)"
        )
    (store / f"{run.key}.unfinished").rename(store / run.key)
