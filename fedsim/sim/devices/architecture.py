"""The architecture of a decoder, numbers only: how many parameters it has, what they weigh, and where a spec comes from.

A ``ModelSpec`` is named (a preset), read from a transformers ``config.json``, or made from its dictionary; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsim.config.files import read_json
from fedsim.errors import ModelFileError, ScenarioError
from fedsim.sim.devices.presets import architectures, unknown_name


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Architecture of a decoder with rotary positions, RMS norms, grouped-query attention and a gated MLP.

    ``tied`` means that input embedding and output head are one matrix. ``qkv_bias`` and ``output_bias`` say
    which attention projections carry a bias, ``mlp_bias`` whether the three MLP projections do.
    """

    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    bytes_per_parameter: float = 2.0

    @property
    def num_parameters(self) -> int:
        """All parameters, a tied matrix counted once."""
        head = 0 if self.tied else self.vocab * self.hidden
        return self.num_layers * self._layer_parameters + self.hidden + self.vocab * self.hidden + head

    @property
    def block_parameters(self) -> int:
        """Parameters between embedding and head: layers and the final norm."""
        return self.num_layers * self._layer_parameters + self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the output head, V h."""
        return self.vocab * self.hidden

    @property
    def weight_bytes(self) -> float:
        """Bytes read by one forward pass with logits: all weights but a separate input embedding's table."""
        return self.bytes_per_parameter * (self.block_parameters + self.head_parameters)

    @property
    def kv_bytes_per_token(self) -> float:
        """Key-value cache of one token: ``2 L H_kv d`` numbers of ``bytes_per_parameter`` each."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.bytes_per_parameter

    @property
    def attention_flop_per_pair(self) -> int:
        """FLOP of one new token looking at one visible token: ``4 L H d`` (scores and weighted values)."""
        return 4 * self.num_layers * self.num_heads * self.head_dim

    @property
    def flop_per_token(self) -> int:
        """Linear FLOP of one token's forward pass with logits, without attention: ``2 (N)``."""
        return 2 * (self.block_parameters + self.head_parameters)

    @property
    def _layer_parameters(self) -> int:
        query, key_value = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden * (2 * query + 2 * key_value)
        biases = (query + 2 * key_value) * self.qkv_bias + self.hidden * self.output_bias
        mlp = 3 * self.hidden * self.ffn + (2 * self.ffn + self.hidden) * self.mlp_bias
        return attention + biases + mlp + 2 * self.hidden


def resident_bytes(spec: ModelSpec, cached_tokens: int = 0) -> float:
    """Memory a device needs to run the model: all parameters and the cache of ``cached_tokens`` tokens."""
    return spec.num_parameters * spec.bytes_per_parameter + cached_tokens * spec.kv_bytes_per_token


def architecture(name: str) -> ModelSpec:
    """The architecture preset of this name, e.g. ``Qwen2.5-Math-7B`` (real architectures, numbers only).

    Raises:
        ScenarioError: there is none; names the nearest one.
    """
    table = architectures()
    if name not in table:
        raise ScenarioError(unknown_name("architecture", name, table))
    return spec_from_config(table[name])


def spec_from_file(path: Path) -> ModelSpec:
    """The spec of the model whose transformers ``config.json`` this is.

    Raises:
        ModelFileError: the file cannot be read or is not such a configuration.
    """
    config = read_json(path, ModelFileError)
    if not isinstance(config, dict):
        raise ModelFileError(f"{path}: must be a JSON object with a model's configuration")
    try:
        return spec_from_config(config)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from None


def spec_from_config(config: Mapping[str, Any], bytes_per_parameter: float = 2.0) -> ModelSpec:
    """The spec of a model from the dictionary of its transformers ``config.json`` (``llama`` or ``qwen2``).

    Raises:
        ModelFileError: another ``model_type``; a key is missing, or is not a whole number of a sensible size.
    """
    kind = config.get("model_type")
    if kind not in ("llama", "qwen2"):
        raise ModelFileError(f"model_type is {kind!r}; the cost model knows 'llama' and 'qwen2'")
    hidden, num_heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    return ModelSpec(
        num_layers=_size(config, "num_hidden_layers"),
        hidden=hidden,
        num_heads=num_heads,
        num_kv_heads=_size(config, "num_key_value_heads", num_heads),
        head_dim=_size(config, "head_dim", hidden // num_heads),
        ffn=_size(config, "intermediate_size"),
        vocab=_size(config, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
        output_bias=kind == "llama" and bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
        bytes_per_parameter=bytes_per_parameter,
    )


_LARGEST_SIZE = 10_000_000


def _size(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise ModelFileError(f"the model's config has no {key!r}")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_SIZE:
        raise ModelFileError(f"{key} is {str(value)[:60]}; must be a whole number from 1 to {_LARGEST_SIZE}")
    return value
