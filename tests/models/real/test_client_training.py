"""Local training with real weights: pure, reset every time, adapters only, and the same bits as central training."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fedsim.experiment import run as experiment
from fedsim.models.client_training_config import LocalTrainingConfig, local_batches
from fedsim.models.interfaces import Draw
from fedsim.models.real.adapters import shared_copy, with_lora
from fedsim.models.real.client_training import (
    PolicyTrainer,
    canonical_name,
    set_trainable_weights,
    trainable_weights,
)
from fedsim.models.real.policy import LanguagePolicy
from fedsim.models.real.zoo import scratch_network
from fedsim.models.sources import LoraConfig
from fedsim.models.timing.stand_ins import StandInPolicy
from fedsim.models.timing.training import StandInTrainer
from fedsim.protocols.shared.monitor import StopConfig
from fedsim.scenario.read import scenario_from
from fedsim.sim import streams
from fedsim.sim.devices.adapters import lora_shapes
from fedsim.sim.devices.architecture import spec_from_config
from fedsim.sim.network import wire
from tests.samples.fakes import FakeEvaluator, play, settings, task_data
from tests.samples.tiny_models import TINY, language, questions, tokenizer, trained_network

LORA = LocalTrainingConfig(local_steps=3, local_batch_size=8, local_learning_rate=1e-2)
FULL = LORA.model_copy(update={"module": "full", "local_learning_rate": 1e-3})
GRPO = LORA.model_copy(update={"objective": "grpo", "local_batch_size": 4, "max_new_tokens": 4})
ROWS = questions()[:20]


def right(text, truth):
    return text in truth


def staged(config=LORA, seed=7, network=None):
    """A live policy as the bundle builds it, and its trainer."""
    torch.set_num_threads(1)
    network = network or deepcopy(trained_network())
    frozen = deepcopy(network).requires_grad_(False)
    if config.module == "lora":
        frozen = shared_copy(network.requires_grad_(False))
        network = with_lora(network, config.lora, seed)
    live = LanguagePolicy(language(network), language(frozen), config, right, seed, ())
    return live, PolicyTrainer(live, config, right, seed)


def digest(weights):
    state = hashlib.sha256()
    for name, array in weights.items():
        state.update(name.encode() + array.tobytes())
    return state.hexdigest()


def frozen_digest(network):
    return digest({n: w.detach().numpy() for n, w in network.named_parameters() if not w.requires_grad})


def spec():
    return spec_from_config(trained_network().config.to_dict())


def test_the_start_has_the_names_and_shapes_that_the_architecture_says():
    for config in (LORA, FULL, LORA.model_copy(update={"lora": LoraConfig(rank=3, targets=("o_proj",))})):
        _, trainer = staged(config)
        shapes = {name: array.shape for name, array in trainer.start().items()}
        assert shapes == config.adapter_shapes(spec())
    assert {array.dtype for array in trainer.start().values()} == {np.dtype(np.float32)}


def test_the_start_is_seeded_with_a_random_and_b_zero():
    starts = [staged(seed=seed)[1].start() for seed in (1, 1, 2)]
    assert digest(starts[0]) == digest(starts[1]) != digest(starts[2])
    for name, array in starts[0].items():
        assert array.any() == name.endswith("lora_A")


def test_names_lose_what_libraries_put_around_them():
    assert canonical_name("model.layers.1.mlp.up_proj.weight") == "layers.1.mlp.up_proj.weight"
    assert canonical_name("lm_head.weight") == "lm_head.weight"


@pytest.mark.parametrize("config", [LORA, GRPO, FULL], ids=["lora sft", "lora grpo", "full sft"])
def test_training_is_a_pure_function_of_client_round_weights_and_rows(config):
    live, trainer = staged(config)
    start = trainer.start()
    first = trainer.tune(3, 5, start, ROWS)
    trainer.tune(1, 0, first.weights, ROWS[:9])
    torch.manual_seed(99)
    again = trainer.tune(3, 5, start, ROWS)
    other = staged(config)[1].tune(3, 5, start, ROWS)
    assert digest(first.weights) == digest(again.weights) == digest(other.weights)
    assert first.steps == again.steps == other.steps
    assert first.loss == again.loss
    assert digest(trainer.start()) == digest(start)
    for changed in ((4, 5, start, ROWS), (3, 6, start, ROWS), (3, 5, start, ROWS[1:])):
        assert digest(trainer.tune(*changed).weights) != digest(first.weights)
    assert live.version == 0


def test_training_leaves_the_live_policy_and_every_frozen_weight_as_they_were():
    for config in (LORA, GRPO):
        live, trainer = staged(config)
        base = frozen_digest(live.language.network)
        everything = live.weights_sha256()
        weights = trainer.start()
        for round_index in range(5):
            weights = trainer.tune(0, round_index, weights, ROWS).weights
        assert live.weights_sha256() == everything
        trainer.install(weights)
        assert live.weights_sha256() != everything
        assert frozen_digest(live.language.network) == base
        assert frozen_digest(trainer._language.network) == base


def test_the_copy_shares_frozen_weights_and_owns_trainable_ones():
    live, trainer = staged()
    for (name, own), (_, other) in zip(
        trainer._language.network.named_parameters(), live.language.network.named_parameters(), strict=True
    ):
        assert (own is other) == (not own.requires_grad), name


def test_installing_is_one_version_and_makes_the_policy_answer_like_the_client():
    live, trainer = staged(network=scratch_network(TINY, tokenizer(), 3))
    before = live.evaluate(ROWS, 8)
    update = trainer.tune(0, 0, trainer.start(), ROWS)
    trainer.install(update.weights)
    assert live.version == 1
    assert digest(trainable_weights(live.language.network)) == digest(update.weights)
    after = live.evaluate(ROWS, 8)
    assert before.kl_to_initial == pytest.approx(0, abs=1e-6) and after.kl_to_initial > 1e-4


def test_groups_that_are_remembered_when_weights_are_installed_keep_who_sampled_them():
    said = []
    for takes_down in (False, True):
        live, trainer = staged(FULL)
        groups = live.sample([Draw(index, question) for index, question in enumerate(ROWS[:8])])
        if takes_down:
            live.take_down()
        trainer.install(trainer.tune(0, 0, trainer.start(), ROWS).weights)
        gains = [np.linspace(-1.0, 1.0, len(group.texts)) for group in groups]
        said.append((live.update(groups, gains), live.weights_sha256()))
    assert said[0] == said[1]


def test_one_client_with_all_weights_learns_the_bits_of_central_training():
    """FedAvg with K = 1: the same steps on the same batches with one optimiser."""
    live, trainer = staged(FULL)
    update = trainer.tune(0, 0, trainer.start(), ROWS)
    settings = FULL.model_copy(update={"fit_learning_rate": FULL.local_learning_rate})
    network = deepcopy(trained_network())
    key = streams.integer(
        7, "local", 0, 0
    )  # rows within a batch are shuffled by the seed, and sums round by order
    central = LanguagePolicy(language(network), live.initial, settings, right, key, ())
    text_of = {row.text: row for row in ROWS}
    for step in update.steps:
        central.fit([text_of[text] for text, _ in step], steps=1)
    assert digest(trainable_weights(network)) == digest(update.weights)


def test_the_clients_optimiser_starts_afresh_every_round():
    """Two rounds of one step are two first steps of Adam, whose size is the rate whatever the gradient."""
    config = FULL.model_copy(update={"local_steps": 1, "local_learning_rate": 1e-3})
    _, trainer = staged(config)
    start = trainer.start()
    once = trainer.tune(0, 0, start, ROWS).weights
    twice = trainer.tune(0, 1, once, ROWS).weights
    for before, after in ((start, once), (once, twice)):
        steps = np.concatenate([np.abs(after[name] - before[name]).ravel() for name in before])
        moved = steps[steps > 1e-6]
        assert np.quantile(moved, 0.5) == pytest.approx(1e-3, rel=0.02)
    kept = trainer.tune(0, 0, start, ROWS)
    two = staged(config.model_copy(update={"local_steps": 2}))[1].tune(0, 0, start, ROWS)
    assert digest(kept.weights) == digest(once) != digest(two.weights)


def test_sft_lowers_its_loss_and_grpo_raises_the_reward_on_its_rows():
    network = scratch_network(TINY, tokenizer(), 3)
    _, trainer = staged(FULL.model_copy(update={"local_steps": 40}), network=network)
    first = trainer.tune(0, 0, trainer.start(), ROWS)
    second = trainer.tune(0, 1, first.weights, ROWS)
    assert second.loss < 0.7 * first.loss

    config = GRPO.model_copy(update={"module": "full", "local_steps": 12, "local_batch_size": 10})
    live, trainer = staged(config.model_copy(update={"local_learning_rate": 2e-3}), network=_weakened())
    before = live.evaluate(ROWS, 8).pass_at_1
    trainer.install(trainer.tune(0, 0, trainer.start(), ROWS).weights)
    assert live.evaluate(ROWS, 8).pass_at_1 > before + 0.05


def test_what_was_trained_on_is_reported_step_by_step():
    _, trainer = staged(LORA.model_copy(update={"local_steps": None, "local_epochs": 2}))
    update = trainer.tune(0, 0, trainer.start(), ROWS)
    assert [len(step) for step in update.steps] == [8, 8, 4, 8, 8, 4]
    known = {row.text: row.answer for row in ROWS}
    assert all(answers == (known[text],) for step in update.steps for text, answers in step)
    first, second = update.steps[:3], update.steps[3:]
    for epoch in (first, second):
        assert sorted(text for step in epoch for text, _ in step) == sorted(known)
    assert first != second
    assert not update.sampled


def test_grpo_reports_the_candidates_it_sampled_itself():
    _, trainer = staged(GRPO)
    update = trainer.tune(0, 0, trainer.start(), ROWS)
    assert update.sampled and len(update.steps) == 3
    for step in update.steps:
        assert len(step) == 4 and all(len(texts) == GRPO.group_size for _, texts in step)


def test_grpo_without_any_right_candidate_changes_nothing():
    _, trainer = staged(GRPO)
    rows = [replace(row, answer="never") for row in ROWS]
    start = trainer.start()
    assert digest(trainer.tune(0, 0, start, rows).weights) == digest(start)


def test_stand_ins_train_on_the_same_rows_in_the_same_order():
    for config in (LORA, GRPO):
        _, trainer = staged(config)
        policy = StandInPolicy(config, 7)
        stand_in = StandInTrainer(policy, config, spec(), 7)
        assert list(stand_in.start()) == list(lora_shapes(spec(), 8, ("q_proj", "v_proj")))
        real = trainer.tune(2, 4, trainer.start(), ROWS)
        played = stand_in.tune(2, 4, stand_in.start(), ROWS)
        assert [[text for text, _ in step] for step in played.steps] == [
            [text for text, _ in step] for step in real.steps
        ]
        assert played.sampled == real.sampled
        stand_in.install(played.weights)
        assert policy.version == 1


def test_weights_of_another_model_are_refused():
    _, trainer = staged()
    start = dict(trainer.start())
    name, array = next(iter(start.items()))
    with pytest.raises(ValueError, match="one side only, first layers"):
        trainer.tune(0, 0, {k: v for k, v in start.items() if k != name}, ROWS)
    with pytest.raises(ValueError, match=r"has shape \(1, 2\)"):
        set_trainable_weights(trainer._language.network, start | {name: np.zeros((1, 2), np.float32)})
    assert array.any()


def test_an_installed_adapter_is_merged_into_the_folder_that_is_saved(tmp_path):
    live, trainer = staged(LORA)
    trainer.install(trainer.tune(0, 0, trainer.start(), ROWS).weights)
    live.save(tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sorted(merged.state_dict()) == sorted(trained_network().state_dict())
    ids = torch.tensor([live.language.prompt_ids(ROWS[0].text)])
    with torch.no_grad():
        ours, theirs = live.language.network(input_ids=ids).logits, merged(input_ids=ids).logits
        untrained = trained_network()(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(ours, untrained, atol=1e-2)


def test_no_rows_no_batches_and_settings_that_contradict_each_other_are_refused():
    assert list(local_batches(LORA, (), 1)) == []
    with pytest.raises(ValueError, match="give one of them"):
        LocalTrainingConfig(local_epochs=1, local_steps=1)
    with pytest.raises(ValueError, match="inner_passes"):
        LocalTrainingConfig(inner_passes=2)
    with pytest.raises(ValueError, match=r"lora\.targets must be some of q_proj"):
        LocalTrainingConfig(lora=LoraConfig(targets=("c_attn",)))


async def played(config, rows, number=3):
    """Rounds of the protocol with real weights; returns the stage, the live policy and its trainer."""
    live, trainer = staged(config)
    data = replace(task_data(num_clients=len(rows)), private=rows, validation=ROWS[:5], test=ROWS[5:10])
    stop = StopConfig(updates=number)
    evaluators = [FakeEvaluator() for _ in rows]
    return await play(config, evaluators, data=data, policy=live, trainer=trainer, stop=stop), live, trainer


@pytest.mark.parametrize("objective", ["sft", "grpo"])
async def test_after_rounds_of_the_protocol_frozen_weights_are_bit_identical_and_a_seed_repeats(objective):
    config = settings("fedpetuning", objective=objective, local_steps=1, local_batch_size=4, max_new_tokens=4)
    rows = (ROWS[:6], ROWS[6:12])
    base = {canonical_name(name): weight for name, weight in trained_network().named_parameters()}
    hashes = []
    for _ in range(2):
        ran, live, _ = await played(config, rows)
        assert live.version == 3
        for name, weight in live.language.network.named_parameters():
            if not weight.requires_grad:
                original = base[canonical_name(name.replace(".base_layer", ""))]
                assert torch.equal(weight, original), name
        sent = b"".join(wire.encode(told.message) + wire.encode(told.reply) for told in ran.told)
        hashes.append((hashlib.sha256(sent).hexdigest(), live.weights_sha256()))
    assert hashes[0] == hashes[1]


async def test_the_protocol_with_one_client_and_all_weights_is_central_training():
    keys = {"local_steps": 2, "local_batch_size": 8, "number_type": "float32"}
    config = settings("fedpetuning", module="full", **keys)
    _, live, _ = await played(config, (ROWS,), number=2)
    _, trainer = staged(config)
    weights = trainer.start()
    for number in range(2):
        weights = trainer.tune(0, number, weights, ROWS).weights
    assert digest(trainable_weights(live.language.network)) == digest(weights)


def _weakened():
    network = deepcopy(trained_network())
    with torch.no_grad():
        for weight in network.parameters():
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
            weight.add_(0.2 * float(weight.std()) * noise)
    return network


def test_a_real_run_and_a_timing_run_of_one_scenario_have_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIM_PROCESSES", "1")  # three steps of training are not worth a process
    scratch = {
        "preset": "scratch-250k",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "steps": 3,
    }
    scenario = {
        "name": "both",
        "stop": {"updates": 2},
        "protocol": {"name": "fedpetuning", "local_steps": 1, "local_batch_size": 4, "lora": {"rank": 2}},
        "tasks": {
            "domains": ["gcd"],
            "sizes": {"public": 40, "private": 60, "auxiliary": 5, "pool": 10, "validation": 5, "test": 5},
        },
        "models": {"server": scratch, "clients": scratch},
        "clients": {"phone": 2},
        "network": {"transport": "ideal"},
    }
    transfers = {}
    for fidelity in ("real", "timing"):
        ran = experiment.run(
            scenario_from(scenario | {"fidelity": fidelity}),
            out=tmp_path / fidelity,
            cache_dir=tmp_path / "cache",
        )
        columns = ["client_id", "direction", "purpose", "message_bytes", "wire_bytes", "paper_bytes"]
        transfers[fidelity] = sorted(ran.transfers.select(columns).rows())
    assert transfers["real"] == transfers["timing"] and len(transfers["real"]) >= 4
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "real" / "policy")
    assert not any("lora" in name for name in saved.state_dict())
