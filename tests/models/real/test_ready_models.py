"""Models that come with weights: every client has its own, on one base, trained on its own rows, kept and hashed."""

import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedsim.errors import DataFileError, FedsimError, ModelFileError
from fedsim.models.config import ModelsConfig, PolicyConfig
from fedsim.models.interfaces import Draw
from fedsim.models.real.adapters import load_adapters, save_adapters, shared_copy, train_adapters, with_lora
from fedsim.models.real.bundle import load_models
from fedsim.models.real.language import LanguageModel, Shapes
from fedsim.models.real.weights import save_model
from fedsim.models.real.zoo import load_folder
from fedsim.models.sources import AdapterTuning, LoraConfig
from fedsim.tasks.questions import TaskData
from tests.samples.tiny_models import language, questions, tokenizer, trained_network

LORA = {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"], "layers": [1, 1]}
TUNING = {"steps": 6, "batch_size": 8, "learning_rate": 1e-2}
ROWS = questions()[:30]


def data(**parts):
    rows = questions()
    private = (rows[:20], rows[20:40], ())
    given = {
        "domains": ("sums", "words"), "public": (), "private": private, "auxiliary": rows[40:50], "pool": rows[50:60],
        "validation": rows[60:64], "test": rows[64:70], "trusted": ({},) * 3,
        "partition": np.zeros((3, 2), dtype=np.int64), "format_rows": tuple(replace(row, answer="9") for row in rows[100:110]),
    }  # fmt: skip
    return TaskData(**(given | parts))


@pytest.fixture
def folder(tmp_path):
    goal = tmp_path / "model"
    save_model(deepcopy(trained_network()), tokenizer(), goal)
    return goal


def models(folder, **parts):
    ready = {"path": str(folder), "lora": LORA}
    return ModelsConfig(**({"server": ready, "clients": ready | {"tuning": TUNING}} | parts))


def loaded(folder, tmp_path, given=None, seed=5, **parts):
    config = PolicyConfig(max_new_tokens=4, learning_rate=1e-2, warmup_updates=0)
    return load_models(
        models(folder, **parts), config, given or data(), seed, cache_dir=tmp_path / "cache", processes=1
    )


def test_every_client_has_a_model_of_its_own_on_one_base(folder, tmp_path):
    bundle = loaded(folder, tmp_path)
    own = [bundle.hashes[f"client-{client}"] for client in range(3)]
    assert len({*own, bundle.hashes["server"]}) == 4
    networks = [one.language.network for one in bundle.evaluators]
    embeddings = {id(network.get_input_embeddings().weight) for network in networks}
    assert embeddings == {id(bundle.policy.language.network.get_input_embeddings().weight)}
    row = ROWS[0]
    scores = [one.likelihood(row.text, [row.answer])[0] for one in bundle.evaluators]
    assert len(set(scores)) == 3


def test_a_client_is_better_on_the_rows_that_it_was_trained_on(folder, tmp_path):
    bundle = loaded(
        folder, tmp_path, clients={"path": str(folder), "lora": LORA, "tuning": TUNING | {"steps": 30}}
    )

    def fit(client, rows):
        scorer = bundle.evaluators[client]
        return np.mean([np.log(scorer.likelihood(row.text, [row.answer])[0]) for row in rows])

    first, second = data().private[:2]
    assert fit(0, first) > fit(2, first) and fit(1, second) > fit(2, second)
    assert fit(0, first) > fit(1, first) and fit(1, second) > fit(0, second)


def test_what_was_trained_is_kept_and_repeats(folder, tmp_path):
    first = loaded(folder, tmp_path)
    kept = sorted(path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir())
    again = loaded(folder, tmp_path)
    assert again.hashes == first.hashes
    assert sorted(path.name for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()) == kept
    elsewhere = loaded(folder, tmp_path / "elsewhere")
    assert elsewhere.hashes == first.hashes
    assert loaded(folder, tmp_path, seed=6).hashes["client-0"] != first.hashes["client-0"]


@pytest.mark.slow
def test_a_worker_process_trains_the_same_adapters(folder, tmp_path):
    config = PolicyConfig(max_new_tokens=4)

    def hashes(processes):
        return load_models(models(folder), config, data(), 5, cache_dir=tmp_path, processes=processes).hashes

    alone = hashes(processes=1)
    one = next(tmp_path.glob("models/*/training.json")).parent  # one model is missing: one worker
    shutil.rmtree(one)
    assert hashes(processes=2) == alone


def test_the_format_tuning_is_the_common_start_of_server_and_clients(folder, tmp_path):
    plain = loaded(folder, tmp_path)
    tuned = loaded(folder, tmp_path, format_tuning={"steps": 8, "batch_size": 4, "learning_rate": 1e-2})
    assert (
        tuned.hashes["server"] != plain.hashes["server"]
        and tuned.hashes["client-0"] != plain.hashes["client-0"]
    )
    rows = data().format_rows

    def fit(scorer):
        return np.mean([np.log(scorer.likelihood(row.text, [row.answer])[0]) for row in rows])

    assert fit(tuned.reference) > fit(plain.reference)
    assert fit(tuned.evaluators[2]) == fit(tuned.reference)  # a client without rows is the common start
    assert not torch.equal(
        tuned.policy.language.network.get_base_model().model.layers[1].mlp.down_proj.base_layer.weight,
        plain.policy.language.network.get_base_model().model.layers[1].mlp.down_proj.base_layer.weight,
    )


def test_a_format_tuning_without_rows_is_refused(folder, tmp_path):
    with pytest.raises(DataFileError, match=r"has no rows to tune on; give tasks.sizes.format"):
        loaded(folder, tmp_path, data(format_rows=()), format_tuning={"steps": 1})


def test_clients_may_have_folders_of_their_own_sizes(folder, tmp_path):
    from tests.models.real.test_packed import base

    for client, network in enumerate([trained_network(), base(), trained_network()]):
        save_model(deepcopy(network), tokenizer(), tmp_path / f"own-{client}")
    own = {"path": f"{tmp_path}/own-{{client}}", "lora": LORA, "tuning": TUNING}
    bundle = loaded(folder, tmp_path, clients=own)
    depths = [one.language.network.config.num_hidden_layers for one in bundle.evaluators]
    assert depths == [2, 4, 2]
    assert len(set(bundle.hashes.values())) == 4
    assert all(0 < one.likelihood(ROWS[0].text, ["5"])[0] < 1 for one in bundle.evaluators)


def test_adapters_of_clients_are_trained_privately_if_asked(folder, tmp_path):
    private = {"epsilon": 8.0, "delta": 1e-3, "tuning": {"steps": 4, "batch_size": 8, "learning_rate": 1e-2}}
    plain = {"path": str(folder), "lora": LORA}
    bundle = loaded(folder, tmp_path, clients=plain, client_privacy=private)
    assert len(set(bundle.hashes.values())) == 4 or bundle.hashes["client-2"] != bundle.hashes["client-0"]
    noisier = loaded(folder, tmp_path, clients=plain, client_privacy=private | {"epsilon": 1.0})
    assert noisier.hashes["client-0"] != bundle.hashes["client-0"]


def test_a_server_with_adapters_learns_and_the_clients_do_not_change(folder, tmp_path):
    bundle = loaded(folder, tmp_path)
    row = ROWS[3]
    before = (
        bundle.evaluators[0].likelihood(row.text, [row.answer]),
        bundle.reference.likelihood(row.text, ["7"]),
    )
    groups = bundle.policy.sample([Draw(number, question) for number, question in enumerate(data().pool)])
    gains = [np.linspace(-1, 1, 8) for _ in groups]
    bundle.policy.update(groups, gains)
    fresh = loaded(folder, tmp_path)
    assert bundle.policy.weights_sha256() != fresh.policy.weights_sha256()
    for scorer, same in ((bundle.evaluators[0], fresh.evaluators[0]), (bundle.reference, fresh.reference)):
        assert scorer.language.network.training is False
        assert same.likelihood(row.text, [row.answer]) is not None
    after = (
        fresh.evaluators[0].likelihood(row.text, [row.answer]),
        fresh.reference.likelihood(row.text, ["7"]),
    )
    assert before == after
    scorer = bundle.evaluators[0]
    scorer._likelihoods.clear()
    assert scorer.likelihood(row.text, [row.answer]) == before[0]


def test_saved_adapters_come_back_and_those_of_another_model_are_refused(tmp_path):
    network = with_lora(shared_copy(deepcopy(trained_network()).requires_grad_(False)), LoraConfig(rank=2), 1)
    train_adapters(language(network), ROWS, AdapterTuning(steps=2, batch_size=4), 3)
    save_adapters(network, tmp_path)
    again = with_lora(shared_copy(trained_network()), LoraConfig(rank=2), 9)
    load_adapters(again, tmp_path)
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ModelFileError, match="these adapters belong to another model"):
        load_adapters(with_lora(shared_copy(trained_network()), LoraConfig(rank=3), 1), tmp_path)


