"""The forward pass of a small Llama without the machinery around it: the same operations, bit for bit.

On a model of half a million weights a good part of a pass through ``transformers`` is Python: masks are examined, outputs
are built, hooks are looked for. Here the tensor operations of ``LlamaForCausalLM`` stand one after the other, in its order,
so that values and gradients keep their bits. ``transformers`` remains the twin that the tests compare with, and what runs
every network that ``is_lean`` refuses (other architectures, adapters, other attention).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu
from transformers import DynamicCache, LlamaForCausalLM


def is_lean(network: Any) -> bool:
    """Whether ``lean_logits`` computes what this network does."""
    if type(network) is not LlamaForCausalLM:
        return False
    config = network.config
    plain = (
        config.hidden_act == "silu"
        and config.num_key_value_heads == config.num_attention_heads
        and config.attention_dropout == 0.0
        and config.rope_parameters["rope_type"] == "default"
        and config._attn_implementation == "sdpa"
        and network.dtype == torch.float32
    )
    modules = list(network.modules())
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    biased = any(getattr(module, "bias", None) is not None for module in modules)
    return plain and not hooked and not biased


def lean_logits(
    network: LlamaForCausalLM, ids: Tensor, bias: Tensor, positions: Tensor, cache: DynamicCache, last: bool
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
    model = network.model
    shape = (*ids.shape, network.config.num_attention_heads, -1)
    cos, sin = rotations(model.rotary_emb.inv_freq, positions)
    states = embedding(ids, model.embed_tokens.weight, model.padding_idx)
    for index, layer in enumerate(model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        normed = _normed(layer.input_layernorm, states)
        query = linear(normed, attention.q_proj.weight).view(shape).transpose(1, 2)
        key = linear(normed, attention.k_proj.weight).view(shape).transpose(1, 2)
        value = linear(normed, attention.v_proj.weight).view(shape).transpose(1, 2)
        query = (query * cos) + (half_turned(query) * sin)
        key = (key * cos) + (half_turned(key) * sin)
        key, value = cache.update(key, value, index)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=attention.scaling)
        states = states + linear(mixed.transpose(1, 2).reshape(*ids.shape, -1), attention.o_proj.weight)
        normed = _normed(layer.post_attention_layernorm, states)
        gated = silu(linear(normed, mlp.gate_proj.weight)) * linear(normed, mlp.up_proj.weight)
        states = states + linear(gated, mlp.down_proj.weight)
    states = _normed(model.norm, states)
    return linear(states[:, -1:] if last else states, network.lm_head.weight)


@torch.no_grad()
def rotations(frequencies: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, for all heads ``[rows, 1, A, d]``."""
    angles = positions[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos(), angles.sin()


def _normed(norm: Any, states: Tensor) -> Tensor:
    variance = states.pow(2).mean(-1, keepdim=True)
    normed: Tensor = norm.weight * (states * torch.rsqrt(variance + norm.variance_epsilon))
    return normed


def half_turned(states: Tensor) -> Tensor:
    """The second half of the last dimension, negated, before the first."""
    half = states.shape[-1] // 2
    return torch.cat((-states[..., half:], states[..., :half]), dim=-1)
