"""What a decoder's trainable part is made of: names and shapes of its low-rank adapters, or of all its weights.

Pure arithmetic on an architecture (``ModelSpec``), without weights, so that an adapter can be counted, billed and put
on the wire for a model that nobody loaded. Names are those of ``transformers``' Llama and Qwen2 without the leading
``model.``, e.g. ``layers.0.self_attn.q_proj.lora_A``. A linear layer from n_in to n_out numbers has the weight
``[n_out, n_in]``; its adapter of rank r adds ``(alpha / r) B A`` with A ``[r, n_in]`` and B ``[n_out, r]``.

References:
    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from fedsim.sim.devices.architecture import ModelSpec
from fedsim.sim.devices.cost import Work, training_work

Shape = tuple[int, ...]

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of one decoder layer, which can be a LoRA's targets."""

_ATTENTION = LINEAR_LAYERS[:4]


def lora_shapes(
    spec: ModelSpec, rank: int, targets: Sequence[str], layers: tuple[int, int] | None = None
) -> dict[str, Shape]:
    """Names and shapes of the adapters of one rank on the target layers.

    Their numbers sum to ``L r sum over targets (n_in + n_out)``: with d = hidden = H d_head and d_kv = H_kv d_head, for
    q_proj and v_proj ``L r (2 d + d + d_kv)``, which is 136,192 r for Qwen2.5-Math-1.5B.

    Args:
        spec: the model's architecture.
        rank: r, the adapters' rank.
        targets: names of linear layers.
        layers: first and last decoder layer that get adapters; None: all.

    Raises:
        ValueError: a target is not one of ``LINEAR_LAYERS``, the rank is not positive, or there are not so many layers.
    """
    unknown = [target for target in targets if target not in LINEAR_LAYERS]
    if unknown:
        raise ValueError(f"no linear layer is called {unknown[0]!r}; there are {', '.join(LINEAR_LAYERS)}")
    if rank < 1:
        raise ValueError(f"rank is {rank}; must be at least 1")
    first, last = layers or (0, spec.num_layers - 1)
    if last >= spec.num_layers:
        raise ValueError(f"layers is [{first}, {last}], but there are {spec.num_layers} layers, from 0")
    sizes = _linear_sizes(spec)
    shapes: dict[str, Shape] = {}
    for layer in range(first, last + 1):
        for target in (name for name in LINEAR_LAYERS if name in targets):
            num_in, num_out = sizes[target]
            shapes[f"{_linear_name(layer, target)}.lora_A"] = (rank, num_in)
            shapes[f"{_linear_name(layer, target)}.lora_B"] = (num_out, rank)
    return shapes


def full_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Names and shapes of all weights, a tied matrix once; they sum to ``spec.num_parameters``."""
    sizes = _linear_sizes(spec)
    shapes: dict[str, Shape] = {"embed_tokens.weight": (spec.vocab, spec.hidden)}
    for layer in range(spec.num_layers):
        for target in LINEAR_LAYERS:
            num_in, num_out = sizes[target]
            shapes[f"{_linear_name(layer, target)}.weight"] = (num_out, num_in)
            if _has_bias(spec, target):
                shapes[f"{_linear_name(layer, target)}.bias"] = (num_out,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"layers.{layer}.{norm}.weight"] = (spec.hidden,)
    shapes["norm.weight"] = (spec.hidden,)
    if not spec.tied:
        shapes["lm_head.weight"] = (spec.vocab, spec.hidden)
    return shapes


def num_numbers(shapes: Mapping[str, Shape]) -> int:
    """How many numbers arrays of these shapes hold."""
    return sum(prod(shape) for shape in shapes.values())


def like(spec: ModelSpec, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The same kind of trainable part on another architecture: adapters of the same rank and targets, or all weights.

    Adapters that begin above the first layer begin at the same share of the depth, and go up to the last layer.
    """
    ranks = {shape[0] for name, shape in shapes.items() if name.endswith(".lora_A")}
    if not ranks:
        return full_shapes(spec)
    targets = {name.split(".")[-2] for name in shapes}
    indices = [int(name.split(".")[1]) for name in shapes]
    first = min(indices) * spec.num_layers // (max(indices) + 1)
    wanted = [target for target in LINEAR_LAYERS if target in targets]
    return lora_shapes(spec, max(ranks), wanted, (first, spec.num_layers - 1))


