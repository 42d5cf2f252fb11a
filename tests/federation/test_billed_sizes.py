"""Billing as a bigger model: message lengths worked out from header sizes are those of real messages with filler texts."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedsim.errors import FedsimError, ModelFileError, ScenarioError
from fedsim.experiment import run as experiment
from fedsim.experiment.billed import statement
from fedsim.experiment.forecast.estimate import estimate
from fedsim.federation.billed_sizes import AsEncoded, BilledCounts, BilledSizes, TokenizerCounts
from fedsim.federation.text_lengths import TextConfig, TextLengths
from fedsim.models.config import ModelsConfig
from fedsim.scenario.read import scenario_from
from fedsim.sim.devices.architecture import architecture, spec_from_file
from fedsim.sim.network import wire
from tests.sim.network.test_wire import messages


def lengths(low: int = 1, high: int = 90_000, **keys: Any) -> TextLengths:
    """Lengths that take all of msgpack's size classes."""
    source = {"low": low, "high": high}
    config = {"question": source, "rationale": source | {"low": 0}, "answer": source, "bytes_per_token": 1.3}
    return TextLengths(TextConfig.model_validate(config | keys), 7)


def filled(message: wire.Message, stated: TextLengths, shapes: dict[str, tuple[int, ...]]) -> wire.Message:
    """The message with every text really as long as billed, and every array of the billed shape."""
    changed: dict[str, Any] = {}
    for name, kind in message.texts.items():
        value = getattr(message, name)
        if isinstance(value, str):
            changed[name] = "x" * stated.text_bytes(kind, value)
        else:
            changed[name] = tuple("x" * stated.text_bytes(kind, text) for text in value)
    if isinstance(message, wire.AdapterDown | wire.AdapterUp):
        width = wire.NUMBER_TYPE_BYTES[message.number_type]
        changed["tensors"] = tuple(
            wire.Tensor(name, shape, b"\0" * (prod(shape) * width)) for name, shape in shapes.items()
        )
    return msgspec.structs.replace(message, **changed)


# --------------------------------------------------------------------------------------------------------- messages

some_shapes = st.dictionaries(
    st.text(max_size=40), st.lists(st.integers(0, 300), max_size=2).map(tuple), max_size=20
)
RAW = wire.pack_id(3)


@given(messages, some_shapes, st.sampled_from([(1, 40), (20, 300), (40_000, 90_000)]))
@example(wire.Candidates(RAW, "q", ("a",) * 15), {}, (23, 26))
@example(wire.Candidates(RAW, "q", ("a",) * 16), {}, (190, 200))
@example(wire.AdapterUp(RAW, RAW, "float16", ()), {"q_proj.lora_A": (8, 1536), "v": (0,)}, (1, 2))
@example(wire.AdapterDown(RAW, "float32", ()), {str(n): (n, 70_000) for n in range(17)}, (1, 2))
def test_a_billed_length_is_that_of_a_real_message_with_texts_and_arrays_of_the_billed_size(
    message: wire.Message, shapes: dict[str, tuple[int, ...]], ends: tuple[int, int]
) -> None:
    stated = lengths(*ends)
    sizes, real = BilledSizes(stated, shapes), filled(message, stated, shapes)
    carried = wire.unpack_id(message.num_bytes) if isinstance(message, wire.BaseModel) else 0
    assert sizes.message_bytes(message) == len(wire.encode(real)) + carried
    assert sizes.paper_bytes(message) == real.paper_bytes()


@pytest.mark.parametrize("edge", [31, 32, 255, 256, 65_535, 65_536])
def test_a_text_at_the_edge_of_a_size_class_has_the_right_header(edge: int) -> None:
    stated = TextLengths(TextConfig.model_validate({"question": edge, "answer": 1, "bytes_per_token": 1}), 0)
    message = wire.QuestionOnly(RAW, "short")
    assert BilledSizes(stated).message_bytes(message) == len(wire.encode(wire.QuestionOnly(RAW, "x" * edge)))


@given(messages)
def test_without_stated_sizes_a_message_is_as_long_as_its_encoding(message: wire.Message) -> None:
    assert BilledSizes().message_bytes(message) == AsEncoded().message_bytes(message)
    assert BilledSizes().paper_bytes(message) == message.paper_bytes()


@given(messages)
def test_as_encoded_only_a_base_model_is_longer_than_its_encoding(message: wire.Message) -> None:
    carried = wire.unpack_id(message.num_bytes) if isinstance(message, wire.BaseModel) else 0
    assert AsEncoded().message_bytes(message) == len(wire.encode(message)) + carried


def test_arrays_of_gigabytes_are_billed_without_being_built() -> None:
    shapes = {"lm_head": (152_064, 3_584), "embedding": (152_064, 3_584)}
    sizes = BilledSizes(None, shapes)
    billed = sizes.message_bytes(wire.AdapterDown(RAW, "float16", ()))
    assert sizes.paper_bytes(wire.AdapterDown(RAW, "float16", ())) == 2 * 2 * 152_064 * 3_584
    assert 0 < billed - 4 * 152_064 * 3_584 < 100


def test_adapter_bytes_of_figure_2_follow_from_the_architecture_alone() -> None:
    """320 moves of rank 8 on q_proj and v_proj of Qwen2.5-Math-1.5B in float16 are 665.0 MiB (RELATED 0.1)."""
    from fedsim.protocols import fedpetuning

    config = fedpetuning.Config.model_validate({"name": "fedpetuning", "lora": {"rank": 8}})
    shapes = config.adapter_shapes(architecture("Qwen2.5-Math-1.5B"))
    paper = BilledSizes(None, shapes).paper_bytes(wire.AdapterUp(RAW, RAW, "float16", ()))
    assert 320 * paper / 2**20 == pytest.approx(665.0, abs=0.05)


