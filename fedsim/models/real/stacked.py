"""Several frozen models of one architecture in one pass: every row by its own model's weights.

Small models spend much of a pass on the overhead of some hundred small operations. Clients' models differ in their weights
alone, so what has no weights (attention, rotations, gates) runs once over the rows of all of them, and a product with a weight
matrix runs client by client over its own rows. Rows of one client come in the canonical numbers of a pass by itself, so every
score keeps the bits that it has there; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention, silu
from transformers import DynamicCache, LlamaForCausalLM

from fedsim.models.real.language import Batch, LanguageModel, filled
from fedsim.models.real.lean_llama import half_turned, rotations


def can_stack(languages: Sequence[LanguageModel]) -> bool:
    """Whether the models differ in nothing but their weights, and are lean."""
    first = languages[0]
    return all(
        one.is_lean
        and isinstance(one.network, LlamaForCausalLM)
        and one.network.config.num_key_value_heads == one.network.config.num_attention_heads
        and one.tokens is first.tokens
        and one.shapes == first.shapes
        and [weight.shape for weight in one.network.parameters()]
        == [weight.shape for weight in first.network.parameters()]
        for one in languages
    )


class Stack(LanguageModel):
    """What ``prefill`` and ``answer_scores`` run on when prompts belong to several models; for scoring only, without gradients.

    Args:
        languages: models that ``can_stack``; their weights are read at every pass.
    """

    def __init__(self, languages: Sequence[LanguageModel]) -> None:
        first = languages[0]
        super().__init__(first.network, first.tokenizer, first.shapes, first.tokens)
        self._networks = [language.network for language in languages]
        self._members: list[int] = []

    def assign(self, members: Sequence[int]) -> None:
        """Say which model each of the prompts to come belongs to."""
        self._members = list(members)

    def batches(self, prompts: Sequence[int], full: int) -> Iterator[Batch]:
        """Passes over up to ``full`` rows of every model, each model's rows together and filled up as by itself."""
        items: dict[int, list[int]] = {}
        for item, prompt in enumerate(prompts):
            items.setdefault(self._members[prompt], []).append(item)
        for start in range(0, max(map(len, items.values())), full):
            counts, rows, kept = [0] * len(self._networks), [], []
            for member, own in sorted(items.items()):
                part = torch.tensor(own[start : start + full], dtype=torch.long)
                if len(part):
                    rows.append(filled(part, self.rows(len(part), full)))
                    kept.append(torch.arange(len(part)) + sum(counts))
                    counts[member] = len(rows[-1])
            yield Batch(torch.cat(rows), torch.cat(kept), tuple(counts))

    @torch.no_grad()
    def logits(
        self,
        ids: Tensor,
        bias: Tensor,
        positions: Tensor,
        cache: DynamicCache,
        last: bool = False,
        batch: Batch | None = None,
    ) -> Tensor:
        """As ``lean_logits``, with the rows of ``batch.counts`` by each network's weights."""
        assert batch is not None and batch.counts is not None
        return _stacked_logits(self._networks, batch.counts, ids, bias, positions, cache, last)


def _stacked_logits(
    networks: Sequence[LlamaForCausalLM],
    counts: Sequence[int],
    ids: Tensor,
    bias: Tensor,
    positions: Tensor,
    cache: DynamicCache,
    last: bool,
) -> Tensor:
    """``lean_logits`` line by line, each product cut into the networks' own rows."""
    members = [network for network, count in zip(networks, counts, strict=True) if count]
    sizes = [count for count in counts if count]
    models = [network.model for network in members]
    first = models[0]
    shape = (*ids.shape, members[0].config.num_attention_heads, -1)
    cos, sin = rotations(first.rotary_emb.inv_freq, positions)

    def linear(states: Tensor, weights: Sequence[Tensor]) -> Tensor:
        parts = zip(torch.split(states, sizes), weights, strict=True)
        return torch.cat([torch.nn.functional.linear(part, weight) for part, weight in parts])

    def normed(norms: Sequence[Any], states: Tensor) -> Tensor:
        variance = states.pow(2).mean(-1, keepdim=True)
        scaled = states * torch.rsqrt(variance + norms[0].variance_epsilon)
        for part, norm in zip(torch.split(scaled, sizes), norms, strict=True):
            part.mul_(norm.weight)
        return scaled

    states = torch.cat(
        [
            embedding(part, model.embed_tokens.weight)
            for part, model in zip(torch.split(ids, sizes), models, strict=True)
        ]
    )
    for index in range(len(first.layers)):
        layers = [model.layers[index] for model in models]
        attentions, mlps = [layer.self_attn for layer in layers], [layer.mlp for layer in layers]
        inner = normed([layer.input_layernorm for layer in layers], states)
        query = linear(inner, [a.q_proj.weight for a in attentions]).view(shape).transpose(1, 2)
        key = linear(inner, [a.k_proj.weight for a in attentions]).view(shape).transpose(1, 2)
        value = linear(inner, [a.v_proj.weight for a in attentions]).view(shape).transpose(1, 2)
        query = (query * cos) + (half_turned(query) * sin)
        key = (key * cos) + (half_turned(key) * sin)
        key, value = cache.update(key, value, index)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=attentions[0].scaling)
        flat = mixed.transpose(1, 2).reshape(*ids.shape, -1)
        states = states + linear(flat, [a.o_proj.weight for a in attentions])
        inner = normed([layer.post_attention_layernorm for layer in layers], states)
        gate = silu(linear(inner, [mlp.gate_proj.weight for mlp in mlps]))
        up = linear(inner, [mlp.up_proj.weight for mlp in mlps])
        states = states + linear(gate * up, [mlp.down_proj.weight for mlp in mlps])
    states = normed([model.norm for model in models], states)
    return linear(states[:, -1:] if last else states, [network.lm_head.weight for network in members])
