"""What third parties bring along counts: an edited plug-in is another program (fedsim/protocols/plugins.py)."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

from fedsim import protocols
from fedsim.cli import main
from fedsim.experiment import run as experiment
from fedsim.protocols.plugins import differences, plugins
from fedsim.scenario.read import scenario_from
from fedsim.sweeps import ray_workers
from fedsim.sweeps.compare.file import run_key

PROTOCOL = """\
from typing import Literal

from fedsim.config.strict import StrictModel
from fedsim.federation.handlers import Handler, HandlerResult
from fedsim.models.config import PolicyConfig
from fedsim.sim.devices.cost import NO_WORK
from fedsim.sim.network import wire
from {words} import WORD


class Config(PolicyConfig):
    name: Literal["head_count"] = "head_count"


async def run(federation, config, state):
    await federation.broadcast(wire.QuestionOnly(wire.pack_id(0), WORD), range(len(federation.clients)))


HANDLERS = {{
    wire.QuestionOnly: Handler(
        lambda client, message: HandlerResult(wire.Answer(message.draw, "here")),
        lambda client, message: NO_WORK,
        wire.Answer,
    )
}}
"""


def describe(site: Path, version: str, module: str, record: str = "") -> None:
    info = site / "head_count-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: head-count\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[fedsim.protocols]\nhead_count = {module}\n")
    (info / "RECORD").write_text(record)


def forget() -> None:
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("head_count", "head_count_words")
    ]:
        sys.modules.pop(name)
    importlib.invalidate_caches()
    protocols.load.cache_clear()


@pytest.fixture(params=["wheel", "editable", "module"])
def site(request, tmp_path, monkeypatch):
    """A plug-in installed from a wheel, as a package; from a checkout elsewhere; and as two loose modules."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    if request.param == "module":
        (site / "head_count.py").write_text(PROTOCOL.format(words="head_count_words"))
        (site / "head_count_words.py").write_text('WORD = "hello"\n')
        describe(site, "1.0", "head_count", "head_count.py,,\nhead_count_words.py,,\n")
        request.node.words = site / "head_count_words.py"
    else:
        root = site if request.param == "wheel" else tmp_path / "checkout"
        package = root / "head_count"
        (package / "deep").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "deep" / "__init__.py").touch()
        (package / "protocol.py").write_text(PROTOCOL.format(words="head_count.deep.words"))
        (package / "deep" / "words.py").write_text('WORD = "hello"\n')
        if request.param == "editable":
            monkeypatch.syspath_prepend(str(root))  # what a .pth file does
        describe(site, "1.0", "head_count.protocol", "__editable__.pth,,\n")
        request.node.words = package / "deep" / "words.py"
    forget()
    yield request.node.words
    forget()


def scenario(folder: Path, protocol: str = "head_count"):
    return scenario_from(
        {
            "name": "visitors", "fidelity": "timing", "stop": {"updates": 1}, "protocol": {"name": protocol},
            "clients": {"phone": 3},
        },
        folder,
    )  # fmt: skip


def edit(words: Path) -> None:
    words.write_text('WORD = "hello, all of you"\n')
    shutil.rmtree(words.parent / "__pycache__", ignore_errors=True)
    forget()


def test_an_edit_of_any_file_of_a_plug_in_is_another_key(site, tmp_path):
    before, ours = run_key(scenario(tmp_path)), run_key(scenario(tmp_path, "zero_shot"))
    assert run_key(scenario(tmp_path)) == before
    edit(site)
    assert run_key(scenario(tmp_path)) != before
    assert run_key(scenario(tmp_path, "zero_shot")) == ours


def test_another_version_is_another_key(site, tmp_path):
    before = run_key(scenario(tmp_path))
    (tmp_path / "site" / "head_count-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: head-count\nVersion: 1.1\n"
    )
    importlib.invalidate_caches()
    assert run_key(scenario(tmp_path)) != before


def test_the_manifest_has_the_plug_in_and_verify_names_what_differs(site, tmp_path, capsys):
    folder = experiment.run(scenario(tmp_path), out=tmp_path / "run").folder
    recorded = json.loads((folder / "manifest.json").read_text())["plugins"]
    assert recorded == plugins() and recorded["head-count"]["version"] == "1.0"
    assert main(["verify", str(folder), "-q"]) == 0
    assert "although" not in capsys.readouterr().out
    edit(site)
    assert main(["verify", str(folder), "-q"]) == 1
    now = plugins()["head-count"]["source"]
    told = f"the source of plug-in head-count 1.0 was {recorded['head-count']['source'][:12]}, here it is {now[:12]}"
    assert told in capsys.readouterr().out


def test_a_node_of_a_cluster_with_another_plug_in_is_told_apart(site):
    before = ray_workers.plugin_facts("head_count")
    edit(site)
    assert "plug-in head-count" in ray_workers._differing(ray_workers.facts() | before, "head_count")
    assert ray_workers.plugin_facts("fedgrpo") == {}


def test_a_run_of_one_of_our_protocols_has_no_plug_in_on_record(site, tmp_path):
    run = experiment.run(scenario(tmp_path, "zero_shot"), out=tmp_path / "run")
    assert run.manifest["plugins"] == {} == protocols.plugins_of("fedgrpo")


def test_differences_name_the_plug_in_and_what_it_was():
    one = {"a": {"version": "1.0", "source": "0" * 32}}
    other = {"a": {"version": "2.0", "source": "1" * 32}, "b": one["a"]}
    assert [*differences(one, one)] == []
    assert [*differences(one, other)] == ["plug-in a was 1.0, here it is 2.0", "plug-in b is not on record"]
    assert [*differences(one, {})] == ["plug-in a is not here"]
