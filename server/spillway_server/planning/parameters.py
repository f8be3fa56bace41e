"""How many weights a decoder has, and the bytes that they take, worked out from its config.json alone.

For a model whose files can't be weighed: its hub is out of reach and only its configuration is at hand. The counts are
those of the published architectures: attention with grouped heads or a latent (MLA), gated feed-forward layers, experts
with a router and shared experts, norms. Quantised matrices take their bits plus scales and zero points per group;
embeddings, the output matrix, routers and norms keep 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLAIN_MLP = frozenset({"gpt2", "opt", "bloom", "falcon", "gpt_neox", "phi", "starcoder2", "gpt_bigcode", "bert"})
"""Families whose feed-forward layer has two matrices; all others have a third, the gate."""
_FOUR_NORMS = frozenset({"gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text"})
_NORM_OF_HEADS = frozenset({"qwen3", "qwen3_moe", "qwen3_vl_text", "qwen3_vl_moe_text", "gemma3", "gemma3_text"})
_NORM_OF_WIDTH = frozenset({"olmo2", "olmo3"})
_QKV_BIAS = frozenset({"qwen2", "qwen2_moe", "qwen2_5_vl", "qwen2_vl", "qwen2_5_vl_text"})


@dataclass(frozen=True, slots=True)
class Count:
    """The weights of a model: in matrices that quantisation narrows, of those in experts, and in everything else."""

    matrices: int
    experts: int
    rest: int

    @property
    def total(self) -> int:
        """All weights."""
        return self.matrices + self.rest


def count(config: Mapping[str, Any]) -> Count:
    """Count a decoder's weights; `config` is config.json, a vision tower in it is counted as a plain transformer.

    Raises `LookupError`, `TypeError` or `ValueError` where a size is missing or unusable.
    """
    text = text_part(config)
    hidden, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    attention, attention_rest = _attention(text)
    dense = _mlp(text, int(text.get("intermediate_size_mlp") or text.get("intermediate_size") or 4 * hidden))
    sparse = sparse_layers(text)
    expert_matrices, router = _experts(text)
    shared = _shared(text)
    matrices = layers * attention + (layers - sparse) * dense + sparse * (expert_matrices + shared)
    norms = hidden * (4 if _kind(text) in _FOUR_NORMS else 2)
    rest = layers * (attention_rest + norms) + sparse * router + hidden
    embeddings = int(text["vocab_size"]) * hidden
    rest += embeddings * (1 if tied(config, text) else 2)
    return Count(matrices, sparse * expert_matrices, rest + _vision(config))


def weight_bytes(config: Mapping[str, Any], element_bytes: int) -> int:
    """Return the bytes of a checkpoint with this config.json; `element_bytes` is the size of a plain weight."""
    counted = count(config)
    entry = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(entry, Mapping):
        return counted.total * element_bytes
    each = bytes_per_weight(entry)
    if str(entry.get("quant_method")) == "mxfp4":
        # Only the experts are narrowed: 4 bits, and one 8-bit scale per 32 weights.
        plain = counted.total - counted.experts
        return int(counted.experts * each) + plain * element_bytes
    return int(counted.matrices * each) + counted.rest * element_bytes


def bytes_per_weight(entry: Mapping[str, Any]) -> float:
    """Return the bytes of one quantised weight, its share of scales and zero points included."""
    method = str(entry.get("quant_method", ""))
    if method == "mxfp4":
        return 0.5 + 1 / 32
    bits, group = bits_and_group(entry)
    if bits == 8:
        # One scale per row or per block of 128 x 128: less than a thousandth.
        return 1.0
    # A 16-bit scale and, as most formats have one, a zero point of the weights' own width.
    return bits / 8 + ((2 + bits / 8) / group if group else 0.0)


def bits_and_group(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return the bits of a quantised weight and the weights per scale (0: one scale per row or matrix)."""
    method = str(entry.get("quant_method", ""))
    if method.replace("_", "-") == "compressed-tensors":
        by_name = entry.get("config_groups")
        groups = [one for one in by_name.values() if isinstance(one, Mapping)] if isinstance(by_name, Mapping) else []
        weights = groups[0].get("weights") if groups else None
        weights = weights if isinstance(weights, Mapping) else {}
        return int(weights.get("num_bits") or 8), max(int(weights.get("group_size") or 0), 0)
    if method == "fp8":
        block = entry.get("weight_block_size")
        return 8, int(block[-1]) if isinstance(block, list) and block else 0
    return int(entry.get("bits") or entry.get("w_bit") or 4), max(int(entry.get("group_size") or 0), 0)


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a configuration: its `text_config`, or the whole."""
    inner = config.get("text_config") or config.get("llm_config") or config.get("language_config")
    return inner if isinstance(inner, Mapping) else config


def tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Return whether the output matrix is the embeddings'."""
    named = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return _kind(text).startswith("gemma") if named is None else bool(named)