def lora_training_work(spec: ModelSpec, tokens: Sequence[int], num_adapter_numbers: int) -> Work:
    """One optimiser step of the adapters alone, with logits at every position.

    FLOP: with F the forward pass, the frozen weights cost 2 F (forward, and backward to their inputs; they have no
    gradient of their own), and P adapter numbers ``6 P`` a token. Traffic: the frozen weights are read twice; the adapters
    move what ``training_work`` says of trained weights.

    Args:
        spec: the model.
        tokens: length of each row.
        num_adapter_numbers: P, how many numbers are trained.
    """
    everything = training_work(spec, list(tokens), optimiser_bytes_per_parameter=0.0)
    per_number = 4 * spec.bytes_per_parameter + _OPTIMISER_BYTES
    return Work(
        2 * everything.flop / 3 + 6 * num_adapter_numbers * sum(tokens),
        everything.memory_bytes / 2 + per_number * num_adapter_numbers,
        everything.layer_passes,
    )


def local_training_bytes(spec: ModelSpec, num_trainable: int, tokens: int) -> float:
    """Memory that training needs at least: weights, gradients, AdamW's state, and one row's activations.

    With b bytes a number: ``b N`` for all weights, ``b P`` for adapters beside them, ``(b + 12) P`` for gradients and AdamW's
    float32 state (master weight and two moments: 12 bytes), for P trainable numbers; and for a row of s tokens
    ``s (L b (4 h + 2 H d + 2 H_kv d + 3 f) + 8 V)``: what each layer keeps for its backward pass (norms' inputs and outputs;
    queries, keys, values and attention's output; gate, up and their product), and the logits with their gradient in float32.

    Rows are taken one at a time with gradients accumulated, and attention's scores are not kept, which is the least a
    careful runtime gets by with. When all weights are trained the P of adapters is zero (they *are* the weights).

    References:
        Rajbhandari et al., ZeRO, SC 2020, section 3.1 (16 bytes a parameter); Korthikanti et al., Reducing Activation
        Recomputation in Large Transformer Models, MLSys 2023, section 4.1 (the same count for a GPT layer).
    """
    width = spec.bytes_per_parameter
    own = num_trainable if num_trainable < spec.num_parameters else 0
    query, key_value = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    layer = width * (4 * spec.hidden + 2 * query + 2 * key_value + 3 * spec.ffn)
    activations = tokens * (spec.num_layers * layer + 8 * spec.vocab)
    return width * (spec.num_parameters + own) + (width + 12.0) * num_trainable + activations


_OPTIMISER_BYTES = 24.0
"""AdamW's traffic a number, as in ``training_work``."""


def _linear_name(layer: int, target: str) -> str:
    return f"layers.{layer}.{'self_attn' if target in _ATTENTION else 'mlp'}.{target}"


def _linear_sizes(spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """(n_in, n_out) of every linear layer."""
    query, key_value = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    return {
        "q_proj": (spec.hidden, query),
        "k_proj": (spec.hidden, key_value),
        "v_proj": (spec.hidden, key_value),
        "o_proj": (query, spec.hidden),
        "gate_proj": (spec.hidden, spec.ffn),
        "up_proj": (spec.hidden, spec.ffn),
        "down_proj": (spec.ffn, spec.hidden),
    }


def _has_bias(spec: ModelSpec, target: str) -> bool:
    if target == "o_proj":
        return spec.output_bias
    return spec.qkv_bias if target in _ATTENTION else spec.mlp_bias
