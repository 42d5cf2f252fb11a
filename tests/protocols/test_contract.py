"""What third parties bring along is held to its contract: one line that names it, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from fedsim import protocols
from fedsim.cli import main
from fedsim.errors import PluginError, ScenarioError
from fedsim.experiment import run as experiment
from fedsim.records.rows import PURPOSES
from fedsim.records.totals import REVEALED
from fedsim.scenario.read import scenario_from
from fedsim.sweeps.compare.run import Finished
from fedsim.sweeps.worker import perform
from tests.samples.plugins import installed

WHOLE = """\
from typing import Literal

from fedsim.federation.handlers import Handler, HandlerResult, Subject
from fedsim.config.strict import StrictModel
from fedsim.sim.devices.cost import NO_WORK, Work
from fedsim.sim.network import wire


class Call(wire.OfDraw, frozen=True, array_like=True, tag="roll_call.call"):
    purpose = "call"


class Name(wire.OfDraw, frozen=True, array_like=True, tag="roll_call.name"):
    purpose = "name"
    reveals = "names"
    name: str


class Config(StrictModel):
    name: Literal["roll_call"] = "roll_call"


async def run(federation, config, state):
    await federation.broadcast(Call(wire.pack_id(0)), range(len(federation.clients)))


def reply(client, message):
    return HandlerResult(Name(message.draw, "client"))


def work(client, message):
    return NO_WORK