def head_dim(text: Mapping[str, Any]) -> int:
    """Return the size of one attention head."""
    return int(text.get("head_dim") or int(text["hidden_size"]) // int(text["num_attention_heads"]))


def kv_heads(text: Mapping[str, Any]) -> int:
    """Return the number of key and value heads."""
    names = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    return int(next((text[name] for name in names if text.get(name)), text["num_attention_heads"]))


def expert_count(text: Mapping[str, Any]) -> int:
    """Return the number of routed experts of a layer, 0 for a dense model."""
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    number = next((text[name] for name in names if text.get(name)), 0)
    return int(max(number) if isinstance(number, list) else number)


def sparse_layers(text: Mapping[str, Any]) -> int:
    """Return how many layers have experts."""
    layers = int(text["num_hidden_layers"])
    if not expert_count(text):
        return 0
    dense = max(int(text.get("first_k_dense_replace") or 0), len(text.get("mlp_only_layers") or ()))
    step = int(text.get("decoder_sparse_step") or text.get("interleave_moe_layer_step") or 1)
    return (layers - dense) // max(step, 1)


def _kind(text: Mapping[str, Any]) -> str:
    return str(text.get("model_type", ""))


def _attention(text: Mapping[str, Any]) -> tuple[int, int]:
    """Return one layer's attention weights: in matrices, and in biases and norms."""
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    if text.get("kv_lora_rank"):
        return _latent_attention(text, hidden, heads)
    size, grouped = head_dim(text), kv_heads(text)
    rest = 0
    if text.get("attention_bias") or _kind(text) in _QKV_BIAS:
        rest += (heads + 2 * grouped) * size
    if text.get("attention_bias") and _kind(text) not in _QKV_BIAS:
        rest += hidden
    if _kind(text) in _NORM_OF_HEADS:
        rest += 2 * size
    if _kind(text) in _NORM_OF_WIDTH:
        rest += (heads + grouped) * size
    return hidden * size * (2 * heads + 2 * grouped), rest


def _latent_attention(text: Mapping[str, Any], hidden: int, heads: int) -> tuple[int, int]:
    latent, rope = int(text["kv_lora_rank"]), int(text["qk_rope_head_dim"])
    plain, value = int(text["qk_nope_head_dim"]), int(text["v_head_dim"])
    narrow = int(text.get("q_lora_rank") or 0)
    query = narrow * (hidden + heads * (plain + rope)) if narrow else hidden * heads * (plain + rope)
    keys = hidden * (latent + rope) + latent * heads * (plain + value)
    return query + keys + heads * value * hidden, latent + narrow


def _mlp(text: Mapping[str, Any], width: int) -> int:
    return int(text["hidden_size"]) * width * (2 if _kind(text) in _PLAIN_MLP else 3)


def expert_width(text: Mapping[str, Any]) -> int:
    """Return the inner width of one expert."""
    return int(text.get("moe_intermediate_size") or text.get("intermediate_size") or 0)


def _experts(text: Mapping[str, Any]) -> tuple[int, int]:
    """Return one layer's expert matrices and its router."""
    number = expert_count(text)
    return number * _mlp(text, expert_width(text)), number * int(text["hidden_size"])


def _shared(text: Mapping[str, Any]) -> int:
    number = int(text.get("n_shared_experts") or (1 if _kind(text) == "llama4_text" else 0))
    width = int(text.get("shared_expert_intermediate_size") or 0) or number * expert_width(text)
    return _mlp(text, width) if width else 0


def _vision(config: Mapping[str, Any]) -> int:
    tower = config.get("vision_config")
    if not isinstance(tower, Mapping):
        return 0
    width = int(tower.get("hidden_size") or 0)
    depth = int(tower.get("depth") or tower.get("num_hidden_layers") or 0)
    inner = int(tower.get("intermediate_size") or 4 * width)
    return depth * (4 * width * width + 3 * width * inner)
