"""The lean forward pass against transformers', and smaller batches against canonical ones: always the same bits."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from fedsim.models.real.adapters import with_lora
from fedsim.models.real.language import prefill
from fedsim.models.real.lean_llama import is_lean, lean_logits, llama_of
from fedsim.models.sources import LoraConfig
from tests.samples.tiny_models import language, questions, trained_network


def _inputs(rows: int, width: int, past: int, network):
    draws = torch.Generator().manual_seed(rows + width + past)
    config = llama_of(network).config
    shape = (rows, config.num_key_value_heads, past, config.hidden_size // config.num_attention_heads)
    ids = torch.randint(config.vocab_size, (rows, width), generator=draws)
    bias = torch.zeros(rows, 1, width, past + width)
    bias[: rows // 2, ..., : past // 2] = float("-inf")
    layers = [(torch.randn(shape, generator=draws), torch.randn(shape, generator=draws)) for _ in range(2)]
    return ids, bias, torch.arange(width)[None].expand(rows, -1) + past, layers


def _run(forward, network, layers, past: int):
    """Logits, keys and values, and gradients of weights and of the earlier keys and values."""
    leaves = [tensor.clone().requires_grad_() for pair in layers for tensor in pair]
    cache = DynamicCache(list(zip(leaves[::2], leaves[1::2], strict=True)) if past else None)
    logits = forward(cache)
    pull = torch.linspace(-1, 1, logits.numel()).view(logits.shape)
    wanted = [weight for weight in network.parameters() if weight.requires_grad]
    wanted += leaves if past else []
    slopes = torch.autograd.grad((logits.log_softmax(-1) * pull).sum(), wanted)
    return [logits, *(t for layer in cache.layers for t in (layer.keys, layer.values)), *slopes]


def _with_shared_heads():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=60, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
            num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
        )  # fmt: skip
        return LlamaForCausalLM(config).eval()


def _with_adapters():
    """Adapters that do something: a fresh B is zero."""
    lora = LoraConfig(
        rank=4, targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    )
    network = with_lora(_with_shared_heads(), lora, 1)
    draws = torch.Generator().manual_seed(5)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data.copy_(torch.randn(weight.shape, generator=draws) / 8)
    return network


NETWORKS = {
    "plain": lambda: deepcopy(trained_network()).requires_grad_(True),
    "shared heads": _with_shared_heads,
    "adapters": _with_adapters,
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(("width", "past"), [(8, 0), (1, 8), (4, 8), (9, 5)])
@pytest.mark.parametrize("last", [False, True])
def test_the_lean_pass_has_the_bits_of_transformers_and_peft_in_values_and_gradients(kind, width, past, last):
    network = NETWORKS[kind]()
    assert is_lean(network)
    ids, bias, positions, layers = _inputs(16, width, past, network)

    def twin(cache):
        out = network(
            input_ids=ids, attention_mask=bias, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1 if last else 0,
        )  # fmt: skip
        return out.logits

    lean = _run(lambda cache: lean_logits(network, ids, bias, positions, cache, last), network, layers, past)
    for ours, theirs in zip(lean, _run(twin, network, layers, past), strict=True):
        assert torch.equal(ours, theirs)


def test_networks_that_compute_something_else_are_left_to_transformers():
    network = deepcopy(trained_network())
    assert is_lean(network)
    adapted = with_lora(deepcopy(network), LoraConfig(), 1)
    assert is_lean(adapted)
    adapted.disable_adapter_layers()
    assert not is_lean(adapted)
    assert not is_lean(deepcopy(network).double())
    hooked = deepcopy(network)
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    assert not is_lean(hooked)
    for change in (
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
    ):
        shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
        other = LlamaForCausalLM(LlamaConfig(**(shape | {"num_attention_heads": 2} | change)))
        assert not is_lean(other), change
    eager = AutoModelForCausalLM.from_config(network.config, attn_implementation="eager")
    assert not is_lean(eager)


def test_a_network_whose_precision_changes_later_is_left_to_transformers():
    model = language(deepcopy(trained_network()))
    assert model.is_lean
    model.network.double()
    prompts = [model.prompt_ids(question.text) for question in questions()[:3]]
    assert not model.is_lean and prefill(model, prompts, 8).keys[0].dtype == torch.float64


def test_weights_that_change_after_the_model_was_made_are_those_that_compute():
    model = language(deepcopy(trained_network()))
    prompts = [model.prompt_ids(question.text) for question in questions()[:3]]
    before = prefill(model, prompts, 8).logits
    with torch.no_grad():
        model.network.model.norm.weight.mul_(2.0)
    assert torch.allclose(prefill(model, prompts, 8).logits, 2.0 * before)


def test_batches_are_filled_up_to_their_canonical_rows():
    assert [language(deepcopy(trained_network())).rows(count, 64) for count in (1, 24, 64)] == [64, 64, 64]
