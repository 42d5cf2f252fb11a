"""DPSDA-FL: who writes what, what goes up, what it costs, what is learned; and the stand-in of timing fidelity."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from pydantic import ValidationError

from fedsim.errors import FederationError
from fedsim.experiment import run as experiment
from fedsim.models.interfaces import Samples, Synthesis
from fedsim.models.timing.synthesis import StandInSynthesiser
from fedsim.privacy.accounting import (
    dp_sgd_epsilon,
    dp_sgd_noise_multiplier,
    gaussian_epsilon,
    gaussian_sigma,
)
from fedsim.privacy.config import SynthesisConfig, TuningConfig
from fedsim.protocols import dpsda_fl, fedpetuning
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.protocols.shared.state import ClientState
from fedsim.records.rows import Compute, Transfer
from fedsim.scenario.read import scenario_from
from fedsim.sim.devices.architecture import resident_bytes
from fedsim.sim.devices.cost import embedding_work, generate_work, training_work
from fedsim.sim.network import wire
from fedsim.tasks.matching import AnswerRule
from tests.protocols.test_central_pooled import ROWS, owners
from tests.samples.fakes import COUNTS, SPEC, FakeEvaluator, device, play, settings
from tests.samples.worlds import Timetable


@dataclass
class FakeSynthesiser:
    """Writes ``s0``, ``s1`` ... whose answers are the client's number; one in ten is malformed.

    With ``telling`` the texts tell which rows the client has, and in which order.
    """

    asked: list[tuple[int, int, int]] = field(default_factory=list)
    telling: bool = False

    def synthesise(self, client_id, rows, count):
        self.asked.append((client_id, len(rows), count))
        name = " ".join(row.text for row in rows) if self.telling else "s"
        good = tuple((f"{name}{number}", f"{client_id}") for number in range(count) if number % 10 != 9)
        return Synthesis(good, 1.0, 1e-5, generated=(Samples(good, count - len(good)),), max_tokens=64)

    def report(self):
        return []


async def played(synthesis=None, updates=3, rows=ROWS, world=None, maker=None, **keys):
    maker = maker or FakeSynthesiser()
    chosen = {"rows_per_client": 10, "minimum_rows": 2} | (synthesis or {})
    config = settings("dpsda_fl", synthesis=chosen, **{"fit_batch_size": 6} | keys)
    crowd = [FakeEvaluator()] * len(rows)
    ran = await play(
        config, crowd, data=owners(rows), stop=StopConfig(updates=updates), synthesiser=maker, **world or {}
    )
    return ran, maker


# ---------------------------------------------------------------------------------------------------------- the protocol


async def test_every_client_with_enough_rows_writes_so_many_rows_once():
    ran, maker = await played()
    assert set(maker.asked) == {(0, 5, 10), (2, 3, 10)}
    sizes = {told.client_id: len(told.reply.questions) for told in ran.told}
    assert sizes == {0: 9, 1: 0, 2: 9}  # client 1 has no row; the malformed one in ten is not sent


async def test_the_server_learns_from_synthetic_rows_alone():
    ran, _ = await played(updates=3)
    rows = [row for fit in ran.policy.fits for row in fit]
    assert {row.text for row in rows} == {f"s{number}" for number in range(9)}
    assert Counter(row.answer for row in rows) == {"0": 9, "2": 9}
    assert {row.domain for row in rows} == {"synthetic"}


async def test_synthetic_text_goes_up_once_and_nothing_else_does():
    ran, _ = await played(updates=9)
    up = [row for row in ran.log.of(Transfer) if row.direction == "up"]
    assert {row.purpose for row in up} == {"synthetic"}
    assert sorted(row.paper_bytes for row in up) == [0, 9 * 3, 9 * 3]
    assert len(ran.outcomes) == 3


async def test_bytes_do_not_depend_on_how_long_or_on_what_the_server_trains():
    sft, _ = await played(updates=2)
    grpo, _ = await played(
        updates=5, objective="grpo", update={"schedule": "barrier", "groups_per_update": 4}
    )
    assert [row.wire_bytes for row in sft.log.of(Transfer)] == [
        row.wire_bytes for row in grpo.log.of(Transfer)
    ]
    assert len(grpo.policy.steps) == 5
    # The judge's truth is the synthetic row's own answer, whatever it is worth.
    assert all(row.reward_mean == row.correct for row in grpo.groups)


async def test_rows_in_proportion_tell_how_many_rows_a_client_has():
    _, maker = await played({"rows_per_private_row": 4.0})
    assert set(maker.asked) == {(0, 5, 20), (2, 3, 12)}


async def test_clients_with_too_few_rows_take_no_part():
    ran, maker = await played({"minimum_rows": 4})
    assert {client for client, *_ in maker.asked} == {0}
    assert {told.client_id: len(told.reply.questions) for told in ran.told} == {0: 9, 1: 0, 2: 0}


async def test_no_synthetic_row_at_all_is_an_error():
    said = (
        "no synthetic row came: of 3 clients asked, 0 were lost or too late, and 3 answered, each with no row"
    )
    with pytest.raises(FederationError, match=said):
        await played({"minimum_rows": 50})


async def test_a_repeated_upload_is_the_same_release():
    """Client 0 computes for a second, is cut while it uploads, and comes back."""
    maker = FakeSynthesiser(telling=True)
    slow = replace(device(1.0), up_bytes_per_s=100.0)
    world = {"profiles": [slow] * 3, "availability": Timetable({0: [(0.0, 1.5), (5.0, math.inf)]})}
    ran, _ = await played(world=world, maker=maker)
    tries = [(row.status, row.phase) for row in ran.outcomes if row.client_id == 0]
    assert tries == [("cut", "up"), ("ok", "done")]
    first, last = [told.reply for told in ran.told if told.client_id == 0]
    assert first == last
    assert len(first.questions) == 9
    # Whatever a client is asked for anew, it asks its generator for the same.
    calls = Counter(maker.asked)
    assert set(calls) == {(0, 5, 10), (2, 3, 10)}
    assert calls[0, 5, 10] == 2 * calls[2, 3, 10]


def test_a_stand_in_computes_a_release_once_and_puts_it_on_the_books_once():
    made = []

    class Counting(StandInSynthesiser):
        def _make(self, *arguments):
            made.append(arguments)
            return super()._make(*arguments)

    maker = Counting(SynthesisConfig(rows_per_client=12), seed=5)
    handler = dpsda_fl.handlers_for(settings("dpsda_fl", synthesis={"minimum_rows": 2}))
    upload = handler[wire.SyntheticRequest]
    message = wire.SyntheticRequest(wire.pack_id(0))
    who = client(maker, rows=own(20))
    works = [upload.work(who, message) for _ in range(2)]
    replies = [upload.run(who, message).message for _ in range(2)]
    assert works[0] == works[1]
    assert replies[0] == replies[1]
    assert len(made) == len(maker.report()) == 1


# ---------------------------------------------------------------------------------------------------------- what it costs


def client(synthesiser=None, rows=ROWS[0]) -> ClientState:
    return ClientState(0, FakeEvaluator(), SPEC, {}, AnswerRule(), COUNTS, rows=rows, synthesiser=synthesiser)


def test_the_cost_is_training_generation_and_embedding_by_token_counts():
    made = Synthesis(
        rows=(("ab", "c"),),
        epsilon=math.inf,
        delta=0.0,
        steps=((("abc", ("de",)), ("f", ("g",))), (("abc", ("de",)),)),
        generated=(Samples((("ab", "c"), ("abcd", "ef"))), Samples((("a", "b"),))),
        embedded=((("abc", "d"), ("e", "f")), (("ab", "c"),)),
    )
    # A row of q and a letters is q + a tokens, the mark between them, the end, and in training the start.
    expected = training_work(SPEC, [8, 5]) + training_work(SPEC, [8])
    # What is embedded has the start and no end. Each batch reads the weights anew.
    expected += generate_work(SPEC, [1, 1], [[5], [8]]) + generate_work(SPEC, [1], [[4]])
    expected += embedding_work(SPEC, [6, 4]) + embedding_work(SPEC, [5])
    assert dpsda_fl.synthesis_work(client(), made) == expected


def test_a_malformed_sample_costs_as_much_as_the_longest_that_may_be_written():
    def cost(*batches, max_tokens=20):
        made = Synthesis((), math.inf, 0.0, generated=batches, max_tokens=max_tokens)
        return dpsda_fl.synthesis_work(client(), made)

    assert cost(Samples((("ab", "c"),), 2)) == generate_work(SPEC, [1] * 3, [[5], [20], [20]])
    assert cost(Samples((), 2), Samples((), 1)) == generate_work(SPEC, [1] * 2, [[20]] * 2) + generate_work(
        SPEC, [1], [[20]]
    )
    # Where texts are billed longer than the simulated generator's limit, the longest of them.
    longer = cost(Samples((("a" * 30, "b"), ("a", "b"))), Samples((), 1))
    assert longer == generate_work(SPEC, [1] * 2, [[33], [4]]) + generate_work(SPEC, [1], [[33]])


def test_a_client_that_takes_no_part_computes_nothing():
    handler = dpsda_fl.handlers_for(settings("dpsda_fl"))[wire.SyntheticRequest]
    message = wire.SyntheticRequest(wire.pack_id(0))
    assert handler.work(client(FakeSynthesiser(), rows=()), message).flop == 0.0


@pytest.mark.parametrize("mechanism", [{"mechanism": "dp_sgd"}, {"mechanism": "none", "epsilon": "inf"}])
def test_training_on_the_device_needs_room_for_gradients_optimiser_and_activations(mechanism):
    evolution = settings("dpsda_fl")
    training = settings("dpsda_fl", synthesis=mechanism)
    assert dpsda_fl.client_memory_bytes(evolution, SPEC, 64) == resident_bytes(SPEC, 64)
    # Weights and gradients of 2 bytes, AdamW's 12; and of each of 64 tokens 2 (4 h + 2 q + 2 kv + 3 f) bytes (h = q = kv = f
    # = 8) and 8 a token of the vocabulary of 10.
    activations = 64 * (2 * 11 * 8 + 8 * 10)
    assert dpsda_fl.client_memory_bytes(training, SPEC, 64) == 16 * SPEC.num_parameters + activations
    # The rule of the other protocol that trains all of a model on clients.
    everything = settings("fedpetuning", module="full", objective="sft")
    assert fedpetuning.client_memory_bytes(everything, SPEC, 64) == 16 * SPEC.num_parameters + activations


# --------------------------------------------------------------------------------------------------------------- settings


def test_no_mechanism_promises_nothing_and_says_so():
    with pytest.raises(ValidationError, match="mechanism none protects nothing; write epsilon: inf"):
        settings("dpsda_fl", synthesis={"mechanism": "none"})
    chosen = settings("dpsda_fl", synthesis={"mechanism": "none", "epsilon": "inf"})
    assert chosen.synthesis.privacy_loss == math.inf
    # The epsilon of group-relative advantages is another thing and stays where it is.
    assert chosen.epsilon == 0.01


@pytest.mark.parametrize(
    "wrong", [{"epsilon": 0}, {"epsilon": -1.0}, {"delta": 0.0}, {"delta": 1.0}, {"epsilon": "none"}]
)
def test_impossible_budgets_are_refused(wrong):
    with pytest.raises(ValidationError):
        settings("dpsda_fl", synthesis=wrong)


# -------------------------------------------------------------------------------------------------------- timing fidelity


def stand_in(**keys) -> StandInSynthesiser:
    return StandInSynthesiser(SynthesisConfig(**keys), seed=5)


def own(count: int):
    return tuple(replace(row, domain="gcd", answer="17") for row in (ROWS[0] * count)[:count])


def test_stand_in_rows_are_as_long_as_the_clients_own_and_a_function_of_the_client():
    maker = stand_in()
    made = maker.synthesise(3, own(50), 30)
    assert len(made.rows) == 30
    lengths = {(len(row.text.encode()), len(row.taught.encode())) for row in own(50)}
    assert {(len(text.encode()), len(answer.encode())) for text, answer in made.rows} <= lengths
    assert stand_in().synthesise(3, own(50), 30) == made
    assert stand_in().synthesise(4, own(50), 30) != made


def test_the_stand_in_counts_the_mechanisms_work_and_noise():
    evolution = stand_in(mechanism="private_evolution", epsilon=2.0)
    made = evolution.synthesise(0, own(50), 30)
    assert (made.steps, made.generated) == ((), (Samples(made.rows),) * 6)
    assert [len(rows) for rows in made.embedded] == [50] + [30] * 5
    assert evolution.report()[0]["noise"] == gaussian_sigma(2.0, 1e-5, 5)
    tuning = TuningConfig(steps=400, batch_size=10)
    sgd = stand_in(mechanism="dp_sgd", epsilon=2.0, tuning=tuning)
    made = sgd.synthesise(0, own(50), 30)
    assert len(made.steps) == 400
    # Binomial(50, .2) rows a step: five standard errors.
    assert sum(map(len, made.steps)) / 400 == pytest.approx(10.0, abs=5 * math.sqrt(8 / 400))
    assert sgd.report()[0]["noise"] == dp_sgd_noise_multiplier(2.0, 1e-5, 0.2, 400)
    plain = stand_in(mechanism="none", epsilon="inf", tuning=tuning)
    assert plain.synthesise(0, own(50), 30).epsilon == math.inf
    assert (plain.report()[0]["noise"], plain.report()[0]["epsilon"]) == (0.0, "inf")


@pytest.mark.parametrize(
    "protocol",
    [
        {"name": "dpsda_fl", "synthesis": {"rows_per_client": 20}},
        {"name": "dpsda_fl", "objective": "grpo", "synthesis": {"mechanism": "dp_sgd", "epsilon": 1.0}},
        {"name": "dpsda_fl", "synthesis": {"mechanism": "none", "epsilon": "inf"}},
        {"name": "central_pooled"},
        {"name": "central_pooled", "objective": "grpo"},
    ],
)
def test_timing_runs_play_the_whole_protocol_and_leave_the_ledger(protocol, tmp_path):
    scenario = scenario_from(
        {
            "name": "timed",
            "fidelity": "timing",
            "stop": {"updates": 3},
            "protocol": protocol | {"update": {"groups_per_update": 4, "in_flight": 4}},
            "tasks": {
                "domains": ["chain_sum", "gcd"],
                "sizes": {"private": 300, "auxiliary": 10, "pool": 20},
            },
            "clients": {"laptop": 3},
        }
    )
    ran = experiment.run(scenario, out=tmp_path / "run")
    assert (ran.summary["updates"], ran.summary["stopped_by"]) == (3, "updates")
    purpose = "data" if protocol["name"] == "central_pooled" else "synthetic"
    assert ran.summary["bytes"]["by_purpose"][purpose] > 0
    ledger = tmp_path / "run" / "privacy.json"
    assert ledger.exists() == (purpose == "synthetic")
    if ledger.exists():
        entries = json.loads(ledger.read_text())
        assert {entry["mechanism"] for entry in entries} == {scenario.protocol.synthesis.mechanism}
        assert entries
        for entry in entries:
            spent, promised = accounted(entry), float(entry["epsilon"])
            assert promised == float(protocol["synthesis"].get("epsilon", 10.0))
            assert spent == pytest.approx(promised, rel=1e-4)


def accounted(entry) -> float:
    """What a release in the ledger cost, by its noise, sampling rate and number of releases alone."""
    if entry["mechanism"] == "none":
        return math.inf if entry["noise"] == 0.0 else math.nan
    multiplier, releases = entry["noise"] / entry["sensitivity"], entry["releases"]
    if entry["mechanism"] == "private_evolution":
        return gaussian_epsilon(entry["delta"], math.sqrt(releases) / multiplier)
    return dp_sgd_epsilon(entry["delta"], entry["sampling_rate"], releases, multiplier)


async def test_a_phone_takes_as_long_as_its_work_says():
    profiles = [device(1.0), device(1.0), device(7.0)]
    ran, _ = await played(world={"profiles": profiles})
    busy = {row.client_id: row.end_at_s - row.start_at_s for row in ran.log.of(Compute) if row.client_id >= 0}
    assert busy[2] == pytest.approx(7.0)
    assert ran.updates[0].at_s > 7.0
