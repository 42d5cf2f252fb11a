"""The forward pass of a Llama without the machinery around it: the same operations, bit for bit.

On a model of half a million weights a good part of a pass through ``transformers`` is Python: masks are examined, outputs
are built, hooks are looked for. Here the tensor operations of ``LlamaForCausalLM`` stand one after the other, in its order,
so that values and gradients keep their bits; heads may share keys and values, and linear layers may carry low-rank adapters
of ``peft``. Both libraries remain the twin that the tests compare with, and what runs every network that ``is_lean`` refuses
(other architectures, other adapters, other attention).

``through`` is the body of all layers; who calls it says what attention sees (here a cache, in ``packed`` a packed batch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu
from transformers import DynamicCache, LlamaForCausalLM

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def llama_of(network: Any) -> Any:
    """The ``transformers`` network itself, inside the adapters where it has some."""
    return network.get_base_model() if isinstance(network, PeftModel) else network


def is_lean(network: Any) -> bool:
    """Whether ``lean_logits`` computes what this network does."""
    llama = llama_of(network)
    if type(llama) is not LlamaForCausalLM:
        return False
    config = llama.config
    plain = (
        config.hidden_act == "silu"
        and config.attention_dropout == 0.0
        and config.rope_parameters["rope_type"] == "default"
        and config._attn_implementation == "sdpa"
        and llama.dtype == torch.float32
    )
    modules = list(network.modules())
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    biased = any(getattr(module, "bias", None) is not None for module in modules)
    adapters = [module for module in modules if hasattr(module, "lora_A")]
    usual = {getattr(parent, name) for parent in modules for name in _LINEAR if hasattr(parent, name)}
    return plain and not hooked and not biased and all(_is_plain(one) and one in usual for one in adapters)


def _is_plain(adapted: Any) -> bool:
    """Whether an adapter is one ``B A`` beside its layer, and nothing else."""
    return (
        type(adapted) is LoraLinear
        and adapted.active_adapters == ["default"]
        and not adapted.merged
        and not adapted.disable_adapters
        and not adapted.lora_variant
        and isinstance(adapted.lora_dropout["default"], torch.nn.Identity)
    )


def lean_logits(
    network: Any,
    ids: Tensor,
    bias: Tensor,
    positions: Tensor,
    cache: DynamicCache,
    last: bool,
) -> Tensor:
    """Next-token logits ``[rows, A, V]`` after each input token; of the last one alone ``[rows, 1, V]`` if asked for.

    Args:
        network: a network that ``is_lean``.
        ids: input tokens, int64 ``[rows, A]``.
        bias: additive attention bias over the cached and the new tokens ``[rows, 1, A, W + A]``.
        positions: of the input tokens, int64 ``[rows, A]``, or ``[1, A]`` where all rows have the same.
        cache: earlier keys and values ``[rows, heads, W, d]`` per layer; takes up the new ones.
        last: whether only the last position's logits are wanted.
    """
    llama = llama_of(network)
    states = embedding(ids, llama.model.embed_tokens.weight, llama.model.padding_idx)
    rows, width = ids.shape
    cos, sin = rotations(llama.model.rotary_emb.inv_freq, positions)

    def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (one.transpose(1, 2) for one in (query, key, value))
        query = (query * cos) + (half_turned(query) * sin)
        key = (key * cos) + (half_turned(key) * sin)
        key, value = cache.update(key, value, index)
        mixed = _attended(query, key, value, bias, llama.model.layers[index].self_attn.scaling)
        return mixed.transpose(1, 2).reshape(rows, width, -1)

    states = through(llama, range(len(llama.model.layers)), states, attend)
    states = normed(llama.model.norm, states)
    return linear(states[:, -1:] if last else states, llama.lm_head.weight)


def through(llama: Any, layers: range, states: Tensor, attend: Attend) -> Tensor:
    """States ``[..., h]`` after these layers.

    ``attend`` gets a layer's index and its queries, keys and values ``[..., heads, d]``, before their rotation, and gives what
    they attended to ``[..., h]``.
    """
    for index in layers:
        layer = llama.model.layers[index]
        attention, mlp = layer.self_attn, layer.mlp
        shape = (*states.shape[:-1], -1, attention.head_dim)
        entering = normed(layer.input_layernorm, states)
        query = _product(attention.q_proj, entering).view(shape)
        key = _product(attention.k_proj, entering).view(shape)
        value = _product(attention.v_proj, entering).view(shape)
        states = states + _product(attention.o_proj, attend(index, query, key, value))
        entering = normed(layer.post_attention_layernorm, states)
        gated = silu(_product(mlp.gate_proj, entering)) * _product(mlp.up_proj, entering)
        states = states + _product(mlp.down_proj, gated)
    return states


def _product(layer: Any, states: Tensor) -> Tensor:
    """A linear layer's output, with that of its adapter."""
    if type(layer) is not LoraLinear:
        plain: Tensor = linear(states, layer.weight)
        return plain
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    # The base first, as in peft: gradients of the states are added up in the order of these products.
    whole: Tensor = linear(states, layer.base_layer.weight)
    whole = whole + linear(linear(states, down), up) * layer.scaling["default"]
    return whole


def _attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Attention ``[rows, heads, A, d]``; several query heads may share a key: then as ``transformers`` does it.

    With a single query per row the heads of a group stand side by side as queries; else keys and values are repeated.
    """
    rows, heads, width, size = query.shape
    shared = heads // key.shape[1]
    if shared == 1:
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    if width == 1:
        packed = query.view(rows, key.shape[1], shared, size)
        mixed = scaled_dot_product_attention(packed, key, value, attn_mask=bias, scale=scale)
        return mixed.reshape(rows, heads, 1, size)
    key, value = (one.repeat_interleave(shared, dim=1) for one in (key, value))
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)


@torch.no_grad()
def rotations(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, for all heads ``[rows, 1, A, d]``."""
    angles = positions[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def normed(norm: Any, states: Tensor) -> Tensor:
    """What an RMS norm makes of states ``[..., h]``."""
    variance = states.pow(2).mean(-1, keepdim=True)
    scaled: Tensor = norm.weight * (states * torch.rsqrt(variance + norm.variance_epsilon))
    return scaled


def half_turned(states: Tensor) -> Tensor:
    """The second half of the last dimension, negated, before the first."""
    half = states.shape[-1] // 2
    return torch.cat((-states[..., half:], states[..., :half]), dim=-1)
