"""Parameters and memory against digits worked by hand and published counts; specs from configurations."""

import dataclasses

import pytest

from fedsim.errors import ModelFileError, ScenarioError
from fedsim.sim.devices.architecture import ModelSpec, architecture, resident_bytes, spec_from_config

# 2 layers, hidden 4, 2 heads of size 2, 1 key-value head, ffn 3, vocabulary 5, tied:
# a layer has 4*4 (q) + 2*4*2 (k, v) + 4*4 (o) + 3*4*3 (mlp) + 2*4 (norms) = 92; blocks 2*92 + 4 = 188.
# The head has 20.
TINY = ModelSpec(2, 4, 2, 1, 2, 3, 5, tied=True)


def test_parameters_of_a_tiny_model_counted_by_hand():
    assert TINY.num_parameters == 208
    assert TINY.block_parameters == 188
    assert dataclasses.replace(TINY, tied=False).num_parameters == 228
    assert dataclasses.replace(TINY, qkv_bias=True).num_parameters == 208 + 2 * (4 + 2 + 2)
    assert TINY.kv_bytes_per_token == 2 * 2 * 1 * 2 * 2
    assert TINY.attention_flop_per_pair == 4 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen2.5-3B", 3_085_938_688),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-Math-1.5B", 1_543_714_304),
        ("Qwen2.5-Math-7B", 7_615_616_512),
        ("TinyLlama-1.1B", 1_100_048_384),
        ("Llama-3.2-1B", 1_235_814_400),
    ],
)
def test_architecture_presets_have_the_published_number_of_parameters(name, num_parameters):
    assert architecture(name).num_parameters == num_parameters


def test_unknown_architecture_names_the_nearest_one():
    with pytest.raises(ScenarioError, match=r"did you mean 'Qwen2.5-Math-7B'"):
        architecture("Qwen2.5-Maths-7B")


def test_config_of_another_family_or_without_a_key_is_refused():
    with pytest.raises(ModelFileError, match="'gpt2'"):
        spec_from_config({"model_type": "gpt2"})
    with pytest.raises(ModelFileError, match="num_hidden_layers"):
        spec_from_config({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2})


def test_missing_key_value_heads_mean_one_per_head():
    config = {
        "model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
        "intermediate_size": 16, "vocab_size": 10,
    }  # fmt: skip
    spec = spec_from_config(config)
    assert (spec.num_kv_heads, spec.head_dim, spec.tied, spec.qkv_bias) == (2, 4, False, False)
    assert (
        spec_from_config(config | {"attention_bias": True}).num_parameters == spec.num_parameters + 3 * 8 + 8
    )


def test_resident_memory_is_weights_and_cache():
    assert resident_bytes(TINY, 10) == 416 + 160
