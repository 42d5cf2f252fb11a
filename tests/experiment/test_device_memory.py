"""Who can take part: memory, the counts in the summary, and the one-off training of the clients' own models."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsim import protocols
from fedsim.errors import FederationError
from fedsim.experiment import run as experiment
from fedsim.experiment.device_memory import (
    Requirement,
    Without,
    member,
    requirement,
    too_small,
    training_steps,
)
from fedsim.federation.billed_sizes import TokenizerCounts
from fedsim.models.config import ModelsConfig
from fedsim.scenario.read import scenario_from
from fedsim.sim.devices.architecture import architecture, resident_bytes
from fedsim.sim.devices.cost import NO_WORK, duration_s, training_work
from fedsim.sim.devices.population import Population
from fedsim.sim.devices.presence import AlwaysOn
from fedsim.tasks.questions import Question
from tests.federation.test_billed_sizes import scenario
from tests.samples.worlds import ROUND

SMALL, BIG = architecture("Qwen2.5-Math-1.5B"), architecture("Qwen2.5-Math-7B")
ROWS = [
    Question(number, "a", "x" * (3 + number), "y") for number in range(4)
]  # 5, 6, 7 and 8 tokens with the end token
COUNTS = TokenizerCounts(len)


def config(name: str, **keys: Any) -> Any:
    return protocols.load(name).Config.model_validate({"name": name, **keys})


# ----------------------------------------------------------------------------------------------------- requirements


def test_a_scoring_client_must_hold_its_own_model_and_the_cache_of_the_longest_row() -> None:
    needed = requirement(config("fedgrpo"), BIG, SMALL, 1000)
    assert needed.runs == "clients" and needed.pretrained
    assert needed.needed_bytes == 2 * SMALL.num_parameters + 1000 * SMALL.kv_bytes_per_token
    assert needed.model_bytes == 2 * SMALL.num_parameters


def test_a_client_that_tunes_the_servers_model_must_hold_that_one_and_more() -> None:
    needed = requirement(config("fedpetuning"), BIG, SMALL, 1000)
    assert needed.runs == "server" and not needed.pretrained
    assert needed.needed_bytes > resident_bytes(BIG)
    assert needed.model_bytes == 2 * BIG.num_parameters


def test_a_protocol_that_asks_its_clients_nothing_needs_nothing_of_them() -> None:
    assert requirement(config("central_grpo"), BIG, BIG, 10**6) == Requirement(
        "nothing", 0.0, 0, pretrained=False
    )


def of_memory(device_class: str, *memory_bytes: float) -> Population:
    """Devices of one class of which only the memory matters."""
    return Population(
        (device_class,), np.zeros(len(memory_bytes), np.int64), {"memory_bytes": np.array(memory_bytes)}
    )


def test_only_a_device_with_less_memory_than_needed_is_too_small() -> None:
    devices = of_memory("x", 99.0, 100.0, 101.0)
    assert too_small([Requirement("clients", 100.0, 1, pretrained=True)], devices) == {0}


def test_a_federation_of_devices_that_are_all_too_small_is_refused_with_the_numbers() -> None:
    devices = of_memory("phone", 4.0 * 2**30, 4.0 * 2**30)
    with pytest.raises(FederationError, match=r"8\.0 GiB are needed, and there are phone at most 4\.0 GiB"):
        too_small([Requirement("clients", 8.0 * 2**30, 1, pretrained=True)], devices)


def test_an_excluded_client_is_never_there_and_the_others_as_before() -> None:
    source = Without(AlwaysOn(), [1])
    assert [source.is_on(client_id, 5.0) for client_id in (0, 1)] == [True, False]
    assert source.next_change(1, 5.0) == math.inf
    assert source.intervals(0, 0.0, 9.0) == [(0.0, 9.0)] and source.intervals(1, 0.0, 9.0) == []


# ------------------------------------------------------------------------------------------------- one-off training


def test_a_scratch_client_is_charged_its_steps_of_its_batch() -> None:
    models = ModelsConfig.model_validate(
        {"clients": {"preset": "scratch-250k", "steps": 10, "batch_size": 2}}
    )
    steps, work = training_steps(models, SMALL, ROWS, COUNTS)
    assert steps == 10
    assert (
        work.flop == training_work(SMALL, [5, 6, 7, 8]).flop / 2
    )  # two rows a step, a quarter of a pass each
    assert work.memory_bytes == training_work(SMALL, [5, 6]).memory_bytes


def test_a_billed_client_is_charged_its_passes_over_its_rows() -> None:
    models = ModelsConfig.model_validate({"bill_as": "Qwen2.5-3B", "client_epochs": 16})
    steps, work = training_steps(models, SMALL, ROWS, COUNTS)
    assert steps == 2  # 64 rows, 32 at a time
    assert steps * work.flop == pytest.approx(16 * training_work(SMALL, [5, 6, 7, 8]).flop)


@pytest.mark.parametrize(
    "models", [{"clients": {"path": "somewhere"}}, {"clients": {"preset": "scratch-250k", "steps": 0}}]
)
def test_a_client_that_is_used_as_it_is_trains_nothing(models: dict[str, Any]) -> None:
    assert training_steps(ModelsConfig.model_validate(models), SMALL, ROWS, COUNTS) == (0, NO_WORK)


def test_a_client_without_rows_trains_nothing() -> None:
    assert training_steps(ModelsConfig(), SMALL, [], COUNTS) == (0, NO_WORK)


def test_training_takes_a_devices_own_time_and_energy_and_a_device_that_is_too_small_trains_nothing() -> None:
    work = training_work(SMALL, [5, 6])
    row = member(3, ROUND, Requirement("clients", 1e9, 1, pretrained=True), (10, work))
    assert row.takes_part and row.training_s == 10 * duration_s(ROUND, work)
    assert row.training_energy_j == 3.0 * row.training_s and row.training_flop == 10 * work.flop
    left_out = member(3, ROUND, Requirement("clients", 2e9, 1, pretrained=True), (10, work))
    assert not left_out.takes_part and left_out.training_s == left_out.training_flop == 0


# -------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: Any) -> Any:
    """Two devices that can hold the billed model, and two that cannot."""
    clients = {"phone": {"count": 2, "memory": "2 GiB", "speeds": "lognormal"}, "laptop": 2}
    out = tmp_path_factory.mktemp("mixed") / "run"
    return experiment.run(scenario(clients=clients), out=out)


def test_a_device_that_cannot_hold_the_model_is_asked_nothing_and_counted(mixed: Any) -> None:
    assert mixed.summary["clients"] == {
        "total": 4,
        "too_small": 2,
        "by_class": {"laptop": {"total": 2, "too_small": 0}, "phone": {"total": 2, "too_small": 2}},
    }
    assert set(mixed.outcomes["client_id"]) == {2, 3} == set(mixed.presence["client_id"])
    assert mixed.members["takes_part"].to_list() == [False, False, True, True]


def test_one_off_training_is_a_sum_over_the_clients_and_in_no_other_total(mixed: Any, tmp_path: Path) -> None:
    training = mixed.summary["one_off"]["client_training"]
    assert training["flop"] == pytest.approx(mixed.members["training_flop"].sum()) and training["flop"] > 0
    assert 0 < training["longest_s"] < training["device_s"]
    longer = scenario_from(scenario().resolved() | {"clients": {"laptop": 2}})
    models = longer.models.model_copy(update={"client_epochs": 7})
    once, often = (
        experiment.run(one, out=tmp_path / name).summary
        for name, one in (("once", longer), ("often", longer.model_copy(update={"models": models})))
    )
    assert often["one_off"]["client_training"]["flop"] == pytest.approx(
        7 * once["one_off"]["client_training"]["flop"]
    )
    assert (often["virtual_s"], often["load"]) == (once["virtual_s"], once["load"])


def test_a_billed_federation_that_is_all_too_small_ends_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="no device can hold the model"):
        experiment.run(
            scenario(clients={"phone": 2}, models={"bill_as": "Qwen2.5-Math-7B"}), out=tmp_path / "run"
        )


def test_a_protocol_without_clients_runs_on_devices_that_are_too_small(tmp_path: Path) -> None:
    keys = {"protocol": "central_grpo", "clients": {"phone": 2}, "models": {"bill_as": "Qwen2.5-Math-7B"}}
    summary = experiment.run(scenario(**keys), out=tmp_path / "run").summary
    assert summary["clients"]["too_small"] == 0 and summary["one_off"]["client_training"]["flop"] == 0