# ----------------------------------------------------------------------------------------------------- token counts


def test_billed_counts_are_the_stated_lengths_and_a_sampled_candidate_has_its_end_token() -> None:
    stated = TextLengths(TextConfig.model_validate({"question": 50, "rationale": 100, "answer": 5}), 0)
    counts = BilledCounts(stated)
    assert (counts.question("1 + 1"), counts.candidate("2"), counts.answer("2")) == (50, 105, 5)
    assert counts.sampled("2", 2) == 106


def test_tokenizer_counts_are_the_texts_own() -> None:
    counts = TokenizerCounts(len)
    assert (counts.question("abc"), counts.candidate("ab"), counts.answer("a"), counts.sampled("ab", 3)) == (
        3,
        2,
        1,
        3,
    )


# --------------------------------------------------------------------------------------------------------- scenarios

TEXT = {"question": 120, "rationale": {"median": 300, "p95": 900}, "answer": 8}


def scenario(**keys: Any) -> Any:
    data = {
        "name": "billed",
        "fidelity": "timing",
        "stop": {"updates": 3},
        "protocol": {"name": "fedgrpo", "update": {"groups_per_update": 6, "in_flight": 12}},
        "tasks": {
            "domains": ["gcd"],
            "sizes": {"private": 300, "auxiliary": 20, "pool": 60},
            "partition": {"kind": "iid"},
        },
        "models": {"bill_as": {"server": "Qwen2.5-Math-7B", "clients": "Qwen2.5-Math-1.5B"}},
        "text": TEXT,
        "clients": {"laptop": 3},
    }
    return scenario_from(data | keys)


def run(tmp_path: Path, **keys: Any) -> Any:
    return experiment.run(scenario(**keys), out=tmp_path / "run")


def test_a_billed_run_takes_longer_sends_more_and_says_so(tmp_path: Path) -> None:
    billed = run(tmp_path).summary
    plain = experiment.run(scenario(models={}, text=None), out=tmp_path / "plain").summary
    assert billed["virtual_s"] > 50 * plain["virtual_s"]
    assert billed["bytes"]["wire"]["downlink"] > 10 * plain["bytes"]["wire"]["downlink"]
    assert billed["billed"] == (
        "server as Qwen2.5-Math-7B, clients as Qwen2.5-Math-1.5B; text lengths: question 120, "
        "rationale lognormal (median 300, 95% 900), answer 8 tokens, 4 bytes a token"
    )
    assert plain["billed"] is None


def test_text_without_a_bigger_model_changes_lengths_alone(tmp_path: Path) -> None:
    summary = run(tmp_path, models={}).summary
    assert summary["billed"].startswith("text lengths: question 120")
    assert summary["bytes"]["wire"]["downlink"] > 100_000


def test_one_architecture_may_stand_for_both_sides() -> None:
    both = scenario(models={"bill_as": "Qwen2.5-3B"}).models.bill_as
    assert (both.server, both.clients) == ("Qwen2.5-3B", "Qwen2.5-3B")
    assert (
        statement(ModelsConfig(bill_as="Qwen2.5-3B"), None) == "server as Qwen2.5-3B, clients as Qwen2.5-3B"
    )  # type: ignore[arg-type]


def test_a_model_that_only_loading_could_tell_may_be_billed_in_timing_fidelity() -> None:
    hub = {"server": {"hub": "some/model"}, "clients": {"hub": "some/model"}}
    assert estimate(scenario(models=hub | {"bill_as": "Qwen2.5-0.5B"})).requests > 0
    with pytest.raises(ScenarioError, match="a hub model needs fidelity: real"):
        estimate(scenario(models=hub))


def test_billing_a_model_without_its_text_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"models\.bill_as needs text: state how long"):
        scenario(text=None)


def test_an_unknown_architecture_names_the_nearest_one() -> None:
    with pytest.raises(ScenarioError, match=r"did you mean 'Qwen2\.5-Math-7B'.*or a path to a config\.json"):
        scenario(models={"bill_as": "Qwen2.5-Math-7"})


CONFIG = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "vocab_size": 1000,
}  # fmt: skip


def test_a_config_file_is_found_beside_the_scenario_from_anywhere(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(CONFIG))
    beside = scenario_from(scenario(models={"bill_as": "mine/config.json"}).resolved(), tmp_path)
    monkeypatch.chdir("/")
    assert estimate(beside).requests > 0
    assert beside.anchored().models.bill_as.server == str(tmp_path / "mine" / "config.json")
    assert statement(beside.models, None) == "server as mine, clients as mine"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "must be a JSON object"),
        (json.dumps(CONFIG | {"model_type": "bert"}), "model_type is 'bert'"),
        (json.dumps(CONFIG | {"hidden_size": -4}), "hidden_size is -4; must be a whole number from 1"),
        (json.dumps(CONFIG | {"vocab_size": float("nan")}), "NaN is not a number that JSON has"),
        (json.dumps(CONFIG | {"num_attention_heads": 0}), "num_attention_heads is 0"),
        (json.dumps(CONFIG | {"num_attention_heads": 100}), "head_dim is 0"),
        (json.dumps(CONFIG | {"num_hidden_layers": "9" * 99}), "num_hidden_layers is 999"),
        (json.dumps(CONFIG | {"intermediate_size": 10**30}), "intermediate_size is 1000"),
        (json.dumps({key: CONFIG[key] for key in CONFIG if key != "vocab_size"}), "has no 'vocab_size'"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelFileError) as refused:
        spec_from_file(tmp_path / "config.json")
    assert words in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(FedsimError, match=r"config\.json"):
        experiment.run(
            scenario_from(scenario(models={"bill_as": "./config.json"}).resolved(), tmp_path),
            out=tmp_path / "run",
        )