def test_training_adapters_stops_at_its_loss_and_refuses_one_that_is_not_finite():
    network = with_lora(shared_copy(deepcopy(trained_network()).requires_grad_(False)), LoraConfig(rank=4), 1)
    done = train_adapters(
        language(network), ROWS, AdapterTuning(steps=50, learning_rate=1e-2, stop_loss=5.0), 3
    )
    assert done.steps == 1
    with pytest.raises(FedsimError, match=r"reached a loss of nan at step \d+; lower its learning_rate"):
        train_adapters(language(network), ROWS, AdapterTuning(steps=50, learning_rate=1e30), 3)


def test_adapters_on_layers_or_tied_matrices_that_cannot_have_them_are_refused():
    network = shared_copy(trained_network())
    with pytest.raises(
        ModelFileError, match=r"lora.layers is \[1, 7\], but LlamaForCausalLM has 2 layers, 0 to 1"
    ):
        with_lora(network, LoraConfig(layers=(1, 7)), 1)
    with pytest.raises(
        ModelFileError, match=r"lora\.targets holds lm_head, which is one matrix for embedding and head"
    ):
        with_lora(network, LoraConfig(targets=("q_proj", "lm_head")), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"server": {"path": "x", "tuning": TUNING}}, "the server's adapters are trained by the protocol"),
        ({"server": {"path": "x-{client}"}}, "the server has one model"),
        (
            {"clients": {"path": "x", "tuning": TUNING}},
            "clients.tuning trains the clients' adapters; give clients.lora",
        ),
        ({"clients": {"path": "x"}, "client_privacy": {"epsilon": 8.0}}, "give clients.lora"),
        ({"format_tuning": {}}, "format_tuning tunes by adapters"),
        ({"server": {"path": "x"}, "format_tuning": {}}, "format_tuning tunes by adapters"),
        ({"server": {"path": "x", "lora": {"layers": [3, 1]}}}, "must be \\[first, last\\]"),
        ({"server": {"pretrained": "gpt-5"}}, "smollm2-135m"),
    ],
)
def test_settings_that_nobody_would_use_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ModelsConfig(**change)


def test_a_folder_that_is_saved_after_merging_is_the_policy_that_was_trained(folder, tmp_path):
    bundle = loaded(folder, tmp_path)
    groups = bundle.policy.sample([Draw(number, question) for number, question in enumerate(data().pool)])
    bundle.policy.update(groups, [np.linspace(-1, 1, 8) for _ in groups])
    bundle.policy.save(tmp_path / "saved")
    network, own = load_folder(tmp_path / "saved")
    saved = LanguageModel(network, own, Shapes(8))
    live = bundle.policy.language
    for question in ROWS[:5]:
        ids = live.prompt_ids(question.text)
        ours = live.network(torch.tensor([ids])).logits
        torch.testing.assert_close(saved.network(torch.tensor([ids])).logits, ours, rtol=1e-4, atol=1e-4)


def test_rows_of_the_private_split_do_not_change_the_base(folder, tmp_path):
    some = data()
    other = replace(some, private=(some.private[1], some.private[0], ()))
    assert loaded(folder, tmp_path, some).hashes["server"] == loaded(folder, tmp_path, other).hashes["server"]
