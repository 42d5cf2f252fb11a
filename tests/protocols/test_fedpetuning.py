"""FedPETuning: what travels, who is averaged, what is repeated, and what it costs; by digits, without torch."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from fedsim.errors import FederationError
from fedsim.experiment import run as experiment
from fedsim.experiment.components import load_components
from fedsim.experiment.prepared import Prepared
from fedsim.models.interfaces import LocalUpdate
from fedsim.progress import SilentProgress
from fedsim.protocols import fedpetuning
from fedsim.protocols.fedpetuning import cohort, packed, unpacked
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.records.rows import Compute, Transfer, Update
from fedsim.scenario.read import scenario_from
from fedsim.sim.devices import adapters
from fedsim.sim.devices.architecture import architecture
from fedsim.sim.devices.config import DropoutConfig
from fedsim.sim.devices.cost import generate_work, training_work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.samples.fakes import (
    COUNTS,
    SPEC,
    FakeEvaluator,
    FakePolicy,
    device,
    play,
    question,
    settings,
    task_data,
)
from tests.samples.worlds import Timetable

LAYER = "layers.0.self_attn.q_proj"
ROWS = (3, 1, 4)


class CountingTrainer:
    """Client k adds k + 1 to every number, and trains one step on all of its rows."""

    def __init__(self, policy, shapes, *, sampled=False, start=0.0):
        self.policy = policy
        self.tuned = []
        self.installed = []
        self._start = {name: np.full(shape, start, np.float32) for name, shape in shapes.items()}
        self._sampled = sampled

    def start(self):
        return self._start

    def tune(self, client_id, round_index, weights, rows):
        self.tuned.append((client_id, round_index, {name: array.copy() for name, array in weights.items()}))
        after = {name: array + np.float32(client_id + 1) for name, array in weights.items()}
        texts = ("yes", "no") if self._sampled else ("yes",)
        step = tuple((row.text, texts) for row in rows)
        return LocalUpdate(after, 0.5, (step,), self._sampled)

    def install(self, weights):
        self.installed.append(weights)
        self.policy.version += 1


def config(**keys):
    return settings("fedpetuning", **{"lora": {"rank": 2, "targets": ["q_proj"]}, **keys})


async def rounds(number=1, *, rows=ROWS, sampled=False, start=0.0, keys=None, **world):
    """Play some rounds with one client per entry of ``rows``; returns the stage and the trainer."""
    chosen = config(**(keys or {}))
    policy = FakePolicy()
    trainer = CountingTrainer(policy, chosen.adapter_shapes(SPEC), sampled=sampled, start=start)
    private = tuple(
        tuple(question("a", 100 * client_id + row) for row in range(count))
        for client_id, count in enumerate(rows)
    )
    data = replace(task_data(num_clients=len(rows)), private=private)
    world = {"stop": StopConfig(updates=number), "data": data, "policy": policy, "trainer": trainer} | world
    return await play(chosen, [FakeEvaluator() for _ in rows], **world), trainer


def value(weights):
    """The one number that all arrays are filled with."""
    found = {float(number) for array in weights.values() for number in np.unique(array)}
    assert len(found) == 1
    return found.pop()


# ------------------------------------------------------------------------------------------------------- the average


async def test_one_round_broadcasts_trains_averages_and_installs():
    ran, trainer = await rounds(2)
    assert [(client_id, number) for client_id, number, _ in trainer.tuned] == [
        (client_id, number) for number in (0, 1) for client_id in (0, 1, 2)
    ]
    assert [value(weights) for weights in trainer.installed] == [2.0, 4.0]
    assert ran.policy.version == 2
    assert [row.num_candidates for row in ran.updates] == [8, 8]


async def test_uniform_and_sample_weights_by_hand():
    _, uniform = await rounds(keys={"weighting": "uniform"})
    assert value(uniform.installed[0]) == (1 + 2 + 3) / 3
    _, samples = await rounds(keys={"weighting": "samples"})
    assert value(samples.installed[0]) == (3 * 1 + 1 * 2 + 4 * 3) / 8


async def test_product_averaging_installs_the_mean_of_products():
    _, trainer = await rounds(keys={"averaging": "product", "number_type": "float32"}, start=1.0)
    a, b = trainer.installed[0][f"{LAYER}.lora_A"], trainer.installed[0][f"{LAYER}.lora_B"]
    # Client k sends A and B full of k + 2: its product is 2 (k + 2)^2 everywhere.
    assert b @ a == pytest.approx(np.full((8, 8), 2 * (4 + 9 + 16) / 3), rel=1e-5)
    _, factors = await rounds(keys={"averaging": "factors"}, start=1.0)
    one = factors.installed[0]
    assert one[f"{LAYER}.lora_B"] @ one[f"{LAYER}.lora_A"] == pytest.approx(np.full((8, 8), 2 * 9.0))


async def test_everybody_starts_every_round_from_the_same_numbers():
    _, trainer = await rounds(3, start=0.25)
    for number, expected in enumerate((0.25, 2.25, 4.25)):
        received = [value(weights) for _, round_index, weights in trainer.tuned if round_index == number]
        assert received == [expected] * 3


async def test_the_update_record_holds_the_size_of_the_rounds_step_and_no_clients_loss():
    ran, _ = await rounds()
    numbers = sum(prod(shape) for shape in config().adapter_shapes(SPEC).values())
    assert ran.updates[0].grad_norm == pytest.approx(2.0 * np.sqrt(numbers))
    assert np.isnan(ran.updates[0].loss)


# -------------------------------------------------------------------------------------------------------- the bytes


async def test_one_adapter_message_counts_its_parameters_times_their_width():
    for number_type, width in (("float16", 2), ("float32", 4)):
        ran, _ = await rounds(keys={"number_type": number_type})
        numbers = adapters.num_numbers(adapters.lora_shapes(SPEC, 2, ["q_proj"]))
        assert numbers == 2 * (8 + 8)
        ups = [row for row in ran.log.of(Transfer) if row.direction == "up"]
        assert [row.paper_bytes for row in ups] == [numbers * width] * 3
        assert {row.purpose for row in ran.log.of(Transfer)} == {"adapter"}
        framing = [row.message_bytes - numbers * width for row in ups]
        assert all(0 < extra < 150 for extra in framing)


async def test_encoded_messages_hold_tensors_of_the_names_and_shapes_of_the_architecture():
    for keys in ({}, {"module": "full"}):
        ran, _ = await rounds(keys=keys)
        for told in ran.told:
            for message in (told.message, told.reply):
                arrived = wire.decode(wire.encode(message))
                shapes = {tensor.name: tensor.shape for tensor in arrived.tensors}
                assert shapes == config(**keys).adapter_shapes(SPEC)


async def test_all_weights_cost_as_many_times_an_adapter_as_there_are_more_numbers():
    async def uplink(**keys):
        ran, _ = await rounds(keys=keys)
        return sum(row.paper_bytes for row in ran.log.of(Transfer))

    ratio = SPEC.num_parameters / adapters.num_numbers(config().adapter_shapes(SPEC))
    assert await uplink(module="full") / await uplink() == ratio


async def test_what_is_trained_and_averaged_is_what_arrived_in_float16():
    _, half = await rounds(start=0.1)
    assert {value(weights) for _, _, weights in half.tuned} == {float(np.float16(0.1))}
    sent = [float(np.float16(np.float32(np.float16(0.1)) + np.float32(k))) for k in (1, 2, 3)]
    assert value(half.installed[0]) == pytest.approx(sum(sent) / 3, rel=1e-7)
    _, whole = await rounds(start=0.1, keys={"number_type": "float32"})
    assert {value(weights) for _, _, weights in whole.tuned} == {float(np.float32(0.1))}


def test_packing_keeps_float32_exactly_and_float16_to_its_precision():
    arrays = {"a": np.array([[0.1, -3.0]], np.float32), "b": np.array([7e4], np.float32)}
    kept = unpacked(packed(arrays, "float32"), "float32")
    assert all(np.array_equal(kept[name], array) for name, array in arrays.items())
    rounded = unpacked(packed(arrays, "float16"), "float16")
    assert rounded["a"] == pytest.approx(arrays["a"], rel=2**-11) and np.isinf(rounded["b"]).all()


async def test_replies_are_not_scalars_only_and_say_on_how_many_rows_they_were_trained():
    ran, _ = await rounds()
    assert {told.client_id: wire.unpack_id(told.reply.num_rows) for told in ran.told} == {0: 3, 1: 1, 2: 4}
    assert not wire.AdapterUp.scalars_only


# ---------------------------------------------------------------------------------------------------- who takes part


async def test_clients_without_rows_are_never_asked():
    ran, trainer = await rounds(2, rows=(3, 0, 2))
    assert Counter(row.client_id for row in ran.outcomes) == {0: 2, 2: 2}
    assert [value(weights) for weights in trainer.installed] == [2.0, 4.0]


async def test_nobody_with_rows_is_an_error():
    with pytest.raises(FederationError, match="no client has rows"):
        await rounds(rows=(0, 0))


async def test_nobody_who_ever_comes_is_an_error():
    with pytest.raises(FederationError, match="will ever be online"):
        await rounds(rows=(1,), availability=Timetable({0: []}))


async def test_the_run_waits_until_somebody_is_there():
    ran, _ = await rounds(rows=(1, 1), availability=Timetable({0: [(50.0, 500.0)], 1: [(70.0, 80.0)]}))
    assert [row.client_id for row in ran.outcomes] == [0]
    assert ran.outcomes[0].sent_at_s == 50.0


def test_a_cohort_is_a_keyed_uniform_sample():
    everyone = range(10)
    drawn = [cohort(everyone, 3, 1, number, 0) for number in range(3000)]
    assert all(len(set(ids)) == 3 and list(ids) == sorted(ids) for ids in drawn)
    counts = Counter(client_id for ids in drawn for client_id in ids)
    # 3,000 rounds of 3 of 10: 900 each, with a deviation of sqrt(3000 x .3 x .7) = 25.1.
    assert all(abs(counts[client_id] - 900) < 4 * 25.1 for client_id in everyone)
    assert cohort(everyone, 3, 1, 5, 0) == cohort(everyone, 3, 1, 5, 0)
    assert {cohort(everyone, 3, 1, 5, attempt) for attempt in range(9)} != {cohort(everyone, 3, 1, 5, 0)}
    assert cohort(everyone, None, 1, 5, 0) == tuple(everyone) == cohort(everyone, 30, 1, 5, 0)


async def test_a_round_asks_as_many_clients_as_wanted():
    ran, _ = await rounds(20, rows=(1,) * 6, keys={"clients_per_round": 2})
    asked = Counter(row.subject for row in ran.outcomes)
    assert set(asked.values()) == {2}
    assert len({row.client_id for row in ran.outcomes}) == 6


async def test_a_lost_clients_module_is_not_in_the_average():
    # Client 1 leaves while it trains: 1 and 3 are left.
    ran, trainer = await rounds(
        profiles=[device(1.0), device(10.0), device(1.0)], availability=Timetable({1: [(0.0, 5.0)]})
    )
    assert value(trainer.installed[0]) == (1 + 3) / 2
    assert {row.client_id: row.status for row in ran.outcomes}[1] == "dropped"


async def test_a_module_after_the_deadline_is_late_and_not_averaged():
    ran, trainer = await rounds(
        profiles=[device(1.0), device(10.0), device(1.0)],
        keys={"stragglers": {"policy": "deadline", "deadline": "5 s"}},
    )
    assert value(trainer.installed[0]) == (1 + 3) / 2
    assert {row.client_id: row.status for row in ran.outcomes}[1] == "late"
    assert ran.updates[0].at_s == pytest.approx(5.25)


async def test_a_round_that_nobody_answered_is_repeated_from_the_same_numbers():
    ran, trainer = await rounds(
        rows=(1,), profiles=[device(10.0)], availability=Timetable({0: [(0.0, 5.0), (20.0, 100.0)]})
    )
    assert [(row.status, row.subject) for row in ran.outcomes] == [("dropped", 0), ("ok", 0)]
    assert len(ran.updates) == 1 and value(trainer.installed[0]) == 1.0
    # The device worked twice; the simulator, for which training is a pure function, trained once.
    assert [row.cut for row in ran.log.of(Compute) if row.client_id == 0] == [True, False]
    assert [(number, value(weights)) for _, number, weights in trainer.tuned] == [(0, 0.0)]


async def test_rounds_that_nobody_ever_answers_end_the_run_with_an_error():
    with pytest.raises(FederationError, match="round 0 was repeated 100 times and nobody answered"):
        await rounds(dropout=DropoutConfig(per_task=1.0))


async def test_numbers_that_are_not_finite_are_an_error_and_not_an_average():
    with pytest.raises(FederationError, match="client 0 sent numbers that are not finite in round 0"):
        await rounds(start=7e4)  # beyond float16


# ---------------------------------------------------------------------------------------------------------- the cost


async def test_local_training_is_computed_once_per_request():
    _, trainer = await rounds(3)
    asked = Counter((client_id, number) for client_id, number, _ in trainer.tuned)
    assert set(asked.values()) == {1} and len(asked) == 9


@pytest.mark.parametrize("sampled", [False, True])
async def test_a_clients_work_is_training_the_servers_model_on_its_texts(sampled):
    ran, _ = await rounds(rows=(2,), sampled=sampled)
    (row,) = [row for row in ran.log.of(Compute) if row.client_id == 0]
    prompts = [2, 2]  # "a0" and "a1", a token a character
    answers = [[4, 3], [4, 3]] if sampled else [[4], [4]]
    lengths = [6, 5, 6, 5] if sampled else [6, 6]
    work = adapters.lora_training_work(SPEC, lengths, 32)
    if sampled:
        work += generate_work(SPEC, prompts, answers)
    assert (row.flop, row.memory_bytes) == pytest.approx((work.flop, work.memory_bytes))


async def test_training_all_weights_costs_whole_backward_passes():
    ran, _ = await rounds(rows=(2,), keys={"module": "full"})
    (row,) = [row for row in ran.log.of(Compute) if row.client_id == 0]
    work = training_work(SPEC, [6, 6])
    assert (row.flop, row.memory_bytes) == pytest.approx((work.flop, work.memory_bytes))


def test_the_cost_is_that_of_the_model_that_the_run_is_billed_as():
    big = architecture("Qwen2.5-Math-1.5B")
    client = _client(trained_spec=big)
    message = _down(client.trainer.start())
    tokens = [2 + 4] * 3
    rank_two = adapters.num_numbers(adapters.lora_shapes(big, 2, ["q_proj"]))
    assert fedpetuning.tune_cost(client, message) == adapters.lora_training_work(big, tokens, rank_two)


def test_a_result_whose_reply_never_came_due_is_not_taken_for_another_message():
    client = _client()
    first, second = (
        _down(client.trainer.start()),
        _down({k: v + 1 for k, v in client.trainer.start().items()}),
    )
    fedpetuning.tune_cost(client, first)
    reply = fedpetuning.tune(client, second).message
    assert value(unpacked(reply.tensors, "float32")) == 2.0
    assert len(client.trainer.tuned) == 2


async def test_the_slowest_client_sets_the_pace_of_a_round():
    ran, _ = await rounds(2, profiles=[device(1.0), device(3.0), device(2.0)])
    assert [row.at_s for row in ran.log.of(Update)] == pytest.approx([3.25, 6.5])


def test_a_client_needs_room_for_weights_gradients_and_optimiser():
    spec = architecture("Qwen2.5-Math-1.5B")
    needs = {
        (module, objective): fedpetuning.client_memory_bytes(
            config(module=module, objective=objective, group_size=64), spec, 1000
        )
        for module in ("lora", "full")
        for objective in ("sft", "grpo")
    }
    assert needs["full", "sft"] > 16 * spec.num_parameters > 3 * needs["lora", "sft"]
    still = fedpetuning.client_memory_bytes(config(), spec, 0)
    assert needs["lora", "grpo"] == max(needs["lora", "sft"], still + 64_000 * spec.kv_bytes_per_token)
    assert fedpetuning.CLIENT_RUNS == "server"


# ------------------------------------------------------------------------------------------------- settings and runs


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"averaging": "product", "module": "full"}, "full weights have no factors"),
        ({"stragglers": {"missing": "zero"}}, "missing must be mask"),
        ({"local_epochs": 1, "local_steps": 1}, "give one of them"),
        ({"lora": {"targets": ["query"]}}, "lora.targets must be some of"),
        ({"number_type": "float8"}, "float16"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        config(**keys)


def timing(**protocol):
    return scenario_from(
        {
            "name": "t",
            "fidelity": "timing",
            "seed": 3,
            "stop": {"updates": 4},
            "clients": {"phone": 3, "laptop": 2},
            "availability": {"kind": "sessions", "mean_on": "20 s", "mean_off": "5 s"},
            "dropout": {"per_task": 0.1},
            "protocol": {"name": "fedpetuning", "local_steps": 3, "local_batch_size": 8, **protocol},
            "tasks": {"sizes": {"private": 200, "pool": 20}},
        }
    )


@pytest.mark.parametrize(
    "protocol", [{}, {"objective": "grpo"}, {"averaging": "product"}, {"module": "full"}], ids=str
)
def test_a_timing_run_counts_the_adapters_of_its_architecture(protocol, tmp_path):
    scenario = timing(**protocol)
    ran = experiment.run(scenario, out=tmp_path / "run")
    spec = load_components(Prepared(scenario), SilentProgress()).server_spec
    numbers = adapters.num_numbers(scenario.protocol.adapter_shapes(spec))
    answered = sum(ran.outcomes["status"].is_in(["ok", "late"]))
    assert ran.summary["bytes"]["paper"]["uplink"] == 2 * numbers * answered > 0


def test_the_same_seed_gives_the_same_records_and_another_one_others(tmp_path):
    hashes = [
        experiment.run(
            timing(objective=objective).model_copy(update={"seed": seed}), out=tmp_path / f"{number}"
        ).summary["records_sha256"]
        for number, (objective, seed) in enumerate([("grpo", 3), ("grpo", 3), ("grpo", 4)])
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_neither_the_protocol_nor_its_stand_in_imports_torch():
    code = (
        "import sys, fedsim.protocols.fedpetuning, fedsim.models.timing.training\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _client(trained_spec=None):
    trainer = CountingTrainer(FakePolicy(), config().adapter_shapes(SPEC))
    rows = tuple(question("a", number) for number in range(3))
    return ClientState(
        0,
        FakeEvaluator(),
        SPEC,
        {},
        AnswerRule(),
        COUNTS,
        rows=rows,
        trainer=trainer,
        trained_spec=trained_spec,
    )


def _down(weights):
    return wire.AdapterDown(wire.pack_id(0), "float32", packed(weights, "float32"))