HANDLERS = {Call: Handler(reply, work, Name)}
"""

PAGE = r" \(the contract: docs/plugins\.md\)$"


@pytest.fixture
def plugin(tmp_path):
    """Installs a protocol of this text; returns its scenario."""
    stack = []

    def install(text, name="roll_call", module="roll_call_protocol"):
        (tmp_path / f"{module}.py").write_text(text)
        entered = installed(tmp_path, {name: module}, name)
        entered.__enter__()
        stack.append(entered)
        scenario = tmp_path / "scenario.yaml"
        scenario.write_text(
            f"name: visitors\nfidelity: timing\nstop: {{updates: 1}}\nprotocol: {name}\nclients: {{phone: 3}}\n"
        )
        return scenario

    yield install
    for entered in reversed(stack):
        entered.__exit__(None, None, None)


def one_line(capsys):
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


def test_the_protocol_that_the_others_are_made_of_is_whole(plugin, tmp_path):
    assert main(["run", str(plugin(WHOLE)), "--out", str(tmp_path / "out"), "--no-figures", "-q"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["leaves"] == ["names"] and summary["requests"]["ok"] == 3
    assert protocols.broken() == {}


LACKING = {
    "no Config": ("class Config(", "class Settings(", "roll_call_protocol has no Config"),
    "no run": ("async def run(", "async def play(", "has no run"),
    "no HANDLERS": ("HANDLERS =", "handlers =", "has no HANDLERS"),
    "a Config that is no StrictModel": ("(StrictModel)", "", "Config of .* must be a class derived from .*StrictModel"),
    "a Config that is no class": ("class Config(", "Config = 3\nclass Settings(", "must be a class derived from"),
    "a Config that makes no model": ("\n\nasync", "    what: 'Nothing'\n\n\nasync", "is no settings model: PydanticUserError"),
    "another name": ('["roll_call"] = "roll_call"', '["call"] = "call"', r"Config.name .* must be Literal\['roll_call'\]"),
    "any name": ('Literal["roll_call"]', "str", r"Config.name .* must be Literal\['roll_call'\]"),
    "a run that is no coroutine": ("async def run(", "def run(f, c, s): ...\nasync def play(", "run of .* must be `async def"),
    "HANDLERS that are a list": ("{Call: Handler(reply, work, Name)}", "[Call]", "its HANDLERS are of type list"),
    "a handler that is a function": ("Handler(reply, work, Name)", "reply", "a function for Call; must be a Handler"),
    "a handler of text": ("{Call:", "{str:", "name str, which is no wire.Message with a purpose"),
    "a reply that is text": ("work, Name)", "work, str)", "name str, which is no wire.Message with a purpose"),
    "a reply without a purpose": ("work, Name)", "work, wire.OfDraw)", "name OfDraw, which is no wire.Message"),
    "a handler that names no reply": ("work, Name)", "work)", "cannot be imported: TypeError: .*'replies'"),
    "a module that is not there": ("from typing", "import no_such_module\nfrom typing", "ModuleNotFoundError: No module"),
    "a module that does not parse": ("async def", "async deaf", "cannot be imported: SyntaxError"),
    "a module that ends the program": ("class Config", "exit(3)\nclass Config", "cannot be imported: SystemExit: 3"),
    "a tag that is taken": ('"roll_call.call"', '"roll_call.name"', r"tag .roll_call.name. of .* is .*; give it another"),
    "a tag of ours": ('"roll_call.call"', '"R"', "with a tag like 'x.kind'; it is 'R'"),
    "texts of no field": ("    name: str", "    texts = {'t': 'answer'}\n    name: str", "texts of .*Name name t, which"),
    "a purpose that is no text": ('"call"\n', "3\n", "cannot be imported: TypeError: expected string"),
    "a purpose that is no plain name": ('"call"\n', '"a call"\n', "'a call' must be 1 to 64 of"),
    "clients that run anything": ("HANDLERS =", 'CLIENT_RUNS = "all"\nHANDLERS =', "CLIENT_RUNS .* must be one of clients"),
}  # fmt: skip


@pytest.mark.parametrize("fault", LACKING)
def test_a_plug_in_that_lacks_something_is_one_line_for_who_names_it_and_left_out_for_all_others(
    plugin, capsys, fault
):
    old, new, why = LACKING[fault]
    assert WHOLE.count(old) == 1
    scenario = plugin(WHOLE.replace(old, new))
    assert main(["check", str(scenario)]) == 2
    line = re.escape("plug-in protocol 'roll_call' cannot be used: ") + f".*{why}.*{PAGE}"
    assert re.search(line, one_line(capsys))
    ((name, told),) = protocols.broken().items()
    assert name == "roll_call" and re.match(line, told)


def test_the_schema_and_other_scenarios_do_without_a_broken_plug_in(plugin, tmp_path, capsys):
    broken = plugin("raise ValueError('two\\nlines')\n")
    line = rf"cannot be imported: ValueError: two{PAGE}"
    assert main(["run", str(broken), "--out", str(tmp_path / "out")]) == 2
    assert re.search(line, one_line(capsys)) and not (tmp_path / "out").exists()
    assert main(["list"]) == 0
    printed = capsys.readouterr()
    assert "  fedgrpo " in printed.out and "roll_call" not in printed.out
    assert re.match(f"left out: .*{line}", printed.err.removesuffix("\n"))
    assert main(["schema"]) == 0
    printed = capsys.readouterr()
    assert "roll_call" not in printed.out
    assert set(json.loads(printed.out)["properties"]["protocol"]["discriminator"]["mapping"]) == {
        *protocols.PROTOCOLS
    }
    assert re.match(f"left out: .*{line}", printed.err.removesuffix("\n"))
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "scenario.yaml").read_text().replace("roll_call", "zero_shot"))
    assert main(["check", str(other)]) == 0
    assert main(["run", str(other), "--out", str(tmp_path / "out"), "--no-figures", "-q"]) == 0
    assert capsys.readouterr().err == ""
    other.write_text(other.read_text().replace("zero_shot", "zero_shoot"))
    assert main(["check", str(other)]) == 2
    assert "did you mean 'zero_shot'?" in one_line(capsys)


def test_two_plug_ins_of_one_name_are_named_both(plugin, tmp_path, capsys):
    scenario = plugin(WHOLE)
    with installed(tmp_path / "more", {"roll_call": "another"}, "more", "2.0"):
        assert main(["check", str(scenario)]) == 2
        both = r"protocol 'roll_call' is registered twice, by another of more and roll_call_protocol of roll_call"
        assert re.search(f"{both}; uninstall one of them{PAGE}", one_line(capsys))
        assert protocols.names().count("roll_call") == 1
        assert [*protocols.broken()] == ["roll_call"]


def test_a_plug_in_of_the_name_of_one_of_ours_is_told_and_ours_is_used(plugin, tmp_path, capsys):
    plugin("raise ValueError\n", "zero_shot")
    assert main(["check", str(tmp_path / "scenario.yaml")]) == 0
    capsys.readouterr()
    assert main(["list"]) == 0
    printed = capsys.readouterr()
    assert "  zero_shot " in printed.out
    assert (
        "protocol 'zero_shot' of roll_call_protocol is never used: fedsim has one of that name" in printed.err
    )


WRONG = {
    "a message that nobody handles": ("(Call(", "(wire.RowsRequest(", "the server sends a RowsRequest, which no handler takes"),
    "what is no message": ("Call(wire.pack_id(0))", "'hello'", "the server sends a str, which no handler takes"),
    "a handler that gives no result": ("    return HandlerResult(", "    return (", "with a Name, .* it returned Name"),
    "a handler that gives nothing": ("    return HandlerResult(", "    HandlerResult(", "with a Name, .* it returned NoneType"),
    "another reply than it says": ("work, Name)", "work, Call)", "with a Call, as its `replies` says; it returned Name"),
    "a reply that is no message": ('Name(message.draw, "client")', '"client"', "with a Name, .* it returned str"),
    "work that is none": ("    return NO_WORK", "    return 3.0", "`work` of the handler of Call must .* not float"),
    "what cannot travel": ('message.draw, "client"', "message.draw, object()", "message Name cannot travel: .* object"),
    "half a byte": ("\n\nclass Config", "    def paper_bytes(self): return 0.5\n\nclass Config", "of Name must be .* not 0.5"),
    "less than nothing": ("\n\nclass Config", "    def paper_bytes(self): return -1\n\nclass Config", "of Name must be .* -1"),
    "what has no account": ("    name: str\n", "    name: object\n", "what a NoneType counts in the paper's account"),
    "handlers_for that gives none": ("HANDLERS =", "handlers_for = str\nHANDLERS =", "its HANDLERS are of type str"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_plug_in_that_does_something_else_than_it_says_is_one_line_and_leaves_no_folder(
    plugin, tmp_path, capsys, fault
):
    old, new, why = WRONG[fault]
    assert WHOLE.count(old) == 1
    text = WHOLE.replace(old, new)
    if fault == "what has no account":
        text = text.replace('"client"', "None")
    scenario = plugin(text)
    assert main(["run", str(scenario), "--out", str(tmp_path / "out"), "-q"]) == 2
    assert re.search(f"{why}.*{PAGE}", one_line(capsys))
    assert not (tmp_path / "out").exists()


def test_a_judge_may_be_a_plain_function(plugin, tmp_path):
    text = JUDGED.format(judgement="Judgement(np.eye(1, len(group.texts)), 1)").replace(
        "async def judge", "def judge"
    )
    scenario = plugin(text, "judged", "judged_protocol")
    out = tmp_path / "out"
    assert main(["run", str(scenario), "--out", str(out), "--no-figures", "-q"]) == 0
    assert json.loads((out / "summary.json").read_text())["updates"] == 1


def test_nobody_lies_or_is_struck_where_candidates_are_answered_by_something_else_than_rewards(
    plugin, capsys
):
    text = WHOLE.replace("{Call:", "{wire.Candidates:")
    scenario = plugin(text)
    for key in ("hostile=[{kind: random, count: 1}]", "faults=[{kind: wrong_length, share: 0.5}]"):
        assert main(["check", str(scenario), "--set", key]) == 2
        assert re.search("no client of (the )?protocol .*sends", one_line(capsys))


def test_a_run_of_many_that_meets_such_a_plug_in_is_refused_with_its_line(plugin, tmp_path):
    scenario = plugin(WHOLE.replace("(Call(", "(wire.RowsRequest("))
    report = perform({"scenario": str(scenario), "out": str(tmp_path / "run")})
    assert report["status"] == "refused" and re.search(f"RowsRequest.*{PAGE}", report["reason"])
    run = SimpleNamespace(name="variant a, seed 0", key="a")
    with pytest.raises(ScenarioError, match="variant a, seed 0 failed: the server sends a RowsRequest"):
        Finished().keep(run, report, tmp_path)


JUDGED = """\
from typing import Literal
import numpy as np
from fedsim.protocols.shared.group_relative import GroupRelativeConfig, train
from fedsim.protocols.shared.learner import Judgement


