"""Adapters counted from architectures alone: closed forms, names, FLOP and memory."""

from __future__ import annotations

import numpy as np
import pytest

from fedsim.sim.devices import adapters
from fedsim.sim.devices.architecture import ModelSpec, architecture
from fedsim.sim.devices.cost import training_work

SMALL = ModelSpec(
    num_layers=2, hidden=8, num_heads=4, num_kv_heads=2, head_dim=2, ffn=12, vocab=20, tied=True
)


@pytest.mark.parametrize(
    ("name", "per_rank"),
    [("Qwen2.5-Math-1.5B", 136_192), ("Qwen2.5-3B", 230_400), ("Qwen2.5-Math-7B", 315_392)],
)
@pytest.mark.parametrize("rank", [1, 8, 32])
def test_query_and_value_adapters_of_qwen_have_the_closed_form(name, per_rank, rank):
    shapes = adapters.lora_shapes(architecture(name), rank, ["q_proj", "v_proj"])
    assert adapters.num_numbers(shapes) == per_rank * rank


def test_three_hundred_and_twenty_adapters_in_float16_are_the_papers_mebibytes():
    published = {
        ("Qwen2.5-Math-1.5B", 8): 665.6,
        ("Qwen2.5-3B", 16): 2249.6,
        ("Qwen2.5-Math-7B", 32): 6160.2,
    }
    for (name, rank), mebibytes in published.items():
        shapes = adapters.lora_shapes(architecture(name), rank, ["q_proj", "v_proj"])
        assert 320 * 2 * adapters.num_numbers(shapes) / 2**20 == pytest.approx(mebibytes, rel=0.01)


def test_adapters_of_a_small_model_by_hand():
    shapes = adapters.lora_shapes(SMALL, 3, ["down_proj", "k_proj"])
    assert shapes == {
        "layers.0.self_attn.k_proj.lora_A": (3, 8),
        "layers.0.self_attn.k_proj.lora_B": (4, 3),
        "layers.0.mlp.down_proj.lora_A": (3, 12),
        "layers.0.mlp.down_proj.lora_B": (8, 3),
        "layers.1.self_attn.k_proj.lora_A": (3, 8),
        "layers.1.self_attn.k_proj.lora_B": (4, 3),
        "layers.1.mlp.down_proj.lora_A": (3, 12),
        "layers.1.mlp.down_proj.lora_B": (8, 3),
    }


@pytest.mark.parametrize("name", ["Qwen2.5-Math-1.5B", "Qwen2.5-Math-7B"])
def test_all_weights_sum_to_the_models_parameters(name):
    spec = architecture(name)
    shapes = adapters.full_shapes(spec)
    assert adapters.num_numbers(shapes) == spec.num_parameters
    assert ("lm_head.weight" in shapes) == (not spec.tied)


def test_unknown_targets_and_empty_ranks_are_refused():
    with pytest.raises(ValueError, match="'query'; there are q_proj, k_proj"):
        adapters.lora_shapes(SMALL, 3, ["query"])
    with pytest.raises(ValueError, match="rank is 0"):
        adapters.lora_shapes(SMALL, 0, ["q_proj"])


def test_the_same_kind_of_part_on_another_architecture():
    other = architecture("Qwen2.5-3B")
    here = adapters.lora_shapes(SMALL, 4, ["q_proj", "o_proj"])
    assert adapters.like(other, here) == adapters.lora_shapes(other, 4, ["q_proj", "o_proj"])
    assert adapters.like(other, adapters.full_shapes(SMALL)) == adapters.full_shapes(other)


def test_training_adapters_costs_two_forwards_and_the_adapters_own_traffic():
    rows = [7, 11]
    everything = training_work(SMALL, rows, optimiser_bytes_per_parameter=0.0)
    frozen = adapters.lora_training_work(SMALL, rows, 0)
    assert frozen.flop == pytest.approx(2 / 3 * everything.flop)
    assert frozen.memory_bytes == 2 * 2 * SMALL.num_parameters
    some = adapters.lora_training_work(SMALL, rows, 100)
    assert some.flop - frozen.flop == pytest.approx(6 * 100 * 18)
    assert some.memory_bytes - frozen.memory_bytes == 100 * (4 * 2 + 24)
    whole = training_work(SMALL, rows)
    assert some.flop < whole.flop and some.memory_bytes < whole.memory_bytes


def test_memory_of_full_training_without_rows_is_sixteen_bytes_a_parameter():
    assert adapters.local_training_bytes(SMALL, SMALL.num_parameters, 0) == 16 * SMALL.num_parameters


def test_memory_of_adapters_and_activations_by_hand():
    still = adapters.local_training_bytes(SMALL, 100, 0)
    assert still == 2 * (SMALL.num_parameters + 100) + 14 * 100
    # per token: 2 layers x 2 bytes x (4 x 8 + 2 x 8 + 2 x 4 + 3 x 12) + 8 x 20
    assert adapters.local_training_bytes(SMALL, 100, 5) - still == 5 * (2 * 2 * 92 + 160)


def test_adapters_of_a_seven_billion_model_fit_a_laptop_and_its_full_training_does_not():
    spec = architecture("Qwen2.5-Math-7B")
    lora = adapters.num_numbers(adapters.lora_shapes(spec, 32, ["q_proj", "v_proj"]))
    assert 15e9 < adapters.local_training_bytes(spec, lora, 1024) < 32e9
    assert adapters.local_training_bytes(spec, spec.num_parameters, 1024) > 120e9


def test_names_are_unique_and_shapes_whole():
    for shapes in (adapters.full_shapes(SMALL), adapters.lora_shapes(SMALL, 2, adapters.LINEAR_LAYERS)):
        assert all(np.prod(shape) > 0 for shape in shapes.values())
        assert len(shapes) == len(set(shapes))
