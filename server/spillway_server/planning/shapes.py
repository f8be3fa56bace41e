"""The shape of a model, as its config.json gives it: weights, attention layers, the KV cache that they keep, context.

The rules are those of vLLM 0.32 (transformers_utils/model_arch_config_convertor.py, config/model.py): which key holds
the longest context, which kinds of rope scaling lengthen it, which families keep one latent per token (MLA).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_server.planning import parameters

GIB = 1024**3
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
# These kinds of rope scaling are already part of max_position_embeddings; the others multiply it.
_SCALED_ALREADY = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default"})
_PATTERNS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6}
_STATE = frozenset({"linear_attention", "mamba", "mamba2", "recurrent", "conv", "short_conv"})
_LARGEST = 1 << 40
"""No size of a model comes near this."""
_LATENT = frozenset({"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "glm4_moe_lite", "longcat_flash"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model.

    `parameters` and `weight_bytes` are its weights; `kv_heads` and `head_dim` are of the attention layers, `heads`
    their query heads (0: unknown); `max_len` is the longest context in tokens. `latent` is the elements that MLA keeps
    per token and layer instead of keys and values. Of `layers`, `sliding` keep only the last `window` tokens.
    `cut_widths` are the widths that tensor parallelism cuts, `group` the weights per scale of a quantised matrix (0:
    not grouped). `experts` is the number of routed experts of a layer, `active_parameters` the weights that one token
    uses (0: all); `largest_file` is the bytes of the largest weight file.
    `rough` says why the KV figure is an upper bound of what is needed; it is empty where the figure is exact.
    """

    parameters: int
    weight_bytes: int
    layers: int
    kv_heads: int
    head_dim: int
    max_len: int
    heads: int = 0
    latent: int = 0
    sliding: int = 0
    window: int = 0
    cut_widths: tuple[int, ...] = ()
    group: int = 0
    experts: int = 0
    active_parameters: int = 0
    largest_file: int = 0
    rough: str = ""

    def kv_elements(self, split: int = 1) -> int:
        """Return the numbers that one layer keeps of one token on one of `split` devices.

        Heads are divided, and repeated where there are fewer heads than devices; a latent is kept whole everywhere.
        """
        return self.latent or 2 * max(self.kv_heads // split, 1) * self.head_dim

    def kv_bytes_per_token(self, element_bytes: int) -> int:
        """Return the bytes of KV cache that one token takes in all layers at this element size."""
        return self.layers * self.kv_elements() * element_bytes


class UnknownStateError(ValueError):
    """The model keeps a recurrent state (Mamba, linear attention), whose memory is not worked out here."""


def shape_of(config: Mapping[str, Any], dtype: str, weights: int, largest_file: int = 0) -> ModelShape:
    """Read the shape from a config.json; `weights` is the bytes of the weight files, 0 to work them out.

    Raises `LookupError`, `TypeError`, `ValueError` or `ArithmeticError` for a missing or unusable size, and
    `UnknownStateError` for layers with a recurrent state.
    """
    text = parameters.text_part(config)
    _refuse_state(text)
    heads, grouped = int(text["num_attention_heads"]), parameters.kv_heads(text)
    size, latent = parameters.head_dim(text), _latent(text)
    sliding, window = _sliding(text)
    rough = "its layers keep keys and values of several sizes" if text.get("global_head_dim") else ""
    if rough:
        size, sliding, window = max(size, int(text["global_head_dim"])), 0, 0
    entry = config.get("quantization_config")
    bits, group = parameters.bits_and_group(entry) if isinstance(entry, Mapping) else (16, 0)
    layers, longest = int(text["num_hidden_layers"]), context(config, text)
    for name, value in (
        ("num_hidden_layers", layers),
        ("num_attention_heads", heads),
        ("num_key_value_heads", grouped),
        ("head_dim", size),
        ("max_position_embeddings", longest),
    ):
        if not 0 < value < _LARGEST:
            raise ValueError(f"{name}, which is {value}")
    return ModelShape(
        parameters=_parameters(config, weights, bits, dtype),
        weight_bytes=weights or parameters.weight_bytes(config, DTYPE_BYTES[dtype]),
        layers=layers,
        kv_heads=grouped,
        head_dim=size,
        max_len=longest,
        heads=heads,
        latent=latent,
        sliding=sliding,
        window=window,
        cut_widths=_cut_widths(text, heads * size if not latent else heads * int(text["v_head_dim"])),
        group=group,
        experts=parameters.expert_count(text),
        active_parameters=_active(config),
        largest_file=largest_file,
        rough=rough,
    )


def context(config: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    """Return the longest context in tokens, as vLLM derives it."""
    named = [int(text[key]) for key in _CONTEXT_KEYS if text.get(key)]
    longest = int(text["model_max_length"]) if text.get("model_max_length") else min(named, default=2048)
    if "gemma3" in str(config.get("model_type", "")):
        return longest
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, Mapping):
        return longest
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    factor = scaling.get("factor") if kind not in _SCALED_ALREADY else None
    return int(longest * float(factor)) if factor else longest


def _parameters(config: Mapping[str, Any], weights: int, bits: int, dtype: str) -> int:
    try:
        counted = parameters.count(config).total
    except (LookupError, TypeError, ValueError):
        return weights * 8 // bits if bits < 16 else weights // DTYPE_BYTES[dtype]
    exact = weights // DTYPE_BYTES[dtype]
    return exact if weights and bits == 16 else counted


def _active(config: Mapping[str, Any]) -> int:
    """Return the weights that one token uses: all but the experts that its router leaves out. 0 for a dense model."""
    text = parameters.text_part(config)
    number = parameters.expert_count(text)
    used = int(text.get("num_experts_per_tok") or text.get("experts_per_token") or 0)
    if not number or not used:
        return 0
    counted = parameters.count(config)
    return counted.total - counted.experts * (number - used) // number


def _refuse_state(text: Mapping[str, Any]) -> None:
    kinds = {str(kind) for kind in text.get("layer_types") or ()}
    if kinds & _STATE or text.get("hybrid_override_pattern") or text.get("ssm_state_size") or text.get("mamba_d_state"):
        raise UnknownStateError("layers with a recurrent state (Mamba or linear attention)")


def _latent(text: Mapping[str, Any]) -> int:
    rank = text.get("kv_lora_rank")
    if not rank or str(text.get("model_type", "")) not in _LATENT:
        return 0
    return int(rank) + int(text["qk_rope_head_dim"])


def _sliding(text: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many layers keep only a window, and the window in tokens."""
    window = text.get("sliding_window")
    if not isinstance(window, int) or window <= 0 or text.get("use_sliding_window") is False:
        return 0, 0
    kinds = text.get("layer_types")
    layers = int(text["num_hidden_layers"])
    if isinstance(kinds, list) and kinds:
        return sum(kind == "sliding_attention" for kind in kinds), window
    every = int(text.get("sliding_window_pattern") or _PATTERNS.get(str(text.get("model_type", "")), 0))
    return (layers - layers // every, window) if every else (layers, window)


def _cut_widths(text: Mapping[str, Any], attention: int) -> tuple[int, ...]:
    widths = [attention]
    if parameters.sparse_layers(text) < int(text["num_hidden_layers"]):
        widths.append(int(text.get("intermediate_size_mlp") or text.get("intermediate_size") or 0))
    if parameters.expert_count(text):
        widths.append(parameters.expert_width(text))
    return tuple(width for width in widths if width)
