"""Networks from elsewhere: folders, refusals, adapters, the cache and its keys, and the bundle that joins them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fedsim.errors import FedsimError, ModelFileError
from fedsim.models.cache import cache_folder, cache_key, cached
from fedsim.models.config import ModelsConfig, PolicyConfig, StartTuning
from fedsim.models.interfaces import Draw
from fedsim.models.real.adapters import with_lora
from fedsim.models.real.bundle import load_models
from fedsim.models.real.training_jobs import AdapterJob, Job, run_jobs
from fedsim.models.real.weights import save_model, weights_sha256
from fedsim.models.real.zoo import load_folder
from fedsim.models.sources import FolderModel, HubModel, LoraConfig, ScratchModel
from fedsim.records.provenance import code_fingerprint
from fedsim.rl.advantages import advantages
from fedsim.tasks.questions import TaskData
from tests.samples.tiny_models import TINY, questions, tokenizer, trained_network

FAST = TINY.model_copy(update={"steps": 3})


@pytest.fixture
def folder(tmp_path) -> Path:
    save_model(trained_network(), tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def _data(num_clients=2) -> TaskData:
    rows = questions()
    return TaskData(
        domains=("sums", "words"),
        public=rows[:40],
        private=tuple(rows[40 + 10 * k : 50 + 10 * k] if k else () for k in range(num_clients)),
        auxiliary=rows[70:80],
        pool=rows[80:95],
        validation=rows[95:105],
        test=rows[105:],
        trusted=tuple({} for _ in range(num_clients)),
        partition=np.zeros((num_clients, 2), dtype=np.int64),
    )


def test_a_saved_folder_loads_with_the_same_weights(folder):
    network, loaded = load_folder(folder)
    assert weights_sha256(network) == weights_sha256(trained_network())
    assert len(loaded) == len(tokenizer())


def test_pickled_weights_are_refused_in_one_line(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelFileError, match=r"no \*\.safetensors weights \(found pytorch_model\.bin"
    ) as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)


def test_missing_tensors_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match=r"1 tensors are missing .* model\.layers\.1\.mlp\.up_proj"):
        load_folder(folder)


def test_a_torn_weight_file_is_refused_in_one_line(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ModelFileError, match="not whole safetensors weights") as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"no config\.json"):
        load_folder(tmp_path)


def test_adapters_leave_the_initial_policy_alone_and_are_merged_when_saved(folder, tmp_path):
    source = FolderModel(path=str(folder), lora=LoraConfig(rank=2))
    models = ModelsConfig(server=source, clients=FolderModel(path=str(folder)))
    bundle = load_models(models, PolicyConfig(learning_rate=1e-2, warmup_updates=1), _data(), seed=1)
    live = bundle.policy
    question = questions()[0].text
    before = bundle.reference.likelihood(question, ["0", "1"])
    trainable = sum(weight.numel() for weight in live.language.network.parameters() if weight.requires_grad)
    assert trainable == 2 * 2 * 2 * 2 * 32  # two layers, q and v, two factors, rank 2, width 32
    for step in range(3):
        groups = live.sample([Draw(20 * step + i, q) for i, q in enumerate(questions()[:20])])
        rewards = [np.array([[float(len(text)) for text in group.texts]]) for group in groups]
        live.update(groups, [advantages(reward) for reward in rewards])
    again = load_models(models, PolicyConfig(), _data(), seed=1).reference.likelihood(question, ["0", "1"])
    assert again == before
    live.initial.network.dtype  # noqa: B018
    fresh = type(bundle.reference)(live.initial, 8)
    assert fresh.likelihood(question, ["0", "1"]) == before
    live.save(tmp_path / "out")
    merged, _ = load_folder(tmp_path / "out")
    ids = torch.tensor([live.language.prompt_ids(question)])
    torch.testing.assert_close(
        merged(ids).logits, live.language.network(input_ids=ids).logits, rtol=1e-3, atol=1e-4
    )


def test_adapters_on_layers_that_do_not_exist_are_refused(folder):
    with pytest.raises(ModelFileError, match=r"lora\.targets wq name no layer"):
        with_lora(load_folder(folder)[0], LoraConfig(targets=("wq",)), 1)


def test_the_bundle_trains_what_is_missing_once_and_repeats_itself(tmp_path):
    models = ModelsConfig(server=FAST, clients=FAST)
    said = []

    def report(*progress):
        said.append(progress)

    first = load_models(models, PolicyConfig(), _data(3), 5, cache_dir=tmp_path, processes=1, progress=report)
    assert {name for name, *_ in said} == {"server", "client-1", "client-2"}
    assert set(first.hashes) == {"server", "client-0", "client-1", "client-2"}
    said.clear()
    second = load_models(
        models, PolicyConfig(), _data(3), 5, cache_dir=tmp_path, processes=1, progress=report
    )
    assert not said
    assert second.hashes == first.hashes
    draws = [Draw(i, question) for i, question in enumerate(questions()[:3])]
    assert first.policy.sample(draws) == second.policy.sample(draws)
    assert first.evaluators[1].likelihood("1 + 1", ["2"]) == second.evaluators[1].likelihood("1 + 1", ["2"])
    other = load_models(models, PolicyConfig(), _data(3), 6, cache_dir=tmp_path, processes=1)
    assert not set(other.hashes.values()) & set(first.hashes.values())


@pytest.mark.slow
def test_worker_processes_train_the_same_weights_as_this_process(tmp_path):
    data = _data(3)
    models = ModelsConfig(server=FAST, clients=FAST)
    several = load_models(models, PolicyConfig(), data, 5, cache_dir=tmp_path / "several", processes=2)
    alone = load_models(models, PolicyConfig(), data, 5, cache_dir=tmp_path / "alone", processes=1)
    assert alone.hashes == several.hashes


@pytest.mark.slow
def test_a_worker_that_dies_names_the_model_and_what_it_said(tmp_path):
    none = tmp_path / "nothing"
    adapters = AdapterJob(LoraConfig(targets=("q_proj",)), None, (), chat=False)
    job = Job("client-1", "key", questions()[:5], FAST, 1, none, base=none, adapters=adapters)
    with pytest.raises(FedsimError, match=r"the worker that trained client-1 ended \(1\)"):
        run_jobs([job], tmp_path / "models", processes=2, threads=1, progress=None)
    assert not [path for path in (tmp_path / "models").iterdir() if path.is_dir()]


def test_a_start_tuned_on_dp_is_another_server_and_the_same_clients(tmp_path):
    models = ModelsConfig(server=FAST, clients=FAST, dp_tuning=StartTuning(steps=3))
    public = load_models(models, PolicyConfig(), _data(), 5, cache_dir=tmp_path, processes=1)
    models = models.model_copy(update={"start": "dp_tuned"})
    tuned = load_models(models, PolicyConfig(), _data(), 5, cache_dir=tmp_path, processes=1)
    assert tuned.hashes["server"] != public.hashes["server"]
    assert tuned.hashes["client-1"] == public.hashes["client-1"]
    assert weights_sha256(tuned.policy.initial.network) == tuned.hashes["server"]


def test_a_dp_tuned_folder_model_is_tuned_too(folder):
    models = ModelsConfig(
        server=FolderModel(path=str(folder)),
        clients=FolderModel(path=str(folder)),
        start="dp_tuned",
        dp_tuning=StartTuning(steps=2),
    )
    hashes = load_models(models, PolicyConfig(), _data(), 5).hashes
    assert hashes["server"] != hashes["client-0"] == hashes["client-1"]


def test_everything_that_determines_weights_is_in_the_key():
    parts = {"settings": TINY.model_dump(), "seed": 1}
    rows = questions()
    key = cache_key(parts, rows, 1)
    assert cache_key(dict(reversed(parts.items())), rows, 1) == key
    others = {
        cache_key({**parts, "seed": 2}, rows, 1),
        cache_key({**parts, "settings": {**TINY.model_dump(), "steps": 1}}, rows, 1),
        cache_key(parts, rows[1:], 1),
        cache_key(parts, rows[::-1], 1),
        cache_key(parts, rows, 2),
    }
    assert len(others | {key}) == 6


def test_docstrings_and_comments_do_not_retrain_but_code_does():
    plain = code_fingerprint("def f(x):\n    return x + 1\n")
    assert code_fingerprint('"""New."""\n# note\ndef f(x):\n    """Says."""\n    return x + 1\n') == plain
    assert code_fingerprint("def f(x):\n    return x + 2\n") != plain


def test_runs_that_want_the_same_model_at_once_build_it_once(tmp_path):
    built = []
    barrier = threading.Barrier(4)

    def build(target: Path) -> None:
        built.append(target)
        (target / "weights").write_text("w")

    def want() -> None:
        barrier.wait()
        assert (cached(tmp_path, "key", build) / "weights").read_text() == "w"

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_a_build_that_fails_leaves_nothing_that_looks_finished(tmp_path):
    def fail(target: Path) -> None:
        (target / "half").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cached(tmp_path, "key", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert cached(tmp_path, "key", lambda target: None).is_dir()


def test_the_cache_folder_is_the_argument_else_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDSIM_CACHE", str(tmp_path / "named"))
    assert cache_folder(None) == tmp_path / "named"
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.delenv("FEDSIM_CACHE")
    assert "fedsim" in str(cache_folder(None))


def test_a_preset_expands_and_its_keys_can_be_overridden():
    config = ModelsConfig(server={"preset": "scratch-1m", "steps": 7}, clients="scratch-250k")  # type: ignore[arg-type]
    assert isinstance(config.server, ScratchModel) and (config.server.steps, config.server.hidden_size) == (
        7,
        192,
    )
    assert isinstance(config.clients, ScratchModel) and config.clients.preset == "scratch-250k"
    assert ModelsConfig() == ModelsConfig(server="scratch-450k", clients="scratch-250k")  # type: ignore[arg-type]
    assert ModelsConfig.model_validate(config.model_dump()) == config


def test_model_sources_are_told_apart_by_their_keys():
    config = ModelsConfig.model_validate(
        {
            "server": {"hub": "org/name", "revision": "abc", "lora": {"rank": 4, "targets": ["q_proj"]}},
            "clients": {"path": "m"},
        }
    )
    assert config.server == HubModel(
        hub="org/name", revision="abc", lora=LoraConfig(rank=4, targets=("q_proj",))
    )
    assert config.clients == FolderModel(path="m")


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("scratch-2m", "did you mean 'scratch-1m'"),
        ({"preset": "scratch-1m", "hidden_size": 100, "num_heads": 3}, "must be a multiple of 2 x num_heads"),
        ({"preset": "scratch-1m", "stepz": 4}, "stepz"),
        ({"path": "m", "hub": "n"}, "hub"),
    ],
)
def test_wrong_model_settings_are_refused(server, message):
    with pytest.raises(ValueError, match=message):
        ModelsConfig(server=server)


def test_model_settings_import_no_torch():
    code = "import sys, fedsim.models.config; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_trained_folder_says_what_training_did(tmp_path):
    (job, *_) = _jobs(_data(3), tmp_path)
    folder = run_jobs([job], tmp_path / "models", 1, 1, None)[job.name]
    assert json.loads((folder / "training.json").read_text())["steps"] == 3


def _jobs(data: TaskData, scratch: Path) -> list[Job]:
    """The jobs that the bundle makes, with the same seeds."""
    from fedsim.models.real.bundle import _questions
    from fedsim.models.real.tokenizer import build_tokenizer
    from fedsim.sim import streams

    build_tokenizer(_questions(data)).save_pretrained(scratch / "tokenizer")
    wanted = [("server", data.public), *((f"client-{k}", rows) for k, rows in enumerate(data.private))]
    return [
        Job(name, f"k-{name}", tuple(rows), FAST, streams.integer(5, "train", name), scratch / "tokenizer")
        for name, rows in wanted
    ]
