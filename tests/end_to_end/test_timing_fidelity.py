"""What a run of timing fidelity shows: times and bytes, and nothing of learning, which its stand-ins for models made up."""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fedsim
from fedsim import protocols
from fedsim.cli import main
from fedsim.experiment import run as experiment
from fedsim.progress import PlainProgress
from fedsim.records.story import story
from fedsim.scenario.read import read_scenario, scenario_from
from tests.samples.real_runs import tiny

TINY = """\
name: tiny
fidelity: timing
stop: {{updates: 2}}
protocol: {{name: {}}}
tasks: {{domains: [gcd], sizes: {{public: 50, private: 90, auxiliary: 20, pool: 60, validation: 20, test: 20}}}}
clients: {{phone: 2, laptop: 4}}
"""
LEARNED = {
    "metrics": (
        "reward_mean", "greedy", "pass_at_1", "pass_at_8", "entropy", "kl_to_initial", "loss", "clip_fraction", "grad_norm",
    ),
    "updates": ("reward_mean", "loss", "entropy", "clip_fraction", "grad_norm", "zero_variance_share"),
    "groups": ("reward_mean", "reward_std", "correct"),
    "evaluations": ("greedy", "pass_at_1", "pass_at_8", "entropy", "kl_to_initial"),
    "rewards": ("rewards",),
}  # fmt: skip
"""Columns that hold what models would have done."""


@pytest.fixture(scope="module", params=protocols.names()[: len(protocols.PROTOCOLS)])
def timed(request, tmp_path_factory) -> tuple[fedsim.Run, str]:
    """A timing run of each protocol, and what a person saw of it."""
    folder = tmp_path_factory.mktemp("timed")
    (folder / "tiny.yaml").write_text(TINY.format(request.param))
    seen = io.StringIO()
    run = fedsim.run(
        read_scenario(folder / "tiny.yaml"), out=folder / "run", progress=PlainProgress(seen, interval_s=0.0)
    )
    fedsim.draw(run)
    return run, seen.getvalue()


def numbers(entry: Any) -> Iterator[float]:
    if isinstance(entry, dict):
        entry = list(entry.values())
    if isinstance(entry, list):
        for one in entry:
            yield from numbers(one)
    elif isinstance(entry, int | float) and not (isinstance(entry, float) and math.isnan(entry)):
        yield entry


def test_no_column_of_learning_has_a_number(timed):
    run, _ = timed
    for table, columns in LEARNED.items():
        frame = run.metrics if table == "metrics" else run.records[table]
        for column in columns:
            assert not [*numbers(frame[column].to_list())], f"{table}.{column}"


def test_the_summary_says_timing_and_has_no_number_of_learning(timed):
    run, _ = timed
    summary = run.summary
    assert summary["fidelity"] == "timing"
    assert not [*numbers(summary["learning"])]
    for split in (summary["accuracy"], summary["validation"]):
        assert not [*numbers({name: split[name] for name in ("greedy", "pass_at_1", "pass_at_8")})]
        assert not [*numbers(split.get("by_domain", {}))]
    clients = json.loads((run.folder / "clients.json").read_text())
    assert not [*numbers([client["accuracy_by_domain"] for client in clients])]


def test_the_page_says_timing_and_shows_no_figure_of_learning(timed):
    run, _ = timed
    figures = {path.name for path in (run.folder / "figures").iterdir()}
    assert figures.isdisjoint(
        {"learning.png", "learning.svg", "confidence_graph.png", "confidence_graph.graphml"}
    )
    page = (run.folder / "figures" / "index.html").read_text()
    assert "<td>fidelity</td><td>timing: " in page
    assert not (run.folder / "confidence_graph.json").exists()


def test_progress_says_timing_and_neither_reward_nor_accuracy(timed):
    _, seen = timed
    lines = [line for line in seen.splitlines() if line.startswith("federation: ")]
    assert "reward" not in seen and "accuracy" not in seen and "loss" not in seen
    assert "fidelity timing" in lines[-1]


def test_the_story_of_a_request_tells_no_reward(timed):
    run, _ = timed
    for client in run.presence["client_id"].unique():
        told = [line for line in story(run, client=client) if "reward" in line]
        assert not any("mean reward" in line for line in told)
        assert all(line.endswith("not measured") for line in told if "rewards by" in line)


def test_the_commands_say_timing(timed, capsys):
    run, _ = timed
    main(["show", str(run.folder)])
    assert "fidelity: timing" in capsys.readouterr().out


def test_figures_of_a_timing_run_of_an_earlier_version_show_no_learning_either(tmp_path):
    """Its records hold what stand-ins made up; its manifest says that they did."""
    from tests.samples.run import sample_run

    run = sample_run(tmp_path / "run", num_updates=4)
    manifest = json.loads((run.folder / "manifest.json").read_text())
    manifest["scenario"] = {**(manifest.get("scenario") or {}), "fidelity": "timing"}
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    fedsim.draw(run.folder)
    assert not (run.folder / "figures" / "learning.png").exists()
    assert "<td>timing: " in (run.folder / "figures" / "index.html").read_text()


# ---------------------------------------------------------------------------------- two fidelities, the same bytes

SCRATCH = {
    "preset": "scratch-250k", "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "steps": 10, "batch_size": 8,
}  # fmt: skip


def sent(fidelity: str, folder: Path, cache: Path) -> tuple[Counter[Any], set[str]]:
    """How often each message was sent in a tiny run, and who scored."""
    models = {"server": SCRATCH, "clients": SCRATCH, "bill_as": "Qwen2.5-0.5B"}
    keys = tiny(
        fidelity=fidelity, stop={"updates": 2}, text={"question": 50, "rationale": 0, "answer": 5},
        availability={"kind": "always"}, models=models,
    )  # fmt: skip
    keys["protocol"] |= {
        "num_experts": 3, "probe": "per_question",
        "update": {"schedule": "barrier", "groups_per_update": 6}, "stragglers": {"policy": "wait_all"},
    }  # fmt: skip
    ran = experiment.run(scenario_from(keys), out=folder / fidelity, cache_dir=cache)
    columns = ["client_id", "direction", "purpose", "message_bytes", "wire_bytes", "paper_bytes"]
    return Counter(ran.transfers.select(columns).rows()), set(ran.rewards["evaluator"])


def test_timing_and_real_fidelity_put_the_same_messages_on_the_wire_where_the_lengths_are_stated(
    tmp_path: Path, models_cache: Path
) -> None:
    (real, evaluators), (timing, _) = (
        sent(fidelity, tmp_path, models_cache) for fidelity in ("real", "timing")
    )
    assert real == timing
    # Two rounds of six questions, probed and asked at three clients, both ways.
    assert real.total() == 2 * 6 * 2 * 3 * 2
    assert {purpose for _, _, purpose, *_ in real} == {"probe", "question", "reward"}
    assert "ME likelihood" in evaluators