class Config(GroupRelativeConfig):
    name: Literal["judged"] = "judged"


async def run(federation, config, state):
    async def judge(group):
        return {judgement}
    await train(federation, config, state, state.data.pool, judge)


HANDLERS = {{}}
"""


@pytest.mark.parametrize(
    ("judgement", "said"),
    [
        ("None", "it gave NoneType"),
        ("np.zeros((1, 4))", "it gave ndarray"),
        ("Judgement([[0.0] * 4], 1)", "it gave list"),
        ("Judgement(np.zeros((1, 4), dtype=int), 1)", "it gave ndarray"),
        ("Judgement(np.zeros(4), 1)", r"it gave rewards \[4\]"),
        ("Judgement(np.zeros((1, 3)), 1)", r"it gave rewards \[1, 3\]"),
    ],
)
def test_a_judge_that_gives_something_else_than_a_judgement_of_its_group_is_one_line(
    plugin, tmp_path, capsys, judgement, said
):
    scenario = plugin(JUDGED.format(judgement=judgement), "judged", "judged_protocol")
    out = tmp_path / "out"
    assert (
        main(
            ["run", str(scenario), "--out", str(out), "-q", "--set", "protocol={name: judged, group_size: 4}"]
        )
        == 2
    )
    wanted = r"a judge must return a Judgement with rewards \[M, 4\] as an array of floats; "
    assert re.search(f"{wanted}{said}{PAGE}", one_line(capsys))
    assert not out.exists()


def test_a_line_of_the_scenario_is_told_where_it_is_known_and_the_page_once():
    error = PluginError("no good")
    assert isinstance(error, ScenarioError)
    assert str(error) == str(PluginError(str(error))) == "no good (the contract: docs/plugins.md)"


def test_every_reply_of_our_protocols_says_what_leaves():
    for name in protocols.PROTOCOLS:
        config = protocols.load(name).Config()
        for one in (config, config.model_copy(update={"wire": "answers_up"}))[: 1 + (name == "fedgrpo")]:
            purposes = protocols.purposes(one)
            assert {*purposes} <= {*PURPOSES}
            assert {*purposes.values()} <= {None, *REVEALED}
            told = [value is not None for value in purposes.values()]
            assert any(told) == bool(protocols.handlers(one))


def test_a_protocol_that_means_something_else_by_scores_up_gets_no_statement_of_privacy(plugin, tmp_path):
    text = WHOLE.replace(
        '= "roll_call"\n', '= "roll_call"\n    wire: Literal["scores_up"] = "scores_up"\n', 1
    )
    plugin(text)
    scenario = scenario_from(
        {
            "name": "a",
            "fidelity": "timing",
            "stop": {"updates": 1},
            "protocol": "roll_call",
            "clients": {"phone": 3},
        }
    )
    ran = experiment.run(scenario, out=tmp_path / "run")
    assert ran.summary["privacy"] is None and ran.summary["leaves"] == ["names"]
